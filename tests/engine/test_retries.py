"""Attempts, delays, limits of time: what is journaled, and what a restart does with it."""

from __future__ import annotations

import asyncio
import threading

import pytest
import tenacity

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import Flow, current_task_run, exponential_backoff, flow, task
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import MissingContextError, TaskTimeoutError, UsageError


class Flaky:
    """Fails a number of times, then gives a value."""

    def __init__(self, failures: int, error: type[Exception] = ValueError) -> None:
        self.failures = failures
        self.error = error
        self.attempts = 0

    def __call__(self) -> str:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise self.error(f"attempt {self.attempts}")
        return "done"


def run(flaky: Flaky, **options: object) -> str:
    """Run one task with these options in a flow."""

    @task(**options)  # type: ignore[call-overload]  # the options under test
    def work() -> str:
        return flaky()

    @flow
    def main() -> str:
        return str(work())

    return main()


@pytest.mark.parametrize(
    ("delay", "slept"),
    [
        (None, []),
        (5, [5.0, 5.0, 5.0]),
        ([1, 10], [1.0, 10.0, 10.0]),
        (exponential_backoff(2), [2.0, 4.0, 8.0]),
        (tenacity.wait_exponential(multiplier=1), [1.0, 2.0, 4.0]),
        (tenacity.wait_fixed(3) + tenacity.wait_incrementing(1, 1), [4.0, 5.0, 6.0]),
    ],
)
def test_delay_before_each_retry_is_the_one_asked_for(clock: FakeClock, delay: object, slept: list[float]) -> None:
    assert run(Flaky(3), retries=3, retry_delay_seconds=delay) == "done"
    assert clock.slept == pytest.approx(slept)


def test_retries_end_and_the_last_error_is_raised(clock: FakeClock, rows: Rows) -> None:
    flaky = Flaky(9)
    with pytest.raises(ValueError, match="attempt 3"):
        run(flaky, retries=2, retry_delay_seconds=1)
    assert flaky.attempts == 3
    assert clock.slept == [1.0, 1.0]
    assert rows("SELECT attempt, outcome, error FROM attempts ORDER BY attempt") == [
        (number, "FAILED", f"ValueError: attempt {number}") for number in (1, 2, 3)
    ]


def test_jitter_only_lengthens_a_delay(clock: FakeClock) -> None:
    run(Flaky(3), retries=3, retry_delay_seconds=10, retry_jitter_factor=0.5)
    assert len(clock.slept) == 3
    assert all(10 <= seconds <= 15 for seconds in clock.slept)


@pytest.mark.parametrize(
    ("condition", "attempts"),
    [
        (lambda error: isinstance(error, KeyError), 1),
        (lambda error: isinstance(error, ValueError), 3),
        (tenacity.retry_if_exception_type(KeyError), 1),
        (tenacity.retry_if_exception_type(ValueError), 3),
        (tenacity.retry_if_exception_message(match=".* 1"), 2),
    ],
)
def test_condition_decides_which_errors_are_retried(clock: FakeClock, condition: object, attempts: int) -> None:
    flaky = Flaky(9)
    with pytest.raises(ValueError, match="attempt"):
        run(flaky, retries=2, retry_condition_fn=condition)
    assert flaky.attempts == attempts
    assert clock.slept == []


