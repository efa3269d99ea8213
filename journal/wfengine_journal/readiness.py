"""The changes of a call that waits for something that failed: it has a row, and no inputs to begin with.

They are changes like those of `transitions`: guarded by the epoch of the flow run, and noted in the history.
"""

from __future__ import annotations

import sqlite3

from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, Identity, RecordedChange, store_arguments

#: Characters of the reason that are kept: the failure it names has its own row, with everything.
MESSAGE_LIMIT = 1000


class RecordNotReady(RecordedChange):
    """Write the row of a call that does not begin, because what it waits for failed. Sets `task_run_id`."""

    __slots__ = ("at", "epoch", "identity", "inputs", "message", "tags")

    def __init__(self, identity: Identity, *, epoch: int, inputs: str, message: str, at: str, tags: str | None = None) -> None:
        self.identity = identity
        self.flow_run_id = identity.flow_run_id
        self.task_run_id = 0
        self.seq = 1
        self.epoch = epoch
        self.inputs = inputs
        self.message = message[:MESSAGE_LIMIT]
        self.at = at
        self.tags = tags

    def apply(self, connection: sqlite3.Connection) -> None:
        flow_run_id, scope, task_id, call_key, occurrence = self.identity
        cursor = connection.execute(
            "INSERT INTO task_run (flow_run_id, scope, task_id, call_key, occurrence, lane, state, state_name, state_message,"
            " version, epoch, attempt, inputs, tags, ended_at)"
            " SELECT id, ?, ?, ?, ?, 1, 'PENDING', 'NotReady', ?, 1, epoch, 0, ?, ?, ?"
            " FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING'",
            (
                scope,
                task_id,
                call_key,
                occurrence,
                self.message,
                self.inputs,
                self.tags,
                self.at,
                flow_run_id,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        self.task_run_id = int(cursor.lastrowid or 0)
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " VALUES (?, ?, 1, 'PENDING', 'NotReady', ?, ?, 0, ?)",
            (flow_run_id, self.task_run_id, self.message, self.epoch, self.at),
        )


class MakeReady(RecordedChange):
    """Give such a row the inputs and the identity of the call, now that what it waited for is there."""

    __slots__ = ("begin",)

    def __init__(self, begin: BeginCall, task_run_id: int, *, seq: int) -> None:
        self.begin = begin  # what would be written for a new call
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq

    def apply(self, connection: sqlite3.Connection) -> None:
        begin = self.begin
        flow_run_id, _, task_id, call_key, occurrence = begin.identity
        cursor = connection.execute(
            "UPDATE task_run SET task_id = ?, call_key = ?, occurrence = ?, lane = ?, name = ?, inputs = ?, tags = ?,"
            " state_name = NULL, state_message = NULL, version = ?, epoch = ?, ended_at = NULL"
            " WHERE id = ? AND version = ? AND state = 'PENDING' AND state_name = 'NotReady'"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING')",
            (
                task_id,
                call_key,
                occurrence,
                begin.lane,
                begin.name,
                begin.inputs,
                begin.tags,
                self.seq,
                begin.epoch,
                self.task_run_id,
                self.seq - 1,
                flow_run_id,
                begin.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'PENDING', ?, 0, ?)",
            (flow_run_id, self.task_run_id, self.seq, begin.epoch, begin.at),
        )
        if begin.arguments:
            store_arguments(connection, flow_run_id, self.task_run_id, begin.arguments, begin.at)
