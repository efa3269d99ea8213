"""The connection that a transactional task is given: to tables of its own in the journal file, inside one transaction.

It is the writer's own connection behind a guard. Names of a user's tables, indexes, views and triggers begin with `user_`;
nothing else may be made or changed, and of wfengine's own only the documented views are read. SQLite asks the guard about
each thing that a statement would touch, before it runs. The guard also keeps the time: others wait for the transaction.

This keeps a mistake from harming the journal. It is no wall against hostile code: that runs with the user's rights anyway.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from wfengine_journal.connection import primary_code
from wfengine_journal.errors import TransactionTooLongError, UserTableError
from wfengine_journal.holds import FAULTS_OF_A_CHANGE, rolled_back_error
from wfengine_journal.schema import read_sql

if TYPE_CHECKING:
    from wfengine_journal.clock import Clock

T = TypeVar("T")
Values: TypeAlias = "Sequence[object] | Mapping[str, object]"

#: What the names of a user's own tables, indexes, views and triggers begin with.
PREFIX = "user_"
#: What the names of the triggers begin with that make events of new rows, see `event_tables`.
EVENT_TRIGGER = "user_wfengine_event_"
#: How long a transaction may be held before a warning, in seconds: a commit takes a thousandth of it.
WARNING_SECONDS = 1.0
#: Virtual-machine steps of SQLite between two looks at the clock and at Ctrl-C; about a millisecond.
STEPS_BETWEEN_LOOKS = 20_000
#: Stands before each statement of a user's, so that Python's cache of prepared statements never gives it one of ours, which
#: was prepared without being asked about.
_MARK = "/* user */ "

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_SAVEPOINT})
_CHANGES = {sqlite3.SQLITE_INSERT: "insert into", sqlite3.SQLITE_UPDATE: "update", sqlite3.SQLITE_DELETE: "delete from"}
#: Action -> what it does, to the thing that SQLite names first.
_SCHEMA_CHANGES = {
    sqlite3.SQLITE_CREATE_TABLE: "create table", sqlite3.SQLITE_DROP_TABLE: "drop table",
    sqlite3.SQLITE_CREATE_VIEW: "create view", sqlite3.SQLITE_DROP_VIEW: "drop view",
    sqlite3.SQLITE_CREATE_INDEX: "create index", sqlite3.SQLITE_DROP_INDEX: "drop index",
    sqlite3.SQLITE_CREATE_TRIGGER: "create trigger", sqlite3.SQLITE_DROP_TRIGGER: "drop trigger",
    sqlite3.SQLITE_REINDEX: "reindex",
}  # fmt: skip
#: Those that name the table second.
_OF_A_TABLE = frozenset(
    {sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_DROP_TRIGGER}
)
_REFUSED = {
    sqlite3.SQLITE_TRANSACTION: "begin or end a transaction, which the engine does: it commits with the task's result",
    sqlite3.SQLITE_ATTACH: "attach another file, whose changes would not be committed together with the journal's",
    sqlite3.SQLITE_DETACH: "detach a file",
    sqlite3.SQLITE_ANALYZE: "analyze the journal",
    sqlite3.SQLITE_CREATE_VTABLE: "create a virtual table",
    sqlite3.SQLITE_DROP_VTABLE: "drop a virtual table",
}
_TEMPORARY = frozenset(
    {sqlite3.SQLITE_CREATE_TEMP_TABLE, sqlite3.SQLITE_CREATE_TEMP_VIEW, sqlite3.SQLITE_CREATE_TEMP_INDEX}
    | {sqlite3.SQLITE_CREATE_TEMP_TRIGGER, sqlite3.SQLITE_DROP_TEMP_TABLE, sqlite3.SQLITE_DROP_TEMP_VIEW}
    | {sqlite3.SQLITE_DROP_TEMP_INDEX, sqlite3.SQLITE_DROP_TEMP_TRIGGER}
)
#: SQLite's own tables, which it changes itself when a table is created or dropped; it lets nobody else write the first four.
_SCHEMA_TABLES = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
_KEPT_BESIDE = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})
_TELLING_PRAGMAS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
#: Result codes that are the statement's own doing, beside those of a change: nothing is wrong with the disk.
_FAULTS_OF_A_STATEMENT = FAULTS_OF_A_CHANGE | {
    sqlite3.SQLITE_AUTH, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_ABORT, sqlite3.SQLITE_LOCKED,
}  # fmt: skip
_MAY_DO = (
    f"A transactional task may create, change and read tables, indexes, views and triggers whose names begin with {PREFIX}, "
    "and read the documented views: SELECT * FROM help"
)

_logger = logging.getLogger("wfengine.engine")


@cache
def documented_views() -> frozenset[str]:
    """Return the names of the views that anybody may read."""
    return frozenset(re.findall(r"^CREATE VIEW (\w+)", read_sql("views.sql"), re.MULTILINE))


def is_users(name: str | None) -> bool:
    """Tell whether a table, index, view or trigger of that name is a user's own."""
    return name is not None and name.lower().startswith(PREFIX)


