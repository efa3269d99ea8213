"""The parts of the page of a run that are read by themselves: its timeline, its graph, its code with what it left behind."""

from __future__ import annotations

import difflib
import math
import sqlite3
from dataclasses import asdict
from typing import Any

from wfengine.identity import differing_arguments, drift_cause
from wfengine.page.asked import Asked, Data
from wfengine.page.chart import BARS, Waterfall, waterfall_of_bars, waterfall_of_groups
from wfengine.page.graph import FOLLOWED, SINGLE, Graph, graph_of_calls, graph_of_tasks
from wfengine.page.kept import Counts
from wfengine.page.lineage import Link, read_links
from wfengine.page.serving import Serving
from wfengine_journal.clock import SystemClock, seconds_from_text, text_from_seconds
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import window_start
from wfengine_journal.queries import list_subflow_runs
from wfengine_journal.rows import Bar, TaskGroup
from wfengine_journal.run_page_queries import (
    CallValues,
    RunCode,
    find_newest_code,
    list_bars_between,
    list_changed_tasks,
    list_codes,
    list_orphans,
)
from wfengine_journal.task_queries import list_bars, list_failures

FAILURES = 20
SUBFLOWS = 50
ORPHANS = 50
EXECUTIONS = 20
CHANGED_TASKS = 50
#: Lines of a difference of code.
DIFF_LINES = 400


# ------------------------------------------------------------------------------------------- timeline


