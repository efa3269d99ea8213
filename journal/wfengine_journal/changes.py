"""Waiting until the journal has changed.

Whoever waits is told at once after a commit of this process, and some milliseconds after one of another process (when it is
looked for one says `log_watch`). Nothing is held meanwhile, and nobody is told what changed: look again, and wait again.

A waiter takes a mark, looks, and waits for a change since that mark, so that none is missed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.errors import ForkedProcessError, JournalError
from wfengine_journal.log_watch import LogWatch
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine_journal.writer import Writer

#: How long a close waits for the thread that watches, and a fork for who registers at that moment, in seconds.
STOP_SECONDS = 1.0


class Mark(NamedTuple):
    """A moment in the life of a journal."""

    commits: int  # of this process
    data_version: int  # changes with each commit of another process


class Changes:
    """Who waits for a change of one journal. All methods may be called from any thread."""

    def __init__(self, writer: Writer, log: Path) -> None:
        self._writer = writer
        self._log = log
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Mark, Callable[[], object]]] = {}
        self._number = 0
        self._watcher: threading.Thread | None = None
        self._watch: LogWatch | None = None  # the watcher's, from its start until just before its end
        self._seen: int | None = None  # the data version that it saw last
        self._held_for_fork = False

    def mark(self) -> Mark:
        """Return the present moment. Raises JournalError where the file cannot be read."""
        return Mark(self._writer.commits, self.data_version())

    def call(self, since: Mark, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` once, on any thread, when there is a change since that moment; return what takes that back.

        The callback must not block, nor raise.
        """
        with self._lock:
            self._number = number = self._number + 1
            self._waiting[number] = (since, callback)
            self._writer.after_commit = self._tell
            if self._watch is None:
                self._begin_to_watch(number)
            elif since.data_version != self._seen:
                self._watch.wake()  # the commit between the mark and now may have been looked for already
        self._tell()  # of what was committed between the mark and now
        return lambda: self._forget(number)

    def _begin_to_watch(self, number: int) -> None:
        """Start the watcher (the lock is held); where there is no thread to be had, nobody waits for what it would tell."""
        self._watch = watch = LogWatch(self._log, self._lock)
        try:
            self._watcher = start_thread("wfengine-watcher", self._look_on)
        except BaseException:
            self._watch = None
            watch.close()
            del self._waiting[number]
            raise

    def wait(self, since: Mark, timeout_seconds: float) -> None:
        """Wait until there is a change since that moment, at most so long."""
        changed = threading.Event()
        forget = self.call(since, changed.set)
        try:
            changed.wait(timeout_seconds)
        finally:
            forget()

    def _forget(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)
            if not self._waiting:
                self._writer.after_commit = None

    def _tell(self) -> None:
        """Tell those for whom this process has committed since they marked."""
        self._tell_if(lambda mark: mark.commits != self._writer.commits)

    def _tell_if(self, changed: Callable[[Mark], bool]) -> None:
        with self._lock:
            told = [number for number, (mark, _) in self._waiting.items() if changed(mark)]
            callbacks = [self._waiting.pop(number)[1] for number in told]
        for callback in callbacks:
            with contextlib.suppress(RuntimeError):  # the event loop that waited was closed
                callback()

    def _look_on(self) -> None:
        """Look for commits of other processes while somebody waits (on a thread of its own)."""
        watch = self._watch
        while watch is not None:
            found = self._look()
            with self._lock:
                if not self._waiting:
                    self._watch = None
                    break
            watch.rest(found=found)
        if watch is not None:
            watch.close()

    def _look(self) -> bool:
        """Tell those since whose marks another process has committed; return whether any has since the last look."""
        before = self._seen
        try:
            self._seen = version = self.data_version()
        except (JournalError, ForkedProcessError):
            self._tell_if(lambda _: True)  # they look for themselves, and meet the error
            return False
        self._tell_if(lambda mark: mark.data_version != version)
        return version != before

    def data_version(self) -> int:
        """Return a number that changes with each commit of another process. Raises JournalError, ForkedProcessError."""
        return int(str(self._writer.read_itself(lambda connection: connection.execute("PRAGMA data_version").fetchone()[0])))

    # ---- the end

    def close(self) -> None:
        """Tell all who wait: the journal was closed. The descriptors of the watch are closed when this returns."""
        with self._lock:
            watcher = self._watcher
            if self._watch is not None:
                self._watch.wake()
        if watcher is not None and watcher is not threading.current_thread():
            watcher.join(STOP_SECONDS)

    def hold_for_fork(self) -> None:
        """Called before a fork."""
        if self._lock.acquire(timeout=STOP_SECONDS):  # another thread's fork may be holding it
            self._held_for_fork = True

    def release_after_fork(self) -> None:
        """Called in the parent after a fork."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def abandon_in_child(self) -> None:
        """Called in a forked child: its watcher does not exist, and the descriptors are the parent's."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self._watcher = None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
