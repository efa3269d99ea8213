"""What a recorded call answers: its value, its error, or nothing (then it runs). And what a flow's return value means."""

from __future__ import annotations

import threading

import pytest

from tests.engine.conftest import Rows
from wfengine import Flow, State, as_completed, current_task_run, flow, task, wait
from wfengine.recovery import resumable_runs, resume_run
from wfengine.states import Completed, Failed
from wfengine_journal.errors import DriftError, FailedStateError, NotFoundError, RecordedError, RunOwnedError, UsageError
from wfengine_journal.recorded_calls import list_calls
from wfengine_journal.store import Journal


class World:
    """What ran, what is broken, and how often the run still is to be cut off."""

    def __init__(self, crashes: int = 0) -> None:
        self.crashes = crashes
        self.ran: list[str] = []
        self.broken = True

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


class OrderError(Exception):
    """An exception with an attribute and arguments of its own."""

    def __init__(self, order: int, *, reason: str) -> None:
        super().__init__(f"order {order}: {reason}")
        self.order = order
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _make_order_error, (self.order, self.reason)


def _make_order_error(order: int, reason: str) -> OrderError:
    return OrderError(order, reason=reason)


def crash(own_flow: Flow[..., object]) -> None:
    with pytest.raises(KeyboardInterrupt):
        own_flow()


# ---- the run itself


def test_completed_run_gives_its_recorded_result_and_runs_nothing(rows: Rows) -> None:
    world = World()

    @task
    def fetch() -> int:
        world.ran.append("fetch")
        return 1

    @flow
    def done() -> int:
        world.ran.append("flow")
        return fetch()

    assert done() == 1
    assert done.resume("@last") == 1
    assert world.ran == ["flow", "fetch"]
    assert rows.value("SELECT attempt FROM runs") == 1


def test_run_that_does_not_exist_is_refused() -> None:
    @flow
    def none() -> None: ...

    with pytest.raises(NotFoundError, match="77"):
        none.resume(77)
    with pytest.raises(NotFoundError, match="quiet-heron"):
        none.resume("quiet-heron")


def test_run_that_is_being_executed_cannot_be_resumed() -> None:
    @flow
    def inside() -> str:
        try:
            inside.resume(1)
        except RunOwnedError as error:
            return str(error)
        return "resumed"

    assert "is being executed by process" in inside()


def test_resumed_flow_gets_its_parameters_from_the_journal() -> None:
    world = World(crashes=1)

    @flow
    def with_parameters(day: str, sizes: dict[int, tuple[int, int]], ratio: float = 0.5) -> object:
        given = (day, sizes, ratio)
        world.crash_once()
        return given

    with pytest.raises(KeyboardInterrupt):
        with_parameters("monday", sizes={1: (2, 3)})
    assert with_parameters.resume("@last") == ("monday", {1: (2, 3)}, 0.5)


