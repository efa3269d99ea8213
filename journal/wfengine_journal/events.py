"""Events: what happened, as rows that only ever get more.

Each state change of a flow run is one, written with its history (`run_transitions`); those of task runs are while an automation
wants them (`task_events`). The others are written here, by themselves or in one transaction with the call that emits them.
"""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

from wfengine_journal.codec import encode
from wfengine_journal.records import Records
from wfengine_journal.transitions import BeginCall, ChangeFromCall, StartAttempt

#: What the idempotency key of everything begins with that an action of a firing made: 'firing:ID:INDEX'.
FIRING_KEY = "firing:"


class EventColumns(NamedTuple):
    """One event to write; column meanings are in sql/format_4.sql."""

    name: str
    resource: str
    occurred_at: str
    labels: str | None = None
    related: str | None = None
    payload: str | None = None
    idempotency_key: str | None = None
    flow_run_id: int | None = None


class EventRow(NamedTuple):
    """One event, with what the journal knows of the run that it is of."""

    id: int
    name: str
    resource: str
    flow_run_id: int | None
    task_run_id: int | None
    labels: str | None
    related: str | None
    payload: str | None
    idempotency_key: str | None
    occurred_at: str
    run_name: str | None
    flow: str | None
    deployment: str | None
    run_tags: str | None
    run_key: str | None  # the idempotency key of the run
    task: str | None


class PutEvent:
    """Write an event, unless there is one with its name and idempotency key. Sets `event_id` and `is_new`."""

    __slots__ = ("columns", "event_id", "is_new")

    def __init__(self, columns: EventColumns) -> None:
        self.columns = columns
        self.event_id = 0
        self.is_new = False

    def apply(self, connection: sqlite3.Connection) -> None:
        found = self._find(connection)
        self.is_new = found is None
        if found is not None:
            self.event_id = found
            return
        cursor = connection.execute(
            "INSERT INTO event (name, resource, occurred_at, labels, related, payload, idempotency_key, flow_run_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self.columns,
        )
        self.event_id = int(cursor.lastrowid or 0)

    def _find(self, connection: sqlite3.Connection) -> int | None:
        if self.columns.idempotency_key is None:
            return None
        row = connection.execute(
            "SELECT id FROM event WHERE name = ? AND idempotency_key = ?", (self.columns.name, self.columns.idempotency_key)
        ).fetchone()
        return None if row is None else int(row[0])

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM event WHERE id = ? AND name = ? AND resource = ? AND (occurred_at = ? OR ? IS NOT NULL)",
            (
                self.event_id,
                self.columns.name,
                self.columns.resource,
                self.columns.occurred_at,
                self.columns.idempotency_key,
            ),
        ).fetchone()
        return row is not None


class EmitFromCall(ChangeFromCall):
    """Write an event together with the completed call, in a running flow, that emitted it: both or neither are in the file.

    The result of the call is a list: id of the event, whether it is new, when it occurred.
    """

    __slots__ = ("put",)

    def __init__(self, begin: BeginCall | StartAttempt, put: PutEvent, *, attempt: int) -> None:
        super().__init__(begin, attempt=attempt)
        self.put = put

    def apply(self, connection: sqlite3.Connection) -> None:
        self._begin_call(connection)
        self.put.apply(connection)
        self._complete_call(connection, encode(self.result, "what emit_event() did"))

    @property
    def result(self) -> list[object]:
        """What is recorded as the result of the call."""
        return [self.put.event_id, self.put.is_new, self.put.columns.occurred_at]


class PutFileEvent:
    """Write what became of a watched file, unless the last event of that file says so already. Sets `written`: its name.

    `stamp` tells one content of the file from another: times and size; null: the file is not there. The idempotency key holds
    it, and the id of the event before, so that two watchers write one event, and a file that comes back has another.
    """

    __slots__ = ("at", "labels", "path", "payload", "resource", "stamp", "written")

    def __init__(self, path: str, stamp: str | None, *, resource: str, labels: str, payload: str, at: str) -> None:
        self.path = path
        self.stamp = stamp
        self.resource = resource
        self.labels = labels
        self.payload = payload
        self.at = at
        self.written: str | None = None

    def apply(self, connection: sqlite3.Connection) -> None:
        self.written = None
        last_id, last_name, last_stamp = find_last_of_file(connection, self.path) or (0, "file.deleted", None)
        is_there = last_name != "file.deleted"
        if self.stamp is None:
            name = "file.deleted" if is_there else None
        elif not is_there:
            name = "file.added"
        else:
            name = "file.changed" if self.stamp != last_stamp else None
        if name is None:
            return
        connection.execute(
            "INSERT INTO event (name, resource, labels, payload, idempotency_key, occurred_at) VALUES (?, ?, ?, ?, ?, ?)",
            (name, self.resource, self.labels, self.payload, f"{_file_key(self.path)}|{self.stamp or ''}|{last_id}", self.at),
        )
        self.written = name

    def landed(self, connection: sqlite3.Connection) -> bool:
        _, name, stamp = find_last_of_file(connection, self.path) or (0, "file.deleted", None)
        return (name == "file.deleted") if self.stamp is None else stamp == self.stamp


# ------------------------------------------------------------------------------------------- reads

