"""Marks: rows in the user's database that say which transactions of tasks were committed, so that none has its effect twice.

A mark is written in the same transaction as what it stands for, so after a kill both are there, or neither. Its key is the
idempotency key of the task run, the same over all attempts and resumes. Where the database keeps primary keys unique (all but
Snowflake), two processes that execute one call at the same time cannot both commit it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Column, Connection, MetaData, String, Table, Text, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from wfengine.files import age_seconds
from wfengine.halts import check_cancelled
from wfengine.integrations.databases import Database, connected, engine_of
from wfengine.integrations.statements import count_of, rows_of
from wfengine.plain_json import plain_json
from wfengine.runs import current_task_run
from wfengine.secrets import Secret
from wfengine_journal.clock import SystemClock, text_from_seconds
from wfengine_journal.errors import UsageError

#: The table of the marks. `written_by` is the process and attempt, `written_at` UTC.
MARKS = Table(
    "wfengine_marks",
    MetaData(),
    Column("idempotency_key", String(255), primary_key=True),
    Column("written_by", String(64), nullable=False),
    Column("written_at", String(40), nullable=False),
    Column("result", Text),
)
#: How often a transaction is begun again since another process was about to commit the same one.
TRIES = 5
#: Characters that a transaction's own name may have.
NAME_LIMIT = 100
#: Databases that have no transactions over several statements.
_WITHOUT = ("databricks",)

_PROCESS = secrets.token_hex(8)


class Transaction:
    """A transaction in the user's database that is committed at most once, however often its task runs."""

    def __init__(self, connection: Connection, *, is_done: bool, result: object) -> None:
        self._connection = connection
        #: An earlier attempt committed it: there is nothing to do, and `result` is what that one left.
        self.is_done = is_done
        self._result = result

    @property
    def result(self) -> object:
        """What is to be known of it later: plain JSON, committed with it, and given to each later attempt."""
        return self._result

    @result.setter
    def result(self, value: object) -> None:
        self._refuse_done()
        plain_json(value, "the result of a transaction")
        self._result = value

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, for whatever else it can do. Do not commit it."""
        self._refuse_done()
        return self._connection

    def execute(self, sql: str, parameters: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None) -> int:
        """Execute a statement, once for each of several parameters; return the number of rows it touched."""
        return count_of(self.connection, sql, parameters)

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        """Return the rows of a query, or of a statement with RETURNING."""
        return rows_of(self.connection, sql, parameters)

    def _refuse_done(self) -> None:
        if self.is_done:
            raise UsageError(
                "This transaction was committed by an earlier attempt of the task, so nothing is executed in it again. Ask "
                "first: if not transaction.is_done: ..."
            )


@contextmanager
def transaction(database: Database | Secret[str] | str, name: str = "") -> Iterator[Transaction]:
    """Have a block of statements take effect exactly once, in a task: they are committed together with a mark of the task run.

    Where `is_done`, an earlier attempt committed it: leave the statements out; `result` is what that attempt left. Several
    blocks in one task each need a `name`. The table `wfengine_marks` is made where it is missing. What raises in the block
    rolls everything back. Raises UsageError for a database without transactions, MissingContextError outside of a task.
    """
    run = current_task_run()
    if len(name) > NAME_LIMIT:
        raise UsageError(f"The name of a transaction has more than {NAME_LIMIT} characters: {name[:40]!r}...")
    key, writer = f"{run.idempotency_key}{':' if name else ''}{name}", f"{_PROCESS}:{run.attempt}"
    engine = engine_of(database)
    if engine.dialect.name in _WITHOUT:
        raise UsageError(
            f"{engine.dialect.name} has no transactions over several statements, so nothing can be committed together with a "
            "mark. Write statements that may be executed twice, such as MERGE, and use execute(...)."
        )
    with engine.connect() as connection:
        mark = _claim(connection, key, writer)
        if mark is not None:
            if mark.written_by == writer:
                raise UsageError("A task has two transactions of one name. Give each its own: transaction(database, 'stock').")
            yield Transaction(connection, is_done=True, result=_decoded(mark.result))
            return
        done = Transaction(connection, is_done=False, result=None)
        yield done
        if done.result is not None:
            text = plain_json(done.result, "the result of a transaction")
            connection.execute(update(MARKS).where(MARKS.c.idempotency_key == key).values(result=text))
        check_cancelled()  # an attempt that was given up, or a run that somebody else executes by now, commits nothing
        connection.commit()


def forget_marks(database: Database | Secret[str] | str, *, older_than: str | timedelta) -> int:
    """Delete marks of transactions; return how many. One that is needed by a run which is resumed later must stay.

    `older_than`: '90d', '12h', a timedelta: longer than any run may wait to be resumed.
    """
    before = text_from_seconds(max(0.0, SystemClock().wall_seconds() - age_seconds(older_than)))
    if not connected(database, _has_table):
        return 0
    return connected(database, lambda connection: connection.execute(delete(MARKS).where(MARKS.c.written_at < before)).rowcount)


class _Mark:
    """A mark that was found."""

    def __init__(self, written_by: str, result: str | None) -> None:
        self.written_by = written_by
        self.result = result


def _claim(connection: Connection, key: str, writer: str) -> _Mark | None:
    """Begin the transaction with its mark; return the mark of an earlier one that was committed, if there is one."""
    if not _has_table(connection):
        connection.rollback()
        _make_table(connection)
    for left in reversed(range(TRIES)):
        row = connection.execute(select(MARKS).where(MARKS.c.idempotency_key == key)).one_or_none()
        if row is not None:
            return _Mark(row.written_by, row.result)
        values = {"idempotency_key": key, "written_by": writer, "written_at": SystemClock().now_text()}
        try:
            connection.execute(insert(MARKS).values(values))
            return None
        except IntegrityError:  # another process has committed it since the look
            connection.rollback()
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _has_table(connection: Connection) -> bool:
    return bool(connection.dialect.has_table(connection, MARKS.name))


def _make_table(connection: Connection) -> None:
    """Make the table, in a transaction of its own; another process may do so at the same time."""
    try:
        MARKS.create(connection, checkfirst=True)
        connection.commit()
    except (IntegrityError, OperationalError, ProgrammingError):
        connection.rollback()
        if not _has_table(connection):
            raise
        connection.rollback()


def _decoded(text: str | None) -> object:
    return None if text is None else json.loads(text)
