"""Tasks for SQL databases, through SQLAlchemy: query, execute, rows in chunks, and transactions that take effect once.

    from wfengine.integrations.sql import Database, execute, query, stream, transaction
    from wfengine.secrets import Secret

    SHOP = Database("postgresql+psycopg://etl@db/shop", password=Secret("shop"))

    @flow
    def nightly(day):
        for chunk in stream(SHOP, "SELECT * FROM orders WHERE day = :day", {"day": day}, key="id"):
            load(chunk)
        execute(SHOP, "UPDATE days SET loaded = true WHERE day = :day", {"day": day})

A database is a `Database`, a URL without a password, or the name of a secret that holds a whole URL. Values are given as
parameters, `:name` in the statement. Needs the extra `sql` and a driver: extras `postgres`, `snowflake`, `databricks`. Not to
be taken for `wfengine.sql`, which is about tables in the journal file itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from wfengine.integrations.databases import Database, connected
from wfengine.integrations.marks import Transaction, forget_marks, transaction
from wfengine.integrations.paging import pages_by_cursor, pages_by_key
from wfengine.integrations.statements import count_of, rows_of
from wfengine.secrets import Secret
from wfengine.tasks import task
from wfengine_journal.errors import UsageError

__all__ = ["Database", "Transaction", "execute", "forget_marks", "query", "stream", "transaction"]

#: Rows that one result may have, unless the call says otherwise.
MAX_ROWS = 100_000
#: Rows of a chunk, unless the call says otherwise, and at the most.
CHUNK_ROWS = 1000
MAX_CHUNK_ROWS = 100_000


@task(key="wfengine.integrations.sql.query")
def query(
    database: Database | Secret[str] | str,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    *,
    max_rows: int = MAX_ROWS,
) -> list[dict[str, object]]:
    """Return the rows of a query as dicts. Raises UsageError for more than `max_rows`.

    It is executed again where its process died before the result was recorded: use it to read.
    """
    return connected(database, lambda connection: rows_of(connection, sql, parameters, max_rows))


@task(key="wfengine.integrations.sql.execute")
def execute(
    database: Database | Secret[str] | str,
    sql: str,
    parameters: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    *,
    exactly_once: bool = False,
) -> int:
    """Execute one statement in a transaction, once for each of several parameters; return the number of rows it touched.

    Where the process dies after the commit and before it is recorded, it is executed again. With `exactly_once` it is not: a
    mark is committed with it, see `transaction`. Without it, write what may be done twice. -1: the driver does not know.
    """
    if not exactly_once:
        return connected(database, lambda connection: count_of(connection, sql, parameters))
    with transaction(database) as once:
        if not once.is_done:
            once.result = once.execute(sql, parameters)
    return int(str(once.result))


@task(key="wfengine.integrations.sql.stream")
def stream(
    database: Database | Secret[str] | str,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
    key: str | None = None,
) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of a query in chunks, each recorded before it is handed out; a resumed run goes on after the last one.

    With `key`, the name of a unique column that is never null, each chunk is a query of its own for the rows after the last
    one: each row is handed out once, in the order of the key, whatever is changed in the table meanwhile; a row that is added
    behind the last one read is not. Without it, rows come from one cursor: of one moment, and none of them is in memory before
    its chunk. After a resume the query is then executed again, and has to give the chunks that were recorded: with an ORDER BY
    and unchanged rows it does. Where it does not, UsageError is raised, and nothing is skipped or handed out twice.
    """
    if not 1 <= chunk_rows <= MAX_CHUNK_ROWS:
        raise UsageError(f"chunk_rows must be from 1 to {MAX_CHUNK_ROWS:,}, not {chunk_rows!r}.")
    if key is None:
        yield from pages_by_cursor(database, sql, parameters, chunk_rows)
    else:
        yield from pages_by_key(database, sql, parameters, chunk_rows, key)
