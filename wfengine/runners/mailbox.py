"""One connection, several threads that wait for what comes by it: who waits reads, for all of them.

No thread has to be there only to read, so a message reaches the thread it is for without a detour over another one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import monotonic
from typing import Generic, TypeVar

M = TypeVar("M")


class Gone(Exception):
    """The other end of the connection is closed."""


class Mailbox(Generic[M]):
    """Hands out what a connection brings, by the number of the thread that it is for."""

    def __init__(self, connection: Connection, read: Callable[[bytes], tuple[int, M] | None]) -> None:
        """`read` makes of what came the number of a thread and a message; None: it took the message itself."""
        self._connection = connection
        self._read = read
        self._changed = threading.Condition(threading.Lock())
        self._waiting: dict[int, deque[M]] = {}
        self._is_read = False  # some thread reads now
        self._is_gone = False

    def get(self, thread: int, seconds: float | None = None) -> M:
        """Wait for the next message for a thread. Raises TimeoutError, and Gone when nothing more can come."""
        until = None if seconds is None else monotonic() + seconds
        with self._changed:
            mine = self._waiting.setdefault(thread, deque())
        while True:
            with self._changed:
                while not mine and self._is_read and not self._is_gone:
                    if not self._changed.wait(_left(until)):
                        raise TimeoutError
                if mine:
                    return mine.popleft()
                if self._is_gone:
                    raise Gone
                self._is_read = True
            self._read_one(until)

    def forget(self, thread: int) -> None:
        """Keep nothing for a thread that asks no more."""
        with self._changed:
            self._waiting.pop(thread, None)

    def drain(self) -> None:
        """Read for the others until the connection is closed."""
        while not self._is_gone:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_read or self._is_gone)
                if self._is_gone:
                    return
                self._is_read = True
            self._read_one(None)

    def _read_one(self, until: float | None) -> None:
        found: tuple[int, M] | None = None
        gone = False
        try:
            if until is not None and not self._connection.poll(_left(until)):
                raise TimeoutError
            found = self._read(self._connection.recv_bytes())
        except TimeoutError:
            raise
        except Exception:  # closed; or what came is no message, since the code of a task may write anywhere
            gone = True
        finally:
            with self._changed:
                self._is_read = False
                self._is_gone = self._is_gone or gone
                if found is not None:
                    self._waiting.setdefault(found[0], deque()).append(found[1])
                self._changed.notify_all()


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())
