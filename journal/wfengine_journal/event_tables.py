"""Tables of the user's own whose new rows are events: by a trigger in the file, so in the transaction that writes the row.

It fires whoever writes the row, the sqlite3 program too, and whether or not anything of wfengine runs then.
"""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

from wfengine_journal.tickets import WriteRefused
from wfengine_journal.user_tables import EVENT_TRIGGER, PREFIX

#: Columns that a watched table may have: SQLite takes a few hundred SELECTs joined in one.
COLUMN_LIMIT = 200
#: What JSON escapes in a text, as SQL: the backslash first.
_ESCAPES = [
    ("'\\'", "'\\\\'"),
    ("'\"'", "'\\\"'"),
    *((f"char({number})", f"'{json.dumps(chr(number))[1:-1]}'") for number in range(1, 32)),
]
_ESCAPES_AT_ONCE = 9
#: v as JSON, where it is a text already escaped as e. What JSON does not hold becomes text: a blob in hexadecimal, infinity by
#: name; and a text with a zero character, which SQLite does not replace, in hexadecimal.
_JSON_VALUE = (
    "CASE typeof(v) WHEN 'null' THEN 'null' WHEN 'integer' THEN CAST(v AS TEXT)"
    " WHEN 'real' THEN CASE WHEN abs(v) > 1.7976931348623157e308 THEN '\"' || v || '\"' ELSE printf('%!.17g', v) END"
    " WHEN 'text' THEN CASE WHEN length(CAST(v AS BLOB)) = length(CAST(substr(v, 1, length(v)) AS BLOB)) THEN '\"' || e || '\"'"
    " ELSE '\"' || hex(v) || '\"' END ELSE '\"' || hex(v) || '\"' END"
)


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
    _, _, rest = sql.partition("\n    SELECT '")
    return rest.partition("', ")[0].replace("''", "'")


def _trigger_sql(name: str, table: str, event: str, columns: list[tuple[str, int]], *, has_rowid: bool) -> str:
    """Return the trigger.

    It writes its JSON by hand: SQLite's own functions for that may not be used in a trigger where schemas are not trusted, as
    wfengine opens its files, before SQLite 3.41.
    """
    members = " UNION ALL ".join(
        f"SELECT {_text(json.dumps(column, ensure_ascii=False))} AS k, NEW.{_quoted(column)} AS v" for column, _ in columns
    )
    keys = [column for column, pk in sorted(columns, key=lambda pair: pair[1]) if pk]
    rowid = _rowid_name({column.lower() for column, _ in columns}) if has_rowid else None
    parts = [f"NEW.{rowid}"] if rowid else [_key_part(f"NEW.{_quoted(column)}") for column in keys]
    resource = " || '/' || ".join(parts) or "''"
    source = f"SELECT k, v, CASE typeof(v) WHEN 'text' THEN v END AS e FROM ({members})"
    for start in range(0, len(_ESCAPES), _ESCAPES_AT_ONCE):  # the parser of SQLite has no room for more in one expression
        escaped = "e"
        for character, escape in _ESCAPES[start : start + _ESCAPES_AT_ONCE]:
            escaped = f"replace({escaped}, {character}, {escape})"
        source = f"SELECT k, v, {escaped} AS e FROM ({source})"
    return (
        f"CREATE TRIGGER {_quoted(name)} AFTER INSERT ON {_quoted(table)}\nBEGIN\n"
        "    INSERT INTO event (name, resource, occurred_at, payload)\n"
        f"    SELECT {_text(event)}, {_text(table + '.')} || {resource}, strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z',\n"
        f"        '{{' || group_concat(k || ':' || {_JSON_VALUE}, ',') || '}}'\n    FROM ({source});\nEND"
    )


def _rowid_name(columns: set[str]) -> str | None:
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)


def _key_part(value: str) -> str:
    return f"CASE typeof({value}) WHEN 'blob' THEN hex({value}) ELSE coalesce({value}, '') END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
