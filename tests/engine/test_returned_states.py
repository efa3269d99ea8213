"""What a flow or task returned decides how its run ended: by hand, by other runs' states, or by its value.

Each rule holds for flows and tasks, sync and async, for the caller, in the rows of the journal, and after a resume.
"""

from __future__ import annotations

import asyncio
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import Flow, State, Task, ThreadTaskRunner, flow, task
from wfengine.exceptions import CancelledRun, CrashedRun, FailedRun, PausedRun, TaskTimeoutError, UnfinishedRun
from wfengine.recovery import resumable_runs, resume_run
from wfengine.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Running,
    Scheduled,
    Suspended,
)
from wfengine_journal.store import Journal

Make = Callable[[], object]

#: How a function is run whose return value is looked at. In all but the first it is called by a flow around it.
WAYS = ("flow", "async flow", "subflow", "async subflow", "task", "async task", "submitted", "async submitted")
INNER = WAYS[2:]


class Returning:
    """A function that returns what it is told to, run in one of the ways; counts how often its body ran."""

    def __init__(self, way: str, make: Make, **options: object) -> None:
        self.way = way
        self.ran = 0
        self.crashes = 0  # how often the flow around is cut off, after the call
        self.is_async = way.startswith("async")
        self.states: list[State[object]] = []  # as the flow around it got them
        self.make = make
        inner = self._decorated(options)
        self.flow: Flow[..., object] = inner if way.endswith(" flow") or way == "flow" else self._around(inner)

    def _decorated(self, options: dict[str, object]) -> Any:
        def body() -> object:
            self.ran += 1
            return self.make()

        async def body_async() -> object:
            return body()

        decorate: Any = flow if "flow" in self.way else task
        return decorate(name="inner", **options)(body_async if self.is_async else body)

    def _around(self, inner: Any) -> Any:
        def keep(state: State[object]) -> None:
            self.states.append(state)
            if self.crashes:
                self.crashes -= 1
                raise KeyboardInterrupt

        def outer() -> str:
            keep(inner.submit(return_state=True) if "submitted" in self.way else inner(return_state=True))
            return "went on"

        async def outer_async() -> str:
            if "submitted" in self.way:
                future = inner.submit()
                await future.wait_async()
                keep(future.state)
            else:
                keep(await inner(return_state=True))
            return "went on"

        return flow(name="outer")(outer_async if self.is_async else outer)

    def state(self) -> State[object]:
        """Run it; return the state of the function's own run."""
        answer = self._run(self.flow(return_state=True))
        assert isinstance(answer, State)
        return self.states[-1] if self.states else answer

    def resumed_state(self) -> State[object]:
        """Resume the run; return the state of the function's own run as the resumed flow got it."""
        self._run(self.flow.resume(1))
        return self.states[-1]

    def _run(self, answer: object) -> object:
        return asyncio.run(answer) if self.is_async else answer  # type: ignore[arg-type]  # an async flow gives a coroutine


def recorded(rows: Rows, way: str) -> tuple[object, object, object]:
    """Return type, name and message of the function's own run as they stand in the journal."""
    if "flow" in way:
        ((state, name, message),) = rows("SELECT state, state_name, message FROM runs WHERE flow = 'inner'")
    else:
        ((state, name, message),) = rows("SELECT state, state_name, message FROM tasks")
    return state, name, message


def described(state: State[object]) -> tuple[object, ...]:
    """Return what two states must have in common to be the same one."""
    result = state.result(raise_on_failure=False)
    shown = (type(result).__name__, str(result)) if isinstance(result, Exception) else result
    data = None if isinstance(state.data, Exception) else state.data
    return state.type, state.name, state.message, state.timestamp, state.flow_run_id, state.task_run_id, shown, data


def no_data() -> object:
    return Failed(message="no data")


