"""What the file is, and whether it is sound: the data behind `wfengine info` and `wfengine doctor`.

Everything here reads only, and checks stored values by their checksums, never by turning them back into objects. Only
`Verdict.DAMAGE` means that what was written cannot be read back; the other verdicts are advice.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wfengine_journal.codec import value_hash
from wfengine_journal.connection import FORMAT_VERSION, WAL_RESET_FIXED, primary_code, uri
from wfengine_journal.foreign import find_foreign
from wfengine_journal.owners import LockFile, host_name, is_alive

#: Size of the write-ahead log from which `doctor` says something: the writer keeps it far below while it runs.
LARGE_WAL_BYTES = 256 * 1024 * 1024
#: Findings that one check lists at most.
LISTED = 10


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"  # worth knowing, nothing is wrong
    WARNING = "warning"  # somebody should do something
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, its verdict, and a sentence that says what was found and what to do."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class JournalInfo:
    """What the file is and holds. Sizes in bytes."""

    format: int
    journal_id: str | None
    created_at: str | None
    created_by: str | None
    file_bytes: int
    wal_bytes: int
    free_bytes: int  # inside the file, left by pruned rows
    flows: int
    runs: tuple[tuple[str, int], ...]  # (state, number)
    task_runs: int
    values: int
    logs: int


def journal_info(connection: sqlite3.Connection, path: Path) -> JournalInfo:
    """Return what the file is and holds."""
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    free_pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
    states = connection.execute("SELECT state, count(*) FROM flow_run GROUP BY state ORDER BY state").fetchall()
    counts = connection.execute(
        """
        SELECT (SELECT count(*) FROM flow), (SELECT count(*) FROM task_run), (SELECT count(*) FROM value),
               (SELECT count(*) FROM log)
        """
    ).fetchone()
    return JournalInfo(
        format=connection.execute("PRAGMA user_version").fetchone()[0],
        journal_id=meta.get("journal_id"),
        created_at=meta.get("created_at"),
        created_by=meta.get("created_by"),
        file_bytes=path.stat().st_size,
        wal_bytes=wal_bytes(path),
        free_bytes=free_pages * connection.execute("PRAGMA page_size").fetchone()[0],
        flows=counts[0],
        runs=tuple((row[0], row[1]) for row in states),
        task_runs=counts[1],
        values=counts[2],
        logs=counts[3],
    )


def wal_bytes(path: Path) -> int:
    """Return the size of the write-ahead log beside the journal; 0 where there is none."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


# ---------------------------------------------------------------------------------------------------- checks


def run_checks(connection: sqlite3.Connection, path: Path, *, thorough: bool, sample: int) -> Iterator[Check]:
    """Yield one check after the other. `thorough` looks at every page and index; `sample` is a number of values."""
    for name, check in list_checks(connection, path, thorough=thorough, sample=sample):
        yield run_check(name, check)


def list_checks(
    connection: sqlite3.Connection, path: Path, *, thorough: bool, sample: int
) -> tuple[tuple[str, Callable[[], Check]], ...]:  # fmt: skip
    """Return the checks by name, to be run one by one with `run_check`."""
    return (
        ("pages", lambda: _check_pages(connection, thorough)),
        ("references", lambda: _check_references(connection)),
        ("values", lambda: _check_values(connection, sample)),
        ("definitions", lambda: _check_definitions(connection)),
        ("owners", lambda: _check_owners(connection, path)),
        ("runs", lambda: _check_runs(connection)),
        ("log file", lambda: _check_wal(path)),
        ("file mode", lambda: _check_mode(path)),
        ("SQLite", _check_sqlite),
    )


def run_check(name: str, check: Callable[[], Check]) -> Check:
    """Return what a check finds; a file that SQLite cannot read is a finding too."""
    try:
        return check()
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise
        return Check(name, Verdict.DAMAGE, f"SQLite cannot read the file: {error}.")


def check_broken_file(path: Path) -> Check:
    """Return what SQLite says about the pages of a journal that cannot be opened to read."""
    try:
        with closing(sqlite3.connect(uri(path, "ro"), uri=True)) as connection:
            return _check_pages(connection, thorough=True)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return Check("pages", Verdict.DAMAGE, f"SQLite cannot read the file: {error}.")


def _check_pages(connection: sqlite3.Connection, thorough: bool) -> Check:
    pragma = "PRAGMA integrity_check(10)" if thorough else "PRAGMA quick_check(10)"
    found = [str(row[0]) for row in connection.execute(pragma).fetchall()]
    if found == ["ok"]:
        said = "every page and index is sound" if thorough else "every page is sound (--thorough checks the indexes too)"
        return Check("pages", Verdict.OK, said)
    return Check("pages", Verdict.DAMAGE, "; ".join(line.strip().replace("\n", " ") for line in found[:LISTED]))


def _check_references(connection: sqlite3.Connection) -> Check:
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'user\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()  # not tables of a user's own: what stands in them is the user's affair
    found: list[sqlite3.Row] = []
    for (table,) in tables:
        found += connection.execute("SELECT * FROM pragma_foreign_key_check(?)", (table,)).fetchmany(LISTED - len(found))
    if not found:
        return Check("references", Verdict.OK, "every row that is referred to is there")
    rows = ", ".join(f"{row[0]} row {row[1]} names a missing {row[2]}" for row in found)
    return Check("references", Verdict.DAMAGE, rows)


def _check_values(connection: sqlite3.Connection, sample: int) -> Check:
    checked, damaged = 0, []
    for place, codec, data, stored_hash in _sampled_values(connection, sample):
        checked += 1
        if not is_intact(codec, data, stored_hash):
            damaged.append(place)
    if damaged:
        named = ", ".join(damaged[:LISTED])
        return Check("values", Verdict.DAMAGE, f"{len(damaged)} of {checked} do not match their checksum: {named}")
    return Check("values", Verdict.OK, f"{checked} stored values match their checksums (--values N checks more)")


def _sampled_values(connection: sqlite3.Connection, sample: int) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Yield (where, codec, bytes, checksum) of stored values: from random places, then from the start."""
    yield from connection.execute(
        """
        SELECT 'value ' || lower(hex(hash)), codec, CAST(data AS BLOB), hash FROM (
            SELECT * FROM (SELECT * FROM value WHERE hash >= :start ORDER BY hash LIMIT :sample)
            UNION ALL SELECT * FROM (SELECT * FROM value WHERE hash < :start ORDER BY hash LIMIT :sample))
        LIMIT :sample
        """,
        {"start": os.urandom(16), "sample": sample},
    )
    yield from connection.execute(
        """
        SELECT 'result of task run ' || id, result_codec, CAST(result AS BLOB), result_hash FROM task_run
        WHERE id >= abs(random()) % (SELECT max(1, coalesce(max(id), 1) - :sample) FROM task_run)
          AND result IS NOT NULL AND result_hash IS NOT NULL LIMIT :sample
        """,
        {"sample": sample},
    )
    yield from connection.execute(
        """
        SELECT 'result of run ' || id, result_codec, CAST(result AS BLOB), result_hash FROM flow_run
        WHERE result IS NOT NULL AND result_hash IS NOT NULL ORDER BY id DESC LIMIT :sample
        """,
        {"sample": sample},
    )


def _check_definitions(connection: sqlite3.Connection) -> Check:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version != FORMAT_VERSION:
        said = f"not compared: the file has format {version}, and is migrated to {FORMAT_VERSION} when it is written to"
        return Check("definitions", Verdict.NOTE, said)
    foreign, own_triggers = find_foreign(connection)
    if foreign:
        more = f"; and {len(foreign) - LISTED} more" if len(foreign) > LISTED else ""
        return Check(
            "definitions",
            Verdict.WARNING,
            f"not as wfengine makes them: {'; '.join(foreign[:LISTED])}{more}. A trigger changes rows while wfengine writes, a "
            "view shows what it likes. If you did not make them, write nothing more to this file, and save its rows: "
            "wfengine recover FILE",
        )
    own = f"; triggers on tables of your own: {own_triggers}, which run when your code writes there" if own_triggers else ""
    return Check("definitions", Verdict.OK, f"every table, view and trigger is as wfengine makes it{own}")


def _check_owners(connection: sqlite3.Connection, path: Path) -> Check:
    rows = connection.execute(
        "SELECT id, pid, host, boot_id, process_started, role FROM owner WHERE ended_at IS NULL ORDER BY id"
    ).fetchall()
    if not rows:
        return Check("owners", Verdict.OK, "no process executes runs now")
    here = [row for row in rows if row["host"] == host_name() and row["pid"] != os.getpid()]
    try:
        lock_file = LockFile(path) if here and Path(f"{path}-lock").exists() else None
    except OSError:
        lock_file = None
    dead = [
        row
        for row in here
        if lock_file and not is_alive(lock_file, row["id"], row["pid"], row["boot_id"], row["process_started"])
    ]
    named = ", ".join(f"pid {row['pid']} on {row['host']} ({row['role']})" for row in rows[-LISTED:])
    text = f"{len(rows)} processes have not said that they ended: {named}"
    if dead:
        text += f"; dead: {', '.join(str(row['pid']) for row in dead[-LISTED:])} (their runs can be resumed)"
    return Check("owners", Verdict.NOTE, text)


def _check_runs(connection: sqlite3.Connection) -> Check:
    found = connection.execute("SELECT name, state FROM stuck ORDER BY id DESC LIMIT 1000").fetchall()
    rows = [row for row in found if row["state"] != "RUNNING"]
    quiet = [row for row in found if row["state"] == "RUNNING"]
    if not found:
        return Check("runs", Verdict.OK, "none waits for a person")
    parts = []
    if rows:
        named = ", ".join(f"{row['name']} ({row['state']})" for row in rows[:LISTED])
        parts.append(f"{len(rows)} wait for a person: {named}; see: wfengine sql 'SELECT * FROM stuck'")
    if quiet:
        parts.append(f"no sign of {', '.join(row['name'] for row in quiet[:LISTED])} for 10 minutes")
    return Check("runs", Verdict.WARNING, "; ".join(parts))


def _check_wal(path: Path) -> Check:
    size = wal_bytes(path)
    if size > LARGE_WAL_BYTES:
        return Check(
            "log file",
            Verdict.WARNING,
            f"{path.name}-wal has {size:,} bytes: a reader that stays open keeps it from being reset",
        )
    return Check("log file", Verdict.OK, f"{path.name}-wal has {size:,} bytes")


def _check_mode(path: Path) -> Check:
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o077:
        return Check(
            "file mode",
            Verdict.WARNING,
            f"{path} has mode {mode:04o}: others can read inputs and results, or write code that a resume runs. "
            f"Mend it with: chmod 600 {path}",
        )
    return Check("file mode", Verdict.OK, f"only its owner can open the file ({mode:04o})")


def _check_sqlite() -> Check:
    fixed = ".".join(map(str, WAL_RESET_FIXED))
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        return Check(
            "SQLite",
            Verdict.NOTE,
            f"version {sqlite3.sqlite_version}: before {fixed} a rare race when several processes reset the log could "
            "damage a file; wfengine lets one process at a time do that. Do not checkpoint it with other programs",
        )
    return Check("SQLite", Verdict.OK, f"version {sqlite3.sqlite_version}")


def is_intact(codec: object, data: object, hash_: object) -> bool:
    """Tell whether columns of a row hold a value that matches its checksum, whatever a damaged file has in their place."""
    if not isinstance(codec, str) or not isinstance(hash_, bytes):
        return False
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return isinstance(raw, bytes) and value_hash(codec, raw) == hash_
