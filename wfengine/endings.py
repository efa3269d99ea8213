"""How a flow run ends: the change that records it, and the state its caller is given - now, or read from the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from wfengine.fatal import fatal_task_runs
from wfengine.keeping import encode_kept
from wfengine.returned import encoded_data, recorded_name, unpacked
from wfengine.scopes import LiveRun
from wfengine.states import State, exception_of
from wfengine.steps import Outcome, Steps
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.codec import Encoded, encode_error
from wfengine_journal.errors import (
    DriftError,
    InDoubtError,
    PausedRun,
    RunHalted,
    TaskTimeoutError,
    ValueNotStorableError,
)
from wfengine_journal.records import FlowRunRow, Records
from wfengine_journal.run_transitions import EndFlowRun
from wfengine_journal.states import StateType

#: Characters that are kept of the text of the exception that ended a run, in its message; the error itself has all.
ERROR_CHARACTERS = 1000


class Ended(NamedTuple):
    """How a run ended, for its caller: the state, and what the flow call returns or raises."""

    state: State[object]
    outcome: Outcome


class Stored(NamedTuple):
    """The outcome of an attempt, with its value as it is written; None for none."""

    outcome: Outcome
    value: Encoded | None


def storable(run: LiveRun, outcome: Outcome) -> Steps[Stored]:
    """Return the outcome as it can be recorded: a value that cannot be stored is a failure.

    Futures and states deep inside the value are replaced by what they stand for.
    """
    while True:
        if outcome.error is not None:
            data = encoded_data(outcome, run)
            return Stored(outcome if data is not None else outcome._replace(value=None), data)
        try:
            encoded, value = encode_kept(run.results, outcome.value, f"the result of {run}")
            return Stored(outcome._replace(value=value), encoded)
        except ValueNotStorableError as refusal:
            outcome = (yield from unpacked(outcome, run)) or Outcome(None, refusal)


def may_retry(outcome: Outcome) -> bool:
    """Tell whether an outcome is a failure that another attempt could mend."""
    if outcome.error is None or (outcome.state is not None and outcome.state.type is not StateType.FAILED):
        return False
    return not isinstance(outcome.error, ValueNotStorableError)  # the next value would be of the same kind


def is_own_timeout(run: LiveRun, error: BaseException | None) -> bool:
    """Tell whether the flow itself, and not one of its tasks, ran longer than its limit."""
    return isinstance(error, TaskTimeoutError) and error.flow_run_id == run.id and error.task_run_id is None


def end_change(run: LiveRun, stored: Stored, next_attempt: float | None) -> EndFlowRun:
    """Return the change that records an attempt of the body."""
    at = run.journal.clock.now_text()
    return _completed(run, stored, at) if stored.outcome.error is None else _failed(run, stored, at, next_attempt)


def _completed(run: LiveRun, stored: Stored, at: str) -> EndFlowRun:
    state = stored.outcome.state
    orphans = run.recorded.list_orphans() if run.recorded is not None else ()
    message = f"{len(orphans)} recorded calls were not asked for" if orphans else None
    name = "Closed" if run.feed is not None and run.feed.closed else None
    if state is not None:
        name, message = name or recorded_name(state), state.message or message
    return EndFlowRun(
        run.id, epoch=run.epoch, at=at, state="COMPLETED", state_name=name, message=message,
        result=stored.value, orphan_ids=orphans, adopted_ids=run.recorded.list_adopted() if run.recorded is not None else (),
    )  # fmt: skip


def _failed(run: LiveRun, stored: Stored, at: str, next_attempt: float | None) -> EndFlowRun:
    error, state = stored.outcome.error, stored.outcome.state
    assert error is not None
    encoded = encode_error(error)
    name = "TimedOut" if is_own_timeout(run, error) else None
    if next_attempt is not None:
        name = "AwaitingRetry"
    elif state is not None:
        name = recorded_name(state)
    said = state.message if state is not None else None
    kind = StateType.SCHEDULED if next_attempt is not None else StateType.FAILED if state is None else state.type
    return EndFlowRun(
        run.id, epoch=run.epoch, at=at, state=kind.value, state_name=name,
        message=said or f"{type(error).__name__}: {encoded.message}"[:ERROR_CHARACTERS],
        result=stored.value,
        error=encoded,
        fatal_task_run_ids=sorted(fatal_task_runs(error)),
        next_attempt_at=None if next_attempt is None else text_from_seconds(next_attempt),
        counts_failure=kind in (StateType.FAILED, StateType.SCHEDULED),
    )  # fmt: skip


def ended(run: LiveRun, change: EndFlowRun, outcome: Outcome) -> Ended:
    """Return how a run ended by a committed change."""
    state: State[object] = State(
        StateType(change.state), change.state_name, change.message, change.at, flow_run_id=run.id,
        data=outcome.value if outcome.error is None or outcome.value is not None else outcome.error, error=outcome.error,
    )  # fmt: skip
    return Ended(state, outcome._replace(state=state))


def recorded_end(records: Records, row: FlowRunRow) -> Ended:
    """Return how a recorded run ended, without executing anything."""
    value = None
    if row.result_codec is not None and row.result_hash is not None:
        value = records.load_result(row.result, row.result_codec, row.result_hash, f"the result of flow run {row.id}")
    error = records.load_error(row.error_id) if row.error_id is not None and row.state != "COMPLETED" else None
    state: State[object] = State(
        StateType(row.state), row.state_name, row.state_message, row.ended_at, flow_run_id=row.id,
        data=error if value is None else value, error=error,
    )  # fmt: skip
    if error is None and not state.is_completed():
        error = exception_of(state)
    return Ended(state, Outcome(value, error, state))


def park_change(run: LiveRun, signal: RunHalted) -> EndFlowRun:
    """Return the change that parks a run, for the reason that a signal carries."""
    reason = signal.error
    asked = reason.state if isinstance(reason, PausedRun) else None
    name, message = "Paused", str(reason)
    if isinstance(asked, State):  # the flow returned it
        name, message = asked.name, asked.message or message
    elif isinstance(reason, DriftError | InDoubtError):
        name = "InDoubt" if isinstance(reason, InDoubtError) else "Drifted"
    return EndFlowRun(
        run.id, epoch=run.epoch, at=run.journal.clock.now_text(), state="PAUSED", state_name=name,
        message=message, error=None, wake_at=reason.wake_at if isinstance(reason, PausedRun) else None,
    )  # fmt: skip


def note_paused_state(run: LiveRun, change: EndFlowRun, signal: RunHalted) -> None:
    """Let the error of a parked run say in which state the run is, for a caller who asked for the state."""
    if isinstance(signal.error, PausedRun):
        asked = signal.error.state
        details = asked.state_details if isinstance(asked, State) else None
        state: State[object] = State(StateType.PAUSED, change.state_name, change.message, change.at, details)
        signal.error.state = replace(state, state_details=replace(state.state_details, flow_run_id=run.id))
        signal.error.flow_run_id = run.id


def state_of_parked(signal: RunHalted, return_state: bool = True) -> State[object]:
    """Return the state of a run that was paused by its flow; raise the error that stopped it for any other reason.

    Also raised when the caller did not ask for the state.
    """
    if return_state and isinstance(signal.error, PausedRun) and isinstance(signal.error.state, State):
        return signal.error.state
    raise signal.error from None
