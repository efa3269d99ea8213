"""States: how a return value decides them, and what is done with them."""

from __future__ import annotations

import asyncio

import pytest

from tests.prefect.conftest import Rows
from wfengine import State, flow, task
from wfengine.exceptions import CancelledRun, CrashedRun, FailedRun
from wfengine.states import Cancelled, Completed, Crashed, Failed, StateGroup, raise_state_exception


@task
def ok() -> str:
    return "fine"


@task
def broken() -> str:
    raise ValueError("broken")


def test_return_state_gives_the_state_and_raises_nothing() -> None:
    @flow
    def program() -> tuple[object, ...]:
        good, bad = ok(return_state=True), broken(return_state=True)
        assert good.is_completed()
        assert good.result() == "fine"
        assert bad.is_failed()
        assert bad.is_final()
        assert isinstance(bad.result(raise_on_failure=False), ValueError)
        with pytest.raises(ValueError, match="broken"):
            bad.result()
        return good.name, good.type.value, bad.name

    assert program() == ("Completed", "COMPLETED", "Failed")


def test_a_flow_that_raises_is_failed_and_one_that_returns_a_value_is_completed() -> None:
    @flow
    def program(good: bool) -> str:
        if not good:
            raise RuntimeError("no")
        broken(return_state=True)
        return "done"

    assert program(True, return_state=True).is_completed()
    failed = program(False, return_state=True)
    assert failed.is_failed()
    assert "no" in str(failed.message)
    with pytest.raises(RuntimeError, match="no"):
        program(False)


def test_a_flow_that_returns_nothing_completes_whatever_its_tasks_did() -> None:
    @flow
    def program() -> None:
        broken.submit().wait()

    assert program(return_state=True).is_completed()


def test_a_returned_future_decides_the_state_of_the_flow() -> None:
    @flow
    def program(good: bool) -> object:
        return ok.submit() if good else broken.submit()

    assert program(True) == "fine"
    assert program(False, return_state=True).is_failed()
    with pytest.raises(ValueError, match="broken"):
        program(False)


def test_of_several_returned_states_one_failed_fails_the_flow() -> None:
    @flow
    def program(*kinds: str) -> list[object]:
        return [ok.submit() if kind == "ok" else broken.submit() for kind in kinds]

    assert program("ok", "ok") == ["fine", "fine"]
    state = program("ok", "broken", "ok", return_state=True)
    assert state.is_failed()
    with pytest.raises(ValueError, match="broken"):
        state.result()


def test_a_flow_decides_its_own_state_by_returning_one(rows: Rows) -> None:
    @flow
    def program(amount: int) -> object:
        if amount == 0:
            return Completed(message="nothing to do", name="Skipped")
        if amount < 0:
            return Failed(message="amounts are positive")
        return amount

    skipped = program(0, return_state=True)
    assert (skipped.name, skipped.message, skipped.is_completed()) == ("Skipped", "nothing to do", True)
    assert program(-1, return_state=True).is_failed()
    with pytest.raises(FailedRun, match="amounts are positive"):
        program(-1)
    assert program(5) == 5
    assert rows("SELECT state, state_name FROM runs ORDER BY id") == [
        ("COMPLETED", "Skipped"), ("FAILED", "Failed"), ("FAILED", "Failed"), ("COMPLETED", "Completed"),
    ]  # fmt: skip


def test_a_task_decides_its_own_state_by_returning_one(rows: Rows) -> None:
    @task
    def check(amount: int) -> object:
        return Completed(data=amount, name="Checked") if amount > 0 else Failed(message="too small")

    @flow
    def program() -> tuple[object, object]:
        bad = check(0, return_state=True)
        return check(4), (bad.is_failed(), bad.message)

    assert program() == (4, (True, "too small"))
    assert rows("SELECT state, state_name FROM tasks ORDER BY id") == [("FAILED", "Failed"), ("COMPLETED", "Checked")]


@pytest.mark.parametrize(("make", "error", "state"), [(Cancelled, CancelledRun, "CANCELLED"), (Crashed, CrashedRun, "CRASHED")])
def test_a_child_that_is_cancelled_or_crashed_raises_that_in_its_parent(
    rows: Rows, make: object, error: type[Exception], state: str
) -> None:
    @flow
    def child() -> object:
        return make(message="the day is a holiday")  # type: ignore[operator]

    @flow
    def parent() -> str:
        seen = child(return_state=True)
        assert seen.type.value == state
        with pytest.raises(error, match="holiday"):
            child()
        return "went on"

    assert parent() == "went on"
    assert rows("SELECT state FROM runs ORDER BY id") == [("COMPLETED",), (state,), (state,)]


def test_a_state_s_exception_is_raised_by_hand() -> None:
    @flow
    def program() -> str:
        raise_state_exception(ok(return_state=True))
        with pytest.raises(ValueError, match="broken"):
            raise_state_exception(broken(return_state=True))
        return "raised"

    assert program() == "raised"


def test_a_group_of_states_counts_them() -> None:
    @flow
    def program() -> tuple[object, ...]:
        group = StateGroup([ok(return_state=True), ok(return_state=True), broken(return_state=True)])
        return group.total_count, group.fail_count, group.all_completed(), group.any_failed(), group.all_final()

    assert program() == (3, 1, False, True, True)


def test_a_state_passed_to_a_task_counts_as_its_result() -> None:
    @task
    def shout(text: str) -> str:
        return text.upper()

    @flow
    def program() -> str:
        state: State[str] = ok(return_state=True)
        return shout(state)  # type: ignore[arg-type]

    assert program() == "FINE"


def test_states_of_async_tasks_are_used_alike() -> None:
    @task
    async def fetch(number: int) -> int:
        if number == 2:
            raise LookupError("two")
        return number

    @flow
    async def program() -> list[str]:
        states = await asyncio.gather(*(fetch(number, return_state=True) for number in (1, 2, 3)))
        assert [await state.result(raise_on_failure=False) for state in (states[0], states[2])] == [1, 3]
        return [state.type.value for state in states]

    assert asyncio.run(program()) == ["COMPLETED", "FAILED", "COMPLETED"]


def test_a_failure_that_the_flow_handles_does_not_fail_it() -> None:
    @flow
    def program() -> str:
        try:
            return broken()
        except ValueError:
            return ok()

    assert program(return_state=True).result() == "fine"