class TaskOfTransaction(NamedTuple):
    """For whom a transaction is held."""

    text: str
    flow_run_id: int
    task_run_id: int


class Guard:
    """What user code may do on the write connection, and for how long. Enter it for the connection to hand out."""

    def __init__(self, connection: sqlite3.Connection, task: TaskOfTransaction, clock: Clock, limit_seconds: float) -> None:
        self.connection = connection
        self.task = task
        self.fault: sqlite3.Error | None = None  # of the disk
        self.cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()
        self._clock = clock
        self._limit = limit_seconds
        self._began = clock.monotonic_seconds()
        self._place = (os.getpid(), threading.get_ident())
        self._is_asked = False  # a statement of the user's is under way, not one of ours
        self._refusal: str | None = None
        self._alters = False  # it drops or alters a table of the user's, so SQLite keeps its own books about that
        self._interruption: BaseException | None = None
        self._is_over = False
        self._has_warned = False

    def __enter__(self) -> Connection:
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(self._look, STEPS_BETWEEN_LOOKS)
        return Connection(self)

    def __exit__(self, _type: object, _error: object, _traceback: TracebackType | None) -> None:
        self._is_over = True
        if os.getpid() != self._place[0]:
            return  # a forked child: the connection is the parent's
        for cursor in list(self.cursors):
            cursor.close()  # a statement under way would hold its snapshot of the file
        self.connection.set_progress_handler(None, 0)
        self.connection.set_authorizer(None)

    # ---- statements

    def run(self, statement: Callable[[], T]) -> T:
        """Run a part of a statement of the user's."""
        self.check()
        self._refusal, self._alters = None, False
        self._is_asked = True
        try:
            return statement()
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            self._is_asked = False

    def execute(self, sql: str, statement: Callable[[str], T]) -> T:
        """Run a whole statement; `statement` is called with its text."""
        lower = sql.lower()
        if "alter" in lower and "rename" in lower:
            return self._rename(sql, statement)
        return self.run(lambda: statement(_MARK + sql))

    def _rename(self, sql: str, statement: Callable[[str], T]) -> T:
        """SQLite does not ask about the new name, so look at what came of it."""
        self.check()
        before = self._foreign_names()
        with self.savepoint("wfengine_rename"):
            result = self.run(lambda: statement(_MARK + sql))
            if self._foreign_names() != before:
                raise self._refused(f"rename a table to a name that does not begin with {PREFIX}")
        return result

    def _foreign_names(self) -> set[str]:
        found = self.connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")
        return {name for (name,) in found if not is_users(name)}

    @contextmanager
    def savepoint(self, name: str) -> Iterator[None]:
        """Undo what the block did if it raises."""
        self.check()
        self.connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            if not self._is_over and self.connection.in_transaction:
                self.connection.execute(f"ROLLBACK TO {name}")
                self.connection.execute(f"RELEASE {name}")
            raise
        self.check()
        self.connection.execute(f"RELEASE {name}")

    def check(self) -> None:
        """Raise if no statement may run any more."""
        if self._is_over:
            raise UserTableError(
                f"The connection of {self.task.text} was used after the task: its transaction is over, and nothing was "
                "executed. Do it inside the task. To read in other places: wfengine.sql.connect()"
            )
        if self._place != (os.getpid(), threading.get_ident()):
            raise UserTableError(
                f"The connection of {self.task.text} was used in another thread or process than the task's own; nothing was "
                "executed. Compute there, and write in the task itself."
            )
        self.check_time()
        if not self.connection.in_transaction:
            raise self.rolled_back()

    # ---- time

    def check_time(self) -> None:
        """Warn of a transaction that is held long; raise TransactionTooLongError past its limit."""
        held = self._clock.monotonic_seconds() - self._began
        if held > WARNING_SECONDS and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "%s has held the journal's write lock for %.1f s, and everybody else who writes waits. Compute, and ask other "
                "services, in a task before it.",
                self.task.text,
                held,
            )
        if held > self._limit:
            raise self._too_long()

    def _too_long(self) -> TransactionTooLongError:
        return TransactionTooLongError(
            f"{self.task.text} held its transaction longer than {self._limit:g} s, while everybody else who writes waits; it "
            "was rolled back. Do slow work in a task before it, write in smaller pieces, or raise timeout_seconds.",
            flow_run_id=self.task.flow_run_id,
            task_run_id=self.task.task_run_id,
        )

    def _look(self) -> int:
        """Called by SQLite now and then while a statement runs: end it past the limit, and for Ctrl-C."""
        try:
            return int(self._is_asked and self._clock.monotonic_seconds() - self._began > self._limit)
        except BaseException as interruption:
            self._interruption = interruption
            return 1

    # ---- what may be done

    def _authorize(self, action: int, first: str | None, second: str | None, _database: str | None, inside: str | None) -> int:
        """Called by SQLite for each thing that a statement would do, before it runs."""
        if not self._is_asked:
            return sqlite3.SQLITE_OK
        refusal = self._judge(action, first, second, inside)
        if refusal is None:
            return sqlite3.SQLITE_OK
        self._refusal = self._refusal or refusal
        return sqlite3.SQLITE_DENY

    def _judge(self, action: int, first: str | None, second: str | None, inside: str | None) -> str | None:
        """Return what is wrong with an action: what it would do. None: it is allowed."""
        if action in _ALLOWED:
            return None
        if action == sqlite3.SQLITE_READ:
            # No column: SQLite tells of a table in a view whose columns it does not need, without the view; or of a count.
            return None if not second else self._judge_read(first or "", inside)
        if action == sqlite3.SQLITE_INSERT and first == "event" and (inside or "").startswith(EVENT_TRIGGER):
            return None  # a table that is watched
        if action in _CHANGES:
            return self._judge_change(_CHANGES[action], first or "")
        if action in _SCHEMA_CHANGES:
            return self._judge_schema(action, first or "", second)
        if action == sqlite3.SQLITE_ALTER_TABLE:
            self._alters = self._alters or is_users(second)
            return None if is_users(second) else f"alter table {second}"
        if action == sqlite3.SQLITE_FUNCTION:
            return None if (second or "").lower() not in _REFUSED_FUNCTIONS else f"call the function {second}"
        if action == sqlite3.SQLITE_PRAGMA:
            return None if (first or "").lower() in _TELLING_PRAGMAS else f"use PRAGMA {first}"
        if action in _TEMPORARY:
            return f"create or drop {first}, which is temporary and would be left behind"
        return _REFUSED.get(action, f"do something that is not known to be harmless (action {action})")

    def _judge_read(self, table: str, inside: str | None) -> str | None:
        name = table.lower()
        views = documented_views()
        if is_users(name) or name in views or name.startswith("sqlite_") or (inside or "").lower() in views:
            return None
        return f"read table {table}, which is wfengine's own (views show all that is in it)"

    def _judge_change(self, verb: str, table: str) -> str | None:
        name = table.lower()
        if is_users(name) or name in _SCHEMA_TABLES or (self._alters and name in _KEPT_BESIDE):
            return None
        return f"{verb} {table}"

    def _judge_schema(self, action: int, name: str, table: str | None) -> str | None:
        if action == sqlite3.SQLITE_CREATE_TRIGGER and name.lower().startswith(EVENT_TRIGGER):
            return f"create trigger {name}, whose name is kept for what wfengine.events.watch_table makes"
        is_automatic = name.lower().startswith("sqlite_autoindex_")  # made by SQLite for a PRIMARY KEY or UNIQUE
        if (is_users(name) or is_automatic) and (action not in _OF_A_TABLE or is_users(table)):
            self._alters = True
            return None
        return f"{_SCHEMA_CHANGES[action]} {name}" + (f" on {table}" if action in _OF_A_TABLE else "")

    # ---- errors

    def _refused(self, would: str) -> UserTableError:
        return UserTableError(f"{self.task.text}: a statement was not executed, since it would {would}. {_MAY_DO}")

    def _explained(self, error: sqlite3.Error) -> BaseException:
        """Return what to raise for an error that SQLite reported: most are told to the user's code as they are."""
        if self._interruption is not None:
            return self._interruption
        if self._refusal is not None:
            return self._refused(self._refusal)
        code = primary_code(error)
        if code == sqlite3.SQLITE_INTERRUPT:
            return self._too_long()
        if code not in _FAULTS_OF_A_STATEMENT:
            self.fault = error
        return error

    def rolled_back(self) -> UserTableError:
        """Return the error for a transaction that one of its own statements ended."""
        return rolled_back_error(self.task.text)


