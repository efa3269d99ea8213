"""Ways to damage a journal, each a function of the file's bytes and of a seed, or a statement of a hostile writer."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.damage.hostile_rows import HOSTILE
from wfengine_journal.connection import PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged file, as bytes, with its log beside it if it has one."""

    kind: str
    name: str  # says it well enough to make it again
    raw: bytes
    wal: bytes | None = None


def flips(raw: bytes, count: int, seed: int) -> Iterator[Damage]:
    """Yield files of which one bit is another."""
    for number in range(count):
        chance = random.Random(f"flip {seed} {number}")
        place, bit = chance.randrange(len(raw)), chance.randrange(8)
        damaged = bytearray(raw)
        damaged[place] ^= 1 << bit
        yield Damage("bit flip", f"bit {bit} of byte {place} (page {place // PAGE_BYTES + 1})", bytes(damaged))


def definitions(raw: bytes) -> Iterator[Damage]:
    """Yield files in which a byte of the definition of a table or view is not UTF-8, so that reports about it are none."""
    for text in (b"VIEW tasks", b"TABLE task_run (", b"TABLE variable (", b"VIEW runs"):
        damaged = bytearray(raw)
        damaged[raw.index(text) + len(text) - 3] |= 0x80
        yield Damage("definition", text.decode(), bytes(damaged))


def truncations(raw: bytes, every: int = 1, start: int = 0) -> Iterator[Damage]:
    """Yield files that end at a page, and in the middle of the page after it."""
    for page in range(start % every, len(raw) // PAGE_BYTES, every):
        yield Damage("cut off", f"after page {page}", raw[: page * PAGE_BYTES])
        yield Damage("cut off", f"in the middle of page {page + 1}", raw[: page * PAGE_BYTES + PAGE_BYTES // 3])


def pages(raw: bytes, count: int, seed: int) -> Iterator[Damage]:
    """Yield files in which a page is zeros or noise, two are exchanged, or one stands in the place of another."""
    for number in range(count):
        chance = random.Random(f"page {seed} {number}")
        one, other = (chance.randrange(len(raw) // PAGE_BYTES) * PAGE_BYTES for _ in range(2))
        first, second = raw[one : one + PAGE_BYTES], raw[other : other + PAGE_BYTES]
        damaged = bytearray(raw)
        kind = ("zeros", "noise", "exchanged", "misplaced")[number % 4]
        damaged[one : one + PAGE_BYTES] = {
            "zeros": bytes(PAGE_BYTES), "noise": chance.randbytes(PAGE_BYTES), "exchanged": second, "misplaced": second,
        }[kind]  # fmt: skip
        if kind == "exchanged":
            damaged[other : other + PAGE_BYTES] = first
        yield Damage("page", f"{kind}: {one // PAGE_BYTES + 1}, {other // PAGE_BYTES + 1}", bytes(damaged))


def with_log(path: Path, folder: Path) -> tuple[bytes, bytes]:
    """Return the bytes of a journal whose newest rows are only in its log, and of the log."""
    copy = folder / "with-log.db"
    shutil.copyfile(path, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for statement in (
            "UPDATE log SET message = message || '!'",
            "INSERT INTO variable VALUES ('late', '1', NULL, 'now', 'now')",
            "DELETE FROM event WHERE id % 2",
        ):
            connection.execute(statement)
        # Through other descriptors of this process SQLite's locks would be lost, but nobody else has this file.
        raw, wal = copy.read_bytes(), Path(f"{copy}-wal").read_bytes()
    copy.unlink()
    return raw, wal


def logs(raw: bytes, wal: bytes, count: int, seed: int) -> Iterator[Damage]:
    """Yield files whose log is missing, empty, cut off, noise, or has a bit that is another."""
    yield Damage("log", "missing", raw)
    yield Damage("log", "empty", raw, b"")
    yield Damage("log", "noise", raw, random.Random(seed).randbytes(len(wal)))
    yield Damage("log", "header only", raw, wal[:32])
    for number in range(count):
        chance = random.Random(f"log {seed} {number}")
        place = chance.randrange(len(wal))
        if number % 2:
            yield Damage("log", f"cut off at {place}", raw, wal[:place])
        else:
            yield Damage("log", f"byte {place} is another", raw, wal[:place] + bytes([wal[place] ^ 16]) + wal[place + 1 :])


def hostile(path: Path, folder: Path, names: list[str]) -> Iterator[Damage]:
    """Yield files with rows, views and triggers of a hostile writer."""
    for name in names:
        copy = folder / "hostile.db"
        shutil.copyfile(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            _apply(connection, HOSTILE[name])
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        yield Damage("hostile", name, copy.read_bytes())
    copy.unlink()


def _apply(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement past all that the schema forbids."""
    for pragma in ("ignore_check_constraints = ON", "foreign_keys = OFF", "writable_schema = ON"):
        connection.execute("PRAGMA " + pragma)
    verb, _, rest = statement.partition(" ")
    if verb == "VIEW":
        name, _, select = rest.partition(" ")
        connection.execute(f"DROP VIEW {name}")
        connection.execute(f"CREATE VIEW {name} AS {select}")
    elif verb == "NULL":
        table, column = rest.split()
        kept = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
        loose = "\n".join(
            line.replace(" NOT NULL", "", 1) if line.split()[:1] == [column] else line for line in kept.splitlines()
        )
        assert loose != kept, (table, column)
        for sql, then in ((loose, f"UPDATE {table} SET {column} = NULL"), (kept, "SELECT 1")):
            connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
            version = connection.execute("PRAGMA schema_version").fetchone()[0]
            connection.execute(f"PRAGMA schema_version = {version + 1}")
            connection.execute(then)
    else:
        connection.execute(statement)
