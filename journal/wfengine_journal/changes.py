"""Waiting until the journal has changed.

Whoever waits is told at once after a commit of this process, and some milliseconds after one of another process. Nothing
is held meanwhile, and nobody is told what changed: look again, and wait again.

A waiter takes a mark, looks, and waits for a change since that mark, so that none is missed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.errors import ForkedProcessError, JournalError
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine_journal.writer import Writer

#: How often another process's commits are looked for while somebody waits, in seconds. A look costs some microseconds.
POLL_SECONDS = 0.005


class Mark(NamedTuple):
    """A moment in the life of a journal."""

    commits: int  # of this process
    data_version: int  # changes with each commit of another process


class Changes:
    """Who waits for a change of one journal. All methods may be called from any thread."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Mark, Callable[[], object]]] = {}
        self._number = 0
        self._watcher: threading.Thread | None = None
        self._pause = threading.Event()

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
            if self._watcher is None:
                self._watcher = start_thread("wfengine-watcher", self._watch)
        self._tell()  # of what was committed between the mark and now
        return lambda: self._forget(number)

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

    def _watch(self) -> None:
        """Look for commits of other processes while somebody waits (on a thread of its own)."""
        while True:
            try:
                version = self.data_version()
            except (JournalError, ForkedProcessError):
                self._tell_if(lambda _: True)  # they look for themselves, and meet the error
            else:
                self._tell_if(lambda mark, now=version: mark.data_version != now)  # type: ignore[misc]  # bound per turn
            self._pause.wait(POLL_SECONDS)
            with self._lock:
                if not self._waiting:
                    self._watcher = None
                    return

    def data_version(self) -> int:
        """Return a number that changes with each commit of another process. Raises JournalError, ForkedProcessError."""
        return int(str(self._writer.read(lambda connection: connection.execute("PRAGMA data_version").fetchone()[0])))
