"""What a trace tells of a run, read from its history: when its executions, task runs and attempts began and ended.

Nothing here writes.
"""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import NamedTuple

_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
#: What became of an attempt, where the state that followed it has this name.
_OUTCOMES = {"AwaitingRetry": "FAILED", "Interrupted": "INTERRUPTED"}


class AttemptSpan(NamedTuple):
    """One attempt of a task run. `outcome`: its last state, 'INTERRUPTED' where its process died in it."""

    attempt: int
    started_at: str
    ended_at: str
    outcome: str
    error_type: str | None


class TaskSpan(NamedTuple):
    """A task run from when it was issued, or issued again, to its end. `scope`: the task run that called it; 0: the body."""

    task_run_id: int
    flow_run_id: int
    epoch: int
    scope: int
    task: str
    name: str
    state: str
    started_at: str
    ended_at: str
    attempts: tuple[AttemptSpan, ...]


class RunSpan(NamedTuple):
    """One execution of a flow run. `message`: of the state that it ended in."""

    flow_run_id: int
    epoch: int
    flow: str
    name: str
    deployment: str | None
    parent_task_run_id: int | None
    reason: str
    started_at: str
    ended_at: str | None
    state: str
    message: str | None


#: State, its name, when, attempt, epoch and type of the error of each transition of a task run, in order.
_Life = list[tuple[str, str | None, str, int, int, str | None]]


def find_task_spans(connection: sqlite3.Connection, calls: str) -> list[TaskSpan]:
    """Return the last life of each task run that has ended. `calls`: a JSON list of [flow run, task run].

    One that has not ended, is gone, or is the call of a subflow is left out.
    """
    tasks = connection.execute(
        "SELECT t.id, t.flow_run_id, t.scope, k.name, coalesce(t.name, k.name || '-' || t.id) FROM json_each(?) c"
        " CROSS JOIN task_run t ON t.id = c.value ->> 1 AND t.flow_run_id = c.value ->> 0"
        " JOIN task k ON k.id = t.task_id WHERE k.kind = 'task'",
        (calls,),
    ).fetchall()
    lives: dict[int, _Life] = {}
    for task_run_id, *row in connection.execute(
        "SELECT h.task_run_id, h.state, h.state_name, h.at, h.attempt, h.epoch, e.type FROM json_each(?) c"
        " CROSS JOIN transition h ON h.flow_run_id = c.value ->> 0 AND h.task_run_id = c.value ->> 1"
        " LEFT JOIN error e ON e.id = h.error_id ORDER BY h.task_run_id, h.seq",
        (calls,),
    ):
        life = lives.setdefault(task_run_id, [])
        if life and life[-1][0] in _ENDED:
            life.clear()  # it is run again: what was before has a span of its own
        life.append(tuple(row))
    found = []
    for task_run_id, flow_run_id, scope, task, name in tasks:
        life = lives.get(task_run_id, [])
        if life and life[-1][0] in _ENDED:
            found.append(_task_span((task_run_id, flow_run_id), scope, task, name, life))
    return found


def _task_span(ids: tuple[int, int], scope: int, task: str, name: str, life: _Life) -> TaskSpan:
    state, _, ended_at, _, epoch, _ = life[-1]
    attempts = tuple(
        AttemptSpan(begun[3], begun[2], over[2], _OUTCOMES.get(over[1] or "", over[0]), over[5])
        for begun, over in pairwise(life)
        if begun[0] == "RUNNING"
    )
    return TaskSpan(*ids, epoch, scope, task, name, state, life[0][2], ended_at, attempts)


def find_run_span(connection: sqlite3.Connection, flow_run_id: int, epoch: int) -> RunSpan | None:
    """Return an execution of a flow run; None: there is none."""
    row = connection.execute(
        """
        SELECT f.name, r.name, f.name || '/' || d.name, r.parent_task_run_id, x.reason, x.started_at
        FROM flow_run r JOIN flow f ON f.id = r.flow_id LEFT JOIN deployment d ON d.id = r.deployment_id
        JOIN execution x ON x.flow_run_id = r.id AND x.epoch = ?
        WHERE r.id = ?
        """,
        (epoch, flow_run_id),
    ).fetchone()
    if row is None:
        return None
    end = connection.execute(
        "SELECT at, state, message FROM transition WHERE flow_run_id = ? AND task_run_id = 0 AND epoch = ?"
        " ORDER BY seq DESC LIMIT 1",
        (flow_run_id, epoch),
    ).fetchone()
    at, state, message = (None, "RUNNING", None) if end is None else end
    return RunSpan._make((flow_run_id, epoch, *row, None if state == "RUNNING" else at, state, message))


def find_last_epoch(connection: sqlite3.Connection, flow_run_id: int) -> int | None:
    """Return the number of the last execution of a flow run."""
    row = connection.execute("SELECT epoch FROM flow_run WHERE id = ?", (flow_run_id,)).fetchone()
    return None if row is None else int(row[0])


def find_caller(connection: sqlite3.Connection, flow_run_id: int) -> tuple[int, int, int] | None:
    """Return (flow run, its epoch, task run) of the call that a subflow's run stands for, and the scope that it was made in."""
    row = connection.execute(
        "SELECT t.flow_run_id, t.epoch, t.scope FROM flow_run r JOIN task_run t ON t.id = r.parent_task_run_id WHERE r.id = ?",
        (flow_run_id,),
    ).fetchone()
    return None if row is None else (int(row[0]), int(row[1]), int(row[2]))
