"""Copies of a journal in use: sound, of one moment, and in nobody's way."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, environment, python
from wfengine_journal.backing_up import backup, default_target
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import JournalCorruptError, JournalNotFoundError, UsageError

WRITER = """
import sys
from wfengine import flow, task, use_journal

@task
def step(number):
    return number

@flow
def endless():
    for number in range(int(sys.argv[1])):
        step(number)
        if number == 20:
            print("going", flush=True)

use_journal("journal.db", durability="process")
endless()
print("done", flush=True)
"""


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(tmp_path, "flows.py", "all")
    return tmp_path / "journal.db"


def test_a_backup_is_the_journal_and_private(journal: Path, tmp_path: Path) -> None:
    done = backup(journal, tmp_path / "copy.db")
    assert done.bytes == (tmp_path / "copy.db").stat().st_size
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    for sql in ("SELECT * FROM runs", "SELECT * FROM history", "SELECT * FROM value", "SELECT * FROM meta"):
        assert query(tmp_path / "copy.db", sql) == query(journal, sql)
    assert not list(tmp_path.glob("*.part*"))


def test_copies_taken_while_flows_write_are_sound_and_of_one_moment(tmp_path: Path) -> None:
    (tmp_path / "writer.py").write_text(WRITER, encoding="utf-8")
    writers = [
        subprocess.Popen(
            [sys.executable, "writer.py", "1500"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "going\n"
    counts = []
    number = 0
    while any(writer.poll() is None for writer in writers) and number < 40:
        copy = tmp_path / f"copy-{number}.db"
        backup(tmp_path / "journal.db", copy)
        counts.append(int(str(query(copy, "SELECT count(*) FROM task_run")[0][0])))
        # Calls complete in order, so of one moment means: only the last call of each run may be without a result.
        assert query(copy, "SELECT count(*) <= 2 FROM task_run WHERE state <> 'COMPLETED'") == [(1,)]
        latest = "(SELECT max(seq) FROM transition h WHERE h.flow_run_id = t.flow_run_id AND h.task_run_id = t.id)"
        assert query(copy, f"SELECT 1 FROM task_run t WHERE version <> {latest}") == []
        number += 1
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stderr is not None
        with writer.stdout as stdout, writer.stderr as stderr:  # not communicate(): readline() may have read too much
            said, errors = stdout.read(), stderr.read()
        assert (writer.wait(240), said) == (0, "done\n"), errors
    assert counts == sorted(counts)
    assert len(counts) >= 2


def test_what_is_there_already_is_not_overwritten_unless_forced(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        backup(journal, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text(encoding="utf-8") == "mine"
    backup(journal, tmp_path / "copy.db", overwrite=True)
    assert query(tmp_path / "copy.db", "PRAGMA integrity_check") == [("ok",)]
    with pytest.raises(UsageError, match="is the journal itself"):
        backup(journal, journal, overwrite=True)


def test_a_damaged_journal_gives_no_backup_that_looks_sound(journal: Path, tmp_path: Path) -> None:
    raw = bytearray(journal.read_bytes())
    page = int(str(query(journal, "SELECT rootpage FROM sqlite_schema WHERE name = 'task_run'")[0][0]))
    raw[(page - 1) * 2048 : (page - 1) * 2048 + 200] = b"\xff" * 200
    (tmp_path / "damaged.db").write_bytes(raw)
    with pytest.raises(JournalCorruptError, match="is damaged"):
        backup(tmp_path / "damaged.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    with pytest.raises(JournalNotFoundError):
        backup(tmp_path / "missing.db", tmp_path / "copy.db")


def test_a_process_killed_in_the_middle_leaves_no_backup(journal: Path, tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from wfengine_journal import backing_up

backing_up.PAGES_PER_STEP = 10
steps = int(sys.argv[1])

def tell(left, pages):
    global steps
    steps -= 1
    if steps < 0:
        os.kill(os.getpid(), signal.SIGKILL)

backing_up.backup(Path("journal.db"), Path("copy.db"), tell=tell)
"""
    (tmp_path / "deadly.py").write_text(program, encoding="utf-8")
    for steps in (0, 1, 4):
        done = subprocess.run([sys.executable, "deadly.py", str(steps)], cwd=tmp_path, env=environment(), check=False)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "copy.db").exists()
    backup(journal, tmp_path / "copy.db")
    assert query(journal, "PRAGMA integrity_check") == [("ok",)]


def test_the_name_of_a_backup_says_when_it_was_made(tmp_path: Path) -> None:
    named = default_target(tmp_path / "journal.db", SystemClock())
    assert named.parent == tmp_path
    assert named.name.startswith("journal.db.20")
    assert named.name.endswith("Z.backup")
    assert ":" not in named.name
