"""Async flows and tasks: the same rules as for sync ones, and those that only concern an event loop."""

from __future__ import annotations

import asyncio
import datetime
import gc

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import Flow, carry, flow, task
from wfengine.recovery import resume_run
from wfengine_journal.errors import DriftError, InDoubtError, MissingContextError, TaskInterrupted
from wfengine_journal.store import Journal


class World:
    """What ran, what is broken, and how often the run still is to be cut off."""

    def __init__(self, crashes: int = 1) -> None:
        self.crashes = crashes
        self.ran: list[str] = []
        self.broken = True
        self.number = 1

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def crash(own_flow: Flow[..., object]) -> None:
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(own_flow())  # type: ignore[arg-type]  # a coroutine
    gc.collect()  # asyncio logs now, and not inside a later test, that nobody asked a gather for its interrupt


def resume(own_flow: Flow[..., object], **options: object) -> object:
    return asyncio.run(own_flow.resume(1, **options))  # type: ignore[arg-type]  # a coroutine


def test_async_flow_with_async_and_sync_tasks_resumes(rows: Rows) -> None:
    world = World()

    @task
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        world.ran.append(f"fetch {number}")
        return number

    @task
    def double(number: int) -> int:
        world.ran.append(f"double {number}")
        return number * 2

    @flow
    async def main() -> int:
        first = double(await fetch(1))
        world.crash_once()
        return first + double(await fetch(2))

    crash(main)
    assert rows.state() == ("CRASHED", "Crashed")
    assert resume(main) == 6
    assert world.ran == ["fetch 1", "double 1", "fetch 2", "double 2"]


def test_gather_replays_what_finished_whatever_the_order_of_its_calls() -> None:
    world = World()
    order = [1, 2, 3]

    @task
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        world.ran.append(str(number))
        return number * 10

    @flow
    async def main() -> list[int]:
        values = await asyncio.gather(*(fetch(number) for number in order))
        world.crash_once()
        return values

    crash(main)
    order.reverse()
    assert resume(main) == [30, 20, 10]
    assert sorted(world.ran) == ["1", "2", "3"]


def test_gather_cut_off_in_the_middle_runs_only_what_had_not_finished() -> None:
    world = World()

    @task
    async def fetch(number: int) -> int:
        for _ in range(number * 20):
            await asyncio.sleep(0.001)
        world.ran.append(str(number))
        if number == 2:
            world.crash_once()
        return number * 10

    @flow
    async def main() -> list[int]:
        return list(await asyncio.gather(*(fetch(number) for number in (1, 2, 9))))

    crash(main)
    assert resume(main) == [10, 20, 90]
    assert world.ran == ["1", "2", "2", "9"]


def test_coroutine_takes_its_place_in_the_order_of_calls_where_it_is_called() -> None:
    world = World()
    backwards = [False]

    @task
    async def draw() -> int:
        world.ran.append("draw")
        return len(world.ran)

    @flow
    async def main() -> list[int]:
        first, second = draw(), draw()
        if backwards[0]:
            values = [await second, await first][::-1]
        else:
            values = [await first, await second]
        world.crash_once()
        return values

    crash(main)
    backwards[0] = True
    assert resume(main) == [1, 2]
    assert len(world.ran) == 2


def test_calls_of_other_asyncio_tasks_are_never_accused(rows: Rows) -> None:
    world = World()

    @task
    async def fetch(number: int) -> int:
        world.ran.append(str(number))
        return number

    async def helper() -> int:
        return await fetch(world.number)

    @flow
    async def main() -> int:
        value = await asyncio.create_task(helper())
        world.crash_once()
        return value

    crash(main)
    world.number = 2
    assert resume(main) == 2
    assert world.ran == ["1", "2"]
    assert rows("SELECT inputs FROM orphans") == [('{"number":1}',)]


def test_clock_as_argument_parks_an_async_flow(rows: Rows) -> None:
    world = World()

    @task
    async def fetch(at: datetime.datetime) -> int:
        world.ran.append(str(at))
        return len(world.ran)

    @flow
    async def main() -> int:
        value = await fetch(datetime.datetime.now(tz=datetime.UTC))
        world.crash_once()
        return value

    crash(main)
    with pytest.raises(DriftError, match="at: recorded"):
        resume(main)
    assert len(world.ran) == 1
    assert rows.state() == ("PAUSED", "Drifted")
    assert resume(main, on_drift="rerun") == 2


