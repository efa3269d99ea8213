"""A clock that jumps where somebody waits: waits of days take no time, and what is recorded is what was waited for."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from wfengine import flow, task
from wfengine.testing import VirtualClock, temporary_journal
from wfengine_journal.errors import UsageError

DAY = 86_400.0


def test_a_flow_whose_retries_wait_a_day_each_ends_at_once() -> None:
    tries: list[int] = []

    @task(retries=3, retry_delay_seconds=DAY)
    def flaky() -> int:
        tries.append(1)
        if len(tries) < 4:
            raise ValueError("not yet")
        return 7

    @flow
    def patient() -> int:
        return flaky()

    clock = VirtualClock(datetime(2026, 3, 1, tzinfo=UTC))
    with temporary_journal(clock=clock) as journal:
        assert patient() == 7
        (call,) = journal.tasks()
    assert clock.now == datetime(2026, 3, 4, tzinfo=UTC)
    assert clock.slept_seconds == 3 * DAY
    assert (call["started_at"], call["ended_at"]) == ("2026-03-01T00:00:00.000000Z", "2026-03-04T00:00:00.000000Z")


def test_an_async_flow_whose_retries_wait_a_day_each_ends_at_once() -> None:
    tries: dict[str, int] = {}

    @task(retries=3, retry_delay_seconds=DAY)
    async def flaky(name: str) -> int:
        tries[name] = tries.get(name, 0) + 1
        if tries[name] < 4:
            raise ValueError("not yet")
        return tries[name]

    @flow
    async def patient() -> list[int]:
        return list(await asyncio.gather(flaky("a"), flaky("b")))

    clock = VirtualClock()
    with temporary_journal(clock=clock):
        assert asyncio.run(patient()) == [4, 4]
    assert clock.now >= datetime(2026, 1, 4, tzinfo=UTC)


def test_submitted_tasks_and_flows_that_retry_wait_no_real_time_either() -> None:
    tries: list[int] = []

    @task(retries=1, retry_delay_seconds=DAY)
    def flaky(number: int) -> int:
        if tries.count(number) == 0:
            tries.append(number)
            raise ValueError("not yet")
        return number

    @flow(retries=1, retry_delay_seconds=30 * DAY)
    def patient() -> int:
        total = sum(flaky.map(range(3)).result())
        if tries.count(-1) == 0:
            tries.append(-1)
            raise ValueError("not yet")
        return total

    clock = VirtualClock()
    with temporary_journal(clock=clock) as journal:
        assert patient() == 3
        assert [call["attempts"] for call in journal.tasks()] == [2, 2, 2]
    assert clock.now >= datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=31)


def test_advance_moves_both_clocks_and_set_only_the_one_on_the_wall() -> None:
    clock = VirtualClock(start=1_750_000_000.0)
    assert (clock.wall_seconds(), clock.monotonic_seconds()) == (1_750_000_000.0, 0.0)
    clock.advance(90)
    assert (clock.wall_seconds(), clock.monotonic_seconds()) == (1_750_000_090.0, 90.0)
    clock.set(datetime(2020, 1, 1, tzinfo=UTC))
    assert clock.now_text() == "2020-01-01T00:00:00.000000Z"
    assert clock.monotonic_seconds() == 90.0
    assert clock.slept_seconds == 0.0
    clock.set(1_750_000_000)
    assert clock.now == datetime.fromtimestamp(1_750_000_000, UTC)
    assert "2025-06-15" in repr(clock)


def test_what_would_be_no_instant_is_refused() -> None:
    with pytest.raises(UsageError, match="goes forward"):
        VirtualClock().advance(-1)
    with pytest.raises(UsageError, match="no time zone"):
        VirtualClock(datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused


def test_waits_of_many_threads_add_up_and_none_is_lost() -> None:
    clock = VirtualClock()

    def wait() -> None:
        for _ in range(200):
            clock.sleep(0.5)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.slept_seconds == clock.monotonic_seconds() == 800.0


def test_a_wait_in_an_event_loop_lets_others_have_their_turn() -> None:
    clock, order = VirtualClock(), list[str]()

    async def wait(name: str) -> None:
        for number in range(3):
            await clock.sleep_async(3600)
            order.append(f"{name}{number}")

    async def both() -> None:
        await asyncio.gather(wait("a"), wait("b"))

    asyncio.run(both())
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