class Connection:
    """A connection to tables of your own in the journal file: inside a transactional task, and only there.

    What is written is committed together with the task's result, or not at all. It is not closed or committed by hand.
    """

    __slots__ = ("__weakref__", "_guard", "_savepoints", "row_factory")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._savepoints = 0
        #: As of `sqlite3.Connection`: None for tuples, or sqlite3.Row, or a function of the cursor and the tuple.
        self.row_factory: Callable[..., object] | None = None

    def __repr__(self) -> str:
        return f"<wfengine.sql.Connection of {self._guard.task.text}>"

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"The connection of a transactional task has no {name!r}. It has execute, executemany, executescript, cursor, "
            "savepoint and row_factory. The engine commits it with the task's result, and rolls it back if the task raises."
        )

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        self._guard.check()
        return Cursor(self._guard, self.row_factory)

    def execute(self, sql: str, parameters: Values = (), /) -> Cursor:
        """Execute one statement and return its cursor, to be iterated for rows."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Values], /) -> Cursor:
        """Execute one statement once for each set of parameters."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, script: str, /) -> Cursor:
        """Execute the statements of a script one after the other, inside the transaction."""
        cursor = self.cursor()
        for statement in _statements(script):
            cursor.execute(statement)
        return cursor

    @contextmanager
    def savepoint(self) -> Iterator[Connection]:
        """Undo what the block wrote if it raises; the exception goes on. May be nested."""
        self._savepoints += 1
        with self._guard.savepoint(f"user_savepoint_{self._savepoints}"):
            yield self


