"""Waiting until the journal may have changed: by a commit of another process, or by what this process announces.

Inside the process a waiter is woken by a condition. Other processes are noticed by `PRAGMA data_version`, which is looked
at every few milliseconds, and only while somebody waits.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import cast

#: How often a waiting thread looks for commits of other processes, in seconds.
LOOK_SECONDS = 0.005


class Changes:
    """A number that is another one after each change. All methods may be called from any thread.

    Ask for the number, look at the file, and wait for another number: no change between the look and the wait is missed.
    """

    def __init__(self, read: Callable[[Callable[[sqlite3.Connection], object]], object]) -> None:
        self._read = read  # on the write connection: to it, only commits of other processes change data_version
        self._changed = threading.Condition()
        self._number = 0
        self._version = -1

    def number(self) -> int:
        """Return the present number."""
        self._look()
        return self._number

    def announce(self) -> None:
        """Wake everybody in this process that waits; called after a commit that others may wait for."""
        with self._changed:
            self._number += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout_seconds: float) -> bool:
        """Wait until the number is not `seen` any more, at most so long; tell whether it is so."""
        remaining = timeout_seconds
        while True:
            with self._changed:
                if self._number == seen and remaining > 0:
                    self._changed.wait(min(LOOK_SECONDS, remaining))
                if self._number != seen:
                    return True
            if remaining <= 0:
                return False
            remaining -= LOOK_SECONDS
            self._look()

    def _look(self) -> None:
        version = cast(int, self._read(_data_version))
        if version != self._version:
            self._version = version
            self.announce()


def _data_version(connection: sqlite3.Connection) -> object:
    return connection.execute("PRAGMA data_version").fetchone()[0]
