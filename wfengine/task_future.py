"""The future of one submitted task. It is settled after the commit of its task's outcome, never before.

Waiting for many, and lists of futures, are in `futures`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from wfengine.ended_calls import EndedCall, ToldOfCall
from wfengine.result_memory import Gone, Kept
from wfengine.scopes import current_scope
from wfengine.states import State
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    import asyncio

    from wfengine.task_engine import Call
    from wfengine_journal.clock import Clock

_logger = logging.getLogger("wfengine.engine")

R = TypeVar("R")

#: How long a wait without a limit lasts at a time, in seconds: Python hears of a signal that came in the instant before a wait
#: only when that wait is over, so that a Ctrl-C would be lost until the next one.
LOOK_FOR_SIGNALS_SECONDS = 0.5


class _WorkerHooks(threading.local):
    """What a runner sets for its threads."""

    #: Called before and after a worker blocks, so that the runner may put another to work; a task that waits for tasks can
    #: then never starve them of workers.
    hooks: tuple[Callable[[], None], Callable[[], None]] | None = None
    #: Runner and depth of the event loop that the thread runs.
    loop: tuple[object, int] | None = None
    #: Makes of a step whose code runs on a worker elsewhere the step that waits for it here.
    away: Callable[[Any], Any] | None = None


worker_hooks = _WorkerHooks()


@contextmanager
def waiting() -> Iterator[None]:
    """Mark the calling thread as blocked, if it is a worker of a runner."""
    refuse_waiting()
    hooks = worker_hooks.hooks
    if hooks is None:
        yield
        return
    blocks, goes_on = hooks
    blocks()
    try:
        yield
    finally:
        goes_on()


def refuse_waiting() -> None:
    """Raise UsageError inside a transactional task: what it waits for could not be written before its own commit."""
    scope = current_scope()
    if scope is not None and scope.call is not None and scope.call.callee.transacts is not None and not scope.closed:
        raise UsageError(
            f"{scope.call} cannot wait for anything: it holds a transaction, and what it waits for would wait for that. Wait "
            "in the flow, and give the task the result."
        )


#: What the futures that are settled have in common instead of a lock of their own: nothing of them changes any more.
_SETTLED_LOCK = threading.Lock()


class TaskFuture(Generic[R]):
    """The outcome of a submitted task, to come. Settled at most once; may be asked from any thread.

    A task whose inputs failed never begins: the state of its future is PENDING and named NotReady, its row says why, and
    `result` raises the exception of what it waited for.
    """

    __slots__ = ("_callbacks", "_error", "_event", "_lock", "_settled", "call", "recorded_order", "stored_value")

    __wfengine_future__ = True

    def __init__(self, call: Call) -> None:
        self.call: Call | EndedCall = call
        self.recorded_order: tuple[str, int] | None = None  # (ended at, row id) of a replayed outcome
        self._lock = threading.Lock()
        self._event: threading.Event | None = None  # made by the first who waits
        self._callbacks: list[Callable[[TaskFuture[R]], object]] | None = None  # made by the first who gives one
        self._settled = False
        self.stored_value: object = None  # or what stands for it, see `result_memory`; for the engine only
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<TaskFuture of {self.call}: {self.state.name}>"

    @property
    def __wfengine_key__(self) -> str | None:
        """The identity of its call: by that a future counts where it is passed on unresolved."""
        identity = self.call.found_identity()
        if identity is None:
            return None
        _, scope, _, call_key, occurrence = identity
        return f"future:{self.call.callee.kind}:{self.call.callee.key}:{scope}:{call_key.hex()}:{occurrence}"

    @property
    def clock(self) -> Clock:
        """The clock by which waits for it are limited."""
        return self.call.run.journal.clock

    @property
    def task_run_id(self) -> int | None:
        """The id of the task run in the journal; None until it has a row."""
        if self._settled:
            self.call.find_row()
        return self.call.task_run_id or None

    @property
    def state(self) -> State[R]:
        """What the task run is doing now."""
        call = self.call
        if not isinstance(call, EndedCall):
            return State(call.live_state, "", task_run_id=self.task_run_id, flow_run_id=call.run.id)
        call.find_row()
        return cast("State[R]", call.final_state(self._value(), self._error))

    def done(self) -> bool:
        """Tell whether the outcome is committed."""
        return self._settled

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the outcome and return the value, or raise the task's exception.

        `timeout` is in seconds; TimeoutError when it passes. With raise_on_failure=False the exception is returned.

        Where results are many or large, one that nobody holds and nobody changed may leave memory. Asked again, this
        returns an equal one, read from the journal.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.call} was not finished after {timeout} s.")
        if self._error is None:
            return cast(R, self._value())
        if raise_on_failure or not isinstance(self._error, Exception):
            raise self._error
        return cast(R, self._error)

    def _value(self) -> object:
        value = self.stored_value
        if type(value) is Kept or type(value) is Gone:
            return self.call.run.memory.take(cast("TaskFuture[object]", self))
        return value

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the outcome is committed, at most `timeout` seconds; tell whether it is.

        Raises UsageError where the wait could not end: for the task that is running here, or one of this event loop.
        """
        if self._settled:
            return True
        self.refuse_endless_wait()
        with self._lock:
            if self._settled:
                return True
            event = self._event
            if event is None:
                event = self._event = threading.Event()
        with waiting():
            while not event.wait(LOOK_FOR_SIGNALS_SECONDS if timeout is None else timeout):
                if timeout is not None:
                    return False
        return True

    def _runner(self) -> object:
        chosen = self.call.callee.runner or self.call.run.flow.task_runner
        return self.call.run.runners.get(chosen)

    def refuse_endless_wait(self) -> None:
        """Raise UsageError if the calling thread must not wait for this future, because the task needs that very thread."""
        loop, call = worker_hooks.loop, self.call
        if isinstance(call, EndedCall):
            return
        if loop is not None and call.callee.is_async and loop[1] == call.scope.depth and loop[0] is self._runner():
            raise UsageError(
                f"{call} runs in this very event loop, so waiting for it here would wait for ever. Write: await future"
            )
        self.refuse_own_end()

    def refuse_own_end(self) -> None:
        """Raise UsageError where the calling code is a part of the task, so that waiting would never end."""
        call = self.call
        if not isinstance(call, EndedCall):
            refuse_own_end(call)

    async def wait_async(self) -> None:
        """Wait until the outcome is committed, without stopping the event loop."""
        import asyncio

        if self._settled:
            return
        refuse_own_end(self.call)
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[None] = loop.create_future()

        def tell(_: object) -> None:
            loop.call_soon_threadsafe(_finish, settled)

        self.add_done_callback(tell)
        await settled

    async def result_async(self) -> R:
        """Wait for the outcome in an event loop and return the value, or raise the task's exception."""
        await self.wait_async()
        return self.result()

    def __await__(self) -> Generator[object, None, R]:
        return self.result_async().__await__()

    def add_done_callback(self, callback: Callable[[TaskFuture[R]], object]) -> None:
        """Call `callback(future)` after the outcome is committed, at once if it is; on the thread that committed it."""
        with self._lock:
            if not self._settled:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback(self)

    def settle(self, value: object, error: BaseException | None) -> None:
        """Give the committed outcome. For the engine only."""
        with self._lock:
            if self._settled:
                return
            self.stored_value = value
            self._error = error
            self.call = EndedCall(self.call)
            self._settled = True
            event, self._event = self._event, None
            callbacks, self._callbacks = self._callbacks, None
            self._lock = _SETTLED_LOCK
        if event is not None:
            event.set()
        if callbacks is not None:
            _call_back(self, callbacks)


