"""Commits that tasks of an event loop wait for, without stopping the loop.

What is posted in one turn of the loop shares one flush. One that waits for the disk is made on a thread of the loop's
executor; any other by the loop itself, at the end of the turn. What one flush committed wakes the loop once. asyncio is
not imported here: whoever calls runs in a loop already, or imports it inside.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

    from wfengine.commit_future import CommitFuture
    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change

F = TypeVar("F", bound="asyncio.Future[None]")


class LoopCommits:
    """The commits that one event loop waits for: one flush a turn of the loop, and one wake for all it committed."""

    __slots__ = (
        "_committed",
        "_flush_due",
        "_is_shared",
        "_journal",
        "_last",
        "_lasting",
        "_loop",
        "_posted",
        "_turn_due",
        "_unsynced",
        "_waiting",
        "_wake_due",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        from wfengine.commit_future import CommitFuture  # it imports asyncio

        self._loop = loop
        self._lasting = CommitFuture
        self._journal = journal
        self._flush_due = False  # on a thread of the executor
        self._turn_due = False  # by the loop, at the end of this turn
        self._wake_due = False
        self._waiting = 0  # commits that the loop was not told of yet
        self._unsynced = 0  # of these, those that need not be synced
        self._posted = 0  # since the loop's last flush
        self._last = 0  # the id of the asyncio task that wrote last
        self._is_shared = False  # several asyncio tasks wrote by turns
        self._committed: deque[tuple[asyncio.Future[None], bool, BaseException | None]] = deque()

    def is_alone(self, task: object) -> bool:
        """Tell whether an asyncio task that is about to write, and need not be synced, may as well do that at once.

        It may while it is the only one that writes. One that comes to write after another waits for the end of the turn, since
        more of them may come; and so do all, until a turn has one change only.
        """
        if self._last != id(task):
            self._is_shared = self._last != 0
            self._last = id(task)
        return not self._is_shared and self._waiting == 0

    def commit(self, change: Change, synced: bool) -> asyncio.Future[None]:
        """Post a change; the future is done after its commit. Called in the loop."""
        return self._post(change, synced, self._loop.create_future())

    def commit_surely(self, change: Change, synced: bool) -> CommitFuture:
        """Do as `commit`, with a future for `uncancelled`."""
        return self._post(change, synced, self._lasting(loop=self._loop))

    def _post(self, change: Change, synced: bool, future: F) -> F:
        self._waiting += 1
        self._unsynced += not synced
        self._journal.post(change, synced=synced, on_commit=lambda error: self._note(future, synced, error))
        if self._waiting > self._unsynced:
            self._flush_aside()
        else:
            self._posted += 1
            if not self._turn_due:
                self._turn_due = True
                self._loop.call_soon(self._end_turn)
        return future

    def _flush_aside(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.run_in_executor(None, self._flush)

    def _flush(self) -> None:
        self._flush_due = False  # before the flush: what is posted from now on asks for one of its own
        self._journal.flush()

    def _end_turn(self) -> None:
        """Commit what was posted in this turn of the loop, unless something beside it waits for the disk."""
        self._turn_due = False
        self._is_shared = self._posted > 1
        self._posted = 0
        if self._waiting > self._unsynced:
            self._flush_aside()
            return
        self._wake_due = True  # the loop is awake, and looks just below
        try:
            self._journal.flush()
        finally:
            self._tell()

    def _note(self, future: asyncio.Future[None], synced: bool, error: BaseException | None) -> None:
        """Take note of a commit, on the thread that led it."""
        self._committed.append((future, synced, error))
        if not self._wake_due:
            self._wake_due = True
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._wake_due = False  # before the look: what is noted from now on wakes the loop again
        while self._committed:
            future, synced, error = self._committed.popleft()
            self._waiting -= 1
            self._unsynced -= not synced
            if future.done():
                continue  # the waiting task was cancelled
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


async def uncancelled(committed: CommitFuture) -> None:
    """Wait for a commit; a cancellation that comes meanwhile is delivered after it, at the next wait of the task.

    So an attempt that began is known to have begun, and its cancellation is recorded like any other.
    """
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    cancelled = False
    while not committed.done():
        try:
            await committed
        except asyncio.CancelledError:
            cancelled = True
            task.uncancel()
    if cancelled:
        task.cancel()
    committed.result()
