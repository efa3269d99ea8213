"""Counts of what code costs that do not depend on time: statements, commits, syncs, threads, bytes of the log, Python calls.

Everything is counted from outside: SQLite tells which statements run on the writer's connection, Python's profiler tells
of each call, the log's size is asked of the file system. Syncs are counted by the statements that cause them, since no
system tells a process of them everywhere: a COMMIT in synchronous FULL syncs the log once, one in NORMAL does not, a
checkpoint syncs the log and the file; `os.fsync` is a call like any other.
"""

from __future__ import annotations

import posix
import sqlite3
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType

from wfengine_journal.store import Journal

#: What PRAGMA synchronous answers for FULL.
FULL = 2
#: Syncs of a checkpoint: of the log, then of the file.
CHECKPOINT_SYNCS = 2
#: Threads that look at something now and then: how often they do, in a piece of work, depends on how long it takes.
TIMED_THREADS = frozenset({"wfengine-halts", "wfengine-watcher"})
SYNC_CALLS = frozenset({"fsync", "fdatasync", "sync"})


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted, of a whole piece of work or of one unit of it."""

    statements: float  # SQL statements on the writer's connection: reads, BEGIN, COMMIT and pragmas too, triggers not
    commits: float  # transactions
    syncs: float  # times that the disk was waited for
    threads: float  # threads started, but for those that look at something now and then
    log_bytes: float  # what the write-ahead log grew by
    calls: float  # Python functions entered, and generators gone on with, on the calling thread and on those it started

    def per_unit(self, less: Counts, units: int) -> Counts:
        """Return what one of so many further units costs, given what the work costs with `less` units."""
        return Counts(*((getattr(self, field.name) - getattr(less, field.name)) / units for field in fields(self)))


class Recorder:
    """Counts what happens between `start` and `stop`."""

    def __init__(self, journal: Journal) -> None:
        self._connection: sqlite3.Connection = journal._writer._connection
        self._lock = journal._writer._lock
        self._log = Path(f"{journal.path}-wal")
        self.statements: list[str] = []
        self._threads: set[threading.Thread] = set()
        self._commits = self._syncs = self._calls = 0
        self._is_full = False
        self._bytes_before = 0

    def start(self) -> None:
        self._is_full = self._connection.execute("PRAGMA synchronous").fetchone()[0] == FULL
        self._bytes_before = self._log_bytes()
        with self._lock:  # sqlite3 waits for a statement of another thread here, and that one for Python, to be noted
            self._connection.set_trace_callback(self._note_statement)
        threading.setprofile(self._note_thread)
        sys.setprofile(self._note_call)

    def stop(self) -> Counts:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # None ends it
        with self._lock:
            self._connection.set_trace_callback(None)
        grown = self._log_bytes() - self._bytes_before
        return Counts(len(self.statements), self._commits, self._syncs, len(self._threads), grown, self._calls)

    def _log_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _note_statement(self, statement: str) -> None:
        if statement.startswith("--"):
            return  # what a trigger does, told as a comment
        if threading.current_thread().name in TIMED_THREADS:
            return
        self.statements.append(statement)
        if statement.startswith("PRAGMA synchronous ="):
            self._is_full = statement.endswith("FULL")
        elif "wal_checkpoint" in statement:
            self._syncs += CHECKPOINT_SYNCS
        elif statement == "COMMIT":
            self._commits += 1
            self._syncs += self._is_full

    def _note_thread(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a thread that was started, at the first call that it makes."""
        thread = threading.current_thread()
        if thread.name in TIMED_THREADS:
            sys.setprofile(None)
            return
        self._threads.add(thread)
        sys.setprofile(self._note_call)
        self._note_call(frame, event, argument)

    def _note_call(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            caller = frame.f_back
            if frame.f_code.co_filename != __file__ and (caller is None or caller.f_code.co_filename != __file__):
                self._calls += 1
        elif (
            event == "c_call"
            and getattr(argument, "__name__", "") in SYNC_CALLS
            and getattr(argument, "__self__", None) is posix
        ):
            self._syncs += 1