def read_timeline(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    """Return the calls of a run, each or by task, in the stretch of time that is asked for, and what failed."""
    window = _window(asked)
    counted = serving.counts.of(connection, run["id"])
    count = counted.count
    bars = _bars(connection, run, counted, window)
    links = read_links(connection, run["id"], limit=BARS)[1] if bars is not None and count <= BARS else []
    return {
        "count": count,
        "groups": _counted(run, counted),
        "bars": None if bars is None else [asdict(bar) for bar in bars],
        "links": [asdict(link) for link in links],
        "from_s": None if window is None else window[0],
        "to_s": None if window is None else window[1],
        "failures": [asdict(each) for each in list_failures(connection, run["id"], limit=FAILURES)],
        "subflows": [
            {"id": each.id, "name": each.name, "flow": each.flow, "state": each.state, "state_name": each.state_name,
             "duration_s": each.duration_s}
            for each in list_subflow_runs(connection, run["id"], SUBFLOWS)
        ] if any(group.kind == "flow" for group in counted.groups) else [],
    }  # fmt: skip


def _window(asked: Asked) -> tuple[float, float] | None:
    """Return the stretch that is asked for, in seconds from the start of the run."""
    texts = asked.text("from"), asked.text("to")
    if not any(texts):
        return None
    try:
        first, last = (float(text or 0) for text in texts)
    except ValueError:
        raise UsageError("from and to are seconds from the start of the run: ?from=1.5&to=2") from None
    if not (math.isfinite(first) and math.isfinite(last) and 0 <= first < last <= 1e10):
        raise UsageError("from and to are seconds from the start of the run, the first one the smaller: ?from=1.5&to=2")
    return first, last


def _bars(
    connection: sqlite3.Connection, run: Data, counted: Counts, window: tuple[float, float] | None
) -> list[Bar] | None:  # fmt: skip
    """Return the calls to draw one by one; None: there are too many."""
    if counted.count <= BARS:
        found = list_bars(connection, run["id"], limit=BARS)
        if window is None:
            return found
        low, high = window
        return [
            bar for bar in found
            if bar.offset_s <= high and (bar.duration_s is None or bar.offset_s + bar.duration_s >= low)
        ]  # fmt: skip
    if window is None or run["started_at"] is None:
        return None
    start = seconds_from_text(run["started_at"])
    low_at, high_at = text_from_seconds(start + window[0]), text_from_seconds(start + window[1])
    found = list_bars_between(
        connection, run["id"], from_at=low_at, to_at=high_at, limit=BARS + 1, stretches=counted.stretches
    )  # fmt: skip
    return found if len(found) <= BARS else None


def _counted(run: Data, counts: Counts) -> list[Data]:
    now = elapsed_seconds(run)
    counted = []
    for group in counts.groups:
        found = counts.quantiles.get((group.kind, group.task))
        fields = {**asdict(group), "p50_s": None, "p95_s": None, "left_s": _left(run, group, now)}
        if found is not None:
            fields |= {
                "p50_s": found.median_s, "median_s": found.median_s, "p95_s": found.p95_s,
                "total_s": found.mean_s * group.completed,
            }  # fmt: skip
        counted.append(fields)
    return counted


def _left(run: Data, group: TaskGroup, now: float) -> float | None:
    """Return how long the calls that have been made may still take, at the pace of those that ended in this execution."""
    ended = group.completed + group.failed - group.replayed
    if run["ended_at"] is not None or group.starts_s is None or ended <= 0 or not group.running + group.waiting:
        return None
    return (group.running + group.waiting) * max(0.0, now - group.starts_s) / ended


def elapsed_seconds(run: Data) -> float:
    """Return the seconds from the start of a run to its end, or until now."""
    if run["started_at"] is None:
        return 0.0
    until = SystemClock().wall_seconds() if run["ended_at"] is None else seconds_from_text(run["ended_at"])
    return max(0.0, until - seconds_from_text(run["started_at"]))


def draw_timeline(run: Data, timeline: Data) -> Waterfall:
    """Draw what `read_timeline` returned."""
    now = elapsed_seconds(run)
    window = None if timeline["from_s"] is None else (timeline["from_s"], timeline["to_s"])
    if timeline["bars"] is not None:
        links = [Link(**link) for link in timeline["links"]]
        return waterfall_of_bars([Bar(**bar) for bar in timeline["bars"]], now, links, window)
    return waterfall_of_groups([_group(group) for group in timeline["groups"]], now, window)


def zooms(drawn: Waterfall, is_zoomed: bool) -> list[tuple[str, dict[str, str]]]:
    """Return where one can go from a stretch of time: name, and the parameters of the address."""
    first, seconds = drawn.first, drawn.seconds
    moves = [("closer", seconds / 4, -seconds / 4)]
    if is_zoomed:
        moves += [("wider", -seconds / 2, seconds / 2), ("earlier", -seconds / 2, -seconds / 2)]
        moves += [("later", seconds / 2, seconds / 2)]
    found = [(name, stretch(first + low, first + seconds + high)) for name, low, high in moves]
    return [*found, ("all", {})] if is_zoomed else found


def stretch(first: float, last: float) -> dict[str, str]:
    """Return a stretch of time as parameters of an address."""
    first = max(0.0, first)
    return {
        "from": f"{first:.6f}".rstrip("0").rstrip(".") or "0",
        "to": f"{max(last, first + 1e-6):.6f}".rstrip("0").rstrip("."),
    }


def _group(fields: Data) -> TaskGroup:
    return TaskGroup(**{name: fields[name] for name in TaskGroup.__slots__})


# ------------------------------------------------------------------------------------------- graph


def read_graph(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    """Return what was handed from call to call, or from task to task."""
    counted = serving.counts.of(connection, run["id"])
    calls, links = read_links(connection, run["id"], limit=FOLLOWED)
    by_task = counted.count > SINGLE or asked.text("by") == "task"
    return {
        "count": counted.count, "followed": len(calls), "by_task": by_task,
        "groups": [asdict(group) for group in counted.groups],
        "calls": [{"id": each.id, "kind": each.kind, "task": each.task, "state": each.state} for each in calls],
        "links": [asdict(link) for link in links],
    }  # fmt: skip


def draw_graph(graph: Data) -> Graph:
    """Draw what `read_graph` returned."""
    calls = [
        CallValues(each["id"], 0, each["kind"], each["task"], each["state"], None, None, None, None, None)
        for each in graph["calls"]
    ]
    links = [Link(**link) for link in graph["links"]]
    if graph["by_task"]:
        return graph_of_tasks([_group(group) for group in graph["groups"]], calls, links)
    return graph_of_calls(calls, links)


# ------------------------------------------------------------------------------------------- code, and what it left behind


def read_code(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Data:
    """Return with which code the run took place, how that differs from the newest there is, and calls it did not ask for."""
    codes = list_codes(connection, run["id"], EXECUTIONS)
    newest = find_newest_code(connection, run["flow"], window_start(connection))
    return {
        "executions": [{name: value for name, value in asdict(each).items() if name != "source"} for each in codes],
        "source": codes[0].source if codes else None,
        "edits": [edit for older, newer in zip(codes[1:], codes, strict=False) if (edit := _edit(older, newer))],
        "since": _edit(codes[0], newest) if codes and newest is not None and newest.run_id != run["id"] else None,
        "newest": None if newest is None else {"run_id": newest.run_id, "run_name": newest.run_name, "version": newest.version},
        "tasks": [asdict(each) for each in list_changed_tasks(connection, run["id"], CHANGED_TASKS)],
        "orphans": [_orphan(each) for each in list_orphans(connection, run["id"], ORPHANS)],
    }  # fmt: skip


def _edit(older: RunCode, newer: RunCode) -> Data | None:
    """Return how the code of one execution became that of another; None: it is the same, or not known."""
    if older.version == newer.version or older.version is None or newer.version is None:
        return None
    lines: list[str] = []
    if older.source is not None and newer.source is not None:
        compared = difflib.unified_diff(older.source.splitlines(), newer.source.splitlines(), lineterm="", n=3)
        lines = list(compared)[2 : DIFF_LINES + 2]
    return {
        "from_attempt": older.attempt, "to_attempt": newer.attempt, "run_id": newer.run_id, "run_name": newer.run_name,
        "lines": lines,
    }  # fmt: skip


def _orphan(found: Any) -> Data:
    differences: list[Data] = []
    if found.instead_inputs is not None:
        for name, was, now in differing_arguments(found.inputs, found.instead_inputs):
            differences.append({"name": name, "recorded": was, "now": now, "cause": drift_cause(was, now)})
    return {**asdict(found), "differences": differences}
