"""`Journal`: one open journal file in this process, as the engine sees it.

It joins the writer, this process's owner row and the small reads that executing a run needs. Reads for people are in
`queries`. A file is opened once per process; a forked child opens its own.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar, cast

from wfengine_journal import owners, schema
from wfengine_journal.changes import Changes
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.connection import FORMAT_VERSION, REPORTS, explain, open_readers, open_writer
from wfengine_journal.errors import ForkedProcessError, InternalError
from wfengine_journal.records import OpenRunRow, OwnerRow, Records
from wfengine_journal.run_transitions import CrashFlowRun
from wfengine_journal.tickets import BothProbes, Change, CommitProbe, WriteRefused
from wfengine_journal.transitions import shown_text, utf8_text
from wfengine_journal.writer import FORK_WAIT_SECONDS, Writer

T = TypeVar("T")

# What starting a run imports when it first needs it. A thread that imports holds the module's lock, and a child forked in that
# instant would wait for it for ever; so whoever forks imports them first, and waits for an import that is under way.
_IMPORTED_LATE = ("cloudpickle", "ctypes", "importlib.resources")


class _Statement:
    """A change that is one harmless statement: registering a name, appending a log line."""

    __slots__ = ("parameters", "sql")

    def __init__(self, sql: str, parameters: tuple[object, ...]) -> None:
        self.sql = sql
        self.parameters = parameters

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(self.sql, self.parameters)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Say no: who waits for it goes on to use what it wrote, and a failed commit may have left nothing of it."""
        return False