def calls_of(futures: Iterable[TaskFuture[object]]) -> Iterator[tuple[TaskFuture[object], Call]]:
    """Yield those futures that are not settled, with their calls."""
    for future in futures:
        call = future.call
        if not isinstance(call, EndedCall):
            yield future, call


def refuse_own_end(call: ToldOfCall) -> None:
    """Raise UsageError where code waits for the end of the very call it belongs to."""
    scope = current_scope()
    while scope is not None:
        around = scope.call if scope.call is not None else scope.run.parent_call
        if around is None:
            return
        if around is call:
            raise UsageError(
                f"{call} waits for its own end, directly or through a task that it calls, so it would wait for ever. Do not "
                "give a task's future to the task itself."
            )
        scope = around.scope


_due = threading.local()


def _call_back(future: TaskFuture[R], callbacks: Iterable[Callable[[TaskFuture[R]], object]]) -> None:
    """Call the callbacks; those of futures that a callback settles come after it, so that a long chain needs no deep stack."""
    mine = [(future, callback) for callback in callbacks]
    waiting_here = getattr(_due, "queue", None)
    if waiting_here is not None:
        waiting_here.extend(mine)
        return
    _due.queue = queue = deque(mine)
    try:
        while queue:
            settled, callback = queue.popleft()
            try:
                callback(settled)
            except Exception:
                _logger.exception("A callback of %s failed; the run goes on.", settled.call)
    finally:
        _due.queue = None


def _finish(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)
