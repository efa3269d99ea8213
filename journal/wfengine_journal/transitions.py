"""The only code that changes a state: one class per change, each applied in one transaction by the writer.

Here: the changes of a call, and what they share with those of whole flow runs (`run_transitions`).

Every change repeats its legal from-states and the epoch of its flow run in the WHERE clause and checks the row count, so
that a process which lost a run writes nothing. It also appends to `transition`, the history, in the same transaction.
`landed` looks for that row after a COMMIT whose outcome is unknown.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wfengine_journal import guarding
from wfengine_journal.codec import Encoded, EncodedError
from wfengine_journal.states import TRANSITIONS
from wfengine_journal.tickets import WriteRefused

#: A result of at most this many bytes stands in its row; a larger one stands once in table `value`.
INLINE_BYTES = 1024
#: To-state -> its legal from-states as SQL literals, for the changes that serve several to-states.
FROM_STATES = {to.value: ", ".join(f"'{state.value}'" for state in legal if state) for to, legal in TRANSITIONS.items()}


class Identity(NamedTuple):
    """What makes a call the same call on resume. Unique in the journal."""

    flow_run_id: int
    scope: int
    task_id: int
    call_key: bytes
    occurrence: int


class Argument(NamedTuple):
    """An argument that does not stand in full in the row's JSON. `encoded` is None if it could not be stored."""

    name: str
    python_type: str
    encoded: Encoded | None


class StoredResult(NamedTuple):
    """The four result columns of a run's row."""

    result: str | bytes | None
    codec: str
    hash: bytes
    preview: str | None


def store_value(connection: sqlite3.Connection, encoded: Encoded, at: str) -> None:
    """Store a value once for its content."""
    connection.execute(
        "INSERT OR IGNORE INTO value (hash, codec, data, size, python_type, preview, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (encoded.hash, encoded.codec, encoded.data, encoded.size, encoded.python_type, _preview(encoded), at),
    )


def _preview(encoded: Encoded) -> str:
    if encoded.preview is not None:
        return encoded.preview
    return str(encoded.data)[:200]


def result_columns(encoded: Encoded) -> StoredResult:
    """Return what stands in the row; a result of None in it means that the value is to be stored in table `value`."""
    if len(encoded.data) <= INLINE_BYTES:
        return StoredResult(encoded.data, encoded.codec, encoded.hash, encoded.preview)
    return StoredResult(None, encoded.codec, encoded.hash, _preview(encoded))


def store_error(connection: sqlite3.Connection, error: EncodedError) -> int:
    """Store an exception and return its id."""
    cursor = connection.execute(
        "INSERT INTO error (type, message, traceback, data, codec, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (error.type, error.message, error.traceback, error.data, error.codec, error.hash),
    )
    return int(cursor.lastrowid or 0)


def store_arguments(
    connection: sqlite3.Connection, flow_run_id: int, task_run_id: int, arguments: Iterable[Argument], at: str
) -> None:
    """Store the arguments that do not stand in full in a row; task_run_id 0 means a flow run's parameters."""
    for argument in arguments:
        if argument.encoded is not None:
            store_value(connection, argument.encoded, at)
        connection.execute(
            "INSERT OR REPLACE INTO argument (flow_run_id, task_run_id, name, hash, python_type) VALUES (?, ?, ?, ?, ?)",
            (
                flow_run_id,
                task_run_id,
                argument.name,
                argument.encoded.hash if argument.encoded else None,
                argument.python_type,
            ),
        )


