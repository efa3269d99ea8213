"""A migration is killed before each of its statements: the file is then as it was or as it shall be, and goes on."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.damage.rich import environment
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import FORMAT_VERSION
from wfengine_journal.store import close_all, open_journal

FIXTURES = Path(__file__).parents[1] / "journal" / "fixtures"
#: Statements from one kill to the next; 1 kills before each of them.
STRIDE = int(os.environ.get("WFENGINE_MIGRATION_STRIDE", "9"))
#: Migrates copies of the file that it is given, each in a forked process that ends before its n-th statement; prints
#: how many statements there are. What is left of copy n is `n.db`.
PROGRAM = """
import os, shutil, signal, sys
from pathlib import Path
import sqlite_utils  # so that no child has to
from wfengine_journal import schema
from wfengine_journal.connection import open_writer

def migrate(path, last):
    connection, version = open_writer(path)
    left = last
    def count(statement):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    connection.execute("PRAGMA synchronous = OFF")
    connection.set_trace_callback(count)
    schema.upgrade(connection, path, version)
    connection.close()
    os._exit(0)

number = 1
while True:
    number += int(sys.argv[2])
    copy = Path(f"{number}.db")
    shutil.copyfile(sys.argv[1], copy)
    pid = os.fork()
    if pid == 0:
        migrate(copy, number)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        break
print(number)
"""


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def shape(path: Path) -> list[tuple[object, ...]]:
    return query(path, "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name")


@pytest.mark.crash
@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_a_migration_that_is_killed_before_any_of_its_statements_is_made_whole_by_the_next_opening(
    tmp_path: Path, version: int
) -> None:
    old = tmp_path / "old"
    old.write_bytes(gzip.decompress((FIXTURES / f"format-{version}.db.gz").read_bytes()))
    runs, history = (query(old, f"SELECT id, state FROM {table}") for table in ("flow_run", "task_run"))
    before = shape(old)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(old), str(STRIDE)],
        cwd=tmp_path, env=environment(tmp_path), text=True, capture_output=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    statements = int(done.stdout)
    assert statements > 30
    after = shape(tmp_path / f"{statements}.db")  # the one that nothing ended
    assert after != before
    for number in range(1 + STRIDE, statements, STRIDE):
        path = tmp_path / f"{number}.db"
        assert query(path, "PRAGMA quick_check") == [("ok",)], number
        assert shape(path) in (before, after), number
        if (number // STRIDE) % 4 == 1:
            with closing(open_journal(path, SystemClock())):
                pass
            assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
            assert shape(path) == after, number
            assert [query(path, f"SELECT id, state FROM {table}") for table in ("flow_run", "task_run")] == [runs, history]
    close_all()
