"""Retries and timeouts, in every form that Prefect has."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.runtime import task_run
from wfengine.tasks import exponential_backoff


class Flaky:
    """Fails so often, then answers."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error(f"failure {self.calls}")
        return f"answer {self.calls}"


def test_a_task_is_tried_again_until_it_succeeds(rows: Rows) -> None:
    service = Flaky(2)

    @task(retries=2)
    def call_api() -> tuple[str, int]:
        return service(), task_run.run_count

    @flow
    def program() -> tuple[str, int]:
        return call_api()

    assert program() == ("answer 3", 3)
    assert rows("SELECT attempt, outcome FROM attempts ORDER BY attempt") == [(1, "FAILED"), (2, "FAILED"), (3, "COMPLETED")]


def test_a_task_out_of_retries_fails_with_its_last_error() -> None:
    service = Flaky(5)

    @task(retries=2)
    def call_api() -> str:
        return service()

    @flow
    def program() -> str:
        return call_api()

    with pytest.raises(ConnectionError, match="failure 3"):
        program()
    assert service.calls == 3


@pytest.mark.parametrize(
    ("delay", "slept"),
    [
        (10, [10, 10, 10]),
        (0.5, [0.5, 0.5, 0.5]),
        ([1, 10, 100], [1, 10, 100]),
        ([1, 10], [1, 10, 10]),
        (exponential_backoff(backoff_factor=10), [10, 20, 40]),
        (lambda retries: [number * 3 for number in range(1, retries + 1)], [3, 6, 9]),
    ],
)
def test_the_delay_is_a_number_a_list_or_a_function_of_the_number_of_retries(
    virtual_clock, delay: object, slept: list[float]
) -> None:  # type: ignore[no-untyped-def]
    service = Flaky(3)

    @task(retries=3, retry_delay_seconds=delay)
    def call_api() -> str:
        return service()

    @flow
    def program() -> str:
        return call_api()

    assert program() == "answer 4"
    assert virtual_clock.slept == slept


def test_jitter_spreads_the_delays(virtual_clock) -> None:  # type: ignore[no-untyped-def]
    @task(retries=3, retry_delay_seconds=100, retry_jitter_factor=1)
    def call_api() -> str:
        raise ConnectionError

    @flow
    def program() -> object:
        return [call_api(return_state=True).name for _ in range(5)]

    assert program() == ["Failed"] * 5
    assert len(set(virtual_clock.slept)) > 1
    assert all(0 <= seconds <= 200 for seconds in virtual_clock.slept)


class HTTPStatusError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def test_a_condition_is_asked_with_the_task_its_run_and_its_state() -> None:
    asked: list[tuple[str, str, str]] = []
    answers = iter([HTTPStatusError(503), HTTPStatusError(404)])

    def worth_it(task: object, task_run: object, state: object) -> bool:
        asked.append((task.name, task_run.name.partition("-")[0], state.type.value))  # type: ignore[attr-defined]
        try:
            state.result()  # type: ignore[attr-defined]
        except HTTPStatusError as error:
            return error.status not in (401, 404)
        except Exception:
            return True
        return False

    @task(retries=5, retry_condition_fn=worth_it)
    def call_api() -> None:
        raise next(answers)

    @flow
    def program() -> None:
        call_api()

    with pytest.raises(HTTPStatusError, match="404"):
        program()
    assert asked == [("call_api", "call_api", "FAILED")] * 2


def test_a_flow_is_tried_again_and_what_it_completed_is_not(rows: Rows) -> None:
    """In Prefect this holds only where results are persisted; here it always does."""
    calls: list[str] = []

    @task
    def prepare() -> str:
        calls.append("prepare")
        return "prepared"

    @task
    def load(data: str) -> str:
        calls.append("load")
        if calls.count("load") < 3:
            raise OSError("the disk is busy")
        return data

    @flow(retries=2)
    def program() -> str:
        return load(prepare())

    assert program() == "prepared"
    assert calls == ["prepare", "load", "load", "load"]
    assert rows("SELECT state_name FROM history WHERE task_id IS NULL ORDER BY seq") == [
        ("Running",), ("AwaitingRetry",), ("Retrying",), ("AwaitingRetry",), ("Retrying",), ("Completed",),
    ]  # fmt: skip


def test_a_flow_waits_between_its_attempts(virtual_clock) -> None:  # type: ignore[no-untyped-def]
    service = Flaky(2)

    @flow(retries=2, retry_delay_seconds=30)
    def program() -> str:
        return service()

    assert program() == "answer 3"
    assert virtual_clock.slept == [30, 30]


def test_async_tasks_and_flows_are_tried_again() -> None:
    outer, inner = Flaky(1), Flaky(1)

    @task(retries=1)
    async def call_api() -> str:
        await asyncio.sleep(0)
        return inner()

    @flow(retries=1)
    async def program() -> tuple[str, str]:
        answer = await call_api()
        return outer(), answer

    assert asyncio.run(program()) == ("answer 2", "answer 2")


def test_options_of_one_call_differ_from_the_task_s(virtual_clock) -> None:  # type: ignore[no-untyped-def]
    service = Flaky(2)

    @task
    def call_api() -> str:
        return service()

    @flow
    def program() -> tuple[bool, str]:
        first = call_api(return_state=True).is_failed()
        return first, call_api.with_options(retries=1, retry_delay_seconds=5, name="patient")()

    assert program() == (True, "answer 3")
    assert virtual_clock.slept == [5]


def test_a_submitted_task_and_each_item_of_a_map_have_their_own_retries() -> None:
    services = {number: Flaky(number) for number in range(3)}

    @task(retries=2)
    def call_api(number: int) -> str:
        return services[number]()

    @flow
    def program() -> list[str]:
        return call_api.map([0, 1, 2]).result()

    assert program() == ["answer 1", "answer 2", "answer 3"]


def test_a_task_beyond_its_time_limit_is_timed_out() -> None:
    release = threading.Event()

    @task(timeout_seconds=0.05)
    def slow() -> None:
        release.wait(60)

    @flow
    def program() -> tuple[str, str]:
        state = slow(return_state=True)
        return state.type.value, state.name

    try:
        assert program() == ("FAILED", "TimedOut")
    finally:
        release.set()


def test_an_async_task_beyond_its_time_limit_is_cancelled() -> None:
    seen: list[str] = []

    @task(timeout_seconds=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @flow
    async def program() -> None:
        await slow()

    with pytest.raises(TimeoutError):
        asyncio.run(program())
    assert seen == ["cancelled"]


def test_a_flow_beyond_its_time_limit_is_timed_out() -> None:
    @flow(timeout_seconds=0.05)
    async def program() -> None:
        await asyncio.sleep(30)

    state = asyncio.run(program(return_state=True))  # type: ignore[arg-type]

    assert (state.type.value, state.name) == ("FAILED", "TimedOut")  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        asyncio.run(program())


def test_an_attempt_that_timed_out_is_followed_by_another() -> None:
    release, calls = threading.Event(), []

    @task(timeout_seconds=1.0, retries=1)
    def sometimes_slow() -> str:
        calls.append(1)
        if len(calls) == 1:
            release.wait(60)
        return "in time"

    @flow
    def program() -> str:
        return sometimes_slow()

    try:
        assert program() == "in time"
    finally:
        release.set()
