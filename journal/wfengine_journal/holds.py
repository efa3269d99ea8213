"""A transaction of the writer's in which user code runs: whose it is, who waits for it, and what is written inside it.

See `Writer.exclusive`. Everything here happens on the thread that runs the user code, but for the waiting of the others.
"""

from __future__ import annotations

import contextvars
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine_journal.connection import BUSY_TIMEOUT_MS, BUSY_TRIES, explain, primary_code
from wfengine_journal.errors import JournalBusyError, UsageError, UserTableError

if TYPE_CHECKING:
    from wfengine_journal.tickets import Change

#: Primary result codes that tell of a defect of the change itself, not of the disk; 0: reported by Python's own module.
FAULTS_OF_A_CHANGE = frozenset(
    {0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
    | {sqlite3.SQLITE_MISUSE}
)
#: How long the threads of this process wait for a transaction of user code, in seconds: as long as other processes do.
HELD_SECONDS = BUSY_TIMEOUT_MS / 1000 * BUSY_TRIES


def rolled_back_error(task: str) -> UserTableError:
    """Return the error for a transaction that one of its own statements ended."""
    return UserTableError(
        f"{task}: the whole transaction was rolled back by a statement (ON CONFLICT ROLLBACK, RAISE(ROLLBACK), or one that was "
        "interrupted), so nothing more can be written in it. Use ABORT in its place."
    )


class Hold:
    """One such transaction."""

    __slots__ = ("_thread", "ended", "fault")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.ended = threading.Event()
        self.fault: sqlite3.Error | None = None  # of the disk, met inside it: nothing of it may be committed

    def is_mine(self) -> bool:
        """Tell whether the caller is the thread that runs the user code."""
        return threading.get_ident() == self._thread

    def refuse_threads_of_the_user(self) -> None:
        """Raise UsageError in a thread that the user code inside it started."""
        if INSIDE.get() is self:
            raise UsageError(
                "A thread that was started inside a transactional task cannot use the journal: it would wait for the "
                "transaction, and the task for the thread. Do it in the task's own thread, or after the task."
            )

    def await_end(self, path: Path) -> None:
        """Wait, as another thread, until it is over."""
        self.refuse_threads_of_the_user()
        if not self.ended.wait(HELD_SECONDS):
            raise JournalBusyError(
                f"A transactional task of this process has held the write lock of {path} for {HELD_SECONDS:.0f} s. Let it do "
                "its waiting outside of the transaction, then go on with: wfengine resume --all"
            )

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise if the transaction cannot be gone on with."""
        if self.fault is not None:
            raise self.fault
        if not connection.in_transaction:
            raise rolled_back_error("A transactional task")

    def apply(self, connection: sqlite3.Connection, change: Change, path: Path) -> None:
        """Make a change a part of the transaction; one that is refused or raises leaves nothing in it."""
        self.check(connection)
        connection.execute("SAVEPOINT wfengine_change")
        try:
            change.apply(connection)
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and primary_code(error) not in FAULTS_OF_A_CHANGE:
                self.fault = error
                raise explain(error, path) from error
            if connection.in_transaction:
                connection.execute("ROLLBACK TO wfengine_change")
                connection.execute("RELEASE wfengine_change")
            raise
        connection.execute("RELEASE wfengine_change")


#: In user code that runs inside a transaction, and in what it carries into threads of its own: that transaction.
INSIDE: contextvars.ContextVar[Hold | None] = contextvars.ContextVar("wfengine_inside", default=None)
