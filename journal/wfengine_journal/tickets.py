"""A change that waits to be committed, and what became of it: what the writer and its waiters share."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from wfengine_journal.writer import Writer

#: How long a waiter sleeps before it looks for itself, in seconds: only if Ctrl-C took away the leader that was to wake it.
HAND_OVER_SECONDS = 0.5

_logger = logging.getLogger("wfengine.journal")


class WriteRefused(Exception):
    """A guard did not hold; the change wrote nothing."""


class Change(Protocol):
    """One atomic piece of writing."""

    def apply(self, connection: sqlite3.Connection) -> None:
        """Run the statements; raise WriteRefused before the first write if a guard does not hold."""

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell, on a fresh connection after a failed COMMIT, whether the change is in the file."""


class CommitProbe(Protocol):
    """What is asked around each commit of a writer. It must neither raise nor use the journal; it may end the process."""

    def __call__(self, moment: Literal["before", "after"], number: int, changes: Sequence[Change]) -> None:
        """Take notice of the `number`th commit, counted from 1 since the file was opened."""


class BothProbes:
    """Tells two probes of each commit, one after the other."""

    __slots__ = ("first", "second")

    def __init__(self, first: CommitProbe, second: CommitProbe) -> None:
        self.first = first
        self.second = second

    def __call__(self, moment: Literal["before", "after"], number: int, changes: Sequence[Change]) -> None:
        self.first(moment, number, changes)
        self.second(moment, number, changes)


class Ticket:
    """A change in the queue, and what became of it."""

    __slots__ = ("_awake", "change", "done", "error", "on_commit", "synced")

    def __init__(self, change: Change, synced: bool, on_commit: Callable[[BaseException | None], None] | None) -> None:
        self.change = change
        self.synced = synced
        self.on_commit = on_commit
        self.done = False
        self.error: BaseException | None = None
        self._awake: threading.Lock | None = None  # held while its thread is to sleep

    def wait(self, writer: Writer) -> None:
        """Sleep while another thread leads, until the change is committed or this thread is to lead. May return early.

        Waiting for the writer's lock instead would wake all waiters one by one, each only to see that it is done, while
        the thread that led goes on alone: the queue would never fill up.
        """
        awake = threading.Lock()
        awake.acquire()
        self._awake = awake
        if not self.done and writer.is_led:  # looked at after `_awake` was set, so that no wake is missed
            awake.acquire(timeout=HAND_OVER_SECONDS)

    def wake(self) -> bool:
        """End the sleep of the thread that waits for this change; tell whether one does wait."""
        awake = self._awake
        if awake is not None and awake.locked():
            with contextlib.suppress(RuntimeError):  # another leader was quicker
                awake.release()
        return awake is not None


def call_back(on_commit: Callable[[BaseException | None], None], error: BaseException | None) -> None:
    """Tell one waiter; its trouble must not reach the thread that led the commit, nor keep the others from being told."""
    try:
        on_commit(error)
    except Exception:
        _logger.exception("What waited for a commit failed; the journal is not concerned.")
