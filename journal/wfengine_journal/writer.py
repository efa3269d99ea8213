"""The one write path: group commit on a single connection.

A *change* is an object whose `apply(connection)` runs its statements inside a transaction that this module began. Changes
that wait at the same moment share one transaction and one fsync: whoever gets the lock first leads and commits for all.
A waiter is released, and a callback called, only after COMMIT returned.

Invariants:
- A change may refuse (raise WriteRefused) only before its first write, so that a refusal needs no rollback.
- An error from COMMIT is an unknown outcome: the file is opened anew and each change is looked for (`landed`).
- After a disk error nothing more is written through this writer; every later call raises the same JournalError.
- While user code runs inside a transaction (`exclusive`), what its thread writes becomes a part of that transaction.
  Everybody else waits for its end to write, and reads beside it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from wfengine_journal.clock import Clock
from wfengine_journal.connection import BUSY_TRIES, REPORTS, explain, open_reader, open_writer, primary_code
from wfengine_journal.errors import ForkedProcessError, InternalError, JournalError
from wfengine_journal.flusher import SYNC_INTERVAL_SECONDS, Flusher
from wfengine_journal.holds import FAULTS_OF_A_CHANGE, INSIDE, Hold
from wfengine_journal.tickets import Change, CommitProbe, Ticket, WriteRefused, call_back

#: Size of the write-ahead log from which a checkpoint is tried, in bytes, and after how many commits it is looked at.
CHECKPOINT_BYTES = 8 * 1024 * 1024
CHECKPOINT_LOOK_COMMITS = 256
#: How long a fork waits for a commit that is under way, in seconds.
FORK_WAIT_SECONDS = 5.0
#: Changes in one transaction at the most, so that readers and other processes get their turn.
BATCH_LIMIT = 2000


_logger = logging.getLogger("wfengine.journal")
T = TypeVar("T")


class Writer:
    """Owns the write connection of one journal file in this process. All methods may be called from any thread."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, clock: Clock, may_checkpoint: Callable[[Callable[[], None]], None]
    ) -> None:
        self._path = path
        self._wal_path = Path(f"{path}-wal")
        self._connection = connection
        self._clock = clock
        self._may_checkpoint = may_checkpoint  # runs the given checkpoint if no other process is at it
        self._lock = threading.Lock()
        self._leading = False  # a thread has, or is about to take, the lock in order to commit
        self._queue: deque[Ticket] = deque()
        self._flusher = Flusher(path, clock, self._commit_queued, self._stop)
        self._hold: Hold | None = None  # user code runs inside a transaction, or is about to
        self._read_gate = threading.Lock()  # taken before the lock by who reads, and never while user code runs
        self._aside = threading.Lock()  # held by who reads on a connection of its own, and while this process forks
        self._full_sync = False  # what PRAGMA synchronous is set to now
        self._last_sync = self._began_at = clock.monotonic_seconds()
        self.commits = 0  # transactions that were committed
        self.after_commit: Callable[[], None] | None = None  # told of each, while somebody waits for changes
        #: Asked just before and just after each COMMIT, while nobody who waits for it was told: for tests of crashes.
        self.probe: CommitProbe | None = None
        self.witness: Callable[[Sequence[Change]], None] | None = None  # told of the changes of each commit
        self._began = False  # a transaction of the present leader was begun
        self._broken: JournalError | None = None
        self.is_forked = False  # this is a child of the process that opened the connection
        self._held_for_fork = False
        self._closed = False

    # ---- writing

    def write(self, change: Change, *, synced: bool) -> None:
        """Apply one change and return after it is committed; `synced` also waits for the disk.

        Raises WriteRefused when the change's guard did not hold, JournalError when the file cannot be written. Inside a
        transaction of user code the change becomes a part of it, and is committed with it.
        """
        hold = self._hold
        if hold is not None:
            if hold.is_mine():
                self._check_usable()
                hold.apply(self._connection, change, self._path)
                return
            hold.await_end(self._path)
        ticket = Ticket(change, synced, None)
        self._queue.append(ticket)
        if not self._leading and self._write_alone(ticket):
            return
        while not ticket.done:
            ticket.wait(self)
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error

    @property
    def is_led(self) -> bool:
        """Tell whether a thread is committing, and will wake the next leader."""
        return self._leading

    def _write_alone(self, ticket: Ticket) -> bool:
        """Commit a change that nobody else's waits beside; tell whether it was so."""
        self._leading = True
        try:
            with self._lock:  # not a non-blocking acquire: Ctrl-C cannot come between `with` and what it protects
                self._leading = True
                if len(self._queue) != 1 or self._queue[0] is not ticket:
                    return False
                self._queue.popleft()
                self._check_usable()
                self._commit_one(ticket.change, ticket.synced)
                return True
        finally:
            self._leading = False
            if self._queue:
                self._hand_over()
            after_commit = self.after_commit  # read once: the last who waits may go away just now
            if after_commit is not None:
                after_commit()

    def post(
        self, change: Change, *, synced: bool = False, on_commit: Callable[[BaseException | None], None] | None = None
    ) -> None:
        """Queue a change that nobody waits for here: it rides along with the next commit, or is flushed soon.

        `on_commit` is called with None after the commit, or with the error, on the thread that led it; it must not block.
        Inside a transaction of user code it is no part of that: what is logged there stays, whatever becomes of the rest.
        """
        self._queue.append(Ticket(change, synced, on_commit))
        flusher = self._flusher
        flusher.has_posts = True
        if flusher.thread is None:
            flusher.start()
        if not flusher.awake.is_set():
            flusher.awake.set()

    def add(self, change: Change) -> None:
        """Queue a change that rides along with the next commit, whenever that is: nothing is lost without it."""
        self._queue.append(Ticket(change, False, None))

    def flush(self) -> None:
        """Commit everything that is queued at this moment. Does nothing inside a transaction of user code."""
        hold = self._hold
        if hold is not None:
            if hold.is_mine():
                return
            hold.await_end(self._path)
        for _ in range(0, len(self._queue), BATCH_LIMIT):
            self._lead()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read between two transactions. Errors come as JournalError.

        User code inside a transaction sees what was written there. Nobody waits for it: meanwhile the others see what was
        committed before it, so that who reads under a lock which that code comes to need is not waited for in a circle.
        """
        hold = self._hold
        if hold is not None and hold.is_mine():
            return self._read_now(query)
        with self._read_gate:
            hold = self._hold
            if hold is None:
                with self._lock:
                    return self._read_now(query)
        hold.refuse_threads_of_the_user()
        return self._read_aside(query)

    def read_itself(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read that needs the write connection itself, such as one of temporary tables; it waits for user code."""
        hold = self._hold
        if hold is not None:
            if hold.is_mine():
                return self._read_now(query)
            hold.await_end(self._path)
        with self._lock:
            return self._read_now(query)

    def _read_aside(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check_usable()
        try:
            with self._aside, closing(open_reader(self._path)) as connection:
                connection.row_factory = None
                return query(connection)
        except REPORTS as error:
            raise explain(error, self._path) from error

    def _read_now(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check_usable()
        try:
            return query(self._connection)
        except REPORTS as error:
            raise explain(error, self._path) from error

    # ---- a transaction in which user code runs

    @property
    def is_inside(self) -> bool:
        """Tell whether the caller is user code that runs inside a transaction of this file."""
        hold = self._hold
        return hold is not None and hold.is_mine()

    def exclusive(self, work: Callable[[sqlite3.Connection], Change], *, synced: bool) -> None:
        """Run `work` on the write connection in one transaction, and commit it with the change that `work` returns.

        What `work` raises rolls everything back and is raised here; so is sqlite3.IntegrityError for a constraint that is
        checked at COMMIT. Changes that its thread writes meanwhile are committed, or rolled back, with it. Everybody else
        waits to write: `work` has to be short. Raises WriteRefused and JournalError as `write` does.
        """
        hold = Hold()
        try:
            self._announce(hold)
            self._commit_exclusively(work, hold, synced)
        finally:
            if self._hold is hold:
                self._hold = None
            hold.ended.set()

    def _commit_exclusively(self, work: Callable[[sqlite3.Connection], Change], hold: Hold, synced: bool) -> None:
        token = INSIDE.set(hold)
        self._leading = True
        try:
            with self._lock:
                self._leading = True
                self._check_usable()
                self._commit_work(work, hold, synced)
        finally:
            INSIDE.reset(token)
            self._leading = False
            self._hand_over()
            after_commit = self.after_commit  # read once: the last who waits may go away just now
            if after_commit is not None:
                after_commit()

    def _announce(self, hold: Hold) -> None:
        """Let all know, before the lock is taken, that user code is about to hold it: one at a time."""
        while True:
            with self._read_gate:  # nobody is between a look at `_hold` and the lock that a reader takes then
                other = self._hold
                if other is None:
                    self._hold = hold
                    return
            if other.is_mine():
                raise InternalError("A transaction was begun inside a transaction. Please report this.")
            other.await_end(self._path)

    def _commit_work(self, work: Callable[[sqlite3.Connection], Change], hold: Hold, synced: bool) -> None:
        try:
            self._begin(synced)
            change = work(self._connection)
            self._check_usable()
            hold.check(self._connection)
            change.apply(self._connection)
        except BaseException as error:
            if self.is_forked:  # the transaction, and the connection, are the parent's
                raise
            problem = self._given_up(error if hold.fault is None else hold.fault)
            if problem is error:
                raise
            raise problem from error
        finally:
            self._hold = None
        self._commit_checked(change)

    def _commit_checked(self, change: Change) -> None:
        """Commit what user code wrote. That a constraint of its own tables is broken is known: nothing was committed."""
        try:
            self._commit([change], may_break_constraints=True)
        except sqlite3.IntegrityError:
            self._connection.execute("ROLLBACK")
            raise

    def _lead(self, own: Ticket | None = None) -> None:
        """Take the lock, commit what is queued in one transaction, then tell who waits, and the callbacks.

        Does nothing when another leader has committed the caller's `own` change meanwhile.
        """
        if own is not None and own.done:
            return
        batch: list[Ticket] = []
        self._leading = True
        try:
            with self._lock:
                self._leading = True
                self._began = False
                try:
                    if own is None or not own.done:
                        self._drain(batch)
                        if batch:
                            self._commit_batch(batch)
                finally:
                    self._give_back(batch)
        finally:
            self._leading = False
            self._tell(batch)
            self._hand_over()
            after_commit = self.after_commit  # read once: the last who waits may go away just now
            if after_commit is not None:
                after_commit()

    def _give_back(self, batch: list[Ticket]) -> None:
        """Queue again, in front, what an interrupted leader took and did not settle."""
        left = [ticket for ticket in batch if not ticket.done and ticket not in self._queue]
        if left:
            self._queue.extendleft(reversed(left))

    def _tell(self, batch: list[Ticket]) -> None:
        """Wake the waiters and call the callbacks; an interruption between two of them is raised after the last."""
        interruption: BaseException | None = None
        for ticket in batch:
            if not ticket.done:
                continue
            try:
                ticket.wake()
                if ticket.on_commit is not None:
                    on_commit, ticket.on_commit = ticket.on_commit, None
                    call_back(on_commit, ticket.error)
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def _hand_over(self) -> None:
        """Wake the first of those who queued up meanwhile: it leads next, and commits for all of them."""
        for ticket in list(self._queue):  # a posted change has no thread to wake: look behind it
            if ticket.wake():
                return

    def _drain(self, batch: list[Ticket]) -> None:
        queue = self._queue
        for _ in range(min(len(queue), BATCH_LIMIT)):
            batch.append(queue[0])  # known to the leader before it leaves the queue, so that Ctrl-C cannot lose it
            queue.popleft()

    # ---- one transaction (the lock is held)

    def _commit_one(self, change: Change, synced: bool) -> None:
        """Do what `_commit_batch` does for a single change: the path of a task that runs alone."""
        connection = self._connection
        try:
            self._begin(synced)
            change.apply(connection)
        except WriteRefused:
            connection.execute("ROLLBACK")
            raise
        except BaseException as error:
            raise self._given_up(error) from error
        self._commit([change])

    def _commit_batch(self, batch: list[Ticket]) -> None:
        try:
            self._check_usable()
            self._begin(any(ticket.synced for ticket in batch))
            applied = self._apply_all(batch)
            self._commit([ticket.change for ticket in applied])
        except Exception as error:
            problem = self._given_up(error)
            if len(batch) > 1 and self._broken is None:
                self._commit_each(batch)
                return
            for ticket in batch:
                ticket.error = problem
        except BaseException:
            self._interrupted(batch)
            raise
        for ticket in batch:
            ticket.done = True

    def _commit_each(self, batch: list[Ticket]) -> None:
        """One change of many was at fault and everything was rolled back: let each stand for itself."""
        for ticket in batch:
            ticket.error = None
            self._commit_batch([ticket])

    def _interrupted(self, batch: list[Ticket]) -> None:
        """Ctrl-C reached the leader: what is not committed goes back into the queue, for the next leader."""
        if self._began and not self._connection.in_transaction:
            self._began = False
            for ticket in batch:
                ticket.done = True
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        for ticket in batch:
            ticket.error = None
        # `_lead` queues them again.

    def _apply_all(self, batch: list[Ticket]) -> list[Ticket]:
        applied = []
        for ticket in batch:
            try:
                ticket.change.apply(self._connection)
                applied.append(ticket)
            except WriteRefused as refusal:
                ticket.error = refusal
        return applied

    def _begin(self, synced: bool) -> None:
        self._began = False
        if self._connection.in_transaction:  # left by a leader that Ctrl-C took away just before its COMMIT
            self._connection.execute("ROLLBACK")
        now = self._clock.monotonic_seconds()
        full = synced or now - self._last_sync > SYNC_INTERVAL_SECONDS
        if full is not self._full_sync:
            self._connection.execute("PRAGMA synchronous = FULL" if full else "PRAGMA synchronous = NORMAL")
            self._full_sync = full
        self._began_at = now
        for attempt in range(1, BUSY_TRIES + 1):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._began = True
                return
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY or attempt == BUSY_TRIES:
                    raise

    def _commit(self, changes: list[Change], *, may_break_constraints: bool = False) -> None:
        if self.probe is not None:
            self.probe("before", self.commits + 1, changes)
        try:
            self._connection.execute("COMMIT")
        except REPORTS as error:
            if may_break_constraints and isinstance(error, sqlite3.IntegrityError) and self._connection.in_transaction:
                raise
            self._settle_unknown_commit(error, changes)
        self.commits += 1
        if self._full_sync:
            self._last_sync = self._began_at
        elif not self._flusher.has_tail:
            self._flusher.note_tail()
        if self.probe is not None:
            self.probe("after", self.commits, changes)
        witness = self.witness  # read once: it may be taken away meanwhile
        if witness is not None:
            witness(changes)
        if self.commits % CHECKPOINT_LOOK_COMMITS == 0:
            self._maybe_checkpoint()

    def _settle_unknown_commit(self, error: sqlite3.Error | MemoryError, changes: list[Change]) -> None:
        """After a failed COMMIT, open the file anew and see what is there; return only if all of it is.

        What had to be synced is never taken for it: after a failed fsync the row may be seen and not be on the disk.
        """
        had_to_sync = self._full_sync
        try:
            self._connection.close()
            self._connection, _ = open_writer(self._path)
            self._full_sync = False
            if not had_to_sync and all(change.landed(self._connection) for change in changes):
                return
        except (*REPORTS, JournalError) as second:
            self._broken = explain(error, self._path)
            raise self._broken from second
        self._broken = explain(error, self._path)
        raise self._broken from error

    def _given_up(self, error: BaseException) -> BaseException:
        """Roll back what is open; return the error to report. A disk's fault stops this writer for good."""
        if self._broken is not None:
            return self._broken
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except REPORTS:
            self._broken = explain(error, self._path) if isinstance(error, REPORTS) else None
        if isinstance(error, MemoryError):
            return self._broken or explain(error, self._path)  # the next write may get what this one did not
        if isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_BUSY:
            return explain(error, self._path)  # somebody else's lock: the next write may get it
        if isinstance(error, sqlite3.Error) and primary_code(error) not in FAULTS_OF_A_CHANGE:
            self._broken = explain(error, self._path)
            return self._broken
        return error

    def _check_usable(self) -> None:
        if self.is_forked:
            raise ForkedProcessError(
                "This process was forked from one that runs flows; the journal's connection stays with the parent. "
                "Return the result to the parent, or start a process of its own (multiprocessing 'spawn')."
            )
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise JournalError(
                f"The journal {self._path} was closed in this process. Open it again: use_journal({str(self._path)!r})"
            )

    # ---- upkeep

    def _maybe_checkpoint(self) -> None:
        try:
            if self._wal_path.stat().st_size < CHECKPOINT_BYTES:
                return
        except OSError:
            return
        try:
            self._may_checkpoint(self._checkpoint)
        except (sqlite3.Error, OSError) as error:
            # The commit before it stands, whatever becomes of the log: the next write meets the disk's fault itself.
            _logger.warning("The log of %s could not be folded into the file: %s", self._path, error)

    def fold_log(self) -> None:
        """Fold the log into the file now, as far as no reader needs it, if no other process is at it."""
        with self._lock:
            self._check_usable()
            self._may_checkpoint(self._checkpoint)

    def _checkpoint(self) -> None:
        # A passive checkpoint waits for nobody; what readers still need stays in the log for the next time.
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _commit_queued(self) -> None:
        while self._queue and not self.is_forked:
            self._lead()

    def _stop(self, error: JournalError) -> None:
        """Write nothing more; who writes next is told why, or the log if nobody can."""
        if self._broken is None:
            self._broken = error
            if self._closed:
                _logger.warning("%s", error)

    def close(self, last: Change | None = None) -> None:
        """Commit what is queued, then `last`, and close the connection; the last process to do so folds the log into the file.

        No thread is started for it. What was not synced is synced here, since another process may have the file open yet.
        """
        self._flusher.begin_close()
        if last is not None:
            self._queue.append(Ticket(last, False, None))
        while self._queue and self._broken is None and not self.is_forked:
            self._lead()
        with self._lock:
            if self._closed or self.is_forked:
                return
            self._closed = True
            self._flusher.sync_tail()
            self._connection.close()
        self._flusher.end_close()

    def hold_for_fork(self) -> None:
        """Called before a fork: no statement may be under way, or the child could not close its copy of the connection.

        Nor on a connection that is read aside: what SQLite itself locks meanwhile would be locked in the child for ever.
        """
        if self.is_inside:
            return  # user code forks inside its transaction: the child must leave the file alone
        if self._lock.acquire(timeout=FORK_WAIT_SECONDS):  # another thread's fork may be holding it
            if self._aside.acquire(timeout=FORK_WAIT_SECONDS):
                self._held_for_fork = True
            else:
                self._lock.release()

    def release_after_fork(self) -> None:
        """Called in the parent after a fork."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._aside.release()
            self._lock.release()

    def abandon_in_child(self) -> bool:
        """Called in a forked child: give up the parent's connection; tell whether the child may open the file itself.

        SQLite keeps one record of its locks per process and file. A child that inherits it believes that it holds the
        parent's locks and takes none, so the parent's last close would delete the log under it: the copy has to go. With
        no statement under way, closing it writes nothing while the parent lives (the parent's lock on the file forbids it).
        """
        import ctypes

        self.is_forked = True
        closed = self._held_for_fork
        if closed:
            self._connection.close()
        else:  # a thread that does not exist here is inside SQLite: a reference never given back keeps it from being closed
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._lock = threading.Lock()  # the parent's may be held by a thread that does not exist here
        self._read_gate = threading.Lock()
        self._aside = threading.Lock()
        self._flusher.abandon_in_child()
        self._hold = None
        self._queue.clear()
        return closed
