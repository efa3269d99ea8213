"""What the pages and the API show of the journal, as JSON values: each page and its `.json` twin are made of the same."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wfengine.input_requests import open_requests, parsed_schema
from wfengine.page.lineage import read_neighbours
from wfengine.page.search import instant
from wfengine.page.serving import Serving
from wfengine_journal.clock import SystemClock, seconds_from_text
from wfengine_journal.messages import has_message
from wfengine_journal.page_queries import (
    Attempt,
    BeatingDaemon,
    ParkedRun,
    RunFilter,
    count_buckets,
    count_calls,
    count_states,
    find_cache_answer,
    get_task_run,
    list_attempts,
    list_beating_daemons,
    list_failing_flows,
    list_parked_runs,
    list_transitions,
    list_upcoming,
    newest_logs,
    search_runs,
    usual_seconds,
    window_start,
)
from wfengine_journal.queries import get_run_head, list_executions
from wfengine_journal.rows import Run
from wfengine_journal.task_queries import find_call_in_doubt
from wfengine_journal.waiting_reasons import list_reasons

#: Of what is going on, failing and due, so many are listed.
RUNNING = 12
FAILING = 8
UPCOMING = 10
#: Bars of the overview.
BUCKETS = 48
STATES = ("RUNNING", "SCHEDULED", "PENDING", "PAUSED", "CANCELLING", "CRASHED", "FAILED", "CANCELLED", "COMPLETED")


def json_of(text: str | None) -> object:
    """Return what a JSON text of the journal holds; the text itself when it is a preview and not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def run_json(run: Run) -> dict[str, Any]:
    """Return a run with parameters, result and tags as JSON where they are."""
    return {**asdict(run), **{name: json_of(getattr(run, name)) for name in ("parameters", "result", "tags")}}


def overview_json(connection: sqlite3.Connection, serving: Serving, since: str) -> dict[str, Any]:
    """Return how things are since an instant."""
    start = instant(since)
    first = window_start(connection)
    now = SystemClock().wall_seconds()
    counts = {each.state: each.count for each in count_states(connection, first, start)}
    span = max(60.0, now - seconds_from_text(start))
    seconds = next((each for each in (60, 300, 900, 1800, 3600, 10800, 86400, 604800) if span / each <= BUCKETS), 2592000)
    return {
        "since": start,
        "since_text": since,
        "counts": [{"state": state, "count": counts.get(state, 0)} for state in STATES],
        "bucket_seconds": seconds,
        "buckets": [asdict(each) for each in count_buckets(connection, first, start, seconds)],
        "running": [_going_on(connection, run, first, now) for run in _open_runs(connection)],
        "failing": [asdict(each) for each in list_failing_flows(connection, first, start, FAILING)],
        "upcoming": [asdict(each) for each in list_upcoming(connection, UPCOMING)],
        "inputs": inputs_json(connection, None)[:FAILING],
        "parked": [_parked(connection, each) for each in list_parked_runs(connection, FAILING)],
        "daemons": [_daemon(each, now) for each in list_beating_daemons(connection)],
        "journal": {"path": str(serving.path), "bytes": _size(serving.path), "log_bytes": _size(Path(f"{serving.path}-wal"))},
    }


def _open_runs(connection: sqlite3.Connection) -> list[Run]:
    found = list_heads(connection, ("RUNNING", "CANCELLING"), RUNNING)
    return [run for run in found if run.parent_run_id is None]


def list_heads(connection: sqlite3.Connection, states: tuple[str, ...], limit: int) -> list[Run]:
    """Return the newest runs in states that are no end, without counting their calls."""
    return search_runs(connection, RunFilter(states=states), limit=limit).runs


def _going_on(connection: sqlite3.Connection, run: Run, first: int, now: float) -> dict[str, Any]:
    usual = usual_seconds(connection, run.flow, first)
    took = None if run.started_at is None else max(0.0, now - seconds_from_text(run.started_at))
    left = None if usual is None or took is None or took > usual else usual - took
    return {
        "id": run.id, "name": run.name, "flow": run.flow, "state": run.state, "state_name": run.state_name,
        "started_at": run.started_at, "seconds": took, "calls": count_calls(connection, run.id), "usual_seconds": usual,
        "seconds_left": left,
    }  # fmt: skip


def _parked(connection: sqlite3.Connection, run: ParkedRun) -> dict[str, Any]:
    """Return a run that stopped for a person. `is_settled`: of its call somebody has said it, and it is to be resumed."""
    is_settled = run.state_name == "InDoubt" and find_call_in_doubt(connection, run.run_id) is None
    return {**asdict(run), "is_settled": is_settled}


def _daemon(row: BeatingDaemon, now: float) -> dict[str, Any]:
    return {**asdict(row), "beat_seconds_ago": max(0.0, now - seconds_from_text(row.beat_at))}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ------------------------------------------------------------------------------------------- one run


