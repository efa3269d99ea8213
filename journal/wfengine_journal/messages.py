"""Messages: values sent to a flow run, each received by one call of it, or by none.

A message is written by itself, or in one transaction with the call that sent it. It is taken in one transaction with the
outcome of the call that received it. So a process that dies neither loses one nor doubles it.

Events are values that a flow run shows to others under a name; they stand in table `item`, under the flow's body.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple, cast

from wfengine_journal.codec import Encoded, encode
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, ChangeFromCall, StartAttempt, result_columns, store_value

if TYPE_CHECKING:
    from wfengine_journal.records import Records

#: A run in one of these receives nothing more.
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class MessageRow(NamedTuple):
    """One message, as far as receiving it needs."""

    id: int
    value: str | bytes | None
    codec: str
    hash: bytes
    sent_at: str
    sender_run_id: int | None


class PutMessage:
    """Write a message to a flow run that has not ended. Sets `message_id` and `is_new`.

    One with the same topic and idempotency key, if there is one, is left as it is, whatever became of the run.
    """

    __slots__ = (
        "at", "encoded", "flow_run_id", "idempotency_key", "is_new", "message_id", "run_state", "sender_run_id", "topic",
    )  # fmt: skip

    def __init__(
        self, flow_run_id: int, topic: str, encoded: Encoded, *, at: str, idempotency_key: str | None = None,
        sender_run_id: int | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.topic = topic
        self.encoded = encoded
        self.at = at
        self.idempotency_key = idempotency_key
        self.sender_run_id = sender_run_id
        self.message_id = 0
        self.is_new = False
        self.run_state: str | None = None  # of the run it is for, when the change was refused; None: there is no such run

    def apply(self, connection: sqlite3.Connection) -> None:
        self.check(connection)
        self.put(connection)

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise WriteRefused where nobody will receive it. Writes nothing."""
        row = connection.execute("SELECT state FROM flow_run WHERE id = ?", (self.flow_run_id,)).fetchone()
        self.run_state = None if row is None else str(row[0])
        if row is None or (self.run_state in ENDED and self._find(connection) is None):
            raise WriteRefused

    def put(self, connection: sqlite3.Connection) -> None:
        """Write it, after `check`."""
        found = self._find(connection)
        self.is_new = found is None
        if found is not None:
            self.message_id = found
            return
        stored = result_columns(self.encoded)
        cursor = connection.execute(
            "INSERT INTO message (flow_run_id, topic, value, codec, hash, preview, idempotency_key, sender_run_id, sent_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.flow_run_id, self.topic, *stored, self.idempotency_key, self.sender_run_id, self.at),
        )
        self.message_id = int(cursor.lastrowid or 0)
        if stored.result is None:
            store_value(connection, self.encoded, self.at)

    def _find(self, connection: sqlite3.Connection) -> int | None:
        if self.idempotency_key is None:
            return None
        row = connection.execute(
            "SELECT id FROM message WHERE flow_run_id = ? AND topic = ? AND idempotency_key = ?",
            (self.flow_run_id, self.topic, self.idempotency_key),
        ).fetchone()
        return None if row is None else int(row[0])

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM message WHERE id = ? AND flow_run_id = ? AND hash = ? AND (sent_at = ? OR idempotency_key = ?)",
            (self.message_id, self.flow_run_id, self.encoded.hash, self.at, self.idempotency_key),
        ).fetchone()
        return row is not None or (not self.is_new and self._find(connection) is not None)


class SendFromCall(ChangeFromCall):
    """Write a message together with the completed call, in a running flow, that sent it: both or neither are in the file.

    The result of the call is a list: id of the flow run, id of the message, whether it is new.
    """

    __slots__ = ("put", "was_checked")

    def __init__(self, begin: BeginCall | StartAttempt, put: PutMessage, *, attempt: int) -> None:
        super().__init__(begin, attempt=attempt)
        self.put = put
        self.was_checked = False  # a refusal came from the run that sends, not from the one that is to receive

    def apply(self, connection: sqlite3.Connection) -> None:
        put = self.put
        self.was_checked = False
        put.check(connection)
        self.was_checked = True
        self._begin_call(connection)
        put.put(connection)
        self._complete_call(connection, encode([put.flow_run_id, put.message_id, put.is_new], "what send() did"))


class TakeMessage:
    """Let a call receive a message: a rider on the change that records the call's outcome.

    Refused when another call has received it, or when the task that made the call has ended without it (a time limit).
    """

    __slots__ = ("at", "message_id", "scope")

    def __init__(self, message_id: int, *, scope: int, at: str) -> None:
        self.message_id = message_id
        self.scope = scope  # the task run that made the call; 0: the flow's body
        self.at = at

    def check(self, connection: sqlite3.Connection) -> None:
        free = connection.execute("SELECT 1 FROM message WHERE id = ? AND received_by IS NULL", (self.message_id,)).fetchone()
        lives = self.scope == 0 or (
            connection.execute("SELECT 1 FROM task_run WHERE id = ? AND state = 'RUNNING'", (self.scope,)).fetchone()
        )
        if free is None or lives is None:
            raise WriteRefused

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        connection.execute(
            "UPDATE message SET received_by = ?, received_at = ? WHERE id = ? AND received_by IS NULL",
            (task_run_id, self.at, self.message_id),
        )


