"""Tasks for SQL databases, on a real PostgreSQL server, and on SQLite and DuckDB; Snowflake: test_snowflake_emulator.py."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.schema import CreateTable

from tests.engine.conftest import Program, Rows
from tests.integrations.conftest import PASSWORD, Postgres, Written, run_long
from wfengine import flow, task
from wfengine.integrations.databases import engine_of
from wfengine.integrations.marks import MARKS
from wfengine.integrations.paging import page_statement
from wfengine.integrations.sql import Database, execute, forget_marks, query, stream, transaction
from wfengine.secrets import Secret
from wfengine_journal.errors import MissingContextError, UsageError

#: The programs of processes that are killed: the database, and a kill before the n-th thing that happens on its connections.
BOUNDARIES = """
import itertools
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool
from wfengine.integrations.databases import engine_of
from wfengine.integrations.marks import MARKS
from wfengine.integrations.paging import page_statement
from wfengine.integrations.sql import Database, execute, query, stream, transaction
from wfengine.secrets import Secret

SHOP = Database(os.environ["SHOP_PLAIN_URL"], password=Secret("env:SHOP_PASSWORD"))
AT = int(os.environ.get("KILL_AT", "0"))
COUNT = itertools.count(1)

def boundary(name):
    def reached(*_):
        number = next(COUNT)
        if AT:
            (HERE / "reached.txt").write_text(f"{number} {name}")
        if number == AT:
            kill()
    return reached

for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
    event.listen(Engine, name, boundary(name))
