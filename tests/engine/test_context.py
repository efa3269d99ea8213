"""What running code is told of itself by `wfengine.context`, and the tags its runs get."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import ThreadTaskRunner, current_flow_run, flow, tags, task
from wfengine.context import FlowRunContext, TagsContext, TaskRunContext, get_run_context
from wfengine.run_objects import FlowRun, TaskRun
from wfengine_journal.errors import MissingContextError


def test_outside_of_a_run_there_is_no_context() -> None:
    assert FlowRunContext.get() is None
    assert TaskRunContext.get() is None
    with pytest.raises(MissingContextError, match="outside of a flow run"):
        get_run_context()


def test_a_flow_body_finds_its_flow_and_run(rows: Rows) -> None:
    @flow(version="7", log_prints=True)
    def etl(day: str, size: int = 3) -> str:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        assert TaskRunContext.get() is None
        assert context.flow is etl
        assert context.parameters == {"day": "monday", "size": 3}
        assert context.log_prints is True
        run = context.flow_run
        assert isinstance(run, FlowRun)
        assert (run.id, run.flow_name, run.run_count, run.flow_version) == (1, "etl", 1, "7")
        assert run.state.is_running()
        return run.name

    assert etl("monday") == rows.value("SELECT name FROM runs")


def test_a_task_finds_itself_and_its_flow_run() -> None:
    @task(tags=["slow"], log_prints=True)
    def load(path: str, limit: int = 10) -> tuple[object, ...]:
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        assert context.task is load
        assert context.parameters == {"path": "a", "limit": 10}
        assert context.log_prints is True
        run = context.task_run
        assert isinstance(run, TaskRun)
        assert run.state.is_running()
        outer = FlowRunContext.get()
        assert outer is not None
        assert outer.flow is etl
        return run.id, run.flow_run_id, run.run_count, outer.flow_run.id, sorted(run.tags)

    @flow
    def etl() -> tuple[object, ...]:
        return load("a")

    assert etl() == (1, 1, 1, 1, ["slow"])


def test_a_submitted_task_and_an_async_one_find_themselves() -> None:
    @task
    def number(n: int) -> int:
        context = TaskRunContext.get()
        assert context is not None
        assert context.parameters == {"n": n}
        return context.task_run.id

    @task
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        context = TaskRunContext.get()
        assert context is not None
        assert context.parameters == {"n": n}
        return context.task_run.id

    @flow(task_runner=ThreadTaskRunner(max_workers=2))
    async def both() -> list[int]:
        return [*number.map([1, 2, 3]).result(), *await asyncio.gather(later(4), later(5))]

    assert sorted(asyncio.run(both())) == [1, 2, 3, 4, 5]


def test_in_a_subflow_that_a_task_called_the_context_is_that_of_the_subflow() -> None:
    @flow
    def inner() -> str:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        assert context.flow_run.parent_flow_run_id == 1
        return context.flow.name

    @task
    def between() -> str:
        return inner()

    @flow
    def outer() -> str:
        return between()

    assert outer() == "inner"


def test_a_hook_finds_the_run_it_was_called_for() -> None:
    seen: list[object] = []

    def hook(flow: object, flow_run: FlowRun, state: object) -> None:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        seen.append((context.flow_run.id, context.flow_run.name == flow_run.name))

    @flow(on_completion=[hook])
    def etl() -> None: ...

    etl()
    assert seen == [(1, True)]


def test_start_time_is_when_the_present_attempt_began(clock: FakeClock) -> None:
    began: list[datetime] = []

    @task(retries=1, retry_delay_seconds=60)
    def flaky() -> None:
        context = TaskRunContext.get()
        assert context is not None
        began.append(context.start_time)
        if len(began) == 1:
            raise ValueError

    @flow
    def etl() -> datetime:
        flaky()
        return FlowRunContext.get().start_time  # type: ignore[union-attr]

    start = datetime.fromtimestamp(1_750_000_000, UTC)
    assert etl() == start
    assert [(each - start).total_seconds() for each in began] == [0, 60]


def test_the_task_runner_is_the_one_tasks_are_submitted_to() -> None:
    chosen = ThreadTaskRunner(max_workers=2)

    @flow(task_runner=chosen)
    def etl() -> bool:
        return FlowRunContext.get().task_runner is chosen  # type: ignore[union-attr]

    @flow
    def plain() -> str:
        return type(FlowRunContext.get().task_runner).__name__  # type: ignore[union-attr]

    assert etl()
    assert plain() == "ThreadTaskRunner"


# ---------------------------------------------------------------------------------------------------- tags


@task(tags=["own"])
def tagged(n: int = 0) -> int:
    return n


def test_tags_of_blocks_and_decorators_come_together_in_the_rows(rows: Rows) -> None:
    @flow
    def etl() -> None:
        with tags("a", "b") as present:
            assert present == {"a", "b", "outer"}
            with tags("c"):
                tagged()
            tagged()
        tagged()
        assert TagsContext.get().current_tags == {"outer"}

    with tags("outer"):
        etl()
    assert rows("SELECT tags FROM tasks ORDER BY id") == [
        ('["a", "b", "c", "outer", "own"]',),
        ('["a", "b", "outer", "own"]',),
        ('["outer", "own"]',),
    ]
    assert rows("SELECT tags FROM runs") == [('["outer"]',)]
    assert TagsContext.get().current_tags == set()


def test_tags_do_not_leak_between_async_tasks(rows: Rows) -> None:
    @task
    async def step(n: int) -> None:
        await asyncio.sleep(0)

    @flow
    async def etl() -> None:
        async def with_tag(name: str, n: int) -> None:
            with tags(name):
                await asyncio.sleep(0)
                await step(n)

        await asyncio.gather(with_tag("a", 1), with_tag("b", 2), step(3))

    asyncio.run(etl())
    assert sorted(rows("SELECT inputs, tags FROM tasks")) == [('{"n":1}', '["a"]'), ('{"n":2}', '["b"]'), ('{"n":3}', None)]


def test_a_subflow_and_its_tasks_get_the_tags_of_the_block_around_it(rows: Rows) -> None:
    @flow
    def inner() -> None:
        tagged()

    @flow
    def outer() -> None:
        with tags("nightly"):
            inner()

    outer()
    assert rows("SELECT flow, tags FROM runs ORDER BY id") == [("outer", None), ("inner", '["nightly"]')]
    assert rows("SELECT tags FROM tasks") == [('["nightly", "own"]',)]


def test_a_task_that_waited_for_futures_has_the_tags_of_the_code_that_submitted_it(rows: Rows) -> None:
    @task
    def add(n: int, m: int) -> int:
        return n + m

    @flow
    def etl() -> int:
        with tags("first"):
            one = tagged.submit(1)
        with tags("second"):
            two = add.submit(one, 2)
        return two.result()

    assert etl() == 3
    assert rows("SELECT task, tags FROM tasks ORDER BY id") == [
        (tagged.name, '["first", "own"]'),
        ("add", '["second"]'),
    ]


def test_tags_can_decorate_a_function(rows: Rows) -> None:
    @tags("nightly")
    def job() -> None:
        etl()

    @flow
    def etl() -> frozenset[str]:
        return current_flow_run().tags

    job()
    assert rows("SELECT tags FROM runs") == [('["nightly"]',)]


def test_on_resume_new_task_runs_have_the_tags_the_run_was_started_under(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import tags

        @task(tags=["own"])
        def step(n):
            return n

        @flow(tags=["of-the-flow"])
        def etl():
            step(1)
            if first_time():
                kill()
            return step(2)

        if __name__ == "__main__":
            with tags("nightly"):
                etl()
    """)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert rows("SELECT tags FROM tasks ORDER BY id") == [('["nightly", "own"]',), ('["nightly", "own"]',)]
    assert rows("SELECT tags FROM runs") == [('["nightly", "of-the-flow"]',)]
