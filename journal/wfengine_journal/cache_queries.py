"""What people are told of the cache: reads for `wfengine tasks explain-cache`. Nothing here loads a value or writes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from wfengine_journal.errors import NotFoundError
from wfengine_journal.previews import clean

#: Earlier calls among which the nearest is looked for, newest first.
EARLIER = 200
#: Task runs that an error about an ambiguous name lists.
LISTED = 5


@dataclass(frozen=True, slots=True)
class AskedRun:
    """One task run, and what it asked of the cache."""

    id: int
    run_id: int
    run_name: str
    kind: str  # 'task', or 'flow' for the call of a subflow
    task: str
    name: str
    state: str
    inputs: str
    flow_parameters: str
    outcome: str | None  # None: it did not ask
    key: str | None
    parts: dict[str, str]
    message: str | None
    source_run: int | None  # hit: the task run that computed the result
    at: str | None


@dataclass(frozen=True, slots=True)
class EntryNow:
    """What stands under a key now."""

    run_id: int
    task_run_id: int
    created_at: str
    expires_at: str | None


_COLUMNS = """
    SELECT t.id, t.flow_run_id, r.name, k.kind, k.name, coalesce(t.name, k.name || '-' || t.id), t.state, t.inputs,
           r.parameters, u.outcome, u.key, u.parts, u.message, u.source_run, u.at
"""
_FROM_TASK_RUN = """
    FROM task_run t
    JOIN task k ON k.id = t.task_id
    JOIN flow_run r ON r.id = t.flow_run_id
    LEFT JOIN cache_use u ON u.flow_run_id = t.flow_run_id AND u.task_run_id = t.id
"""


def get_asked_run(connection: sqlite3.Connection, run_id: int, reference: str) -> AskedRun:
    """Return the task run of a run that an id, its name, or the name of a task called once means. Raises NotFoundError."""
    number = int(reference) if reference.isascii() and reference.isdigit() and len(reference) < 19 else 0
    rows = connection.execute(
        _COLUMNS
        + _FROM_TASK_RUN
        + " WHERE t.flow_run_id = ? AND (t.id = ? OR t.name = ? OR k.name = ? OR k.name || '-' || t.id = ?)"
        + " ORDER BY t.id LIMIT ?",
        (run_id, number, reference, reference, reference, LISTED + 1),
    ).fetchall()
    exact = [row for row in rows if row[0] == number] or rows
    if len(exact) == 1:
        return _asked(exact[0])
    tasks = f"List them with: wfengine runs show {run_id} --tasks"
    if not exact:
        raise NotFoundError(f"Run {run_id} has no task run {reference!r}. {tasks}")
    listed = ", ".join(f"{row[0]} ({clean(row[5], 60)})" for row in exact[:LISTED])
    more = ", ..." if len(exact) > LISTED else ""
    raise NotFoundError(f"{reference!r} fits several task runs of run {run_id}: {listed}{more}. Name one by its id. {tasks}")


def get_asked_run_by_id(connection: sqlite3.Connection, task_run_id: int) -> AskedRun | None:
    """Return a task run of any run; None if it is gone."""
    row = connection.execute(_COLUMNS + _FROM_TASK_RUN + " WHERE t.id = ?", (task_run_id,)).fetchone()
    return None if row is None else _asked(row)


def list_earlier(connection: sqlite3.Connection, asked: AskedRun) -> list[AskedRun]:
    """Return earlier calls of the same task that had a key, the newest first."""
    rows = connection.execute(
        _COLUMNS
        # CROSS: those who asked first, then their task runs by id; there is no index on the task.
        + " FROM cache_use u CROSS JOIN task_run t ON t.id = u.task_run_id"
        + " JOIN task k ON k.id = t.task_id JOIN flow_run r ON r.id = t.flow_run_id"
        + " WHERE t.task_id = (SELECT task_id FROM task_run WHERE id = ?) AND u.key IS NOT NULL AND u.at <= ? AND t.id <> ?"
        + " ORDER BY u.at DESC, t.id DESC LIMIT ?",
        (asked.id, asked.at or "", asked.id, EARLIER),
    )
    return [_asked(row) for row in rows.fetchall()]


def find_entry_now(connection: sqlite3.Connection, key: str) -> EntryNow | None:
    """Return what stands under a key now; None if nothing does."""
    row = connection.execute(
        "SELECT flow_run_id, task_run_id, created_at, expires_at FROM cache WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else EntryNow(*row)


def _asked(row: sqlite3.Row) -> AskedRun:
    columns = list(row)
    columns[11] = _parts(columns[11])
    return AskedRun(*columns)


def _parts(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:  # not written by us
        return {}
    return {str(name): str(part) for name, part in found.items()} if isinstance(found, dict) else {}
