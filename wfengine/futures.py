"""Futures of submitted tasks: lists of them, waiting for many, and their results inside containers.

The future itself is in `task_future`. This is a public module; its names with `Prefect` in them are ours under the names
that Prefect gives them.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, SupportsIndex, TypeVar, cast, overload

from wfengine.resolution import Found, replaced
from wfengine.runners.away import ERRAND
from wfengine.task_future import TaskFuture, waiting
from wfengine_journal.clock import Clock

R = TypeVar("R")
T = TypeVar("T")

__all__ = [
    "DoneAndNotDoneFutures",
    "PrefectConcurrentFuture",
    "PrefectDistributedFuture",  # noqa: F822 - imported when asked for
    "PrefectFuture",
    "PrefectFutureList",
    "TaskFuture",
    "TaskFutureList",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]


class TaskFutureList(list[TaskFuture[R]]):
    """The futures of a map, in the order of its items. A real list, whose slices and sums can be waited for too."""

    __wfengine_futures__ = True

    @overload
    def __getitem__(self, place: SupportsIndex) -> TaskFuture[R]: ...
    @overload
    def __getitem__(self, place: slice) -> TaskFutureList[R]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> TaskFuture[R] | TaskFutureList[R]:
        if isinstance(place, slice):
            return TaskFutureList(super().__getitem__(place))
        return super().__getitem__(place)

    def __add__(self, other: list[TaskFuture[R]]) -> TaskFutureList[R]:  # type: ignore[override]  # one kind of futures only
        return TaskFutureList(super().__add__(other))

    def copy(self) -> TaskFutureList[R]:
        """Return another list of the same futures."""
        return TaskFutureList(self)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """Wait for all and return their values in order.

        The first failure in that order is raised; with raise_on_failure=False the exceptions stand in the list.
        `timeout` is in seconds, for all; TimeoutError when it passes.
        """
        deadline = _Deadline(self, timeout)
        return [future.result(deadline.remaining(), raise_on_failure) for future in self]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all are settled, at most `timeout` seconds in all."""
        wait(self, timeout)


class DoneAndNotDoneFutures(NamedTuple, Generic[R]):
    """What `wait` returns."""

    done: set[TaskFuture[R]]
    not_done: set[TaskFuture[R]]


def wait(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> DoneAndNotDoneFutures[R]:
    """Wait until all futures are settled, at most `timeout` seconds in all; return which are and which are not."""
    pending = list(futures)
    deadline = _Deadline(pending, timeout)
    for future in pending:
        future.wait(deadline.remaining())
    done = {future for future in pending if future.done()}
    return DoneAndNotDoneFutures(done, set(pending) - done)


def as_completed(futures: Iterable[TaskFuture[R]], timeout: float | None = None) -> Iterator[TaskFuture[R]]:
    """Yield each future once, as they are settled; replayed ones first, in their recorded order of completion.

    `timeout` is in seconds, for all; TimeoutError when it passes.
    """
    pending = list(dict.fromkeys(futures))
    errand = ERRAND.get()
    if errand is not None:  # on a worker
        deadline = _Deadline(pending, timeout)
        while pending:
            found = cast("TaskFuture[R]", errand.do(first_completed, (pending, deadline.remaining()), {}))
            pending.remove(found)
            yield found
        return
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
        if not future.done():
            future.refuse_endless_wait()
    for future in live:
        future.add_done_callback(tell)
    deadline = _Deadline(live, timeout)
    for _ in live:
        if not settled:
            # In this order: before a worker counts as blocked it commits what it left to others, which settles their futures.
            # Whoever held a condition meanwhile could wait for one that does the same.
            with waiting(), changed:
                changed.wait_for(lambda: bool(settled), deadline.remaining())
        with changed:
            if not settled:
                raise TimeoutError(f"Not all of {len(pending)} task runs were finished after {timeout} s.")
            *_, future = heapq.heappop(settled)
        yield future


def first_completed(futures: Iterable[TaskFuture[R]], timeout: float | None) -> TaskFuture[R]:
    """Return the first future that `as_completed` would yield: asked for by code on a worker."""
    return next(as_completed(futures, timeout))


class _Deadline:
    """The end of a limited wait, by the clock of the journal that the futures belong to."""

    __slots__ = ("_at", "_clock")

    def __init__(self, futures: Iterable[TaskFuture[T]], timeout: float | None) -> None:
        self._clock: Clock | None = None
        if timeout is not None:
            self._clock = next((future.clock for future in futures), None)
            self._at = timeout + (self._clock.monotonic_seconds() if self._clock is not None else 0.0)

    def remaining(self) -> float | None:
        """Return the seconds that are left; None for a wait without limit."""
        return None if self._clock is None else max(0.0, self._at - self._clock.monotonic_seconds())


def resolve_futures_to_states(value: object) -> object:
    """Return the value with the final state of every future in its place, also in nested containers. Waits for them."""

    def final_state(found: Found) -> object:
        if isinstance(found, TaskFuture):
            found.wait()
            return found.state
        return found

    return replaced(value, final_state)


def resolve_futures_to_results(value: object) -> object:
    """Return the value with the result of every future in its place, also in nested containers.

    Waits for them, and raises the exception of the first one that failed.
    """
    return replaced(value, lambda found: found.result() if isinstance(found, TaskFuture) else found)


def __getattr__(name: str) -> object:
    if name == "PrefectDistributedFuture":  # what is about background tasks is loaded by who has some
        from wfengine.distributed_futures import PrefectDistributedFuture

        return PrefectDistributedFuture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


PrefectFuture = TaskFuture
PrefectConcurrentFuture = TaskFuture
PrefectFutureList = TaskFutureList