BY_HAND: dict[str, tuple[Make, tuple[str, str, str | None], object]] = {
    "skipped": (lambda: Completed(name="Skipped", message="fine", data=5), ("COMPLETED", "Skipped", "fine"), 5),
    "completed": (Completed, ("COMPLETED", "Completed", None), None),
    "failed": (no_data, ("FAILED", "Failed", "no data"), FailedRun("no data")),
    "text": (lambda: Failed(data="text", message="m"), ("FAILED", "Failed", "m"), FailedRun("text")),
    "exception": (lambda: Failed(data=KeyError("k"), message="m"), ("FAILED", "Failed", "m"), KeyError("k")),
    "named": (lambda: Failed(name="Invalid", message="m", data=[1]), ("FAILED", "Invalid", "m"), FailedRun("m")),
    "cancelled": (lambda: Cancelled(message="c"), ("CANCELLED", "Cancelled", "c"), CancelledRun("c")),
    "crashed": (lambda: Crashed(message="c"), ("CRASHED", "Crashed", "c"), CrashedRun("c")),
    "killed": (lambda: Crashed(data=KeyboardInterrupt(), message="c"), ("CRASHED", "Crashed", "c"), CrashedRun("c")),
}


# ---- states made by hand


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", BY_HAND)
def test_state_made_by_hand_is_the_run_s_own(rows: Rows, way: str, which: str) -> None:
    make, expected, result = BY_HAND[which]
    returning = Returning(way, make)
    state = returning.state()
    assert (state.type.value, state.name, state.message) == expected
    assert recorded(rows, way) == expected
    if isinstance(result, Exception):
        with pytest.raises(type(result)) as caught:
            state.result()
        assert caught.value.args == result.args
    else:
        assert state.result() == result


@pytest.mark.parametrize("way", INNER)
@pytest.mark.parametrize("which", BY_HAND)
def test_state_made_by_hand_is_replayed_as_it_was(rows: Rows, journal: Journal, way: str, which: str) -> None:
    returning = Returning(way, BY_HAND[which][0])
    returning.crashes = 1
    with pytest.raises(KeyboardInterrupt):
        returning.state()
    before = returning.states[-1]
    assert resumable_runs(journal) == [1]
    assert described(returning.resumed_state()) == described(before)
    assert returning.ran == 1
    assert rows.state() == ("COMPLETED", "Completed")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("which", ["skipped", "failed", "cancelled", "crashed"])
def test_caller_of_a_flow_that_returns_a_state_gets_its_value_or_exception(which: str, is_async: bool) -> None:
    make, _, result = BY_HAND[which]
    returning = Returning("async flow" if is_async else "flow", make)
    if isinstance(result, Exception):
        with pytest.raises(type(result), match=str(result)):
            returning._run(returning.flow())
    else:
        assert returning._run(returning.flow()) == result


@pytest.mark.parametrize("decorate", [task, flow])
def test_call_inside_a_flow_gives_value_or_exception_too(decorate: Any) -> None:
    @decorate
    def skipping() -> object:
        return Completed(name="Skipped", data=5)

    @decorate
    def failing() -> object:
        return Failed(message="no data")

    @flow
    def calling() -> object:
        try:
            failing()
        except FailedRun as error:
            return skipping(), str(error)

    assert calling() == (5, "no data")


def test_state_of_a_run_has_its_ids_and_the_journaled_instant(rows: Rows) -> None:
    @task
    def working() -> int:
        return 1

    @flow
    def child() -> None: ...

    @flow
    def parent() -> object:
        states = [working(return_state=True), child(return_state=True)]
        return [(state.flow_run_id, state.task_run_id, state.timestamp.isoformat()) for state in states]

    state: State[Any] = parent(return_state=True)
    assert (state.flow_run_id, state.task_run_id) == (1, None)
    ids = rows("SELECT 1, id FROM tasks") + rows("SELECT id, NULL FROM runs WHERE flow = 'child'")
    ended = [value for (value,) in rows("SELECT ended_at FROM tasks UNION ALL SELECT ended_at FROM runs ORDER BY 1")]
    assert [row[:2] for row in state.data] == ids
    # The call of a subflow ends a moment after the subflow's run, and is what the state is of.
    assert datetime.fromisoformat(state.data[0][2]) == datetime.fromisoformat(str(ended[0]))
    assert state.timestamp == datetime.fromisoformat(str(ended[-1]))