def test_interrupted_run_is_crashed_and_says_how_it_ended(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def fetch() -> None:
        world.crash_once()

    @flow
    def cut() -> None:
        fetch()

    crash(cut)
    assert rows.state() == ("CRASHED", "Crashed")
    assert "KeyboardInterrupt" in str(rows.value("SELECT error FROM runs"))
    assert rows("SELECT state, state_name, ended_at IS NULL FROM tasks") == [("CRASHED", "Interrupted", 0)]
    cut.resume(1)
    assert rows("SELECT outcome FROM attempts ORDER BY attempt") == [("INTERRUPTED",), ("COMPLETED",)]
    assert rows("SELECT state FROM history WHERE task_id IS NULL ORDER BY seq") == [
        ("RUNNING",), ("CRASHED",), ("RUNNING",), ("COMPLETED",),
    ]  # fmt: skip


def test_replayed_calls_are_marked_in_the_journal(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def fetch(number: int) -> int:
        return number

    @flow
    def half() -> int:
        first = fetch(1)
        world.crash_once()
        return first + fetch(2)

    crash(half)
    assert half.resume(1) == 3
    assert rows("SELECT inputs, replayed FROM tasks ORDER BY id") == [('{"number":1}', 1), ('{"number":2}', 0)]


# ---- recorded errors


@pytest.mark.parametrize("submitted", [False, True])
def test_caught_failure_replays_in_a_crash_recovery(journal: Journal, submitted: bool) -> None:
    world = World(crashes=1)

    @task
    def fetch() -> int:
        world.ran.append("fetch")
        raise OrderError(7, reason="sold out")

    @flow
    def careful() -> str:
        try:
            if submitted:
                fetch.submit().result()
            else:
                fetch()
        except OrderError as error:
            told = f"{error.order} {error.reason}"
        world.crash_once()
        return told

    crash(careful)
    assert resumable_runs(journal) == [1]
    assert careful.resume(1) == "7 sold out"
    assert world.ran == ["fetch"]


def test_recorded_exception_of_a_custom_class_comes_back_as_itself() -> None:
    world = World(crashes=1)
    seen: list[BaseException] = []

    @task
    def fetch() -> None:
        raise OrderError(7, reason="sold out") from KeyError("shelf")

    @flow
    def careful() -> None:
        try:
            fetch()
        except Exception as error:
            seen.append(error)
        world.crash_once()

    crash(careful)
    careful.resume(1)
    first, second = seen
    assert type(second) is OrderError
    assert (second.order, second.reason, str(second)) == (7, "sold out", str(first))
    assert type(second.__cause__) is KeyError
    assert any("OrderError" in note for note in second.__notes__)


def test_recorded_exception_that_cannot_be_pickled_comes_back_as_recorded_error() -> None:
    world = World(crashes=1)
    seen: list[BaseException] = []

    @task
    def fetch() -> None:
        raise ValueError("the door", threading.Lock())

    @flow
    def careful() -> None:
        try:
            fetch()
        except Exception as error:
            seen.append(error)
        world.crash_once()

    crash(careful)
    careful.resume(1)
    first, second = seen
    assert type(first) is ValueError
    assert isinstance(second, RecordedError)
    assert second.recorded_type == "ValueError"
    assert "the door" in second.recorded_message
    assert "ValueError: ('the door'" in second.recorded_traceback


def test_fatal_failure_runs_again_on_resume_and_a_caught_one_does_not(rows: Rows) -> None:
    world = World()

    @task
    def fetch(name: str) -> str:
        world.ran.append(name)
        if world.broken:
            raise ValueError(name)
        return name

    @flow
    def mixed() -> str:
        try:
            first = fetch("caught")
        except ValueError:
            first = "none"
        return first + fetch("fatal")

    with pytest.raises(ValueError, match="fatal"):
        mixed()
    assert rows("SELECT inputs, ended_the_run FROM failures WHERE task IS NOT NULL") == [
        ('{"name":"caught"}', 0), ('{"name":"fatal"}', 1),
    ]  # fmt: skip
    world.broken = False
    assert mixed.resume(1) == "nonefatal"
    assert world.ran == ["caught", "fatal", "fatal"]
    assert rows("SELECT error FROM runs") == [(None,)]


def test_failure_that_another_exception_was_raised_from_is_fatal() -> None:
    world = World()

    @task
    def fetch() -> str:
        world.ran.append("fetch")
        if world.broken:
            raise ValueError("inner")
        return "value"

    @flow
    def wrapping() -> str:
        try:
            return fetch()
        except ValueError as error:
            raise RuntimeError("outer") from error

    with pytest.raises(RuntimeError, match="outer"):
        wrapping()
    world.broken = False
    assert wrapping.resume(1) == "value"
    assert world.ran == ["fetch", "fetch"]


def test_failures_in_an_exception_group_are_fatal() -> None:
    world = World()

    @task
    def fetch(name: str) -> str:
        world.ran.append(name)
        if world.broken:
            raise ValueError(name)
        return name

    @flow
    def grouping() -> list[str]:
        states: list[State[str]] = [fetch(name, return_state=True) for name in ("a", "b")]
        errors = [state.result(raise_on_failure=False) for state in states if state.is_failed()]
        if errors:
            raise ExceptionGroup("both", errors)  # type: ignore[type-var]  # these are exceptions
        return [state.result() for state in states]

    with pytest.raises(ExceptionGroup):
        grouping()
    world.broken = False
    assert grouping.resume(1) == ["a", "b"]
    assert world.ran == ["a", "b", "a", "b"]


def test_every_failure_in_the_returned_states_runs_again_on_resume() -> None:
    world = World()

    @task
    def fetch(name: str) -> str:
        world.ran.append(name)
        if world.broken and name != "good":
            raise ValueError(name)
        return name

    @flow
    def returning() -> object:
        return [fetch(name, return_state=True) for name in ("good", "bad", "worse")]

    with pytest.raises(ValueError, match="bad"):
        returning()
    world.broken = False
    assert returning.resume(1) == ["good", "bad", "worse"]
    assert world.ran == ["good", "bad", "worse", "bad", "worse"]


def test_resume_that_fails_again_can_be_resumed_again(rows: Rows) -> None:
    world = World()

    @task
    def fetch() -> int:
        world.ran.append("fetch")
        if len(world.ran) < 3:
            raise ValueError("still broken")
        return len(world.ran)

    @flow
    def stubborn() -> int:
        return fetch()

    with pytest.raises(ValueError, match="still broken"):
        stubborn()
    with pytest.raises(ValueError, match="still broken"):
        stubborn.resume(1)
    assert stubborn.resume(1) == 3
    assert rows("SELECT attempts, state FROM tasks") == [(3, "COMPLETED")]
    assert rows.value("SELECT attempt FROM runs") == 3


def test_failure_of_the_flow_itself_runs_the_body_again_and_replays_its_tasks() -> None:
    world = World()

    @task
    def fetch() -> int:
        world.ran.append("fetch")
        return 4

    @flow
    def buggy() -> float:
        value = fetch()
        return value / (0 if world.broken else 2)

    with pytest.raises(ZeroDivisionError):
        buggy()
    world.broken = False
    assert buggy.resume(1) == 2.0
    assert world.ran == ["fetch"]


def test_recovery_replays_a_fatal_failure_of_an_earlier_resume_that_was_cut_off(journal: Journal) -> None:
    world = World(crashes=1)

    @task
    def fetch() -> int:
        world.ran.append("fetch")
        raise ValueError("recorded")

    @flow
    def failing() -> int:
        try:
            return fetch()
        finally:
            world.crash_once()

    crash(failing)
    with pytest.raises(ValueError, match="recorded"):
        failing.resume(1)
    assert world.ran == ["fetch"]
    assert journal.records.get_flow_run(1).state == "FAILED"


# ---- flow retries


def test_flow_retry_replays_what_completed_and_runs_what_failed_again(rows: Rows) -> None:
    world = World()

    @task
    def fetch(name: str) -> str:
        world.ran.append(name)
        if name == "flaky" and world.ran.count("flaky") < 3:
            raise ValueError(name)
        return name

    @flow(retries=2)
    def retried() -> str:
        world.ran.append("body")
        try:
            caught = fetch("flaky")
        except ValueError:
            fetch("good")
            raise
        return caught + fetch("good")

    assert retried() == "flakygood"
    assert world.ran == ["body", "flaky", "good", "body", "flaky", "body", "flaky"]
    assert rows("SELECT state_name FROM history WHERE task_id IS NULL ORDER BY seq") == [
        ("Running",), ("AwaitingRetry",), ("Retrying",), ("AwaitingRetry",), ("Retrying",), ("Completed",),
    ]  # fmt: skip


def test_flow_out_of_retries_has_them_all_again_when_a_person_resumes() -> None:
    world = World()

    @flow(retries=1)
    def retried() -> int:
        world.ran.append("body")
        if len(world.ran) < 4:
            raise ValueError("again")
        return len(world.ran)

    with pytest.raises(ValueError, match="again"):
        retried()
    assert len(world.ran) == 2
    assert retried.resume(1) == 4


# ---- order of completion


def test_as_completed_hands_replayed_results_out_in_their_recorded_order() -> None:
    world = World(crashes=1)
    events = [threading.Event() for _ in range(4)]
    orders: list[list[int]] = []

    @task
    def fetch(number: int) -> int:
        if number < 3:
            assert events[number + 1].wait(60)
        return number

    @flow
    def ordered() -> list[int]:
        order = []
        for future in as_completed(fetch.map([0, 1, 2, 3])):
            order.append(future.result())
            events[order[-1]].set()
        orders.append(order)
        world.crash_once()
        return order

    crash(ordered)
    assert ordered.resume(1) == [3, 2, 1, 0]
    assert orders == [[3, 2, 1, 0]] * 2


def test_as_completed_gives_replayed_results_before_live_ones() -> None:
    world = World(crashes=1)

    @task
    def fetch(number: int) -> int:
        return number

    @flow
    def ordered() -> list[int]:
        second = fetch.submit(2)
        second.result()
        world.crash_once()
        return [future.result() for future in as_completed([fetch.submit(1), second])]

    crash(ordered)
    assert ordered.resume(1) == [2, 1]


def test_wait_tells_done_from_not_done() -> None:
    held = threading.Event()

    @task
    def fetch(number: int) -> int:
        if number:
            assert held.wait(60)
        return number

    @flow
    def waiting() -> tuple[int, int]:
        futures = fetch.map([0, 1])
        futures[0].wait()
        done, not_done = wait(futures, timeout=0.01)
        held.set()
        return len(done), len(not_done)

    assert waiting() == (1, 1)


# ---- states


def test_return_state_gives_the_state_instead_of_raising(rows: Rows) -> None:
    @task
    def divide(by: int) -> float:
        return 1 / by

    @flow
    def dividing() -> str:
        good: State[float] = divide(2, return_state=True)
        bad: State[float] = divide(0, return_state=True)
        submitted = divide.submit(0, return_state=True)
        assert good.result() == 0.5
        assert isinstance(bad.result(raise_on_failure=False), ZeroDivisionError)
        return f"{good.name} {bad.name} {submitted.type.value}"  # type: ignore[attr-defined]  # a state was asked for

    state: State[str] = dividing(return_state=True)
    assert state.is_completed()
    assert state.result() == "Completed Failed FAILED"
    assert rows("SELECT state FROM tasks ORDER BY id") == [("COMPLETED",), ("FAILED",), ("FAILED",)]


def test_return_state_of_a_failed_flow_holds_its_exception() -> None:
    @flow
    def failing() -> None:
        raise OrderError(3, reason="none left")

    state: State[None] = failing(return_state=True)
    assert state.is_failed()
    with pytest.raises(OrderError, match="none left"):
        state.result()


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (Completed(data=5), 5),
        (Completed(message="fine"), None),
        ([Completed(data=1), Completed(data=2)], [1, 2]),
        ((Completed(data=1), "text"), (1, "text")),
        ({"a": 1}, {"a": 1}),
        (None, None),
    ],
)
def test_completed_states_in_the_return_value_complete_the_flow_with_their_values(returned: object, expected: object) -> None:
    @flow
    def returning() -> object:
        return returned

    assert returning() == expected


