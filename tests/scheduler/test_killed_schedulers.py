"""Schedulers that are killed, and schedulers that start together: each due instant starts one run."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.scheduler.pairs import CAUGHT_UP, ROOT, make_journal, pair, violations

pytestmark = pytest.mark.crash

PROGRAM = """
import sys
from pathlib import Path
from tests.crash.plan import StatementPlan
if int(sys.argv[2]):
    StatementPlan(int(sys.argv[2]), Path(sys.argv[1]).with_name("killed-before.sql")).install()
from wfengine_journal import store
from wfengine_scheduler.loop import Scheduler
Scheduler(store.open_journal(Path(sys.argv[1]))).step()
store.close_all()
"""


def step(path: Path, kill_before: int = 0) -> int:
    roots = os.pathsep.join(str(ROOT / name) for name in ("", "journal", "scheduler"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(kill_before)], env={**os.environ, "PYTHONPATH": roots}, check=False
    )
    return done.returncode


def test_a_scheduler_killed_before_any_of_its_statements_leaves_all_or_nothing_to_the_next(tmp_path: Path) -> None:
    base = tmp_path / "base" / "journal.db"
    base.parent.mkdir()
    make_journal(base, schedules=2, absence_seconds=9 * 3600.0)
    kills, before_commit = 0, 0
    for number in (*range(1, 30), *range(30, 100_000, 3)):
        path = tmp_path / str(number) / "journal.db"
        shutil.copytree(base.parent, path.parent)
        ended = step(path, number)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        with closing(sqlite3.connect(path)) as connection:
            ((ticks, runs),) = connection.execute("SELECT (SELECT count(*) FROM tick), (SELECT count(*) FROM flow_run)")
        assert (ticks, runs) == (0, 0) or (ticks > 2 * CAUGHT_UP and runs >= 2 * CAUGHT_UP)
        before_commit += not ticks
        assert step(path) == 0
        assert violations(path, schedules=2) == []
    assert kills > 30
    assert before_commit > 20


@pytest.mark.parametrize("is_killed", [False, True])
def test_of_two_schedulers_that_start_together_one_starts_each_run(tmp_path: Path, is_killed: bool) -> None:
    for number in range(10):
        path = tmp_path / str(number) / "journal.db"
        path.parent.mkdir()
        assert pair(path, is_killed) == []
