"""Copy one flow run, with all that belongs to it, into a small journal of its own.

The source is only read, in one transaction, so it may be in use, and the run may be going on. The copy is built beside its
place and put there when it is whole. Ids and the journal's id are kept, so that a call has the same idempotency key in both
files. What is not of the run stays behind: variables, deployments, cache entries, tables of the user's own, and files that
`result_storage` keeps (the copy refers to them as the source does).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wfengine_journal import owners, schema
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.connection import FORMAT_VERSION, explain, inspect_file, open_beside, open_reader, open_writer
from wfengine_journal.errors import JournalNotFoundError, JournalUnwritableError, NotFoundError, UsageError
from wfengine_journal.location import prepare_folder
from wfengine_journal.run_rows import (
    ERROR_REFERENCES,
    RUN_TABLES,
    VALUE_REFERENCES,
    columns_of,
    run_family,
)
from wfengine_journal.run_transitions import CrashFlowRun


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an extract holds: the flow run and its subflow runs by id, the number of calls, and the bytes of the file."""

    run_ids: tuple[int, ...]
    task_runs: int
    bytes: int


def extract_run(
    source: Path, run_id: int, target: Path, *, overwrite: bool = False, synced: bool = True, clock: Clock | None = None
) -> Extracted:
    """Write a new journal that holds one flow run of another journal with its subflow runs.

    A run that is being executed arrives as CRASHED, with the calls that were going on cut off. `synced` waits for the disk.
    Raises NotFoundError, JournalError, and UsageError if the target exists.
    """
    used = clock or SystemClock()
    with in_present_format(source) as readable, new_file(target, overwrite=overwrite, synced=synced) as building:
        try:
            with closing(open_beside(building, readable)) as connection:
                schema.create(connection, used, owners.role())
                found = _copy(connection, source, run_id, used)
                connection.execute("DETACH source")
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as error:
            raise explain(error, source) from error
    return Extracted(tuple(found), found.task_runs, target.stat().st_size)


@contextmanager
def in_present_format(source: Path) -> Iterator[Path]:
    """Yield the path of a journal to read in the present format: its own, or a private copy of an older one, brought up to it.

    Raises the JournalError that says why the file cannot be read.
    """
    version = inspect_file(source)
    if version == 0:
        raise JournalNotFoundError(f"The journal {source} is empty. Run a flow first: wfengine run FILE")
    if version == FORMAT_VERSION:
        yield source
        return
    with TemporaryDirectory(prefix="wfengine-") as folder:  # mode 0700
        copy = Path(folder) / "journal.db"
        with closing(open_reader(source)) as connection:
            schema.backup(connection, copy)
        upgraded, _ = open_writer(copy)
        with closing(upgraded):
            schema.upgrade(upgraded, copy, version)
        yield copy


@contextmanager
def new_file(target: Path, *, overwrite: bool, synced: bool = True) -> Iterator[Path]:
    """Yield the path of a new, private, empty file beside the target, which takes its place if the block succeeds.

    Raises UsageError if the target exists and is not to be overwritten, or is a journal in use.
    """
    _refuse_existing(target, overwrite)
    prepare_folder(target)
    building = target.with_name(f"{target.name}.{os.urandom(4).hex()}.part")
    try:
        os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise JournalUnwritableError(f"{target} cannot be written: {error.strerror}. Name another place.") from error
    try:
        yield building
        if synced:
            _sync_file(building, target)
        _put_in_place(building, target, overwrite)
        if synced:
            _sync_folder(target.parent)
    finally:
        for left in (building, *(Path(f"{building}{end}") for end in ("-wal", "-shm", "-journal"))):
            left.unlink(missing_ok=True)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target} is a folder. Name the file to write, such as {target / 'copy.db'}.")
    if not overwrite and os.path.lexists(target):
        raise UsageError(f"{target} exists and is not overwritten. Name another file, or add --force.")
    log = Path(f"{target}-wal")
    if log.exists() and log.stat().st_size:  # an empty one was left by somebody who only read
        raise UsageError(f"{target} is in use: {log.name} beside it holds a part of it. Name another file.")


