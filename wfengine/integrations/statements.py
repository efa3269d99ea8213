"""Statements of the user's, executed on a connection of SQLAlchemy's, and their rows as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause, bindparam, text

from wfengine_journal.errors import UsageError


def prepared(sql: str, parameters: Mapping[str, object] | None = None) -> TextClause:
    """Return a statement with its :names; a tuple among the parameters stands for a list in parentheses: `IN :ids`."""
    statement = text(sql)
    lists = [name for name, value in (parameters or {}).items() if isinstance(value, tuple)]
    return statement.bindparams(*(bindparam(name, expanding=True) for name in lists)) if lists else statement


def rows_of(
    connection: Connection, sql: str, parameters: Mapping[str, object] | None, limit: int | None = None
) -> list[dict[str, object]]:
    """Return the rows of a query. Raises UsageError for more than `limit`, and for columns of one name."""
    result = connection.execute(prepared(sql, parameters), dict(parameters or {}))
    if not result.returns_rows:
        raise UsageError("The statement returns no rows. To change something: execute(...).")
    names = names_of(result)
    if limit is None:
        return dicts(names, result)
    found = result.fetchmany(limit + 1)
    if len(found) > limit:
        raise UsageError(
            f"The query returns more than {limit:,} rows, which would be one result. Take them in chunks: "
            "for chunk in stream(database, sql): ..., or raise max_rows."
        )
    return dicts(names, found)


def count_of(connection: Connection, sql: str, parameters: Mapping[str, object] | Sequence[Mapping[str, object]] | None) -> int:
    """Execute a statement, once for each of several parameters; return the rows it touched, -1 where that is not known."""
    if parameters is None or isinstance(parameters, Mapping):
        return connection.execute(prepared(sql, parameters), dict(parameters or {})).rowcount
    many = [dict(each) for each in parameters]
    return connection.execute(prepared(sql), many).rowcount if many else 0


def names_of(result: CursorResult[Any]) -> list[str]:
    """Return the names of the columns. Raises UsageError where two are the same: a dict would lose one."""
    names = list(result.keys())
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise UsageError(f"The query returns two columns called {twice!r}. Name each with AS.")
    return names


def dicts(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[dict[str, object]]:
    """Return rows as dicts of plain values: bytes in place of a driver's own view of them."""
    return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in rows]


def _plain(value: object) -> object:
    return value.tobytes() if isinstance(value, memoryview) else value
