"""What a run waits for, for people: derived when somebody asks, from the places and lines as they are then.

Only a limit of a deployment, and of a tag, is recorded as a state (AwaitingConcurrencySlot), once for each run or attempt.
What waits in a queue is not told which place it lacks: of ten thousand runs in a queue of two places, each look would
write ten thousand transitions, or the reason would be an old one.
"""

from __future__ import annotations

import sqlite3

from wfengine_journal.queues import refusal_of
from wfengine_journal.quotas import TAG_PREFIX
from wfengine_journal.waits import WAIT_PREFIX

#: Runs, and names of limits, that are listed at the most.
NAMED = 5


def list_reasons(connection: sqlite3.Connection, flow_run_id: int, at: str) -> list[str]:
    """Return what a run waits for; nothing where it has ended, or does something."""
    row = connection.execute(
        "SELECT state, queue, owner_id, due_at, wake_at FROM flow_run WHERE id = ?", (flow_run_id,)
    ).fetchone()
    if row is None:
        return []
    state, queue, owner_id, due_at, wake_at = row
    if state == "SCHEDULED" and owner_id is None and queue is not None:
        return _of_queued(connection, flow_run_id, str(queue), due_at, at)
    if state == "PAUSED" and wake_at is not None:
        return [f"sleeps until {wake_at[:19]}Z"]
    return _of_running(connection, flow_run_id) if state == "RUNNING" else []


def _of_queued(connection: sqlite3.Connection, flow_run_id: int, queue: str, due_at: str | None, at: str) -> list[str]:
    if due_at is not None and due_at > at:
        return [f"is due at {due_at[:19]}Z"]
    needed = connection.execute(
        "SELECT b.id, b.name FROM dependency n JOIN flow_run b ON b.id = n.needs_run_id"
        " WHERE n.flow_run_id = ? AND b.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') ORDER BY b.id LIMIT ?",
        (flow_run_id, NAMED),
    ).fetchall()
    if needed:
        return [f"waits for the end of flow run {run_id} '{name}'" for run_id, name in needed]
    reason = None if queue.startswith("task:") else refusal_of(connection, flow_run_id, at)
    return [f"waits to be taken out of queue '{queue}', where it has a place" if reason is None else reason]


def _of_running(connection: sqlite3.Connection, flow_run_id: int) -> list[str]:
    rows = connection.execute(
        "SELECT s.name, group_concat(h.flow_run_id) FROM slot s"
        " JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id"
        " LEFT JOIN task_run t ON t.id = s.task_run_id"
        " LEFT JOIN slot h ON h.name = s.name AND h.occupies > 0 AND h.flow_run_id <> 0 AND h.flow_run_id <> s.flow_run_id"
        " WHERE s.flow_run_id = ? AND s.occupies = 0"
        " AND (s.task_run_id = 0 OR t.state IN ('RUNNING', 'SCHEDULED')) GROUP BY s.name ORDER BY s.name LIMIT ?",
        (flow_run_id, NAMED),
    ).fetchall()
    return [_of_line(connection, str(name), holders) for name, holders in rows]


def _of_line(connection: sqlite3.Connection, name: str, holders: str | None) -> str:
    if name.startswith(WAIT_PREFIX):
        run_id = int(name[len(WAIT_PREFIX) :])
        row = connection.execute("SELECT name FROM flow_run WHERE id = ?", (run_id,)).fetchone()
        return f"waits for the end of flow run {run_id}" + ("" if row is None else f" '{row[0]}'")
    what = f"tag '{name[len(TAG_PREFIX) :]}'" if name.startswith(TAG_PREFIX) else f"limit '{name}'"
    runs = sorted({int(run_id) for run_id in (holders or "").split(",") if run_id})
    held = f", held by flow run {', '.join(map(str, runs[:NAMED]))}" if runs else ""
    return f"waits for a place of {what}{held}"