event.listen(Pool, "reset", boundary("committed"))
"""


def database(shop: Postgres) -> Database:
    return Database(shop.url, password=Secret("env:SHOP_PASSWORD"))


# --------------------------------------------------------------------------------------------------- query and execute


def test_rows_are_dicts_whose_values_keep_their_types_over_a_replay(shop: Postgres, rows: Rows) -> None:
    sql = (
        "SELECT 1 AS whole, 1.50::numeric(10, 2) AS price, 2.5::float8 AS share, 'ä''b' AS name, NULL AS nothing, true AS yes,"
        " DATE '2026-01-02' AS day, TIMESTAMPTZ '2026-01-02 03:04:05+00' AS at, INTERVAL '90 minutes' AS long,"
        " '6f1c0d5e-0000-4000-8000-000000000000'::uuid AS id, '\\x00ff'::bytea AS raw, ARRAY[1, 2] AS numbers,"
        " '{\"a\": [1]}'::jsonb AS json"
    )

    @flow
    def reading() -> list[dict[str, object]]:
        return query(database(shop), sql)

    (row,) = reading()
    assert row == {
        "whole": 1, "price": Decimal("1.50"), "share": 2.5, "name": "ä'b", "nothing": None, "yes": True,
        "day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "long": timedelta(minutes=90),
        "id": UUID("6f1c0d5e-0000-4000-8000-000000000000"), "raw": b"\x00\xff", "numbers": [1, 2], "json": {"a": [1]},
    }  # fmt: skip
    assert rows.value("SELECT state FROM tasks WHERE task = 'query'") == "COMPLETED"


def test_parameters_are_never_a_part_of_the_statement(shop: Postgres) -> None:
    @flow
    def writing() -> object:
        evil = "x'); DROP TABLE orders; --"
        assert (
            execute(database(shop), "INSERT INTO orders (item, price) VALUES (:item, :price)", {"item": evil, "price": 1}) == 1
        )
        many = [{"item": str(number), "price": number} for number in range(5)]
        assert execute(database(shop), "INSERT INTO orders (item, price) VALUES (:item, :price)", many) == 5
        assert execute(database(shop), "UPDATE orders SET price = 9 WHERE item IN :items", {"items": ("1", "2", evil)}) == 3
        assert execute(database(shop), "DELETE FROM orders WHERE item = :item", {"item": "none"}) == 0
        return query(database(shop), "SELECT item FROM orders WHERE price = :price ORDER BY id", {"price": 9})

    assert writing() == [{"item": "x'); DROP TABLE orders; --"}, {"item": "1"}, {"item": "2"}]


def test_a_failed_statement_is_rolled_back_and_its_error_shows_no_values(shop: Postgres, rows: Rows) -> None:
    @flow
    def failing() -> None:
        execute(
            database(shop),
            "INSERT INTO orders (id, item) VALUES (:id, :item)",
            [{"id": 1, "item": "a"}, {"id": 1, "item": "canary"}],
        )

    with pytest.raises(Exception, match="duplicate key"):
        failing()
    assert shop("SELECT count(*) FROM orders") == [(0,)]
    assert "canary" not in str(rows.value("SELECT error FROM tasks WHERE task = 'execute'"))


def test_what_would_go_wrong_silently_is_refused(shop: Postgres) -> None:
    shop("INSERT INTO orders (item) SELECT 'a' FROM generate_series(1, 20)")

    def refused(sql: str, **options: int) -> str:
        @flow
        def reading() -> object:
            return query(database(shop), sql, **options)

        with pytest.raises(UsageError) as caught:
            reading()
        return str(caught.value)

    assert "more than 19 rows" in refused("SELECT * FROM orders", max_rows=19)
    assert "two columns called 'id'" in refused("SELECT a.id, b.id FROM orders AS a, orders AS b")
    assert "returns no rows" in refused("UPDATE orders SET item = 'b'")


def test_one_code_reads_sqlite_and_duckdb(tmp_path: Path) -> None:
    @flow
    def both(url: str) -> object:
        execute(url, "CREATE TABLE IF NOT EXISTS numbers (id INTEGER PRIMARY KEY, name VARCHAR)")
        execute(url, "INSERT INTO numbers VALUES (:id, :name)", [{"id": number, "name": str(number)} for number in range(7)])
        found = list(stream(url, "SELECT * FROM numbers", key="id", chunk_rows=3))
        with_cursor = list(stream(url, "SELECT * FROM numbers ORDER BY id", chunk_rows=3))
        assert found == with_cursor
        return [len(chunk) for chunk in found], query(url, "SELECT max(id) AS most FROM numbers")

    assert both(f"sqlite:///{tmp_path / 'one.db'}") == ([3, 3, 1], [{"most": 6}])
    assert both(f"duckdb:///{tmp_path / 'two.db'}") == ([3, 3, 1], [{"most": 6}])


# ------------------------------------------------------------------------------------------------------- which database


def test_a_database_is_named_by_a_secret_that_holds_its_url_or_its_password(shop: Postgres) -> None:
    names: list[Database | Secret[str]] = [
        Secret("env:SHOP_URL"),
        Database(shop.url, password=Secret("env:SHOP_PASSWORD")),
        Database(shop.url, connect_args={"password": Secret("env:SHOP_PASSWORD")}),
    ]

    @flow
    def each() -> list[object]:
        return [query(name, "SELECT 1 AS one")[0]["one"] for name in names]

    assert each() == [1, 1, 1]


def test_a_reference_in_a_url_becomes_a_secret() -> None:
    made = Database("postgresql+psycopg://etl:{{ secrets.shop }}@db/shop")
    assert made == Database("postgresql+psycopg://etl@db/shop", password=Secret("shop"))
    assert repr(made).startswith("Database(url='postgresql+psycopg://etl@db/shop', password=Secret('shop')")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:canarypw@h/d",
        "postgresql://h/d?password=canarypw",
        "snowflake://u@a/d?token=canarypw",
        "canarypw://u:canarypw",
    ],
)
def test_a_password_in_the_clear_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Database(url)
    assert "canarypw" not in str(caught.value)


def test_what_is_missing_is_named_with_its_pip_line() -> None:
    @flow
    def reading() -> object:
        return query("postgresql+psycopg2://h/d", "SELECT 1")

    with pytest.raises(UsageError, match=r"pip install 'wfengine\[postgres\]'"):
        reading()
    program = "import sys; sys.modules['sqlalchemy'] = None\nimport wfengine.integrations.sql"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'wfengine[sql]'" in done.stderr.splitlines()[-1]


def test_the_password_appears_nowhere(
    program: Program, shop: Postgres, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.environment["SHOP_PASSWORD"], program.environment["SHOP_PLAIN_URL"] = PASSWORD, shop.url
    program.environment["SHOP_URL"] = shop.whole_url
    program.write(BOUNDARIES + """