def test_data_of_a_failed_state_stands_in_the_row(rows: Rows) -> None:
    Returning("task", lambda: Failed(message="m", data={"rows": 3})).state()
    assert rows("SELECT state, result, error FROM tasks") == [("FAILED", '{"rows":3}', "wfengine_journal.errors.FailedRun: m")]


@pytest.mark.parametrize("way", ["flow", "task"])
def test_data_that_cannot_be_stored_is_left_out_of_the_failed_state(
    rows: Rows, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = Returning(way, lambda: Failed(message="m", data=(x for x in "ab"))).state()
    assert recorded(rows, way) == ("FAILED", "Failed", "m")
    assert isinstance(state.data, FailedRun)
    assert "recorded without it" in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_completed_state_with_data_that_cannot_be_stored_fails(rows: Rows, way: str) -> None:
    state = Returning(way, lambda: Completed(data=threading.Lock())).state()
    assert state.is_failed()
    assert recorded(rows, way)[0] == "FAILED"


def test_name_that_means_something_to_the_engine_is_not_taken_from_a_state_made_by_hand(
    rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    assert Returning("task", lambda: Crashed(name="Interrupted", message="m")).state().name == "Crashed"
    assert recorded(rows, "task") == ("CRASHED", "Crashed", "m")
    assert "'Interrupted'" in caplog.text


@pytest.mark.parametrize("way", ["flow", "task"])
def test_texts_that_sqlite_cannot_hold_and_huge_ones_are_recorded_all_the_same(rows: Rows, way: str) -> None:
    state = Returning(way, lambda: Failed(name="N" * 1000, message="\udcff" + "m" * 100_000)).state()
    assert recorded(rows, way) == ("FAILED", state.name, state.message)
    assert (len(state.name), len(str(state.message))) == (200, 10_000)
    assert str(state.message).startswith("\\udcffm")


def test_crash_returned_by_a_task_is_not_in_doubt(rows: Rows) -> None:
    returning = Returning("task", lambda: Crashed(message="m"), once=True)
    returning.crashes = 1
    with pytest.raises(KeyboardInterrupt):
        returning.state()
    assert rows("SELECT * FROM in_doubt") == []
    assert rows("SELECT outcome FROM attempts") == [("CRASHED",)]


def test_task_called_alone_gives_its_own_state(rows: Rows) -> None:
    @task
    def skipping() -> object:
        return Completed(name="Skipped", message="fine", data=5)

    @task
    async def failing() -> object:
        return Failed(name="Invalid", message="no data")

    assert skipping() == 5
    state: State[object] = skipping(return_state=True)
    assert (state.name, state.message, state.result()) == ("Skipped", "fine", 5)
    with pytest.raises(FailedRun, match="no data"):
        asyncio.run(failing())
    assert rows("SELECT state_name, message FROM runs") == [("Skipped", "fine")] * 2 + [("Invalid", "no data")]


# ---- states that are no end


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [Running, Pending, Scheduled, AwaitingRetry, Late, Cancelling])
def test_state_that_is_no_end_fails_the_run_that_returned_it(rows: Rows, way: str, make: Make) -> None:
    state = Returning(way, make).state()
    assert recorded(rows, way)[:2] == ("FAILED", "Failed")
    with pytest.raises(UnfinishedRun, match="no end"):
        state.result()
    assert rows("SELECT * FROM stuck") == []


@pytest.mark.parametrize("way", ["flow", "async flow"])
@pytest.mark.parametrize("make", [Paused, Suspended])
def test_flow_that_returns_paused_is_parked_until_it_is_resumed(rows: Rows, way: str, make: Callable[..., object]) -> None:
    returning = Returning(way, lambda: make(message="needs approval", pause_key="approval"))
    state = returning.state()
    assert (state.type.value, state.name, state.message) == ("PAUSED", make.__name__, "needs approval")
    assert (state.flow_run_id, state.state_details.pause_key) == (1, "approval")
    assert recorded(rows, way) == ("PAUSED", make.__name__, "needs approval")
    assert rows("SELECT id, message FROM stuck") == [(1, "needs approval")]
    with pytest.raises(PausedRun, match=r"needs approval.*wfengine resume"):
        returning._run(returning.flow.resume(1))
    returning.make = lambda: "approved"
    assert returning._run(returning.flow.resume(1)) == "approved"
    assert rows.state() == ("COMPLETED", "Completed")


def test_run_resumed_by_its_id_gives_the_state_of_a_pause(journal: Journal, program: Program) -> None:
    program.write(
        """
        from wfengine.states import Paused

        @flow
        def waiting():
            return Paused(message="needs approval")

        if __name__ == "__main__":
            print(waiting(return_state=True).name)
        """
    )
    done = program.run()
    assert (done.code, done.out) == (0, "Paused\n")
    state = program.python(
        "-c",
        "from wfengine import use_journal; from wfengine.recovery import resume_run\n"
        "print(resume_run(use_journal(None), 1).message)",
    )
    assert state.out == "needs approval\n"
    assert program.python("-m", "wfengine", "resume", "1").code == 4


@pytest.mark.parametrize("is_async", [False, True])
def test_pause_of_a_subflow_pauses_its_parent(rows: Rows, is_async: bool) -> None:
    answers: list[object] = [Paused(message="needs approval")]

    @flow
    def child() -> object:
        return answers[-1]

    @flow
    async def child_async() -> object:
        return answers[-1]

    @flow
    def parent() -> object:
        return child()

    @flow
    async def parent_async() -> object:
        return await child_async()

    top: Any = parent_async if is_async else parent
    with pytest.raises(PausedRun, match="needs approval"):
        asyncio.run(top()) if is_async else top()
    assert rows("SELECT state, state_name, message FROM runs") == [("PAUSED", "Paused", "needs approval")] * 2
    answers.append("approved")
    assert (asyncio.run(top.resume(1)) if is_async else top.resume(1)) == "approved"


@pytest.mark.parametrize("way", ["task", "async task", "submitted"])
def test_task_cannot_be_paused_so_it_fails(rows: Rows, way: str) -> None:
    state = Returning(way, lambda: Paused(message="needs approval")).state()
    assert recorded(rows, way)[:2] == ("FAILED", "Failed")
    with pytest.raises(PausedRun, match="only a flow run can wait"):
        state.result()


# ---- futures and states of other runs


@task
def good(number: int) -> object:
    return number


@task
def bad(text: str = "bad") -> object:
    raise ValueError(text)


@task
def told(which: str) -> object:
    return BY_HAND[which][0]()


@flow
def child_told(which: str) -> object:
    return BY_HAND[which][0]()


Aggregate = tuple[Callable[[], object], tuple[str, str | None], object]

AGGREGATES: dict[str, Aggregate] = {
    "future": (lambda: good.submit(1), ("COMPLETED", "All states completed."), 1),
    "futures": (lambda: good.map([1, 2]), ("COMPLETED", "All states completed."), [1, 2]),
    "tuple": (lambda: (good.submit(1), good(2, return_state=True)), ("COMPLETED", "All states completed."), (1, 2)),
    "set": (lambda: {good.submit(1), good.submit(2)}, ("COMPLETED", "All states completed."), {1, 2}),
    "set of lists": (lambda: {good.submit([1])}, ("COMPLETED", "All states completed."), [[1]]),
    "state": (lambda: good(1, return_state=True), ("COMPLETED", "All states completed."), 1),
    "named state": (lambda: told("skipped", return_state=True), ("COMPLETED", "All states completed."), 5),
    "mixed": (lambda: [good.submit(1), "text", 2], ("COMPLETED", None), [1, "text", 2]),
    "mixed late": (lambda: ["text", good.submit(1)], ("COMPLETED", None), ["text", 1]),
    "nested": (lambda: {"a": [good.submit(1)], "b": (2, {"c": good.submit(3)})}, ("COMPLETED", None), None),
    "empty": (list, ("COMPLETED", None), []),
    "data": (lambda: Completed(message="fine", data=[good.submit(1)]), ("COMPLETED", "fine"), [1]),
    "failed future": (bad.submit, ("FAILED", "1/1 states failed."), ValueError("bad")),
    "failed state": (lambda: bad(return_state=True), ("FAILED", "1/1 states failed."), ValueError("bad")),
    "one failed": (
        lambda: (bad.submit(), good.submit(1), good.submit(2)),
        ("FAILED", "1/3 states failed."),
        ValueError("bad"),
    ),
    "two failed": (
        lambda: [good(1, return_state=True), bad("first", return_state=True), bad("second", return_state=True)],
        ("FAILED", "2/3 states failed."),
        ValueError("first"),
    ),
    "by hand": (
        lambda: [Completed(data=1), Failed(message="no data")],
        ("FAILED", "1/2 states failed."),
        FailedRun("no data"),
    ),
    "cancelled child": (
        lambda: child_told("cancelled", return_state=True),
        ("CANCELLED", "1/1 states cancelled."),
        CancelledRun("c"),
    ),
    "cancelled and failed": (
        lambda: [told("cancelled", return_state=True), bad(return_state=True)],
        ("CANCELLED", "1/2 states cancelled."),
        CancelledRun("c"),
    ),
    "crashed child": (
        lambda: child_told("crashed", return_state=True),
        ("FAILED", "1/1 states failed."),
        CrashedRun("c"),
    ),
    "not final": (lambda: [Completed(), Running()], ("FAILED", "1/2 states are not final."), UnfinishedRun("1/2")),
    "failed in a dict": (lambda: {"a": bad.submit()}, ("FAILED", "1/1 states failed."), ValueError("bad")),
    "failed among values": (lambda: [1, bad.submit()], ("FAILED", "1/1 states failed."), ValueError("bad")),
}


@pytest.mark.parametrize("way", ["flow", "async flow", "subflow", "async subflow", "task", "async task", "submitted"])
@pytest.mark.parametrize("which", AGGREGATES)
def test_futures_and_states_count_together(rows: Rows, way: str, which: str) -> None:
    make, (state_type, message), expected = AGGREGATES[which]
    state = Returning(way, make).state()
    assert (state.type.value, state.message) == (state_type, message)
    query = "SELECT state, message FROM tasks WHERE task = 'inner'"
    if "flow" in way:
        query = "SELECT state, message FROM runs WHERE flow = 'inner'"
    assert rows(query) == [(state_type, message)]
    if isinstance(expected, Exception):
        with pytest.raises(type(expected), match=str(expected)):
            state.result()
    elif which == "nested":
        assert state.result() == {"a": [1], "b": (2, {"c": 3})}
    else:
        assert state.result() == expected


def test_named_tuple_of_futures_stays_one() -> None:
    point = namedtuple("point", "x y")

    @flow
    def returning() -> object:
        return point(good.submit(1), 2)

    state: State[Any] = returning(return_state=True)
    assert (state.data.x, state.data.y) == (1, 2)


@pytest.mark.parametrize(("state", "ended"), [("cancelled", "FAILED"), ("crashed", "FAILED")])
@pytest.mark.parametrize("called", [told, child_told])
def test_flow_that_does_not_catch_the_end_of_a_child_fails(rows: Rows, called: Any, state: str, ended: str) -> None:
    @flow
    def parent() -> None:
        called(state)

    error = type(BY_HAND[state][2])
    with pytest.raises(error):
        parent()
    assert rows("SELECT state FROM runs WHERE flow = 'parent'") == [(ended,)]


def test_submitted_task_that_returned_a_failed_state_raises_where_its_result_is_asked_for() -> None:
    @flow
    def asking() -> object:
        future = told.submit("failed")
        error = future.result(raise_on_failure=False)
        with pytest.raises(FailedRun, match="no data"):
            future.result()
        return type(error).__name__, future.state.is_failed(), good(told.submit("skipped"))

    assert asking() == ("FailedRun", True, 5)


def test_tasks_that_return_futures_of_tasks_never_starve_each_other() -> None:
    @task
    def descend(depth: int) -> object:
        return descend.submit(depth - 1) if depth else "bottom"

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def diving() -> object:
        return descend.submit(20)

    assert diving() == "bottom"


def test_generator_function_may_return_a_state(rows: Rows) -> None:
    @flow
    def streaming() -> Iterator[object]:
        yield 1
        return Failed(message="no more")

    items = streaming()
    assert next(items) == 1
    with pytest.raises(FailedRun, match="no more"):
        next(items)
    assert rows("SELECT state, message FROM runs") == [("FAILED", "no more")]


# ---- values


@pytest.mark.parametrize("way", WAYS)
def test_returned_exception_is_a_value(rows: Rows, way: str) -> None:
    state = Returning(way, lambda: ValueError("a value")).state()
    assert state.is_completed()
    assert recorded(rows, way)[0] == "COMPLETED"
    result: Any = state.result()
    assert (type(result), result.args) == (ValueError, ("a value",))


@pytest.mark.parametrize("way", WAYS)
def test_returned_generator_is_the_list_of_its_items(rows: Rows, way: str) -> None:
    def items() -> Iterator[object]:
        yield good(1)
        yield good.submit(2)

    state = Returning(way, items).state()
    assert state.result() == [1, 2]
    assert rows("SELECT count(*) FROM tasks WHERE task = 'good' AND state = 'COMPLETED'") == [(2,)]


@pytest.mark.parametrize("way", ["flow", "task"])
def test_generator_that_raises_fails_the_run(rows: Rows, way: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    state = Returning(way, items).state()
    with pytest.raises(ValueError, match="second"):
        state.result()
    assert recorded(rows, way)[0] == "FAILED"


# ---- retries, resume


@pytest.mark.parametrize("way", WAYS)
def test_returned_failed_state_is_retried(rows: Rows, clock: FakeClock, way: str) -> None:
    answers = iter([Failed(message="first"), Failed(message="second"), Completed(message="third time", data=3)])
    returning = Returning(way, lambda: next(answers), retries=2, retry_delay_seconds=10)
    if "async" in way:  # an event loop sleeps by its own clock
        returning = Returning(way, lambda: next(answers), retries=2)
    state = returning.state()
    assert (state.name, state.message, state.result()) == ("Completed", "third time", 3)
    assert recorded(rows, way) == ("COMPLETED", "Completed", "third time")
    messages = [message for (message,) in rows("SELECT message FROM history WHERE state_name = 'AwaitingRetry'")]
    assert messages == ["first", "second"]


@pytest.mark.parametrize("way", ["flow", "task"])
@pytest.mark.parametrize("which", ["cancelled", "crashed", "skipped"])
def test_other_returned_states_are_not_retried(rows: Rows, way: str, which: str) -> None:
    make, expected, _ = BY_HAND[which]
    returning = Returning(way, make, retries=3)
    returning.state()
    assert returning.ran == 1
    assert recorded(rows, way) == expected


def test_failed_state_after_the_last_retry_is_the_end(rows: Rows) -> None:
    returning = Returning("task", lambda: Failed(name="Invalid", message="no data", data=[1]), retries=1)
    state = returning.state()
    assert (returning.ran, state.name, state.data) == (2, "Invalid", [1])
    assert recorded(rows, "task") == ("FAILED", "Invalid", "no data")


def test_data_of_an_earlier_attempt_does_not_stay_with_a_later_failure(rows: Rows) -> None:
    answers = iter([Failed(data=[1]), Failed(message="without")])
    state = Returning("task", lambda: next(answers), retries=1).state()
    assert rows("SELECT result FROM tasks") == [(None,)]
    assert isinstance(state.data, FailedRun)


@pytest.mark.parametrize("which", ["failed", "cancelled", "crashed"])
@pytest.mark.parametrize("decorate", [task, flow])
def test_resume_runs_again_what_ended_the_flow_by_a_returned_state(rows: Rows, decorate: Any, which: str) -> None:
    answers = [BY_HAND[which][0]()]
    ran: list[str] = []

    @task
    def first() -> int:
        ran.append("first")
        return 1

    @decorate
    def second() -> object:
        ran.append("second")
        return answers[-1]

    @flow
    def both() -> object:
        return first(), second()

    with pytest.raises(type(BY_HAND[which][2])):
        both()
    answers.append(Completed(data=2))
    assert both.resume(1) == (1, 2)
    assert ran == ["first", "second", "second"]
    assert rows.state() == ("COMPLETED", "Completed")


def test_resume_runs_again_every_failure_in_the_returned_states() -> None:
    ran: list[str] = []
    broken = True

    @task
    def fetch(name: str) -> object:
        ran.append(name)
        return Failed(message=name, data={"name": name}) if broken and name != "good" else name

    @flow
    def returning() -> object:
        return [fetch(name, return_state=True) for name in ("good", "bad", "worse")]

    with pytest.raises(FailedRun, match="bad"):
        returning()
    broken = False
    assert returning.resume(1) == ["good", "bad", "worse"]
    assert ran == ["good", "bad", "worse", "bad", "worse"]


def test_failure_by_a_returned_state_that_the_flow_handled_is_not_run_again() -> None:
    ran: list[str] = []
    broken = True

    @task
    def fetch() -> object:
        ran.append("fetch")
        return Failed(message="none")

    @flow
    def handling() -> str:
        state: State[object] = fetch(return_state=True)
        if broken:
            raise RuntimeError("later")
        return str(state.message)

    with pytest.raises(RuntimeError):
        handling()
    broken = False
    assert handling.resume(1) == "none"
    assert ran == ["fetch"]


@pytest.mark.parametrize("which", ["failed", "cancelled", "crashed", "skipped"])
def test_flow_that_returned_a_state_can_be_resumed_unless_it_completed(which: str) -> None:
    returning = Returning("flow", BY_HAND[which][0])
    returning.state()
    returning.make = lambda: "mended"
    expected = 5 if which == "skipped" else "mended"
    assert returning.flow.resume(1) == expected


def test_recovery_takes_up_a_run_that_returned_a_crash(journal: Journal) -> None:
    Returning("flow", lambda: Crashed(message="out of memory")).state()
    assert resumable_runs(journal) == [1]


def test_completed_run_is_answered_with_its_name_and_message(journal: Journal, program: Program) -> None:
    program.write(
        """
        from wfengine.states import Completed

        @flow
        def skipping():
            return Completed(name="Skipped", message="nothing new", data=[1])

        if __name__ == "__main__":
            skipping()
        """
    )
    assert program.run().code == 0
    shown = program.python(
        "-c",
        "from wfengine import use_journal; from wfengine.recovery import resume_run\n"
        "state = resume_run(use_journal(None), 1); print(state.name, state.message, state.result())",
    )
    assert shown.out == "Skipped nothing new [1]\n"


def test_second_start_with_the_key_of_a_cancelled_run_runs_it_again() -> None:
    answers: list[object] = [Cancelled(message="not today")]

    @flow(idempotency_key="today")
    def daily() -> object:
        return answers[-1]

    with pytest.raises(CancelledRun):
        daily()
    answers.append("done")
    assert daily() == "done"


PROGRAM = """
from wfengine.states import Cancelled, Completed, Crashed, Failed

@task
def told(which):
    note(which)
    return {
        "skipped": Completed(name="Skipped", message="fine", data=5),
        "failed": Failed(name="Invalid", message="no data", data={"rows": 0}),
        "exception": Failed(message="m", data=KeyError("k")),
        "cancelled": Cancelled(message="c"),
        "crashed": Crashed(message="c"),
    }[which]

@flow
def child(which):
    return told.fn(which)

@task
async def told_async(which):
    return told.fn(which)

@flow
async def main():
    lines = []
    for which in ("skipped", "failed", "exception", "cancelled", "crashed"):
        states = [told(which, return_state=True), child(which, return_state=True), await told_async(which, return_state=True)]
        future = told.submit(which)
        await future.wait_async()
        for state in [*states, future.state]:
            lines.append((state.type.value, state.name, state.message, state.timestamp.isoformat(),
                          state.flow_run_id, state.task_run_id, repr(state.data), type(state.data).__name__))
            try:
                lines.append(repr(await state.result()))
            except Exception as error:
                lines.append(f"{type(error).__name__}: {error}")
    (HERE / ("before.txt" if first_time() else "after.txt")).write_text("\\n".join(map(repr, lines)))
    if not (HERE / "after.txt").exists():
        kill()
    return lines

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_states_of_a_killed_run_are_the_same_in_the_process_that_resumes_it(program: Program, rows: Rows) -> None:
    program.write(PROGRAM)
    program.run_and_be_killed()
    before = (program.folder / "before.txt").read_text(encoding="utf-8")
    assert program.resume(recovery=True)["state"] == "COMPLETED"
    assert (program.folder / "after.txt").read_text(encoding="utf-8") == before
    assert len(program.effects) == 20  # nothing ran twice
    assert rows("SELECT DISTINCT state, state_name, message, result FROM tasks ORDER BY 1, 2") == [
        ("CANCELLED", "Cancelled", "c", None),
        ("COMPLETED", "Skipped", "fine", "5"),
        ("CRASHED", "Crashed", "c", None),
        ("FAILED", "Failed", "m", None),
        ("FAILED", "Invalid", "no data", '{"rows":0}'),
    ]


# ---- names, and where a result is awaited


def test_only_the_run_that_ran_too_long_is_named_timed_out(rows: Rows) -> None:
    @task(timeout_seconds=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    @task
    async def calling() -> None:
        await slow()

    @flow
    async def timing() -> None:
        await calling()

    with pytest.raises(TaskTimeoutError):
        asyncio.run(timing())
    assert rows("SELECT task, state_name FROM tasks") == [("calling", "Failed"), ("slow", "TimedOut")]
    assert rows.state() == ("FAILED", "Failed")


def test_result_of_a_state_is_awaited_in_async_bodies_and_not_in_sync_ones() -> None:
    seen: list[object] = []

    def hook(_task: Task[..., object], _run: object, state: State[object]) -> None:
        seen.append(state.result())

    async def hook_async(_task: Task[..., object], _run: object, state: State[object]) -> None:
        seen.append(await state.result())  # type: ignore[misc]  # a coroutine in async code

    @task(on_completion=[hook, hook_async])
    async def number() -> int:
        return 1

    @task
    def sync_inside(state: State[int]) -> object:
        return Completed(data=3).result()

    @flow
    def sync_flow() -> object:
        return Completed(data=4).result()

    @flow
    async def main() -> object:
        state: Any = await number(return_state=True)  # type: ignore[misc]
        return [await state.result(), await state.aresult(), sync_inside(1), sync_flow()]

    assert asyncio.run(main()) == [1, 1, 3, 4]
    assert seen == [1, 1]


def test_resumed_flow_gives_the_state_of_its_end(journal: Journal) -> None:
    returning = Returning("flow", no_data)
    returning.state()
    assert resume_run(journal, 1).message == "no data"