class Journal:
    """One journal file. Get it with `open_journal`; all methods may be called from any thread."""

    def __init__(self, path: Path, clock: Clock) -> None:
        connection, version = open_writer(path)
        try:
            if version == 0:
                schema.create(connection, clock, owners.role())
            elif version < FORMAT_VERSION:
                schema.upgrade(connection, path, version)
            self._lock_file = owners.LockFile(path)
        except REPORTS as error:
            connection.close()
            raise explain(error, path) from error
        except BaseException:
            connection.close()
            raise
        self.path = path
        self.clock = clock
        self._writer = Writer(path, connection, clock, self._checkpoint_alone)
        self.write = self._writer.write
        self.post = self._writer.post
        self.add = self._writer.add
        self.flush = self._writer.flush
        self.read = self._writer.read
        self.read_itself = self._writer.read_itself
        self.fold_log = self._writer.fold_log
        self.exclusive = self._writer.exclusive
        self.records = Records(path, self._writer.read)
        self.changes = Changes(self._writer, Path(f"{path}-wal"))
        self._owner_id: int | None = None
        #: Owners whose end this process sees to: until it has recorded that, nobody here takes them for dead.
        self.attended: set[int] = set()
        self.id = str(self.records.rows("SELECT value FROM meta WHERE key = 'journal_id'")[0][0])
        self._ids: dict[tuple[str, str], int] = {}
        self._register_lock = threading.Lock()

    # ---- this process

    @property
    def owner_id(self) -> int:
        """Return the id of this process's owner row, made and locked at the first use."""
        if self._owner_id is None:
            with self._register_lock:
                if self._owner_id is None:
                    self._owner_id = self._register_owner()
        return self._owner_id

    @property
    def is_forked(self) -> bool:
        """Tell whether this is a forked child, and the journal was opened by its parent."""
        return self._writer.is_forked

    @property
    def is_inside(self) -> bool:
        """Tell whether the caller is user code that runs inside a transaction of this file."""
        return self._writer.is_inside

    def _register_owner(self) -> int:
        pid = os.getpid()
        registration = _RegisterOwner(
            (pid, owners.host_name(), owners.boot_id(), owners.process_started(pid), owners.role(), self.clock.now_text())
        )
        self.write(registration, synced=False)
        if not self._lock_file.hold(registration.owner_id):
            raise InternalError(f"Another process holds the lock of owner {registration.owner_id}. Please report this.")
        return registration.owner_id

    def is_owner_alive(self, owner_id: int) -> bool:
        """Tell whether the process behind an owner row lives; this process does."""
        if owner_id == self._owner_id or owner_id in self.attended:
            return True
        row = self.find_owner(owner_id)
        if row is None or row.ended_at is not None:
            return False
        return owners.is_alive(self._lock_file, row.id, row.pid, row.boot_id, row.process_started)

    def _checkpoint_alone(self, checkpoint: Callable[[], None]) -> None:
        if self._lock_file.hold(owners.CHECKPOINT_BYTE):
            try:
                checkpoint()
            finally:
                self._lock_file.release(owners.CHECKPOINT_BYTE)

    def lead_automations(self) -> bool:
        """Become, or stay, the one process of this journal that does what automations say; tell whether it is so."""
        return self._lock_file.hold(owners.AUTOMATIONS_BYTE)

    def leave_automations(self) -> None:
        """Let another process do what automations say."""
        self._lock_file.release(owners.AUTOMATIONS_BYTE)

    def lead_notifications(self) -> bool:
        """Become, or stay, the one process of this journal that sends notifications; tell whether it is so."""
        return self._lock_file.hold(owners.NOTIFICATIONS_BYTE)

    def leave_notifications(self) -> None:
        """Let another process send notifications."""
        self._lock_file.release(owners.NOTIFICATIONS_BYTE)

    def probe_commits(self, probe: CommitProbe) -> None:
        """Have a function called just before and just after each commit from now on: for tests that crash there."""
        self._writer.probe = probe

    def also_probe_commits(self, probe: CommitProbe) -> None:
        """Tell `probe` too, after whoever is told already. It must neither block nor raise."""
        told = self._writer.probe
        self._writer.probe = probe if told is None else BothProbes(told, probe)

    def witness_commits(self, witness: Callable[[Sequence[Change]], None] | None) -> None:
        """Tell `witness` of the changes of each commit, just after it; None: no longer. It must neither block nor raise."""
        self._writer.witness = witness

    # ---- names to ids

    def flow_id(self, name: str, description: str | None) -> int:
        """Return the id of a flow's name, registered at the first use."""
        return self._id(
            ("flow", name),
            "INSERT INTO flow (name, description, first_seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (name, description, self.clock.now_text()),
            "SELECT id FROM flow WHERE name = ?",
            (name,),
        )

    def task_id(self, kind: str, key: str, name: str) -> int:
        """Return the id of a task key; `kind` is 'task', or 'flow' for a flow called inside a run."""
        known = self._ids.get((kind + ":", key))
        if known is not None:
            return known
        return self._id(
            (kind + ":", key),
            "INSERT INTO task (kind, key, name, first_seen_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (kind, key, name, self.clock.now_text()),
            "SELECT id FROM task WHERE kind = ? AND key = ?",
            (kind, key),
        )

    def known_task_key(self, task_id: int) -> str:
        """Return the task key that this process registered under an id, '' for none. Reads nothing."""
        return next((key for (kind, key), id_ in self._ids.items() if id_ == task_id and kind in ("task:", "flow:")), "")

    def code_id(self, code_hash: str, source: str | None) -> int:
        """Return the id of a version of a flow's code."""
        return self._id(
            ("code", code_hash),
            "INSERT INTO code (hash, source) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (code_hash, source),
            "SELECT id FROM code WHERE hash = ?",
            (code_hash,),
        )

    def _id(
        self, cache_key: tuple[str, str], insert: str, values: tuple[object, ...], select: str, by: tuple[object, ...]
    ) -> int:
        known = self._ids.get(cache_key)
        if known is None:
            row = self.records.row(select, by)
            if row is None:
                self.write(_Statement(insert, values), synced=False)
                row = self.records.row(select, by)
            known = int(cast(int, row[0]))  # type: ignore[index]  # just inserted
            if not self._writer.is_inside:  # a name that is registered there may be rolled back, and its id given to another
                self._ids[cache_key] = known
        return known

    # ---- appending what needs no guard

    def put_value(self, encoded_columns: tuple[object, ...]) -> None:
        """Store a value by itself: hash, codec, data, size, type, preview."""
        self.write(
            _Statement(
                "INSERT OR IGNORE INTO value (hash, codec, data, size, python_type, preview, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*encoded_columns, self.clock.now_text()),
            ),
            synced=False,
        )

    def put_log(self, flow_run_id: int, task_run_id: int | None, level: int, logger: str, message: str) -> None:
        """Append a log line; committed with the next commit, at the latest some tens of milliseconds later."""
        self.post(
            _Statement(
                "INSERT INTO log (flow_run_id, task_run_id, at, level, logger, message) VALUES (?, ?, ?, ?, ?, ?)",
                (flow_run_id, task_run_id, self.clock.now_text(), level, logger, message),
            )
        )

    def put_hook_run(self, flow_run_id: int, task_run_id: int, seq: int, hook: str, name: str, error: str | None) -> None:
        """Note that a hook was called for a transition; committed at once. `error` is what it raised."""
        self.write(
            _Statement(
                "INSERT OR REPLACE INTO hook_run (flow_run_id, task_run_id, seq, hook, name, error, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (flow_run_id, task_run_id, seq, hook, utf8_text(name), error and shown_text(error), self.clock.now_text()),
            ),
            synced=False,
        )

    # ---- who lives

    def find_owner(self, owner_id: int) -> OwnerRow | None:
        """Return the owner row, or None."""
        row = self.records.row(
            "SELECT id, pid, host, boot_id, process_started, role, started_at, ended_at FROM owner WHERE id = ?", (owner_id,)
        )
        return None if row is None else OwnerRow._make(row)

    def list_open_runs(self, flow_name: str | None = None) -> list[OpenRunRow]:
        """Return flow runs that began and are not finished (crashed and paused ones too), oldest first."""
        columns = (
            "SELECT r.id, r.name, f.name, r.parent_task_run_id,"
            " (SELECT p.flow_run_id FROM task_run p WHERE p.id = r.parent_task_run_id), r.state, r.version, r.epoch, r.owner_id"
            " FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE (? IS NULL OR f.name = ?)"
        )
        # Two questions, each with an index of its own: thousands of runs that wait in queues are not looked at.
        rows = self.records.rows(
            f"{columns} AND r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
            " AND r.state IN ('RUNNING', 'PENDING', 'PAUSED', 'CANCELLING', 'CRASHED')"
            f" UNION ALL {columns} AND r.state = 'SCHEDULED' AND r.owner_id IS NOT NULL ORDER BY 1",
            (flow_name,) * 4,
        )
        return [OpenRunRow._make(row) for row in rows]

    def sweep(self, is_abandoned_here: Callable[[int], bool], among: Sequence[OpenRunRow] | None = None) -> list[int]:
        """Mark runs whose process is dead as CRASHED; return their ids.

        `is_abandoned_here` tells, for a run of this process, whether it stopped executing it without recording so.
        `among`: the runs to look at, default all.
        """
        dead: list[int] = []
        alive: dict[int, bool] = {}
        for run in self.list_open_runs() if among is None else among:
            if run.state not in ("RUNNING", "CANCELLING", "SCHEDULED") or run.owner_id is None:
                continue
            if run.owner_id == self._owner_id:
                lives = not is_abandoned_here(run.id)
            else:
                lives = alive.setdefault(run.owner_id, False) or self.is_owner_alive(run.owner_id)
                alive[run.owner_id] = lives
            if not lives and self.crash(run.id, run.version, run.epoch, self._death_message(run.owner_id)):
                dead.append(run.id)
        return dead

    def crash(self, flow_run_id: int, version: int, epoch: int, message: str, *, counts: bool = True) -> bool:
        """Mark one run as CRASHED; False if somebody else changed it meanwhile."""
        change = CrashFlowRun(
            flow_run_id, version=version, epoch=epoch, at=self.clock.now_text(), message=message, counts=counts
        )
        try:
            self.write(change, synced=True)
        except WriteRefused:
            return False
        return True

    def _death_message(self, owner_id: int) -> str:
        owner = self.find_owner(owner_id)
        if owner is None:
            return "its process is gone"
        if owner.boot_id is not None and owner.boot_id != owners.boot_id():
            return f"the machine was restarted while process {owner.pid} ran it"
        return f"process {owner.pid} ({owner.role}) died while running it"

    # ---- the end

    def close(self) -> None:
        """Say that this process ends, commit what is queued, and close the file. Idempotent."""
        _OPEN.pop(str(self.path), None)
        try:
            ended = "UPDATE owner SET ended_at = ? WHERE id = ?"
            at = self.clock.now_text()
            self._writer.close(None if self._owner_id is None else _Statement(ended, (at, self._owner_id)))
        finally:
            self.changes.close()
            if self._owner_id is not None:
                self._lock_file.release(self._owner_id)
                self._owner_id = None
            self._lock_file.close()

    def hold_for_fork(self) -> None:
        """Called before a fork."""
        self._writer.hold_for_fork()
        self.changes.hold_for_fork()

    def release_after_fork(self) -> None:
        """Called in the parent after a fork."""
        self.changes.release_after_fork()
        self._writer.release_after_fork()

    def abandon_in_child(self) -> bool:
        """Called in a forked child; tells whether the child may open the file itself."""
        self.changes.abandon_in_child()
        return self._writer.abandon_in_child()


