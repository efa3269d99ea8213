"""A call from user code, made now or submitted: bind it, give it its identity, run it here or elsewhere.

A submitted call with futures among its arguments is issued when they are settled, without occupying a worker meanwhile;
since that moment has no defined order, such a call is never on the main lane.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncGenerator, Sequence

from wfengine.in_flight import Pace, hold_up, submitted_by
from wfengine.resolution import Search, is_plain, resolved_arguments
from wfengine.result_memory import Kept
from wfengine.runners import Job, TaskRunner
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.scopes import LiveRun, Scope, current_tracer, find_scope
from wfengine.steps import Outcome, Steps, drive, drive_async
from wfengine.streams import items_of_call, items_of_call_async
from wfengine.task_engine import Call, Callee, given, issue, live, new_call, write_pending
from wfengine.task_future import TaskFuture, refuse_own_end
from wfengine.upstream import Fit, Gate, Prerequisites, issue_resolved
from wfengine_journal.errors import JournalError, MissingContextError, RunHalted

# ------------------------------------------------------------------------------------------- calls made now


def call_now(
    callee: Callee,
    scope: Scope,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    *,
    before: Prerequisites | None = None,
    fit: Fit | None = None,
    return_state: bool = False,
) -> object:
    """Make a call in the present thread or event loop; return its value, raise its exception, or return its state.

    A call of something async gives a coroutine, one of a generator an iterator. It takes its place in the order of calls
    here, not when it is awaited - unless, being async, it has to wait for futures first, which it does without stopping the
    loop. `fit` is applied to the arguments once they are values.
    """
    if before is None and fit is None and is_plain(args, kwargs):
        call = new_call(callee, scope, args, kwargs, has_futures=False)
        return _answered(call, issue(call), return_state)
    search = Search(args, kwargs)
    pending = search.pending if before is None else [*before.pending, *search.pending]
    has_futures = search.has_futures or (before is not None and before.has_futures)
    # A direct call waits for its futures in the body's own thread, so it keeps its place in the order of calls there.
    call = new_call(callee, scope, args, kwargs, has_futures=has_futures and callee.is_async)
    if has_futures and callee.is_async:
        resolving = _resolve_items if callee.is_generator and not return_state else _resolve_async
        return resolving(call, pending, before, fit, return_state)
    for future in pending:
        future.wait()
    if has_futures or search.has_annotations or fit is not None:
        recorded = issue_resolved(call, before, fit)
        if recorded is not None:
            call.find_row()
        return _answered(call, recorded, return_state)
    return _answered(call, issue(call), return_state)


def _answered(call: Call, recorded: Outcome | None, return_state: bool) -> object:
    """Give an issued call's caller what it is to have: the call is made now, unless the journal answers it."""
    callee = call.callee
    if callee.is_generator and not return_state:
        return (items_of_call_async if callee.is_async else items_of_call)(call, recorded, live)
    if callee.is_async:
        return _live_async(call, recorded, return_state)
    return given(call, recorded or drive(live(call)), return_state)


async def _live_async(call: Call, recorded: Outcome | None, return_state: bool) -> object:
    if recorded is not None:
        return given(call, recorded, return_state)
    try:
        return given(call, await drive_async(live(call)), return_state)
    except RunHalted as signal:
        if call.run.cancelled is None:
            raise
        import asyncio

        raise asyncio.CancelledError(str(signal)) from signal  # what async code expects, task groups above all


async def _resolve_async(
    call: Call, pending: Sequence[TaskFuture[object]], before: Prerequisites | None, fit: Fit | None, return_state: bool
) -> object:
    for future in pending:
        await future.wait_async()
    return await _live_async(call, issue_resolved(call, before, fit), return_state)


async def _resolve_items(
    call: Call, pending: Sequence[TaskFuture[object]], before: Prerequisites | None, fit: Fit | None, _return_state: bool
) -> AsyncGenerator[object, None]:
    for future in pending:
        await future.wait_async()
    items = items_of_call_async(call, issue_resolved(call, before, fit), live)
    try:
        async for item in items:
            yield item
    finally:
        await items.aclose()


# ------------------------------------------------------------------------------------------- calls submitted


