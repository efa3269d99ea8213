"""Futures of background tasks: read from the journal, by any process that has it.

The outcome of a background task is that of its flow run, and final when that has completed, failed or been cancelled. A run
whose process died is not final: another worker takes it up, and whoever waits goes on waiting.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from wfengine.end_watch import watch_of
from wfengine.endings import Ended, recorded_end
from wfengine.journals import default_journal
from wfengine.scopes import current_scope
from wfengine.states import State
from wfengine.task_future import TaskFuture, waiting, worker_hooks
from wfengine_journal.background import find_flow_run_of
from wfengine_journal.errors import NotFoundError, UsageError, WfengineError
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    import asyncio

    from wfengine.task_engine import Call
    from wfengine_journal.store import Journal

R = TypeVar("R")

_FINAL = ("COMPLETED", "FAILED", "CANCELLED")


# ------------------------------------------------------------------------------------------- whose place a waiting run takes


class Place(Protocol):
    """The place among a worker's `limit` that a background run takes."""

    runner: object  # of the worker's runs

    def leave(self) -> None:
        """Count the run no more: it waits for another one."""

    def come_back(self) -> None:
        """Count it again: it goes on."""


#: The place of the background run that the running code belongs to.
current_place: contextvars.ContextVar[Place | None] = contextvars.ContextVar("wfengine_place", default=None)


@contextmanager
def place_left() -> Iterator[None]:
    """Let the worker begin another run while this one waits: runs that wait for runs could else starve it for ever."""
    place = current_place.get()
    if place is None:
        yield
        return
    place.leave()
    try:
        yield
    finally:
        place.come_back()


# ------------------------------------------------------------------------------------------- the future


