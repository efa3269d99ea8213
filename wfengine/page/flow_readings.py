"""What the pages and the API show of flows, and of all flows on one axis of time: runs that were, and instants that are due."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from wfengine.page.readings import json_of
from wfengine.page.search import instant, seconds
from wfengine_journal.clock import SystemClock, seconds_from_text, text_from_seconds
from wfengine_journal.deployments import ShownSchedule, list_shown_schedules
from wfengine_journal.errors import NotFoundError, ScheduleError, UsageError
from wfengine_journal.flow_page_queries import (
    Cell,
    count_flow_states,
    find_flow,
    list_cells,
    list_flow_counts,
    list_flow_deployments,
    list_flow_runs,
    list_spans,
)
from wfengine_journal.page_queries import SCANNED, window_start
from wfengine_scheduler.rules import ticks_between
from wfengine_scheduler.ticks import rule_of

Data = dict[str, Any]

#: Flows of a list; runs, and tasks, of a grid; deployments of a flow.
FLOWS = 200
RUNS = 30
TASKS = 60
DEPLOYMENTS = 20
#: Runs, flows and instants on one axis of time; schedules that are looked at, and instants of each; seconds ahead at the most.
SPANS = 1_000
LANES = 60
FIRES = 300
SCHEDULES = 50
FIRES_EACH = 50
AHEAD_SECONDS = 366 * 86400.0


def flows_json(connection: sqlite3.Connection) -> Data:
    """Return the flows that the journal knows, with how their newest runs ended."""
    found = list_flow_counts(connection, window_start(connection), FLOWS + 1)
    return {
        "flows": [{**asdict(each), "success_rate": _rate(each.completed, each.failed)} for each in found[:FLOWS]],
        "is_cut": len(found) > FLOWS, "runs_looked_at": SCANNED,
    }  # fmt: skip


def flow_json(connection: sqlite3.Connection, name: str) -> Data:
    """Return one flow: how its newest runs and their calls went, how long they took, and its parameters."""
    found = find_flow(connection, name)
    if found is None:
        raise NotFoundError(f"There is no flow {name[:200]!r} in this journal. See them all: /flows")
    first = window_start(connection)
    runs = list(reversed(list_flow_runs(connection, name, first, RUNS)))
    states = count_flow_states(connection, name, first)
    cells = [cell for run in runs for cell in list_cells(connection, run.id)]
    return {
        "flow": {"name": found[0], "description": found[1], "first_seen_at": found[2]},
        "states": states,
        "success_rate": _rate(states.get("COMPLETED", 0), states.get("FAILED", 0) + states.get("CRASHED", 0)),
        "runs": [asdict(run) for run in runs],
        "tasks": _tasks(cells)[:TASKS],
        "cells": [asdict(cell) for cell in cells],
        "deployments": [
            {"name": each.name, "paused": bool(each.paused), "parameter_schema": json_of(each.parameter_schema)}
            for each in list_flow_deployments(connection, name, DEPLOYMENTS)
        ],
    }  # fmt: skip


def _rate(completed: int, failed: int) -> float | None:
    return completed / (completed + failed) if completed + failed else None


def _tasks(cells: list[Cell]) -> list[str]:
    """Return the tasks in the order in which the newest run that called each called them."""
    starts: dict[int, int] = {}
    for cell in cells:
        starts[cell.run_id] = min(starts.get(cell.run_id, cell.first_id), cell.first_id)
    places = {cell.task: cell.first_id - starts[cell.run_id] for cell in cells}  # of the newest run, which comes last
    return sorted(places, key=lambda task: (places[task], task))


# ------------------------------------------------------------------------------------------- one axis of time


def timeline_json(connection: sqlite3.Connection, since: str, ahead: str) -> Data:
    """Return the runs that were under way since an instant, and what is due in so long, both by flow."""
    start_at, now = instant(since), SystemClock().wall_seconds()
    ahead_seconds = seconds(ahead) if ahead else max(60.0, (now - seconds_from_text(start_at)) / 4)
    if not 0 < ahead_seconds <= AHEAD_SECONDS:
        raise UsageError("ahead is a duration from now on, of a year at the most: ?ahead=12h")
    spans = list_spans(connection, window_start(connection), start_at, SPANS + 1)
    fires, is_more = _fires(connection, now, ahead_seconds)
    return {
        "since": start_at, "since_text": since, "read_at": text_from_seconds(now),
        "until": text_from_seconds(now + ahead_seconds),
        "ahead": ahead,
        "runs": [asdict(span) for span in spans[:SPANS]], "is_cut": len(spans) > SPANS,
        "fires": fires, "is_more_due": is_more,
    }  # fmt: skip


def _fires(connection: sqlite3.Connection, now: float, ahead_seconds: float) -> tuple[list[Data], bool]:
    """Return the instants at which schedules are due, soonest first, and whether there are more of them."""
    start = datetime.fromtimestamp(now, UTC)
    active = [row for row in list_shown_schedules(connection) if row.active]
    found, is_more = [], len(active) > SCHEDULES
    for row in active[:SCHEDULES]:
        instants = _instants(row, start, start + timedelta(seconds=ahead_seconds))
        is_more = is_more or len(instants) == FIRES_EACH
        found += [
            {"at": text_from_seconds(each.timestamp()), "deployment": row.deployment, "schedule_id": row.id}
            for each in instants
        ]
    found.sort(key=lambda fire: (fire["at"], fire["deployment"]))
    return found[:FIRES], is_more or len(found) > FIRES


def _instants(row: ShownSchedule, start: datetime, end: datetime) -> list[datetime]:
    try:
        return ticks_between(rule_of(row), start, end, FIRES_EACH)
    except ScheduleError:  # written by others: the page of schedules says what is wrong with it
        return []
