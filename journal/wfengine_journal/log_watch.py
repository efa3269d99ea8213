"""When to look whether another process has committed: often while the journal's log is being written, seldom otherwise.

A commit writes its pages into the log (the file `-wal`), and only then - with "power" after the disk has answered - makes
them visible, which nothing tells of. So after the log was written one looks again and again for a while. Where the system does
not tell of writes one always looks as often as that.
"""

from __future__ import annotations

import threading
from pathlib import Path

from wfengine_journal.file_events import FileEvents, open_events
from wfengine_journal.location import is_on_network

#: How long it is from one look to the next while the log is being written, in seconds. A look costs some microseconds, the
#: thread's waking up ten times as much.
POLL_SECONDS = 0.005
#: How soon the second look follows the first one after a silence, in seconds, doubled from look to look. The log is written
#: in some pieces, and the first look comes after the first of them.
FIRST_SECONDS = 0.0005
#: How many looks follow a write: a quarter of a second of them, which a disk seldom takes to answer. What is written meanwhile
#: is asked for only then, and followed by as many again.
LOOKS = 50
#: How long it is from one look to the next while the log is not written, in seconds: in case a write was not told of.
QUIET_SECONDS = 0.2


class LogWatch:
    """Lets one thread rest until it may be worth looking. It asks the system only after the first looks."""

    def __init__(self, log: Path, lock: threading.Lock) -> None:
        self._log = log
        self._lock = lock  # held while descriptors are opened: a fork that holds it knows all that there are
        self._events: FileEvents | None = None
        self._is_told = True  # the system tells of writes, as far as is known
        self._looks_left = LOOKS
        self._seconds = POLL_SECONDS
        self._pause = threading.Event()

    def rest(self, *, found: bool) -> None:
        """Return when it is time for another look; `found`: the last one found a commit."""
        if found:
            self._looks_left = LOOKS
        if self._looks_left == 0 and self._is_followed():
            self._rest_in_silence()
        else:
            self._pause.wait(self._seconds)
            self._seconds = min(2 * self._seconds, POLL_SECONDS)
            self._looks_left = max(0, self._looks_left - 1)

    def _rest_in_silence(self) -> None:
        assert self._events is not None
        if self._events.wait(QUIET_SECONDS):
            self._looks_left = LOOKS
            self._seconds = FIRST_SECONDS

    def _is_followed(self) -> bool:
        """Tell whether the next write to the log will be told of; what was written before was looked for since."""
        if self._events is not None:
            return self._events.follow()
        if self._is_told and not is_on_network(self._log):
            with self._lock:
                self._events = open_events(self._log)
            if self._events is not None and self._events.follow():
                self._looks_left = LOOKS  # for what is written just now, and will be seen later
        self._is_told = self._events is not None
        return False

    def wake(self) -> None:
        """Have the thread that rests look at once. To be called only while it is known that it has not closed this."""
        if self._events is not None:
            self._events.wake()

    def close(self) -> None:
        """Give back what the system lent."""
        if self._events is not None:
            self._events.close()
            self._events = None