class RecordedChange:
    """What all changes share: the transition row by which a landed change is recognised."""

    __slots__ = ("flow_run_id", "seq", "task_run_id")

    flow_run_id: int
    task_run_id: int
    seq: int

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether this change is in the file."""
        row = connection.execute(
            "SELECT 1 FROM transition WHERE flow_run_id = ? AND task_run_id = ? AND seq = ?",
            (self.flow_run_id, self.task_run_id, self.seq),
        ).fetchone()
        return row is not None


# ---------------------------------------------------------------------------------------------------- calls


class BeginCall(RecordedChange):
    """Write a new call and, unless it is only issued, its first attempt. Sets `task_run_id`."""

    __slots__ = ("arguments", "at", "epoch", "identity", "inputs", "lane", "name", "running", "tags")

    def __init__(
        self,
        identity: Identity,
        *,
        epoch: int,
        lane: int,
        inputs: str,
        at: str,
        running: bool,
        name: str | None = None,
        tags: str | None = None,
        arguments: Sequence[Argument] = (),
    ) -> None:
        self.identity = identity
        self.flow_run_id = identity.flow_run_id
        self.task_run_id = 0
        self.seq = 1
        self.epoch = epoch
        self.lane = lane
        self.inputs = inputs
        self.at = at
        self.running = running
        self.name = name
        self.tags = tags
        self.arguments = arguments

    def apply(self, connection: sqlite3.Connection) -> None:
        flow_run_id, scope, task_id, call_key, occurrence = self.identity
        running, at, epoch = self.running, self.at, self.epoch
        state, attempt = ("RUNNING", 1) if running else ("PENDING", 0)
        cursor = connection.execute(
            "INSERT INTO task_run (flow_run_id, scope, task_id, call_key, occurrence, lane, name, state, version, epoch,"
            " attempt, inputs, tags, started_at) SELECT id, ?, ?, ?, ?, ?, ?, ?, 1, epoch, ?, ?, ?, ?"
            " FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING' AND state_name IS NOT 'Pausing'",
            (
                scope,
                task_id,
                call_key,
                occurrence,
                self.lane,
                self.name,
                state,
                attempt,
                self.inputs,
                self.tags,
                at if running else None,
                flow_run_id,
                epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        self.task_run_id = task_run_id = int(cursor.lastrowid or 0)
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, epoch, attempt, at) VALUES (?, ?, 1, ?, ?, ?, ?)",
            (flow_run_id, task_run_id, state, epoch, attempt, at),
        )
        if self.arguments:
            store_arguments(connection, flow_run_id, task_run_id, self.arguments, at)


class StartAttempt(RecordedChange):
    """Begin the next attempt of a call that has a row: issued, waiting for a retry, cut off, or failed and run again."""

    __slots__ = ("at", "attempt", "call", "epoch", "fresh", "name")

    def __init__(
        self, call: BeginCall | None, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str,
        fresh: bool = False,
    ) -> None:  # fmt: skip
        self.call = call  # the change that wrote the row, when it may still be on its way in the same queue
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at
        self.fresh = fresh  # the counts of failures and interruptions begin anew
        self.name = "Retrying" if attempt > 1 else None

    def apply(self, connection: sqlite3.Connection) -> None:
        if self.call is not None:
            self.task_run_id = self.call.task_run_id
        cursor = self._start_first(connection) if self.seq == 2 else self._start_again(connection)
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'RUNNING', ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, self.name, self.epoch, self.attempt, self.at),
        )

    def _start_first(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        """Start a call that was only issued: there is nothing to reset, which halves the cost under fan-out."""
        return connection.execute(
            "UPDATE task_run SET state = 'RUNNING', version = 2, epoch = ?, attempt = ?, started_at = ?"
            " WHERE id = ? AND version = 1 AND state = 'PENDING'"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING'"
            "             AND state_name IS NOT 'Pausing')",
            (self.epoch, self.attempt, self.at, self.task_run_id, self.flow_run_id, self.epoch),
        )

    def _start_again(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        return connection.execute(
            "UPDATE task_run SET state = 'RUNNING', state_name = ?, state_message = NULL, version = ?, epoch = ?, attempt = ?,"
            " started_at = coalesce(started_at, ?), ended_at = NULL, next_attempt_at = NULL, orphaned_in = NULL, fatal = NULL,"
            " failures = CASE WHEN ? THEN 0 ELSE failures END, interruptions = CASE WHEN ? THEN 0 ELSE interruptions END"
            " WHERE id = ? AND version = ? AND (state IN ('PENDING', 'SCHEDULED', 'CRASHED', 'FAILED', 'PAUSED', 'CANCELLED')"
            "  OR (state = 'COMPLETED' AND state_name IN ('Closed', 'RolledBack')))"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING'"
            "             AND state_name IS NOT 'Pausing')",
            (
                self.name,
                self.seq,
                self.epoch,
                self.attempt,
                self.at,
                self.fresh,
                self.fresh,
                self.task_run_id,
                self.seq - 1,
                self.flow_run_id,
                self.epoch,
            ),
        )


class CompleteCall(RecordedChange):
    """Record a result: the value, its checksum, the state and the transition in one transaction."""

    __slots__ = ("at", "attempt", "epoch", "message", "result", "state_name")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str, result: Encoded,
        state_name: str | None = None, message: str | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at
        self.result = result
        self.state_name = state_name
        self.message = message

    def apply(self, connection: sqlite3.Connection) -> None:
        seq, at, epoch, task_run_id = self.seq, self.at, self.epoch, self.task_run_id
        stored = result_columns(self.result)
        cursor = connection.execute(
            "UPDATE task_run SET state = 'COMPLETED', state_name = ?, version = ?, result = ?, result_codec = ?,"
            " result_hash = ?, result_preview = ?, ended_at = ?"
            " WHERE id = ? AND version = ? AND epoch = ? AND state = 'RUNNING'",
            (self.state_name, seq, *stored, at, task_run_id, seq - 1, epoch),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        if stored.result is None:
            store_value(connection, self.result, at)
        if self.message is not None:
            connection.execute("UPDATE task_run SET state_message = ? WHERE id = ?", (self.message, task_run_id))
        if self.attempt > 1:  # in a statement of its own: the foreign key's check costs every other task a microsecond
            connection.execute("UPDATE task_run SET error_id = NULL WHERE id = ?", (task_run_id,))
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'COMPLETED', ?, ?, ?, ?)",
            (self.flow_run_id, task_run_id, seq, self.state_name, epoch, self.attempt, at),
        )


class ChangeFromCall(RecordedChange):
    """What is written together with the completed call, in a running flow, that asks for it: both or neither are in the file.

    So a resumed flow is given what it already asked for.
    """

    __slots__ = ("_attempt", "_begin")

    def __init__(self, begin: BeginCall | StartAttempt, *, attempt: int = 1) -> None:
        self._begin = begin
        self._attempt = attempt
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = begin.task_run_id
        self.seq = begin.seq + 1

    def _begin_call(self, connection: sqlite3.Connection) -> None:
        """Begin the call: refuses, before anything is written, where this process lost the run."""
        self._begin.apply(connection)
        self.task_run_id = self._begin.task_run_id

    def _complete_call(self, connection: sqlite3.Connection, result: Encoded) -> None:
        begin = self._begin
        CompleteCall(
            self.flow_run_id, self.task_run_id, seq=self.seq, epoch=begin.epoch, attempt=self._attempt, at=begin.at,
            result=result,
        ).apply(connection)  # fmt: skip


class ResolveCall(RecordedChange):
    """Settle, by a person's word, a call in doubt of a run that nobody executes: it has this result, or never happened."""

    __slots__ = ("at", "attempt", "epoch", "message", "result")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str, result: Encoded | None,
        message: str,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at
        self.result = result  # None: it did not take effect and is to run again
        self.message = message

    def apply(self, connection: sqlite3.Connection) -> None:
        held = connection.execute(
            "SELECT 1 FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id WHERE t.id = ? AND t.version = ?"
            " AND (t.state = 'PAUSED' OR (t.state = 'CRASHED' AND t.state_name = 'Interrupted'))"
            " AND r.id = ? AND r.state IN ('PAUSED', 'CRASHED', 'FAILED')",
            (self.task_run_id, self.seq - 1, self.flow_run_id),
        ).fetchone()
        if held is None:
            raise WriteRefused
        state = "PENDING" if self.result is None else "COMPLETED"
        stored = (None, None, None, None) if self.result is None else result_columns(self.result)
        if self.result is not None and stored[0] is None:
            store_value(connection, self.result, self.at)
        connection.execute(
            "UPDATE task_run SET state = ?, state_name = NULL, state_message = ?, version = ?, result = ?, result_codec = ?,"
            " result_hash = ?, result_preview = ?, error_id = NULL, interruptions = 0, ended_at = ? WHERE id = ?",
            (state, self.message, self.seq, *stored, None if self.result is None else self.at, self.task_run_id),
        )
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, message, epoch, attempt, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, state, self.message, self.epoch, self.attempt, self.at),
        )


