"""What a call hands out or notes while it runs, before its result: the items of a stream, the values of a transaction.

A streamed item is written once and never changed. Like every outcome it is fenced by the epoch of its flow run.
"""

from __future__ import annotations

import sqlite3

from wfengine_journal.codec import Encoded
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import result_columns, store_value


class RecordItem:
    """Record one item of a call (task_run_id 0: of the flow's body); one that is there already stays, unless it is replaced."""

    __slots__ = ("at", "encoded", "epoch", "flow_run_id", "key", "replaces", "task_run_id")

    def __init__(
        self, flow_run_id: int, task_run_id: int, key: int | str, encoded: Encoded, *, epoch: int, at: str,
        replaces: bool = False,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.key = key  # the number of a streamed item, from 0; or the name of a value
        self.encoded = encoded
        self.epoch = epoch
        self.at = at
        self.replaces = replaces

    def apply(self, connection: sqlite3.Connection) -> None:
        stored = result_columns(self.encoded)
        if self.replaces:
            connection.execute(
                "DELETE FROM item WHERE flow_run_id = ? AND task_run_id = ? AND key = ?"
                " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ?)",
                (self.flow_run_id, self.task_run_id, self.key, self.flow_run_id, self.epoch),
            )
        cursor = connection.execute(
            "INSERT INTO item (flow_run_id, task_run_id, key, value, codec, hash, preview, at)"
            " SELECT id, ?, ?, ?, ?, ?, ?, ? FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING'"
            " ON CONFLICT DO NOTHING",
            (self.task_run_id, self.key, *stored, self.at, self.flow_run_id, self.epoch),
        )
        if cursor.rowcount != 1 and not self.landed(connection):
            raise WriteRefused
        if stored.result is None:
            store_value(connection, self.encoded, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether an item stands in its place."""
        row = connection.execute(
            "SELECT 1 FROM item WHERE flow_run_id = ? AND task_run_id = ? AND key = ?",
            (self.flow_run_id, self.task_run_id, self.key),
        ).fetchone()
        return row is not None
