"""The rules by which what a flow or task returned decides how its run ended. They are Prefect's, where it has one.

- A state made by hand is the run's own state, with its name and message.
- A future or state of another run, or a list, tuple or set of them, counts as what they are together: completed if all of
  them are, else cancelled, paused or failed. The value is that of the futures and states: a journal holds data, no states.
- A generator object is a list of its items.
- Any other value, an exception among them, is the result of a completed run.

A failed state deep inside other data fails the run as well, since it has no value that could be stored in its place. A state
that is no end (Running, Scheduled ...) fails the run: nothing would ever take it up. Only a flow can return Paused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from types import GeneratorType
from typing import TYPE_CHECKING

from wfengine.fatal import fatal_task_runs, note_task_run
from wfengine.ids import typed
from wfengine.scopes import LiveRun
from wfengine.states import State, StateGroup, exception_of
from wfengine.steps import Invoke, Outcome, Settle, Steps
from wfengine.task_future import TaskFuture
from wfengine_journal.codec import Encoded, encode
from wfengine_journal.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    PausedRun,
    UnfinishedRun,
    ValueNotStorableError,
    WfengineError,
)
from wfengine_journal.states import TERMINAL, StateType, default_name
from wfengine_journal.transitions import shown_text

if TYPE_CHECKING:
    from wfengine.task_engine import Call

_logger = logging.getLogger("wfengine.engine")

#: Characters that are kept of the name and of the message of a state made by hand.
NAME_CHARACTERS = 200
MESSAGE_CHARACTERS = 10_000

#: Names by which the engine knows what to do with a recorded run. Not for a state made by hand.
_ENGINE_NAMES = frozenset({"AwaitingRetry", "Closed", "Drifted", "InDoubt", "Interrupted", "RolledBack"})

_PLAIN = frozenset({int, str, float, bool, bytes, type(None), dict})
_TELLING = (State, TaskFuture, GeneratorType)
#: Futures and states deeper than this in nested containers are not looked for.
_DEPTH_LIMIT = 50


def is_telling(value: object) -> bool:
    """Tell at a glance whether more than the value itself is to be looked at. Asked for each task, so it has to be quick."""
    kind = type(value)
    if kind in _PLAIN:
        return False
    if isinstance(value, list | tuple | set):
        return bool(value) and isinstance(next(iter(value)), _TELLING)
    return isinstance(value, _TELLING)


def judged(outcome: Outcome, step: Invoke, *, is_whole_state: bool = False) -> Steps[Outcome]:
    """Apply the rules to what `step` returned; called if it `is_telling`.

    `is_whole_state`: a returned state is the run's own, made by hand or not.
    """
    if type(outcome.value) is GeneratorType:
        # Its code is user code that belongs to the same scope.
        listed = yield step._replace(fn=list, args=(outcome.value,), kwargs={}, is_async=False)
        assert isinstance(listed, Outcome)
        outcome = listed
        if outcome.error is not None or not is_telling(outcome.value):
            return outcome
    value, who = outcome.value, step.scope.call or step.scope.run
    if isinstance(value, State) and (is_whole_state or (value.flow_run_id is None and value.task_run_id is None)):
        return _by_hand(value, who)
    return (yield from unpacked(outcome, who)) or outcome


def unpacked(outcome: Outcome, who: Call | LiveRun) -> Steps[Outcome | None]:
    """Return what the futures and states anywhere in the value amount to; None if there are none."""
    value = outcome.value
    futures = [found for found in _found_in(value) if isinstance(found, TaskFuture) and not found.done()]
    if futures:
        yield Settle(futures)
    states = [found.state if isinstance(found, TaskFuture) else found for found in _found_in(value)]
    if not states:
        return None
    group = StateGroup(states)
    if not group.all_completed():
        return _together(group, who)
    is_only_states = isinstance(value, State | TaskFuture) or len(states) == _length(value)
    state: State[object] = State(StateType.COMPLETED, message="All states completed.")
    return Outcome(_values_in(value), None, outcome.state or (state if is_only_states else None))


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | tuple | set) else -1


def _found_in(value: object, depth: int = 0) -> Iterator[State[object] | TaskFuture[object]]:
    if isinstance(value, State | TaskFuture):
        yield value
    elif depth < _DEPTH_LIMIT and isinstance(value, dict | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) not in _PLAIN or type(item) is dict:
                yield from _found_in(item, depth + 1)


def _values_in(value: object) -> object:
    """Return the value with that of each future and state in its place; all of them are completed."""
    if isinstance(value, State):
        return value.data
    if isinstance(value, TaskFuture):
        return value.result()
    if isinstance(value, dict):
        return {key: _values_in(item) for key, item in value.items()}
    if not isinstance(value, list | tuple | set | frozenset):
        return value
    items = [_values_in(item) for item in value]
    if isinstance(value, list):
        return items
    if isinstance(value, tuple):
        make = getattr(value, "_make", tuple)  # a named tuple stays one
        made: object = make(items)
        return made
    try:
        return type(value)(items)
    except TypeError:  # futures can be in a set, but not the lists that they stand for
        return items


def _together(group: StateGroup, who: Call | LiveRun) -> Outcome:
    """Return the outcome of several states of which one at least is not completed."""
    total = group.total_count
    if group.any_cancelled():
        kind, message = StateType.CANCELLED, f"{group.cancelled_count}/{total} states cancelled."
    elif group.any_paused():
        kind, message = StateType.PAUSED, f"{group.paused_count}/{total} states paused."
    elif group.any_failed():
        kind, message = StateType.FAILED, f"{group.fail_count}/{total} states failed."
    else:
        kind, message = StateType.FAILED, f"{group.not_final_count}/{total} states are not final."
    state: State[object] = State(kind, message=message)
    if kind is StateType.PAUSED:
        return _paused(state, who)
    # A call that did not begin, for what it waited for failed, has the exception of that.
    failed = [other for other in group.states if not other.is_completed() and (other.is_final() or other.error is not None)]
    if not failed:
        return Outcome(None, UnfinishedRun(f"{message} Return futures and states of runs that have ended."), state)
    error = _storable_error(failed[0])
    for other in failed:  # each of them ended the run, so a resume runs them all again
        for task_run_id in fatal_task_runs(exception_of(other)) | ({other.task_run_id} if other.task_run_id else set()):
            note_task_run(error, task_run_id)
    return Outcome(None, error, state)


def _by_hand(state: State[object], who: Call | LiveRun) -> Outcome:
    message = None if state.message is None else _text(state.message, MESSAGE_CHARACTERS)
    state = replace(state, name=_own_name(state), message=message)
    if state.is_completed():
        return Outcome(state.data, None, state)
    if state.type in TERMINAL:
        return Outcome(None if isinstance(state.data, BaseException) else state.data, _storable_error(state), state)
    if state.is_paused():
        return _paused(state, who)
    return Outcome(
        None,
        UnfinishedRun(
            f"{who} returned a state of type {state.type.value} ({state.name}), which is no end: nothing would ever take it up "
            "from there, so it has failed. Return a value, or Completed, Failed, Cancelled or Crashed; to have it tried again "
            "later, give it retries and raise an exception."
        ),
    )


def _paused(state: State[object], who: Call | LiveRun) -> Outcome:
    said = f"{who} returned {state.name}{f' ({state.message})' if state.message else ''}"
    if isinstance(who, LiveRun):
        text = f"{said} and is parked. When what it waits for is there, type: wfengine resume {typed(who.id, who.name)}"
        return Outcome(None, PausedRun(text, flow_run_id=who.id, state=state), state)
    text = f"{said}, but only a flow run can wait, so it has failed. Let the flow return that state, or raise in the task."
    return Outcome(None, PausedRun(text, flow_run_id=who.run.id, task_run_id=who.task_run_id))


def _own_name(state: State[object]) -> str:
    if state.name not in _ENGINE_NAMES:
        return _text(state.name, NAME_CHARACTERS)
    name = default_name(state.type)
    _logger.warning(
        "A returned state is named '%s', which in the journal has a meaning of its own: it is recorded as '%s'.",
        state.name,
        name,
    )
    return name


def _text(text: str, limit: int) -> str:
    clean = shown_text(text)
    return clean if len(clean) <= limit else f"{clean[: limit - 3]}..."


_RUNS: dict[StateType, type[WfengineError]] = {StateType.CRASHED: CrashedRun, StateType.CANCELLED: CancelledRun}


def _storable_error(state: State[object]) -> Exception:
    """Return the exception of a state; one that would unwind the engine (KeyboardInterrupt) is told by another."""
    error = exception_of(state)
    if isinstance(error, Exception):
        return error
    told = _RUNS.get(state.type, FailedRun)(state.message or f"{type(error).__name__}: {error}".removesuffix(": "))
    told.__cause__ = error
    return told


def encoded_data(outcome: Outcome, what: object) -> Encoded | None:
    """Return the data of a state that ended without a result, as it is written; None for none. Never raises."""
    if outcome.value is None:
        return None
    try:
        return encode(outcome.value, f"the data of the state of {what}")
    except ValueNotStorableError as refusal:
        _logger.warning("%s The state is recorded without it.", refusal)
        return None


def recorded_name(state: State[object]) -> str | None:
    """Return the name as the journal writes it: null where it is the one that its type has anyway."""
    return None if state.name == default_name(state.type) else state.name