def submit(
    callee: Callee, args: tuple[object, ...], kwargs: dict[str, object], before: Prerequisites | None, pace: Pace | None = None
) -> TaskFuture[object]:
    """Submit a task in the present flow run; returns before it runs, but waits while too much is in flight.

    `pace` is that of the map it belongs to, if there is one.
    """
    scope = find_scope()
    if scope is None:
        if (tracer := current_tracer()) is not None:
            return tracer.submit(callee, args, kwargs, None if before is None else before.values)
        raise MissingContextError(
            f"task '{callee.name}': submit() and map() need a flow run around them. Call them inside a function decorated with "
            "@flow, or call the task directly."
        )
    hold_up(scope, callee)
    if before is None and is_plain(args, kwargs):
        call = new_call(callee, scope, args, kwargs, has_futures=False)
        return _Submission(call, None, pace, has_futures=False).issue_after(())
    search = Search(args, kwargs)
    for future in search.pending:
        refuse_own_end(future.call)
    has_futures = search.has_futures or (before is not None and before.has_futures)
    call = new_call(callee, scope, args, kwargs, has_futures=has_futures)
    if search.has_annotations and not has_futures:
        call.arguments = resolved_arguments(call.arguments)
    awaited: list[TaskFuture[object] | Gate] = [*search.pending]
    if before is not None and before.pending:
        awaited.append(before.gate)
    return _Submission(call, before, pace, has_futures=has_futures).issue_after(awaited)


class _Submission:
    """A call on its way to a runner."""

    __slots__ = ("_before", "_call", "_context", "_future", "_has_futures", "_left", "_lock", "_pace")

    def __init__(self, call: Call, before: Prerequisites | None, pace: Pace | None, *, has_futures: bool) -> None:
        self._call = call
        self._future: TaskFuture[object] = TaskFuture(call)
        self._before = before
        self._pace = pace
        self._has_futures = has_futures
        self._context = contextvars.copy_context()
        self._lock: threading.Lock | None = None  # of a call that waits for others
        self._left = 0

    def issue_after(self, awaited: Sequence[TaskFuture[object] | Gate]) -> TaskFuture[object]:
        """Issue the call when all these are settled, at once if there are none; return its future."""
        self._call.run.outstanding.add(self._future)
        submitted_by(self._call.scope).add(self._future)
        if self._pace is not None:
            self._pace.in_flight.add(self._future)
        if awaited:
            self._lock = threading.Lock()
            self._left = len(awaited)
            for other in awaited:
                other.add_done_callback(self._one_settled)
        else:
            self._issue()
        return self._future

    def _one_settled(self, _: object) -> None:
        assert self._lock is not None
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            # Settled on another thread; the call's tags are those of the code that submitted it.
            self._context.copy().run(self._issue)
        except BaseException as error:
            self._settle(None, error)

    def _issue(self) -> None:
        """Give the call its identity; answer it from the journal or hand it to the runner."""
        call = self._call
        try:
            recorded = issue_resolved(call, self._before) if self._has_futures else issue(call)
            if recorded is not None:
                row = call.row
                self._future.recorded_order = (row.ended_at or "", row.id) if row is not None else None
                self._settle(recorded, None)
                return
            if call.row is None:
                write_pending(call)
            depth = call.scope.depth if call.callee.is_async else 0
            runner_of(call.run, call.callee).submit(
                Job(self._steps, self._settle, is_async=call.callee.is_async, context=self._context, depth=depth)
            )
        except JournalError as error:
            halted = call.run.halt(RunHalted(error))  # not for the flow to catch, as in `task_engine._look_up`
            self._settle(None, halted)
            raise halted from error
        except BaseException as error:
            self._settle(None, error)
            raise

    def _steps(self) -> Steps[Outcome]:
        if self._call.run.halted is not None:
            return _halted(self._call.run.halted)
        if self._call.run.dry is not None and self._call.answered is None:
            return _halted(self._call.run.dry.stop(self._call))  # only who asks for its result is stopped
        return live(self._call)

    def _settle(self, outcome: Outcome | None, error: BaseException | None) -> None:
        future, call = self._future, self._call
        call.run.outstanding.discard(future)
        call.own_scope = None  # it refers to the call, and both are to go now
        if outcome is not None:
            self._settle_with(outcome)
        else:
            future.settle(None, error)
        submitted_by(call.scope).leave(future)
        if self._pace is not None:
            self._pace.in_flight.leave(future)

    def _settle_with(self, outcome: Outcome) -> None:
        future, call = self._future, self._call
        if call.recorded is None or outcome.error is not None:
            future.settle(outcome.value, outcome.error)
            return
        kept = Kept(outcome.value, call.recorded)
        future.settle(kept, None)
        call.run.memory.keep(future, kept)


def _halted(signal: RunHalted) -> Steps[Outcome]:
    """Return steps that only raise: the run was stopped before this task began."""
    raise signal
    yield  # what makes this a generator


def runner_of(run: LiveRun, callee: Callee) -> TaskRunner:
    """Return the runner of the task, or that of the run, started at its first submit."""
    chosen = callee.runner or run.flow.task_runner
    runner = run.runners.get(chosen)
    if runner is None:
        with run.issue_lock:
            runner = run.runners.get(chosen)
            if runner is None:
                runner = run.runners[chosen] = (chosen or ThreadTaskRunner()).start(run.journal)
    return runner
