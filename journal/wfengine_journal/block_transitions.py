"""The changes of durable building blocks: values that are drawn once, timers, and a flow run that goes on as a new one.

As in `transitions`: each is applied in one transaction, repeats its from-states in the WHERE clause, and checks the row count.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from wfengine_journal.codec import Encoded, encode
from wfengine_journal.run_transitions import CreateFlowRun, EndFlowRun
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, CompleteCall, RecordedChange, StartAttempt, result_columns

if TYPE_CHECKING:
    from wfengine_journal.records import Records


class RecordDrawn(RecordedChange):
    """Begin a call and record its result with it: what takes no time has one transaction. Sets `task_run_id`."""

    __slots__ = ("attempt", "begin", "result")

    def __init__(self, begin: BeginCall | StartAttempt, *, attempt: int, result: Encoded) -> None:
        self.begin = begin
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = begin.task_run_id
        self.seq = begin.seq + 1
        self.attempt = attempt
        self.result = result

    def apply(self, connection: sqlite3.Connection) -> None:
        begin = self.begin
        begin.apply(connection)  # refuses, before anything is written, where this process lost the run
        self.task_run_id = begin.task_run_id
        CompleteCall(
            begin.flow_run_id, begin.task_run_id, seq=self.seq, epoch=begin.epoch, attempt=self.attempt, at=begin.at,
            result=self.result,
        ).apply(connection)  # fmt: skip


class StartTimer(RecordedChange):
    """Begin a call that waits for an instant: it is SCHEDULED until then. Sets `task_run_id`."""

    __slots__ = ("attempt", "begin", "due_at", "inputs")

    def __init__(self, begin: BeginCall | StartAttempt, *, attempt: int, due_at: str, inputs: str | None) -> None:
        self.begin = begin
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = begin.task_run_id
        self.seq = begin.seq + 1
        self.attempt = attempt
        self.due_at = due_at
        self.inputs = inputs  # of a timer that was moved: what the edited code asks for; None: they stay

    def apply(self, connection: sqlite3.Connection) -> None:
        begin = self.begin
        begin.apply(connection)
        self.task_run_id = begin.task_run_id
        message = f"sleeps until {self.due_at}"
        cursor = connection.execute(
            "UPDATE task_run SET state = 'SCHEDULED', state_name = NULL, state_message = ?, version = ?, next_attempt_at = ?,"
            " inputs = coalesce(?, inputs) WHERE id = ? AND version = ? AND epoch = ? AND state = 'RUNNING'",
            (message, self.seq, self.due_at, self.inputs, self.task_run_id, self.seq - 1, begin.epoch),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, message, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'SCHEDULED', ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, message, begin.epoch, self.attempt, begin.at),
        )


class EndTimer(RecordedChange):
    """Record that the instant a call waited for has come."""

    __slots__ = ("at", "attempt", "due_at", "epoch")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, due_at: str, at: str
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.due_at = due_at
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        nothing = result_columns(encode(None, "the result of a sleep"))
        message = f"slept until {self.due_at}"
        cursor = connection.execute(
            "UPDATE task_run SET state = 'COMPLETED', state_name = NULL, state_message = ?, version = ?, epoch = ?,"
            " next_attempt_at = NULL, result = ?, result_codec = ?, result_hash = ?, result_preview = ?, ended_at = ?"
            " WHERE id = ? AND version = ? AND state = 'SCHEDULED'"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING')",
            (
                message,
                self.seq,
                self.epoch,
                *nothing,
                self.at,
                self.task_run_id,
                self.seq - 1,
                self.flow_run_id,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, message, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'COMPLETED', ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, message, self.epoch, self.attempt, self.at),
        )


class ContinueFlowRun(RecordedChange):
    """End a flow run and create the one that goes on in its place, in one transaction: never two of them, never none.

    A subflow's call belongs to the new run from then on, so that whoever looks for its run finds the one that goes on. A run
    of a deployment goes on as one: with its queue and its places, and what waits for its end waits for the new one's.
    """

    __slots__ = ("create", "end")

    def __init__(self, end: EndFlowRun, create: CreateFlowRun) -> None:
        self.end = end
        self.create = create
        self.flow_run_id = end.flow_run_id
        self.task_run_id = 0
        self.seq = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        self.end.apply(connection)  # refuses, before anything is written, where this process lost the run
        self.seq = self.end.seq
        connection.execute("UPDATE flow_run SET parent_task_run_id = NULL WHERE id = ?", (self.flow_run_id,))
        self.create.apply(connection)
        self._hand_on(connection)

    def _hand_on(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE flow_run SET (queue, deployment_id, priority, partition_key, deduplication_key, nominal_at) ="
            " (SELECT queue, deployment_id, priority, partition_key, deduplication_key, nominal_at FROM flow_run WHERE id = ?)"
            " WHERE id = ? AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND deployment_id IS NOT NULL)",
            (self.flow_run_id, self.create.flow_run_id, self.flow_run_id),
        )
        if cursor.rowcount == 1:
            connection.execute(
                "UPDATE dependency SET needs_run_id = ? WHERE needs_run_id = ? AND must_complete = 0 AND EXISTS"
                " (SELECT 1 FROM flow_run r WHERE r.id = dependency.flow_run_id AND r.state = 'SCHEDULED')",
                (self.create.flow_run_id, self.flow_run_id),
            )


# ------------------------------------------------------------------------------------------- what is read back


def find_first_start(records: Records, task_run_id: int) -> str | None:
    """Return when a call began for the first time."""
    row = records.row("SELECT started_at FROM task_run WHERE id = ?", (task_run_id,))
    return None if row is None or row[0] is None else str(row[0])


def find_last_continuation(records: Records, flow_run_id: int) -> int:
    """Return the id of the run in which a flow run goes on, however often it was continued; its own if it was not."""
    row = records.row(
        "WITH RECURSIVE chain (id) AS (SELECT ? UNION ALL"
        " SELECT r.id FROM chain c JOIN flow_run r ON r.origin_run_id = c.id AND r.origin = 'continued')"
        " SELECT max(id) FROM chain",
        (flow_run_id,),
    )
    assert row is not None
    return int(str(row[0]))


def list_woken(records: Records, at: str) -> list[int]:
    """Return the suspended runs of their own (no subflows) whose timer has ended."""
    # The + keeps SQLite from reading every run there ever was, for the sake of the order.
    rows = records.rows(
        "SELECT id FROM flow_run WHERE wake_at <= ? AND state = 'PAUSED' AND parent_task_run_id IS NULL ORDER BY +id", (at,)
    )
    return [int(str(row[0])) for row in rows]
