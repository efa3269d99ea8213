"""Deployments and their schedules, as records: what their authors say of them. Runs of them are made in `queued_runs`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from wfengine_journal.run_transitions import record_flow_transition
from wfengine_journal.tickets import WriteRefused


class ScheduleColumns(NamedTuple):
    """One schedule as its author wants it; column meanings are in sql/format_4.sql."""

    kind: str
    rule: str
    anchor_at: str | None  # null of an interval: keep what it is counted from, else the present instant
    timezone: str
    day_or: bool
    parameters: str
    slug: str
    active: bool
    jitter_seconds: float = 0.0
    starts_at: str | None = None
    ends_at: str | None = None
    misfire_grace_seconds: float = 60.0
    catch_up: str = "last"
    catch_up_limit: int = 100
    overlap: str = "queue"


class DeploymentColumns(NamedTuple):
    """What an author says of a deployment; column meanings are in sql/format_2.sql and sql/format_4.sql."""

    name: str
    entrypoint: str | None
    version: str | None
    description: str | None
    parameters: str
    tags: str | None
    queue: str = "default"
    priority: int = 0
    concurrency_limit: int | None = None
    collision: str = "enqueue"
    isolate: int = 0
    memory_limit_bytes: int | None = None
    time_limit_seconds: float | None = None
    max_recoveries: int = 10
    parameter_schema: str | None = None
    source: str | None = None
    applied_from: str | None = None


class DeploymentRow(NamedTuple):
    """One deployment, as view `deployments` shows it."""

    id: int
    name: str
    flow: str
    full_name: str
    tags: str | None
    schedule: str | None
    active: int
    parameters: str
    version: str | None
    description: str | None
    entrypoint: str | None
    created_at: str
    updated_at: str
    paused: int
    queue: str
    priority: int
    concurrency_limit: int | None
    collision: str
    isolate: int
    max_recoveries: int
    next_at: str | None
    applied_from: str | None


_ROW_COLUMNS = (
    "id, name, flow, full_name, tags, schedule, active, parameters, version, description, entrypoint, created_at, updated_at,"
    " paused, queue, priority, concurrency_limit, collision, isolate, max_recoveries, next_at, applied_from"
)


class PutDeployment:
    """Make the record of a deployment what its author says, schedules included; sets `id` and `outcome`.

    A schedule that stays keeps its row, and an interval without an anchor what it is counted from. One that is new, changed or
    back again is due from now on: `due_at` is now, and the scheduler finds its first instant. One that is gone is marked
    removed, since its ticks stay. `paused` null: as it is. A deployment that was removed is made anew in its row.
    """

    __slots__ = ("at", "columns", "flow_id", "id", "outcome", "paused", "schedules")

    def __init__(
        self, flow_id: int, columns: DeploymentColumns, schedules: Sequence[ScheduleColumns], *, paused: bool | None, at: str
    ) -> None:
        self.flow_id = flow_id
        self.columns = columns
        self.schedules = schedules
        self.paused = paused
        self.at = at
        self.id = 0
        self.outcome = "unchanged"  # or 'created', 'updated'

    def apply(self, connection: sqlite3.Connection) -> None:
        self.outcome = "unchanged"
        before = connection.execute(
            "SELECT id, paused, removed_at, name, entrypoint, version, description, parameters, tags, queue, priority,"
            " concurrency_limit, collision, isolate, memory_limit_bytes, time_limit_seconds, max_recoveries, parameter_schema,"
            " source, applied_from FROM deployment WHERE flow_id = ? AND name = ?",
            (self.flow_id, self.columns.name),
        ).fetchone()
        if before is None:
            self._insert(connection, int(bool(self.paused)))
            self._put_schedules(connection)
            return
        self.id, was_paused, removed_at = int(before[0]), before[1], before[2]
        paused = was_paused if self.paused is None and removed_at is None else int(bool(self.paused))
        changed = self._put_schedules(connection)
        if was_paused and not paused and removed_at is None:
            self._pass_over_pause(connection)
        if changed or removed_at is not None or (*before[3:], was_paused) != (*self.columns, paused):
            self._update(connection, paused)
            self.outcome = "updated" if removed_at is None else "created"

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT updated_at FROM deployment WHERE id = ?", (self.id,)).fetchone()
        return row is not None and (self.outcome == "unchanged" or row[0] == self.at)

    def _insert(self, connection: sqlite3.Connection, paused: int) -> None:
        cursor = connection.execute(
            "INSERT INTO deployment (flow_id, name, entrypoint, version, description, parameters, tags, queue, priority,"
            " concurrency_limit, collision, isolate, memory_limit_bytes, time_limit_seconds, max_recoveries, parameter_schema,"
            " source, applied_from, paused, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.flow_id, *self.columns, paused, self.at, self.at),
        )
        self.id = int(cursor.lastrowid or 0)
        self.outcome = "created"

    def _update(self, connection: sqlite3.Connection, paused: int) -> None:
        connection.execute(
            "UPDATE deployment SET entrypoint = ?, version = ?, description = ?, parameters = ?, tags = ?, queue = ?,"
            " priority = ?, concurrency_limit = ?, collision = ?, isolate = ?, memory_limit_bytes = ?, time_limit_seconds = ?,"
            " max_recoveries = ?, parameter_schema = ?, source = ?, applied_from = ?, paused = ?, removed_at = NULL,"
            " updated_at = ? WHERE id = ?",
            (*self.columns[1:], paused, self.at, self.id),
        )

    def _pass_over_pause(self, connection: sqlite3.Connection) -> None:
        """Let nothing be caught up of a pause that the author ends; what was due then, and nobody looked at, has no tick."""
        connection.execute(
            "UPDATE schedule SET decided_to = ?, next_at = NULL, due_at = ?"
            " WHERE deployment_id = ? AND removed_at IS NULL AND decided_to < ?",
            (self.at, self.at, self.id, self.at),
        )

    def _put_schedules(self, connection: sqlite3.Connection) -> bool:
        """Make the schedules those given; tell whether anything changed."""
        known = {
            tuple(row[1:7]): (int(row[0]), tuple(row[7:-1]), row[-1])
            for row in connection.execute(
                "SELECT id, kind, rule, timezone, day_or, parameters, slug, anchor_at, active, jitter_seconds, starts_at,"
                " ends_at, misfire_grace_seconds, catch_up, catch_up_limit, overlap, removed_at FROM schedule"
                " WHERE deployment_id = ?",
                (self.id,),
            ).fetchall()
        }
        changed = False
        for kind, rule, anchor_at, timezone, day_or, parameters, slug, active, *options in self.schedules:
            identity = (kind, rule, timezone, int(day_or), parameters, slug)
            schedule_id, before, removed_at = known.pop(identity, (None, None, None))
            anchor = anchor_at or (before[0] if before else self.at if kind == "interval" else None)
            wanted = (anchor, int(active), *options)
            if schedule_id is None:
                self._insert_schedule(connection, identity, wanted)
            elif removed_at is not None or before != wanted:
                is_back = removed_at is not None or bool(before and active and not before[1])
                self._update_schedule(connection, schedule_id, wanted, is_back=is_back)
            else:
                continue
            changed = True
        for schedule_id, _, removed_at in known.values():
            if removed_at is None:
                connection.execute(
                    "UPDATE schedule SET removed_at = ?, next_at = NULL, due_at = NULL WHERE id = ?", (self.at, schedule_id)
                )
                changed = True
        return changed

    def _insert_schedule(
        self, connection: sqlite3.Connection, identity: tuple[object, ...], wanted: tuple[object, ...]
    ) -> None:
        connection.execute(
            "INSERT INTO schedule (deployment_id, kind, rule, timezone, day_or, parameters, slug, anchor_at, active,"
            " jitter_seconds, starts_at, ends_at, misfire_grace_seconds, catch_up, catch_up_limit, overlap, decided_to, due_at,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.id, *identity, *wanted, self.at, self.at, self.at),
        )

    def _update_schedule(
        self, connection: sqlite3.Connection, schedule_id: int, wanted: tuple[object, ...], *, is_back: bool
    ) -> None:
        """Write what is wanted of a schedule. What was due while it was removed, or its author had paused it, has no tick."""
        connection.execute(
            "UPDATE schedule SET anchor_at = ?, active = ?, jitter_seconds = ?, starts_at = ?, ends_at = ?,"
            " misfire_grace_seconds = ?, catch_up = ?, catch_up_limit = ?, overlap = ?, removed_at = NULL, next_at = NULL,"
            " due_at = ?, decided_to = CASE WHEN ? THEN max(coalesce(decided_to, ''), ?) ELSE coalesce(decided_to, ?) END"
            " WHERE id = ?",
            (*wanted, self.at, int(is_back), self.at, self.at, schedule_id),
        )


class RemoveDeployment:
    """Remove a deployment: it is due no more, and its runs that nobody began are cancelled. What ran stays, as do its ticks.

    Refused where there is no such deployment any more. Sets `cancelled`: how many runs were.
    """

    __slots__ = ("at", "cancelled", "deployment_id")

    def __init__(self, deployment_id: int, *, at: str) -> None:
        self.deployment_id = deployment_id
        self.at = at
        self.cancelled = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE deployment SET removed_at = ?, updated_at = ? WHERE id = ? AND removed_at IS NULL",
            (self.at, self.at, self.deployment_id),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "UPDATE schedule SET removed_at = ?, next_at = NULL, due_at = NULL WHERE deployment_id = ? AND removed_at IS NULL",
            (self.at, self.deployment_id),
        )
        waiting = connection.execute(
            "SELECT id, version FROM flow_run WHERE deployment_id = ? AND state = 'SCHEDULED' AND epoch = 0"
            " AND owner_id IS NULL ORDER BY id",
            (self.deployment_id,),
        ).fetchall()
        message = "its deployment was removed before it had begun"
        for run_id, version in waiting:
            connection.execute(
                "UPDATE flow_run SET state = 'CANCELLED', state_name = NULL, state_message = ?, version = ?, ended_at = ?,"
                " tasks_done = 0, tasks_total = 0 WHERE id = ?",
                (message, version + 1, self.at, run_id),
            )
            record_flow_transition(connection, run_id, version + 1, "CANCELLED", None, message, 0, None, self.at)
        self.cancelled = len(waiting)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT removed_at FROM deployment WHERE id = ?", (self.deployment_id,)).fetchone()
        return row is not None and row[0] is not None


def put_paused(connection: sqlite3.Connection, deployment_id: int, *, paused: bool, at: str) -> bool:
    """Let the schedules of a deployment start nothing, or start again, within a change; tell whether it is there."""
    cursor = connection.execute(
        "UPDATE deployment SET paused = ?, updated_at = ? WHERE id = ? AND removed_at IS NULL",
        (int(paused), at, deployment_id),
    )
    return cursor.rowcount == 1


# ------------------------------------------------------------------------------------------- reads for people


def list_deployments(connection: sqlite3.Connection, *, flow: str | None = None, limit: int = 1000) -> list[DeploymentRow]:
    """Return deployments by flow and name: all, or those of one flow."""
    rows = connection.execute(
        f"SELECT {_ROW_COLUMNS} FROM deployments WHERE ? IS NULL OR flow = ? ORDER BY flow, name LIMIT ?",
        (flow, flow, limit),
    )
    return [DeploymentRow._make(row) for row in rows.fetchall()]


def find_deployments(connection: sqlite3.Connection, name: str | int) -> list[DeploymentRow]:
    """Return the deployments that 'flow/name', or a name without its flow, means; or the one of an id."""
    text = None if isinstance(name, int) else name
    rows = connection.execute(
        f"SELECT {_ROW_COLUMNS} FROM deployments WHERE full_name = ? OR name = ? OR id = ? ORDER BY flow, name",
        (text, text, name if text is None else None),
    )
    found = [DeploymentRow._make(row) for row in rows.fetchall()]
    return [row for row in found if row.full_name == name] or found


def list_schedules(connection: sqlite3.Connection, deployment_id: int) -> list[ScheduleColumns]:
    """Return the schedules of a deployment, in the order in which they were added."""
    rows = connection.execute(
        "SELECT kind, rule, anchor_at, timezone, day_or, parameters, slug, active, jitter_seconds, starts_at, ends_at,"
        " misfire_grace_seconds, catch_up, catch_up_limit, overlap FROM schedule"
        " WHERE deployment_id = ? AND removed_at IS NULL ORDER BY id",
        (deployment_id,),
    )
    return [ScheduleColumns._make(row)._replace(day_or=bool(row[4]), active=bool(row[7])) for row in rows.fetchall()]


def get_columns(connection: sqlite3.Connection, deployment_id: int) -> DeploymentColumns:
    """Return what the author of a deployment said of it."""
    row = connection.execute(
        "SELECT name, entrypoint, version, description, parameters, tags, queue, priority, concurrency_limit, collision,"
        " isolate, memory_limit_bytes, time_limit_seconds, max_recoveries, parameter_schema, source, applied_from"
        " FROM deployment WHERE id = ?",
        (deployment_id,),
    ).fetchone()
    return DeploymentColumns._make(row)


class ShownSchedule(NamedTuple):
    """One schedule, as view `schedules` shows it."""

    id: int
    deployment: str
    kind: str
    rule: str
    timezone: str
    slug: str
    active: int
    next_at: str | None
    due_at: str | None
    last_at: str | None
    last_outcome: str | None
    catch_up: str
    overlap: str
    misfire_grace_seconds: float
    jitter_seconds: float
    starts_at: str | None
    ends_at: str | None
    parameters: str
    day_or: int
    anchor_at: str | None


class ShownTick(NamedTuple):
    """One due instant of a schedule and what became of it, as view `ticks` shows it."""

    nominal_at: str
    outcome: str
    reason: str | None
    run_id: int | None


def list_shown_schedules(connection: sqlite3.Connection, deployment_id: int | None = None) -> list[ShownSchedule]:
    """Return all schedules, or those of a deployment, by deployment and age."""
    rows = connection.execute(
        "SELECT v.id, v.deployment, v.kind, v.rule, v.timezone, v.slug, v.active, v.next_at, v.due_at, v.last_at,"
        " v.last_outcome, v.catch_up, v.overlap, v.misfire_grace_seconds, v.jitter_seconds, v.starts_at, v.ends_at,"
        " v.parameters, v.day_or, v.anchor_at FROM schedules v JOIN schedule s ON s.id = v.id"
        " WHERE ? IS NULL OR s.deployment_id = ? ORDER BY v.deployment, v.id",
        (deployment_id, deployment_id),
    )
    return [ShownSchedule._make(row) for row in rows.fetchall()]


def list_ticks(connection: sqlite3.Connection, schedule_id: int, limit: int) -> list[ShownTick]:
    """Return the last due instants of a schedule, the newest first."""
    rows = connection.execute(
        "SELECT nominal_at, outcome, reason, flow_run_id FROM tick WHERE schedule_id = ? ORDER BY nominal_at DESC LIMIT ?",
        (schedule_id, limit),
    )
    return [ShownTick._make(row) for row in rows.fetchall()]
