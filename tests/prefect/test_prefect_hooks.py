"""Hooks of flows and tasks: as options, as decorators, sync and async, of the present and of the old form."""

from __future__ import annotations

import asyncio

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.states import Cancelled, Completed


@pytest.fixture
def heard() -> list[object]:
    return []


def test_a_flow_s_hooks_are_given_the_flow_its_run_and_the_state(heard: list[object]) -> None:
    def hook(flow: object, flow_run: object, state: object) -> None:
        heard.append((flow.name, flow_run.name, flow_run.parameters, state.type.value))  # type: ignore[attr-defined]

    @flow(name="nightly", flow_run_name="for-{day}", on_completion=[hook], on_failure=[hook], on_running=[hook])
    def program(day: str, good: bool) -> None:
        if not good:
            raise RuntimeError

    program("monday", True)
    with pytest.raises(RuntimeError):
        program("tuesday", False)
    first, second = {"day": "monday", "good": True}, {"day": "tuesday", "good": False}
    assert heard == [
        ("nightly", "for-monday", first, "RUNNING"), ("nightly", "for-monday", first, "COMPLETED"),
        ("nightly", "for-tuesday", second, "RUNNING"), ("nightly", "for-tuesday", second, "FAILED"),
    ]  # fmt: skip


def test_a_task_s_hooks_are_given_the_task_its_run_and_the_state(heard: list[object]) -> None:
    def hook(task: object, task_run: object, state: object) -> None:
        result = state.result(raise_on_failure=False)  # type: ignore[attr-defined]
        heard.append((task.name, state.name, result if state.is_completed() else type(result).__name__))  # type: ignore[attr-defined]

    @task(on_completion=[hook], on_failure=[hook])
    def load(good: bool) -> int:
        if not good:
            raise KeyError("gone")
        return 5

    @flow
    def program() -> None:
        load(True)
        load(False, return_state=True)

    program()
    assert heard == [("load", "Completed", 5), ("load", "Failed", "KeyError")]


def test_hooks_are_added_by_decorators(heard: list[object]) -> None:
    @task
    def load(good: bool) -> None:
        if not good:
            raise RuntimeError

    @load.on_completion
    def done(task: object, run: object, state: object) -> None:
        heard.append("task done")

    @load.on_failure
    def failed(task: object, run: object, state: object) -> None:
        heard.append("task failed")

    @flow
    def program(good: bool) -> None:
        load(good)

    @program.on_completion
    def flow_done(flow: object, run: object, state: object) -> None:
        heard.append("flow done")

    @program.on_failure
    def flow_failed(flow: object, run: object, state: object) -> None:
        heard.append("flow failed")

    @program.on_running
    def flow_running(flow: object, run: object, state: object) -> None:
        heard.append("flow running")

    program(True)
    program(False, return_state=True)
    assert heard == ["flow running", "task done", "flow done", "flow running", "task failed", "flow failed"]
    done(None, None, None)  # a decorated hook is still the function
    assert heard[-1] == "task done"


def test_several_hooks_are_called_in_order_and_one_that_fails_stops_nothing(heard: list[object]) -> None:
    def first(flow: object, run: object, state: object) -> None:
        heard.append("first")
        raise RuntimeError("the hook is broken")

    def second(flow: object, run: object, state: object) -> None:
        heard.append("second")

    @flow(on_completion=[first, second])
    def program() -> str:
        return "result"

    assert program() == "result"
    assert heard == ["first", "second"]


def test_an_async_hook_is_awaited(heard: list[object]) -> None:
    async def hook(task: object, run: object, state: object) -> None:
        await asyncio.sleep(0)
        heard.append(state.name)  # type: ignore[attr-defined]

    @task(on_completion=[hook])
    def load() -> None: ...

    @flow(on_completion=[hook])
    def program() -> None:
        load()

    @flow(on_completion=[hook])
    async def later() -> None:
        load()

    program()
    asyncio.run(later())
    assert heard == ["Completed"] * 4


def test_a_failure_is_told_once_after_the_last_retry(heard: list[object]) -> None:
    def hook(task: object, run: object, state: object) -> None:
        heard.append((state.name, run.run_count))  # type: ignore[attr-defined]

    @task(retries=2, on_failure=[hook])
    def load() -> None:
        raise RuntimeError

    @flow
    def program() -> None:
        load(return_state=True)

    program()
    assert heard == [("Failed", 3)]


def test_a_cancelled_flow_calls_its_own_hook(heard: list[object]) -> None:
    def hook(flow: object, run: object, state: object) -> None:
        heard.append(state.type.value)  # type: ignore[attr-defined]

    @flow(on_cancellation=[hook], on_completion=[hook])
    def program() -> object:
        return Cancelled(message="a holiday")

    assert program(return_state=True).is_cancelled()
    assert heard == ["CANCELLED"]


def test_the_state_s_message_and_own_name_reach_the_hook(heard: list[object]) -> None:
    @flow(on_completion=[lambda flow, run, state: heard.append((state.name, state.message))])
    def program() -> object:
        return Completed(name="Skipped", message="no new files")

    program(return_state=True)
    assert heard == [("Skipped", "no new files")]


def test_a_hook_of_the_old_form_is_given_both_states(heard: list[object]) -> None:
    """Prefect 1's form, told by the names of its parameters. What it returns is not taken for the new state."""

    def handler(task: object, old_state: object, new_state: object) -> object:
        if new_state.is_failed():  # type: ignore[attr-defined]
            heard.append((task.name, old_state.is_running(), "the reason" in new_state.message))  # type: ignore[attr-defined]
        return new_state

    @task(on_failure=[handler], on_completion=[handler])
    def load(good: bool) -> None:
        if not good:
            raise RuntimeError("the reason")

    @flow
    def program() -> None:
        load(True)
        load(False)

    with pytest.raises(RuntimeError):
        program()
    assert heard == [("load", True, True)]


def test_hooks_of_a_cached_result_are_called_too(heard: list[object]) -> None:
    @task(cache_key_fn=lambda context, parameters: "always", on_completion=[lambda task, run, state: heard.append(state.name)])
    def load() -> int:
        return 1

    @flow
    def program() -> None:
        load()
        load()

    program()
    assert heard == ["Completed", "Cached"]


def test_a_replayed_task_s_hooks_are_not_called_again(heard: list[object], rows: Rows) -> None:
    @task(on_completion=[lambda task, run, state: heard.append("task")])
    def load() -> int:
        return 1

    @flow(retries=1, on_completion=[lambda flow, run, state: heard.append("flow")])
    def program() -> None:
        load()
        if len(heard) == 1 and not rows("SELECT 1 FROM history WHERE state_name = 'AwaitingRetry'"):
            raise RuntimeError("after the task")

    program()
    assert heard == ["task", "flow"]
