"""The thread of a writer that commits what nobody waits for, and syncs what nothing follows.

In durability "process" a commit is synced once a second *with the commits that follow*. When none follows, the thread syncs
the log itself, once, a second after the first commit that was not synced; then it sleeps until there is something again.

Invariants:
- The writer tells of what it commits without a sync only while `has_tail` is false: at most once in a second.
- `has_tail` becomes false before the sync, not after it: what is committed meanwhile is not surely in it.
- When a sync fails, nothing more may be written: nobody knows which pages the system has kept, so that what is synced after
  them might stand behind a gap in the log, where SQLite does not look for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wfengine_journal.clock import Clock
from wfengine_journal.errors import JournalError, JournalUnwritableError
from wfengine_journal.syncing import sync_log
from wfengine_journal.threads import start_thread

#: In mode "process" one commit is synced at least this often while there are writes, in seconds; the last ones so long after.
SYNC_INTERVAL_SECONDS = 1.0
#: How long a change that nobody waits for may lie before it is committed, in seconds.
POST_DELAY_SECONDS = 0.05
#: How long the end of the thread is waited for, in seconds.
JOIN_SECONDS = 1.0


class Flusher:
    """Started when there is first something to do. `commit` commits what is queued; `stop` is told of a failed sync."""

    def __init__(self, path: Path, clock: Clock, commit: Callable[[], None], stop: Callable[[JournalError], None]) -> None:
        self._path = path
        self._clock = clock
        self._commit = commit
        self._stop = stop
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.thread: threading.Thread | None = None
        self.awake = threading.Event()
        self.has_posts = False  # changes wait that are not to wait for the next commit
        self.has_tail = False  # something was committed without a sync

    def start(self) -> None:
        """Start the thread, if it does not run."""
        with self._lock:
            if self.thread is None and not self._closing.is_set():
                with suppress(JournalUnwritableError):  # no more threads: the next synced commit, or the end, does its work
                    self.thread = start_thread("wfengine-flusher", self._run)

    def note_tail(self) -> None:
        """Have what was just committed synced within a second, unless this is the end: that syncs it by itself."""
        self.has_tail = True
        if not self._closing.is_set():
            if self.thread is None:
                self.start()
            self.awake.set()

    def sync_tail(self) -> None:
        """Sync what was committed without; do nothing if all is synced."""
        if self.has_tail:
            self.has_tail = False
            try:
                sync_log(self._path)
            except JournalError as error:
                self._stop(error)

    def begin_close(self) -> None:
        """Start no thread from here on: from Python 3.12 on none can be while the interpreter goes down. Wait for nothing."""
        self._closing.set()

    def end_close(self) -> None:
        """Wait for the thread to end."""
        self.awake.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout=JOIN_SECONDS)

    def abandon_in_child(self) -> None:
        """In a forked child: there is no such thread, and nothing for it to do."""
        self._lock = threading.Lock()
        self.thread = None
        self.has_posts = self.has_tail = False

    def _run(self) -> None:
        while not self._closing.is_set():
            self._serve_posts()
            if self.has_tail:
                self._await_sync(self._clock.monotonic_seconds() + SYNC_INTERVAL_SECONDS)

    def _serve_posts(self, at_most_seconds: float | None = None) -> bool:
        """Wait until there is something to do, and commit what was posted; False if there was nothing in that time."""
        if not self.awake.wait(at_most_seconds):
            return False
        self._closing.wait(POST_DELAY_SECONDS)
        self.awake.clear()
        if self.has_posts:
            self.has_posts = False
            self._commit()
        return True

    def _await_sync(self, until: float) -> None:
        """Commit what is posted till then, then sync, whatever was synced meanwhile: a sync of nothing costs nothing."""
        left = SYNC_INTERVAL_SECONDS
        while left > 0.0 and not self._closing.is_set() and self._serve_posts(left):
            left = until - self._clock.monotonic_seconds()
        self.sync_tail()
