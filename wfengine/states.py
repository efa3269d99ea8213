"""States as users see them: type, name, message, timestamp, and the way to the result. Names and rules are Prefect's.

A state of a run comes from the engine and has the ids of the run. One made by hand (`Failed(message="no data")`) has none:
a flow or task returns it to say how its run ended, see `returned`.
"""

from __future__ import annotations

import inspect
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, TypedDict, TypeGuard, TypeVar, Unpack, cast

from wfengine.awaiting import always_awaited, awaited_in_async_code, in_async_code
from wfengine_journal.clock import instant_from_text, utc_now
from wfengine_journal.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    FailedStateError,
    PausedRun,
    UnfinishedRun,
    UsageError,
)
from wfengine_journal.states import TERMINAL, StateType, default_name

__all__ = [
    "AwaitingConcurrencySlot", "AwaitingRetry", "Cancelled", "Cancelling", "Completed", "Crashed", "Failed",
    "InfrastructurePending", "Late", "Paused", "Pending", "Retrying", "Running", "Scheduled", "State", "StateDetails",
    "StateGroup", "StateType", "Submitting", "Suspended", "TimedOut", "aget_state_exception", "araise_state_exception",
    "exception_to_crashed_state", "exception_to_failed_state", "get_state_exception", "is_state", "is_state_iterable",
    "raise_state_exception",
]  # fmt: skip

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StateDetails:
    """What is known beside a state. Ids are numbers in the journal; instants are aware UTC datetimes."""

    flow_run_id: int | None = None
    task_run_id: int | None = None
    scheduled_time: datetime | None = None
    pause_timeout: datetime | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None
    cache_key: str | None = None
    cache_expiration: datetime | None = None


_NO_DETAILS = StateDetails()


