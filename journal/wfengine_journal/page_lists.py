"""What the pages on deployments, schedules, limits, events and the like read: a page of rows at a time, never all there are."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from wfengine_journal.automations import FiringRow
from wfengine_journal.deployments import DeploymentRow, ShownSchedule, find_deployments
from wfengine_journal.errors import NotFoundError
from wfengine_journal.queries import get_run_head
from wfengine_journal.rows import Run
from wfengine_journal.secrets import SecretListing
from wfengine_journal.variables import VariableRow

#: Firings that are counted of one automation.
COUNTED = 10_000


# ---------------------------------------------------------------------------------------------------- deployments


def page_deployments(
    connection: sqlite3.Connection, *, text: str | None = None, after: tuple[str, str] = ("", ""), limit: int
) -> list[DeploymentRow]:  # fmt: skip
    """Return deployments by flow and name, after one of them; with a text, those whose full name holds it."""
    columns = ", ".join(DeploymentRow._fields)
    rows = connection.execute(
        f"SELECT {columns} FROM deployments WHERE (flow, name) > (?, ?)"
        " AND (? IS NULL OR instr(lower(full_name), lower(?))) ORDER BY flow, name LIMIT ?",
        (*after, text, text, limit),
    )
    return [DeploymentRow._make(row) for row in rows.fetchall()]


def get_deployment(connection: sqlite3.Connection, name: str | int) -> DeploymentRow:
    """Return the one deployment of an id or of a name with its flow. Raises NotFoundError."""
    found = [row for row in find_deployments(connection, name) if isinstance(name, int) or row.full_name == name]
    if not found:
        raise NotFoundError(f"There is no deployment {name!r}. See them with: wfengine deployments ls")
    return found[0]


def list_deployment_runs(connection: sqlite3.Connection, deployment_id: int, *, before_id: int, limit: int) -> list[Run]:
    """Return the newest runs of a deployment below an id, without counting their calls."""
    rows = connection.execute(
        "SELECT id FROM flow_run WHERE deployment_id = ? AND id < ? ORDER BY id DESC LIMIT ?", (deployment_id, before_id, limit)
    )
    return [get_run_head(connection, row[0]) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- schedules


@dataclass(frozen=True, slots=True)
class ScheduleOf:
    """A schedule, and the deployment that it is of. `created_at`: when it came to be."""

    schedule: ShownSchedule
    deployment_id: int
    created_at: str


class TickRow(NamedTuple):
    """One due instant of a schedule, what became of it and why, and the run that it started."""

    nominal_at: str
    outcome: str
    reason: str | None
    run_id: int | None
    run_name: str | None
    run_state: str | None
    decided_at: str


_SCHEDULE = ", ".join(f"v.{name}" for name in ShownSchedule._fields)


def page_schedules(
    connection: sqlite3.Connection, *, text: str | None = None, deployment_id: int | None = None,
    after: tuple[str, int] = ("", 0), limit: int,
) -> list[ScheduleOf]:  # fmt: skip
    """Return schedules by deployment and age, after one of them: all, of one deployment, or whose deployment holds a text."""
    rows = connection.execute(
        f"SELECT {_SCHEDULE}, s.deployment_id, s.created_at FROM schedules v JOIN schedule s ON s.id = v.id"
        " WHERE (v.deployment, v.id) > (?, ?) AND (? IS NULL OR s.deployment_id = ?)"
        " AND (? IS NULL OR instr(lower(v.deployment), lower(?))) ORDER BY v.deployment, v.id LIMIT ?",
        (*after, deployment_id, deployment_id, text, text, limit),
    )
    return [ScheduleOf(ShownSchedule._make(row[:-2]), row[-2], row[-1]) for row in rows.fetchall()]


def list_fresh_schedules(connection: sqlite3.Connection, limit: int) -> list[ScheduleOf]:
    """Return active schedules that no daemon has looked at yet, so that when they are due next is written nowhere."""
    rows = connection.execute(
        f"SELECT {_SCHEDULE}, s.deployment_id, s.created_at FROM schedule s JOIN schedules v ON v.id = s.id"
        " WHERE s.next_at IS NULL AND v.active = 1 ORDER BY s.id DESC LIMIT ?",
        (limit,),
    )
    return [ScheduleOf(ShownSchedule._make(row[:-2]), row[-2], row[-1]) for row in rows.fetchall()]


def get_schedule(connection: sqlite3.Connection, schedule_id: int) -> ScheduleOf:
    """Return one schedule. Raises NotFoundError."""
    row = connection.execute(
        f"SELECT {_SCHEDULE}, s.deployment_id, s.created_at FROM schedules v JOIN schedule s ON s.id = v.id WHERE v.id = ?",
        (schedule_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no schedule {schedule_id}. See them with: wfengine schedules ls")
    return ScheduleOf(ShownSchedule._make(row[:-2]), row[-2], row[-1])


def page_ticks(
    connection: sqlite3.Connection, schedule_id: int, *, before: str, outcome: str | None = None, limit: int
) -> list[TickRow]:  # fmt: skip
    """Return the newest due instants of a schedule before one, newest first; with an outcome, only those that had it."""
    rows = connection.execute(
        "SELECT t.nominal_at, t.outcome, t.reason, t.flow_run_id, r.name, r.state, t.decided_at"
        " FROM tick t LEFT JOIN flow_run r ON r.id = t.flow_run_id"
        " WHERE t.schedule_id = ? AND t.nominal_at < ? AND (? IS NULL OR t.outcome = ?) ORDER BY t.nominal_at DESC LIMIT ?",
        (schedule_id, before, outcome, outcome, limit),
    )
    return [TickRow._make(row) for row in rows.fetchall()]


def list_tick_times(
    connection: sqlite3.Connection, schedule_id: int | None, start: str, end: str, limit: int
) -> list[tuple[int, str, str]]:  # fmt: skip
    """Return (schedule, instant, outcome) of ticks from `start` to before `end`, oldest first: of one schedule, or of all."""
    among, values = ("", ()) if schedule_id is None else ("schedule_id = ? AND", (schedule_id,))
    rows = connection.execute(
        f"SELECT schedule_id, nominal_at, outcome FROM tick WHERE {among} nominal_at >= ? AND nominal_at < ?"
        " ORDER BY nominal_at LIMIT ?",
        (*values, start, end, limit),
    )
    return [tuple(row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- queues and limits


class Holder(NamedTuple):
    """Who holds places of a limit, or waits for some (`occupies` 0), as far as the file knows."""

    run_id: int | None
    run_name: str | None
    task_id: int | None
    pid: int | None
    occupies: int
    since: str


def list_holders(connection: sqlite3.Connection, name: str, limit: int) -> list[Holder]:
    """Return who holds or waits for places of a limit, in the order in which they came, so many at the most."""
    rows = connection.execute(
        """
        SELECT nullif(s.flow_run_id, 0), r.name, nullif(s.task_run_id, 0), o.pid, s.occupies, s.taken_at
        FROM slot s JOIN owner o ON o.id = s.owner_id AND o.ended_at IS NULL
        LEFT JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id AND r.state IN ('RUNNING', 'CANCELLING')
        LEFT JOIN task_run t ON t.id = s.task_run_id
        WHERE s.name = ? AND (s.flow_run_id = 0 OR r.id IS NOT NULL)
          AND (s.occupies = 0 OR s.task_run_id = 0 OR t.state = 'RUNNING') ORDER BY s.id LIMIT ?
        """,
        (name, limit),
    )
    return [Holder._make(row) for row in rows.fetchall()]


def list_waiting_runs(connection: sqlite3.Connection, queue: str, limit: int) -> list[Run]:
    """Return the runs that wait in a queue, in the order in which they are let out."""
    rows = connection.execute(
        "SELECT id FROM flow_run WHERE queue = ? AND queue IS NOT NULL AND state = 'SCHEDULED'"
        " ORDER BY priority DESC, id LIMIT ?",
        (queue, limit),
    )
    return [get_run_head(connection, row[0]) for row in rows.fetchall()]


def list_running_runs(connection: sqlite3.Connection, queue: str, limit: int) -> list[Run]:
    """Return the runs that were let out of a queue and go on, oldest first."""
    rows = connection.execute(
        "SELECT id FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
        " AND state IN ('RUNNING', 'CANCELLING') AND queue = ? ORDER BY +id LIMIT ?",
        (queue, limit),
    )
    return [get_run_head(connection, row[0]) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- automations


def count_firings(connection: sqlite3.Connection, automation_id: int) -> tuple[int, str | None]:
    """Return how often an automation fired, no more than `COUNTED` and one, and when it did last."""
    count = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM firing WHERE automation_id = ? LIMIT ?)", (automation_id, COUNTED + 1)
    ).fetchone()[0]
    last = connection.execute(
        "SELECT fired_at FROM firing WHERE automation_id = ? ORDER BY id DESC LIMIT 1", (automation_id,)
    ).fetchone()
    return int(count), None if last is None else str(last[0])


def page_firings(
    connection: sqlite3.Connection, *, automation_id: int | None, event_id: int | None = None, before_id: int, limit: int
) -> list[FiringRow]:  # fmt: skip
    """Return the newest firings below an id: of one automation, or because of one event, or all."""
    rows = connection.execute(
        """
        SELECT x.id, x.automation_id, a.name, x.event_id, x.context, x.state, x.actions_done, x.results, x.attempts,
               x.next_attempt_at, x.fired_at, x.ended_at
        FROM firing x JOIN automation a ON a.id = x.automation_id
        WHERE x.id < ? AND (? IS NULL OR x.automation_id = ?) AND (? IS NULL OR x.event_id = ?) ORDER BY x.id DESC LIMIT ?
        """,
        (before_id, automation_id, automation_id, event_id, event_id, limit),
    )
    return [FiringRow._make(row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- variables and secrets


def page_variables(
    connection: sqlite3.Connection, *, text: str | None = None, after: str = "", limit: int
) -> list[VariableRow]:  # fmt: skip
    """Return variables by name, after one of them; with a text, those whose name holds it."""
    rows = connection.execute(
        "SELECT name, value, tags, created_at, updated_at FROM variable"
        " WHERE name > ? AND (? IS NULL OR instr(lower(name), lower(?))) ORDER BY name LIMIT ?",
        (after, text, text, limit),
    )
    return [VariableRow._make(row) for row in rows.fetchall()]


def page_secrets(connection: sqlite3.Connection, *, after: str = "", limit: int) -> list[SecretListing]:
    """Return what may be said of secrets, by name, after one of them."""
    rows = connection.execute(
        "SELECT name, version, key_id, source, created_at, updated_at FROM secrets WHERE name > ? ORDER BY name LIMIT ?",
        (after, limit),
    )
    return [SecretListing._make(row) for row in rows.fetchall()]
