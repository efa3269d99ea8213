"""One run. What grows with it is shown a page at a time, each part under an address of its own."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import asdict
from typing import Any

from wfengine.input_requests import example_text, fields_of
from wfengine.page.asked import Asked, Data
from wfengine.page.operations import CHANGES
from wfengine.page.pages.page import Page
from wfengine.page.readings import json_of, run_detail_json
from wfengine.page.run_parts import draw_graph, draw_timeline, read_code, read_graph, read_timeline, stretch, zooms
from wfengine.page.serving import Serving
from wfengine_journal.artifacts import list_artifacts
from wfengine_journal.call_counts import SAMPLE
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import list_calls, list_transitions, newest_logs
from wfengine_journal.queries import MAX_ID
from wfengine_journal.run_page_queries import list_task_names

PARTS = ("timeline", "graph", "tasks", "logs", "history", "values", "code")
#: Rows of a part.
ROWS = 100
#: Tasks that a fork can be told to begin from, as is offered.
TASK_NAMES = 100
LOG_LINES = 300
ARTIFACTS = 50
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read the head of a run, and the part of it that is shown."""
    run_id, part = asked.id("run_id"), asked.text("show", "timeline")
    if part not in PARTS:
        raise UsageError(f"A run has the parts {', '.join(PARTS)}.")
    data = run_detail_json(connection, serving, run_id)
    commands = {
        each.name: serving.commands.shown(words)
        for each in CHANGES if each.name in data["actions"] and (words := each.words({"run_id": run_id}))
    }  # fmt: skip
    return {
        **data,
        "show": part,
        "commands": commands,
        "typed": _typed(serving, data),
        "shown_with": serving.commands.shown(["runs", "show", str(run_id)]),
        part: _READERS[part](connection, serving, data["run"], asked),
    }


def _typed(serving: Serving, data: Data) -> dict[str, Any]:
    """Return commands to be typed, some with something to fill in: of the run, of its call in doubt, of each input by key."""
    shown, run_id, doubt = serving.commands.shown, str(data["run"]["id"]), data["in_doubt"]
    texts = {each["key"]: None if each["schema"] is None else example_text(each["schema"]) for each in data["inputs"]}
    return {
        "extract": shown(["extract", run_id]),
        "fork": shown(["fork", "--param=NAME=VALUE", run_id]),
        "plan": shown(["resume", "--plan", run_id]),
        "resume": shown(["resume", run_id]),
        "resolve": doubt and shown(["resolve", "--done=JSON", str(doubt["run_id"]), str(doubt["task_run_id"])]),
        "answers": {
            each["key"]: shown(["resume", *([f"--input={text}"] if (text := texts[each["key"]]) else []), str(each["run_id"])])
            for each in data["inputs"]
        },
    }


def _tasks(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    found, following = list_calls(
        connection, run["id"], after_id=asked.number("after"), limit=ROWS, task=asked.text("task") or None,
        state=asked.text("state").upper() or None,
    )  # fmt: skip
    return {
        "rows": [{**asdict(each), "inputs": json_of(each.inputs), "result": json_of(each.result)} for each in found],
        "next_after": following, "task": asked.text("task"), "state": asked.text("state"),
    }  # fmt: skip


def _logs(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    level = asked.text("level")
    found = newest_logs(
        connection, run["id"], limit=LOG_LINES, before_id=asked.number("before", MAX_ID), level=LEVELS.get(level, 0),
        text=asked.text("q") or None,
    )  # fmt: skip
    return {
        "lines": [asdict(line) for line in found], "q": asked.text("q"), "level": level, "is_newest": not asked.text("before"),
        "earlier": found[0].id if len(found) == LOG_LINES else None, "last_id": found[-1].id if found else 0,
    }  # fmt: skip


def _history(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    after = (asked.number("after_task"), asked.number("after_seq"))
    found = list_transitions(connection, run["id"], after=after, limit=ROWS)
    last = found[-1] if len(found) == ROWS else None
    return {
        "rows": [asdict(each) for each in found],
        "next": None if last is None else {"after_task": last.task_id or 0, "after_seq": last.seq},
    }


def _values(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    return {
        "parameters": run["parameters"], "result": run["result"], "tags": run["tags"],
        "artifacts": [
            {**each._asdict(), "data": each.data if each.type == "markdown" else json_of(each.data)}
            for each in list_artifacts(connection, run_id=run["id"], limit=ARTIFACTS)
        ],
        "task_names": list_task_names(connection, run["id"], TASK_NAMES),
    }  # fmt: skip


_READERS = {
    "timeline": read_timeline, "graph": read_graph, "tasks": _tasks, "logs": _logs, "history": _history, "values": _values,
    "code": read_code,
}  # fmt: skip


def view(data: Data) -> Data:
    """Add the drawing, and the fields of forms."""
    parameters = data["run"]["parameters"]
    drawn = draw_timeline(data["run"], data["timeline"]) if data["show"] == "timeline" else None
    return {
        "part_names": PARTS,
        "levels": LEVELS,
        "sample": SAMPLE,
        "waterfall": drawn,
        "zooms": [] if drawn is None else zooms(drawn, data["timeline"]["from_s"] is not None),
        "stretch": stretch,
        "drawing": draw_graph(data["graph"]) if data["show"] == "graph" else None,
        "parameters": parameters if isinstance(parameters, dict) else {},
        "fields": {each["key"]: _fields(each["schema"]) for each in data["inputs"]},
        "examples": {each["key"]: "" if each["schema"] is None else example_text(each["schema"]) for each in data["inputs"]},
        "level_name": lambda number: logging.getLevelName(number).lower(),
    }


def _fields(schema: Any) -> list[tuple[str, str, bool]]:
    return [] if schema is None else fields_of(schema)


PAGE = Page("run", "/runs/{run_id:int}", "run.html", load, view)
