"""Flows whose transactional tasks write a table of the user's own. Run as a script by the harness."""

from __future__ import annotations

import sys
from typing import Any

from tests.crash.child import main
from tests.crash.effects import append, has_happened
from tests.crash.nursery import FLAG, serve
from wfengine import Flow, ThreadTaskRunner, flow, task, use_journal
from wfengine.artifacts import create_markdown_artifact
from wfengine.sql import current_connection
from wfengine.variables import Variable

MANY = 1_000_000


@task
def receipt(amount: int) -> int:
    return amount


@task(transaction=True, max_interruptions=MANY)
def make_table() -> None:
    current_connection().execute("CREATE TABLE IF NOT EXISTS user_orders (number INTEGER PRIMARY KEY, amount INTEGER)")


@task(transaction=True, max_interruptions=MANY)
def pay(amount: int) -> int:
    return written(amount)


@task(transaction=True, max_interruptions=MANY, retries=1)
def flaky(amount: int) -> int:
    number = written(amount)
    if not has_happened("fail", str(amount)):
        append("fail", str(amount))
        raise ConnectionError("fails the first time, with everything written")
    return number


def written(amount: int) -> int:
    own = current_connection()
    own.execute("INSERT INTO user_orders (amount) VALUES (?)", (amount,))
    receipt.delay(amount)
    Variable.set(f"paid-{amount}", amount)
    create_markdown_artifact(f"# {amount}")
    return int(str(own.execute("SELECT max(number) FROM user_orders").fetchall()[0][0]))  # type: ignore[index]


@task(max_interruptions=MANY)
def double(amount: int) -> int:
    return amount * 2


@flow
def prepare() -> None:
    make_table()


@flow
def payments() -> list[int]:
    make_table()
    return [pay(double(amount)) for amount in range(2)]


@flow
async def payments_async() -> list[int]:
    make_table()
    return [pay(double(amount)) for amount in range(2)]


@flow(task_runner=ThreadTaskRunner(max_workers=2))
def payments_mapped() -> list[int]:
    make_table()
    doubles = double.map(range(10, 13))
    numbers = sorted(pay.map(range(3)).result())
    return [*numbers, *doubles.result()]


@flow
def retried() -> list[int]:
    make_table()
    return [flaky(amount) for amount in range(2)]


@flow
def many(first: int) -> list[int]:
    return [pay(amount) for amount in range(first, first + 25)]


FLOWS: dict[str, Flow[[], Any]] = {
    "prepare": prepare, "payments": payments, "payments_async": payments_async, "payments_mapped": payments_mapped,
    "retried": retried,
}  # fmt: skip


def start() -> None:
    main(FLOWS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        use_journal(sys.argv[2])
        many(25 * int(sys.argv[3]))
    elif sys.argv[1:] == [FLAG]:
        serve(start)
    else:
        start()