class PrefectDistributedFuture(TaskFuture[R]):
    """The outcome of a background task, to come. `delay` returns one; any process makes one anew from its `task_run_id`.

    It may be asked from any thread and, with `await`, in any event loop.
    """

    __slots__ = ("_end", "_flow_run_id", "_journal", "_task_run_id")

    def __init__(self, task_run_id: int, flow_run_id: int | None = None, journal: Journal | None = None) -> None:
        super().__init__(cast("Call", _FarCall(self)))
        self._task_run_id = task_run_id
        self._flow_run_id = flow_run_id
        self._journal = journal
        self._end: Ended | None = None

    def __repr__(self) -> str:
        return f"<PrefectDistributedFuture of task run {self._task_run_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefectDistributedFuture) and self._task_run_id == other._task_run_id

    def __hash__(self) -> int:
        return hash(self._task_run_id)

    def __reduce__(self) -> tuple[type[PrefectDistributedFuture[R]], tuple[int]]:
        return PrefectDistributedFuture, (self._task_run_id,)

    @property
    def __wfengine_key__(self) -> str:
        """By what a future counts where it is an argument and stays one."""
        return f"future:background:{self._task_run_id}"

    @property
    def journal(self) -> Journal:
        """The journal that has the run: that of the running flow, else the one this process uses."""
        if self._journal is None:
            scope = current_scope()
            self._journal = default_journal() if scope is None else scope.run.journal
        return self._journal

    @property
    def task_run_id(self) -> int:
        """The id of the task run in the journal. It does not change, and is known from the beginning."""
        return self._task_run_id

    @property
    def flow_run_id(self) -> int:
        """The id of the flow run around it: what `wfengine runs show` and `wfengine resume` take."""
        if self._flow_run_id is None:
            self._flow_run_id = find_flow_run_of(self.journal.records, self._task_run_id)
        if self._flow_run_id is None:
            raise NotFoundError(
                f"There is no task run {self._task_run_id} in {self.journal.path}. Was it another journal that it was put into?"
            )
        return self._flow_run_id

    @property
    def state(self) -> State[R]:
        """What the run is doing now, as the journal has it."""
        if self.done():
            return cast("State[R]", self._ended().state)
        row = self.journal.records.get_flow_run(self.flow_run_id)
        return State(StateType(row.state), row.state_name, row.state_message, flow_run_id=row.id, task_run_id=self._task_run_id)

    def done(self) -> bool:
        """Tell whether the run has completed, failed or been cancelled."""
        return self._settled or self._is_final()

    def _is_final(self) -> bool:
        if self._end is None and self.journal.records.get_flow_run(self.flow_run_id).state not in _FINAL:
            return False
        self._settled = True
        return True

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the outcome and return the value, or raise the task's exception; see TaskFuture.result."""
        return self._value_or_error(self.wait(timeout), timeout, raise_on_failure)

    def _value_or_error(self, has_ended: bool, timeout: float | None, raise_on_failure: bool) -> R:
        if not has_ended:
            raise TimeoutError(
                f"Background run {self.flow_run_id} was not finished after {timeout} s; it is {self.state.name}. "
                "Is a process serving its task? (my_task.serve(), or: wfengine task serve FILE:TASK)"
            )
        outcome = self._ended().outcome
        value, error = outcome.value, outcome.error
        if error is None:
            return cast(R, value)
        if raise_on_failure or not isinstance(error, Exception):
            raise error
        return cast(R, error)

    def _ended(self) -> Ended:
        """Return how the run ended, read from the journal once."""
        if self._end is None:
            self._end = recorded_end(self.journal.records, self.journal.records.get_flow_run(self.flow_run_id))
        return self._end

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, at most `timeout` seconds; tell whether it has."""
        if self.done():
            return True
        self.refuse_endless_wait()
        over = threading.Event()
        problems: list[WfengineError] = []

        def tell(problem: WfengineError | None) -> None:
            if problem is not None:
                problems.append(problem)
            over.set()

        watch = watch_of(self.journal)
        ticket = watch.add(self.flow_run_id, tell)
        try:
            with place_left(), waiting():
                over.wait(timeout)
        finally:
            watch.remove(ticket)
        if problems:
            raise problems[0]
        return over.is_set() or self.done()

    def refuse_endless_wait(self) -> None:
        """Raise UsageError where the run could never end because it is waited for here."""
        place, loop = current_place.get(), worker_hooks.loop
        if place is not None and loop is not None and loop[0] is place.runner:
            raise UsageError(
                f"Background run {self.flow_run_id} was waited for in a way that stops the event loop of this worker, and with "
                "it all that runs there: maybe what it waits for. Write: await future"
            )
        self._refuse_own_end()

    def _refuse_own_end(self) -> None:
        scope = current_scope()
        run = None if scope is None else scope.run
        while run is not None:
            if run.id == self.flow_run_id and run.journal is self.journal:
                raise UsageError(f"Background run {self.flow_run_id} waits for its own end, so it would wait for ever.")
            run = run.parent

    async def wait_async(self, timeout: float | None = None) -> None:
        """Wait until the run has ended, at most `timeout` seconds, without stopping the event loop."""
        import asyncio

        if self.done():
            return
        self._refuse_own_end()
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def finish(problem: WfengineError | None) -> None:
            if not over.done():
                over.set_result(None) if problem is None else over.set_exception(problem)

        watch = watch_of(self.journal)
        ticket = watch.add(self.flow_run_id, lambda problem: _call_in(loop, finish, problem))
        try:
            with place_left():
                await asyncio.wait_for(over, timeout)
        except TimeoutError:
            return
        finally:
            watch.remove(ticket)

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the outcome in an event loop and return the value, or raise the task's exception."""
        await self.wait_async(timeout)
        return self._value_or_error(self.done(), timeout, raise_on_failure)

    def add_done_callback(self, callback: Callable[[TaskFuture[R]], object]) -> None:
        """Call `callback(future)` after the run has ended, at once if it has; on a thread of wfengine's."""
        if self.done():
            callback(self)
            return
        # What waited is told also when the journal cannot be read any more: it meets the error when it asks for the result.
        watch_of(self.journal).add(self.flow_run_id, lambda _: callback(self))


class _FarCall:
    """Stands for the call of a future whose task runs in another flow run, where somebody asks for more than the future."""

    __slots__ = ("_future",)

    identity = None
    verdict = None
    is_async = False

    def __init__(self, future: PrefectDistributedFuture[R]) -> None:
        self._future = future

    def __str__(self) -> str:
        return repr(self._future)

    @property
    def run(self) -> object:
        return self._future  # as a run, it has a journal

    @property
    def callee(self) -> object:
        return self  # as what is called, it has a name

    @property
    def name(self) -> str:
        return self._future.journal.records.get_flow_run(self._future.flow_run_id).flow_name

    @property
    def task_run_id(self) -> int:
        return self._future.task_run_id

    @property
    def ended_at(self) -> str:
        return self._future.journal.records.get_flow_run(self._future.flow_run_id).ended_at or ""


def _call_in(
    loop: asyncio.AbstractEventLoop, finish: Callable[[WfengineError | None], None], problem: WfengineError | None
) -> None:
    try:
        loop.call_soon_threadsafe(finish, problem)
    except RuntimeError:
        return  # the loop was closed: nobody waits any more
