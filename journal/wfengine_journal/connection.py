"""The one door to the file: every SQLite connection of wfengine is opened here, with the same pragmas.

A file is looked at through a read-only connection before anything opens it for writing, so that a file of somebody
else's, or of a later wfengine, is left byte for byte as it was. Never open, copy or hash a journal by other means in a
process that holds a connection: closing any descriptor of the file drops SQLite's POSIX locks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from wfengine_journal.errors import (
    JournalBusyError,
    JournalCorruptError,
    JournalError,
    JournalNotFoundError,
    JournalUnwritableError,
    NewerJournalError,
    NotAJournalError,
    WfengineError,
)
from wfengine_journal.location import prepare_folder, refuse_network_file_system

#: "WFEN" in ASCII: what `file journal.db` and other tools show as the application id.
APPLICATION_ID = 0x5746454E
#: The format this code writes; mirrored in `PRAGMA user_version`.
FORMAT_VERSION = 4
#: How often the switch to write-ahead logging is tried beside other processes that create the same file.
WAL_TRIES = 100
#: How long SQLite itself waits for another process's write lock before it reports BUSY, in milliseconds.
BUSY_TIMEOUT_MS = 10_000
#: What SQLite reports: for Python, that it has no memory left is not an error of SQLite's.
REPORTS = (sqlite3.Error, MemoryError)
#: How often a BUSY write is tried again: with the timeout above, about ten minutes in all.
BUSY_TRIES = 60
#: Bytes of a page of a new file. A commit writes whole pages, and a task changes five short rows in five pages: half of
#: SQLite's default makes a task a tenth cheaper. Smaller still would put rows with results of 1 KB on overflow pages.
PAGE_BYTES = 2048
#: The SQLite version in which the WAL-reset bug is mended; `doctor` names it.
WAL_RESET_FIXED = (3, 51, 3)
#: Virtual-machine steps of SQLite between two looks at whether Ctrl-C was pressed; about a millisecond.
STEPS_BETWEEN_LOOKS = 20_000


class _Reader(sqlite3.Connection):
    """A read-only connection, known while it is open: a child that is forked meanwhile must not open the file."""

    path: Path

    def close(self) -> None:
        super().close()
        _READERS.discard(self)


_READERS: weakref.WeakSet[_Reader] = weakref.WeakSet()


def open_readers() -> set[str]:
    """Return the files to which this process has a read-only connection open at this moment."""
    return {os.path.realpath(reader.path) for reader in list(_READERS)}


def uri(path: Path, mode: str) -> str:
    """Return the SQLite URI of a file with a mode such as 'ro' or 'rw'."""
    return f"file:{quote(str(path))}?mode={mode}"


def open_writer(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open the file for writing, created empty with mode 0600 if missing; return it and its format version.

    The version is 0 for a file that holds nothing yet. Raises a JournalError that says why not.
    """
    refuse_network_file_system(path)
    if path.is_dir():
        raise NotAJournalError(f"{path} is a folder. Name the journal file itself, such as {path / 'journal.db'}.")
    if path.exists():
        version = inspect_file(path)
    else:
        prepare_folder(path)
        _create_file(path)
        version = 0
    try:
        connection = sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None, check_same_thread=False, timeout=0)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if version == 0:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _set_pragmas(connection, path)
    except REPORTS as error:
        raise explain(error, path) from error
    return connection, version


def _create_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return  # another process was quicker; both now open the same empty file
    except OSError as error:
        raise JournalUnwritableError(
            f"The journal {path} cannot be created: {error.strerror}. Name another place with --journal or WFENGINE_JOURNAL."
        ) from error


def _set_pragmas(connection: sqlite3.Connection, path: Path) -> None:
    mode = _use_wal(connection)
    if mode != "wal":
        raise JournalUnwritableError(
            f"The journal {path} cannot use write-ahead logging (SQLite answered {mode!r}). Put it on a local disk."
        )
    for pragma in (
        "synchronous = NORMAL",  # the writer raises it to FULL for each commit that must survive a power cut
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "mmap_size = 0",
        "wal_autocheckpoint = 0",  # only the writer checkpoints, one process at a time
    ):
        connection.execute("PRAGMA " + pragma)


def _use_wal(connection: sqlite3.Connection) -> str:
    """Switch to write-ahead logging and return the mode that SQLite answers.

    Where several processes create one file at once, SQLite reports busy for this switch without waiting, so as not to wait
    in a circle. A transaction does wait, for whoever has the lock; after it the switch is tried again.
    """
    for _ in range(WAL_TRIES):
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])


def inspect_file(path: Path) -> int:
    """Return the format version of an existing file without changing a byte; 0 for an empty database.

    Raises NotAJournalError, NewerJournalError, JournalCorruptError or JournalUnwritableError.
    """
    try:
        connection = open_reader(path)
        try:
            connection.execute("BEGIN")  # one look: another process may be creating the journal just now
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        finally:
            connection.close()
    except REPORTS as error:
        raise explain(error, path) from error
    if application != APPLICATION_ID and (tables or application or version):
        raise NotAJournalError(
            f"{path} is a SQLite database, but not a wfengine journal. It was not changed. "
            "Name the journal with --journal or WFENGINE_JOURNAL."
        )
    if version > FORMAT_VERSION:
        raise NewerJournalError(
            f"The journal {path} has format {version}; this wfengine knows formats up to {FORMAT_VERSION}. "
            "It was not changed. Upgrade wfengine: pip install -U wfengine"
        )
    return version


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing file read-only; rows come as sqlite3.Row. Never blocks a writer, never writes.

    In a folder that cannot be written, a journal that was closed cleanly is read as immutable.
    """
    if not path.exists():
        raise JournalNotFoundError(
            f"There is no journal at {path}. Run a flow first (wfengine run FILE), or name the journal with --journal."
        )
    connection = _connect_reader(path, uri(path, "ro"))
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        if primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
            raise
        if Path(f"{path}-wal").exists():
            raise
        connection = _connect_reader(path, uri(path, "ro") + "&immutable=1")
    except UnicodeDecodeError as error:
        connection.close()
        raise explain(error, path) from error
    except sqlite3.Error:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def open_beside_journal(path: Path, mode: str, pragmas: Sequence[str] = ()) -> sqlite3.Connection:
    """Open a file that stands beside a journal and is none, with a mode such as 'ro' or 'rw'."""
    connection = sqlite3.connect(uri(path, mode), uri=True, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", *pragmas):
            connection.execute("PRAGMA " + pragma)
    except BaseException:  # it may be no database at all
        connection.close()
        raise
    return connection


def create_beside(path: Path) -> sqlite3.Connection:
    """Open a file that stands beside a journal and is none for writing, made with mode 0600 if missing."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    pragmas = ("secure_delete = ON", "trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL")
    return open_beside_journal(path, "rw", pragmas)


