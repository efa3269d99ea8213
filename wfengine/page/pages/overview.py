"""The overview: what there is, what runs, what failed, what is due."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.chart import columns
from wfengine.page.deployment_readings import overview_and_due_json
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving
from wfengine_journal.clock import SystemClock, seconds_from_text

#: Since when, as is offered.
SPANS = ("1h", "24h", "7d", "30d")
#: A daemon that has been silent for so many seconds may be dead.
SILENT_SECONDS = 60


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read how things are."""
    return overview_and_due_json(connection, serving, asked.text("since", "24h"))


def view(data: Data) -> Data:
    """Add the drawing."""
    now = SystemClock().wall_seconds()
    return {
        "spans": SPANS,
        "silent_seconds": SILENT_SECONDS,
        "columns": columns(data["buckets"], seconds_from_text(data["since"]), now, data["bucket_seconds"]),
    }


PAGE = Page("overview", "/", "overview.html", load, view, label="Overview", key="o")
