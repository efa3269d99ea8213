"""The rows of a query in chunks, by key or by cursor, so that a stream which was cut off goes on.

A generator that is run again is started from its top, and what it yields is passed over up to the first item that nobody was
given (`streams`). By key, nothing is read for those: the last recorded chunk says where to go on. By cursor they are read
again, and compared with what was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from sqlalchemy import Connection, Select, bindparam, column, literal_column, select, text

from wfengine.integrations.databases import Database, connected, engine_of
from wfengine.integrations.statements import dicts, names_of, prepared
from wfengine.scopes import current_scope
from wfengine.secrets import Secret
from wfengine_journal.codec import encode
from wfengine_journal.errors import UsageError

Chunk = list[dict[str, object]]
#: The name of the parameter that a page begins after; unlikely to be one of the user's.
AFTER = "wfengine_after"


def pages_by_key(
    database: Database | Secret[str] | str, sql: str, parameters: Mapping[str, object] | None, chunk_rows: int, key: str
) -> Iterator[Chunk]:
    """Yield chunks in the order of a unique column, each by a query of its own."""
    given = _given()
    for _ in range(given):
        yield []  # is passed over
    last: Chunk = _recorded(given - 1, 1)[0] if given else []
    if not given:
        _refuse_null(database, sql, parameters, key)
    while True:
        after = last[-1][key] if last else None
        rows = _page(database, sql, parameters, chunk_rows, key, after)
        if not rows:
            return
        last = rows[:chunk_rows]
        if len(rows) > chunk_rows and rows[-1][key] == last[-1][key]:
            raise UsageError(
                f"stream(..., key={key!r}): several rows have the {key} {last[-1][key]!r}, and the next page would leave out "
                "some of them. Take a column that is unique."
            )
        yield last
        if len(rows) <= chunk_rows:
            return


def pages_by_cursor(
    database: Database | Secret[str] | str, sql: str, parameters: Mapping[str, object] | None, chunk_rows: int
) -> Iterator[Chunk]:
    """Yield chunks of one query; those that were handed out by an earlier execution have to be the same."""
    given = _given()
    number = 0
    with engine_of(database).connect() as connection:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=chunk_rows)
        result = streaming.execute(prepared(sql, parameters), dict(parameters or {}))
        with closing(result):
            names = names_of(result)
            for rows in result.partitions(chunk_rows):
                chunk = dicts(names, rows)
                if number < given:
                    _refuse_other(chunk, _recorded(number, 1), number)
                yield chunk
                number += 1
    if number < given:
        _refuse_other([], _recorded(number, 1), number)


def page_statement(
    sql: str, parameters: Mapping[str, object] | None, chunk_rows: int, key: str, *, is_first: bool
) -> Select[tuple[object]]:
    """Return the query for the rows after a key: one more than a chunk has, which tells whether there is another."""
    inner = prepared(sql, parameters).columns(column(key)).subquery("wfengine_page")
    page: Select[tuple[object]] = select(literal_column("*")).select_from(inner).order_by(inner.c[key]).limit(chunk_rows + 1)
    return page if is_first else page.where(inner.c[key] > bindparam(AFTER))


def _page(
    database: Database | Secret[str] | str, sql: str, parameters: Mapping[str, object] | None, chunk_rows: int, key: str,
    after: object,
) -> Chunk:  # fmt: skip
    page = page_statement(sql, parameters, chunk_rows, key, is_first=after is None)
    values = {**(parameters or {}), **({} if after is None else {AFTER: after})}

    def read(connection: Connection) -> Chunk:
        result = connection.execute(page, values)
        names = names_of(result)
        if key not in names:
            raise UsageError(f"stream(..., key={key!r}): the query returns no column of that name, but {', '.join(names)}.")
        return dicts(names, result)

    return connected(database, read)


def _refuse_null(database: Database | Secret[str] | str, sql: str, parameters: Mapping[str, object] | None, key: str) -> None:
    inner = prepared(sql, parameters).columns(column(key)).subquery("wfengine_page")
    look = select(text("1")).select_from(inner).where(inner.c[key].is_(None)).limit(1)
    if connected(database, lambda connection: connection.execute(look, dict(parameters or {})).first()) is not None:
        raise UsageError(f"stream(..., key={key!r}): rows without a {key} would be left out. Take a column that is never null.")


def _given() -> int:
    """Return how many chunks the consumer was given by earlier executions."""
    scope = current_scope()
    feed = None if scope is None or scope.call is None else scope.call.feed
    return 0 if feed is None else feed.given  # none: all of it is one result, of a call that was submitted


def _recorded(start: int, count: int) -> list[Chunk]:
    scope = current_scope()
    assert scope is not None
    return scope.run.journal.records.list_items(scope.run.id, scope.task_run_id, start, count)  # type: ignore[return-value]


def _refuse_other(chunk: Chunk, recorded: list[Chunk], number: int) -> None:
    if recorded and (chunk == recorded[0] or encode(chunk, "a chunk").hash == encode(recorded[0], "a chunk").hash):
        return
    raise UsageError(
        f"stream(): the query was executed again, and chunk {number} is not the one that was handed out before the run was cut "
        "off. Which rows are still to come cannot be known. Give a key: stream(..., key='id'), which goes on after the last "
        "row; or order the rows and leave them unchanged until the run is over."
    )