def open_in_memory() -> sqlite3.Connection:
    """Open a database that is in no file."""
    return sqlite3.connect(":memory:", isolation_level=None)


def open_beside(path: Path, source: Path) -> sqlite3.Connection:
    """Open a new, empty file that nobody else knows, with an existing journal attached to it, to read, as `source`.

    Made for building a copy quickly: nothing is synced, and what fails in the middle leaves a file to be deleted.
    """
    connection = sqlite3.connect(uri(path, "rw"), uri=True, isolation_level=None, check_same_thread=False, factory=_Reader)
    connection.path = source
    _READERS.add(connection)
    try:
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = OFF",
            "synchronous = OFF",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
        ):
            connection.execute("PRAGMA " + pragma)
        _attach_reader(connection, source)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _attach_reader(connection: sqlite3.Connection, source: Path) -> None:
    """Attach a journal to read; in a folder that cannot be written, one that was closed cleanly as immutable."""
    try:
        connection.execute("ATTACH ? AS source", (uri(source, "ro"),))
        connection.execute("SELECT 1 FROM source.sqlite_schema LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        if primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
            raise
        if Path(f"{source}-wal").exists():
            raise
        if any(row[1] == "source" for row in connection.execute("PRAGMA database_list").fetchall()):
            connection.execute("DETACH source")
        connection.execute("ATTACH ? AS source", (uri(source, "ro") + "&immutable=1",))


def raise_if_damaged(path: Path, error: Exception) -> None:
    """Raise JournalCorruptError from an error that came of reading a file, if SQLite finds the file damaged."""
    if isinstance(error, WfengineError):
        return
    try:
        with closing(sqlite3.connect(uri(path, "ro"), uri=True)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0]).strip().replace("\n", " ")
    except sqlite3.Error as damage:
        raise explain(damage, path) from error
    if found != "ok":
        raise JournalCorruptError(
            f"The journal {path} is damaged ({found}). Keep a copy of it and its -wal file, then run: wfengine doctor"
        ) from error


def heed_signals(connection: sqlite3.Connection) -> None:
    """Let Ctrl-C end a statement, also one of a view without an end: SQLite then reports SQLITE_INTERRUPT."""
    connection.set_progress_handler(_look_at_signals, STEPS_BETWEEN_LOOKS)


def _look_at_signals() -> int:
    """Let Python handle a pending Ctrl-C: an exception in here makes SQLite stop."""
    return 0


def _connect_reader(path: Path, address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, factory=_Reader)
    connection.path = path
    _READERS.add(connection)
    return connection


def primary_code(error: sqlite3.Error) -> int:
    """Return the primary result code (SQLITE_BUSY, SQLITE_IOERR ...) of an error, 0 where it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def explain(error: sqlite3.Error | UnicodeDecodeError | MemoryError, path: Path) -> JournalError:
    """Return the JournalError that says in plain words what SQLite reported about the file, and what to do."""
    if isinstance(error, MemoryError):
        return JournalUnwritableError(
            f"There was no memory left to read or write the journal {path}. Nothing recorded is lost. See the limits of this "
            "process (ulimit -a) and what else runs there, then run: wfengine resume --all"
        )
    if isinstance(error, UnicodeDecodeError):  # a report that quotes damaged text, of the tables' definitions for instance
        return explain(_unreadable_report(), path)
    code = primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return NotAJournalError(f"{path} is not a SQLite database. It was not changed. Name the journal with --journal.")
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalCorruptError(
            f"The journal {path} is damaged ({error}). Keep a copy of it and its -wal file, then run: wfengine doctor"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalBusyError(
            f"Another process has held the write lock of {path} too long. See who has it open (lsof {path}), then try again."
        )
    if code == sqlite3.SQLITE_FULL:
        return JournalUnwritableError(
            f"The disk of the journal {path} is full ({_free_bytes(path)}). Nothing recorded is lost. "
            "Make room, then run: wfengine resume --all"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return JournalUnwritableError(
            f"The journal {path} cannot be written here ({error}): the file or its folder is read-only for this user."
        )
    if code == sqlite3.SQLITE_IOERR:
        return JournalUnwritableError(
            f"The disk failed under the journal {path} ({error}; {_free_bytes(path)}). Nothing acknowledged is lost. "
            "Check the disk, then run: wfengine resume --all"
        )
    return JournalError(f"SQLite reported about the journal {path}: {error}")


def _unreadable_report() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("a definition or a text in it is not UTF-8")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _free_bytes(path: Path) -> str:
    import shutil

    try:
        return f"{shutil.disk_usage(path.parent).free:,} bytes free"
    except OSError:
        return "free space unknown"
