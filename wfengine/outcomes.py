"""What is recorded of an attempt of a task run that has come to an end: hop 6 of a call, see `task_engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.fatal import note_task_run
from wfengine.result_hashes import remember_result_hash
from wfengine.result_memory import note_recorded
from wfengine.returned import encoded_data, recorded_name, unpacked
from wfengine.states import State
from wfengine.steps import Outcome, Settle, Steps
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.codec import encode, encode_error
from wfengine_journal.errors import TaskTimeoutError, ValueNotStorableError
from wfengine_journal.states import StateType
from wfengine_journal.transitions import CompleteCall, FailAttempt

if TYPE_CHECKING:
    from wfengine.scopes import Scope
    from wfengine.task_engine import Call


def settle_submitted(scope: Scope, outcome: Outcome) -> Steps[None]:
    """Wait for what a task submitted: once it is recorded as ended, a resumed run would not call them again."""
    while scope.submitted and (outcome.error is None or isinstance(outcome.error, Exception)):
        yield Settle(list(scope.submitted))


def outcome_change(call: Call, outcome: Outcome) -> tuple[CompleteCall | FailAttempt, Outcome, float | None]:
    """Return the change that records the attempt, the outcome it stands for, and the instant of the next attempt.

    Raises ValueNotStorableError for a result that cannot be recorded.
    """
    if outcome.error is not None:
        return _failure(call, outcome)
    run = call.run
    kept = call.callee.results or run.results
    if kept is None:
        result = encode(outcome.value, call.result_text)
    else:
        result, value = kept.encode_call(call, outcome.value)
        outcome = outcome._replace(value=value)
    call.seq += 1
    # Encoding may take long, and calls are replayed in the order of these instants: another may have ended meanwhile.
    call.ended_at = at = run.journal.clock.now_text()
    if result.codec != "json":
        remember_result_hash(outcome.value, result.hash)
    note_recorded(call, result.codec, result.data, result.hash)
    name = "Closed" if call.feed is not None and call.feed.closed else None
    message = None
    state = call.verdict = outcome.state
    if state is not None:
        name, message = name or recorded_name(state), state.message
    complete = CompleteCall(
        run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, at=at, result=result, state_name=name,
        message=message,
    )  # fmt: skip
    return complete, outcome, None


def refused_change(
    call: Call, outcome: Outcome, refusal: ValueNotStorableError
) -> Steps[tuple[CompleteCall | FailAttempt, Outcome, float | None]]:
    """Return the change for a value that cannot be stored: a failure, unless futures and states in it are all there is."""
    while True:
        outcome = (yield from unpacked(outcome, call)) or Outcome(None, refusal)
        try:
            return outcome_change(call, outcome)
        except ValueNotStorableError as again:
            refusal = again


def _failure(call: Call, outcome: Outcome) -> tuple[FailAttempt, Outcome, float | None]:
    run, error, state = call.run, outcome.error, outcome.state
    assert isinstance(error, Exception)
    data = encoded_data(outcome, call)
    call.seq += 1
    call.ended_at = at = run.journal.clock.now_text()
    next_attempt = None
    if state is None or state.type is StateType.FAILED:
        call.failures += 1
        next_attempt = _next_attempt(call, error)
    if state is None and isinstance(error, TaskTimeoutError) and error.task_run_id == call.task_run_id:
        state = State(StateType.FAILED, "TimedOut")
    if next_attempt is None:
        note_task_run(error, call.task_run_id)
        call.verdict = state
    change = FailAttempt(
        run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, at=at, error=encode_error(error),
        next_attempt_at=None if next_attempt is None else text_from_seconds(next_attempt),
        state="FAILED" if state is None else state.type.value,
        state_name=None if state is None else recorded_name(state),
        message=None if state is None else state.message,
        data=data,
    )  # fmt: skip
    return change, Outcome(None if data is None else outcome.value, error, state), next_attempt


def _next_attempt(call: Call, error: Exception) -> float | None:
    """Return the instant of the next attempt, in seconds of the wall clock; None if there is to be none."""
    if isinstance(error, ValueNotStorableError) or call.gives_up:
        return None  # another attempt would return the same kind of value
    clock = call.run.journal.clock
    delay = call.callee.policy.next_delay_seconds(call.failures, error, clock.monotonic_seconds() - call.first_started)
    return None if delay is None else clock.wall_seconds() + delay