def test_failed_state_in_the_return_value_fails_the_flow(rows: Rows) -> None:
    @flow
    def returning() -> object:
        return [Completed(data=1), Failed(message="two is missing")]

    with pytest.raises(FailedStateError, match="two is missing"):
        returning()
    assert rows.state() == ("FAILED", "Failed")


def test_returned_future_counts_as_its_result() -> None:
    @task
    def fetch(number: int) -> int:
        return number

    @flow
    def returning() -> object:
        return [fetch.submit(1), fetch.submit(2)]

    assert returning() == [1, 2]


def test_flow_waits_for_what_it_submitted_and_a_failure_nobody_asked_for_does_not_fail_it(rows: Rows) -> None:
    @task
    def fail() -> None:
        raise ValueError("unseen")

    @flow
    def careless() -> str:
        fail.submit()
        return "done"

    assert careless() == "done"
    assert rows("SELECT state FROM tasks") == [("FAILED",)]


# ---- small promises


def test_idempotency_key_of_a_task_run_is_one_text_over_attempts_and_resumes_and_differs_between_calls() -> None:
    world = World(crashes=1)
    keys: list[tuple[int, str]] = []

    @task(retries=1)
    def pay(order: int) -> None:
        keys.append((order, current_task_run().idempotency_key))
        if len(keys) == 1:
            raise ValueError("flaky")
        world.crash_once()

    @flow
    def paying() -> None:
        pay(1)
        pay(2)
        pay(2)

    crash(paying)
    paying.resume(1)
    paying()
    first = {key for order, key in keys[:3]}
    assert [order for order, _ in keys] == [1, 1, 1, 2, 2, 1, 2, 2]
    assert len(first) == 1
    assert len({key for _, key in keys}) == 6


