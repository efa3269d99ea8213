"""The list of runs: one search box, a page at a time, and what can be done with those that are meant."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.readings import run_json
from wfengine.page.saved import SEARCHES, offer
from wfengine.page.search import QUALIFIERS, parse
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import FoundRuns, search_runs
from wfengine_journal.queries import MAX_ID

LIMIT = 50
#: Searches that are offered.
SAVED = (
    ("all", ""),
    ("failed today", "state:failed,crashed since:24h"),
    ("going on", "state:running,pending,scheduled,cancelling"),
    ("waiting for people", "state:paused"),
    ("slow", "duration>5m since:7d"),
)


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of the runs that are searched for."""
    search, wrong = asked.text("q"), None
    try:
        found = search_runs(connection, parse(search), before_id=asked.number("before", MAX_ID), limit=LIMIT)
    except UsageError as error:
        found, wrong = FoundRuns([], None, 0), str(error)
    return {
        "search": search,
        "wrong": wrong,
        "runs": [run_json(run) for run in found.runs],
        "next_before": found.next_before,
        "searched_to": found.searched_to,
        "is_first": not asked.text("before"),
        "read_only": serving.read_only,
        **offer(connection, serving, SEARCHES, search),
    }


def view(data: Data) -> Data:
    """Add what is offered."""
    return {"saved": SAVED, "qualifiers": QUALIFIERS}


PAGE = Page("runs", "/runs", "runs.html", load, view, label="Runs", key="r")