@flow(log_prints=True)
def main():
    execute(SHOP, "INSERT INTO orders (item) VALUES ('a')")
    execute(Secret("env:SHOP_URL"), "INSERT INTO orders (item) VALUES ('a')", exactly_once=True)
    print(SHOP, SHOP.resolved())
    query(SHOP, "SELECT * FROM nowhere", return_state=True)
    elsewhere = Database(SHOP.url.replace("postgres?", "nodatabase?"), password=Secret("env:SHOP_PASSWORD"))
    query(elsewhere, "SELECT 1", return_state=True)
    for chunk in stream(SHOP, "SELECT * FROM orders", key="id", chunk_rows=1):
        if first_time():
            kill()
    raise ValueError(f"{SHOP} {SHOP.resolved()}")
main()
""")  # fmt: skip
    program.run_and_be_killed()
    answer = program.resume()
    assert answer["state"] == "FAILED"
    assert PASSWORD not in str(answer)
    assert "Secret('env:SHOP_PASSWORD')" in written
    assert PASSWORD not in written


# --------------------------------------------------------------------------------------------------------- transactions


def test_a_transaction_takes_effect_once_though_its_task_is_tried_again(shop: Postgres) -> None:
    seen: list[tuple[bool, object]] = []

    @task(retries=2)
    def book(item: str) -> object:
        with transaction(database(shop)) as once:
            seen.append((once.is_done, once.result))
            if not once.is_done:
                once.result = once.query("INSERT INTO orders (item) VALUES (:item) RETURNING id", {"item": item})[0]["id"]
        if len(seen) < 3:
            raise ConnectionError("after the commit")
        return once.result

    @flow
    def booking() -> object:
        return book("tea")

    number = booking()
    assert seen == [(False, None), (True, number), (True, number)]
    assert shop("SELECT id, item FROM orders") == [(number, "tea")]


def test_a_transaction_that_raises_leaves_nothing_behind(shop: Postgres) -> None:
    @task(retries=1)
    def book() -> None:
        with transaction(database(shop)) as once:
            assert not once.is_done
            once.execute("INSERT INTO orders (item) VALUES ('tea')")
            raise KeyError("price")

    @flow
    def booking() -> None:
        book()

    with pytest.raises(KeyError):
        booking()
    assert shop("SELECT count(*) FROM orders") == shop("SELECT count(*) FROM wfengine_marks") == [(0,)]


def test_an_attempt_that_was_given_up_commits_nothing(shop: Postgres) -> None:
    import threading

    over, ended = threading.Event(), threading.Event()

    @task(timeout_seconds=0.2)
    def slow() -> None:
        try:
            with transaction(database(shop)) as once:
                once.execute("INSERT INTO orders (item) VALUES ('late')")
                assert over.wait(60)
        finally:
            ended.set()

    @flow
    def booking() -> None:
        try:
            slow()
        except TimeoutError:
            over.set()
            assert ended.wait(60)

    booking()
    assert shop("SELECT count(*) FROM orders") == [(0,)]


def test_two_transactions_in_one_task_need_names(shop: Postgres) -> None:
    @task
    def book(first: str, second: str) -> None:
        for name in (first, second):
            with transaction(database(shop), name) as once:
                once.execute("INSERT INTO orders (item) VALUES ('tea')")

    @flow
    def booking(first: str, second: str) -> None:
        book(first, second)

    booking("order", "stock")
    assert shop("SELECT count(*) FROM orders") == [(2,)]
    with pytest.raises(UsageError, match="two transactions of one name"):
        booking("", "")


def test_statements_in_a_transaction_that_is_done_are_refused(shop: Postgres) -> None:
    attempts: list[int] = []

    @task(retries=1)
    def book() -> None:
        with transaction(database(shop)) as once:
            once.execute("INSERT INTO orders (item) VALUES ('tea')")  # it does not ask
        attempts.append(1)
        raise ConnectionError

    @flow
    def booking() -> None:
        book()

    with pytest.raises(UsageError, match="is_done"):
        booking()
    assert shop("SELECT count(*) FROM orders") == [(1,)]
    with pytest.raises(MissingContextError), transaction(database(shop)):
        pass


def test_a_result_that_json_does_not_have_is_refused_where_it_is_set(shop: Postgres) -> None:
    @task
    def book() -> None:
        with transaction(database(shop)) as once:
            once.execute("INSERT INTO orders (item) VALUES ('tea')")
            once.result = Decimal("1.5")

    @flow
    def booking() -> None:
        book()

    with pytest.raises(ValueError, match="JSON does not have"):
        booking()
    assert shop("SELECT count(*) FROM orders") == [(0,)]


def test_equal_calls_are_two_and_marks_can_be_forgotten(shop: Postgres) -> None:
    @flow
    def twice() -> list[int]:
        return [execute(database(shop), "INSERT INTO orders (item) VALUES ('tea')", exactly_once=True) for _ in range(2)]

    assert forget_marks(database(shop), older_than="1d") == 0
    assert twice() == [1, 1]
    assert shop("SELECT count(*) FROM orders") == [(2,)]
    assert forget_marks(database(shop), older_than="1d") == 0
    assert forget_marks(database(shop), older_than="0s") == 2


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("sqlite://", "WHERE wfengine_page.id > ? ORDER BY wfengine_page.id LIMIT ? OFFSET ?"),
        (
            "postgresql+psycopg://h/d",
            "WHERE wfengine_page.id > %(wfengine_after)s ORDER BY wfengine_page.id LIMIT %(param_1)s::INTEGER",
        ),
        ("snowflake://u@a/d", "WHERE wfengine_page.id > %(wfengine_after)s ORDER BY wfengine_page.id LIMIT %(param_1)s"),
        (
            "databricks://token@h?http_path=/s",
            "WHERE wfengine_page.id > :`wfengine_after` ORDER BY wfengine_page.id LIMIT :`param_1`",
        ),
    ],
)
def test_each_dialect_can_write_the_page_of_a_stream_and_the_table_of_the_marks(url: str, page: str) -> None:
    dialect = engine_of(Database(url)).dialect
    statement = page_statement("SELECT * FROM orders", None, 10, "id", is_first=False)
    text = " ".join(str(statement.compile(dialect=dialect)).split())
    assert text == f"SELECT * FROM (SELECT * FROM orders) AS wfengine_page {page}"
    table = " ".join(str(CreateTable(MARKS).compile(dialect=dialect)).split())
    assert "PRIMARY KEY (idempotency_key)" in table


def test_databricks_is_told_that_it_has_no_such_transactions() -> None:
    @flow
    def booking() -> object:
        return execute(Database("databricks://token@host", connect_args={}), "INSERT INTO orders VALUES (1)", exactly_once=True)

    with pytest.raises(UsageError, match="no transactions over several statements"):
        booking()


EXACTLY_ONCE = (
    BOUNDARIES
    + """
