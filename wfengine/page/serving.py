"""What every answer needs: the journal's path, reads on threads with a time limit, commands, and when something changed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from wfengine.page.commands import Commands
from wfengine.page.kept import KeptCounts, Version
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import JournalNotFoundError, UsageError, WfengineError
from wfengine_journal.page_queries import limited_reading
from wfengine_journal.queries import has_open_runs

T = TypeVar("T")

#: Reads, and commands, at a time; seconds of one read.
READERS = 8
WRITERS = 4
READ_SECONDS = 5.0
#: How often it is looked for runs whose process died, and for changes while somebody watches, in seconds.
SWEEP_SECONDS = 2.0
LOOK_SECONDS = 0.25
#: Between two events that say that something changed, and between signs of life on a stream, in seconds.
EVENT_SECONDS = 1.0
ALIVE_SECONDS = 15.0
#: Looks of a stream between two for runs whose process died.
SWEEP_LOOKS = 10
#: Streams at a time.
STREAMS = 64


class Serving:
    """One page over one journal."""

    def __init__(self, path: Path, *, named: str | None = None, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self.commands = Commands(path, named)
        self.counts = KeptCounts(self.version)
        self.streams = 0
        self.is_stopping = False  # streams are to end: the server is about to, and who reads them connects anew
        self._clock = SystemClock()
        self._swept_at = float("-inf")
        self._limiters: tuple[CapacityLimiter, CapacityLimiter] | None = None

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function reads, on a thread and a read-only connection."""

        def reads() -> T:
            with limited_reading(self.path, READ_SECONDS) as connection:
                self._sweep(connection)
                return function(connection)

        return await to_thread.run_sync(reads, limiter=self._limiter(0))

    async def call(self, function: Callable[[], T], *, changes: bool) -> T:
        """Return what a function returns, on a thread."""
        return await to_thread.run_sync(function, limiter=self._limiter(1 if changes else 0))

    def read_here(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function reads, on the thread that calls."""
        with limited_reading(self.path, READ_SECONDS) as connection:
            self._sweep(connection)
            return function(connection)

    def _limiter(self, number: int) -> CapacityLimiter:
        if self._limiters is None:  # they belong to the event loop that serves
            self._limiters = CapacityLimiter(READERS), CapacityLimiter(WRITERS)
        return self._limiters[number]

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Mark runs whose process died, as every command that reads does, now and then."""
        now = self._clock.monotonic_seconds()
        if self.read_only or now - self._swept_at < SWEEP_SECONDS or not has_open_runs(connection):
            return
        self._swept_at = now
        if not os.access(self.path, os.W_OK) or not os.access(self.path.parent, os.W_OK):
            return
        from wfengine.ownership import sweep  # the engine is loaded where something runs, and not to look
        from wfengine_journal.store import open_journal

        with suppress(WfengineError, sqlite3.Error, OSError):  # who reads sees the state that was recorded last
            sweep(open_journal(self.path))

    # ---- what changed

    def version(self) -> Version:
        """Return what differs once something was committed, by any process."""
        return tuple(_stat(Path(f"{self.path}{end}")) for end in ("", "-wal"))

    def version_text(self) -> str:
        """Return `version` as a text that a browser can bring back."""
        return "-".join(str(number) for file in self.version() for number in file)

    async def changes(self) -> AsyncIterator[bool]:
        """Give True at once and then whenever something was committed, not more often than each second; False: a sign of life.

        A run whose process died changes nothing in the file, so that it is looked for here.
        """
        if self.streams >= STREAMS:
            raise UsageError(f"{STREAMS} streams are open already. Close some pages.")
        self.streams += 1
        try:
            seen, looks = self.version(), 0
            yield True
            while not self.is_stopping:
                await asyncio.sleep(LOOK_SECONDS)
                looks += 1
                if looks % SWEEP_LOOKS == 0:
                    with suppress(WfengineError, sqlite3.Error):
                        await self.read(lambda _: None)
                is_changed = looks * LOOK_SECONDS >= EVENT_SECONDS and (now := self.version()) != seen
                if is_changed:
                    seen, looks = now, 0
                    yield True
                elif looks * LOOK_SECONDS >= ALIVE_SECONDS:
                    looks = 0
                    yield False
        finally:
            self.streams -= 1


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    if not found.st_size:  # a log that is empty holds nothing; where nobody else has the file open, each reader makes a new one
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def is_missing(error: WfengineError) -> bool:
    """Tell whether an error says that there is no journal yet, which is no fault: nothing has run."""
    return isinstance(error, JournalNotFoundError)
