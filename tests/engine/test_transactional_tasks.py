"""Tasks that write tables of the user's own: together with their result or not at all, within bounds, and guarded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import carry, current_task_run, flow, get_run_logger, task
from wfengine.artifacts import create_markdown_artifact
from wfengine.cache_policies import INPUTS
from wfengine.sql import Connection, connect, current_connection
from wfengine.states import Failed
from wfengine.variables import Variable
from wfengine_journal import schema
from wfengine_journal.connection import FORMAT_VERSION, open_writer
from wfengine_journal.errors import (
    MissingContextError,
    ParameterBindError,
    TransactionTooLongError,
    UsageError,
    UserTableError,
    ValueNotStorableError,
)
from wfengine_journal.health import Verdict, run_checks
from wfengine_journal.store import Journal


@task(transaction=True)
def make_table(connection: Connection = None) -> None:  # type: ignore[assignment]  # the engine fills it in
    connection.execute("CREATE TABLE IF NOT EXISTS user_orders (number INTEGER PRIMARY KEY, amount INTEGER UNIQUE)")


@task(transaction=True)
def insert(amount: int) -> int | None:
    return current_connection().execute("INSERT INTO user_orders (amount) VALUES (?)", (amount,)).lastrowid


@task
def later(number: int) -> int:
    return number


def in_a_transaction(body: Callable[[Any], object], **options: Any) -> object:
    """Run `body(connection)` as a transactional task of a flow, after the table was made; return its result."""

    @task(transaction=True, **options)
    def tried(*, connection: Any) -> object:
        return body(connection)

    @flow
    def trying() -> object:
        make_table()
        return tried()  # type: ignore[call-arg]  # the engine passes the connection

    return trying()


def failing(body: Callable[[Any], object], **options: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the tests look at it
        in_a_transaction(body, **options)
    return caught.value


def orders(rows: Rows) -> list[object]:
    return [amount for (amount,) in rows("SELECT amount FROM user_orders ORDER BY number")]


# ---------------------------------------------------------------------------------------------------- what is committed


def test_rows_and_result_are_in_the_file_together(rows: Rows) -> None:
    assert in_a_transaction(lambda own: own.execute("INSERT INTO user_orders (amount) VALUES (5)").lastrowid) == 1
    assert orders(rows) == [5]
    assert rows("SELECT state, result FROM tasks WHERE task = 'tried'") == [("COMPLETED", "1")]


def test_rows_and_result_are_one_commit(journal: Journal) -> None:
    @flow
    def trying() -> list[str]:
        make_table()
        insert(0)  # registers the task's name
        statements: list[str] = []
        journal.read(lambda connection: connection.set_trace_callback(statements.append))
        insert(1)
        journal.read(lambda connection: connection.set_trace_callback(None))
        return statements

    statements = trying()
    assert statements.count("COMMIT") == 2  # the start of the attempt; rows and result
    own, outcome, commit = (
        next(number for number, text in enumerate(statements) if word in text)
        for word in ("INSERT INTO user_orders", "state = 'COMPLETED'", "COMMIT")
    )
    last = len(statements) - 1 - statements[::-1].index("COMMIT")
    assert commit < own < outcome < last


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_called_submitted_and_mapped_calls_write_each_row_once(rows: Rows, way: str) -> None:
    @flow
    def trying() -> list[int | None]:
        make_table()
        if way == "call":
            return [insert(number) for number in range(10)]
        if way == "submit":
            return [future.result() for future in [insert.submit(number) for number in range(10)]]
        return insert.map(range(10)).result()

    assert sorted(number or 0 for number in trying()) == list(range(1, 11))
    assert sorted(map(int, map(str, orders(rows)))) == list(range(10))


def test_async_flow_calls_a_transactional_task(rows: Rows) -> None:
    @flow
    async def trying() -> int | None:
        make_table()
        await asyncio.sleep(0)
        return insert(1)

    assert asyncio.run(trying()) == 1
    assert orders(rows) == [1]


def test_lone_transactional_task_runs_in_a_flow_run_of_its_own(rows: Rows) -> None:
    make_table()
    assert insert(7) == 1
    assert orders(rows) == [7]


def test_connection_is_passed_wherever_the_parameter_stands() -> None:
    @task(transaction=True)
    def first(connection: Any, left: int, right: int = 2) -> tuple[str, int, int]:
        return type(connection).__name__, left, right

    @task(transaction=True)
    def last(left: int, *rest: int, connection: Any) -> tuple[str, int, tuple[int, ...]]:
        return type(connection).__name__, left, rest

    class Shop:
        @task(transaction=True)
        def sell(self, connection: Any, number: int) -> tuple[str, int]:
            return type(connection).__name__, number

    call: Any = lambda fn, *args, **kwargs: fn(*args, **kwargs)  # noqa: E731 - types do not know of the connection

    @flow
    def trying() -> list[object]:
        return [call(first, 1), call(first, 1, right=5), call(last, 1, 2, 3), call(Shop().sell, number=4)]

    assert trying() == [("Connection", 1, 2), ("Connection", 1, 5), ("Connection", 1, (2, 3)), ("Connection", 4)]


def test_caller_does_not_pass_the_connection(rows: Rows) -> None:
    @flow
    def trying() -> None:
        make_table(connection=None)  # type: ignore[arg-type]  # that is the test

    with pytest.raises(ParameterBindError, match="connection"):
        trying()


def test_what_is_queued_set_and_made_inside_is_committed_with_the_rows(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        later.delay(1)
        Variable.set("last", 1)
        create_markdown_artifact("# One")
        assert Variable.get("last") == 1

    in_a_transaction(body)
    assert orders(rows) == [1]
    assert rows("SELECT state FROM runs WHERE flow = 'later'") == [("SCHEDULED",)]
    assert rows("SELECT name FROM variables") == [("last",)]
    assert rows("SELECT count(*) FROM artifacts") == [(1,)]


def test_exception_rolls_back_rows_queue_variables_and_artifacts_and_keeps_the_log(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        later.delay(1)
        Variable.set("last", 1)
        create_markdown_artifact("# One")
        get_run_logger().info("about to fail")
        raise RuntimeError("no")

    assert str(failing(body)) == "no"
    assert orders(rows) == []
    assert rows("SELECT count(*) FROM runs") == [(1,)]
    assert rows("SELECT count(*) FROM variables") == rows("SELECT count(*) FROM artifacts") == [(0,)]
    assert rows("SELECT message FROM logs") == [("about to fail",)]
    assert rows("SELECT state FROM tasks WHERE task = 'tried'") == [("FAILED",)]


def test_names_registered_in_a_transaction_that_was_rolled_back_are_registered_again(rows: Rows) -> None:
    attempts: list[int] = []

    def body(own: Any) -> int:
        attempts.append(1)
        later.delay(len(attempts))
        if len(attempts) == 1:
            raise RuntimeError("once")
        return len(attempts)

    assert in_a_transaction(body, retries=1) == 2
    assert rows("SELECT parameters FROM runs WHERE flow = 'later'") == [('{"number":2}',)]
    assert rows("SELECT task FROM tasks WHERE task LIKE 'later%' ORDER BY id") == [("later.delay",), ("later",)]
    assert rows("PRAGMA foreign_key_check") == []


def test_retries_write_the_rows_of_the_last_attempt_only(rows: Rows) -> None:
    @task(transaction=True, retries=2)
    def tried(*, connection: Any) -> int:
        attempt = current_task_run().attempt
        connection.execute("INSERT INTO user_orders (amount) VALUES (?)", (attempt,))
        if attempt < 3:
            raise ConnectionError("again")
        return attempt

    @flow
    def trying() -> int:
        make_table()
        return tried()  # type: ignore[call-arg]

    assert trying() == 3
    assert orders(rows) == [3]
    assert rows("SELECT outcome FROM attempts WHERE task = 'tried' ORDER BY attempt") == [
        ("FAILED",),
        ("FAILED",),
        ("COMPLETED",),
    ]


def test_result_that_cannot_be_stored_rolls_back(rows: Rows) -> None:
    def body(own: Any) -> object:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        return threading.Lock()

    assert isinstance(failing(body, retries=3), ValueNotStorableError)
    assert orders(rows) == []
    assert rows("SELECT state, attempts FROM tasks WHERE task = 'tried'") == [("FAILED", 1)]


def test_returned_state_is_refused_and_rolls_back(rows: Rows) -> None:
    def body(own: Any) -> object:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        return Failed(message="or not?")

    assert "Return plain data" in str(failing(body))
    assert orders(rows) == []


def test_constraint_that_is_checked_at_commit_fails_the_task_and_nothing_else(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("CREATE TABLE user_lines (number REFERENCES user_orders DEFERRABLE INITIALLY DEFERRED)")
        own.execute("INSERT INTO user_lines VALUES (77)")

    assert isinstance(failing(body), sqlite3.IntegrityError)
    assert rows("SELECT count(*) FROM sqlite_schema WHERE name = 'user_lines'") == [(0,)]
    assert rows("SELECT state FROM tasks WHERE task = 'tried'") == [("FAILED",)]
    assert in_a_transaction(lambda own: 1) == 1  # the writer goes on


def test_savepoints_undo_a_part(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        with contextlib.suppress(ZeroDivisionError), own.savepoint():
            own.execute("INSERT INTO user_orders (amount) VALUES (2)")
            with own.savepoint():
                own.execute("INSERT INTO user_orders (amount) VALUES (3)")
                later.delay(3)
            raise ZeroDivisionError
        own.execute("SAVEPOINT mine")
        own.execute("INSERT INTO user_orders (amount) VALUES (4)")
        own.execute("ROLLBACK TO mine")
        own.execute("INSERT INTO user_orders (amount) VALUES (5)")

    in_a_transaction(body)
    assert orders(rows) == [1, 5]
    assert rows("SELECT count(*) FROM runs WHERE flow = 'later'") == [(0,)]


def test_refused_change_inside_leaves_nothing_and_the_rest_is_committed(rows: Rows) -> None:
    Variable.set("taken", "before")

    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        with pytest.raises(ValueError, match="exists already"):
            Variable.set("taken", "after")

    in_a_transaction(body)
    assert orders(rows) == [1]
    assert rows("SELECT value FROM variables") == [('"before"',)]


@pytest.mark.timeout(60)
def test_new_calls_of_a_resumed_run_and_a_transaction_that_calls_do_not_wait_for_each_other(rows: Rows) -> None:
    is_mended, begun = False, threading.Event()

    @task(transaction=True)
    def insert_and_queue(*, connection: Any) -> None:
        if not is_mended:
            raise ConnectionError("not yet")
        connection.execute("INSERT INTO user_orders (amount) VALUES (1)")
        begun.set()
        for number in range(500):  # each looks whether it is recorded, as the call of the flow does meanwhile
            later.delay(number)

    @flow(idempotency_key="resumed")
    def trying() -> int:
        make_table()
        later(0)
        inserted = insert_and_queue.submit()
        if is_mended:
            assert begun.wait(20)
            later(1)
        inserted.result()
        return int(str(rows("SELECT count(*) FROM runs WHERE state = 'SCHEDULED'")[0][0]))

    with pytest.raises(ConnectionError):
        trying()
    is_mended = True
    assert trying() == 500
    assert orders(rows) == [1]


def test_ordinary_tasks_on_other_threads_go_on_beside_transactions(rows: Rows) -> None:
    @flow
    def trying() -> tuple[int, int]:
        make_table()
        mixed = [(insert.submit(number), later.submit(number)) for number in range(60)]
        return sum(1 for own, _ in mixed if own.result()), sum(other.result() for _, other in mixed)

    assert trying() == (60, sum(range(60)))
    assert len(orders(rows)) == 60


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM flow_run", "UPDATE task_run SET state = 'FAILED'", "INSERT INTO main.variable VALUES (1, 2, 3, 4, 5)",
        "DROP TABLE value", "DROP VIEW runs", "CREATE TABLE orders (number)", "CREATE VIEW shown AS SELECT 1",
        "CREATE INDEX user_index ON flow_run (id)", "CREATE TRIGGER user_trigger AFTER INSERT ON task_run BEGIN SELECT 1; END",
        "CREATE TEMP TABLE user_temporary (number)", "CREATE TEMP VIEW runs AS SELECT 1",
        "CREATE VIRTUAL TABLE user_text USING fts5(a)",
        "ALTER TABLE flow_run ADD COLUMN mine", "ALTER TABLE user_orders RENAME TO orders", "SELECT name FROM flow_run",
        "SELECT (SELECT message FROM error) FROM user_orders", "ATTACH ':memory:' AS other", "DETACH main",
        "PRAGMA writable_schema = ON", "PRAGMA user_version = 9", "PRAGMA journal_mode = DELETE", "PRAGMA foreign_keys = OFF",
        "BEGIN", "COMMIT", "END", "ROLLBACK", "SELECT load_extension('x')", "UPDATE sqlite_sequence SET seq = 0", "ANALYZE",
        "REINDEX",
    ],
)  # fmt: skip
def test_statement_that_would_touch_what_is_not_the_users_is_not_executed(rows: Rows, sql: str) -> None:
    before = rows("SELECT type, name, sql FROM sqlite_schema ORDER BY name")

    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        with pytest.raises(UserTableError, match=r"(?s)task run \d+ of 'tried' \(flow run 1 .*begin with user_"):
            own.execute(sql)
        own.execute("INSERT INTO user_orders (amount) VALUES (2)")

    in_a_transaction(body)
    assert orders(rows) == [1, 2]
    after = rows("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '%user\\_%' ESCAPE '\\' ORDER BY name")
    assert after == before
    assert rows.state() == ("COMPLETED", "Completed")


@pytest.mark.parametrize("sql", ["INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)", "DELETE FROM sqlite_schema", "VACUUM"])
def test_sqlite_itself_refuses_the_rest(rows: Rows, sql: str) -> None:
    assert isinstance(failing(lambda own: own.execute(sql)), sqlite3.OperationalError)
    assert rows("PRAGMA integrity_check") == [("ok",)]


def test_text_equal_to_a_statement_of_the_engine_is_judged_too(journal: Journal) -> None:
    statements: list[str] = []
    journal.read(lambda connection: connection.set_trace_callback(statements.append))
    make_table()
    journal.read(lambda connection: connection.set_trace_callback(None))

    def body(own: Any) -> int:
        refused = 0
        for sql in {text for text in statements if text.startswith(("INSERT", "UPDATE"))}:
            with pytest.raises(UserTableError):
                own.execute(sql)
            refused += 1
        return refused

    assert int(str(in_a_transaction(body))) > 5


def test_triggers_views_and_foreign_keys_are_no_way_around(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("CREATE TRIGGER user_trigger AFTER INSERT ON user_orders BEGIN DELETE FROM flow_run; END")
        with pytest.raises(UserTableError, match="delete from flow_run"):
            own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        own.execute("DROP TRIGGER user_trigger")
        own.execute("CREATE VIEW user_view AS SELECT * FROM flow_run")
        with pytest.raises(UserTableError, match="read table flow_run"):
            own.execute("SELECT * FROM user_view")
        own.execute("CREATE TABLE user_children (parent REFERENCES flow_run)")
        with pytest.raises(UserTableError):
            own.execute("INSERT INTO user_children VALUES (1)")

    in_a_transaction(body)


def test_own_things_of_every_kind_are_made_changed_and_dropped(rows: Rows) -> None:
    def body(own: Any) -> list[object]:
        own.executescript(
            """
            CREATE TABLE user_log (number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT UNIQUE, at TEXT);
            CREATE INDEX user_log_at ON user_log (at); CREATE VIEW user_texts AS SELECT text FROM user_log;
            CREATE TRIGGER user_logged AFTER INSERT ON user_log BEGIN
                UPDATE user_log SET at = 'now' WHERE number = new.number;
            END;
            """
        )
        own.executemany("INSERT INTO user_log (text) VALUES (:text)", ({"text": text} for text in "ab"))
        own.execute("ALTER TABLE user_log ADD COLUMN more")
        own.execute("ALTER TABLE user_log RENAME COLUMN more TO less")
        own.execute("ALTER TABLE user_log RENAME TO user_diary")
        own.execute("CREATE TABLE user_gone (number INTEGER PRIMARY KEY AUTOINCREMENT)")
        own.execute("INSERT INTO user_gone DEFAULT VALUES")
        own.execute("DROP TABLE user_gone")
        own.row_factory = sqlite3.Row
        return [dict(row) for row in own.execute("SELECT text, at FROM user_diary")]

    assert in_a_transaction(body) == [{"text": "a", "at": "now"}, {"text": "b", "at": "now"}]
    assert rows("SELECT text FROM user_texts") == [("a",), ("b",)]


def test_documented_views_are_read_and_joined_with_own_tables(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        for (name,) in own.execute("SELECT name FROM help").fetchall():
            own.execute(f"SELECT * FROM {name}").fetchall()
        assert own.execute("SELECT r.state, o.amount FROM runs r JOIN user_orders o ON o.number = r.id").fetchall() == [
            ("RUNNING", 1)
        ]

    in_a_transaction(body)


def test_cursor_is_iterated_and_fetched_from_and_tells_about_itself() -> None:
    def body(own: Any) -> None:
        own.executemany("INSERT INTO user_orders (amount) VALUES (?)", [(number,) for number in range(5)])
        cursor = own.execute("SELECT amount FROM user_orders ORDER BY amount")
        assert cursor.description[0][0] == "amount"
        assert (next(cursor), cursor.fetchone(), cursor.fetchmany(2), list(cursor)) == ((0,), (1,), [(2,), (3,)], [(4,)])
        assert own.execute("UPDATE user_orders SET amount = amount + 10").rowcount == 5
        own.row_factory = lambda given, row: (type(given).__module__, *row)
        assert own.execute("SELECT 1").fetchone() == ("wfengine_journal.user_tables", 1)
        own.execute("SELECT * FROM user_orders").fetchone()  # left unfinished: it must not hold up the commit

    in_a_transaction(body)


@pytest.mark.parametrize(
    "name", ["close", "commit", "rollback", "interrupt", "set_authorizer", "backup", "isolation_level", "create_function"]
)
def test_connection_has_nothing_that_would_end_or_open_the_transaction(name: str) -> None:
    def body(own: Any) -> None:
        with pytest.raises(AttributeError, match="The engine commits it"):
            getattr(own, name)
        assert not hasattr(own.cursor(), "connection")

    in_a_transaction(body)


def test_connection_is_dead_after_the_task(rows: Rows) -> None:
    kept: list[Any] = []

    def body(own: Any) -> None:
        kept.extend((own, own.execute("SELECT 1")))

    in_a_transaction(body)
    for use in (lambda: kept[0].execute("SELECT 1"), lambda: kept[1].fetchone(), lambda: kept[0].cursor()):
        with pytest.raises(UserTableError, match="used after the task"):
            use()
    with pytest.raises(MissingContextError, match="transaction=True"):
        current_connection()


def test_statement_that_ends_the_transaction_fails_the_task(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError):
            own.execute("INSERT OR ROLLBACK INTO user_orders (amount) VALUES (1)")
        for use in (lambda: own.execute("INSERT INTO user_orders (amount) VALUES (2)"), lambda: Variable.set("a", 1)):
            with pytest.raises(UserTableError, match="rolled back"):
                use()

    assert isinstance(failing(body), UserTableError)
    assert orders(rows) == []
    assert rows("SELECT count(*) FROM variables") == [(0,)]


@pytest.mark.parametrize("way", ["call", "submit", "flow"])
def test_task_or_flow_called_inside_is_refused(rows: Rows, way: str) -> None:
    @flow
    def inner() -> None:
        raise AssertionError("it was run")

    def body(own: Any) -> None:
        {"call": lambda: later(1), "submit": lambda: later.submit(1), "flow": inner}[way]()

    error = failing(body)
    assert isinstance(error, UsageError)
    assert "inside task run" in str(error)
    assert ".delay(...)" in str(error)


def test_waiting_inside_is_refused() -> None:
    @task(transaction=True)
    def waits(futures: list[Any]) -> None:
        futures[0].result()

    def body(own: Any) -> None:
        with pytest.raises(UsageError, match="cannot wait"):
            later.delay(1).result(timeout=5)

    in_a_transaction(body)


def test_thread_of_its_own_cannot_use_the_journal_or_the_connection(rows: Rows) -> None:
    def body(own: Any) -> list[str]:
        said: list[str] = []

        def tried(use: Callable[[], object]) -> None:
            try:
                use()
            except UsageError as error:
                said.append(str(error))

        for use in (lambda: Variable.set("a", 1), lambda: own.execute("SELECT 1")):
            thread = threading.Thread(target=carry(lambda use=use: tried(use)))  # type: ignore[misc]
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
        return said

    said: Any = in_a_transaction(body)
    assert ["thread" in text for text in said] == [True, True]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cache_policy": INPUTS}, "cache_policy"), ({"persist_result": True}, "persist_result"),
        ({"result_storage": "results"}, "result_storage"), ({"cache_expiration": timedelta(1)}, "cache_expiration"),
        ({"timeout_seconds": 301}, "300 s at the most"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_a_transaction_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        task(transaction=True, **options)(lambda: 1)


def test_async_functions_and_generators_are_refused() -> None:
    async def later_on() -> None: ...

    def items() -> Any:
        yield 1

    for fn in (later_on, items):
        with pytest.raises(UsageError, match="plain function"):
            task(transaction=True)(fn)


# ---------------------------------------------------------------------------------------------------- time


def test_transaction_held_over_a_second_is_warned_of(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wfengine.engine"):
        in_a_transaction(lambda own: clock.sleep(1.5))
    assert [record.getMessage() for record in caplog.records if "1.5 s" in record.getMessage()]


@pytest.mark.parametrize("seconds", [None, 4.0])
def test_transaction_held_over_its_limit_is_rolled_back(clock: FakeClock, rows: Rows, seconds: float | None) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        clock.sleep((seconds or 30) + 1)

    error = failing(body, timeout_seconds=seconds)
    assert isinstance(error, TransactionTooLongError)
    assert f"longer than {seconds or 30:g} s" in str(error)
    assert orders(rows) == []
    assert rows("SELECT state, state_name FROM tasks WHERE task = 'tried'") == [("FAILED", "TimedOut")]


def test_limit_is_seen_at_the_next_statement_and_cannot_be_caught(clock: FakeClock, rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        clock.sleep(31)
        with pytest.raises(TransactionTooLongError):
            own.execute("INSERT INTO user_orders (amount) VALUES (2)")

    assert isinstance(failing(body), TransactionTooLongError)
    assert orders(rows) == []


def test_statement_that_does_not_end_is_ended_at_the_limit(rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (1)")
        own.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n").fetchall()

    assert isinstance(failing(body, timeout_seconds=0.2), TransactionTooLongError)
    assert orders(rows) == []


# ---------------------------------------------------------------------------------------------------- around it


def test_tables_are_read_anywhere_and_not_written(rows: Rows) -> None:
    in_a_transaction(lambda own: own.execute("INSERT INTO user_orders (amount) VALUES (5)").rowcount)
    connection = connect()
    try:
        assert [row["amount"] for row in connection.execute("SELECT amount FROM user_orders")] == [5]
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM user_orders")
    finally:
        connection.close()


def test_upgrade_keeps_own_tables_and_views_and_makes_the_others_anew(journal: Journal, rows: Rows) -> None:
    def body(own: Any) -> None:
        own.execute("INSERT INTO user_orders (amount) VALUES (5)")
        own.execute("CREATE VIEW user_states AS SELECT id, state FROM runs")

    in_a_transaction(body)
    journal.close()
    connection, _ = open_writer(journal.path)
    schema.upgrade(
        connection, journal.path, FORMAT_VERSION,
        {FORMAT_VERSION + 1: lambda database: database.conn.execute("ALTER TABLE flow_run ADD COLUMN colour TEXT")},
    )  # fmt: skip
    try:
        assert connection.execute("SELECT amount FROM user_orders").fetchall() == [(5,)]
        assert connection.execute("SELECT state FROM user_states").fetchall() == [("COMPLETED",)]
    finally:
        connection.close()


def test_doctor_tolerates_own_tables_whatever_their_references(rows: Rows, journal: Journal) -> None:
    in_a_transaction(lambda own: own.execute("CREATE TABLE user_lines (amount REFERENCES user_nowhere (name))").rowcount)
    journal.close()
    writing = sqlite3.connect(journal.path)
    writing.execute("INSERT INTO user_lines VALUES (3)")
    writing.commit()
    writing.close()
    connection = connect(journal.path)
    try:
        found = {check.name: check.verdict for check in run_checks(connection, journal.path, thorough=True, sample=10)}
    finally:
        connection.close()
    assert found["references"] is found["pages"] is Verdict.OK


FORKED = """
from wfengine.sql import current_connection