@pytest.mark.parametrize(
    ("stop", "attempts"),
    [
        (tenacity.stop_after_attempt(4), 4),
        (tenacity.stop_after_attempt(9) | tenacity.stop_after_delay(25), 4),
    ],
)
def test_tenacity_stop_decides_when_to_give_up(clock: FakeClock, stop: object, attempts: int) -> None:
    flaky = Flaky(99)
    with pytest.raises(ValueError, match="attempt"):
        run(flaky, retries=stop, retry_delay_seconds=10)
    assert flaky.attempts == attempts
    assert clock.slept == [10.0] * (attempts - 1)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": True},
        {"retries": "3"},
        {"retry_delay_seconds": -1},
        {"retry_delay_seconds": "soon"},
        {"retry_delay_seconds": []},
        {"retry_condition_fn": 5},
        {"timeout_seconds": 0},
        {"timeout_seconds": "1"},
        {"on_interrupt": "never"},
        {"key_args": ["nothing"]},
        {"retry": 3},
    ],
)
def test_options_that_do_not_fit_are_refused_at_decoration(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        task(**options)(lambda: None)  # type: ignore[call-overload]  # wrong on purpose


def test_next_instant_is_in_the_journal_as_an_absolute_time_while_the_task_waits(clock: FakeClock, rows: Rows) -> None:
    seen: list[tuple[object, ...]] = []
    start = clock.now

    class Watching(FakeClock):
        def sleep(self, seconds: float) -> None:
            seen.extend(rows("SELECT state, state_name, next_attempt_at FROM tasks"))
            FakeClock.sleep(self, seconds)

    clock.__class__ = Watching
    run(Flaky(1), retries=1, retry_delay_seconds=90)
    assert seen == [("SCHEDULED", "AwaitingRetry", text_from_seconds(start + 90))]
    assert rows("SELECT state, next_attempt_at FROM tasks") == [("COMPLETED", None)]


class Interrupting(FakeClock):
    """A clock on which the process is interrupted in the middle of a wait."""

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += 20
        self.__class__ = FakeClock  # type: ignore[assignment]  # once only
        raise KeyboardInterrupt


def test_delay_goes_on_to_its_recorded_instant_after_a_restart(clock: FakeClock, rows: Rows) -> None:
    flaky = Flaky(1)

    @task(retries=1, retry_delay_seconds=90)
    def work() -> str:
        return flaky()

    @flow
    def main() -> str:
        return work()

    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main()
    clock.now += 30
    assert main.resume(1) == "done"
    assert clock.slept == [90.0, 40.0]
    assert flaky.attempts == 2
    assert rows("SELECT attempts, state FROM tasks") == [(2, "COMPLETED")]


def test_delay_whose_instant_has_passed_is_not_waited_for_again(clock: FakeClock) -> None:
    flaky = Flaky(1)

    @task(retries=1, retry_delay_seconds=90)
    def work() -> str:
        return flaky()

    @flow
    def main() -> str:
        return work()

    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main()
    clock.now += 3600
    assert main.resume(1) == "done"
    assert clock.slept == [90.0]


def test_retries_already_used_count_after_a_restart(clock: FakeClock) -> None:
    flaky = Flaky(99)

    @task(retries=2, retry_delay_seconds=50)
    def work() -> str:
        return flaky()

    @flow
    def main() -> str:
        return work()

    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main()
    with pytest.raises(ValueError, match="attempt 3"):
        main.resume(1)
    assert flaky.attempts == 3


def test_flow_that_waited_for_its_own_retry_goes_on_waiting_after_a_restart(clock: FakeClock, rows: Rows) -> None:
    ran: list[str] = []

    @task
    def fetch() -> str:
        ran.append("fetch")
        if len(ran) == 1:
            raise ValueError("flaky")
        return "fetched"

    @flow(retries=1, retry_delay_seconds=90)
    def main() -> str:
        return fetch()

    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main()
    assert rows("SELECT state FROM runs") == [("CRASHED",)]
    clock.now += 30
    assert main.resume(1) == "fetched"
    assert clock.slept == [90.0, 40.0]


def test_flow_interrupted_in_every_wait_for_its_retry_stays_resumable(clock: FakeClock, rows: Rows) -> None:
    attempts: list[str] = []

    @flow(retries=1, retry_delay_seconds=90)
    def main() -> str:
        attempts.append("body")
        if len(attempts) == 1:
            raise ValueError("flaky")
        return "done"

    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main()
    clock.__class__ = Interrupting
    with pytest.raises(KeyboardInterrupt):
        main.resume(1)
    assert rows.state() == ("CRASHED", "Crashed")
    assert len(attempts) == 1
    assert main.resume(1) == "done"


def test_killed_while_waiting_for_a_retry_goes_on_where_it_was(program: Program, rows: Rows) -> None:
    program.write(
        """
        import threading

        @task(retries=1, retry_delay_seconds=0.6)
        def work():
            note("work")
            if first_time():
                threading.Timer(0.2, kill).start()
                raise ValueError("flaky")
            return "done"

        @flow
        def main():
            return work()

        main()
        """
    )
    program.run_and_be_killed()
    assert rows("SELECT state_name FROM tasks") == [("AwaitingRetry",)]
    due = rows.value("SELECT next_attempt_at FROM tasks")
    assert program.resume(recovery=True)["result"] == "'done'"
    assert program.effects == ["work", "work"]
    assert str(rows.value("SELECT max(started_at) FROM attempts")) >= str(due)


def test_retry_of_a_submitted_task_does_not_hold_up_the_others() -> None:
    released = threading.Event()

    @task(retries=1)
    def flaky() -> str:
        if not released.is_set():
            raise_after = released.wait(60)
            raise ValueError(f"flaky {raise_after}")
        return "flaky"

    @task
    def quick() -> str:
        released.set()
        return "quick"

    @flow
    def main() -> list[str]:
        slow = flaky.submit()
        return [quick.submit().result(), slow.result()]

    assert main() == ["quick", "flaky"]


def test_task_run_knows_its_attempt() -> None:
    attempts: list[int] = []

    @task(retries=2)
    def work() -> None:
        attempts.append(current_task_run().attempt)
        if len(attempts) < 3:
            raise ValueError("again")

    @flow
    def main() -> None:
        work()

    main()
    assert attempts == [1, 2, 3]


# ---- limits of time


def test_task_over_its_time_limit_fails_as_timed_out(rows: Rows) -> None:
    held = threading.Event()

    @task(timeout_seconds=0.05)
    def slow() -> str:
        held.wait(60)
        return "late"

    @flow
    def main() -> str:
        try:
            return slow()
        except TimeoutError as error:
            return f"too slow: {type(error).__name__}"
        finally:
            held.set()

    assert main() == "too slow: TaskTimeoutError"
    assert rows("SELECT state, state_name FROM tasks") == [("FAILED", "TimedOut")]


def test_late_result_of_a_timed_out_attempt_is_discarded(rows: Rows) -> None:
    held, late = threading.Event(), threading.Event()

    @task(timeout_seconds=1.0, retries=1)
    def slow() -> str:
        if current_task_run().attempt == 1:
            held.wait(60)
            late.set()
            return "late"
        return "in time"

    @flow
    def main() -> str:
        value = slow()
        held.set()
        assert late.wait(60)
        return value

    assert main() == "in time"
    assert rows("SELECT result FROM tasks") == [('"in time"',)]
    assert rows("SELECT outcome FROM attempts ORDER BY attempt") == [("FAILED",), ("COMPLETED",)]


def test_call_of_a_task_by_an_attempt_that_was_given_up_is_refused(rows: Rows) -> None:
    held, told = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    @task
    def leaf() -> None: ...

    @task(timeout_seconds=0.05)
    def slow() -> None:
        held.wait(60)
        try:
            leaf()
        except BaseException as signal:
            problems.append(getattr(signal, "error", signal))
        told.set()

    @flow
    def main() -> None:
        assert slow(return_state=True).is_failed()  # type: ignore[call-overload]  # options of the call
        held.set()
        assert told.wait(60)

    main()
    assert isinstance(problems[0], MissingContextError)
    assert rows("SELECT count(*) FROM tasks WHERE task = 'leaf'") == [(0,)]


def test_retry_after_a_time_limit_runs_the_call_again_that_the_left_behind_thread_is_still_in(rows: Rows) -> None:
    held, told = threading.Event(), threading.Event()
    ran: list[str] = []

    @task
    def leaf() -> str:
        ran.append("leaf")
        if len(ran) == 1:
            held.wait(60)
            return "late"
        return "in time"

    @task(timeout_seconds=1.0, retries=1)
    def parent() -> str:
        try:
            return leaf()
        finally:
            if held.is_set():
                told.set()

    @flow
    def main() -> str:
        value = parent()
        held.set()
        assert told.wait(60)
        return value

    assert main() == "in time"
    assert rows("SELECT task, result, attempts FROM tasks ORDER BY id") == [
        ("parent", '"in time"', 2), ("leaf", '"in time"', 2),
    ]  # fmt: skip
    assert rows.state() == ("COMPLETED", "Completed")


def test_async_task_over_its_time_limit_is_cancelled(rows: Rows) -> None:
    cancelled: list[bool] = []

    @task(timeout_seconds=0.05)
    async def slow() -> str:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return "late"

    @flow
    async def main() -> str:
        try:
            return await slow()
        except TaskTimeoutError:
            return "too slow"

    assert asyncio.run(main()) == "too slow"
    assert cancelled == [True]
    assert rows("SELECT state, state_name FROM tasks") == [("FAILED", "TimedOut")]


@pytest.mark.parametrize("is_async", [False, True])
def test_flow_over_its_time_limit_fails_as_timed_out(rows: Rows, is_async: bool) -> None:
    held = threading.Event()
    own_flow: Flow[[], object]
    if is_async:

        @flow(timeout_seconds=0.05)
        async def slow() -> None:
            await asyncio.sleep(20)

        own_flow = slow
    else:

        @flow(timeout_seconds=0.05)
        def slow() -> None:
            held.wait(60)

        own_flow = slow
    with pytest.raises(TaskTimeoutError):
        asyncio.run(own_flow()) if is_async else own_flow()  # type: ignore[arg-type]  # a coroutine if async
    held.set()
    assert rows.state() == ("FAILED", "TimedOut")


def test_timeout_error_of_the_users_own_is_no_time_limit(rows: Rows) -> None:
    @task(timeout_seconds=20)
    def ask() -> None:
        raise TimeoutError("the server did not answer")

    @flow
    def main() -> None:
        ask()

    with pytest.raises(TimeoutError, match="the server"):
        main()
    assert rows("SELECT state_name FROM tasks") == [("Failed",)]