class FailAttempt(RecordedChange):
    """Record an attempt that ended without a result: failed, cancelled or crashed for good, by an exception or by the state
    that the code returned, with its data; or the call waits for its next attempt at an absolute instant.
    """

    __slots__ = ("at", "attempt", "data", "epoch", "error", "message", "next_attempt_at", "state", "state_name")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str, error: EncodedError,
        next_attempt_at: str | None, state: str = "FAILED", state_name: str | None = None, message: str | None = None,
        data: Encoded | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at
        self.error = error
        self.next_attempt_at = next_attempt_at
        self.state = state if next_attempt_at is None else "SCHEDULED"
        self.state_name = state_name if next_attempt_at is None else "AwaitingRetry"
        self.message = message
        self.data = data  # kept with the failure in the columns of a result

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE task_run SET state = ?, state_name = ?, state_message = ?, version = ?, failures = failures + ?,"
            " next_attempt_at = ?, ended_at = ? WHERE id = ? AND version = ? AND epoch = ? AND state = 'RUNNING'",
            (
                self.state,
                self.state_name,
                self.message,
                self.seq,
                int(self.state in ("FAILED", "SCHEDULED")),
                self.next_attempt_at,
                self.at if self.next_attempt_at is None else None,
                self.task_run_id,
                self.seq - 1,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        error_id = store_error(connection, self.error)
        connection.execute("UPDATE task_run SET error_id = ? WHERE id = ?", (error_id, self.task_run_id))
        if self.data is not None or self.attempt > 1:  # an earlier attempt may have left some
            self._store_data(connection)
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, error_id, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.flow_run_id,
                self.task_run_id,
                self.seq,
                self.state,
                self.state_name,
                self.message,
                self.epoch,
                self.attempt,
                error_id,
                self.at,
            ),
        )

    def _store_data(self, connection: sqlite3.Connection) -> None:
        stored = (None, None, None, None) if self.data is None else result_columns(self.data)
        if self.data is not None and stored[0] is None:
            store_value(connection, self.data, self.at)
        connection.execute(
            "UPDATE task_run SET result = ?, result_codec = ?, result_hash = ?, result_preview = ? WHERE id = ?",
            (*stored, self.task_run_id),
        )


