"""Ticks: what became of each due instant of a schedule. One change writes the ticks, the runs they start and the advance.

What is to become of them is decided elsewhere, from rows read here. A decision is written only if the schedule is as it was
when it was read: of several daemons that decide the same, one is the first, and the others find it done.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from wfengine_journal.deployments import put_paused
from wfengine_journal.errors import InternalError
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.requests import RequestCancel
from wfengine_journal.tickets import WriteRefused


class ScheduleRow(NamedTuple):
    """A schedule and what it needs to know of its deployment; column meanings are in sql/format_4.sql."""

    id: int
    deployment_id: int
    deployment: str  # 'flow/name'
    kind: str
    rule: str
    timezone: str
    anchor_at: str | None
    day_or: int
    parameters: str
    active: int
    deployment_paused: int
    jitter_seconds: float
    starts_at: str | None
    ends_at: str | None
    misfire_grace_seconds: float
    catch_up: str
    catch_up_limit: int
    overlap: str
    decided_to: str | None
    next_at: str | None
    due_at: str | None

    @property
    def is_paused(self) -> bool:
        """Tell whether its ticks are skipped."""
        return not self.active or bool(self.deployment_paused)


class OpenRun(NamedTuple):
    """A run that a schedule started and that has not ended."""

    id: int
    name: str
    state: str
    state_name: str | None
    is_given_up: int  # 1: it crashed so often that nobody takes it up any more but a person
    epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """What becomes of one instant. `run`: the one to start; only then is the outcome 'started'."""

    nominal_at: str
    outcome: str
    reason: str | None = None
    run: RunRequest | None = None
    after_previous: bool = False  # the run waits for the one that the tick before it in the same decision starts


@dataclass(slots=True)
class Decision:
    """What is to be written of one schedule. `is_written` and `started` are set by `DecideTicks`."""

    schedule: ScheduleRow
    ticks: Sequence[Tick]
    decided_to: str | None
    next_at: str | None
    due_at: str | None
    cancels: Sequence[int] = ()  # runs that are asked to be cancelled, since a newer one takes their place
    active: int | None = None  # that the schedule is made so in the same transaction; null: as it is
    is_written: bool = False
    started: list[int] = field(default_factory=list)


class DecideTicks:
    """Write decisions of several schedules in one transaction. One whose schedule has changed meanwhile is left out."""

    __slots__ = ("at", "decisions")

    def __init__(self, decisions: Sequence[Decision], *, at: str) -> None:
        self.decisions = decisions
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        for decision in self.decisions:
            decision.is_written, decision.started = False, []
            decision.is_written = _advance(connection, decision)
            if decision.is_written:
                _write_ticks(connection, decision, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether what this wrote is in the file."""
        written = [decision for decision in self.decisions if decision.is_written and decision.ticks]
        if not written:
            return False  # written again, it finds out anew
        first = written[0]
        row = connection.execute(
            "SELECT 1 FROM tick WHERE schedule_id = ? AND nominal_at = ? AND decided_at = ?",
            (first.schedule.id, first.ticks[0].nominal_at, self.at),
        ).fetchone()
        return row is not None


def _advance(connection: sqlite3.Connection, decision: Decision) -> bool:
    before = decision.schedule
    cursor = connection.execute(
        "UPDATE schedule SET decided_to = ?, next_at = ?, due_at = ?, active = coalesce(?, active)"
        " WHERE id = ? AND decided_to IS ? AND next_at IS ? AND due_at IS ? AND active = ? AND removed_at IS NULL"
        " AND EXISTS (SELECT 1 FROM deployment d WHERE d.id = schedule.deployment_id AND d.paused = ?"
        "             AND d.removed_at IS NULL)",
        (
            decision.decided_to,
            decision.next_at,
            decision.due_at,
            decision.active,
            before.id,
            before.decided_to,
            before.next_at,
            before.due_at,
            before.active,
            before.deployment_paused,
        ),
    )
    return cursor.rowcount == 1


def _write_ticks(connection: sqlite3.Connection, decision: Decision, at: str) -> None:
    for older in decision.cancels:
        _ask_to_cancel(connection, older, decision.schedule.deployment, at)
    for tick in decision.ticks:
        run_id: int | None = None
        if tick.run is not None:
            previous = decision.started[-1:] if tick.after_previous else []
            run_id = _start(connection, tick.run, previous)
            decision.started.append(run_id)
        connection.execute(
            "INSERT INTO tick (schedule_id, nominal_at, outcome, reason, flow_run_id, decided_at) VALUES (?, ?, ?, ?, ?, ?)",
            (decision.schedule.id, tick.nominal_at, tick.outcome, tick.reason, run_id, at),
        )


