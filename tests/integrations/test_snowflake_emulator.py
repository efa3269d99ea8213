"""Tasks for SQL databases against an emulator of Snowflake: the driver and dialect that users have, over HTTP on loopback.

The emulator (fakesnow, `./wf snowflake`) keeps tables in DuckDB in a process of its own, which lives on when the process that
executes a flow is killed. It keeps primary keys unique, which Snowflake does not: what that would be worth is not tested here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.integrations.sql import Database, execute, forget_marks, query, transaction
from wfengine.secrets import Secret

#: Where `./wf snowflake` puts the emulator's environment, out of the checkout.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
EMULATOR = CACHE / "wfengine" / "fakesnow-0.12.1"
PASSWORD = "canary-81d0c4aa-of-snowflake"

pytestmark = pytest.mark.skipif(
    not (EMULATOR / "complete").exists(),
    reason="The emulator of Snowflake is not installed, so that nothing was tested against it: ./wf snowflake",
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the emulator listens."""
    script = Path(__file__).with_name("snowflake_server.py")
    with subprocess.Popen(
        [EMULATOR / "bin" / "python", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def database_at(port: int, name: str) -> Database:
    """Return a database of its own, which the emulator makes with the first connection."""
    where = {"host": "127.0.0.1", "port": port, "protocol": "http", "enable_server_session_keep_alive_auto_detection": False}
    return Database(f"snowflake://etl@fakesnow/{name}/PUBLIC", password=Secret("env:SHOP_PASSWORD"), connect_args=where)


@pytest.fixture
def shop(port: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with an empty table of orders."""
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    database = database_at(port, f"shop_{abs(hash(request.node.nodeid))}")

    @flow
    def preparing() -> None:
        execute(database, "CREATE TABLE orders (id INTEGER, item VARCHAR, price NUMBER(10, 2))")

    preparing()
    return database


def look(database: Database, sql: str) -> list[tuple[object, ...]]:
    """Return the rows of a query, outside of any flow."""
    from sqlalchemy import text

    from wfengine.integrations.databases import engine_of

    with engine_of(database).connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def test_rows_and_values_keep_their_types_in_snowflake(shop: Database, rows: Rows) -> None:
    @flow
    def writing() -> object:
        evil = "x'); DROP TABLE orders; --"
        insert = "INSERT INTO orders (id, item, price) VALUES (:id, :item, :price)"
        assert execute(shop, insert, {"id": 0, "item": evil, "price": Decimal("1.50")}) == 1
        assert execute(shop, insert, [{"id": number, "item": str(number), "price": number} for number in range(1, 6)]) == 5
        assert execute(shop, "UPDATE orders SET price = 9 WHERE item IN :items", {"items": ("1", "2", evil)}) == 3
        assert execute(shop, "DELETE FROM orders WHERE item = :item", {"item": "none"}) == 0
        found = query(shop, "SELECT item, price FROM orders WHERE price = :price ORDER BY id", {"price": 9})
        return found, query(
            shop,
            "SELECT 1 AS whole, 2.5::FLOAT AS share, NULL AS nothing, true AS yes, '2026-01-02'::DATE AS day,"
            " '2026-01-02 03:04:05'::TIMESTAMP_NTZ AS at, 'ä''b' AS name",
        )

    found, typed = writing()  # type: ignore[misc]
    assert found == [{"item": item, "price": Decimal("9.00")} for item in ("x'); DROP TABLE orders; --", "1", "2")]
    assert typed == [
        {
            "whole": 1, "share": 2.5, "nothing": None, "yes": True, "day": date(2026, 1, 2),
            "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None), "name": "ä'b",
        }
    ]  # fmt: skip
    assert rows.value("SELECT count(*) FROM tasks WHERE state <> 'COMPLETED'") == 0


def test_a_transaction_in_snowflake_takes_effect_once_and_leaves_nothing_where_it_raises(shop: Database) -> None:
    seen: list[tuple[bool, object]] = []

    @task(retries=2)
    def book(item: str) -> object:
        with transaction(shop) as once:
            seen.append((once.is_done, once.result))
            if not once.is_done:
                once.result = once.execute("INSERT INTO orders (id, item) VALUES (1, :item)", {"item": item})
                if len(seen) == 1:
                    raise ConnectionError("before the commit")
        if len(seen) == 2:
            raise ConnectionError("after the commit")
        return once.result

    @flow
    def booking() -> object:
        return book("tea")

    assert booking() == 1
    assert seen == [(False, None), (False, None), (True, 1)]
    assert look(shop, "SELECT id, item FROM orders") == [(1, "tea")]
    assert forget_marks(shop, older_than="0s") == 1


KILLED = """
from tests.integrations.test_snowflake_emulator import database_at
from wfengine.integrations.sql import execute, query, stream, transaction

SHOP = database_at(int(os.environ["SHOP_PORT"]), os.environ["SHOP_NAME"])
WHERE = os.environ["KILL_WHERE"]

def kill_once(where):
    if where == WHERE and first_time():
        kill()

@task
def book(item):
    with transaction(SHOP) as once:
        if not once.is_done:
            once.execute("INSERT INTO orders (id, item) VALUES (1, :item)", {"item": item})
            once.result = item
        kill_once("before the commit")
    kill_once("after the commit")
    return once.result

@task
def load(chunk):
    for row in chunk:
        note(row["id"])
    if chunk[-1]["id"] == 6:
        kill_once("in a chunk")

@flow
def main():
    if WHERE != "in a chunk":
        return book("tea")
    for chunk in stream(SHOP, "SELECT id, item FROM orders ORDER BY id", key=os.environ["STREAM_KEY"] or None, chunk_rows=3):
        load(chunk)

main()
"""


def killed_and_resumed(program: Program, shop: Database, where: str, key: str = "") -> dict[str, object]:
    program.environment |= {
        "SHOP_PORT": str(shop.connect_args["port"]), "SHOP_NAME": shop.url.split("/")[3], "SHOP_PASSWORD": PASSWORD,
        "KILL_WHERE": where, "STREAM_KEY": key,
    }  # fmt: skip
    program.write(KILLED)
    program.run_and_be_killed()
    return program.resume()


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
def test_a_transaction_in_snowflake_takes_effect_once_though_its_process_is_killed(
    program: Program, shop: Database, where: str
) -> None:
    assert killed_and_resumed(program, shop, where)["state"] == "COMPLETED"
    assert look(shop, "SELECT id, item FROM orders") == [(1, "tea")]
    assert look(shop, "SELECT count(*) FROM wfengine_marks") == [(1,)]


@pytest.mark.parametrize("key", ["id", ""])
def test_a_stream_from_snowflake_goes_on_after_the_last_chunk(program: Program, shop: Database, key: str) -> None:
    @flow
    def filling() -> object:
        return execute(shop, "INSERT INTO orders (id, item) SELECT seq4() + 1, 'a' FROM TABLE(generator(rowcount => 11))")

    filling()
    assert killed_and_resumed(program, shop, "in a chunk", key)["state"] == "COMPLETED"
    assert program.effects == [*"123456", *"456", *"789", "10", "11"]


def test_the_password_of_snowflake_appears_nowhere(shop: Database, rows: Rows, tmp_path: Path) -> None:
    @flow
    def failing() -> None:
        query(shop, "SELECT * FROM nowhere")

    with pytest.raises(Exception, match=r"(?i)nowhere"):
        failing()
    assert PASSWORD not in str(rows("SELECT * FROM tasks"))
    assert not any(PASSWORD.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
