"""The only code that changes the state of a flow run: the changes of `transitions`, for whole runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wfengine_journal.codec import Encoded, EncodedError, encode
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import (
    FROM_STATES,
    Argument,
    BeginCall,
    ChangeFromCall,
    RecordedChange,
    result_columns,
    store_arguments,
    store_error,
    store_value,
)

if TYPE_CHECKING:
    from wfengine_journal.queued_runs import Opening


class Admission(Protocol):
    """What decides, in the transaction of a claim, whether a queued run may begin now: limits of its queue and deployment."""

    def check(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        """Raise WriteRefused where it may not. Writes nothing."""

    def admit(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        """Note that it began. Refuses nothing."""


class CreateFlowRun(RecordedChange):
    """Write a new flow run that starts at once, with its first execution. Sets `flow_run_id`.

    The subflow of a run that was asked to stop is refused.
    """

    __slots__ = ("arguments", "at", "code_id", "columns", "deadline_at", "name", "owner_id", "parent_task_run_id")

    def __init__(
        self, *, name: str, flow_id: int, parent_task_run_id: int | None, owner_id: int, code_id: int | None,
        durability: str, parameters: str, arguments: Sequence[Argument], tags: str | None, idempotency_key: str | None,
        entrypoint: str | None, flow_hash: bytes | None, at: str, deadline_at: str | None = None,
        continues: int | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = 0
        self.task_run_id = 0
        self.seq = 1
        self.owner_id = owner_id
        self.code_id = code_id
        self.arguments = arguments
        self.parent_task_run_id = parent_task_run_id
        self.at = at
        self.name = name
        self.deadline_at = deadline_at
        self.columns = (
            name, flow_id, parent_task_run_id, owner_id, durability, parameters, tags, idempotency_key, entrypoint, flow_hash,
            at, at, deadline_at, None if continues is None else "continued", continues,
        )  # fmt: skip

    def apply(self, connection: sqlite3.Connection) -> None:
        if self.parent_task_run_id is not None:
            _refuse_in_stopping(connection, self.parent_task_run_id)
        try:
            cursor = connection.execute(
                "INSERT INTO flow_run (name, flow_id, parent_task_run_id, state, version, epoch, owner_id, durability,"
                " parameters, tags, idempotency_key, entrypoint, flow_hash, created_at, started_at, deadline_at, origin,"
                " origin_run_id) VALUES (?, ?, ?, 'RUNNING', 1, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.columns,
            )
        except sqlite3.IntegrityError as error:
            raise WriteRefused from error  # another process used the idempotency key between our look and this insert
        self.flow_run_id = int(cursor.lastrowid or 0)
        _record_execution(connection, self.flow_run_id, 1, self.owner_id, self.code_id, "start", self.at)
        record_flow_transition(connection, self.flow_run_id, 1, "RUNNING", None, None, 1, None, self.at)
        if self.arguments:
            store_arguments(connection, self.flow_run_id, 0, self.arguments, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return _is_executed_by(connection, self.flow_run_id, 1, self.owner_id)


def _refuse_in_stopping(connection: sqlite3.Connection, task_run_id: int) -> None:
    """Refuse what a call would begin in a run that was asked to stop after the call itself began."""
    row = connection.execute(
        "SELECT 1 FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id"
        " WHERE t.id = ? AND (r.state <> 'RUNNING' OR r.state_name IS 'Pausing')",
        (task_run_id,),
    ).fetchone()
    if row is not None:
        raise WriteRefused


class QueuedCall(NamedTuple):
    """The one call of a queued flow run, as it is written before anybody executes it."""

    task_id: int
    call_key: bytes
    inputs: str
    name: str | None
    tags: str | None
    arguments: Sequence[Argument]


class ScheduleFlowRun(RecordedChange):
    """Write a new flow run that waits in a queue until a process claims it, and its one call. Sets both ids.

    It is not taken up before the runs in `needs` have ended; it is to fail with those marked True.
    """

    __slots__ = ("arguments", "at", "call", "call_id", "columns", "needs")

    def __init__(
        self, *, name: str, flow_id: int, queue: str, durability: str, parameters: str, arguments: Sequence[Argument],
        tags: str | None, entrypoint: str | None, call: QueuedCall, needs: Mapping[int, bool], at: str,
    ) -> None:  # fmt: skip
        self.flow_run_id = 0
        self.task_run_id = 0
        self.call_id = 0
        self.seq = 1
        self.arguments = arguments
        self.call = call
        self.needs = needs
        self.at = at
        self.columns = (name, flow_id, queue, durability, parameters, tags, entrypoint, at)

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "INSERT INTO flow_run (name, flow_id, queue, state, version, epoch, durability, parameters, tags, entrypoint,"
            " created_at) VALUES (?, ?, ?, 'SCHEDULED', 1, 0, ?, ?, ?, ?, ?)",
            self.columns,
        )
        self.flow_run_id = flow_run_id = int(cursor.lastrowid or 0)
        record_flow_transition(connection, flow_run_id, 1, "SCHEDULED", None, None, 0, None, self.at)
        store_arguments(connection, flow_run_id, 0, self.arguments, self.at)
        for needed, must_complete in self.needs.items():
            connection.execute(
                "INSERT INTO dependency (flow_run_id, needs_run_id, must_complete) VALUES (?, ?, ?)",
                (flow_run_id, needed, int(must_complete)),
            )
        self._write_call(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return is_run_written(connection, self.flow_run_id, self.columns[0], self.at)

    def _write_call(self, connection: sqlite3.Connection) -> None:
        task_id, call_key, inputs, name, tags, arguments = self.call
        cursor = connection.execute(
            "INSERT INTO task_run (flow_run_id, scope, task_id, call_key, occurrence, lane, name, state, version, epoch,"
            " attempt, inputs, tags) VALUES (?, 0, ?, ?, 0, 0, ?, 'PENDING', 1, 0, 0, ?, ?)",
            (self.flow_run_id, task_id, call_key, name, inputs, tags),
        )
        self.call_id = int(cursor.lastrowid or 0)
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, epoch, attempt, at)"
            " VALUES (?, ?, 1, 'PENDING', 0, 0, ?)",
            (self.flow_run_id, self.call_id, self.at),
        )
        store_arguments(connection, self.flow_run_id, self.call_id, arguments, self.at)


class Scheduling(Protocol):
    """A change that writes a queued flow run: `ScheduleFlowRun`, or one of a deployment (`queued_runs.QueueRun`)."""

    flow_run_id: int

    def apply(self, connection: sqlite3.Connection) -> None:
        """See Change."""


class ScheduleFromCall(ChangeFromCall):
    """Write a queued flow run together with the completed call, in a running one, that put it there.

    Both or neither are in the file, so that a resumed run is given the run it already put there.
    """

    __slots__ = ("scheduled",)

    def __init__(self, begin: BeginCall, scheduled: Scheduling) -> None:
        super().__init__(begin)
        self.scheduled = scheduled

    def apply(self, connection: sqlite3.Connection) -> None:
        self._begin_call(connection)
        self.scheduled.apply(connection)
        self._complete_call(connection, encode(self.scheduled.flow_run_id, "the id of a background run"))


class ClaimFlowRun(RecordedChange):
    """Take up a flow run that is not running: one process can, and every older epoch is fenced off.

    A first start, and a person's resume, count its deadline anew; a recovery and a retry leave it where it is. Where an
    `admission` says that a run out of a queue may not begin now, it is refused.
    """

    __slots__ = (
        "admission", "at", "code_id", "deadline_at", "epoch", "opening", "owner_id", "reason", "rerun", "version",
    )  # fmt: skip

    def __init__(
        self, flow_run_id: int, *, version: int, epoch: int, owner_id: int, code_id: int | None, reason: str, at: str,
        deadline_at: str | None = None, rerun: str | None = None, opening: Opening | None = None,
        admission: Admission | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.version = version  # as read before; a changed one means that somebody else was quicker
        self.epoch = epoch  # the new one
        self.seq = version + 1
        self.owner_id = owner_id
        self.code_id = code_id
        self.reason = reason
        self.at = at
        self.deadline_at = deadline_at
        self.rerun = rerun  # what a person asked to run again beside what runs again anyway: words of `execution.rerun`
        self.opening = opening
        self.admission = admission

    def apply(self, connection: sqlite3.Connection) -> None:
        if self.admission is not None:
            self.admission.check(connection, self.flow_run_id)
        name = {"start": None, "retry": "Retrying"}.get(self.reason, "Resuming")
        cursor = connection.execute(
            "UPDATE flow_run SET state = 'RUNNING', state_name = ?, state_message = NULL, version = ?, epoch = ?, owner_id = ?,"
            " failures = CASE WHEN ? = 'resume' THEN 0 ELSE failures END,"
            " crashes = CASE WHEN ? = 'resume' THEN 0 ELSE crashes END,"
            " next_attempt_at = CASE WHEN ? = 'retry' THEN next_attempt_at END,"
            " deadline_at = CASE WHEN ? IN ('start', 'resume') THEN ? ELSE deadline_at END,"
            " started_at = coalesce(started_at, ?), ended_at = NULL, tasks_done = NULL, tasks_total = NULL, wake_at = NULL"
            " WHERE id = ? AND version = ? AND epoch = ?"
            " AND (state IN ('PENDING', 'SCHEDULED', 'PAUSED', 'CRASHED', 'FAILED', 'CANCELLED')"
            "  OR (state = 'COMPLETED' AND state_name = 'RolledBack'))",
            (
                name,
                self.seq,
                self.epoch,
                self.owner_id,
                self.reason,
                self.reason,
                self.reason,
                self.reason,
                self.deadline_at,
                self.at,
                self.flow_run_id,
                self.version,
                self.epoch - 1,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        if self.opening is not None:
            self.opening.write(connection, self.flow_run_id, self.at)
        if self.admission is not None:
            self.admission.admit(connection, self.flow_run_id)
        _record_execution(
            connection, self.flow_run_id, self.epoch, self.owner_id, self.code_id, self.reason, self.at, self.rerun
        )
        record_flow_transition(connection, self.flow_run_id, self.seq, "RUNNING", name, None, self.epoch, None, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return _is_executed_by(connection, self.flow_run_id, self.epoch, self.owner_id)


class EndFlowRun(RecordedChange):
    """Leave RUNNING: a terminal state, a pause, or a wait for the next attempt of the flow. Sets `seq`.

    Another process may have moved the run on meanwhile, by asking to cancel it; the epoch says who executes it.
    """

    __slots__ = (
        "adopted_ids", "at", "cancels_calls", "counts_failure", "epoch", "error", "fatal_task_run_ids", "message",
        "next_attempt_at", "orphan_ids", "result", "state", "state_name", "wake_at",
    )  # fmt: skip

    def __init__(
        self, flow_run_id: int, *, epoch: int, at: str, state: str, state_name: str | None = None,
        message: str | None = None, result: Encoded | None = None, error: EncodedError | None = None,
        fatal_task_run_ids: Sequence[int] = (), orphan_ids: Sequence[int] = (), adopted_ids: Sequence[int] = (),
        next_attempt_at: str | None = None, counts_failure: bool = False, wake_at: str | None = None,
        cancels_calls: bool = False,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.seq = 0
        self.epoch = epoch
        self.at = at
        self.state = state
        self.state_name = state_name
        self.message = message
        self.result = result
        self.error = error
        self.fatal_task_run_ids = fatal_task_run_ids
        self.orphan_ids = orphan_ids  # completed calls that nobody asked for
        self.adopted_ids = adopted_ids  # earlier orphans that were asked for after all
        self.next_attempt_at = next_attempt_at
        self.counts_failure = counts_failure
        self.wake_at = wake_at  # of a suspended run: when its timer ends
        self.cancels_calls = cancels_calls  # somebody asked to cancel the run: what it leaves unfinished is cancelled too

    def apply(self, connection: sqlite3.Connection) -> None:
        at, flow_run_id = self.at, self.flow_run_id
        stored = result_columns(self.result) if self.result is not None else (None, None, None, None)
        ended = at if self.state in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED") else None
        row = connection.execute("SELECT version FROM flow_run WHERE id = ?", (flow_run_id,)).fetchone()
        if row is None:
            raise WriteRefused
        self.seq = int(row[0]) + 1
        cursor = connection.execute(
            "UPDATE flow_run SET state = ?, state_name = ?, state_message = ?, version = ?, result = ?, result_codec = ?,"
            " result_hash = ?, result_preview = ?, error_id = NULL, failures = failures + ?, next_attempt_at = ?, ended_at = ?,"
            " tasks_total = (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id AND k.kind = 'task'"
            "                WHERE t.flow_run_id = ?),"
            " tasks_done = (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id AND k.kind = 'task'"
            "               WHERE t.flow_run_id = ? AND t.state = 'COMPLETED')"
            " WHERE id = ? AND epoch = ? AND state IN ('RUNNING', 'CANCELLING')"
            f" AND state IN ({FROM_STATES[self.state]}) AND NOT (state_name IS 'Pausing' AND ? = 'SCHEDULED')",
            (
                self.state,
                self.state_name,
                self.message,
                self.seq,
                *stored,
                int(self.counts_failure),
                self.next_attempt_at,
                ended,
                flow_run_id,
                flow_run_id,
                flow_run_id,
                self.epoch,
                self.state,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        if self.cancels_calls:
            cancel_unfinished_calls(connection, flow_run_id, self.message or "", at)
        else:  # a body or task that timed out, or raised beside running coroutines, can leave calls behind
            _interrupt_running_calls(connection, flow_run_id, "its flow run ended first", at, counts=False)
        if self.result is not None and stored[0] is None:
            store_value(connection, self.result, at)
        if self.wake_at is not None:
            connection.execute("UPDATE flow_run SET wake_at = ? WHERE id = ?", (self.wake_at, flow_run_id))
        error_id = None
        if self.error is not None:
            error_id = store_error(connection, self.error)
            connection.execute("UPDATE flow_run SET error_id = ? WHERE id = ?", (error_id, flow_run_id))
        for task_run_id in self.fatal_task_run_ids:
            connection.execute(
                "UPDATE task_run SET fatal = 1 WHERE id = ? AND (state IN ('FAILED', 'CANCELLED', 'CRASHED')"
                " OR (state = 'COMPLETED' AND state_name = 'RolledBack'))",
                (task_run_id,),
            )
        for task_run_id in self.adopted_ids:
            connection.execute("UPDATE task_run SET orphaned_in = NULL WHERE id = ?", (task_run_id,))
        for task_run_id in self.orphan_ids:
            connection.execute("UPDATE task_run SET orphaned_in = ? WHERE id = ?", (self.epoch, task_run_id))
        record_flow_transition(
            connection, flow_run_id, self.seq, self.state, self.state_name, self.message, self.epoch, error_id, at
        )


class RollBackFlowRun(RecordedChange):
    """Record that a transaction around a completed subflow undid a part of it, so that it runs again with its caller."""

    __slots__ = ("at", "epoch")

    def __init__(self, flow_run_id: int, *, seq: int, epoch: int, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.seq = seq
        self.epoch = epoch
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        message = "undone by the rollback of the transaction around it"
        cursor = connection.execute(
            "UPDATE flow_run SET state_name = 'RolledBack', state_message = ?, version = ?"
            " WHERE id = ? AND version = ? AND epoch = ? AND state = 'COMPLETED'",
            (message, self.seq, self.flow_run_id, self.seq - 1, self.epoch),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        record_flow_transition(
            connection, self.flow_run_id, self.seq, "COMPLETED", "RolledBack", message, self.epoch, None, self.at
        )


class CrashFlowRun(RecordedChange):
    """Record that the process of a running flow run died (or is being replaced), and which calls that cut off.

    A run that a person had asked to cancel is cancelled by that, one that was to be paused is paused. Sets `state`.
    """

    __slots__ = ("at", "counts", "epoch", "message", "state", "version")

    def __init__(
        self, flow_run_id: int, *, version: int | None, epoch: int, at: str, message: str, counts: bool = True
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.version = version  # as read before; null: whatever it is, the process that executes the run says so itself
        self.seq = 0
        self.epoch = epoch
        self.at = at
        self.message = message
        self.state = "CRASHED"
        self.counts = counts  # whether the calls cut off bear it as an interruption: a crash, not a person's Ctrl-C

    def apply(self, connection: sqlite3.Connection) -> None:
        at, flow_run_id = self.at, self.flow_run_id
        row = connection.execute(
            "SELECT version, state, state_name, state_message FROM flow_run WHERE id = ? AND epoch = ?"
            " AND state IN ('RUNNING', 'SCHEDULED', 'PENDING', 'CANCELLING')",
            (flow_run_id, self.epoch),
        ).fetchone()
        if row is None or self.version not in (None, row[0]):
            raise WriteRefused
        self.seq = int(row[0]) + 1
        self.state = {"CANCELLING": "CANCELLED", "Pausing": "PAUSED"}.get(row[2] or row[1], "CRASHED")
        message = self.message if self.state == "CRASHED" else f"{row[3]}; {self.message}"
        connection.execute(
            "UPDATE flow_run SET state = ?, state_name = NULL, state_message = ?, version = ?, ended_at = ?,"
            " crashes = crashes + ?, next_attempt_at = CASE WHEN ? <> 'CANCELLED' THEN next_attempt_at END,"
            " tasks_total = (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id AND k.kind = 'task'"
            "                WHERE t.flow_run_id = ?),"
            " tasks_done = (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id AND k.kind = 'task'"
            "               WHERE t.flow_run_id = ? AND t.state = 'COMPLETED')"
            " WHERE id = ?",
            (
                self.state,
                message,
                self.seq,
                None if self.state == "PAUSED" else at,
                int(self.counts),
                self.state,
                flow_run_id,
                flow_run_id,
                flow_run_id,
            ),
        )
        if self.state == "CANCELLED":
            cancel_unfinished_calls(connection, flow_run_id, message, at)
        else:
            _interrupt_running_calls(connection, flow_run_id, message, at, counts=self.counts)
        record_flow_transition(connection, flow_run_id, self.seq, self.state, None, message, self.epoch, None, at)


def cancel_unfinished_calls(connection: sqlite3.Connection, flow_run_id: int, message: str, at: str) -> None:
    """Mark the calls of a cancelled run that have no outcome, begun or not. One that cannot begin has said why, and stays."""
    unfinished = (
        "flow_run_id = ? AND (state IN ('RUNNING', 'SCHEDULED', 'PAUSED')"
        " OR (state = 'PENDING' AND state_name IS NOT 'NotReady') OR (state = 'CRASHED' AND state_name = 'Interrupted'))"
    )
    connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, message, epoch, attempt, at)"
        f" SELECT flow_run_id, id, version + 1, 'CANCELLED', ?, epoch, attempt, ? FROM task_run WHERE {unfinished}",
        (message, at, flow_run_id),
    )
    connection.execute(
        "UPDATE task_run SET state = 'CANCELLED', state_name = NULL, state_message = ?, version = version + 1, ended_at = ?,"
        f" error_id = NULL, next_attempt_at = NULL WHERE {unfinished}",  # the error of an earlier attempt is in the history
        (message, at, flow_run_id),
    )


def _interrupt_running_calls(connection: sqlite3.Connection, flow_run_id: int, message: str, at: str, *, counts: bool) -> None:
    """Mark the calls that were cut off. Version and state move on, so an outcome still on its way is refused.

    `counts` says whether it was a crash, of which a task bears only `max_interruptions`.
    """
    connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
        " SELECT flow_run_id, id, version + 1, 'CRASHED', 'Interrupted', ?, epoch, attempt, ? FROM task_run"
        " WHERE flow_run_id = ? AND state = 'RUNNING'",
        (message, at, flow_run_id),
    )
    connection.execute(
        "UPDATE task_run SET state = 'CRASHED', state_name = 'Interrupted', state_message = ?, version = version + 1,"
        " interruptions = interruptions + ?, ended_at = ? WHERE flow_run_id = ? AND state = 'RUNNING'",
        (message, int(counts), at, flow_run_id),
    )


def _record_execution(
    connection: sqlite3.Connection, flow_run_id: int, epoch: int, owner_id: int, code_id: int | None, reason: str, at: str,
    rerun: str | None = None,
) -> None:  # fmt: skip
    connection.execute(
        "INSERT INTO execution (flow_run_id, epoch, owner_id, code_id, reason, started_at, rerun) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (flow_run_id, epoch, owner_id, code_id, reason, at, rerun),
    )


def _is_executed_by(connection: sqlite3.Connection, flow_run_id: int, epoch: int, owner_id: int) -> bool:
    """Tell whether a run is ours: what was undone of our write, another process may have written under the same numbers."""
    row = connection.execute(
        "SELECT 1 FROM execution WHERE flow_run_id = ? AND epoch = ? AND owner_id = ?", (flow_run_id, epoch, owner_id)
    ).fetchone()
    return row is not None


def is_run_written(connection: sqlite3.Connection, flow_run_id: int, name: str, at: str) -> bool:
    """Tell whether a queued run is there, and is not one that another process wrote with the same id after this was undone."""
    row = connection.execute(
        "SELECT 1 FROM flow_run WHERE id = ? AND name = ? AND created_at = ?", (flow_run_id, name, at)
    ).fetchone()
    return row is not None


def record_flow_transition(
    connection: sqlite3.Connection, flow_run_id: int, seq: int, state: str, state_name: str | None, message: str | None,
    epoch: int, error_id: int | None, at: str,
) -> None:  # fmt: skip
    """Append to the history of a flow run, and to the events: each of its state changes is one."""
    connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, error_id, at)"
        " VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
        (flow_run_id, seq, state, state_name, message, epoch, epoch, error_id, at),
    )
    record_flow_event(connection, flow_run_id, state_name or state.capitalize(), at)


def record_flow_event(connection: sqlite3.Connection, flow_run_id: int, state_name: str, at: str) -> None:
    """Let a state change of a flow run be an event."""
    connection.execute(
        "INSERT INTO event (name, resource, flow_run_id, occurred_at) VALUES (?, ?, ?, ?)",
        (f"wfengine.flow-run.{state_name}", f"wfengine.flow-run.{flow_run_id}", flow_run_id, at),
    )
