"""Futures of submitted tasks. One is settled after the commit of its task's outcome, never before."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from wfengine.states import State, result_of
from wfengine_journal.errors import UsageError
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    import asyncio

    from wfengine.task_engine import Call
    from wfengine_journal.clock import Clock

_logger = logging.getLogger("wfengine.engine")

R = TypeVar("R")
T = TypeVar("T")


#: What a runner's worker thread sets: called before and after it blocks, so that the runner may put another to work.
#: A task that waits for tasks can then never starve them of workers.
worker_hooks = threading.local()


@contextmanager
def waiting() -> Iterator[None]:
    """Mark the calling thread as blocked, if it is a worker of a runner."""
    hooks = getattr(worker_hooks, "hooks", None)
    if hooks is None:
        yield
        return
    blocks, goes_on = hooks
    blocks()
    try:
        yield
    finally:
        goes_on()


class TaskFuture(Generic[R]):
    """The outcome of a submitted task, to come. Settled at most once; may be asked from any thread."""

    __slots__ = ("_callbacks", "_error", "_event", "_lock", "_settled", "_value", "call", "recorded_order")

    __wfengine_future__ = True

    def __init__(self, call: Call) -> None:
        self.call = call
        self.recorded_order: tuple[str, int] | None = None  # (ended at, row id) of a replayed outcome
        self._lock = threading.Lock()
        self._event: threading.Event | None = None  # made by the first who waits
        self._callbacks: list[Callable[[TaskFuture[R]], object]] = []
        self._settled = False
        self._value: object = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<TaskFuture of {self.call}: {self.state.name}>"

    @property
    def task_run_id(self) -> int | None:
        """The id of the task run in the journal; None until it has a row."""
        return self.call.task_run_id or None

    @property
    def state(self) -> State[R]:
        """What the task run is doing now."""
        if not self._settled:
            return State(self.call.live_state, "", task_run_id=self.task_run_id, flow_run_id=self.call.run.id)
        return cast("State[R]", self.call.final_state(self._value, self._error))

    def done(self) -> bool:
        """Tell whether the outcome is committed."""
        return self._settled

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait for the outcome and return the value, or raise the task's exception.

        `timeout` is in seconds; TimeoutError when it passes. With raise_on_failure=False the exception is returned.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.call} was not finished after {timeout} s.")
        if self._error is None:
            return cast(R, self._value)
        if raise_on_failure or not isinstance(self._error, Exception):
            raise self._error
        return cast(R, self._error)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the outcome is committed, at most `timeout` seconds; tell whether it is."""
        if self._settled:
            return True
        if self.call.callee.is_async and getattr(worker_hooks, "is_task_loop", False):
            raise UsageError(
                f"{self.call} runs in this very event loop, so waiting for it here would wait for ever. Write: await future"
            )
        with self._lock:
            if self._settled:
                return True
            event = self._event
            if event is None:
                event = self._event = threading.Event()
        with waiting():
            return event.wait(timeout)

    async def wait_async(self) -> None:
        """Wait until the outcome is committed, without stopping the event loop."""
        import asyncio

        if self._settled:
            return
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
                self._callbacks.append(callback)
                return
        callback(self)

    def settle(self, value: object, error: BaseException | None) -> None:
        """Give the committed outcome. For the engine only."""
        with self._lock:
            if self._settled:
                return
            self._value = value
            self._error = error
            self._settled = True
            event, callbacks, self._callbacks = self._event, self._callbacks, []
        if event is not None:
            event.set()
        _call_back(self, callbacks)


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


class TaskFutureList(list[TaskFuture[R]]):
    """The futures of a map, in the order of its items."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """Wait for all and return their values in order; the first failure is raised."""
        return [future.result(timeout, raise_on_failure) for future in self]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all are settled; `timeout` is in seconds, for each."""
        for future in self:
            future.wait(timeout)


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[TaskFuture[object]]
    not_done: set[TaskFuture[object]]


