"""Limits by name, as Prefect 3 has them: where they are imported from, and what they do."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import VirtualClock
from wfengine import flow, task
from wfengine.concurrency import set_limit
from wfengine.concurrency.asyncio import concurrency as concurrency_in_loop
from wfengine.concurrency.asyncio import rate_limit as rate_limit_in_loop
from wfengine.concurrency.sync import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
    rate_limit,
)


def test_a_sync_flow_limits_its_tasks_by_name() -> None:
    set_limit("database", slots=1)

    @task
    def process(x: int, y: int) -> int:
        with concurrency("database", occupy=1):
            return x + y

    @flow
    def my_flow() -> list[int]:
        return [future.result() for future in [process.submit(x, y) for x, y in [(1, 2), (2, 3), (3, 4)]]]

    assert my_flow() == [3, 5, 7]


def test_an_async_flow_limits_its_tasks_by_name() -> None:
    set_limit("database", slots=1)

    @task
    async def process(x: int, y: int) -> int:
        async with concurrency_in_loop(["database"], occupy=1, timeout_seconds=30):
            return x + y

    @flow
    async def my_flow() -> list[int]:
        return list(await asyncio.gather(*(process(x, y) for x, y in [(1, 2), (2, 3), (3, 4)])))

    assert asyncio.run(my_flow()) == [3, 5, 7]


def test_a_rate_spreads_submissions(virtual_clock: VirtualClock) -> None:
    set_limit("slow-my-flow", rate="50/s")

    @task
    def nothing() -> None:
        pass

    @flow
    def my_flow() -> None:
        for _ in range(55):
            rate_limit("slow-my-flow", occupy=1)
            nothing.submit()

    my_flow()
    assert sum(virtual_clock.slept) == pytest.approx(5 / 50, abs=0.001)
    asyncio.run(rate_limit_in_loop("slow-my-flow"))


def test_names_without_a_limit_are_skipped_unless_strict() -> None:
    with concurrency("there-is-none", occupy=1):
        rate_limit("there-is-none")
    with pytest.raises(ConcurrencySlotAcquisitionError), concurrency("there-is-none", strict=True):
        pass


def test_a_wait_that_is_too_long_raises_a_timeout_error() -> None:
    set_limit("full", slots=0)
    with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("full", timeout_seconds=0.01):
        pass
    with pytest.raises(TimeoutError), concurrency("full", timeout_seconds=0.01):
        pass
