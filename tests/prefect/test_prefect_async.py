"""Async flows and tasks, and generators: concurrency by asyncio, by submit, and streams of items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.futures import as_completed, wait


@task
async def fetch(number: int) -> int:
    await asyncio.sleep(0)
    return number * 10


@task
def double(number: int) -> int:
    return number * 2


def test_gathered_tasks_run_at_the_same_time(rows: Rows) -> None:
    @task
    async def meet(mine: int, events: int) -> int:
        doors[mine].set()
        await asyncio.gather(*(door.wait() for door in doors))  # nobody goes on before all have come
        return mine

    doors: list[asyncio.Event] = []

    @flow
    async def program() -> list[int]:
        doors.extend(asyncio.Event() for _ in range(3))
        return list(await asyncio.gather(*(meet(number, 3) for number in range(3))))

    assert asyncio.run(program()) == [0, 1, 2]
    assert rows("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == [(3,)]


def test_async_tasks_are_submitted_and_mapped() -> None:
    @flow
    async def program() -> list[int]:
        single = fetch.submit(1)
        mapped = fetch.map([2, 3])
        return [single.result(), *mapped.result()]

    assert asyncio.run(program()) == [10, 20, 30]


def test_a_sync_flow_submits_async_tasks() -> None:
    @flow
    def program() -> list[int]:
        return [future.result() for future in as_completed([fetch.submit(1)])] + fetch.map([2]).result()

    assert program() == [10, 20]


def test_sync_tasks_are_called_from_async_flows() -> None:
    @flow
    async def program() -> list[int]:
        futures = double.map([1, 2])
        wait(futures)
        return [double(await fetch(1)), *(future.result() for future in futures)]

    assert asyncio.run(program()) == [20, 2, 4]


def test_async_tasks_call_async_tasks() -> None:
    @task
    async def both(number: int) -> int:
        return sum(await asyncio.gather(fetch(number), fetch(number + 1)))

    @flow
    async def program() -> int:
        return await both(1)

    assert asyncio.run(program()) == 30


def test_an_exception_in_one_of_many_is_raised_and_the_others_are_recorded(rows: Rows) -> None:
    @task
    async def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    @flow
    async def program() -> list[object]:
        return list(await asyncio.gather(*(fail_at_two(number) for number in (1, 2, 3)), return_exceptions=True))

    first, second, third = asyncio.run(program())
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)
    assert rows("SELECT state FROM tasks ORDER BY id") == [("COMPLETED",), ("FAILED",), ("COMPLETED",)]


def test_a_task_group_waits_for_all_its_tasks() -> None:
    @flow
    async def program() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch(number)) for number in range(3)]
        return [done.result() for done in tasks]

    assert asyncio.run(program()) == [0, 10, 20]


def test_an_async_subflow_and_a_sync_one_are_called_from_an_async_flow() -> None:
    @flow
    async def later(number: int) -> int:
        return await fetch(number)

    @flow
    def now(number: int) -> int:
        return double(number)

    @flow
    async def program() -> tuple[int, int]:
        return await later(1), now(1)

    assert asyncio.run(program()) == (10, 2)


def test_an_async_state_is_returned_and_asked() -> None:
    @flow
    async def program() -> tuple[str, int]:
        state = await fetch(4, return_state=True)
        return state.name, await state.result()  # in async code a state's result is awaited, as in Prefect

    assert asyncio.run(program()) == ("Completed", 40)


# ------------------------------------------------------------------------------------------- generators


@task
def pages(count: int) -> Iterator[dict[str, int]]:
    for number in range(count):
        yield {"page": number}


@task
def rows_of(page: dict[str, int]) -> list[int]:
    return [page["page"] * 10 + row for row in range(2)]


def test_a_generator_task_gives_its_items_to_other_tasks_one_by_one(rows: Rows) -> None:
    @flow
    def program() -> list[int]:
        found: list[int] = []
        for page in pages(3):
            found += rows_of(page)
        return found

    assert program() == [0, 1, 10, 11, 20, 21]
    assert rows("SELECT task, state, count(*) FROM tasks GROUP BY task ORDER BY task") == [
        ("pages", "COMPLETED", 1), ("rows_of", "COMPLETED", 3),
    ]  # fmt: skip


def test_an_async_generator_task_gives_its_items() -> None:
    @task
    async def ticks(count: int) -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(0)
            yield number

    @flow
    async def program() -> list[int]:
        return [number * 2 async for number in ticks(3)]

    assert asyncio.run(program()) == [0, 2, 4]


def test_a_generator_that_fails_raises_after_the_items_it_gave() -> None:
    @task
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the connection is gone")

    @flow
    def program() -> tuple[list[int], str]:
        seen = []
        try:
            for number in broken():
                seen.append(number)  # noqa: PERF402 - what was given before the failure counts
        except OSError as error:
            return seen, str(error)
        return seen, "none"

    assert program() == ([1], "the connection is gone")


def test_a_submitted_or_mapped_generator_gives_the_list_of_its_items() -> None:
    @flow
    def program() -> object:
        return pages.submit(2).result(), [list(items) for items in pages.map([1, 2]).result()]

    assert program() == ([{"page": 0}, {"page": 1}], [[{"page": 0}], [{"page": 0}, {"page": 1}]])


def test_a_flow_is_a_generator() -> None:
    @flow
    def stream(count: int) -> Iterator[int]:
        for number in range(count):
            yield double(number)

    assert list(stream(3)) == [0, 2, 4]


def test_a_generator_that_is_left_early_is_closed() -> None:
    closed: list[str] = []

    @task
    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.append("closed")

    @flow
    def program() -> int:
        items = endless()
        for number in items:
            if number == 3:
                break
        items.close()  # type: ignore[attr-defined]
        return number

    assert program() == 3
    assert closed == ["closed"]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_as_many_items_come_as_the_generator_gives(count: int) -> None:
    @flow
    def program() -> int:
        return len(list(pages(count)))

    assert program() == count