import psycopg, shutil
from wfengine.recovery import resume_run

@task
def book(item):
    with transaction(SHOP) as once:
        if not once.is_done:
            once.execute("UPDATE orders SET price = price + 1 WHERE item = 'stock'")
            once.result = once.query("INSERT INTO orders (item) VALUES (:item) RETURNING item", {"item": item})[0]["item"]
    return once.result

@flow
def main():
    return book("tea")

def in_a_child(work):
    # Nothing was opened before, so a forked child is as good as a new process, and is there at once.
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def start(number):
    global AT
    AT = number
    shutil.copy(HERE / "journal.db", HERE / f"{number}.db")
    use_journal(HERE / f"{number}.db")
    main()

def resume(number):
    journal = use_journal(HERE / f"{number}.db")
    if journal.records.rows("SELECT 1 FROM flow_run WHERE id = 1 AND state = 'COMPLETED'"):
        return
    assert resume_run(journal, 1).result() == "tea"

def before(number):
    with psycopg.connect(os.environ["SHOP_DSN"], autocommit=True) as shop:
        shop.execute("TRUNCATE orders")
        shop.execute("DROP TABLE IF EXISTS wfengine_marks")
        shop.execute("INSERT INTO orders (item, price) VALUES ('stock', 0)")

def after(number):
    with psycopg.connect(os.environ["SHOP_DSN"]) as shop:
        found = shop.execute("SELECT item, price::int FROM orders ORDER BY item").fetchall()
    print(number, (HERE / "reached.txt").read_text(), found == [("stock", 1), ("tea", None)])

if __name__ == "__main__":
    for number in range(1, 1000):
        before(number)
        if in_a_child(lambda: start(number)) == 0:
            break
        assert in_a_child(lambda: resume(number)) == 0
        after(number)