@task(transaction=True)
def forks():
    own = current_connection()
    own.execute("CREATE TABLE user_orders (number INTEGER PRIMARY KEY)")
    child = os.fork()
    if child == 0:
        try:
            own.execute("INSERT INTO user_orders VALUES (99)")
        except Exception as error:
            note(type(error).__name__)
        os._exit(0)
    os.waitpid(child, 0)
    own.execute("INSERT INTO user_orders VALUES (1)")
    return 1

@flow
def main():
    return forks()

if __name__ == "__main__":
    print(main())
"""


def test_forked_child_cannot_use_the_transaction_of_its_parent(program: Program, rows: Rows) -> None:
    program.write(FORKED)
    done = program.run()
    assert done.code == 0, done
    assert program.effects == ["UserTableError"]
    assert rows("SELECT number FROM user_orders") == [(1,)]


FULL_DISK = """
import resource, signal
from wfengine.sql import current_connection

@task(transaction=True)
def prepare():
    current_connection().execute("CREATE TABLE user_orders (number INTEGER PRIMARY KEY, text TEXT)")

@task(transaction=True)
def write():
    current_connection().execute("INSERT INTO user_orders (text) VALUES (?)", ("x" * 10_000,))
    if first_time():  # from here on no file of this process may grow, so COMMIT fails
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = os.path.getsize(os.environ["WFENGINE_JOURNAL"] + "-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, resource.RLIM_INFINITY))
    note("wrote")
    return 1

@flow
def main():
    prepare()
    return write()

if __name__ == "__main__":
    main()
"""


def test_commit_whose_outcome_is_unknown_is_no_failure_of_the_task_and_a_resume_writes_once(
    program: Program, rows: Rows
) -> None:
    program.write(FULL_DISK)
    done = program.run()
    assert done.code != 0
    assert "JournalUnwritableError" in done.err
    assert rows("SELECT count(*) FROM user_orders") == [(0,)]
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == ["wrote", "wrote"]
    assert rows("SELECT count(*) FROM user_orders") == [(1,)]