def test_attempt_number_counts_over_the_restart() -> None:
    world = World(crashes=1)
    attempts: list[int] = []

    @task
    def fetch() -> None:
        attempts.append(current_task_run().attempt)
        world.crash_once()

    @flow
    def counted() -> None:
        fetch()

    crash(counted)
    counted.resume(1)
    assert attempts == [1, 2]


def test_resuming_another_flows_run_is_refused(rows: Rows) -> None:
    world = World(crashes=1)

    @flow
    def one() -> None:
        world.crash_once()

    @flow
    def other() -> str:
        return "other"

    crash(one)
    with pytest.raises(UsageError, match="one"):
        other.resume(1)
    assert rows.state() == ("CRASHED", "Crashed")


def test_drift_error_and_owner_error_are_errors_of_the_caller_and_never_of_a_task(journal: Journal) -> None:
    world = World(crashes=1)
    numbers = [1]

    @task
    def fetch(number: int) -> int:
        return number

    @flow
    def drifting() -> int:
        fetched = fetch(numbers[0])
        world.crash_once()
        return fetched

    crash(drifting)
    numbers[0] = 2
    with pytest.raises(DriftError):
        drifting.resume(1)
    assert [row.state for row in list_calls(journal.records, 1)] == ["COMPLETED"]
    with pytest.raises(DriftError):
        drifting.resume(1, on_drift="error")


def test_resume_run_of_a_flow_nested_in_a_function_uses_the_stored_function(journal: Journal) -> None:
    @flow
    def nested(number: int) -> int:
        if not journal.path.with_name("marker").exists():
            journal.path.with_name("marker").touch()
            raise KeyboardInterrupt
        return number + 1

    marker = journal.path.with_name("marker")
    text = str(marker)
    del marker

    @flow
    def stored(number: int) -> int:
        from pathlib import Path

        if not Path(text).exists():
            Path(text).touch()
            raise KeyboardInterrupt
        return number + 1

    del nested
    with pytest.raises(KeyboardInterrupt):
        stored(4)
    assert resume_run(journal, 1).result() == 5
