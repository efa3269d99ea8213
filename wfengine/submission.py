"""Submit a task: give it its identity now, run it elsewhere, hand out a future.

A call with futures among its arguments is issued when they are settled, without occupying a worker meanwhile; since that
moment has no defined order, such a call is never on the main lane.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterable

from wfengine.futures import TaskFuture, resolved, unsettled_in
from wfengine.runners import Job, TaskRunner
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.scopes import LiveRun, current_tracer, find_scope
from wfengine.steps import Outcome, Steps
from wfengine.task_engine import Call, Callee, issue, live, new_call, write_pending
from wfengine_journal.errors import MissingContextError, RunHalted


def submit(
    callee: Callee, args: tuple[object, ...], kwargs: dict[str, object], wait_for: Iterable[TaskFuture[object]] | None
) -> TaskFuture[object]:
    """Submit a task in the present flow run; returns before it runs."""
    scope = find_scope()
    if scope is None:
        if (tracer := current_tracer()) is not None:
            return tracer.submit(callee, args, kwargs, wait_for)
        raise MissingContextError(
            f"task '{callee.name}': submit() and map() need a flow run around them. Call them inside a function decorated with "
            "@flow, or call the task directly."
        )
    pending: list[TaskFuture[object]] = []
    before = list(wait_for or ())
    has_futures = unsettled_in([list(args), kwargs, before], pending)
    call = new_call(callee, scope, args, kwargs, has_futures=has_futures)
    future: TaskFuture[object] = TaskFuture(call)
    submission = _Submission(call, future, before if has_futures else (), has_futures)
    call.run.outstanding.add(future)
    if not pending:
        submission.issue()
    else:
        submission.issue_after(pending)
    return future


class _Submission:
    """A call on its way to a runner."""

    __slots__ = ("_before", "_call", "_context", "_future", "_has_futures", "_left", "_lock")

    def __init__(self, call: Call, future: TaskFuture[object], before: Iterable[TaskFuture[object]], has_futures: bool) -> None:
        self._call = call
        self._future = future
        self._before = before
        self._has_futures = has_futures
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._left = 0

    def issue_after(self, pending: list[TaskFuture[object]]) -> None:
        """Issue the call when all these futures are settled."""
        self._left = len(pending)
        for other in pending:
            other.add_done_callback(self._one_settled)

    def _one_settled(self, _: TaskFuture[object]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        try:
            # Settled on another thread; the call's tags are those of the code that submitted it.
            self._context.copy().run(self.issue)
        except BaseException as error:
            self._settle(None, error)

    def issue(self) -> None:
        """Give the call its identity; answer it from the journal or hand it to the runner."""
        call = self._call
        try:
            if self._has_futures:
                for other in self._before:
                    other.result()
                call.arguments = {name: resolved(value) for name, value in call.arguments.items()}
        except Exception as error:
            # What it waited for failed: there are no inputs to call it with, so it fails as they did, without a row.
            self._settle(None, error)
            return
        try:
            recorded = issue(call)
        except BaseException as error:
            self._settle(None, error)
            raise
        if recorded is not None:
            row = call.row
            self._future.recorded_order = (row.ended_at or "", row.id) if row is not None else None
            self._settle(recorded, None)
            return
        try:
            if call.row is None:
                write_pending(call)
            runner_of(call.run).submit(Job(self._steps, self._settle, is_async=call.callee.is_async, context=self._context))
        except BaseException as error:
            self._settle(None, error)
            raise

    def _steps(self) -> Steps[Outcome]:
        if self._call.run.halted is not None:
            return _halted(self._call.run.halted)
        return live(self._call)

    def _settle(self, outcome: Outcome | None, error: BaseException | None) -> None:
        future = self._future
        self._call.run.outstanding.discard(future)
        if outcome is not None:
            future.settle(outcome.value, outcome.error)
        else:
            future.settle(None, error)


def _halted(signal: RunHalted) -> Steps[Outcome]:
    """Return steps that only raise: the run was stopped before this task began."""
    raise signal
    yield  # what makes this a generator


def runner_of(run: LiveRun) -> TaskRunner:
    """Return the run's runner, started at its first submit."""
    if run.runner is None:
        with run.issue_lock:
            if run.runner is None:
                runner = run.flow.task_runner or ThreadTaskRunner()
                run.runner = runner.start(run.journal)
    return run.runner
