"""When a failed attempt is followed by another one. A policy only computes; the engine journals the instant and waits.

The policy language is plain numbers and lists, or tenacity's own wait, stop and retry objects, which are asked with a
RetryCallState built from the journal. Their loops and sleeps are not used: a delay must outlive the process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from tenacity import RetryCallState

#: Arguments of a condition in Prefect's form: task, task_run, state.
STATE_ARGUMENTS = 3
#: What `retry_delay_seconds` may be: a number, one number for each retry, a function of the number of retries that gives
#: such a list, or a tenacity wait.
DelaySeconds = float | Sequence[float] | Callable[..., object]


class RetryPolicy(NamedTuple):
    """How often and after what delay a task or flow is tried again. Built at decoration, which checks it."""

    retries: int = 0
    stop: Callable[[RetryCallState], bool] | None = None
    delays: tuple[float, ...] = (0.0,)
    wait: Callable[[RetryCallState], float] | None = None
    jitter_factor: float = 0.0
    condition: Callable[[RetryCallState], bool] | None = None
    state_condition: Callable[..., object] | None = None  # asked with (task, task_run, state), as in Prefect, by the engine

    @property
    def is_none(self) -> bool:
        """Tell whether a failure is final at once."""
        return self.retries == 0 and self.stop is None

    def next_delay_seconds(self, failures: int, error: BaseException, elapsed_seconds: float) -> float | None:
        """Return the delay before the next attempt; None if there is to be none.

        `failures` counts the failed attempts so far, this one included; `elapsed_seconds` is since the first began.
        """
        if self.is_none:
            return None
        if self.stop is None and failures > self.retries:
            return None
        if self.stop is not None or self.wait is not None or self.condition is not None:
            call_state = _call_state(failures, error, elapsed_seconds)
            if self.stop is not None and self.stop(call_state):
                return None
            if self.condition is not None and not self.condition(call_state):
                return None
            if self.wait is not None:
                return max(0.0, float(self.wait(call_state)))
        delay = self.delays[min(failures, len(self.delays)) - 1]
        # Jitter spreads retries that failed together; it only ever lengthens the delay.
        if not self.jitter_factor:
            return delay
        import random  # slow to import, and only jitter needs it

        return delay + random.uniform(0, delay * self.jitter_factor)


#: A failure is final at once.
NO_RETRIES = RetryPolicy()


def make_policy(
    owner: str, retries: object, delay: DelaySeconds | None, jitter_factor: float | None, condition: object
) -> RetryPolicy:
    """Return the policy for the options of a decorator; UsageError names the option that does not fit."""
    stop = retries if _is_tenacity(retries) else None
    if stop is None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
        raise UsageError(f"{owner}: retries must be a number of at least 0 or a tenacity stop, not {retries!r}.")
    count = 0 if stop is not None else int(retries)  # type: ignore[call-overload]  # checked just above
    if condition is not None and not callable(condition):
        raise UsageError(
            f"{owner}: retry_condition_fn must be a function of (task, task_run, state) or of the exception, or a tenacity "
            f"retry, not {condition!r}."
        )
    by_state = _takes_state(condition)
    wait = delay if callable(delay) and _is_tenacity(delay) else None
    return RetryPolicy(
        retries=count,
        stop=stop,  # type: ignore[arg-type]  # tenacity's objects are callables of a RetryCallState
        delays=(0.0,) if wait is not None else _delays(owner, delay, count),
        wait=wait,  # type: ignore[arg-type]
        jitter_factor=float(jitter_factor or 0.0),
        condition=None if by_state else _condition(condition),
        state_condition=condition if by_state else None,
    )


def _delays(owner: str, delay: DelaySeconds | None, retries: int) -> tuple[float, ...]:
    if callable(delay):
        delay = delay(retries)  # type: ignore[assignment]  # such as exponential_backoff
    values = delay if isinstance(delay, Sequence) and not isinstance(delay, str) else [delay or 0.0]
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[arg-type]  # refused just below
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or any(number < 0 or number != number for number in numbers):
        raise UsageError(f"{owner}: retry_delay_seconds must be seconds of at least 0, or a list of them, not {delay!r}.")
    return numbers


def _takes_state(condition: object) -> bool:
    """Tell whether a condition is a function of (task, task_run, state)."""
    if not callable(condition) or _is_tenacity(condition):
        return False
    try:
        parameters = inspect.signature(condition).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters) == STATE_ARGUMENTS


def _condition(condition: object) -> Callable[[RetryCallState], bool] | None:
    if condition is None or _is_tenacity(condition):
        return condition  # type: ignore[return-value]  # a tenacity retry is a callable of a RetryCallState

    def ask(call_state: RetryCallState) -> bool:
        return bool(condition(call_state.outcome.exception()))  # type: ignore[operator, union-attr]  # callable, failed outcome

    return ask


def _is_tenacity(value: object) -> bool:
    # Asked of the type's name, so that tenacity is imported only by those who pass its objects.
    return any(base.__module__.split(".")[0] == "tenacity" for base in type(value).__mro__)


def _call_state(failures: int, error: BaseException, elapsed_seconds: float) -> RetryCallState:
    from tenacity import Future, RetryCallState, Retrying

    call_state = RetryCallState(Retrying(), None, (), {})
    call_state.attempt_number = failures
    call_state.outcome = Future.construct(failures, error, True)
    call_state.outcome_timestamp = call_state.start_time + elapsed_seconds
    return call_state


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return delays of backoff_factor x 1, 2, 4, 8 ... seconds, for `retry_delay_seconds`."""

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**number for number in range(max(retries, 1))]

    return delays