def test_fatal_failure_in_a_gather_runs_again_and_the_others_replay() -> None:
    world = World(crashes=0)

    @task
    async def fetch(number: int) -> int:
        world.ran.append(str(number))
        if number == 2 and world.broken:
            raise ValueError("broken")
        return number

    @flow
    async def main() -> list[int]:
        found = await asyncio.gather(*(fetch(number) for number in (1, 2, 3)), return_exceptions=True)
        errors = [item for item in found if isinstance(item, Exception)]
        if errors:
            raise ExceptionGroup("some failed", errors)
        return [item for item in found if isinstance(item, int)]

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    world.broken = False
    assert resume(main) == [1, 2, 3]
    assert sorted(world.ran) == ["1", "2", "2", "3"]


def test_failure_caught_in_an_async_flow_replays() -> None:
    world = World()

    @task
    async def fetch() -> int:
        world.ran.append("fetch")
        raise ValueError("recorded")

    @flow
    async def main() -> str:
        try:
            await fetch()
        except ValueError as error:
            told = str(error)
        world.crash_once()
        return told

    crash(main)
    assert resume(main) == "recorded"
    assert world.ran == ["fetch"]


def test_retries_of_an_async_task_wait_without_stopping_the_loop() -> None:
    world = World(crashes=0)

    @task(retries=2, retry_delay_seconds=0.02)
    async def flaky() -> str:
        world.ran.append("flaky")
        if world.ran.count("flaky") < 3:
            raise ValueError("again")
        return "done"

    @task
    async def other() -> str:
        world.ran.append("other")
        return "other"

    @flow
    async def main() -> list[str]:
        return list(await asyncio.gather(flaky(), other()))

    assert asyncio.run(main()) == ["done", "other"]
    assert world.ran == ["flaky", "other", "flaky", "flaky"]


def test_flow_retries_of_an_async_flow_replay_what_completed() -> None:
    world = World(crashes=0)

    @task
    async def fetch(name: str) -> str:
        world.ran.append(name)
        if name == "flaky" and world.ran.count("flaky") == 1:
            raise ValueError("again")
        return name

    @flow(retries=1)
    async def main() -> str:
        return await fetch("good") + await fetch("flaky")

    assert asyncio.run(main()) == "goodflaky"
    assert world.ran == ["good", "flaky", "flaky"]


def test_retried_async_task_replays_the_tasks_that_its_failed_attempt_called() -> None:
    world = World(crashes=0)

    @task
    async def leaf(number: int) -> int:
        world.ran.append(f"leaf {number}")
        return number

    @task(retries=1)
    async def parent() -> int:
        world.ran.append("parent")
        total = sum(await asyncio.gather(leaf(1), leaf(2)))
        if world.ran.count("parent") == 1:
            raise ValueError("flaky")
        return total

    @flow
    async def main() -> int:
        return await parent()

    assert asyncio.run(main()) == 3
    assert world.ran == ["parent", "leaf 1", "leaf 2", "parent"]


def test_interrupted_async_task_obeys_on_interrupt(rows: Rows) -> None:
    world = World()

    @task(on_interrupt="fail")
    async def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    async def main() -> str:
        try:
            return await send()
        except TaskInterrupted:
            return "unknown"

    crash(main)
    assert resume(main) == "unknown"
    assert world.ran == ["send"]
    assert rows("SELECT state FROM tasks") == [("FAILED",)]


def test_interrupted_async_task_with_ask_parks_the_run(rows: Rows) -> None:
    world = World()

    @task(on_interrupt="ask")
    async def send() -> None:
        world.crash_once()

    @flow
    async def main() -> None:
        await send()

    crash(main)
    with pytest.raises(InDoubtError):
        resume(main)
    assert rows.state() == ("PAUSED", "InDoubt")


def test_async_subflow_goes_on_in_its_own_run(rows: Rows) -> None:
    world = World()

    @task
    async def leaf(number: int) -> int:
        world.ran.append(str(number))
        return number

    @flow
    async def child() -> int:
        first = await leaf(1)
        world.crash_once()
        return first + await leaf(2)

    @flow
    async def main() -> int:
        return await child()

    crash(main)
    assert resume(main) == 3
    assert world.ran == ["1", "2"]
    assert rows("SELECT flow, state, attempt FROM runs ORDER BY id") == [("main", "COMPLETED", 2), ("child", "COMPLETED", 2)]


