"""Back-pressure: how much may be submitted and not settled before the code that submits is held up.

Each flow's body and each task counts what it submitted itself. So who is held up waits for calls that do not wait for it:
tasks in tasks, each held up for its own, cannot block one another. A worker that is held up lends its slot, as one that
waits for a future does; a run that is halted wakes whoever is held up.

The bound is what a runner says (`max_in_flight`), or `SUBMITTED_LIMIT`. A map over an iterator has one of its own, since its
items come into being only as they are taken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from wfengine.scopes import find_scope, running_asyncio_task
from wfengine.task_future import TaskFuture, waiting
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun, Scope
    from wfengine.task_engine import Callee

#: Calls that a flow or task may have submitted and not settled unless its runner says otherwise. A queued call takes
#: about 2 KB besides its arguments.
SUBMITTED_LIMIT = 10_000
#: Items that a map may have taken from an iterator whose tasks are not settled, unless it says otherwise.
ITERATOR_LIMIT = 1000
#: Who is held up goes on when there is room for this part of the limit, so that it is not woken for every single call, ...
_WAKE_PART = 8
#: ... but for so many calls at the latest, so that many workers do not wait for it.
_WAKE_AT_MOST = 100

T = TypeVar("T")


class InFlight(set[TaskFuture[object]]):
    """Calls that were submitted and are not settled. Changed by any thread, one element at a time."""

    __slots__ = ("_changed", "_low", "_waiting")

    def __init__(self) -> None:
        super().__init__()
        self._changed: threading.Condition | None = None  # made by the first who is held up
        self._waiting = 0
        self._low = 0

    def leave(self, future: TaskFuture[object]) -> None:
        """Take out a call that is settled, if it is in, and let those go on for whom there is room now."""
        self.discard(future)
        if self._waiting and len(self) <= self._low:
            self._wake()

    def _wake(self) -> None:
        assert self._changed is not None
        with self._changed:
            self._changed.notify_all()

    def wait_for_room(self, limit: int, run: LiveRun) -> None:
        """Wait, if there are `limit` or more, until there are fewer. Returns early when the run is halted."""
        if len(self) < limit:
            return
        if self._changed is None:
            with run.issue_lock:
                self._changed = self._changed or threading.Condition()
        low = limit - max(1, min(limit // _WAKE_PART, _WAKE_AT_MOST))
        # In this order: before a worker counts as blocked it commits what it left to others, which settles their futures.
        with run.woken_by_halt(self._wake), waiting(), self._changed:
            self._waiting += 1
            self._low = max(self._low, low)
            try:
                self._changed.wait_for(lambda: len(self) <= low or run.halted is not None)
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._low = 0


def hold_up(scope: Scope, callee: Callee) -> None:
    """Wait while the scope has as much in flight as it may. Raises the signal of a run that was halted meanwhile.

    In an event loop, which would stop, nobody is held up unless the runner's author asked for it.
    """
    submitted = scope.submitted
    if submitted is None:
        return
    asked: int | None = getattr(callee.runner or scope.run.flow.task_runner, "max_in_flight", None)
    limit = SUBMITTED_LIMIT if asked is None else asked
    if len(submitted) < limit or (asked is None and running_asyncio_task() is not None):
        return
    submitted.wait_for_room(limit, scope.run)
    find_scope()


def submitted_by(scope: Scope) -> InFlight:
    """Return what the scope's code submitted and is not settled."""
    if scope.submitted is None:
        with scope.run.issue_lock:
            if scope.submitted is None:
                scope.submitted = InFlight()
    return scope.submitted


class Pace:
    """How many items of one map may be in flight."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._far: deque[TaskFuture[object]] = deque()  # of a map on a worker: nobody tells it what is settled
        self.in_flight = InFlight()

    def futures(self, items: Iterator[T], submit: Callable[[T], TaskFuture[object]]) -> Iterator[TaskFuture[object]]:
        """Yield the futures of the items; each item is taken from its iterator only when there is room for it."""
        while True:
            scope = find_scope()
            if scope is not None:
                self.in_flight.wait_for_room(self._limit, scope.run)
                find_scope()
            while len(self._far) >= self._limit:
                self._far.popleft().wait()
            try:
                item = next(items)
            except StopIteration:
                return
            future = submit(item)
            if scope is None:
                self._far.append(future)
            yield future


def pace_of(owner: str, asked: int | None, *, is_open: bool) -> Pace | None:
    """Return the pace of a map: what its author asked for, or that of iterators where its items come from some."""
    if asked is not None:
        check_limit(owner, asked)
        return Pace(asked)
    return Pace(ITERATOR_LIMIT) if is_open else None


def check_limit(owner: str, max_in_flight: object) -> None:
    """Raise UsageError unless this can be a bound."""
    if type(max_in_flight) is not int or max_in_flight < 1:
        raise UsageError(f"{owner}: max_in_flight must be a whole number, at least 1, not {max_in_flight!r}.")
