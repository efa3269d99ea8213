"""Flows whose kills other tests enumerate: a stream that is followed from outside, and a saga that is undone."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from tests.crash.effects import append
from tests.crash.nursery import FLAG, serve
from wfengine import Flow, flow, task
from wfengine.transactions import Transaction, atransaction, transaction

ITEMS = 6
STEPS = ("a", "b", "c", "d")


@task
def read() -> Iterator[str]:
    """Give other items each time: those that were recorded must stand."""
    for number in range(ITEMS):
        yield f"{number}-{uuid.uuid4().hex}"


@flow
def feed() -> list[str]:
    return list(read())


@flow
def source() -> Iterator[str]:
    yield from read()


@flow
def piped() -> list[str]:
    return list(source())


@task
def book(step: str) -> str:
    append("run", step)
    return step


@book.on_rollback
def cancel(undone: Transaction) -> None:
    assert undone.call is not None
    append("undo", str(undone.call.arguments["step"]))


@task
def pay() -> None:
    append("run", "pay")
    raise ValueError("no money")


@flow
def saga() -> str:
    try:
        with transaction():
            for step in STEPS:
                book(step)
            pay()
    except ValueError:
        return "undone"
    return "booked"


@task
async def book_async(step: str) -> str:
    append("run", step)
    return step


@book_async.on_rollback
async def cancel_async(undone: Transaction) -> None:
    assert undone.call is not None
    append("undo", str(undone.call.arguments["step"]))


@flow
async def saga_async() -> str:
    try:
        async with atransaction():
            for step in STEPS:
                await book_async(step)
            pay()
    except ValueError:
        return "undone"
    return "booked"


FLOWS: dict[str, Flow[[], Any]] = {"feed": feed, "piped": piped, "saga": saga, "saga_async": saga_async}


def execute() -> None:
    """Be a child of the harness."""
    from tests.crash.child import main

    append("start", str(os.getpid()))
    main(FLOWS)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
