"""Reading around damaged pages: each row of a page that is whole is found, wherever the damaged ones are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from wfengine_journal.connection import PAGE_BYTES
from wfengine_journal.salvage import PROBES, Reader

ROWS = 20_000
LEAF = 13  # the first byte of a page that holds rows of a table


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "rows.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO t SELECT i, printf('%060d', i) FROM n",
            (ROWS,),
        )
    return path.read_bytes()


def read(path: Path, raw: bytes) -> tuple[list[int], int]:
    """Return the numbers of the rows that can be read, and how often a page was refused."""
    path.write_bytes(raw)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "PRAGMA writable_schema = ON"
        )  # as `open_damaged` does: else a file that is cut off is refused whole
        reader = Reader(connection, len(raw))
        found = [int(str(text)) for (text,) in reader.numbered("t", "text")]
    assert len(found) == len(set(found))
    return sorted(found), reader.refusals.get("t", 0)


@pytest.mark.parametrize(
    "damaged",
    [
        [],
        [0],
        [-1],
        [100],
        [0, -1],
        [10, -1],
        [10, 100, -1],
        [10, 11, 100, 200],
        [*range(50, 70), -1],
        [0, *range(300, 310), -2],
    ],
    ids=str,
)
def test_each_row_of_a_whole_page_is_found_and_little_is_asked(tmp_path: Path, whole: bytes, damaged: list[int]) -> None:
    leaves = [number for number in range(1, len(whole) // PAGE_BYTES) if whole[number * PAGE_BYTES] == LEAF]
    raw = bytearray(whole)
    lost: set[int] = set()
    for place in damaged:
        start = leaves[place] * PAGE_BYTES
        page = bytes(whole[start : start + PAGE_BYTES])
        lost |= {row for row in range(1, ROWS + 1) if b"%060d" % row in page}
        raw[start : start + PAGE_BYTES] = b"\xff" * PAGE_BYTES
    found, refusals = read(tmp_path / "damaged.db", bytes(raw))
    assert found == [row for row in range(1, ROWS + 1) if row not in lost]
    assert refusals < PROBES / 4


def test_what_is_before_the_end_of_a_file_that_was_cut_off_is_found_and_little_is_asked(tmp_path: Path, whole: bytes) -> None:
    found, refusals = read(tmp_path / "cut.db", whole[: len(whole) // 3 * 2 // PAGE_BYTES * PAGE_BYTES])
    assert found == list(range(1, len(found) + 1))
    assert len(found) > ROWS / 2
    assert refusals < PROBES / 4
