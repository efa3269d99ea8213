"""States as users see them: type, name, message, timestamp, and the way to the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from wfengine_journal.errors import FailedStateError
from wfengine_journal.states import TERMINAL, StateType, default_name

R = TypeVar("R")

_UNSET = object()


@dataclass(frozen=True, slots=True)
class State(Generic[R]):
    """What a run was doing at one moment. Immutable; the journal's history has all of them.

    `timestamp` is ISO-8601 UTC text, None for a state made by hand. `flow_run_id` and `task_run_id` are ids in the journal.
    """

    type: StateType
    name: str = ""
    message: str | None = None
    timestamp: str | None = None
    flow_run_id: int | None = None
    task_run_id: int | None = None
    data: object = field(default=_UNSET, repr=False)
    error: BaseException | None = field(default=None, repr=False)

    __wfengine_future__ = True

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", default_name(self.type))

    def result(self, raise_on_failure: bool = True) -> R:
        """Return the value of a completed state.

        A failed, crashed or cancelled state raises its exception, or returns it with `raise_on_failure=False`. A state
        that has not ended raises FailedStateError.
        """
        if self.type is StateType.COMPLETED:
            return cast(R, None if self.data is _UNSET else self.data)
        problem = self.error if self.error is not None else FailedStateError(
            f"A state of type {self.type.value} ({self.name}) has no result{': ' + self.message if self.message else ''}. "
            "Wait until the run has ended, or look at state.message.",
            flow_run_id=self.flow_run_id,
            task_run_id=self.task_run_id,
        )  # fmt: skip
        if raise_on_failure or self.type not in TERMINAL:
            raise problem
        return cast(R, problem)

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


def _constructor(state_type: StateType, state_name: str) -> Callable[..., State[object]]:
    def make(*, name: str = state_name, message: str | None = None, data: object = _UNSET) -> State[object]:
        error = data if isinstance(data, BaseException) else None
        return State(state_type, name, message, data=data, error=error)

    make.__name__ = make.__qualname__ = state_name
    make.__doc__ = f"Return a state of type {state_type.value}, for a flow or task to return."
    return make


Scheduled = _constructor(StateType.SCHEDULED, "Scheduled")
AwaitingRetry = _constructor(StateType.SCHEDULED, "AwaitingRetry")
Pending = _constructor(StateType.PENDING, "Pending")
Running = _constructor(StateType.RUNNING, "Running")
Retrying = _constructor(StateType.RUNNING, "Retrying")
Paused = _constructor(StateType.PAUSED, "Paused")
Completed = _constructor(StateType.COMPLETED, "Completed")
Failed = _constructor(StateType.FAILED, "Failed")
TimedOut = _constructor(StateType.FAILED, "TimedOut")
Cancelled = _constructor(StateType.CANCELLED, "Cancelled")
Crashed = _constructor(StateType.CRASHED, "Crashed")


def raise_state_exception(state: State[object]) -> None:
    """Raise the exception of a state that ended without a result; do nothing for any other state."""
    if state.is_failed() or state.is_crashed() or state.is_cancelled():
        state.result()
