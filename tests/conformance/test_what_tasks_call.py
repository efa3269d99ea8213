"""Calls from tasks, of tasks and flows, on each runner: they are made, recorded and ordered as on threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

import wfengine
from tests.conformance.runners import Place
from tests.conformance.work import PlainError, double, double_async, doubles, give_back
from tests.engine.conftest import Rows
from wfengine import Flow, ThreadTaskRunner, as_completed, carry, flow, task, wait

IDENTITIES = """
SELECT coalesce(o.name, ''), k.kind, k.key, hex(t.call_key), t.occurrence, t.lane, t.state, t.result, t.tags, t.attempt
FROM task_run t JOIN task k ON k.id = t.task_id LEFT JOIN task_run p ON p.id = t.scope LEFT JOIN task o ON o.id = p.task_id
ORDER BY 1, 2, 3, 4, 5
"""


@task
def inner(number: int) -> int:
    """Return the next number."""
    return number + 1


@task(tags=["outer"])
def outer(number: int) -> int:
    """Call and submit, and call a flow."""
    direct = [inner(number), inner(number), inner(number + 1)]
    with wfengine.tags("marked"):
        submitted = [inner.submit(number), inner.submit(number), double.submit(inner.submit(7))]
    mapped = inner.map(range(4))
    return sum(direct) + sum(future.result() for future in submitted) + sum(mapped.result()) + sum(doubles(3))


@task
async def outer_async(number: int) -> int:
    """Await several calls at once, equal ones among them, and one that does the same."""
    first = await asyncio.gather(*(double_async(item // 2) for item in range(number)))
    second = asyncio.create_task(_later(number))
    inside = await outer_async(number - 2) if number > 2 else 0
    return sum(first) + await double_async(number) + await second + inside + await inner.submit(number)


async def _later(number: int) -> int:
    return await double_async(number) + inner(number)


def test_calls_have_the_same_identity_whatever_the_runner(place: Place, rows: Rows, tmp_path: Path) -> None:
    def run_with(runner: object, name: str) -> tuple[int, list[tuple[object, ...]]]:
        wfengine.use_journal(tmp_path / name, durability="process")

        @flow(task_runner=runner)  # type: ignore[call-overload]
        def main() -> int:
            futures = outer.map([1, 1, 2])
            other = outer_async.submit(3)
            chained = double.submit(double.submit(2), wait_for=[other])
            return sum(futures.result()) + other.result() + chained.result() + double(4)

        return main(), Rows(tmp_path / name)(IDENTITIES)

    expected, here = run_with(ThreadTaskRunner(), "threads.db")
    result, there = run_with(place.new(), "runner.db")
    assert result == expected
    assert len(there) == len(here) > 40
    for mine, other in zip(there, here, strict=True):
        assert mine == other


def test_tasks_that_wait_for_tasks_never_starve_one_worker(place: Place) -> None:
    @task
    def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + descend.submit(depth - 1).result()

    @flow(task_runner=place.new(workers=1))
    def main() -> int:
        return descend.submit(20).result()

    assert main() == 20


def test_a_task_calls_itself_twenty_deep_without_another_worker(place: Place) -> None:
    @task
    def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + descend(depth - 1)

    @flow(task_runner=place.new(workers=1))
    def main() -> int:
        return descend.submit(20).result()

    assert main() == 20


def test_a_task_that_depends_on_futures_gets_their_values(place: Place) -> None:
    @flow(task_runner=place.new())
    def main() -> tuple[int, object]:
        future = double.submit(1)
        for _ in range(9):
            future = double.submit(future)
        nested = give_back.submit({"in": [future, (double.submit(3),)]})
        return future.result(), nested.result()

    assert main() == (2**10, {"in": [2**10, (6,)]})


def test_a_task_begins_after_those_it_waits_for_and_not_if_they_failed(place: Place, tmp_path: Path) -> None:
    @task
    def leave(name: str) -> None:
        (tmp_path / name).touch()

    @task
    def see(name: str) -> bool:
        return (tmp_path / name).exists()

    @task
    def fail() -> None:
        raise PlainError("no")

    @task
    def within() -> bool:
        return see.submit("inside", wait_for=[leave.submit("inside")]).result()

    @flow(task_runner=place.new())
    def main() -> None:
        first = [leave.submit(str(number)) for number in range(4)]
        assert see.submit("3", wait_for=first).result()
        assert within.submit().result()
        failed = fail.submit()
        never = leave.submit("never", wait_for=[failed])
        with pytest.raises(PlainError):
            never.result()
        assert never.state.name == "NotReady"
        assert not (tmp_path / "never").exists()

    main()


def test_tasks_and_flows_called_by_a_task_are_its_children(place: Place, rows: Rows) -> None:
    @task
    def parent() -> tuple[int, list[int]]:
        return inner(1), doubles(2)

    @flow(task_runner=place.new())
    def main() -> tuple[int, list[int]]:
        return parent.submit().result()

    assert main() == (2, [0, 2])
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [("main", "COMPLETED"), ("doubles", "COMPLETED")]
    scopes = rows("SELECT k.name, t.scope FROM task_run t JOIN task k ON k.id = t.task_id WHERE flow_run_id = 1 ORDER BY t.id")
    assert scopes == [("parent", 0), ("inner", 1), ("doubles", 1)]


def test_an_exception_of_a_nested_call_can_be_caught_by_the_task(place: Place) -> None:
    @task
    def fail(number: int) -> int:
        raise PlainError(number)

    @flow(name="failing")
    def failing() -> None:
        raise PlainError(9)

    @task
    def catch() -> list[object]:
        found: list[object] = []
        for call in (lambda: fail(1), lambda: fail.submit(2).result(), failing):
            try:
                call()
            except PlainError as error:
                found.append(error.args[0])
        found.append(type(fail.submit(3).result(raise_on_failure=False)).__name__)
        state = fail(4, return_state=True)
        found.append(state.type.value)
        return found

    @flow(task_runner=place.new())
    def main() -> list[object]:
        return catch.submit().result()

    assert main() == [1, 2, 9, "PlainError", "FAILED"]


def test_async_tasks_gather_submit_and_are_awaited(place: Place) -> None:
    @task
    async def busy(count: int) -> tuple[list[int], int, int]:
        several = await asyncio.gather(*(double_async(number) for number in range(count)))
        async with asyncio.TaskGroup() as group:
            one = group.create_task(_awaited(double_async(5)))
        return several, await double_async.submit(6), one.result()

    @flow(task_runner=place.new())
    async def main() -> list[tuple[list[int], int, int]]:
        return [await future for future in [busy.submit(3), busy.submit(2)]]

    assert asyncio.run(main()) == [([0, 2, 4], 12, 10), ([0, 2], 12, 10)]


def test_an_await_that_is_cancelled_cancels_the_task_it_waits_for(place: Place, tmp_path: Path) -> None:
    @task
    async def slow() -> None:
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            (tmp_path / "cancelled").touch()
            raise

    @task
    async def limited() -> str:
        try:
            await asyncio.wait_for(slow(), 1.0)
        except TimeoutError:
            return f"{(tmp_path / 'cancelled').exists()} {await double_async(4)}"
        return ""

    @flow(task_runner=place.new())
    def main() -> str:
        return limited.submit().result()

    assert main() == "True 8"


async def _awaited(what: object) -> int:
    return await what  # type: ignore[no-any-return, misc]


def test_a_task_may_call_from_threads_of_its_own(place: Place) -> None:
    @task
    def threaded(count: int) -> list[int]:
        found: list[int] = []
        threads = [threading.Thread(target=carry(lambda n=n: found.append(inner(n)))) for n in range(count)]
        for thread in threads:
            thread.start()
        found.append(inner(100))
        for thread in threads:
            thread.join()
        return sorted(found)

    @flow(task_runner=place.new())
    def main() -> list[int]:
        return threaded.submit(5).result()

    assert main() == [1, 2, 3, 4, 5, 101]


def test_futures_may_be_waited_for_together_inside_a_task(place: Place) -> None:
    @task
    def gather() -> tuple[int, int, bool]:
        futures = [double.submit(number) for number in range(5)]
        first = sum(future.result() for future in as_completed(futures))
        others = inner.map(range(3))
        done, pending = wait(list(others))
        return first, sum(others.result()), len(done) == 3 and not pending

    @flow(task_runner=place.new())
    def main() -> tuple[int, int, bool]:
        return gather.submit().result()

    assert main() == (20, 6, True)


def test_a_future_may_be_passed_on_into_a_task_unresolved(place: Place) -> None:
    @task
    def use() -> int:
        future = double.submit(4)
        return give_back.submit(future).result() + double.submit(future, wait_for=[future]).result()  # type: ignore[operator]

    @flow(task_runner=place.new())
    def main() -> int:
        return use.submit().result()

    assert main() == 24


def test_a_task_calls_a_task_of_another_runner_and_back(place: Place) -> None:
    @task(runner=ThreadTaskRunner(1))
    def on_thread() -> tuple[int, int]:
        return inner.with_options(runner=place.new()).submit(1).result(), inner(5)

    @flow(task_runner=place.new())
    def main() -> tuple[int, int]:
        return on_thread.submit().result()

    assert main() == (2, 6)


def test_one_flow_mixes_runners_by_task(place: Place) -> None:
    import os

    @task
    def where() -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    @flow
    def main() -> bool:
        here = where.submit().result()[0] == os.getpid()
        there = where.with_options(runner=place.new()).submit().result()[0] != os.getpid()
        direct = where.with_options(runner=place.new())()[0] == os.getpid()
        return here and there == place.is_away and direct

    assert main()


def test_each_flow_has_its_own_runner_and_a_subflow_its_own(place: Place) -> None:
    import os

    @task
    def where() -> int:
        return os.getpid()

    @flow(task_runner=ThreadTaskRunner(2))
    def sub() -> int:
        return where.submit().result()

    @flow(task_runner=place.new())
    def main() -> tuple[int, int]:
        return where.submit().result(), sub()

    there, here = main()
    assert here == os.getpid()
    assert (there != here) == place.is_away


def test_one_runner_serves_several_runs_at_once(place: Place) -> None:
    @flow(task_runner=place.new())
    def main(number: int) -> int:
        return sum(double.map(range(number)).result())

    assert _at_once(main, 3) == {number: number * (number - 1) for number in range(1, 4)}


def _at_once(called: Flow[[int], int], count: int) -> dict[int, int]:
    results: dict[int, int] = {}

    def run(number: int) -> None:
        results[number] = called(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_every_submitted_task_is_recorded_even_if_nobody_waits_for_it(place: Place, tmp_path: Path) -> None:
    @flow(task_runner=place.new())
    def main() -> None:
        double.map(range(30))

    main()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        counts = connection.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
    connection.close()
    assert counts == [("COMPLETED", 30)]