def wait(futures: Iterable[TaskFuture[object]], timeout: float | None = None) -> DoneAndNotDone:
    """Wait until all futures are settled, at most `timeout` seconds in all; return which are and which are not."""
    pending = list(futures)
    clock = _clock_of(pending)
    deadline = None if timeout is None or clock is None else clock.monotonic_seconds() + timeout
    for future in pending:
        remaining = None if deadline is None or clock is None else max(0.0, deadline - clock.monotonic_seconds())
        future.wait(remaining)
    done = {future for future in pending if future.done()}
    return DoneAndNotDone(done, set(pending) - done)


def as_completed(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> Iterator[TaskFuture[R]]:
    """Yield futures as they are settled; replayed ones first, in their recorded order of completion.

    `timeout` is in seconds, for all; TimeoutError when it passes.
    """
    pending = list(dict.fromkeys(futures))
    replayed = [future for future in pending if future.recorded_order is not None]
    yield from sorted(replayed, key=lambda future: future.recorded_order or ("", 0))
    live = [future for future in pending if future.recorded_order is None]
    settled: list[tuple[str, int, int, TaskFuture[R]]] = []  # a heap: a replay hands them out by these
    numbers = itertools.count()
    changed = threading.Condition()

    def tell(future: TaskFuture[R]) -> None:
        with changed:
            heapq.heappush(settled, (future.call.ended_at, future.call.task_run_id, next(numbers), future))
            changed.notify()

    for future in live:
        future.add_done_callback(tell)
    clock = _clock_of(live)
    deadline = None if timeout is None or clock is None else clock.monotonic_seconds() + timeout
    for _ in live:
        with changed:
            remaining = None if deadline is None or clock is None else max(0.0, deadline - clock.monotonic_seconds())
            with waiting():
                arrived = changed.wait_for(lambda: bool(settled), remaining)
            if not arrived:
                raise TimeoutError(f"Not all of {len(pending)} task runs were finished after {timeout} s.")
            *_, future = heapq.heappop(settled)
        yield future


def _clock_of(futures: Iterable[TaskFuture[T]]) -> Clock | None:
    for future in futures:
        return future.call.run.journal.clock
    return None


def unsettled_in(value: object, found: list[TaskFuture[object]], depth: int = 0) -> bool:
    """Collect the futures inside nested containers that are not settled; tell whether there are futures at all."""
    kind = type(value)
    if kind in _PLAIN or depth > _DEPTH_LIMIT:
        return False
    if kind in _SEQUENCES and _PLAIN.issuperset(map(type, value)):  # type: ignore[call-overload]  # the common case
        return False
    if isinstance(value, TaskFuture):
        if not value.done():
            found.append(value)
        return True
    if kind in _SEQUENCES or isinstance(value, TaskFutureList):
        return bool(sum([unsettled_in(item, found, depth + 1) for item in value]))  # type: ignore[attr-defined]
    if kind is dict:
        return bool(sum([unsettled_in(item, found, depth + 1) for item in value.values()]))  # type: ignore[attr-defined]
    return isinstance(value, State)


def resolved(value: object, depth: int = 0) -> object:
    """Return the value with every future and state in nested containers replaced by its result; raises a failure.

    A container without any is returned as it is, so that big plain data is not copied.
    """
    kind = type(value)
    if kind in _PLAIN or depth > _DEPTH_LIMIT:
        return value
    if isinstance(value, TaskFuture):
        return value.result()
    if isinstance(value, State):
        return result_of(value) if value.type is not StateType.PENDING else value
    if isinstance(value, TaskFutureList):
        return [item.result() for item in value]
    if kind in _SEQUENCES:
        items = [resolved(item, depth + 1) for item in value]  # type: ignore[attr-defined]
        same = all(new is old for new, old in zip(items, value, strict=True))  # type: ignore[call-overload]
        return value if same else kind(items)  # type: ignore[call-arg]
    if kind is dict:
        entries = {key: resolved(item, depth + 1) for key, item in value.items()}  # type: ignore[attr-defined]
        same = all(entries[key] is item for key, item in value.items())  # type: ignore[attr-defined]
        return value if same else entries
    return value


_PLAIN = frozenset({int, str, float, bool, bytes, type(None)})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
#: Futures deeper than this in nested containers are not looked for.
_DEPTH_LIMIT = 50