def run_detail_json(connection: sqlite3.Connection, serving: Serving, run_id: int) -> dict[str, Any]:
    """Return one run without its calls."""
    run = get_run_head(connection, run_id)
    doubt = find_call_in_doubt(connection, run_id) if run.state == "PAUSED" else None
    return {
        "run": run_json(run),
        "calls": count_calls(connection, run_id),
        "actions": actions_of(run),
        "waits_for": list_reasons(connection, run_id, SystemClock().now_text()) if run.ended_at is None else [],
        "inputs": inputs_json(connection, run_id) if run.ended_at is None else [],
        "in_doubt": None if doubt is None else {"run_id": doubt[0], "task_run_id": doubt[1]},
        "executions": [asdict(each) for each in list_executions(connection, run_id)[-20:]],
        "read_only": serving.read_only,
    }


def actions_of(run: Run) -> list[str]:
    """Return the names of the operations that make sense for a run in its state."""
    if run.parent_run_id is not None:
        return ["runs.cancel"] if run.ended_at is None else []
    found = []
    if run.state in ("CRASHED", "FAILED", "PENDING") or (
        run.state == "PAUSED" and run.state_name not in ("Paused", "Suspended")
    ):
        found += ["runs.resume"]
    if run.state in ("FAILED", "CRASHED"):
        found += ["runs.retry"]
    if run.state == "PAUSED" and run.state_name == "Paused":
        found += ["runs.unpause"]
    if run.state in ("RUNNING", "SCHEDULED", "PENDING", "CRASHED") and run.state_name != "Pausing":
        found += ["runs.pause"]
    if run.state in ("RUNNING", "SCHEDULED", "PENDING", "PAUSED", "CRASHED"):
        found += ["runs.cancel"]
    return [*found, "runs.fork"]


def inputs_json(connection: sqlite3.Connection, run_id: int | None) -> list[dict[str, Any]]:
    """Return what runs ask people for, and nobody has answered."""
    return [
        {
            "run_id": row.flow_run_id,
            "run_name": row.run_name,
            "task_run_id": row.task_run_id,
            **{name: value for name, value in request.as_json().items() if name != "number"},
            "key": request.key or str(row.task_run_id),
            "schema": parsed_schema(row),
        }
        for row, request in open_requests(connection, run_id)
        if not has_message(connection, row.flow_run_id, request.topic(row.task_run_id))
    ]


# ------------------------------------------------------------------------------------------- one task run


def task_detail_json(connection: sqlite3.Connection, task_run_id: int) -> dict[str, Any]:
    """Return one task run."""
    found = get_task_run(connection, task_run_id)
    answer = find_cache_answer(connection, found.run_id, task_run_id)
    given_by, gave_to = read_neighbours(connection, found.run_id, task_run_id)
    task = {**asdict(found.task), "inputs": json_of(found.task.inputs), "result": json_of(found.task.result)}
    return {
        "task": task,
        "run": {"id": found.run_id, "name": found.run_name, "flow": found.flow},
        "traceback": found.traceback,
        "interruptions": found.interruptions,
        "occurrence": found.occurrence,
        "tags": json_of(found.tags),
        "why": _why(found.task.state, found.task.state_name, found.task.replayed, found.task.orphan, found.interruptions),
        "cache": None if answer is None else asdict(answer),
        "attempts": _attempts(list_attempts(connection, found.run_id, task_run_id, 200)),
        "given_by": given_by,
        "gave_to": gave_to,
        "history": [
            asdict(each)
            for each in list_transitions(connection, found.run_id, after=(task_run_id, 0), limit=200, task_run_id=task_run_id)
        ],
        "logs": [asdict(line) for line in newest_logs(connection, found.run_id, limit=200, task_run_id=task_run_id)],
    }


def _attempts(found: list[Attempt]) -> list[dict[str, Any]]:
    """Return attempts, each with the seconds from the end of the one before it to its own beginning; null: not known."""
    shown: list[dict[str, Any]] = []
    ended_at: str | None = None
    for each in found:
        waited = None if ended_at is None else max(0.0, seconds_from_text(each.started_at) - seconds_from_text(ended_at))
        shown.append({**asdict(each), "waited_s": waited})
        ended_at = each.ended_at
    return shown


def _why(state: str, name: str, replayed: bool, orphan: bool, interruptions: int) -> str:
    """Return in words why a call ran, or did not."""
    if orphan:
        return "It completed in an earlier attempt of the run, and the code of the last one never asked for it."
    if name == "Cached":
        return "It did not run: an earlier call with the same cache key had the result."
    if name == "Set":
        return "It did not run again: a person gave it this result."
    if name == "Rerun":
        return "A person took its result back, so that it runs again when the run is resumed."
    if name == "NotReady":
        return "It did not run: what it waited for failed, so that there were no inputs to call it with."
    if name == "InDoubt":
        return "It was cut off when its process died, and may have taken effect or not: it waits for a person's word."
    if replayed:
        return "It did not run in the last attempt of the run: its outcome was recorded by an earlier one, and replayed."
    if interruptions:
        times = "once" if interruptions == 1 else f"{interruptions} times"
        after = "and has not run again yet" if state == "CRASHED" else "and ran again"
        return f"It was cut off {times}, when its process died, {after}."
    if state in ("PENDING", "SCHEDULED"):
        return "It has not begun yet, or waits for its next attempt."
    return "It ran: the journal held no outcome of this call."