class _RegisterOwner:
    """Insert this process's owner row. Sets `owner_id`."""

    __slots__ = ("columns", "owner_id")

    def __init__(self, columns: tuple[object, ...]) -> None:
        self.columns = columns
        self.owner_id = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "INSERT INTO owner (pid, host, boot_id, process_started, role, started_at) VALUES (?, ?, ?, ?, ?, ?)", self.columns
        )
        self.owner_id = int(cursor.lastrowid or 0)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return connection.execute("SELECT 1 FROM owner WHERE id = ?", (self.owner_id,)).fetchone() is not None


#: The journals this process has open, by absolute path. A file must be opened once only: see `connection`.
_OPEN: dict[str, Journal] = {}
_OPEN_LOCK = threading.Lock()
#: In a forked child: journals of the parent, kept so that who still refers to one gets ForkedProcessError from it.
_LEFT_TO_PARENT: list[Journal] = []
_FORKING: set[int] = set()  # threads that hold the lock while they fork
#: In a forked child: files that it must not open, since a copy of a connection of the parent's is still open to them.
_HELD_BY_PARENT: set[str] = set()


def open_journal(path: Path, clock: Clock | None = None) -> Journal:
    """Return the open journal of that file, opened (and created) if need be."""
    real = Path(os.path.realpath(path))
    journal = _OPEN.get(str(real))
    if journal is not None:
        return journal
    if str(real) in _HELD_BY_PARENT:
        raise ForkedProcessError(
            f"This process was forked while its parent was reading or writing the journal {real}, so it cannot open it safely. "
            "Start flows in a process of its own (multiprocessing 'spawn', or subprocess)."
        )
    with _OPEN_LOCK:
        journal = _OPEN.get(str(real))
        if journal is None:
            journal = _OPEN[str(real)] = Journal(real, clock or SystemClock())
        return journal


