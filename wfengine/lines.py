"""Lines inside this process: of all that wait for the same names here, only the first looks at the journal.

So a thousand tasks that wait for one limit cost no more than one does, and are served in the order in which they came. The
order between processes is kept in the journal (`wfengine_journal.places`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakKeyDictionary

from wfengine.steps import Await, Settle
from wfengine.task_future import refuse_waiting
from wfengine_journal.clock import sleep_unless, sleep_unless_async
from wfengine_journal.errors import MissingContextError, RunHalted
from wfengine_journal.places import Claimer, find_dead_owners, list_lacking

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun, Scope
    from wfengine.task_future import TaskFuture
    from wfengine_journal.store import Journal

#: How long a wait goes on before it is looked whether it is to end, in seconds: for nothing is woken that was missed.
_PIECE_SECONDS = 60.0


class Waiter(Protocol):
    """The run that waits, or what stands for it outside of any run."""

    journal: Journal

    def check_not_halted(self) -> None: ...
    def woken_by_halt(self, waker: Callable[[], object]) -> AbstractContextManager[None]: ...


class Bystander:
    """Stands for the run where there is none: nobody can halt it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def halt(self, signal: RunHalted) -> BaseException:
        """Return what is raised where a run would be halted: what went wrong itself."""
        return signal.error

    def check_not_halted(self) -> None:
        """See LiveRun."""

    @contextmanager
    def woken_by_halt(self, waker: Callable[[], object]) -> Iterator[None]:
        """See LiveRun."""
        yield


class Turn:
    """One who waits in a line. It has to leave, whatever happens."""

    __slots__ = ("_line", "_waiter", "_wake", "until")

    def __init__(self, line: _Line, waiter: Waiter, until: float | None) -> None:
        self._line = line
        self._waiter = waiter
        self._wake: Callable[[], object] | None = None
        self.until = until  # by the monotonic clock; None: as long as it takes

    def is_first(self) -> bool:
        """Tell whether nobody stands before it."""
        return self._line.turns[0] is self

    def is_late(self) -> bool:
        """Tell whether its time is over."""
        return self.until is not None and self._waiter.journal.clock.monotonic_seconds() >= self.until

    def at_most(self, seconds: float) -> float:
        """Return so many seconds, or what is left of its time where that is less."""
        return (
            seconds
            if self.until is None
            else max(0.0, min(seconds, self.until - self._waiter.journal.clock.monotonic_seconds()))
        )

    def leave(self) -> None:
        """Leave the line, and let the next one look."""
        with self._line.lock, contextlib.suppress(ValueError):
            self._line.turns.remove(self)
            if self._line.turns:
                self._line.turns[0].wake()

    def wake(self) -> None:
        """Let it look whether it is the first by now."""
        wake = self._wake
        if wake is not None:
            wake()

    def wait(self) -> None:
        """Block until it is the first, or its time is over. Raises RunHalted."""
        refuse_waiting()
        woken = threading.Event()
        with self._woken_by(woken.set), self._waiter.woken_by_halt(woken.set):
            while self._goes_on():
                woken.wait(self._piece())
                woken.clear()

    async def wait_async(self) -> None:
        """Do what `wait` does in an event loop."""
        import asyncio

        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(woken.set)

        with self._woken_by(wake), self._waiter.woken_by_halt(wake):
            while self._goes_on():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._piece()):
                        await woken.wait()
                woken.clear()

    @contextmanager
    def _woken_by(self, wake: Callable[[], object]) -> Iterator[None]:
        self._wake = wake
        try:
            yield
        finally:
            self._wake = None

    def _goes_on(self) -> bool:
        self._waiter.check_not_halted()
        return not self.is_first() and not self.is_late()

    def _piece(self) -> float:
        return self.at_most(_PIECE_SECONDS)


class _Line:
    """Who waits in this process for the same names, the first one first."""

    __slots__ = ("lock", "turns")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.turns: deque[Turn] = deque()


_LINES: WeakKeyDictionary[Journal, dict[Hashable, _Line]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _renew_lock() -> None:
    """Make the lock anew in a forked child: a thread of the parent may have held it."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def line_up(waiter: Waiter, names: Hashable, until: float | None = None) -> Turn:
    """Stand in the line of these names in this process."""
    with _LOCK:
        lines = _LINES.setdefault(waiter.journal, {})
        for known in [key for key, line in lines.items() if not line.turns and key != names]:
            del lines[known]
        line = lines.setdefault(names, _Line())
        turn = Turn(line, waiter, until)
        with line.lock:
            line.turns.append(turn)
    return turn


class Rest:
    """A time that passes by the monotonic clock, and that the halt of a run ends."""

    __slots__ = ("_seconds", "_waiter")

    def __init__(self, waiter: Waiter, seconds: float) -> None:
        self._waiter = waiter
        self._seconds = seconds

    def wait(self) -> None:
        """Block until it has passed. Raises RunHalted."""
        refuse_waiting()
        woken = threading.Event()
        with self._waiter.woken_by_halt(woken.set):
            self._waiter.check_not_halted()
            sleep_unless(self._waiter.journal.clock, self._seconds, woken)
            self._waiter.check_not_halted()

    async def wait_async(self) -> None:
        """Do what `wait` does in an event loop."""
        import asyncio

        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(woken.set)

        with self._waiter.woken_by_halt(wake):
            self._waiter.check_not_halted()
            await sleep_unless_async(self._waiter.journal.clock, self._seconds, woken)
            self._waiter.check_not_halted()


# ------------------------------------------------------------------------------------------- the steps that wait


def stand(turn: Turn | Rest) -> Settle:
    """Return the step that waits for one's turn, or for a time to pass."""
    return Settle([cast("TaskFuture[object]", turn)])


#: What a look finds when the time is over.
LATE = object()


def await_room(
    waiter: Waiter, turn: Turn, wanted: dict[str, int], claimer: Claimer, line: Collection[int], scope: Scope | None
) -> Await:
    """Return the step that waits until there is room, or the time is over."""
    journal = waiter.journal

    def look() -> object:
        if scope is not None and scope.is_given_up():
            raise RunHalted(MissingContextError("The attempt that waited for a limit is over. Nothing to do."))
        if turn.is_late():
            return LATE
        dead = find_dead_owners(journal, wanted)
        lacking = journal.read(lambda connection: list_lacking(connection, wanted, claimer, line=line, dead_owners=dead))
        return None if lacking else True

    return Await(cast("LiveRun", waiter), look)