def _put_in_place(building: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        building.replace(target)
        return
    try:
        os.link(building, target)  # refuses, in one step, what was made there meanwhile
    except FileExistsError:
        _refuse_existing(target, overwrite=False)
        raise
    except OSError:  # a file system without hard links
        _refuse_existing(target, overwrite=False)
        building.rename(target)


def _sync_file(building: Path, target: Path) -> None:
    try:
        descriptor = os.open(building, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JournalUnwritableError(
            f"{target} was not written: the disk failed when it was to be synced ({error.strerror}). Name another place."
        ) from error


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a folder cannot be synced on every system
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Family(list[int]):
    """The flow runs that were copied, and the number of their calls."""

    task_runs = 0


def _copy(connection: sqlite3.Connection, source: Path, run_id: int, clock: Clock) -> _Family:
    connection.execute("PRAGMA foreign_keys = OFF")  # rows refer to each other in a circle; the source's references hold
    connection.execute("BEGIN")  # everything below sees one state of the source
    found = _Family(run_family(connection, run_id, "source"))
    if not found:
        raise NotFoundError(f"There is no flow run {run_id} in {source}. See them with: wfengine runs ls")
    connection.execute("CREATE TEMP TABLE picked (id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO picked VALUES (?)", [(each,) for each in found])
    _copy_runs(connection, run_id)
    for table in RUN_TABLES:
        _copy_rows(connection, table, "flow_run_id IN (SELECT id FROM picked)")
    within = "flow_run_id IN (SELECT id FROM picked) AND needs_run_id IN (SELECT id FROM picked)"
    _copy_rows(connection, "dependency", within)
    _copy_what_is_referred_to(connection)
    _stop_what_runs(connection, clock)
    _describe(connection, run_id, clock)
    found.task_runs = int(connection.execute("SELECT count(*) FROM main.task_run").fetchone()[0])
    connection.execute("COMMIT")
    return found


def _copy_runs(connection: sqlite3.Connection, run_id: int) -> None:
    _copy_rows(connection, "flow_run", "id IN (SELECT id FROM picked)")
    # A subflow run that is copied without the call that started it is a run of its own.
    connection.execute("UPDATE flow_run SET parent_task_run_id = NULL WHERE id = ?", (run_id,))
    # Ids that the source had given away are not given to other runs here.
    connection.execute(
        "UPDATE main.sqlite_sequence SET seq = (SELECT s.seq FROM source.sqlite_sequence s WHERE s.name = 'flow_run')"
        " WHERE name = 'flow_run' AND seq < (SELECT s.seq FROM source.sqlite_sequence s WHERE s.name = 'flow_run')"
    )


def _copy_rows(connection: sqlite3.Connection, table: str, condition: str) -> None:
    names = ", ".join(columns_of(connection, table))
    connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM source.{table} WHERE {condition}")


def _copy_what_is_referred_to(connection: sqlite3.Connection) -> None:
    _copy_rows(connection, "owner", "id IN (SELECT owner_id FROM main.flow_run UNION SELECT owner_id FROM main.execution)")
    _copy_rows(connection, "flow", "id IN (SELECT flow_id FROM main.flow_run)")
    _copy_rows(connection, "deployment", "id IN (SELECT deployment_id FROM main.flow_run)")
    _copy_rows(connection, "task", "id IN (SELECT task_id FROM main.task_run UNION SELECT task_id FROM main.task_code)")
    _copy_rows(connection, "code", "id IN (SELECT code_id FROM main.execution)")
    _copy_keyed(connection, "error", "id", [(table, column, "") for table, column in ERROR_REFERENCES])
    _copy_keyed(connection, "value", "hash", VALUE_REFERENCES)


def _copy_keyed(connection: sqlite3.Connection, table: str, key: str, references: Sequence[tuple[str, str, str]]) -> None:
    """Copy the rows of a table to which the columns of what was copied refer."""
    connection.execute(f"CREATE TEMP TABLE wanted_{table} (key ANY PRIMARY KEY) STRICT, WITHOUT ROWID")
    for referring, column, inline in references:
        outside = f"AND {inline} IS NULL" if inline else ""
        connection.execute(
            f"INSERT OR IGNORE INTO wanted_{table} SELECT {column} FROM main.{referring} WHERE {column} IS NOT NULL {outside}"
        )
    names = ", ".join(columns_of(connection, table))
    connection.execute(
        f"INSERT INTO main.{table} ({names})"
        f" SELECT {names} FROM wanted_{table} w CROSS JOIN source.{table} s ON s.{key} = w.key"
    )


def _stop_what_runs(connection: sqlite3.Connection, clock: Clock) -> None:
    """Let no process of the source count as the one that executes a run of the copy."""
    for flow_run_id, version, epoch, pid, host in connection.execute(
        "SELECT r.id, r.version, r.epoch, o.pid, o.host FROM main.flow_run r JOIN main.owner o ON o.id = r.owner_id"
        " WHERE r.state IN ('RUNNING', 'SCHEDULED', 'PENDING', 'CANCELLING') ORDER BY r.id"
    ).fetchall():
        message = f"copied by extract while process {pid} on {host} counted as executing it"
        CrashFlowRun(flow_run_id, version=version, epoch=epoch, at=clock.now_text(), message=message, counts=False).apply(
            connection
        )
    connection.execute("UPDATE main.owner SET ended_at = ? WHERE ended_at IS NULL", (clock.now_text(),))


def _describe(connection: sqlite3.Connection, run_id: int, clock: Clock) -> None:
    connection.execute(
        "UPDATE main.meta SET value = (SELECT value FROM source.meta WHERE key = 'journal_id') WHERE key = 'journal_id'"
    )
    connection.executemany(
        "INSERT INTO main.meta (key, value) VALUES (?, ?)",
        [("extracted_run", str(run_id)), ("extracted_at", clock.now_text())],
    )
