"""Tasks that wait for tasks: whatever waits for whatever, with one worker or many, nothing waits for ever.

Each test is held to an end by the time limit that every test has. Nothing here sleeps or looks at a clock.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from wfengine import TaskFuture, ThreadTaskRunner, allow_failure, as_completed, flow, task, wait
from wfengine.annotations import quote
from wfengine.exceptions import UsageError
from wfengine.task_runners import ConcurrentTaskRunner, TaskRunner, ThreadPoolTaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Program, Rows

DEPTH = 50
WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])


@task
def leaf(number: int) -> int:
    return number


@task
def add(left: int, right: int) -> int:
    return left + right


@task
async def leaf_async(number: int) -> int:
    await asyncio.sleep(0)
    return number


def one_worker(fn: Callable[[], object]) -> object:
    return flow(task_runner=ThreadTaskRunner(max_workers=1))(fn)()


def test_runners_have_prefects_names() -> None:
    assert ThreadPoolTaskRunner is ConcurrentTaskRunner is ThreadTaskRunner
    assert ThreadPoolTaskRunner(max_workers=3).max_workers == 3
    assert TaskRunner.__name__ == "TaskRunner"


# Fifty deep


def deeper(how: str) -> Callable[[int], int]:
    """Return what goes down as deep as it is told, each level waiting for the next in the given way."""

    @task
    def submits(depth: int) -> int:
        return 0 if depth == 0 else 1 + submits.submit(depth - 1).result()

    @task
    def maps(depth: int) -> int:
        return 0 if depth == 0 else 1 + sum(maps.map([depth - 1]).result())

    @task
    def passes_futures(depth: int) -> int:
        return 0 if depth == 0 else add(passes_futures.submit(depth - 1), 1)  # type: ignore[arg-type]

    @task
    def completes(depth: int) -> int:
        return 0 if depth == 0 else 1 + next(as_completed([completes.submit(depth - 1)])).result()

    @task
    def waits(depth: int) -> int:
        if depth == 0:
            return 0
        future = waits.submit(depth - 1)
        wait([future])
        return 1 + future.result()

    @task
    def waits_before(depth: int) -> int:
        return 0 if depth == 0 else 1 + leaf(depth - 1, wait_for=[waits_before.submit(depth - 1)]) * 0 + depth - 1  # type: ignore[call-overload,no-any-return]

    @task
    def calls(depth: int) -> int:
        return 0 if depth == 0 else 1 + calls(depth - 1)

    @task(timeout_seconds=3600)
    def is_limited(depth: int) -> int:
        return 0 if depth == 0 else 1 + is_limited.submit(depth - 1).result()

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def subflow(depth: int) -> int:
        return 0 if depth == 0 else 1 + calls_subflow.submit(depth - 1).result()

    @task
    def calls_subflow(depth: int) -> int:
        return subflow(depth)

    found = {task.name: task for task in (submits, maps, passes_futures, completes, waits, waits_before, calls, is_limited)}
    return {**found, "calls_subflow": calls_subflow}[how]


WAYS = [
    "submits", "maps", "passes_futures", "completes", "waits", "waits_before", "calls", "is_limited", "calls_subflow",
]  # fmt: skip


@pytest.mark.parametrize("how", WAYS)
def test_fifty_tasks_that_wait_for_each_other_get_by_with_one_worker(rows: Rows, how: str) -> None:
    fn = deeper(how)
    assert one_worker(lambda: fn.submit(DEPTH).result()) == DEPTH  # type: ignore[attr-defined]
    assert rows.value("SELECT count(*) FROM tasks WHERE state <> 'COMPLETED'") == 0


@WORKERS
def test_a_tree_of_tasks_gets_by_with_few_workers(workers: int) -> None:
    @task
    def node(depth: int) -> int:
        if depth == 0:
            return leaf.submit(1).result()
        return sum(future.result() for future in as_completed(node.map([depth - 1] * 3)))

    @flow(task_runner=ThreadTaskRunner(max_workers=workers))
    def program() -> int:
        return node.submit(4).result()

    assert program() == 81


@WORKERS
def test_subflows_in_mapped_tasks_that_map_tasks_get_by_with_few_workers(rows: Rows, workers: int) -> None:
    @flow(task_runner=ThreadTaskRunner(max_workers=workers))
    def child(number: int) -> int:
        return sum(add.map([number] * 3, leaf.map(range(3))).result())

    @task
    def middle(number: int) -> int:
        return child(number)

    @flow(task_runner=ThreadTaskRunner(max_workers=workers))
    def program() -> int:
        first = middle.map(range(5))
        return sum(middle.map(first).result())

    assert program() == sum(3 * (3 * number + 3) + 3 for number in range(5))
    assert rows.value("SELECT count(*) FROM runs WHERE state = 'COMPLETED'") == 11


@WORKERS
def test_long_chains_of_futures_need_neither_workers_nor_a_deep_stack(workers: int) -> None:
    @flow(task_runner=ThreadTaskRunner(max_workers=workers))
    def program() -> int:
        future: TaskFuture[int] = leaf.submit(0)
        for _ in range(1500):
            future = add.submit(future, 1)
        return future.result()

    assert program() == 1500


def test_a_long_chain_below_a_failure_ends_too(rows: Rows) -> None:
    @task
    def fail() -> int:
        raise ValueError("broken")

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def program() -> str:
        future: TaskFuture[int] = fail.submit()
        for _ in range(1500):
            future = add.submit(future, 1)
        return repr(add.submit(1, 2, wait_for=[allow_failure(future)]).result()) + repr(future.result(raise_on_failure=False))

    assert program() == "3ValueError('broken')"
    assert rows.value("SELECT count(*) FROM tasks WHERE state_name = 'NotReady'") == 1500


def test_tasks_that_wait_for_their_siblings_get_by_with_one_worker() -> None:
    @task
    def waits_for(others: list[TaskFuture[int]]) -> int:
        return sum(future.result() for future in others)

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def program() -> int:
        go = threading.Event()

        @task
        def late() -> int:
            assert go.wait(60)
            return 1

        first = late.submit()
        waiting = [waits_for.submit(quote([first])) for _ in range(5)]
        last = leaf.submit(5)
        go.set()
        return sum(future.result() for future in [*waiting, last])

    assert program() == 10


# Async


def test_async_tasks_wait_for_tasks_in_every_way() -> None:
    @task
    async def awaits(depth: int) -> int:
        return 0 if depth == 0 else 1 + await awaits.submit(depth - 1)

    @task
    async def blocks(depth: int) -> int:
        return 0 if depth == 0 else 1 + blocks.submit(depth - 1).result()

    @task
    async def in_turn(depth: int) -> int:
        return 0 if depth == 0 else 1 + sync_in_turn.submit(depth - 1).result()

    @task
    def sync_in_turn(depth: int) -> int:
        return 0 if depth == 0 else 1 + in_turn.submit(depth - 1).result()

    @task
    async def completes(depth: int) -> int:
        return 0 if depth == 0 else 1 + next(as_completed(completes.map([depth - 1]))).result()

    @task
    async def passes_futures(depth: int) -> int:
        future = leaf_async.submit(depth)
        await asyncio.sleep(0)
        return leaf.submit(future).result() + await leaf_async(future)  # type: ignore[arg-type]

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    async def program() -> list[int]:
        return [
            await awaits.submit(DEPTH), await blocks.submit(DEPTH), await in_turn.submit(DEPTH), await completes.submit(DEPTH),
            *[await future for future in passes_futures.map(range(3))],
        ]  # fmt: skip

    assert asyncio.run(program()) == [DEPTH] * 4 + [0, 2, 4]


def test_a_sync_subflow_in_an_async_task_has_loops_of_its_own() -> None:
    @flow
    def child() -> list[int]:
        return [*leaf_async.map(range(3)).result(), leaf_async.submit(7).result()]

    @task
    async def middle() -> list[int]:
        await asyncio.sleep(0)
        return child()

    @flow
    def program() -> list[int]:
        return middle.submit().result()

    assert program() == [0, 1, 2, 7]


def test_a_wait_that_would_stop_the_very_loop_of_the_task_is_refused() -> None:
    @task
    async def waits_for(others: list[TaskFuture[int]], how: str) -> str:
        try:
            if how == "result":
                others[0].result()
            elif how == "wait":
                wait(others)
            else:
                next(as_completed(others))
        except UsageError as error:
            return str(error)
        return "not refused"

    @flow
    def program() -> list[str]:
        go = threading.Event()

        @task
        async def late() -> int:
            await asyncio.to_thread(go.wait, 60)
            return 1

        first = late.submit()
        told = [waits_for.submit(quote([first]), how).result() for how in ("result", "wait", "completed")]
        go.set()
        return told

    told = program()
    assert len(told) == 3
    assert all("Write: await future" in text for text in told), told


# Killed


def test_a_deep_chain_goes_on_after_a_kill_with_one_worker(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.task_runners import ThreadPoolTaskRunner

        @task
        def deeper(depth):
            if depth == 0:
                if first_time():
                    kill()
                note("bottom")
                return 0
            return 1 + deeper.submit(depth - 1).result()

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
        def main():
            return deeper.submit(50).result()

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume()["result"] == "50"
    assert program.effects == ["bottom"]
    assert rows.value("SELECT count(*) FROM tasks") == 51
