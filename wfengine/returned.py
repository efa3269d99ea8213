"""The rules by which what a flow returned decides how it ended."""

from __future__ import annotations

from collections.abc import Iterator

from wfengine.fatal import fatal_task_runs, note_task_run
from wfengine.states import State
from wfengine.steps import Outcome
from wfengine.task_future import TaskFuture
from wfengine_journal.errors import FailedStateError


def flow_outcome(outcome: Outcome) -> Outcome:
    """Apply the rules by which a return value decides the state: a state or future counts as what it is, and so do
    those in a list; one that failed fails the flow."""
    if outcome.error is not None:
        return outcome
    states = list(_states_in(outcome.value))
    failed = [state for state in states if not state.is_completed()]
    if failed:
        error = failed[0].error
        if error is None:
            what = f"{len(failed)} of {len(states)} returned states are not completed; the first is {failed[0].name}"
            error = FailedStateError(f"{what}: {failed[0].message or 'no message'}")
        for state in failed:  # each of them ended the flow, so a resume runs them all again
            for task_run_id in fatal_task_runs(state.error) if state.error is not None else ():
                note_task_run(error, task_run_id)
        return Outcome(None, error)
    return Outcome(_results_in(outcome.value), None) if states else outcome


def _states_in(value: object) -> Iterator[State[object]]:
    if isinstance(value, State):
        yield value
    elif isinstance(value, TaskFuture):
        yield value.state
    elif isinstance(value, list | tuple | set):
        for item in value:
            if isinstance(item, State | TaskFuture):
                yield from _states_in(item)


def _results_in(value: object) -> object:
    if isinstance(value, State | TaskFuture):
        return value.result()
    if isinstance(value, list):
        return [_results_in(item) for item in value]
    if isinstance(value, tuple | set):
        return type(value)(_results_in(item) for item in value)
    return value
