"""One run. What grows with it is shown a page at a time, each part under an address of its own."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import asdict
from typing import Any

from wfengine.input_requests import example_text, fields_of
from wfengine.page.chart import BARS, Waterfall, waterfall_of_bars, waterfall_of_groups
from wfengine.page.operations import CHANGES
from wfengine.page.pages.page import Asked, Data, Page
from wfengine.page.readings import json_of, run_detail_json
from wfengine.page.serving import Serving
from wfengine_journal.clock import SystemClock, seconds_from_text
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import SAMPLE, count_groups, list_calls, list_transitions, newest_logs, task_quantiles
from wfengine_journal.queries import MAX_ID, list_bars, list_failures, list_subflow_runs
from wfengine_journal.rows import Bar, TaskGroup

PARTS = ("timeline", "tasks", "logs", "history", "values")
#: Rows of a part.
ROWS = 100
LOG_LINES = 300
FAILURES = 20
SUBFLOWS = 50
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
        "shown_with": serving.commands.shown(["runs", "show", str(run_id)]),
        part: _READERS[part](connection, data["run"], asked),
    }


def _timeline(connection: sqlite3.Connection, run: Data, asked: Asked) -> Data:
    groups = count_groups(connection, run["id"])
    count = sum(group.count for group in groups)
    quantiles = task_quantiles(connection, run["id"])
    counted = []
    for group in groups:
        found = quantiles.get((group.kind, group.task))
        fields = {**asdict(group), "p50_s": None, "p95_s": None}
        if found is not None:
            fields |= {
                "p50_s": found.median_s, "median_s": found.median_s, "p95_s": found.p95_s,
                "total_s": found.mean_s * group.completed,
            }  # fmt: skip
        counted.append(fields)
    return {
        "count": count,
        "groups": counted,
        "bars": [asdict(bar) for bar in list_bars(connection, run["id"], limit=BARS)] if count <= BARS else None,
        "failures": [asdict(each) for each in list_failures(connection, run["id"], limit=FAILURES)],
        "subflows": [
            {"id": each.id, "name": each.name, "flow": each.flow, "state": each.state, "state_name": each.state_name,
             "duration_s": each.duration_s}
            for each in list_subflow_runs(connection, run["id"], SUBFLOWS)
        ] if any(group.kind == "flow" for group in groups) else [],
    }  # fmt: skip


def _tasks(connection: sqlite3.Connection, run: Data, asked: Asked) -> Data:
    found, following = list_calls(
        connection, run["id"], after_id=asked.number("after"), limit=ROWS, task=asked.text("task") or None,
        state=asked.text("state").upper() or None,
    )  # fmt: skip
    return {
        "rows": [{**asdict(each), "inputs": json_of(each.inputs), "result": json_of(each.result)} for each in found],
        "next_after": following, "task": asked.text("task"), "state": asked.text("state"),
    }  # fmt: skip


def _logs(connection: sqlite3.Connection, run: Data, asked: Asked) -> Data:
    level = asked.text("level")
    found = newest_logs(
        connection, run["id"], limit=LOG_LINES, before_id=asked.number("before", MAX_ID), level=LEVELS.get(level, 0),
        text=asked.text("q") or None,
    )  # fmt: skip
    return {
        "lines": [asdict(line) for line in found], "q": asked.text("q"), "level": level, "is_newest": not asked.text("before"),
        "earlier": found[0].id if len(found) == LOG_LINES else None, "last_id": found[-1].id if found else 0,
    }  # fmt: skip


def _history(connection: sqlite3.Connection, run: Data, asked: Asked) -> Data:
    after = (asked.number("after_task"), asked.number("after_seq"))
    found = list_transitions(connection, run["id"], after=after, limit=ROWS)
    last = found[-1] if len(found) == ROWS else None
    return {
        "rows": [asdict(each) for each in found],
        "next": None if last is None else {"after_task": last.task_id or 0, "after_seq": last.seq},
    }


def _values(connection: sqlite3.Connection, run: Data, asked: Asked) -> Data:
    return {"parameters": run["parameters"], "result": run["result"], "tags": run["tags"]}


_READERS = {"timeline": _timeline, "tasks": _tasks, "logs": _logs, "history": _history, "values": _values}


def view(data: Data) -> Data:
    """Add the drawing, and the fields of forms."""
    parameters = data["run"]["parameters"]
    return {
        "part_names": PARTS,
        "levels": LEVELS,
        "sample": SAMPLE,
        "waterfall": _waterfall(data) if data["show"] == "timeline" else None,
        "parameters": parameters if isinstance(parameters, dict) else {},
        "fields": {each["key"]: _fields(each["schema"]) for each in data["inputs"]},
        "examples": {each["key"]: "" if each["schema"] is None else example_text(each["schema"]) for each in data["inputs"]},
        "level_name": lambda number: logging.getLevelName(number).lower(),
    }


def _fields(schema: Any) -> list[tuple[str, str, bool]]:
    return [] if schema is None else fields_of(schema)


def _waterfall(data: Data) -> Waterfall:
    run, timeline = data["run"], data["timeline"]
    now = 0.0
    if run["started_at"] is not None:
        until = SystemClock().wall_seconds() if run["ended_at"] is None else seconds_from_text(run["ended_at"])
        now = max(0.0, until - seconds_from_text(run["started_at"]))
    if timeline["bars"] is not None:
        return waterfall_of_bars([Bar(**bar) for bar in timeline["bars"]], now)
    names = TaskGroup.__slots__
    return waterfall_of_groups([TaskGroup(**{name: group[name] for name in names}) for group in timeline["groups"]], now)


PAGE = Page("run", "/runs/{run_id:int}", "run.html", load, view)