class NoteItem:
    """Write a named item of a call, or of the flow's body, in the place of an earlier one: a rider on a change of the call."""

    __slots__ = ("at", "encoded", "flow_run_id", "key", "task_run_id")

    def __init__(self, flow_run_id: int, key: str, encoded: Encoded, *, at: str, task_run_id: int | None = None) -> None:
        self.flow_run_id = flow_run_id
        self.key = key
        self.encoded = encoded
        self.at = at
        self.task_run_id = task_run_id  # 0: of the flow's body; None: of the call whose change carries this

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        stored = result_columns(self.encoded)
        connection.execute(
            "INSERT OR REPLACE INTO item (flow_run_id, task_run_id, key, value, codec, hash, preview, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self.flow_run_id, task_run_id if self.task_run_id is None else self.task_run_id, self.key, *stored, self.at),
        )
        if stored.result is None:
            store_value(connection, self.encoded, self.at)


class RefuseMessage:
    """Take a message that does not fit what a waiting call asked for, and note what it asks for from now on.

    Refused when another call has received it, or this process lost the run.
    """

    __slots__ = ("_epoch", "_flow_run_id", "_notes", "_take", "_task_run_id")

    def __init__(self, take: TakeMessage, notes: list[NoteItem], *, flow_run_id: int, task_run_id: int, epoch: int) -> None:
        self._take = take
        self._notes = notes
        self._flow_run_id = flow_run_id
        self._task_run_id = task_run_id
        self._epoch = epoch

    def apply(self, connection: sqlite3.Connection) -> None:
        self._take.check(connection)
        row = connection.execute(
            "SELECT 1 FROM flow_run r JOIN task_run t ON t.id = ? AND t.state = 'RUNNING'"
            " WHERE r.id = ? AND r.epoch = ? AND r.state = 'RUNNING'",
            (self._task_run_id, self._flow_run_id, self._epoch),
        ).fetchone()
        if row is None:
            raise WriteRefused
        self._take.ride(connection, self._task_run_id)
        for note in self._notes:
            note.ride(connection, self._task_run_id)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM message WHERE id = ? AND received_by = ?", (self._take.message_id, self._task_run_id)
        ).fetchone()
        return row is not None


# ---------------------------------------------------------------------------------------------------- reads


def find_oldest(records: Records, flow_run_id: int, topic: str) -> MessageRow | None:
    """Return the oldest message of a topic that nobody has received."""
    row = records.row(
        "SELECT id, value, codec, hash, sent_at, sender_run_id FROM message"
        " WHERE flow_run_id = ? AND topic = ? AND received_by IS NULL ORDER BY id LIMIT 1",
        (flow_run_id, topic),
    )
    return None if row is None else MessageRow._make(cast("tuple[int, str, str, bytes, str, int | None]", row))


def load_message(records: Records, message: MessageRow) -> object:
    """Return the value of a message."""
    return records.load_result(message.value, message.codec, message.hash, f"message {message.id}")


class OpenRequest(NamedTuple):
    """What a call of a flow run waits for: an input that somebody has to give."""

    flow_run_id: int
    run_name: str
    run_state: str
    owner_id: int | None
    task_run_id: int
    request: str  # JSON text, as `wfengine.input_requests` wrote it
    schema: str | None  # the JSON schema of the input, as text; null: none is to be given


def list_open_requests(connection: sqlite3.Connection, flow_run_id: int | None, limit: int) -> list[OpenRequest]:
    """Return the inputs that a flow run and the subflows in it wait for (None: all runs), oldest first. Unpickles nothing."""
    rows = connection.execute(
        "WITH RECURSIVE family (id) AS ("
        "  SELECT ?"
        "  UNION SELECT c.id FROM family p JOIN task_run t ON t.flow_run_id = p.id"
        "  JOIN flow_run c ON c.parent_task_run_id = t.id"
        ") SELECT r.id, r.name, r.state, r.owner_id, t.id, coalesce(i.value, iv.data), coalesce(s.value, sv.data)"
        " FROM flow_run r CROSS JOIN item i ON i.flow_run_id = r.id AND i.key = 'input_request' AND i.codec = 'json'"
        " JOIN task_run t ON t.id = i.task_run_id LEFT JOIN value iv ON i.value IS NULL AND iv.hash = i.hash"
        " LEFT JOIN item s ON s.flow_run_id = r.id AND s.task_run_id = t.id AND s.key = 'input_schema' AND s.codec = 'json'"
        " LEFT JOIN value sv ON s.value IS NULL AND sv.hash = s.hash"
        " WHERE (? IS NULL OR r.id IN (SELECT id FROM family)) AND r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
        " AND t.state IN ('RUNNING', 'PAUSED', 'CRASHED', 'PENDING') ORDER BY t.id LIMIT ?",
        (flow_run_id, flow_run_id, limit),
    )
    return [OpenRequest._make(row) for row in rows]


def has_message(connection: sqlite3.Connection, flow_run_id: int, topic: str) -> bool:
    """Tell whether a flow run has a message of that topic that nobody has received."""
    row = connection.execute(
        "SELECT 1 FROM message WHERE flow_run_id = ? AND topic = ? AND received_by IS NULL LIMIT 1", (flow_run_id, topic)
    ).fetchone()
    return row is not None


def find_top_run(connection: sqlite3.Connection, flow_run_id: int) -> int:
    """Return the run of its own that a subflow is part of; the run itself if it is one."""
    while True:
        row = connection.execute(
            "SELECT t.flow_run_id FROM flow_run r JOIN task_run t ON t.id = r.parent_task_run_id WHERE r.id = ?", (flow_run_id,)
        ).fetchone()
        if row is None:
            return flow_run_id
        flow_run_id = int(row[0])
