"""Commits that tasks of an event loop wait for, without stopping the loop.

What is posted in one turn of the loop shares one flush, on a thread of the loop's executor; what one flush committed
wakes the loop once. asyncio is not imported here: whoever calls runs in a loop already, or imports it inside.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change


class LoopCommits:
    """The commits that one event loop waits for: one flush a turn of the loop, and one wake for all it committed."""

    __slots__ = ("_committed", "_flush_due", "_journal", "_loop", "_wake_due", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self._loop = loop
        self._journal = journal
        self._flush_due = False
        self._wake_due = False
        self.waiting = 0  # commits that the loop was not told of yet
        self._committed: deque[tuple[asyncio.Future[None], BaseException | None]] = deque()

    def commit(self, change: Change, synced: bool) -> asyncio.Future[None]:
        """Post a change; the future is done after its commit. Called in the loop."""
        self.waiting += 1
        future = self._loop.create_future()
        self._journal.post(change, synced=synced, on_commit=lambda error: self._note(future, error))
        if not self._flush_due:
            self._flush_due = True
            self._loop.run_in_executor(None, self._flush)
        return future

    def _flush(self) -> None:
        self._flush_due = False  # before the flush: what is posted from now on asks for one of its own
        self._journal.flush()

    def _note(self, future: asyncio.Future[None], error: BaseException | None) -> None:
        """Take note of a commit, on the thread that led it."""
        self._committed.append((future, error))
        if not self._wake_due:
            self._wake_due = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._wake_due = False  # before the look: what is noted from now on wakes the loop again
        while self._committed:
            future, error = self._committed.popleft()
            self.waiting -= 1
            if future.done():
                continue  # the waiting task was cancelled
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


async def uncancelled(committed: asyncio.Future[None]) -> None:
    """Wait for a commit; a cancellation that comes meanwhile is delivered after it, at the next wait of the task.

    So an attempt that began is known to have begun, and its cancellation is recorded like any other.
    """
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    cancelled = False
    while not committed.done():
        try:
            await asyncio.shield(committed)
        except asyncio.CancelledError:
            cancelled = True
            task.uncancel()
    if cancelled:
        task.cancel()
    committed.result()