def test_sync_subflow_in_an_async_flow_and_async_tasks_submitted_by_a_sync_flow() -> None:
    @task
    async def leaf(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @flow
    def child() -> int:
        return sum(leaf.map([1, 2, 3]).result())

    @flow
    async def main() -> int:
        return child()

    assert asyncio.run(main()) == 6


def test_future_can_be_awaited_and_passed_on_in_an_async_flow() -> None:
    world = World()

    @task
    def make(number: int) -> int:
        world.ran.append(f"make {number}")
        return number

    @task
    async def use(number: int) -> int:
        world.ran.append(f"use {number}")
        return number + 1

    @flow
    async def main() -> int:
        future = make.submit(1)
        used = await use(future)  # type: ignore[arg-type]  # a future stands for its value
        found = used + await future
        world.crash_once()
        return found

    crash(main)
    assert resume(main) == 3
    assert world.ran == ["make 1", "use 1"]


def test_thread_of_an_async_flow_needs_carry_and_to_thread_does_not() -> None:
    problems: list[BaseException] = []

    @task
    def double(number: int) -> int:
        return number * 2

    @flow
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, double, 1)
        except MissingContextError as error:
            problems.append(error)
        carried = await loop.run_in_executor(None, carry(double), 2)
        return [carried, await asyncio.to_thread(double, 3)]

    assert asyncio.run(main()) == [4, 6]
    assert "carry" in str(problems[0])


def test_cancelled_asyncio_task_is_interrupted_and_the_flow_may_go_on(rows: Rows) -> None:
    @task
    async def slow() -> None:
        await asyncio.sleep(20)

    @flow
    async def main() -> str:
        running = asyncio.create_task(slow())  # type: ignore[arg-type]  # a coroutine
        await asyncio.sleep(0.01)
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            return "cancelled"
        return "finished"

    assert asyncio.run(main()) == "cancelled"
    assert rows("SELECT state, state_name FROM tasks") == [("CRASHED", "Interrupted")]


def test_cancelled_async_flow_is_crashed_and_resumable(rows: Rows) -> None:
    world = World(crashes=0)

    @task
    async def fetch() -> int:
        world.ran.append("fetch")
        return 1

    @flow
    async def main() -> int:
        value = await fetch()
        if world.broken:
            await asyncio.sleep(20)
        return value

    async def cancel_soon() -> None:
        running = asyncio.create_task(main())  # type: ignore[arg-type]  # a coroutine
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel_soon())
    assert rows.state() == ("CRASHED", "Crashed")
    world.broken = False
    assert resume(main) == 1
    assert world.ran == ["fetch"]


def test_several_async_flows_run_in_one_loop_each_with_its_own_scope(rows: Rows) -> None:
    @task
    async def leaf(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @flow
    async def main(number: int) -> int:
        first = await leaf(number)
        return first + await leaf(number + 1)

    async def several() -> list[int]:
        return list(await asyncio.gather(*(main(number) for number in range(5))))

    assert asyncio.run(several()) == [1, 3, 5, 7, 9]
    assert rows("SELECT run_id, count(*) FROM tasks GROUP BY run_id") == [(number, 2) for number in range(1, 6)]
    assert rows("SELECT DISTINCT parent_run_id FROM runs") == [(None,)]


def test_killed_async_gather_resumes_from_another_process(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        async def fetch(number):
            await asyncio.sleep(0.02 * number)
            note(f"fetch-{number}")
            if number == 3 and first_time():
                kill()
            return number

        @flow
        async def main():
            return sum(await asyncio.gather(*(fetch(number) for number in range(6))))

        asyncio.run(main())
        """
    )
    program.run_and_be_killed()
    finished = {str(number) for (number,) in rows("SELECT result FROM tasks WHERE state = 'COMPLETED'")}
    assert program.resume(recovery=True)["result"] == "15"
    for number in range(6):
        times = program.effects.count(f"fetch-{number}")
        assert times == 1 if str(number) in finished else times <= 2
    assert rows("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == [(6,)]


def test_async_run_is_resumed_by_resume_run(journal: Journal) -> None:
    marker = journal.path.with_name("marker")
    text = str(marker)

    @flow
    async def stored() -> str:
        from pathlib import Path

        await asyncio.sleep(0)
        if not Path(text).exists():
            Path(text).touch()
            raise KeyboardInterrupt
        return "resumed"

    crash(stored)
    assert resume_run(journal, 1).result() == "resumed"