class RollBackCall(RecordedChange):
    """Record that a completed call was undone by its rollback hooks; what it cached is not reused any more."""

    __slots__ = ("at", "attempt", "epoch")

    def __init__(self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        message = "undone by the rollback of its transaction"
        cursor = connection.execute(
            "UPDATE task_run SET state_name = 'RolledBack', state_message = ?, version = ?"
            " WHERE id = ? AND version = ? AND state = 'COMPLETED'"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ?)",
            (message, self.seq, self.task_run_id, self.seq - 1, self.flow_run_id, self.epoch),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute("DELETE FROM cache WHERE flow_run_id = ? AND task_run_id = ?", (self.flow_run_id, self.task_run_id))
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " VALUES (?, ?, ?, 'COMPLETED', 'RolledBack', ?, ?, ?, ?)",
            (self.flow_run_id, self.task_run_id, self.seq, message, self.epoch, self.attempt, self.at),
        )


class OrphanCall:
    """Mark a completed call that another one has replaced, after drift that a person accepted. Its outcome is kept."""

    __slots__ = ("epoch", "task_run_id")

    def __init__(self, task_run_id: int, epoch: int) -> None:
        self.task_run_id = task_run_id
        self.epoch = epoch

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE task_run SET orphaned_in = ? WHERE id = ?"
            " AND EXISTS (SELECT 1 FROM flow_run r WHERE r.id = task_run.flow_run_id AND r.epoch = ?)",
            (self.epoch, self.task_run_id, self.epoch),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT orphaned_in FROM task_run WHERE id = ?", (self.task_run_id,)).fetchone()
        return row is not None and row[0] is not None


class SettleCall(RecordedChange):
    """Move a call without running it: interrupted by Ctrl-C, parked for a person, or given up. Adds no attempt."""

    __slots__ = ("at", "attempt", "call", "epoch", "error", "interruption", "message", "state", "state_name")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, attempt: int, at: str, state: str,
        state_name: str | None, message: str, error: EncodedError | None = None, interruption: bool = False,
        call: BeginCall | None = None,
    ) -> None:  # fmt: skip
        self.call = call  # as in StartAttempt
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.attempt = attempt
        self.at = at
        self.state = state
        self.state_name = state_name
        self.message = message
        self.error = error
        self.interruption = interruption

    def apply(self, connection: sqlite3.Connection) -> None:
        if self.call is not None:
            self.task_run_id = self.call.task_run_id
        ended = self.at if self.state in ("CRASHED", "FAILED", "CANCELLED") else None
        cursor = connection.execute(
            "UPDATE task_run SET state = ?, state_name = ?, state_message = ?, version = ?, epoch = ?, ended_at = ?,"
            " interruptions = interruptions + ? WHERE id = ? AND version = ?"
            f" AND state IN ({FROM_STATES[self.state]})"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ?)",
            (
                self.state,
                self.state_name,
                self.message,
                self.seq,
                self.epoch,
                ended,
                int(self.interruption),
                self.task_run_id,
                self.seq - 1,
                self.flow_run_id,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        error_id = None
        if self.error is not None:
            error_id = store_error(connection, self.error)
            connection.execute("UPDATE task_run SET error_id = ? WHERE id = ?", (error_id, self.task_run_id))
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, error_id, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.flow_run_id,
                self.task_run_id,
                self.seq,
                self.state,
                self.state_name,
                self.message,
                self.epoch,
                self.attempt,
                error_id,
                self.at,
            ),
        )


def utf8_text(text: str) -> str:
    """Return a text that SQLite can store: a lone surrogate, as from a file name that is not UTF-8, is shown escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown_text(text: str) -> str:
    """Return a text for people as SQLite can store it, without the secrets that are known here."""
    return utf8_text(guarding.hide(text))


def key_text(text: str) -> str:
    """Return a text that is compared as SQLite can store it; a secret in it stands there by its name."""
    return guarding.named(text.encode("utf-8", "backslashreplace")).decode("utf-8")


def tags_text(tags: Iterable[str]) -> str | None:
    """Return tags as the JSON array the journal stores; None for no tags."""
    names = sorted({shown_text(tag) for tag in tags})
    return json.dumps(names, ensure_ascii=False) if names else None