class Cursor:
    """A cursor of a transactional task's connection. It ends with the task."""

    __slots__ = ("__weakref__", "_guard", "_raw")

    def __init__(self, guard: Guard, row_factory: Callable[..., object] | None) -> None:
        self._guard = guard
        self._raw = guard.connection.cursor()
        if row_factory is not None:
            # sqlite3.Row takes nothing but SQLite's own cursor; a function of the user's is given this one.
            is_row = isinstance(row_factory, type) and issubclass(row_factory, sqlite3.Row)
            self._raw.row_factory = row_factory if is_row else lambda _, row: row_factory(self, row)
        guard.cursors.add(self)

    def execute(self, sql: str, parameters: Values = (), /) -> Cursor:
        """Execute one statement; iterate for its rows."""
        self._guard.execute(sql, lambda text: self._raw.execute(text, parameters))
        return self

    def executemany(self, sql: str, parameters: Iterable[Values], /) -> Cursor:
        """Execute one statement once for each set of parameters."""
        rows = list(parameters)  # before: while SQLite runs the statement, nothing else may use the journal
        self._guard.execute(sql, lambda text: self._raw.executemany(text, rows))
        return self

    def fetchone(self) -> object:
        """Return the next row, None after the last."""
        return self._guard.run(self._raw.fetchone)

    def fetchmany(self, size: int = 1) -> list[object]:
        """Return at most so many more rows."""
        return self._guard.run(lambda: self._raw.fetchmany(size))

    def fetchall(self) -> list[object]:
        """Return all rows that are left."""
        return self._guard.run(self._raw.fetchall)

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> object:
        return self._guard.run(lambda: next(self._raw))

    def close(self) -> None:
        """End the statement."""
        self._raw.close()

    @property
    def description(self) -> tuple[tuple[str, None, None, None, None, None, None], ...] | None:
        """The names of the columns, each in a tuple of seven, as DB-API wants it."""
        return self._raw.description

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed; -1 where that has no meaning."""
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last INSERT."""
        return self._raw.lastrowid


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; triggers, which hold semicolons, stay whole."""
    pending = ""
    for piece in re.split(r"(?<=;)", script):
        pending += piece
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending
