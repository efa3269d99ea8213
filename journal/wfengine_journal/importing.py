"""Take flow runs of another journal into this one, in one transaction, under new ids.

A run that was going on arrives as CRASHED, and one that slept waits for a person: importing starts nothing. Owners, flows,
tasks and versions of code are found by what they are, not by their ids; a process of the other journal counts as ended.
Values are taken only if they match their checksums, since a value here is shared by all runs that have it. Nothing is turned
back into an object. The other journal is only read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wfengine_journal.clock import Clock
from wfengine_journal.codec import value_hash
from wfengine_journal.connection import explain, open_reader
from wfengine_journal.errors import JournalCorruptError, NotFoundError, UsageError
from wfengine_journal.extraction import in_present_format
from wfengine_journal.run_rows import (
    ERROR_REFERENCES,
    RUN_TABLES,
    VALUE_REFERENCES,
    begin_copying,
    columns_of,
    end_copying,
    run_family,
)
from wfengine_journal.run_transitions import CrashFlowRun
from wfengine_journal.store import Journal

#: Tables whose ids mean nothing elsewhere: their rows are numbered anew.
NUMBERED_ANEW = frozenset({"log", "artifact", "message"})
#: Why a run that was not at its end arrives as crashed.
CUT_OFF = "imported while it was not at its end; a resume goes on with it here"


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A flow run that was taken in, or that was there already."""

    run_id: int  # in this journal
    origin_run_id: int  # in the other
    name: str
    state: str
    is_new: bool  # False: it was there already, and was left as it is
    key_taken_by: int | None = None  # it came without its idempotency key, which this run has


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: the runs that were named (or all), their subflow runs, and the calls in them."""

    runs: tuple[ImportedRun, ...]
    subflow_runs: int
    task_runs: int


def import_runs(journal: Journal, source: Path, run_ids: Sequence[int] = (), *, again: bool = False) -> Imported:
    """Take runs of the journal `source` into this one (default: all), with their subflow runs; all of them or none.

    A run that was imported before, or that comes from this very journal and is still here, is left out unless `again`.
    Raises NotFoundError, JournalCorruptError for a file that is not whole, JournalError for one that cannot be read.
    """
    if source.exists() and journal.path.samefile(source):
        raise UsageError(f"{source} is the journal that the runs are to be imported into. Name another file.")
    with in_present_format(source) as readable, closing(open_reader(readable)) as other:
        other.row_factory = None
        try:
            other.execute("BEGIN")
            chosen = _families(other, source, run_ids)
        except sqlite3.Error as error:
            raise explain(error, source) from error
        change = _ImportRuns(other, source, chosen, again=again, clock=journal.clock)
        try:
            journal.write(change, synced=True)
        except sqlite3.IntegrityError as error:
            raise JournalCorruptError(
                f"The journal {source} is not whole: {error}. Nothing was imported. Rescue what can be read with: "
                f"wfengine recover {source}"
            ) from error
        return change.done()


def _families(other: sqlite3.Connection, source: Path, run_ids: Sequence[int]) -> dict[int, list[int]]:
    """Return the runs to import, each with its family."""
    if not run_ids:
        rows = other.execute(
            "SELECT id FROM flow_run WHERE parent_task_run_id IS NULL"
            " OR parent_task_run_id NOT IN (SELECT id FROM task_run) ORDER BY id"
        )
        run_ids = [int(row[0]) for row in rows.fetchall()]
    families = {run_id: run_family(other, run_id) for run_id in dict.fromkeys(run_ids)}
    for run_id, family in families.items():
        if not family:
            raise NotFoundError(
                f"There is no flow run {run_id} in {source}. See them with: wfengine runs ls --journal {source}"
            )
    inside = {child for run_id, family in families.items() for child in family if child != run_id}
    return {run_id: family for run_id, family in families.items() if run_id not in inside}


class _ImportRuns:
    """The one change that an import is. It may be applied again when its transaction was rolled back."""

    def __init__(
        self, other: sqlite3.Connection, source: Path, families: dict[int, list[int]], *, again: bool, clock: Clock
    ) -> None:
        self._other = other
        self._source = source
        self._families = families
        self._again = again
        self._clock = clock
        self._runs: list[ImportedRun] = []
        self._subflow_runs = 0
        self._task_runs = 0

    def done(self) -> Imported:
        """Return what the applied change did."""
        return Imported(tuple(self._runs), self._subflow_runs, self._task_runs)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the runs are in the file."""
        new = [run for run in self._runs if run.is_new]
        question = "SELECT 1 FROM flow_run WHERE id = ? AND origin = 'import' AND origin_run_id = ?"
        return not new or connection.execute(question, (new[0].run_id, new[0].origin_run_id)).fetchone() is not None

    def apply(self, connection: sqlite3.Connection) -> None:
        """Copy the families that are not here yet."""
        self._runs, self._subflow_runs, self._task_runs = [], 0, 0
        origin = str(_first(self._read("SELECT value FROM meta WHERE key = 'journal_id'")) or "unknown")
        wanted: list[int] = []
        for run_id, family in self._families.items():
            known = None if self._again else _find_imported(connection, origin, self._head(run_id))
            if known is None:
                wanted += family
            else:
                self._runs.append(known)
        if wanted:
            self._copy(connection, origin, sorted(wanted))

    def _copy(self, connection: sqlite3.Connection, origin: str, run_ids: list[int]) -> None:
        begin_copying(connection)
        places = _Places(connection, self._read, run_ids, self._clock.now_text())
        writer = _Writing(connection, self._read, places)
        keys = writer.write_flow_runs(run_ids)
        for table in RUN_TABLES:
            for run_id in run_ids:
                written = writer.write_rows(table, run_id)
                self._task_runs += written if table == "task_run" else 0
        writer.write_dependencies(run_ids)
        writer.join_subflows(run_ids)
        self._write_values(connection, writer.hashes)
        for run_id in run_ids:
            self._settle(connection, places.runs[run_id])
            if run_id in self._families:
                self._report(connection, places.runs[run_id], run_id, keys.get(run_id))
            else:
                self._subflow_runs += 1
            connection.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                (f"imported:{origin}:{run_id}", str(places.runs[run_id])),
            )
        end_copying(connection)

    def _settle(self, connection: sqlite3.Connection, run_id: int) -> None:
        """Let a run that was not at its end be one that a person can resume."""
        state, version, epoch = connection.execute(
            "SELECT state, version, epoch FROM flow_run WHERE id = ?", (run_id,)
        ).fetchone()
        if state in ("RUNNING", "SCHEDULED", "PENDING", "CANCELLING"):
            CrashFlowRun(run_id, version=version, epoch=epoch, at=self._clock.now_text(), message=CUT_OFF, counts=False).apply(
                connection
            )
        # The file that it came of may go on with it, so nobody here does by himself, whatever deployment or queue it has.
        connection.execute("UPDATE flow_run SET crashes = -1 WHERE id = ? AND state = 'CRASHED'", (run_id,))

    def _report(self, connection: sqlite3.Connection, run_id: int, origin_run_id: int, key_taken_by: int | None) -> None:
        name, state = connection.execute("SELECT name, state FROM flow_run WHERE id = ?", (run_id,)).fetchone()
        self._runs.append(ImportedRun(run_id, origin_run_id, name, state, is_new=True, key_taken_by=key_taken_by))

    def _write_values(self, connection: sqlite3.Connection, hashes: Iterable[bytes]) -> None:
        names = columns_of(connection, "value")
        marks = ", ".join("?" * len(names))
        for hash_ in hashes:
            row = _first_row(self._read(f"SELECT {', '.join(names)} FROM value WHERE hash = ?", (hash_,)))
            values = dict(zip(names, row or (), strict=False))
            data = values.get("data")
            raw = data.encode() if isinstance(data, str) else data
            if not isinstance(raw, bytes) or value_hash(str(values["codec"]), raw) != hash_:
                raise JournalCorruptError(
                    f"The journal {self._source} is damaged: the value {hash_.hex()} is missing or does not match its "
                    f"checksum. Nothing was imported. Rescue what can be read with: wfengine recover {self._source}"
                )
            connection.execute(f"INSERT OR IGNORE INTO value ({', '.join(names)}) VALUES ({marks})", row or ())

    def _head(self, run_id: int) -> tuple[object, ...]:
        return next(self._read("SELECT id, name, created_at FROM flow_run WHERE id = ?", (run_id,)))

    def _read(self, sql: str, parameters: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
        """Yield rows of the other journal. Its trouble must not pass for trouble of the file that is written."""
        try:
            yield from self._other.execute(sql, parameters)
        except sqlite3.Error as error:
            raise explain(error, self._source) from error


#: Reads rows of the other journal.
Read = Callable[..., Iterator[tuple[object, ...]]]


class _Places:
    """What each id of the other journal is in this one."""

    def __init__(self, connection: sqlite3.Connection, read: Read, run_ids: list[int], now: str) -> None:
        self._connection = connection
        self._read = read
        self._run_ids = run_ids
        self.runs = dict(zip(run_ids, range(_next_run_id(connection), _MAX_ID), strict=False))
        smallest = [_first(read("SELECT min(id) FROM task_run WHERE flow_run_id = ?", (each,))) for each in run_ids]
        first = min((each for each in smallest if isinstance(each, int)), default=1)
        largest = connection.execute("SELECT coalesce(max(id), 0) FROM task_run").fetchone()[0]
        self.task_run_offset = int(largest) + 1 - first
        self.owners = self._owners(now)
        self.flows = self._by_nature("flow", ("name",), "SELECT flow_id FROM flow_run WHERE id = ?")
        called = "SELECT task_id FROM task_run WHERE flow_run_id = ? UNION SELECT task_id FROM task_code WHERE flow_run_id = ?"
        self.tasks = self._by_nature("task", ("kind", "key"), called)
        self.code = self._by_nature("code", ("hash",), "SELECT code_id FROM execution WHERE flow_run_id = ?")
        self.errors = self._errors()

    def task_run(self, task_run_id: object) -> object:
        """Return the new id of a task run; 0 and null stay what they are."""
        return task_run_id + self.task_run_offset if isinstance(task_run_id, int) and task_run_id else task_run_id

    def source_run(self, task_run_id: object) -> object:
        """Return the new id of the task run that computed a cached result; null where it is not imported."""
        run_id = _first(self._read("SELECT flow_run_id FROM task_run WHERE id = ?", (task_run_id,)))
        return self.task_run(task_run_id) if run_id in self.runs else None

    def deployment(self, deployment_id: object) -> object:
        """Return the id of the deployment here that has the same flow and name; null where there is none."""
        named = _first_row(
            self._read(
                "SELECT f.name, d.name FROM deployment d JOIN flow f ON f.id = d.flow_id WHERE d.id = ?", (deployment_id,)
            )
        )
        row = self._connection.execute(
            "SELECT d.id FROM deployment d JOIN flow f ON f.id = d.flow_id WHERE f.name = ? AND d.name = ?",
            named or (None, None),
        ).fetchone()
        return None if row is None else row[0]

    def _ids(self, question: str) -> list[object]:
        marks = question.count("?")
        found = {row[0] for run_id in self._run_ids for row in self._read(question, (run_id,) * marks)}
        return sorted((each for each in found if each is not None), key=str)

    def _by_nature(self, table: str, key: tuple[str, ...], question: str) -> dict[object, int]:
        """Find, or write, the rows of a table that are the same by their natural key."""
        names = [name for name in columns_of(self._connection, table) if name != "id"]
        places = {}
        for id_ in self._ids(question):
            row = _first_row(self._read(f"SELECT {', '.join(names)} FROM {table} WHERE id = ?", (id_,)))
            if row is None:
                continue
            values = dict(zip(names, row, strict=True))
            self._connection.execute(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO NOTHING", row
            )
            matching = " AND ".join(f"{name} = ?" for name in key)
            found = self._connection.execute(
                f"SELECT id FROM {table} WHERE {matching}", tuple(values[name] for name in key)
            ).fetchone()
            places[id_] = int(found[0])
        return places

    def _owners(self, now: str) -> dict[object, int]:
        question = "SELECT owner_id FROM flow_run WHERE id = ? UNION SELECT owner_id FROM execution WHERE flow_run_id = ?"
        places = {}
        for id_ in self._ids(question):
            row = _first_row(
                self._read(
                    "SELECT pid, host, boot_id, process_started, role, started_at, coalesce(ended_at, ?) FROM owner"
                    " WHERE id = ?",
                    (now, id_),
                )
            )
            if row is None:
                continue
            cursor = self._connection.execute(
                "INSERT INTO owner (pid, host, boot_id, process_started, role, started_at, ended_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            places[id_] = int(cursor.lastrowid or 0)
        return places

    def _errors(self) -> dict[object, int]:
        parts = []
        for table, column in ERROR_REFERENCES:
            parts.append(f"SELECT {column} FROM {table} WHERE {'id' if table == 'flow_run' else 'flow_run_id'} = ?")
        names = [name for name in columns_of(self._connection, "error") if name != "id"]
        places = {}
        for id_ in self._ids(" UNION ".join(parts)):
            row = _first_row(self._read(f"SELECT {', '.join(names)} FROM error WHERE id = ?", (id_,)))
            if row is not None:
                cursor = self._connection.execute(
                    f"INSERT INTO error ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", row
                )
                places[id_] = int(cursor.lastrowid or 0)
        return places


class _Writing:
    """Writes rows of the other journal into this one, their ids translated; notes the values to which they refer."""

    def __init__(self, connection: sqlite3.Connection, read: Read, places: _Places) -> None:
        self._connection = connection
        self._read = read
        self._places = places
        self.hashes: set[bytes] = set()
        self._columns = {table: columns_of(connection, table) for table in ("flow_run", *RUN_TABLES)}
        self._translations: dict[str, Callable[[object], object]] = {
            "flow_run_id": places.runs.__getitem__,  # type: ignore[dict-item]  # a damaged row is met as a KeyError
            "task_run_id": places.task_run,
            "scope": places.task_run,
            "received_by": places.task_run,
            "source_run": places.source_run,
            "sender_run_id": places.runs.get,  # type: ignore[dict-item]
            "flow_id": places.flows.get,
            "task_id": places.tasks.get,
            "code_id": places.code.get,
            "owner_id": places.owners.get,
            "error_id": places.errors.get,
            "deployment_id": places.deployment,
        }

    def write_flow_runs(self, run_ids: list[int]) -> dict[int, int]:
        """Write the rows of the runs; return which came without their idempotency key, and which run here has it."""
        taken: dict[int, int] = {}
        for run_id in run_ids:
            row = self._translated("flow_run", next(self._rows("flow_run", "id", run_id)))
            holder = self._connection.execute(
                "SELECT id FROM flow_run WHERE flow_id = ? AND idempotency_key = ?", (row["flow_id"], row["idempotency_key"])
            ).fetchone()
            if holder is not None:
                taken[run_id] = int(holder[0])
                row["idempotency_key"] = None
            row.update(id=self._places.runs[run_id], origin="import", origin_run_id=run_id)
            row.update(parent_task_run_id=None, wake_at=None)  # the call that started it is written later; nothing wakes it
            self._insert("flow_run", row)
        return taken

    def write_rows(self, table: str, run_id: int) -> int:
        """Write the rows of one run in one table; return their number."""
        count = 0
        for values in self._rows(table, "flow_run_id", run_id):
            row = self._translated(table, values)
            if table == "task_run":
                row["id"] = self._places.task_run(row["id"])
            elif table in NUMBERED_ANEW:
                del row["id"]
            self._insert(table, row)
            count += 1
        return count

    def write_dependencies(self, run_ids: list[int]) -> None:
        """Write which of the runs wait for which others of them."""
        for run_id in run_ids:
            for needs, must_complete in self._read(
                "SELECT needs_run_id, must_complete FROM dependency WHERE flow_run_id = ?", (run_id,)
            ):
                if needs in self._places.runs:
                    self._connection.execute(
                        "INSERT INTO dependency (flow_run_id, needs_run_id, must_complete) VALUES (?, ?, ?)",
                        (self._places.runs[run_id], self._places.runs[needs], must_complete),
                    )

    def join_subflows(self, run_ids: list[int]) -> None:
        """Name the call that started each subflow run."""
        for run_id in run_ids:
            question = (
                "SELECT t.id, t.flow_run_id FROM flow_run r JOIN task_run t ON t.id = r.parent_task_run_id WHERE r.id = ?"
            )
            for parent, of_run in self._read(question, (run_id,)):
                if of_run in self._places.runs:
                    self._connection.execute(
                        "UPDATE flow_run SET parent_task_run_id = ? WHERE id = ?",
                        (self._places.task_run(parent), self._places.runs[run_id]),
                    )

    def _rows(self, table: str, column: str, run_id: int) -> Iterator[tuple[object, ...]]:
        names = ", ".join(self._columns[table])
        order = " ORDER BY id" if table in NUMBERED_ANEW or table == "task_run" else ""
        return self._read(f"SELECT {names} FROM {table} WHERE {column} = ?{order}", (run_id,))

    def _translated(self, table: str, values: tuple[object, ...]) -> dict[str, object]:
        row = dict(zip(self._columns[table], values, strict=True))
        for referring, column, inline in VALUE_REFERENCES:
            hash_ = row[column] if referring == table else None
            if isinstance(hash_, bytes) and (not inline or row[inline] is None):
                self.hashes.add(hash_)
        for column in row.keys() & self._translations.keys():
            if row[column] is not None:
                row[column] = self._translations[column](row[column])
        return row

    def _insert(self, table: str, row: dict[str, object]) -> None:
        marks = ", ".join("?" * len(row))
        self._connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


#: Larger than any id SQLite gives.
_MAX_ID = 2**63 - 1


def _next_run_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'flow_run'").fetchone()
    return 1 + (0 if row is None else int(row[0]))


def _find_imported(connection: sqlite3.Connection, origin: str, head: tuple[object, ...]) -> ImportedRun | None:
    """Return the run of this journal that another journal's run is already: imported before, or where it came from."""
    origin_run_id, name, created_at = head
    row = connection.execute(
        """
        SELECT r.id, r.name, r.state FROM flow_run r
        WHERE (r.id = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?) AND r.origin = 'import')
           OR (r.id = ? AND r.name = ? AND r.created_at = ? AND ? = (SELECT value FROM meta WHERE key = 'journal_id'))
        """,
        (f"imported:{origin}:{origin_run_id}", origin_run_id, name, created_at, origin),
    ).fetchone()
    return None if row is None else ImportedRun(int(row[0]), int(str(origin_run_id)), row[1], row[2], is_new=False)


def _first_row(rows: Iterator[tuple[object, ...]]) -> tuple[object, ...] | None:
    return next(rows, None)


def _first(rows: Iterator[tuple[object, ...]]) -> object:
    row = next(rows, None)
    return None if row is None else row[0]