_COLUMNS = (
    "e.id, CAST(e.name AS BLOB), CAST(e.resource AS BLOB), e.flow_run_id, e.task_run_id, CAST(e.labels AS BLOB),"
    " CAST(e.related AS BLOB), CAST(e.payload AS BLOB), CAST(e.idempotency_key AS BLOB), CAST(e.occurred_at AS BLOB),"
    " r.name, f.name, f.name || '/' || d.name, r.tags, r.idempotency_key, k.name"
)
_TABLES = (
    "event e LEFT JOIN flow_run r ON r.id = e.flow_run_id LEFT JOIN flow f ON f.id = r.flow_id"
    " LEFT JOIN deployment d ON d.id = r.deployment_id LEFT JOIN task_run t ON t.id = e.task_run_id"
    " LEFT JOIN task k ON k.id = t.task_id"
)


def list_events_after(records: Records, event_id: int, limit: int) -> list[EventRow]:
    """Return the events after one, oldest first."""
    rows = records.rows(f"SELECT {_COLUMNS} FROM {_TABLES} WHERE e.id > ? ORDER BY e.id LIMIT ?", (event_id, limit))
    return [_row(row) for row in rows]


def _row(columns: tuple[object, ...]) -> EventRow:
    """Return an event. Its texts may be of a table of the user's, and need not be UTF-8."""
    return EventRow._make(text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in columns)


def last_event_id(records: Records) -> int:
    """Return the id of the newest event there ever was; 0 for none. Cheap."""
    row = records.row("SELECT seq FROM sqlite_sequence WHERE name = 'event'", ())
    return 0 if row is None else int(str(row[0]))


def find_event(connection: sqlite3.Connection, event_id: int) -> EventRow | None:
    """Return an event, for people."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM {_TABLES} WHERE e.id = ?", (event_id,)).fetchone()
    return None if row is None else _row(row)


def list_events(
    connection: sqlite3.Connection, *, name: str | None = None, resource: str | None = None, run_id: int | None = None,
    after: int | None = None, limit: int = 50,
) -> list[EventRow]:  # fmt: skip
    """Return the newest events, newest first, or with `after` those after one, oldest first. `*` stands for any text."""
    where, values = _matching(name, resource, run_id)
    if after is not None:
        where.append("e.id > ?")
        values.append(after)
    order = "DESC" if after is None else "ASC"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {_TABLES} WHERE {' AND '.join(where)} ORDER BY e.id {order} LIMIT ?", (*values, limit)
    )
    return [_row(row) for row in rows.fetchall()]


def search_events(
    connection: sqlite3.Connection, *, name: str | None = None, resource: str | None = None, run_id: int | None = None,
    before_id: int, limit: int, scanned: int,
) -> tuple[list[EventRow], int | None]:  # fmt: skip
    """Return the newest events below an id, and below which id the next page begins (None: there are no more).

    No more than `scanned` events are looked at, so that a page may be shorter than what is looked for. `*` stands for any text.
    """
    if run_id is not None:
        low, is_end = 0, True  # by the index of events of a run
    else:
        row = connection.execute(
            "SELECT count(*), min(id) FROM (SELECT id FROM event WHERE id < ? ORDER BY id DESC LIMIT ?)", (before_id, scanned)
        ).fetchone()
        low, is_end = int(row[1] or 0), row[0] < scanned
    where, values = _matching(name, resource, run_id)
    where.append("e.id >= ? AND e.id < ?")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {_TABLES} WHERE {' AND '.join(where)} ORDER BY e.id DESC LIMIT ?",
        (*values, low, before_id, limit + 1),
    )
    found = [_row(row) for row in rows.fetchall()]
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, None if is_end else low


def _matching(name: str | None, resource: str | None, run_id: int | None) -> tuple[list[str], list[object]]:
    """Return the conditions of which events are meant, and their values."""
    where: list[str] = ["1"]
    values: list[object] = []
    for column, pattern in (("e.name", name), ("e.resource", resource)):
        if pattern is not None:
            where.append(f"{column} GLOB ?")
            values.append(_glob(pattern))
    if run_id is not None:
        where.append("e.flow_run_id = ?")
        values.append(run_id)
    return where, values


def _glob(pattern: str) -> str:
    return re.sub(r"[\[?]", lambda found: f"[{found.group()}]", pattern)


def find_last_of_file(connection: sqlite3.Connection, path: str) -> tuple[int, str, str] | None:
    """Return the last event of a watched file: its id, its name, and the stamp the file had then."""
    found: list[tuple[int, str, str]] = []
    key = _file_key(path)
    for name in ("file.added", "file.changed", "file.deleted"):
        row = connection.execute(
            "SELECT id, idempotency_key FROM event WHERE name = ? AND idempotency_key > ? AND idempotency_key < ?"
            " ORDER BY id DESC LIMIT 1",
            (name, f"{key}|", f"{key}}}"),  # '}' comes after '|'
        ).fetchone()
        if row is not None:
            found.append((int(row[0]), name, str(row[1])[len(key) + 1 :].rpartition("|")[0]))
    return max(found, default=None)


def list_watched_files(records: Records, folder: str) -> list[str]:
    """Return the paths below a folder of which there are events."""
    paths: set[str] = set()
    begin = _file_key(folder)
    for name in ("file.added", "file.changed"):
        rows = records.rows(
            "SELECT idempotency_key FROM event WHERE name = ? AND idempotency_key > ? AND idempotency_key < ?",
            (name, f"{begin}/", f"{begin}0"),  # '0' comes after '/'
        )
        keys = [str(row[0]).rpartition("|")[0].rpartition("|")[0] for row in rows]
        paths.update(key.replace("%7C", "|").replace("%25", "%") for key in keys)
    return sorted(paths)


def _file_key(path: str) -> str:
    """Return a path as idempotency keys begin with it: without the sign that ends it there."""
    return path.replace("%", "%25").replace("|", "%7C")
