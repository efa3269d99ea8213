"""What a call waits for before it begins: futures among its arguments, and those that `wait_for` names.

When one of them failed there are no inputs to call the task with. Then the task does not run and no retry is spent on
it; its row says NotReady and why, its future raises the exception of what it waited for. Until its inputs are there such
a call is told from others by the calls it waits for. A resume that runs those again, and well, gives it the same row.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from wfengine.annotations import BaseAnnotation
from wfengine.answers import take_over_row
from wfengine.identity import describe_inputs, explicit_key
from wfengine.resolution import Found, Search, UpstreamFailure, replaced, resolved, resolved_arguments
from wfengine.scopes import current_tags
from wfengine.states import State
from wfengine.steps import Outcome
from wfengine.task_engine import Call, first_row, issue
from wfengine.task_future import TaskFuture
from wfengine_journal.readiness import MakeReady, RecordNotReady
from wfengine_journal.states import StateType
from wfengine_journal.transitions import Identity, tags_text

Arguments: TypeAlias = dict[str, object]
#: What is done to arguments once they are values: a flow's are fitted to its type hints.
Fit: TypeAlias = Callable[[Arguments], Arguments]


class Gate:
    """Stands for many futures at once: it opens when the last of them is settled."""

    def __init__(self, futures: Collection[TaskFuture[object]]) -> None:
        self._lock = threading.Lock()
        self._left = len(futures)
        self._callbacks: list[Callable[[Gate], object]] = []
        for future in futures:
            future.add_done_callback(self._one_settled)

    def _one_settled(self, _: TaskFuture[object]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def add_done_callback(self, callback: Callable[[Gate], object]) -> None:
        """Call `callback(gate)` when it opens, at once if it is open."""
        with self._lock:
            if self._left:
                self._callbacks.append(callback)
                return
        callback(self)


class Prerequisites:
    """What `wait_for` names, looked through once: for one call, or for every item of a map."""

    def __init__(self, wait_for: object) -> None:
        self.values = _listed(wait_for)
        search = Search(*self.values)
        self.has_futures = search.has_futures
        self.pending = search.pending  # when the call was made
        for future in self.pending:
            future.refuse_own_end()

    @functools.cached_property
    def gate(self) -> Gate:
        """What opens when all of them are settled."""
        return Gate(self.pending)

    @functools.cached_property
    def failure(self) -> UpstreamFailure | None:
        """The failure of the first that failed and must not; waits for all of them."""
        try:
            for value in self.values:
                resolved(value)
        except UpstreamFailure as failure:
            return failure
        return None


def prerequisites(wait_for: object) -> Prerequisites | None:
    """Return what a call is told to wait for; None where it is told nothing."""
    return None if wait_for is None else Prerequisites(wait_for)


def _listed(wait_for: object) -> list[object]:
    if isinstance(wait_for, TaskFuture | State | BaseAnnotation) or not isinstance(wait_for, Iterable):
        return [wait_for]
    return list(wait_for)


def issue_resolved(call: Call, before: Prerequisites | None, fit: Fit | None = None) -> Outcome | None:
    """Put values in the place of futures, waiting for them, and issue the call (see `task_engine.issue`).

    If one of them failed the call does not begin: its row is written, and the failure is its outcome. `fit` is applied to
    the arguments once they are values.
    """
    waiting = call.arguments
    failure = None if before is None else before.failure
    if failure is None:
        try:
            call.arguments = resolved_arguments(waiting)
        except UpstreamFailure as found:
            failure = found
    if failure is not None:
        _record_not_ready(call, before, failure)
        return Outcome(None, failure.error)
    if fit is not None:
        call.arguments = fit(call.arguments)
    recorded = issue(call)
    if recorded is None and call.row is None and call.run.recorded is not None and call.run.recorded.has_not_ready:
        _make_ready(call, waiting, before)
    return recorded


def _record_not_ready(call: Call, before: Prerequisites | None, failure: UpstreamFailure) -> None:
    run, recorded = call.run, call.run.recorded
    message = _reason(failure.source)
    call.verdict = State(StateType.PENDING, "NotReady", message)
    inputs, key = _waiting_key(call.arguments, before)
    if recorded is not None:
        with run.issue_lock:
            row = recorded.claim_not_ready(call.scope.task_run_id, _task_ids(call), key)
        if row is not None:
            take_over_row(call, row)
            call.ended_at = row.ended_at or ""
            call.identity = Identity(run.id, row.scope, row.task_id, row.call_key, row.occurrence)
            return
    task_id = _task_ids(call)[0]
    while True:
        occurrence = call.scope.next_occurrence(task_id, key)
        call.identity = Identity(run.id, call.scope.task_run_id, task_id, key, occurrence)
        if recorded is None or not recorded.is_recorded(call.identity):
            break
    if current_tags() or run.outer_tags:
        call.add_tags()
    call.ended_at = run.journal.clock.now_text()
    change = RecordNotReady(
        call.identity, epoch=run.epoch, inputs=inputs, message=message, at=call.ended_at, tags=tags_text(call.tags)
    )
    # Nobody has to wait for it: were it lost, the failure that is in the file would lead to it again.
    run.journal.post(change)


def _make_ready(call: Call, waiting: Arguments, before: Prerequisites | None) -> None:
    """Take the row of a call that could not begin in an earlier execution and can now."""
    run, recorded = call.run, call.run.recorded
    assert recorded is not None
    _, key = _waiting_key(waiting, before)
    with run.issue_lock:
        row = recorded.claim_not_ready(call.scope.task_run_id, _task_ids(call), key)
    if row is None:
        return
    begin = first_row(call, run.journal.clock.now_text(), running=False)
    run.journal.post(MakeReady(begin, row.id, seq=row.version + 1))  # committed before the attempt begins
    take_over_row(call, row._replace(state_name=None, state_message=None, version=row.version + 1, ended_at=None))


def _waiting_key(waiting: Arguments, before: Prerequisites | None) -> tuple[str, bytes]:
    """Return what the journal shows of a call's arguments, and its key, as long as futures stand for values in them."""
    awaited = [] if before is None else before.values
    key = describe_inputs({"arguments": replaced(waiting, _identity_of), "wait_for": replaced(awaited, _identity_of)}).key
    return describe_inputs(waiting).text, explicit_key(f"waiting {key.hex()}")


def _identity_of(found: Found) -> str:
    """Return by what a future or state is told from others before it has a value: by its row, which is always the same."""
    if found.task_run_id is not None:
        return f"task run {found.task_run_id}"
    if isinstance(found, State):
        return f"flow run {found.flow_run_id}" if found.flow_run_id is not None else f"state {found.type} {found.name}"
    return found.__wfengine_key__ or ""


def _task_ids(call: Call) -> tuple[int, ...]:
    callee, journal = call.callee, call.run.journal
    return tuple(journal.task_id(callee.kind, key, callee.name) for key in (callee.key, *callee.aliases))


def _reason(source: Found) -> str:
    """Say why a call does not begin: by the first in the chain that failed, whose row has the error."""
    known = source.call.verdict if isinstance(source, TaskFuture) else source
    if known is not None and known.is_pending() and known.name == "NotReady" and known.message:
        return known.message
    name = f"task '{source.call.callee.name}'" if isinstance(source, TaskFuture) else f"a state ({source.name})"
    number = source.task_run_id
    return f"did not begin: {name if number is None else f'task run {number} of {name}'} did not complete"