def flush_open(path: Path) -> None:
    """Commit what this process has queued for a journal, if it has it open: who reads the file next sees it."""
    journal = _OPEN.get(os.path.realpath(path))
    if journal is not None:
        journal.flush()


def close_open(path: Path) -> None:
    """Close a journal, if this process has it open: its file is to be looked at by other means than SQLite's."""
    journal = _OPEN.get(os.path.realpath(path))
    if journal is not None:
        journal.close()


def close_all() -> None:
    """Close every open journal of this process."""
    for journal in list(_OPEN.values()):
        journal.close()


def _after_fork_in_child() -> None:
    global _OPEN_LOCK
    _OPEN_LOCK = threading.Lock()
    _FORKING.clear()
    _HELD_BY_PARENT.update(open_readers())
    for path, journal in _OPEN.items():
        if not journal.abandon_in_child():
            _HELD_BY_PARENT.add(path)
        _LEFT_TO_PARENT.append(journal)
    _OPEN.clear()


def _before_fork() -> None:
    if _OPEN_LOCK.acquire(timeout=FORK_WAIT_SECONDS):  # a thread may be opening a file, half of which a child would inherit
        _FORKING.add(threading.get_ident())
    if _OPEN:
        for name in _IMPORTED_LATE:
            import_module(name)
    for journal in list(_OPEN.values()):
        journal.hold_for_fork()


def _after_fork_in_parent() -> None:
    for journal in list(_OPEN.values()):
        journal.release_after_fork()
    if threading.get_ident() in _FORKING:
        _FORKING.remove(threading.get_ident())
        _OPEN_LOCK.release()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