@dataclass(frozen=True, slots=True, init=False, repr=False)
class State(Generic[R]):
    """What a run was doing at one moment. Immutable; the journal's history has all of them.

    `timestamp` is an aware UTC datetime, the present instant for a state made by hand. `data` is the result of a completed
    state, and the exception of one that ended without, unless it was made by hand with other data. `error` is what
    `result()` raises, where the engine knows it.
    """

    type: StateType
    name: str
    message: str | None
    timestamp: datetime
    state_details: StateDetails
    data: object
    error: BaseException | None

    __wfengine_future__ = True

    def __init__(
        self,
        type: StateType,
        name: str | None = None,
        message: str | None = None,
        timestamp: datetime | str | None = None,
        state_details: StateDetails | None = None,
        data: object = None,
        error: BaseException | None = None,
        *,
        flow_run_id: int | None = None,
        task_run_id: int | None = None,
    ) -> None:
        """Make a state. `timestamp` may be a text of the journal; the two ids are short for `state_details` with them."""
        put = object.__setattr__
        put(self, "type", StateType(type))
        put(self, "name", str(name) if name else default_name(self.type))
        put(self, "message", None if message is None else str(message))
        put(self, "timestamp", utc_now() if timestamp is None else _aware(timestamp))
        if state_details is None:
            state_details = _NO_DETAILS if flow_run_id is None else StateDetails(flow_run_id, task_run_id)
        put(self, "state_details", state_details)
        put(self, "data", data)
        put(self, "error", error)

    def __hash__(self) -> int:
        return hash((self.flow_run_id, self.task_run_id, self.timestamp, self.type))

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={reprlib.repr(self.data)})"

    def __str__(self) -> str:
        shown = [] if self.message is None else [repr(self.message)]
        if self.name.upper() != self.type.value:
            shown.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(shown)})"

    @property
    def flow_run_id(self) -> int | None:
        """The id of its flow run in the journal; None for a state made by hand."""
        return self.state_details.flow_run_id

    @property
    def task_run_id(self) -> int | None:
        """The id of its task run in the journal; None for that of a flow run."""
        return self.state_details.task_run_id

    def result(
        self,
        raise_on_failure: bool = True,
        retry_result_failure: bool = True,
        *,
        fetch: bool | None = None,
        _sync: bool | None = None,
    ) -> R:
        """Return the value of a completed state, or raise the exception of one that ended without.

        In async code - in the body of an async flow or task, or outside of any run where an event loop runs - this gives a
        coroutine, as in Prefect: write `await state.result()`, or `await state.aresult()`, which is that everywhere.

        A failed, crashed or cancelled state raises its exception: FailedRun, CrashedRun or CancelledRun when it has none of
        its own. With `raise_on_failure=False` the exception is returned, or the data of a state that was made by hand with
        other data. A state that is paused raises PausedRun, one that has not ended raises UnfinishedRun, always.
        That of a call which did not begin (NotReady) stands for the failure of what it waited for.
        `retry_result_failure` and `fetch` do nothing: a result is never waited for here. `_sync` says which form is wanted.
        """
        frame = inspect.currentframe()
        is_awaited = in_async_code(frame and frame.f_back) if _sync is None else not _sync
        # A coroutine that raises when it is awaited, not here: several may be gathered with their exceptions returned.
        return cast(R, self.aresult(raise_on_failure) if is_awaited else result_of(self, raise_on_failure))

    async def aresult(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> R:
        """Do as `result`; to be awaited, whatever the code around."""
        return cast(R, result_of(self, raise_on_failure))

    def is_scheduled(self) -> bool:
        """Tell whether the run waits for an instant."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Tell whether the run was accepted and has not begun."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Tell whether the run is being executed."""
        return self.type is StateType.RUNNING

    def is_paused(self) -> bool:
        """Tell whether the run waits for a person."""
        return self.type is StateType.PAUSED

    def is_cancelling(self) -> bool:
        """Tell whether the run was asked to stop and has not stopped yet."""
        return self.type is StateType.CANCELLING

    def is_completed(self) -> bool:
        """Tell whether the run ended with a result."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Tell whether the run ended with an error."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Tell whether the run was cut off; it can be resumed."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Tell whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_final(self) -> bool:
        """Tell whether the run has ended."""
        return self.type in TERMINAL


def _aware(instant: datetime | str) -> datetime:
    if isinstance(instant, str):
        return instant_from_text(instant)
    return instant.astimezone(UTC) if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


# ------------------------------------------------------------------------------------------- made by hand


class StateOptions(TypedDict, total=False):
    """What every function that makes a state takes."""

    name: str
    message: str | None
    data: object
    timestamp: datetime | None
    state_details: StateDetails | None


def _made(state_type: StateType, name: str, options: StateOptions, **details: object) -> State[object]:
    given = {"name": name, **options}
    known = {field: value for field, value in details.items() if value is not None}
    if known:
        base = options.get("state_details") or _NO_DETAILS
        given["state_details"] = replace(base, **known)  # type: ignore[arg-type]  # the callers below name its fields
    return State(state_type, **given)  # type: ignore[arg-type]  # the keys are those of StateOptions


def Scheduled(scheduled_time: datetime | None = None, **options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type SCHEDULED; `scheduled_time` is an aware datetime, default now."""
    return _scheduled("Scheduled", scheduled_time, options)


def Late(scheduled_time: datetime | None = None, **options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type SCHEDULED whose instant is over."""
    return _scheduled("Late", scheduled_time, options)


def AwaitingRetry(scheduled_time: datetime | None = None, **options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type SCHEDULED that waits for the next attempt."""
    return _scheduled("AwaitingRetry", scheduled_time, options)


def AwaitingConcurrencySlot(scheduled_time: datetime | None = None, **options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type SCHEDULED that waits until others leave room."""
    return _scheduled("AwaitingConcurrencySlot", scheduled_time, options)


def _scheduled(name: str, scheduled_time: datetime | None, options: StateOptions) -> State[object]:
    known = options.get("state_details")
    if known is not None and known.scheduled_time is not None:
        if scheduled_time is not None:
            raise UsageError(f"{name}(...) was given scheduled_time twice: of its own and in state_details. Leave one out.")
        return _made(StateType.SCHEDULED, name, options)
    return _made(StateType.SCHEDULED, name, options, scheduled_time=_aware(scheduled_time or utc_now()))


def Pending(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type PENDING."""
    return _made(StateType.PENDING, "Pending", options)


def Submitting(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type PENDING: handed over to where it will run."""
    return _made(StateType.PENDING, "Submitting", options)


def InfrastructurePending(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type PENDING: the place where it will run is being made."""
    return _made(StateType.PENDING, "InfrastructurePending", options)


def Running(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type RUNNING."""
    return _made(StateType.RUNNING, "Running", options)


def Retrying(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type RUNNING, in an attempt that is not the first."""
    return _made(StateType.RUNNING, "Retrying", options)


def Paused(
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **options: Unpack[StateOptions],
) -> State[object]:
    """Return a state of type PAUSED. A flow that returns it is parked until somebody resumes it.

    The limits (`timeout_seconds` from now, or an instant) and the key stand in its details; nothing acts on them.
    """
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise UsageError("Paused(...) takes timeout_seconds or pause_expiration_time, not both.")
    until = utc_now() + timedelta(seconds=timeout_seconds) if timeout_seconds is not None else pause_expiration_time
    return _made(
        StateType.PAUSED, "Paused", options, pause_key=pause_key, pause_reschedule=reschedule or None,
        pause_timeout=None if until is None else _aware(until),
    )  # fmt: skip


def Suspended(
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    pause_key: str | None = None,
    **options: Unpack[StateOptions],
) -> State[object]:
    """Return a state of type PAUSED whose process need not live on."""
    named: StateOptions = {"name": "Suspended", **options}
    return Paused(timeout_seconds, pause_expiration_time, True, pause_key, **named)


def Cancelling(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type CANCELLING."""
    return _made(StateType.CANCELLING, "Cancelling", options)


def Completed(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type COMPLETED; `data` is the result."""
    return _made(StateType.COMPLETED, "Completed", options)


def Failed(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type FAILED; `data` is its exception, or anything to be kept with the failure."""
    return _made(StateType.FAILED, "Failed", options)


def TimedOut(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type FAILED: it took longer than it may."""
    return _made(StateType.FAILED, "TimedOut", options)


def Cancelled(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type CANCELLED."""
    return _made(StateType.CANCELLED, "Cancelled", options)


def Crashed(**options: Unpack[StateOptions]) -> State[object]:
    """Return a state of type CRASHED: recovery takes such a run up again."""
    return _made(StateType.CRASHED, "Crashed", options)


async def exception_to_failed_state(exc: BaseException | None = None, **options: Unpack[StateOptions]) -> State[object]:
    """Return a failed state that holds an exception, default the one being handled; its text is added to `message`."""
    error = exc if exc is not None else sys.exception()
    if error is None:
        raise UsageError("exception_to_failed_state() was given no exception, and none is being handled. Pass one.")
    before = options.pop("message", None)
    text = f"{type(error).__name__}: {error}"
    given: StateOptions = {"message": f"{before} {text}" if before else text, "data": error, **options}
    return _made(StateType.FAILED, "Failed", given)


async def exception_to_crashed_state(exc: BaseException) -> State[object]:
    """Return a crashed state that holds an exception which came from outside of the user's code."""
    return Crashed(message=f"cut off by {type(exc).__name__}{f': {exc}' if str(exc) else ''}", data=exc)


# ------------------------------------------------------------------------------------------- asked about


def result_of(state: State[R], raise_on_failure: bool = True) -> object:
    """Return what `State.result` stands for, in sync and async code alike."""
    if state.type is StateType.COMPLETED:
        return state.data
    if state.type not in TERMINAL and state.error is None:
        raise _unfinished(state)
    error = exception_of(state)
    if raise_on_failure:
        raise error
    return error if state.data is None else state.data


def _unfinished(state: State[R]) -> FailedStateError:
    said = f": {state.message}" if state.message else ""
    text = f"A run that is {state.name} (type {state.type.value}) has no result{said}."
    if state.type is StateType.PAUSED:
        resume = f"wfengine resume {state.flow_run_id}" if state.flow_run_id is not None else "wfengine resume RUN"
        return PausedRun(
            f"{text} Go on with it: {resume}", flow_run_id=state.flow_run_id, task_run_id=state.task_run_id, state=state
        )
    return UnfinishedRun(f"{text} Wait until it has ended.", flow_run_id=state.flow_run_id, task_run_id=state.task_run_id)


_WRAPPERS: dict[StateType, type[FailedStateError]] = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledRun,
}


def exception_of(state: State[R]) -> BaseException:
    """Return the exception of a state that ended without a result.

    It is the state's own; else of the first such state in its data; else a FailedRun, CrashedRun or CancelledRun with a text
    that is the data, or the state's message. Raises UsageError for any other state.
    """
    if state.error is not None:
        return state.error
    wrapper = _WRAPPERS.get(state.type)
    if wrapper is None:
        raise UsageError(f"A state of type {state.type.value} ({state.name}) has no exception. Ask state.is_failed() first.")
    if isinstance(state.data, BaseException):
        return state.data
    inner = [state.data] if isinstance(state.data, State) else state.data if is_state_iterable(state.data) else ()
    for other in inner:
        if other.type in _WRAPPERS:
            return exception_of(other)
    text = state.data if isinstance(state.data, str) else state.message
    return wrapper(
        text or f"The run is {state.name} and says no more.", flow_run_id=state.flow_run_id, task_run_id=state.task_run_id
    )


@awaited_in_async_code
def get_state_exception(state: State[R]) -> BaseException:
    """Return the exception of a state that ended without a result, see `exception_of`. In async code it is awaited."""
    return exception_of(state)


@awaited_in_async_code
def raise_state_exception(state: State[R]) -> None:
    """Raise the exception of a state that ended without a result; do nothing for any other state.

    In async code it may be awaited or not: it is raised by the call itself.
    """
    if state.type in _WRAPPERS:
        raise exception_of(state)


aget_state_exception = always_awaited(get_state_exception)
araise_state_exception = always_awaited(raise_state_exception)


def is_state(value: object) -> TypeGuard[State[object]]:
    """Tell whether a value is a state."""
    return isinstance(value, State)


def is_state_iterable(value: object) -> TypeGuard[Iterable[State[object]]]:
    """Tell whether a value is a list, tuple or set that holds states and nothing else, one at least."""
    return isinstance(value, list | tuple | set) and bool(value) and all(isinstance(item, State) for item in value)


class StateGroup:
    """Several states, counted by type."""

    def __init__(self, states: Iterable[State[object]]) -> None:
        self.states = list(states)
        self.type_counts: Counter[StateType] = Counter(state.type for state in self.states)
        self.total_count = len(self.states)
        self.final_count = sum(state.is_final() for state in self.states)
        self.not_final_count = self.total_count - self.final_count
        self.cancelled_count = self.type_counts[StateType.CANCELLED]
        self.paused_count = self.type_counts[StateType.PAUSED]
        self.fail_count = self.type_counts[StateType.FAILED] + self.type_counts[StateType.CRASHED]

    def __repr__(self) -> str:
        return f"StateGroup<{self.counts_message()}>"

    def all_completed(self) -> bool:
        """Tell whether every state is completed."""
        return self.type_counts[StateType.COMPLETED] == self.total_count

    def all_final(self) -> bool:
        """Tell whether every run has ended."""
        return self.not_final_count == 0

    def any_cancelled(self) -> bool:
        """Tell whether a run was cancelled."""
        return self.cancelled_count > 0

    def any_failed(self) -> bool:
        """Tell whether a run failed or crashed."""
        return self.fail_count > 0

    def any_paused(self) -> bool:
        """Tell whether a run is paused."""
        return self.paused_count > 0

    def counts_message(self) -> str:
        """Return the counts as text: "total=3, not_final=1, 'COMPLETED'=2, 'RUNNING'=1"."""
        parts = [f"total={self.total_count}"]
        if self.not_final_count:
            parts.append(f"not_final={self.not_final_count}")
        parts += [f"{state_type.value!r}={count}" for state_type, count in self.type_counts.items() if count]
        return ", ".join(parts)
