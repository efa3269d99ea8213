"""Read what can be read of a damaged journal, around the pages that cannot.

Only a private copy of the file is opened, never the file itself. Rows are read forwards and backwards up to a page that SQLite
refuses, then from ever smaller steps in between; rows of tables without numbers are asked for by the keys that other rows name.
Nothing is judged here: `recovering` says which rows hold.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from wfengine_journal.connection import APPLICATION_ID, PAGE_BYTES
from wfengine_journal.errors import NotAJournalError
from wfengine_journal.run_rows import columns_of

#: Questions asked about one table beyond reading it through: a bound, not a measure of damage.
PROBES = 20_000
#: Ranges in a row, below or above all rows that were found, in which nothing was found: then nothing more is looked for there.
FRUITLESS = 500
#: No id is less or more.
LEAST_ID, MOST_ID = -(2**62), 2**62
#: The least bytes of a row: a page that leads back to another must not make the reading endless.
LEAST_ROW_BYTES = 8
_MAGIC = b"SQLite format 3\0"


def private_copy(source: Path, folder: Path) -> Path:
    """Copy the file and its log into a private folder; the copy is named as SQLite needs it."""
    copy = folder / "damaged.db"
    shutil.copyfile(source, copy)
    if Path(f"{source}-wal").exists():
        shutil.copyfile(f"{source}-wal", f"{copy}-wal")
    return copy


def open_damaged(copy: Path, template: Path, source: Path) -> sqlite3.Connection:
    """Open a private copy of `source` such that its tables can be asked for; `template`: a new journal of the present format.

    Where the first pages, which say what tables there are, cannot be read, those of the new journal are put in their place:
    they are the same in every journal that this version made. Raises NotAJournalError where that does not help.
    """
    for mend in (None, _without_log, lambda: _transplant(copy, template)):
        if mend is _without_log:
            Path(f"{copy}-wal").unlink(missing_ok=True)
        elif mend is not None:
            mend()
        connection = _connect(copy)
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):  # the latter: SQLite quotes a damaged definition
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()}
            if {"flow_run", "task_run", "value"} <= tables:
                return connection
        connection.close()
    raise NotAJournalError(f"{source} holds nothing that could be read as a journal, not even with the tables of a new one.")


def _without_log() -> None:
    """Stand for the attempt that leaves a damaged log out."""


def _connect(copy: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for pragma in ("writable_schema = ON", "cell_size_check = ON", "trusted_schema = OFF", "mmap_size = 0"):
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            connection.execute("PRAGMA " + pragma)
    return connection


def _transplant(copy: Path, template: Path) -> None:
    """Give a file whose first pages are damaged those of a new journal, but for the pages where tables begin."""
    with closing(sqlite3.connect(template)) as connection:
        roots = {row[0] for row in connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0").fetchall()}
    new = template.read_bytes()
    with copy.open("r+b") as file:
        size = max(file.seek(0, 2), len(new))
        file.truncate(size - size % PAGE_BYTES)
        for number in range(1, len(new) // PAGE_BYTES + 1):
            if number not in roots and number != 2:  # page 2 says where pages belong, which only vacuuming asks
                page = bytearray(new[(number - 1) * PAGE_BYTES : number * PAGE_BYTES])
                if number == 1:
                    page[28:32] = (size // PAGE_BYTES).to_bytes(4, "big")
                    page[32:40] = bytes(8)  # no list of free pages
                    page[18:20] = b"\1\1"  # no log
                file.seek((number - 1) * PAGE_BYTES)
                file.write(page)


def looks_like_a_journal(path: Path) -> bool:
    """Tell whether a file has at least one mark of a journal: its first bytes, its application id, or our table names."""
    with path.open("rb") as file:
        start = file.read(64 * 1024)
    marks = (start[:16] == _MAGIC, start[68:72] == APPLICATION_ID.to_bytes(4, "big"), b"CREATE TABLE flow_run" in start)
    return marks[1] or marks[2]


class Reader:
    """Reads the tables of a damaged journal. `refusals`: how often SQLite refused a page, by table."""

    def __init__(self, connection: sqlite3.Connection, size: int) -> None:
        self._connection = connection
        self._most_rows = size // LEAST_ROW_BYTES + 1
        self.refusals: dict[str, int] = {}

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns; [] if it cannot be read."""
        try:
            return columns_of(self._connection, table)
        except (sqlite3.Error, UnicodeDecodeError):
            return []

    def numbered(self, table: str, names: str) -> Iterator[tuple[object, ...]]:
        """Yield rows of a table with a column `id`, each once, around the pages that cannot be read.

        A range of ids of which one side is refused is cut into parts, which are asked for when all wider ranges have been: so
        what is readable between two damaged pages is found before single ids of those pages are looked for.
        """
        seen: set[int] = set()
        lowest, highest = MOST_ID, LEAST_ID  # of the rows found so far
        todo = deque([(LEAST_ID, MOST_ID)])
        probes, fruitless = PROBES, 0
        while todo and probes > 0:
            low, high = todo.popleft()
            is_open = low < lowest or high > highest
            if is_open and fruitless >= FRUITLESS:
                continue
            before, ends = len(seen), []
            for sign in (1, -1):
                probes -= 1
                start, end, is_whole = yield from self._from_one_side(table, names, low, high, sign, seen)
                ends.append(end)
                if start is not None and end is not None:
                    lowest, highest = min(lowest, start, end), max(highest, start, end)
                if is_whole:
                    break
            else:
                first, last = ends
                todo.extend(self._parts(low if first is None else first + 1, high if last is None else last - 1))
                # Python asks for the next row before it gives one, so the row before a refusal is still to be had.
                todo.extendleft((end + sign, end + sign) for end, sign in ((first, 1), (last, -1)) if end is not None)
            if is_open:
                fruitless = fruitless + 1 if len(seen) == before else 0

    def _from_one_side(
        self, table: str, names: str, low: int, high: int, sign: int, seen: set[int]
    ) -> Generator[tuple[object, ...], None, tuple[int | None, int | None, bool]]:
        """Yield the rows of a range, upwards or downwards, up to a refusal; return the first and last id, and if it was all."""
        order = "" if sign == 1 else " DESC"
        sql = f"SELECT id, {names} FROM {table} WHERE id >= ? AND id <= ? ORDER BY id{order}"
        start = end = None
        for row in self._rows(table, sql, (low, high)):
            if row is None:
                return start, end, False
            number = int(str(row[0]))
            if end is not None and (number - end) * sign <= 0:
                return start, end, False  # a page that leads back
            start, end = number if start is None else start, number
            if number not in seen:
                seen.add(number)
                yield row[1:]
        return start, end, True

    @staticmethod
    def _parts(low: int, high: int) -> list[tuple[int, int]]:
        """Cut a range of ids: a narrow one into halves; a wide one at zero, then into ever wider ones, for ids are small."""
        if high <= low:
            return []
        if low < 0 <= high:
            return [(0, high), (low, -1)]
        if low < 0 or high - low < 2**20:
            middle = (low + high) // 2
            return [(low, middle), (middle + 1, high)]
        parts, width = [], 1
        while low <= high:
            parts.append((low, min(low + width - 1, high)))
            low, width = low + width, width * 2
        return parts

    def keyed(self, table: str, names: str, key: str, parameters: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
        """Yield the rows of a table that fit a condition on the beginning of its key, from both ends up to what is unreadable.

        A row may come twice.
        """
        where = f" WHERE {key}" if key else ""
        primary = ", ".join(self.primary_key(table))
        for order in ("", " DESC"):
            sorting = ", ".join(f"{column}{order}" for column in primary.split(", "))
            whole = True
            for row in self._rows(table, f"SELECT {names} FROM {table}{where} ORDER BY {sorting}", parameters):
                if row is None:
                    whole = False
                    break
                yield row
            if whole:
                return

    def primary_key(self, table: str) -> list[str]:
        """Return the columns of a table's key, in order."""
        rows = self._connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)).fetchall()
        return [str(row[0]) for row in rows]

    def confirms(self, sql: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether a question has an answer; None if it cannot be asked."""
        try:
            return self._connection.execute(sql, parameters).fetchone() is not None
        except (sqlite3.Error, UnicodeDecodeError):
            return None

    def _rows(self, table: str, sql: str, parameters: tuple[object, ...]) -> Iterator[tuple[object, ...] | None]:
        """Yield rows, and at last None if SQLite refused to go on."""
        count = 0
        try:
            for row in self._connection.execute(sql, parameters):
                count += 1
                if count > self._most_rows:
                    break
                yield row
            else:
                return
        except (sqlite3.Error, OverflowError, ValueError):
            pass
        self.refusals[table] = self.refusals.get(table, 0) + 1
        yield None
