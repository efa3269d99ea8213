"""Statements that a person typed, on a connection that can do nothing but read.

The file is opened read-only, `query_only` is on, and an authorizer refuses every action but reading: no ATTACH (which
could create or read another file), no PRAGMA that sets anything, no transaction (which would keep the log from being
reset), no loading of extensions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import STEPS_BETWEEN_LOOKS, primary_code
from wfengine_journal.errors import UsageError
from wfengine_journal.queries import reading

#: Pragmas that only tell something; those in the second set only when no value is given.
_TELLING = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
    | {"database_list", "collation_list", "function_list", "module_list", "pragma_list", "compile_options"}
    | {"quick_check", "integrity_check", "foreign_key_check", "page_count", "freelist_count", "data_version"}
)
_TELLING_WITHOUT_VALUE = frozenset(
    {"application_id", "auto_vacuum", "encoding", "journal_mode", "page_size", "query_only", "schema_version"}
    | {"user_version"}
)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})

#: Bytes of the largest value that a statement with a time limit may make.
VALUE_BYTES = 4_000_000

#: Bytes of a pattern in it: how long LIKE takes grows with a power of them.
PATTERN_BYTES = 60
#: A single call of these may take many seconds, in which SQLite does not look at the time.
_SLOW_FUNCTIONS = frozenset({"printf", "format"})

#: What a person who has no question yet is shown.
LIST_OF_VIEWS = "SELECT name, shows FROM help"


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer to a statement; `rows` is read as it is asked for, inside the block that opened the connection."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[object, ...]]


@contextmanager
def sandbox(path: Path, limit_seconds: float | None = None) -> Iterator[sqlite3.Connection]:
    """Open a journal for `select`. With a limit, what takes longer is stopped, and no value may exceed `VALUE_BYTES`."""
    with reading(path) as connection:
        connection.row_factory = None
        connection.set_authorizer(_authorize)
        if limit_seconds is None:
            yield connection
            return
        clock = SystemClock()
        until = clock.monotonic_seconds() + limit_seconds
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES)
        connection.set_authorizer(_authorize_quick)
        connection.set_progress_handler(lambda: int(clock.monotonic_seconds() > until), STEPS_BETWEEN_LOOKS)
        try:
            yield connection
        except KeyboardInterrupt as stopped:
            if clock.monotonic_seconds() <= until:
                raise
            raise UsageError(f"The statement took longer than {limit_seconds:g} s, and was stopped. Ask for less.") from stopped


def select(connection: sqlite3.Connection, statement: str) -> Selection:
    """Run one reading statement. Raises UsageError for one that is wrong or would do anything but read."""
    try:
        cursor = connection.execute(statement)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        # ValueError: the text holds a NUL, or a character that is not valid in UTF-8.
        raise _explained(error) from error
    columns = tuple(column[0] for column in cursor.description or ())
    return Selection(columns, _rows(cursor))


def _rows(cursor: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
    while True:
        try:
            row = cursor.fetchone()
        except sqlite3.Error as error:
            raise _explained(error) from error
        if row is None:
            return
        yield row


def _explained(error: Exception) -> BaseException:
    """Return what to raise: KeyboardInterrupt for Ctrl-C, the error itself if the file is at fault, else UsageError."""
    code = primary_code(error) if isinstance(error, sqlite3.Error) else sqlite3.SQLITE_ERROR
    if code == sqlite3.SQLITE_INTERRUPT:
        return KeyboardInterrupt()
    if code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY) or "authoriz" in str(error):
        return UsageError(
            f"Only reading is allowed here ({error}). To change a journal use wfengine's own commands; "
            'to work on a copy: sqlite3 JOURNAL ".backup copy.db"'
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
        return error
    said = str(error).rstrip(".")
    return UsageError(f"SQLite could not run that: {said}. SELECT * FROM help lists what can be asked.")


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        if name in _TELLING or (name in _TELLING_WITHOUT_VALUE and second is None):
            return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _authorize_quick(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _SLOW_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return _authorize(action, first, second, database, trigger)
