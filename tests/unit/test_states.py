"""States by themselves: how they are made, what they tell, and what their result is in sync and async code."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wfengine import states
from wfengine.client.schemas import objects
from wfengine.exceptions import CancelledRun, CrashedRun, FailedRun, PausedRun, UnfinishedRun, UsageError
from wfengine.states import (
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    InfrastructurePending,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    StateDetails,
    StateGroup,
    StateType,
    Submitting,
    Suspended,
    TimedOut,
    exception_to_crashed_state,
    exception_to_failed_state,
    get_state_exception,
    is_state,
    is_state_iterable,
    raise_state_exception,
)

MADE = {
    "Scheduled": (Scheduled, "SCHEDULED"),
    "Late": (Late, "SCHEDULED"),
    "AwaitingRetry": (AwaitingRetry, "SCHEDULED"),
    "AwaitingConcurrencySlot": (AwaitingConcurrencySlot, "SCHEDULED"),
    "Pending": (Pending, "PENDING"),
    "Submitting": (Submitting, "PENDING"),
    "InfrastructurePending": (InfrastructurePending, "PENDING"),
    "Running": (Running, "RUNNING"),
    "Retrying": (Retrying, "RUNNING"),
    "Paused": (Paused, "PAUSED"),
    "Suspended": (Suspended, "PAUSED"),
    "Cancelling": (Cancelling, "CANCELLING"),
    "Completed": (Completed, "COMPLETED"),
    "Failed": (Failed, "FAILED"),
    "TimedOut": (TimedOut, "FAILED"),
    "Cancelled": (Cancelled, "CANCELLED"),
    "Crashed": (Crashed, "CRASHED"),
}
INSTANT = datetime(2026, 11, 25, 12, 0, tzinfo=timezone(timedelta(hours=2)))


# ---- making them


@pytest.mark.parametrize("name", MADE)
def test_function_of_a_name_makes_a_state_of_that_name_and_its_type(name: str) -> None:
    make, state_type = MADE[name]
    state = make(message="why")
    assert (state.name, state.type.value, state.message, state.data) == (name, state_type, "why", None)
    assert make(name="Mine").name == "Mine"


@pytest.mark.parametrize("state_type", StateType)
def test_one_question_of_a_state_is_answered_yes_by_each_type(state_type: StateType) -> None:
    state: State[object] = State(state_type)
    asked = (
        "scheduled", "pending", "running", "paused", "cancelling", "completed", "failed", "cancelled", "crashed",
    )  # fmt: skip
    assert [name for name in asked if getattr(state, f"is_{name}")()] == [state_type.value.lower()]
    assert state.is_final() == (state_type.value in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"))


def test_state_type_may_be_given_as_text() -> None:
    assert State("FAILED").is_failed()  # type: ignore[arg-type]  # as read from elsewhere


def test_state_made_by_hand_has_the_present_instant_and_no_ids() -> None:
    before = datetime.now(UTC)
    state = Completed()
    assert before <= state.timestamp <= datetime.now(UTC)
    assert state.timestamp.tzinfo is UTC
    assert (state.flow_run_id, state.task_run_id, state.state_details) == (None, None, StateDetails())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (INSTANT, datetime(2026, 11, 25, 10, 0, tzinfo=UTC)),
        (INSTANT.replace(tzinfo=None), datetime(2026, 11, 25, 12, 0, tzinfo=UTC)),
        ("2026-11-25T10:00:00.000000Z", datetime(2026, 11, 25, 10, 0, tzinfo=UTC)),
    ],
)
def test_timestamp_is_an_aware_datetime_in_utc_however_it_was_given(given: datetime | str, expected: datetime) -> None:
    assert State(StateType.RUNNING, timestamp=given).timestamp == expected
    assert str(State(StateType.RUNNING, timestamp=given).timestamp.tzinfo) == "UTC"


def test_scheduled_states_keep_their_instant_in_the_details() -> None:
    assert Scheduled(scheduled_time=INSTANT).state_details.scheduled_time == INSTANT
    assert AwaitingRetry().state_details.scheduled_time is not None
    assert Late(state_details=StateDetails(scheduled_time=INSTANT)).state_details.scheduled_time == INSTANT
    with pytest.raises(UsageError, match="twice"):
        Scheduled(scheduled_time=INSTANT, state_details=StateDetails(scheduled_time=INSTANT))


def test_paused_states_keep_limit_and_key_in_the_details() -> None:
    paused = Paused(timeout_seconds=60, pause_key="approval", timestamp=INSTANT)
    assert paused.state_details.pause_timeout is not None
    assert paused.state_details.pause_timeout - datetime.now(UTC) <= timedelta(seconds=60)
    assert (paused.state_details.pause_key, paused.state_details.pause_reschedule) == ("approval", False)
    suspended = Suspended(pause_expiration_time=INSTANT)
    assert (suspended.state_details.pause_timeout, suspended.state_details.pause_reschedule) == (INSTANT, True)
    with pytest.raises(UsageError, match="not both"):
        Paused(timeout_seconds=1, pause_expiration_time=INSTANT)


def test_state_is_immutable_and_can_be_copied() -> None:
    state = Completed(data=[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.name = "Other"  # type: ignore[misc]  # what is tested
    assert copy.deepcopy(state) == state
    assert dataclasses.replace(state, name="Other").data == [1]


def test_states_can_be_in_a_set_whatever_their_data() -> None:
    assert len({Completed(data=[1]), Failed(data={}), Completed(data=[1])}) == 3


def test_state_shows_name_message_type_and_a_short_form_of_its_data() -> None:
    assert repr(Completed(message="fine", data=5)) == "Completed(message='fine', type=COMPLETED, result=5)"
    assert str(Failed(name="NoData", message="none")) == "NoData('none', type=FAILED)"
    assert str(Completed()) == "Completed()"
    assert len(repr(Completed(data=list(range(10_000))))) < 200


def test_prefects_module_of_objects_has_the_same_classes() -> None:
    assert objects.State is State
    assert objects.StateType is states.StateType
    assert objects.FlowRun.__name__ == "FlowRun"
    assert StateType.COMPLETED in objects.TERMINAL_STATES


# ---- the result


def test_result_of_a_completed_state_is_its_data() -> None:
    assert Completed(data=5).result() == 5
    assert Completed().result() is None
    assert Completed(data=ValueError("a value")).result().args == ("a value",)  # type: ignore[attr-defined]  # an exception


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (Failed(data=KeyError("k")), KeyError, "k"),
        (Failed(message="no data"), FailedRun, "no data"),
        (Failed(data="text", message="not this"), FailedRun, "text"),
        (Failed(data=5, message="five"), FailedRun, "five"),
        (Failed(), FailedRun, "Failed"),
        (Crashed(message="gone"), CrashedRun, "gone"),
        (Cancelled(message="stopped"), CancelledRun, "stopped"),
        (Failed(data=Failed(data=KeyError("inner"))), KeyError, "inner"),
        (Failed(data=[Completed(data=1), Crashed(message="second"), Failed()]), CrashedRun, "second"),
    ],
)
def test_result_of_an_unsuccessful_state_is_raised(state: State[object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        state.result()
    with pytest.raises(error, match=text):
        raise_state_exception(state)
    assert isinstance(get_state_exception(state), error)


def test_result_of_a_failure_is_returned_if_it_is_not_to_be_raised() -> None:
    error = KeyError("k")
    assert Failed(data=error).result(raise_on_failure=False) is error
    assert isinstance(Failed(message="no data").result(raise_on_failure=False), FailedRun)
    assert Failed(data=5).result(raise_on_failure=False) == 5


@pytest.mark.parametrize("raises", [True, False])
def test_state_that_has_not_ended_has_no_result(raises: bool) -> None:
    for state in (Running(), Pending(), Scheduled(), Cancelling()):
        with pytest.raises(UnfinishedRun, match=state.name):
            state.result(raise_on_failure=raises)
    with pytest.raises(PausedRun, match="waits") as caught:
        (paused := Paused(message="waits")).result(raise_on_failure=raises)
    assert caught.value.state is paused


def test_arguments_that_prefect_has_for_result_are_accepted() -> None:
    assert Completed(data=5).result(fetch=True, retry_result_failure=False) == 5
    assert asyncio.run(Completed(data=5).aresult(retry_result_failure=False)) == 5


def test_only_unsuccessful_states_have_an_exception() -> None:
    raise_state_exception(Completed())
    raise_state_exception(Running())
    with pytest.raises(UsageError, match="has no exception"):
        get_state_exception(Completed())


def test_where_an_event_loop_runs_the_result_is_awaited() -> None:
    async def work() -> list[object]:
        found: list[object] = [await Completed(data=5).result()]  # type: ignore[misc]  # a coroutine in async code
        found.append(await Completed(data=6).aresult())
        for state in (Failed(data=KeyError("k")), Failed(data=ValueError("v"))):
            try:
                await state.result()  # type: ignore[misc]
            except (KeyError, ValueError):
                found.append("raised")
        found += await asyncio.gather(Failed(data=KeyError("k")).result(), return_exceptions=True)  # type: ignore[call-overload]
        return found

    *values, gathered = asyncio.run(work())
    assert values == [5, 6, "raised", "raised"]
    assert isinstance(gathered, KeyError)


def test_raising_the_exception_of_a_state_in_async_code_needs_no_await_and_bears_one() -> None:
    async def work() -> object:
        raise_state_exception(Completed())
        await raise_state_exception(Completed())  # type: ignore[func-returns-value]  # awaitable in async code
        await states.araise_state_exception(Completed())
        with pytest.raises(FailedRun):
            raise_state_exception(Failed())
        with pytest.raises(FailedRun):
            await states.araise_state_exception(Failed())
        return await get_state_exception(Failed(data=KeyError("k")))  # type: ignore[misc]  # a coroutine in async code

    assert isinstance(asyncio.run(work()), KeyError)


# ---- helpers


def test_exceptions_become_states() -> None:
    async def made() -> list[State[object]]:
        found = [await exception_to_failed_state(ValueError("bad"), message="In step 3:")]
        try:
            raise KeyError("k")
        except KeyError:
            found.append(await exception_to_failed_state())
        found.append(await exception_to_crashed_state(KeyboardInterrupt()))
        return found

    failed, handled, crashed = asyncio.run(made())
    assert (failed.type.value, failed.message, type(failed.data)) == ("FAILED", "In step 3: ValueError: bad", ValueError)
    assert (handled.message, type(handled.data)) == ("KeyError: 'k'", KeyError)
    assert (crashed.type.value, crashed.message) == ("CRASHED", "cut off by KeyboardInterrupt")


def test_exception_to_failed_state_without_an_exception_is_refused() -> None:
    with pytest.raises(UsageError, match="no exception"):
        asyncio.run(exception_to_failed_state())


def test_values_are_told_from_states() -> None:
    assert is_state(Completed())
    assert not is_state("Completed")
    assert all(map(is_state_iterable, ([Completed()], (Failed(), Completed()), {Completed()})))
    assert not any(map(is_state_iterable, ([], [Completed(), 1], {"a": Completed()}, iter([Completed()]), None)))


def test_group_counts_its_states() -> None:
    group = StateGroup([Completed(), Failed(), Crashed(), Cancelled(), Paused(), Running()])
    assert (group.total_count, group.fail_count, group.cancelled_count, group.paused_count) == (6, 2, 1, 1)
    assert (group.final_count, group.not_final_count) == (4, 2)
    assert (group.any_failed(), group.any_cancelled(), group.any_paused()) == (True, True, True)
    assert (group.all_completed(), group.all_final()) == (False, False)
    assert group.type_counts[StateType.RUNNING] == 1
    assert StateGroup([Completed(), Completed()]).all_completed()
    assert "not_final=2" in group.counts_message()
    assert "total=6" in repr(group)
