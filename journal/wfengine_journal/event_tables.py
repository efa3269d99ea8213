"""Tables of the user's own whose new rows are events: by a trigger in the file, so in the transaction that writes the row.

It fires whoever writes the row, the sqlite3 program too, and whether or not anything of wfengine runs then.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from wfengine_journal.tickets import WriteRefused
from wfengine_journal.user_tables import EVENT_TRIGGER, PREFIX

#: Columns that a watched table may have: SQLite's functions take so many arguments, two for each of them.
COLUMN_LIMIT = 50


class WatchedTable(NamedTuple):
    """A table whose new rows are events."""

    table: str
    event: str


class WatchTable:
    """Let each new row of a table be an event of that name, with the row as its payload. Refused as `problem` says."""

    __slots__ = ("event", "outcome", "problem", "table")

    def __init__(self, table: str, event: str) -> None:
        self.table = table
        self.event = event
        self.problem: str | None = None
        self.outcome = "unchanged"  # or 'created', 'updated'

    def apply(self, connection: sqlite3.Connection) -> None:
        self.problem, self.outcome = None, "unchanged"
        name = trigger_name(self.table)
        columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (self.table,)).fetchall()
        kind = connection.execute("SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'", (self.table,)).fetchone()
        if kind is None or kind[0] != "table":
            self.problem = "there is no such table in the journal"
        elif len(columns) > COLUMN_LIMIT:
            self.problem = f"it has {len(columns)} columns, and an event holds {COLUMN_LIMIT} of them at the most"
        if self.problem is not None:
            raise WriteRefused
        wanted = _trigger_sql(name, self.table, self.event, columns, has_rowid=not kind[1])
        before = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?", (name,)).fetchone()
        if before is not None and before[0] == wanted:
            return
        self.outcome = "created" if before is None else "updated"
        connection.execute(f"DROP TRIGGER IF EXISTS {_quoted(name)}")
        connection.execute(wanted)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return WatchedTable(self.table, self.event) in list_watched_tables(connection)


class UnwatchTable:
    """Let new rows of a table be events no longer. Refused where they are none."""

    __slots__ = ("table",)

    def __init__(self, table: str) -> None:
        self.table = table

    def apply(self, connection: sqlite3.Connection) -> None:
        if self.table.lower() not in {watched.table.lower() for watched in list_watched_tables(connection)}:
            raise WriteRefused
        connection.execute(f"DROP TRIGGER {_quoted(trigger_name(self.table))}")

    def landed(self, connection: sqlite3.Connection) -> bool:
        return self.table.lower() not in {watched.table.lower() for watched in list_watched_tables(connection)}


def trigger_name(table: str) -> str:
    """Return the name of the trigger that makes events of a table's rows."""
    return EVENT_TRIGGER + table.lower().removeprefix(PREFIX)


def list_watched_tables(connection: sqlite3.Connection) -> list[WatchedTable]:
    """Return the tables whose new rows are events."""
    rows = connection.execute(
        "SELECT tbl_name, sql FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?) = ? ORDER BY tbl_name",
        (len(EVENT_TRIGGER), EVENT_TRIGGER),
    )
    return [WatchedTable(str(table), _event_of(str(sql))) for table, sql in rows.fetchall()]


def _event_of(sql: str) -> str:
    """Return the name of the event that a trigger inserts: its first text."""
    _, _, rest = sql.partition("VALUES ('")
    return rest.partition("', ")[0].replace("''", "'")


def _trigger_sql(name: str, table: str, event: str, columns: list[tuple[str, int]], *, has_rowid: bool) -> str:
    """Return the trigger. What JSON does not hold goes in as text: a blob in hexadecimal, an infinite number by name."""
    pairs = ", ".join(f"{_text(column)}, {_json_value('NEW.' + _quoted(column))}" for column, _ in columns)
    keys = [column for column, pk in sorted(columns, key=lambda pair: pair[1]) if pk]
    rowid = _rowid_name({column.lower() for column, _ in columns}) if has_rowid else None
    parts = [f"NEW.{rowid}"] if rowid else [_key_part(f"NEW.{_quoted(column)}") for column in keys]
    resource = " || '/' || ".join(parts) or "''"
    return (
        f"CREATE TRIGGER {_quoted(name)} AFTER INSERT ON {_quoted(table)}\nBEGIN\n"
        "    INSERT INTO event (name, resource, payload, occurred_at)\n"
        f"    VALUES ({_text(event)}, {_text(table + '.')} || {resource}, json_object({pairs}),\n"
        "            strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z');\nEND"
    )


def _rowid_name(columns: set[str]) -> str | None:
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)


def _key_part(value: str) -> str:
    return f"CASE typeof({value}) WHEN 'blob' THEN hex({value}) ELSE coalesce({value}, '') END"


def _json_value(value: str) -> str:
    return (
        f"CASE WHEN typeof({value}) = 'blob' THEN hex({value})"
        f" WHEN typeof({value}) = 'real' AND abs({value}) > 1.7976931348623157e308 THEN CAST({value} AS TEXT) ELSE {value} END"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