"""
)


def test_a_transaction_takes_effect_once_wherever_its_process_is_killed(program: Program, shop: Postgres) -> None:
    program.environment |= {"SHOP_PASSWORD": PASSWORD, "SHOP_PLAIN_URL": shop.url, "SHOP_DSN": shop.dsn}
    program.write(EXACTLY_ONCE)
    lines = [line.split() for line in run_long(program)]
    assert [line for line in lines if line[-1] != "True"] == []
    assert [line[0] for line in lines] == [line[1] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    assert len(lines) > 15
    assert {line[2] for line in lines} == {"before_cursor_execute", "after_cursor_execute", "commit", "committed"}


# -------------------------------------------------------------------------------------------------------------- streams

STREAMING = (
    BOUNDARIES
    + """
KEY = os.environ["STREAM_KEY"] or None

@task
def load(chunk):
    for row in chunk:
        note(row["id"])
    if chunk[-1]["id"] == 6 and first_time():
        if os.environ.get("CHANGED"):
            execute(SHOP, os.environ["CHANGED"])
        kill()

@flow
def main():
    for chunk in stream(SHOP, "SELECT id, item FROM orders ORDER BY id", key=KEY, chunk_rows=3):
        load(chunk)

if __name__ == "__main__":
    main()
"""
)


def streamed(program: Program, shop: Postgres, key: str, changed: str = "") -> dict[str, object]:
    shop("INSERT INTO orders (item) SELECT 'a' FROM generate_series(1, 11)")
    program.environment |= {"SHOP_PASSWORD": PASSWORD, "SHOP_PLAIN_URL": shop.url, "STREAM_KEY": key, "CHANGED": changed}
    program.write(STREAMING)
    program.run_and_be_killed()
    return program.resume()


#: Chunks that were handed out, the one being loaded when the kill came a second time.
HANDED_OUT = ["1", "2", "3", "4", "5", "6", "4", "5", "6"]


@pytest.mark.parametrize("key", ["id", ""])
def test_a_stream_goes_on_after_the_last_chunk(program: Program, shop: Postgres, key: str) -> None:
    assert streamed(program, shop, key)["state"] == "COMPLETED"
    assert program.effects == [*HANDED_OUT, "7", "8", "9", "10", "11"]


def test_a_stream_by_key_goes_on_whatever_was_changed_meanwhile(program: Program, shop: Postgres) -> None:
    changed = "DELETE FROM orders WHERE id IN (1, 2, 9)"
    assert streamed(program, shop, "id", changed)["state"] == "COMPLETED"
    assert program.effects == [*HANDED_OUT, "7", "8", "10", "11"]


def test_a_stream_by_cursor_whose_rows_changed_is_refused(program: Program, shop: Postgres) -> None:
    answer = streamed(program, shop, "", "DELETE FROM orders WHERE id IN (1, 2, 9)")
    assert "chunk 0 is not the one that was handed out" in str(answer)
    assert program.effects == HANDED_OUT


def test_a_stream_by_cursor_reads_no_more_than_it_hands_out(shop: Postgres) -> None:
    shop("INSERT INTO orders (item) SELECT 'a' FROM generate_series(1, 20)")

    @flow
    def first() -> int:
        # The division by zero in row 15 is met only by who reads that far.
        for chunk in stream(database(shop), "SELECT id, 1 / (id - 15) AS share FROM orders", chunk_rows=5):
            return len(chunk)
        return 0

    assert first() == 5


@pytest.mark.parametrize(
    ("key", "sql", "said"),
    [
        ("item", "SELECT * FROM orders", "several rows have the item 'a'"),
        ("price", "SELECT * FROM orders", "never null"),
        ("number", "SELECT id AS number, id AS id FROM orders", ""),
    ],
)
def test_a_key_that_would_lose_rows_is_refused(shop: Postgres, key: str, sql: str, said: str) -> None:
    shop("INSERT INTO orders (item) SELECT 'a' FROM generate_series(1, 7)")

    @flow
    def reading() -> int:
        return sum(len(chunk) for chunk in stream(database(shop), sql, key=key, chunk_rows=3))

    if said:
        with pytest.raises(UsageError, match=said):
            reading()
    else:
        assert reading() == 7


def test_a_submitted_stream_is_one_list_of_chunks(shop: Postgres) -> None:
    shop("INSERT INTO orders (item) SELECT 'a' FROM generate_series(1, 7)")

    @flow
    def reading() -> list[int]:
        chunks = stream.submit(database(shop), "SELECT * FROM orders", key="id", chunk_rows=3).result()
        return [len(chunk) for chunk in chunks]  # type: ignore[arg-type]

    assert reading() == [3, 3, 1]
