"""Flows that crashtest kills, in a module of their own: each of its processes loads it, and none needs pytest."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from wfengine import flow, task


@dataclass(frozen=True)
class Order:
    item: str
    amount: int


@task(retries=1, retry_delay_seconds=86_400)
def price(order: Order) -> int:
    """Fail the first time, so that a day passes."""
    asked = Path("asked")
    if not asked.exists():
        asked.touch()
        raise ValueError("busy")
    return len(order.item) * order.amount


@task
def charge(amount: int) -> str:
    with Path("ledger.txt").open("a") as ledger:
        ledger.write(f"charged {amount}\n")
    return f"receipt for {amount}"


@task
def charge_once(amount: int) -> str:
    Path(f"charged-{amount}.txt").write_text("charged")
    return f"receipt for {amount}"


@flow
def careless(order: Order) -> str:
    return charge(price(order))


@flow
def careful(order: Order) -> set[str]:
    return {charge_once(price(order)), "book", "keeping"}


@flow
async def careless_async(amount: int) -> str:
    return charge(amount)


@flow
async def careful_async(amount: int) -> list[str]:
    @task
    async def charged(number: int) -> str:
        return charge_once(number)

    return list(await asyncio.gather(charged(amount), charged(amount + 1)))


@flow
def counts_lines() -> int:
    """Look at what tasks left outside of the journal: a crash changes the result."""
    charge(1)
    return len(Path("ledger.txt").read_text().splitlines())


@flow
def fails(order: Order) -> None:
    charge_once(price(order))
    raise LookupError(order.item)


@flow
def random_result() -> str:
    return os.urandom(8).hex()
