"""Notifications: whom to tell (targets), and the outbox of what is to be told.

What is to be told is committed before anything is sent, with the call of a flow or the record of a firing that asks for it. A
*message* carries one notification, or several of a target. It gets its id when it is tried first, and its notifications keep
it: every further try is of the same ones, under the same id, so that whoever receives a message twice can tell.

A try is noted before it begins (`BeginSending`) and its outcome after it (`RecordSending`). One that was cut off is noted and
has no outcome: it may have arrived, and it is made again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from wfengine_journal.codec import encode
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, ChangeFromCall, StartAttempt

#: Notifications that one message carries at the most.
MESSAGE_LIMIT = 500
#: Notifications of one target that are looked at in one look.
LOOK_LIMIT = 1000


class TargetRow(NamedTuple):
    """One target; column meanings are in sql/format_4.sql."""

    name: str
    url: str
    rate_count: int | None
    rate_seconds: float | None
    digest_seconds: float
    allow_private: int
    held_to: str | None
    created_at: str
    updated_at: str


class NotificationRow(NamedTuple):
    """One notification; column meanings are in sql/format_4.sql."""

    id: int
    target: str
    idempotency_key: str | None
    flow_run_id: int | None
    level: str
    subject: str | None
    body: str
    state: str
    message_id: str | None
    attempts: int
    unsure: int
    next_attempt_at: str | None
    reason: str | None
    created_at: str
    begun_at: str | None
    ended_at: str | None


class NotificationColumns(NamedTuple):
    """One notification to write."""

    target: str
    level: str
    subject: str | None
    body: str
    created_at: str
    idempotency_key: str | None = None
    flow_run_id: int | None = None


_TARGET = "name, url, rate_count, rate_seconds, digest_seconds, allow_private, held_to, created_at, updated_at"
_NOTIFICATION = (
    "id, target, idempotency_key, flow_run_id, level, subject, body, state, message_id, attempts, unsure, next_attempt_at,"
    " reason, created_at, begun_at, ended_at"
)


# ------------------------------------------------------------------------------------------- targets


class SetTarget:
    """Write a target, as a new one or in place of the one of that name. Refused when it exists and is not to be overwritten."""

    __slots__ = ("overwrite", "row")

    def __init__(self, row: TargetRow, *, overwrite: bool) -> None:
        self.row = row
        self.overwrite = overwrite

    def apply(self, connection: sqlite3.Connection) -> None:
        if not self.overwrite and find_target(connection, self.row.name) is not None:
            raise WriteRefused
        connection.execute(
            f"INSERT INTO notification_target ({_TARGET}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET url = excluded.url, rate_count = excluded.rate_count,"
            " rate_seconds = excluded.rate_seconds, digest_seconds = excluded.digest_seconds,"
            " allow_private = excluded.allow_private, held_to = NULL, updated_at = excluded.updated_at",
            self.row,
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = find_target(connection, self.row.name)
        return row is not None and (row.url, row.updated_at) == (self.row.url, self.row.updated_at)


class UnsetTarget:
    """Delete a target. Sets `existed`."""

    __slots__ = ("existed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.existed = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.existed = connection.execute("DELETE FROM notification_target WHERE name = ?", (self.name,)).rowcount == 1

    def landed(self, connection: sqlite3.Connection) -> bool:
        return find_target(connection, self.name) is None


# ------------------------------------------------------------------------------------------- the outbox


class PutNotification:
    """Write a notification, unless there is one of its target and key. Refused where there is no such target.

    Sets `notification_id` and `is_new`.
    """

    __slots__ = ("columns", "is_new", "notification_id")

    def __init__(self, columns: NotificationColumns) -> None:
        self.columns = columns
        self.notification_id = 0
        self.is_new = False

    def apply(self, connection: sqlite3.Connection) -> None:
        columns = self.columns
        if find_target(connection, columns.target) is None:
            raise WriteRefused
        found = _find_by_key(connection, columns.target, columns.idempotency_key)
        self.is_new = found is None
        if found is not None:
            self.notification_id = found
            return
        cursor = connection.execute(
            "INSERT INTO notification (target, level, subject, body, created_at, idempotency_key, flow_run_id, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'pending')",
            columns,
        )
        self.notification_id = int(cursor.lastrowid or 0)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM notification WHERE id = ? AND target = ? AND body = ?",
            (self.notification_id, self.columns.target, self.columns.body),
        ).fetchone()
        return row is not None


class NotifyFromCall(ChangeFromCall):
    """Write notifications together with the completed call, in a running flow, that asks for them: all or nothing.

    The result of the call is a list of pairs: id of the notification, whether it is new.
    """

    __slots__ = ("puts",)

    def __init__(self, begin: BeginCall | StartAttempt, puts: Sequence[PutNotification], *, attempt: int) -> None:
        super().__init__(begin, attempt=attempt)
        self.puts = puts

    def apply(self, connection: sqlite3.Connection) -> None:
        self._begin_call(connection)
        for put in self.puts:
            put.apply(connection)
        self._complete_call(connection, encode(self.result, "what notify() did"))

    @property
    def result(self) -> list[object]:
        """What is recorded as the result of the call."""
        return [[put.notification_id, put.is_new] for put in self.puts]


class BeginSending:
    """Note that a message is tried: its notifications have its id from now on. Refused where one is not as it was read."""

    __slots__ = ("at", "message_id", "rows")

    def __init__(self, rows: Sequence[NotificationRow], message_id: str, *, at: str) -> None:
        self.rows = rows
        self.message_id = message_id
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        for row in self.rows:
            _check(connection, row)
        for row in self.rows:
            connection.execute(
                "UPDATE notification SET message_id = ?, attempts = attempts + 1, unsure = 1,"
                " begun_at = coalesce(begun_at, ?), next_attempt_at = NULL WHERE id = ?",
                (self.message_id, self.at, row.id),
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        first = self.rows[0]
        row = connection.execute(
            "SELECT 1 FROM notification WHERE id = ? AND message_id = ? AND attempts = ?",
            (first.id, self.message_id, first.attempts + 1),
        ).fetchone()
        return row is not None

    def begun(self) -> list[NotificationRow]:
        """Return the rows as they are after this."""
        return [
            row._replace(
                message_id=self.message_id, attempts=row.attempts + 1, unsure=1, begun_at=row.begun_at or self.at,
                next_attempt_at=None,
            )
            for row in self.rows
        ]  # fmt: skip


class RecordSending:
    """Record what came of a try. `state` 'pending': it is made again at `next_attempt_at`.

    `unsure`: it may have arrived all the same. `held_to`: the target asked to be sent nothing before. Refused where one of the
    notifications is not as it was left by `BeginSending`.
    """

    __slots__ = ("at", "held_to", "next_attempt_at", "reason", "rows", "state", "unsure")

    def __init__(
        self, rows: Sequence[NotificationRow], state: str, *, at: str, reason: str | None = None, unsure: bool = False,
        next_attempt_at: str | None = None, held_to: str | None = None,
    ) -> None:  # fmt: skip
        self.rows = rows
        self.state = state
        self.at = at
        self.reason = reason
        self.unsure = unsure
        self.next_attempt_at = next_attempt_at
        self.held_to = held_to

    def apply(self, connection: sqlite3.Connection) -> None:
        for row in self.rows:
            _check(connection, row)
        ended_at = None if self.state == "pending" else self.at
        for row in self.rows:
            connection.execute(
                "UPDATE notification SET state = ?, reason = ?, unsure = ?, next_attempt_at = ?, ended_at = ? WHERE id = ?",
                (self.state, self.reason, int(self.unsure), self.next_attempt_at, ended_at, row.id),
            )
        if self.held_to is not None:
            connection.execute("UPDATE notification_target SET held_to = ? WHERE name = ?", (self.held_to, self.rows[0].target))

    def landed(self, connection: sqlite3.Connection) -> bool:
        first = self.rows[0]
        row = connection.execute(
            "SELECT 1 FROM notification WHERE id = ? AND attempts = ? AND state = ? AND next_attempt_at IS ?",
            (first.id, first.attempts, self.state, self.next_attempt_at),
        ).fetchone()
        return row is not None


class RetryNotifications:
    """Let notifications that failed be tried again, each with those of its message, as it was. Sets `retried`: their ids.

    `notification_id` or `target` null: any.
    """

    __slots__ = ("notification_id", "retried", "target")

    def __init__(self, *, notification_id: int | None = None, target: str | None = None) -> None:
        self.notification_id = notification_id
        self.target = target
        self.retried: list[int] = []

    def apply(self, connection: sqlite3.Connection) -> None:
        found = connection.execute(
            "SELECT id FROM notification WHERE state = 'failed' AND (? IS NULL OR target = ?) AND (? IS NULL OR id = ?"
            " OR message_id = (SELECT message_id FROM notification WHERE id = ?)) ORDER BY id",
            (self.target, self.target, self.notification_id, self.notification_id, self.notification_id),
        ).fetchall()
        self.retried = [int(row[0]) for row in found]
        for number in self.retried:
            connection.execute(
                "UPDATE notification SET state = 'pending', attempts = 0, next_attempt_at = NULL, ended_at = NULL WHERE id = ?",
                (number,),
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        return all(
            connection.execute("SELECT 1 FROM notification WHERE id = ? AND state = 'failed'", (number,)).fetchone() is None
            for number in self.retried
        )


def _check(connection: sqlite3.Connection, row: NotificationRow) -> None:
    found = connection.execute(
        "SELECT 1 FROM notification WHERE id = ? AND state = 'pending' AND attempts = ? AND message_id IS ?",
        (row.id, row.attempts, row.message_id),
    ).fetchone()
    if found is None:
        raise WriteRefused


def _find_by_key(connection: sqlite3.Connection, target: str, key: str | None) -> int | None:
    if key is None:
        return None
    row = connection.execute("SELECT id FROM notification WHERE target = ? AND idempotency_key = ?", (target, key)).fetchone()
    return None if row is None else int(row[0])


# ------------------------------------------------------------------------------------------- reads


def find_target(connection: sqlite3.Connection, name: str) -> TargetRow | None:
    """Return the target of that name."""
    row = connection.execute(f"SELECT {_TARGET} FROM notification_target WHERE name = ?", (name,)).fetchone()
    return None if row is None else TargetRow._make(row)


def list_targets(connection: sqlite3.Connection, *, limit: int = 1000) -> list[TargetRow]:
    """Return the targets, by name."""
    rows = connection.execute(f"SELECT {_TARGET} FROM notification_target ORDER BY name LIMIT ?", (limit,))
    return [TargetRow._make(row) for row in rows]


def has_pending(connection: sqlite3.Connection) -> bool:
    """Tell whether there are notifications that were not sent yet."""
    return connection.execute("SELECT 1 FROM notification WHERE state = 'pending' LIMIT 1").fetchone() is not None


def list_pending(connection: sqlite3.Connection) -> list[NotificationRow]:
    """Return the oldest notifications of each target that were not sent yet."""
    targets = connection.execute("SELECT DISTINCT target FROM notification WHERE state = 'pending'").fetchall()
    found: list[NotificationRow] = []
    for (target,) in targets:
        rows = connection.execute(
            f"SELECT {_NOTIFICATION} FROM notification WHERE state = 'pending' AND target = ? ORDER BY id LIMIT ?",
            (target, LOOK_LIMIT),
        )
        found += map(NotificationRow._make, rows)
    return sorted(found, key=lambda row: row.id)


def list_begun(connection: sqlite3.Connection, target: str, since: str) -> list[str]:
    """Return when messages to a target were begun since an instant, the earliest first."""
    rows = connection.execute(
        "SELECT min(begun_at) FROM notification WHERE target = ? AND begun_at > ? GROUP BY message_id ORDER BY 1",
        (target, since),
    )
    return [str(row[0]) for row in rows]


def count_by_state(connection: sqlite3.Connection, target: str) -> dict[str, int]:
    """Return how many notifications to a target are in each state."""
    rows = connection.execute("SELECT state, count(*) FROM notification WHERE target = ? GROUP BY state", (target,))
    return {str(state): int(count) for state, count in rows}


def count_open(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many notifications wait to be sent, and how many failed."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM notification WHERE state = 'pending'),"
        " (SELECT count(*) FROM notification WHERE state = 'failed')"
    ).fetchone()
    return int(row[0]), int(row[1])


def list_notifications(
    connection: sqlite3.Connection, *, target: str | None = None, state: str | None = None, limit: int = 50
) -> list[NotificationRow]:
    """Return the newest notifications, newest first."""
    rows = connection.execute(
        f"SELECT {_NOTIFICATION} FROM notification WHERE (? IS NULL OR target = ?) AND (? IS NULL OR state = ?)"
        " ORDER BY id DESC LIMIT ?",
        (target, target, state, state, limit),
    )
    return [NotificationRow._make(row) for row in rows]


def find_notification(connection: sqlite3.Connection, notification_id: int) -> NotificationRow | None:
    """Return a notification."""
    row = connection.execute(f"SELECT {_NOTIFICATION} FROM notification WHERE id = ?", (notification_id,)).fetchone()
    return None if row is None else NotificationRow._make(row)
