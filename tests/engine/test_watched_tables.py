"""A row that anybody inserts into a watched table is an event, in the same transaction; an automation starts a flow."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Rows
from wfengine import flow, task, use_journal
from wfengine.automations import Automation, EventTrigger, RunDeployment
from wfengine.automations.happenings import happening
from wfengine.automations.service import Automations
from wfengine.deployments import Deployment
from wfengine.events import unwatch_table, watch_table
from wfengine.sql import current_connection
from wfengine_journal import store
from wfengine_journal.errors import InvalidValueError, NotFoundError, UserTableError
from wfengine_journal.events import list_events_after

ORDERS = "CREATE TABLE user_orders (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, price REAL, data BLOB)"


def sqlite3_program(path: Path, sql: str) -> None:
    """Execute a statement as a person would."""
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("there is no sqlite3 program here")
    subprocess.run([program, str(path), sql], check=True, capture_output=True, text=True)


def execute(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql)
    connection.close()


def payloads(rows: Rows) -> list[Any]:
    return [json.loads(str(text)) for (text,) in rows("SELECT payload FROM events WHERE resource LIKE 'user%' ORDER BY id")]


def test_a_row_that_the_sqlite3_program_inserts_starts_a_flow(tmp_path: Path, rows: Rows, journal: store.Journal) -> None:
    @flow
    def ship(order: int, what: str) -> None: ...

    Deployment.build_from_flow(ship, "now", entrypoint="nowhere.py:ship").apply()
    sqlite3_program(tmp_path / "journal.db", ORDERS)
    assert watch_table("user_orders", "order.placed") == "order.placed"
    Automation(
        name="ship",
        trigger=EventTrigger(expect={"order.placed"}),
        actions=[
            RunDeployment(deployment="now", parameters={"order": "{{ event.payload.id }}", "what": "{{ event.payload.what }}"})
        ],
    ).create()
    sqlite3_program(tmp_path / "journal.db", "INSERT INTO user_orders (what) VALUES ('it''s a \"quote\"')")
    service = Automations(journal)
    while service.step():
        pass
    assert rows("SELECT state, parameters FROM runs") == [("SCHEDULED", '{"order":1,"what":"it\'s a \\"quote\\""}')]
    assert rows("SELECT resource FROM events WHERE name = 'order.placed'") == [("user_orders.1",)]


def test_the_event_is_there_if_and_only_if_the_row_is(tmp_path: Path, rows: Rows, journal: store.Journal) -> None:
    execute(tmp_path / "journal.db", ORDERS)
    watch_table("user_orders")
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO user_orders (what) VALUES ('x')")
    connection.execute("ROLLBACK")
    assert rows("SELECT * FROM events") == []
    connection.execute("INSERT INTO user_orders (what) VALUES ('x'), ('y')")
    connection.close()
    assert rows("SELECT name FROM events") == [("user_orders.inserted",)] * 2


def test_values_that_json_does_not_have_become_text(tmp_path: Path, rows: Rows, journal: store.Journal) -> None:
    execute(tmp_path / "journal.db", ORDERS)
    watch_table("user_orders")
    execute(tmp_path / "journal.db", "INSERT INTO user_orders VALUES (7, NULL, 9e999, x'00ff'), (8, 'é', 1.5, NULL)")
    assert payloads(rows) == [
        {"id": 7, "what": None, "price": "Inf", "data": "00FF"},
        {"id": 8, "what": "é", "price": 1.5, "data": None},
    ]


def test_any_text_comes_through(tmp_path: Path, rows: Rows, journal: store.Journal) -> None:
    execute(tmp_path / "journal.db", ORDERS)
    watch_table("user_orders")
    hostile = "".join(map(chr, range(1, 128))) + "\x85\u2028\U0001f600</script>{{ event.name }}\\"
    connection = sqlite3.connect(tmp_path / "journal.db")
    with connection:
        connection.execute("INSERT INTO user_orders (what, price) VALUES (?, ?)", (hostile, 0.1 + 0.2))
        connection.execute("INSERT INTO user_orders (what) VALUES (?)", ("a\0b",))
        connection.execute("INSERT INTO user_orders (what) VALUES (CAST(x'ff22' AS TEXT))")
    connection.close()
    found = [happening(row) for row in list_events_after(journal.records, 0, 9)]
    assert [each.value("payload.what") for each in found] == [hostile, "610062", '\ufffd"']
    assert found[0].value("payload.price") == 0.1 + 0.2


@pytest.mark.parametrize(
    ("columns", "insert", "resource"),
    [
        ("(a TEXT, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID", "VALUES ('x', 2)", "user_t.2/x"),
        ("(rowid TEXT, b)", "VALUES ('x', 2)", "user_t.1"),
        ("(rowid, _rowid_, oid)", "VALUES (1, 2, 3)", "user_t."),
        ('("a \'quoted"" name", b)', "VALUES (1, 2)", "user_t.1"),
        ("(a GENERATED ALWAYS AS (b + 1), b)", "(b) VALUES (2)", "user_t.1"),
    ],
)
def test_any_table_of_the_users_can_be_watched(
    tmp_path: Path, rows: Rows, journal: store.Journal, columns: str, insert: str, resource: str
) -> None:
    execute(tmp_path / "journal.db", f"CREATE TABLE user_t {columns}")
    watch_table("user_t", "it's")
    execute(tmp_path / "journal.db", f"INSERT INTO user_t {insert}")
    assert rows("SELECT name, resource FROM events") == [("it's", resource)]


def test_watching_again_changes_nothing_and_another_name_or_column_is_taken_over(
    tmp_path: Path, rows: Rows, journal: store.Journal
) -> None:
    from wfengine.events import unwatch, watch

    execute(tmp_path / "journal.db", ORDERS)
    assert [watch(journal, "user_orders", name) for name in ("a", "a", "b")] == ["created", "unchanged", "updated"]
    execute(tmp_path / "journal.db", "ALTER TABLE user_orders ADD COLUMN late TEXT")
    assert watch(journal, "user_orders", "b") == "updated"
    execute(tmp_path / "journal.db", "INSERT INTO user_orders (late) VALUES ('x')")
    assert payloads(rows)[0]["late"] == "x"
    assert [unwatch(journal, "user_orders"), unwatch(journal, "user_orders")] == [True, False]
    execute(tmp_path / "journal.db", "INSERT INTO user_orders (late) VALUES ('y')")
    assert len(payloads(rows)) == 1


@pytest.mark.parametrize(
    "table", ["event", "flow_run", "orders", "user_", "user_a b", "user_a;drop", "user_é", "", 7, None, "user_" + "x" * 500]
)
def test_only_a_table_of_the_users_own_can_be_watched(rows: Rows, table: Any) -> None:
    with pytest.raises(InvalidValueError, match="begins with user_"):
        watch_table(table, "e")
    with pytest.raises(InvalidValueError):
        unwatch_table(table)


def test_what_cannot_be_watched_says_why(tmp_path: Path, rows: Rows, journal: store.Journal) -> None:
    with pytest.raises(NotFoundError, match="there is no such table"):
        watch_table("user_gone")
    execute(tmp_path / "journal.db", f"CREATE TABLE user_wide ({', '.join(f'c{n}' for n in range(201))})")
    with pytest.raises(NotFoundError, match="201 columns"):
        watch_table("user_wide")
    execute(tmp_path / "journal.db", "CREATE VIEW user_view AS SELECT 1 AS a")
    with pytest.raises(NotFoundError, match="no such table"):
        watch_table("user_view")
    with pytest.raises(InvalidValueError, match="own events"):
        watch_table("user_wide", "wfengine.fake")


def test_a_transactional_task_inserts_into_a_watched_table(rows: Rows, journal: store.Journal) -> None:

    @task(transaction=True)
    def prepare() -> None:
        current_connection().execute(ORDERS)

    @task(transaction=True)
    def insert(what: str) -> None:
        current_connection().execute("INSERT INTO user_orders (what) VALUES (?)", (what,))
        if what == "bad":
            raise ValueError(what)

    @task(transaction=True)
    def cheat(sql: str) -> None:
        current_connection().execute(sql)

    @flow
    def main() -> None:
        prepare()
        watch_table("user_orders", "order.placed")
        insert("good")
        insert("bad", return_state=True)
        for sql in (
            "INSERT INTO event (name, resource, occurred_at) VALUES ('x', 'y', 'z')",
            "CREATE TRIGGER user_wfengine_event_x AFTER INSERT ON user_orders BEGIN DELETE FROM event; END",
        ):
            with pytest.raises(UserTableError):
                cheat(sql)

    main()
    assert [each["what"] for each in payloads(rows)] == ["good"]


def test_a_copy_of_the_journal_watches_too(tmp_path: Path, journal: store.Journal) -> None:
    execute(tmp_path / "journal.db", ORDERS)
    watch_table("user_orders", "order.placed")
    source, target = sqlite3.connect(tmp_path / "journal.db"), sqlite3.connect(tmp_path / "copy.db")
    source.backup(target)
    source.close()
    target.close()
    use_journal(tmp_path / "copy.db")
    execute(tmp_path / "copy.db", "INSERT INTO user_orders (what) VALUES ('x')")
    assert payloads(Rows(tmp_path / "copy.db")) == [{"id": 1, "what": "x", "price": None, "data": None}]