def _start(connection: sqlite3.Connection, request: RunRequest, previous: Sequence[int]) -> int:
    queue = QueueRun(replace(request, after_runs=(*request.after_runs, *previous)) if previous else request)
    queue.apply(connection)  # the deployment is there, as was seen in this very transaction
    return queue.flow_run_id


def _ask_to_cancel(connection: sqlite3.Connection, run_id: int, deployment: str, at: str) -> None:
    with contextlib.suppress(WriteRefused):  # it has ended meanwhile
        RequestCancel(run_id, message=f"a newer run of {deployment} takes its place", at=at).apply(connection)


class BackfillTicks:
    """Start runs for past instants that started none; what their ticks said before is kept in the reason.

    Sets `started`: instants whose runs were written. An instant that has started a run, meanwhile too, is left as it is.
    """

    __slots__ = ("at", "runs", "schedule_id", "started")

    def __init__(self, schedule_id: int, runs: Sequence[RunRequest], *, at: str) -> None:
        self.schedule_id = schedule_id
        self.runs = runs  # with `nominal_at`, oldest first
        self.at = at
        self.started: dict[str, int] = {}

    def apply(self, connection: sqlite3.Connection) -> None:
        self.started = {}
        previous: list[int] = []
        for request in self.runs:
            nominal_at = request.nominal_at or ""
            row = connection.execute(
                "SELECT outcome FROM tick WHERE schedule_id = ? AND nominal_at = ?", (self.schedule_id, nominal_at)
            ).fetchone()
            if row is not None and row[0] == "started":
                continue
            run_id = _start(connection, request, previous)
            previous = [run_id]
            self.started[nominal_at] = run_id
            reason = "backfill" if row is None else f"backfill (was {row[0]})"
            connection.execute(
                "INSERT INTO tick (schedule_id, nominal_at, outcome, reason, flow_run_id, decided_at)"
                " VALUES (?, ?, 'started', ?, ?, ?) ON CONFLICT (schedule_id, nominal_at) DO UPDATE SET outcome = 'started',"
                " reason = excluded.reason, flow_run_id = excluded.flow_run_id, decided_at = excluded.decided_at",
                (self.schedule_id, nominal_at, reason, run_id, self.at),
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether what this wrote is in the file."""
        for nominal_at, run_id in self.started.items():
            row = connection.execute(
                "SELECT flow_run_id FROM tick WHERE schedule_id = ? AND nominal_at = ?", (self.schedule_id, nominal_at)
            ).fetchone()
            return row is not None and row[0] == run_id
        return False


class SwitchSchedules:
    """Let a deployment, or some of its schedules, start nothing, or start again, together with what that settles of them.

    All of it is committed, or nothing. Refused where there is no such deployment any more, and where a schedule is not as it
    was when its decision was made: `is_outdated` then tells to look again.
    """

    __slots__ = ("at", "decisions", "deployment_id", "is_outdated", "paused")

    def __init__(self, deployment_id: int, decisions: Sequence[Decision], *, paused: bool | None, at: str) -> None:
        """`paused`: what the deployment is to be; null: as it is, its schedules alone are concerned."""
        self.deployment_id = deployment_id
        self.decisions = decisions
        self.paused = paused
        self.at = at
        self.is_outdated = False

    def apply(self, connection: sqlite3.Connection) -> None:
        found = connection.execute(
            "SELECT 1 FROM deployment WHERE id = ? AND removed_at IS NULL", (self.deployment_id,)
        ).fetchone()
        rows = {row.id: row for row in list_schedule_rows(connection, deployment_id=self.deployment_id)}
        self.is_outdated = found is not None and any(
            rows.get(decision.schedule.id) != decision.schedule for decision in self.decisions
        )
        if found is None or self.is_outdated:
            raise WriteRefused
        for decision in self.decisions:
            if not _advance(connection, decision):
                raise InternalError(f"Schedule {decision.schedule.id} changed within a transaction. Please report this.")
            _write_ticks(connection, decision, self.at)
        if self.paused is not None:
            put_paused(connection, self.deployment_id, paused=self.paused, at=self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """See Change: written again, it finds out anew what is settled."""
        return False


# ------------------------------------------------------------------------------------------- reads

_COLUMNS = (
    "SELECT s.id, s.deployment_id, f.name || '/' || d.name, s.kind, s.rule, s.timezone, s.anchor_at, s.day_or, s.parameters,"
    " s.active, d.paused, s.jitter_seconds, s.starts_at, s.ends_at, s.misfire_grace_seconds, s.catch_up, s.catch_up_limit,"
    " s.overlap, s.decided_to, s.next_at, s.due_at"
)
_TABLES = " JOIN deployment d ON d.id = s.deployment_id AND d.removed_at IS NULL JOIN flow f ON f.id = d.flow_id"


def list_due(
    connection: sqlite3.Connection, now: str, limit: int, deployment_ids: Collection[int] | None = None
) -> list[ScheduleRow]:
    """Return the schedules that are to be looked at by now, the longest due first: all, or those of some deployments."""
    among, values = _among(deployment_ids)
    rows = connection.execute(
        f"{_COLUMNS} FROM schedule s {_TABLES}"
        f" WHERE s.due_at IS NOT NULL AND s.removed_at IS NULL AND s.due_at <= ?{among} ORDER BY s.due_at LIMIT ?",
        (now, *values, limit),
    )
    return [ScheduleRow._make(row) for row in rows.fetchall()]


def find_next_due(
    connection: sqlite3.Connection, deployment_ids: Collection[int] | None = None, *, starts: bool = False
) -> str | None:
    """Return when a schedule is to be looked at next; with `starts`, when one is due that is not paused. None: none ever."""
    among, values = _among(deployment_ids)
    among += " AND s.next_at IS NOT NULL AND s.active = 1 AND d.paused = 0" if starts else ""
    row = connection.execute(
        f"SELECT s.due_at FROM schedule s {_TABLES}"
        f" WHERE s.due_at IS NOT NULL AND s.removed_at IS NULL{among} ORDER BY s.due_at LIMIT 1",
        values,
    ).fetchone()
    return None if row is None else str(row[0])


def _among(deployment_ids: Collection[int] | None) -> tuple[str, tuple[object, ...]]:
    if deployment_ids is None:
        return "", ()
    return " AND s.deployment_id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(deployment_ids)),)


def list_schedule_rows(
    connection: sqlite3.Connection,
    *,
    schedule_id: int | None = None,
    deployment_id: int | None = None,
    slug: str | None = None,
) -> list[ScheduleRow]:
    """Return one schedule, or those of a deployment - all, or the ones with that slug - by id."""
    rows = connection.execute(
        f"{_COLUMNS} FROM schedule s {_TABLES} WHERE s.removed_at IS NULL AND (s.id = ? OR s.deployment_id = ?)"
        " AND (? IS NULL OR s.slug = ?) ORDER BY s.id",
        (schedule_id, deployment_id, slug, slug),
    )
    return [ScheduleRow._make(row) for row in rows.fetchall()]


def list_open_runs_of(connection: sqlite3.Connection, schedule: ScheduleRow, limit: int) -> list[OpenRun]:
    """Return the runs that a schedule started and that have not ended, oldest first; runs that go on for them included."""
    rows = connection.execute(
        "SELECT r.id, r.name, r.state, r.state_name, r.state = 'CRASHED' AND r.crashes > d.max_recoveries, r.epoch"
        " FROM flow_run r JOIN tick t ON t.schedule_id = ? AND t.nominal_at = r.nominal_at"
        "  AND (t.flow_run_id = r.id OR r.origin = 'continued')"
        " JOIN deployment d ON d.id = r.deployment_id"
        " WHERE r.deployment_id = ? AND r.nominal_at IS NOT NULL AND r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
        " ORDER BY +r.id LIMIT ?",  # for an order by id, SQLite would go through all runs that the deployment ever had
        (schedule.id, schedule.deployment_id, limit),
    )
    return [OpenRun._make(row) for row in rows.fetchall()]


def find_started(connection: sqlite3.Connection, schedule_id: int, first: str, last: str) -> dict[str, str]:
    """Return the outcomes of the ticks of a schedule from one instant to another, both included."""
    rows = connection.execute(
        "SELECT nominal_at, outcome FROM tick WHERE schedule_id = ? AND nominal_at BETWEEN ? AND ?", (schedule_id, first, last)
    )
    return {str(nominal_at): str(outcome) for nominal_at, outcome in rows.fetchall()}
