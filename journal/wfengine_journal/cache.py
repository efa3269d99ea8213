"""The cache: results that later calls may reuse, in any run. Never consulted for replay.

An entry is written in the transaction of the result it holds, and every task run that asks leaves a row which says what it
asked for and what the answer was. Entries are looked up by key alone; who made the key decides what shares it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from wfengine_journal.codec import Encoded
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, RecordedChange, StartAttempt, result_columns, store_value, utf8_text

if TYPE_CHECKING:
    from wfengine_journal.records import Records

#: What the cache answered. 'damaged': there is an entry, but its value is missing or does not match its checksum.
Answer = Literal["hit", "miss", "expired", "refreshed", "damaged", "no key"]


class Entry(NamedTuple):
    """A cached result. Column meanings are in sql/format_2.sql."""

    key: str
    result: str | bytes | None
    result_codec: str
    result_hash: bytes
    result_preview: str | None
    flow_run_id: int
    task_run_id: int
    created_at: str
    expires_at: str | None

    def __str__(self) -> str:
        if self.task_run_id:
            return f"result of task run {self.task_run_id} of flow run {self.flow_run_id}"
        return f"value that was kept under the key '{self.key}' by hand"

    def is_expired(self, now: str) -> bool:
        """Tell whether the entry was to be used until an instant that has come."""
        return self.expires_at is not None and self.expires_at <= now


class Use(NamedTuple):
    """What one task run asked of the cache, and the answer."""

    key: str | None
    answer: Answer
    parts: Mapping[str, str]  # what the key is made of
    message: str | None = None
    source_run: int | None = None


def find_entry(records: Records, key: str) -> Entry | None:
    """Return the entry of a key, expired or not."""
    row = records.row(
        "SELECT key, result, result_codec, result_hash, result_preview, flow_run_id, task_run_id, created_at, expires_at"
        " FROM cache WHERE key = ?",
        (key,),
    )
    return None if row is None else Entry._make(row)


class NoteUse:
    """Rider: note what a task run asked of the cache."""

    __slots__ = ("at", "flow_run_id", "use")

    def __init__(self, flow_run_id: int, use: Use, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.use = use
        self.at = at

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        key, answer, parts, message, source_run = self.use
        connection.execute(
            "INSERT OR REPLACE INTO cache_use (flow_run_id, task_run_id, key, outcome, parts, message, source_run, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.flow_run_id,
                task_run_id,
                key,
                answer,
                utf8_text(json.dumps(dict(parts), ensure_ascii=False, separators=(",", ":"))),
                None if message is None else utf8_text(message),
                source_run,
                self.at,
            ),
        )


class StillAsSeen:
    """Rider: refuse an attempt whose result somebody else has cached since the cache was looked at."""

    __slots__ = ("key", "seen")

    def __init__(self, key: str, seen: Entry | None) -> None:
        self.key = key
        self.seen = seen  # an entry of no use: expired or damaged

    def check(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT created_at, task_run_id FROM cache WHERE key = ?", (self.key,)).fetchone()
        if row is not None and (self.seen is None or tuple(row) != (self.seen.created_at, self.seen.task_run_id)):
            raise WriteRefused

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        """Write nothing."""


class PutEntry:
    """Rider on a result: let later calls reuse it under a key. A change of its own for a result that has no task run."""

    __slots__ = ("at", "encoded", "expires_at", "flow_run_id", "key")

    def __init__(self, key: str, encoded: Encoded, *, flow_run_id: int, at: str, expires_at: str | None) -> None:
        self.key = key
        self.encoded = encoded
        self.flow_run_id = flow_run_id
        self.at = at
        self.expires_at = expires_at

    def apply(self, connection: sqlite3.Connection) -> None:
        self.ride(connection, 0)

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        stored = result_columns(self.encoded)
        if stored.result is None:
            store_value(connection, self.encoded, self.at)
        connection.execute(
            "INSERT OR REPLACE INTO cache (key, result, result_codec, result_hash, result_preview, flow_run_id, task_run_id,"
            " created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.key, *stored, self.flow_run_id, task_run_id, self.at, self.expires_at),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT created_at, result_hash FROM cache WHERE key = ?", (self.key,)).fetchone()
        return row is not None and tuple(row) == (self.at, self.encoded.hash)


class ServeCached(RecordedChange):
    """Complete a call with a cached result instead of an attempt. `begin` is the attempt that is not to be."""

    __slots__ = ("at", "attempt", "begin", "entry", "epoch")

    def __init__(self, begin: BeginCall | StartAttempt, *, attempt: int, at: str, entry: Entry) -> None:
        self.begin = begin
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = begin.task_run_id
        self.seq = begin.seq
        self.epoch = begin.epoch
        self.attempt = attempt
        self.at = at
        self.entry = entry
        if isinstance(begin, BeginCall):  # its row is written first, as PENDING
            begin.running = False
            self.seq += 1

    def apply(self, connection: sqlite3.Connection) -> None:
        begin = self.begin
        if isinstance(begin, BeginCall):
            begin.apply(connection)
            self.task_run_id = begin.task_run_id
        elif begin.call is not None:
            self.task_run_id = begin.call.task_run_id
        message = f"the cached {self.entry}"
        cursor = connection.execute(
            "UPDATE task_run SET state = 'COMPLETED', state_name = 'Cached', state_message = ?, version = ?, epoch = ?,"
            " result = ?, result_codec = ?, result_hash = ?, result_preview = ?, ended_at = ?, error_id = NULL,"
            " next_attempt_at = NULL, orphaned_in = NULL, fatal = NULL"
            " WHERE id = ? AND version = ? AND (state IN ('PENDING', 'SCHEDULED', 'CRASHED', 'FAILED', 'PAUSED', 'CANCELLED')"
            "  OR (state = 'COMPLETED' AND state_name = 'RolledBack'))"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING')",
            (
                message,
                self.seq,
                self.epoch,
                self.entry.result,
                self.entry.result_codec,
                self.entry.result_hash,
                self.entry.result_preview,
                self.at,
                self.task_run_id,
                self.seq - 1,
                self.flow_run_id,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused  # never after `begin` was applied: its row is as it wrote it
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'COMPLETED', 'Cached', ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, message, self.epoch, self.attempt, self.at),
        )
