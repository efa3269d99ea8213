"""Schedulers that are killed, and schedulers that start together: each due instant starts one run."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from tests.scheduler.pairs import CAUGHT_UP, make_journal, pair, violations

pytestmark = pytest.mark.crash

#: What steps, and kills itself.
PROGRAM = Path(__file__).with_name("stepping.py")


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(PROGRAM, environment())
    yield nursery
    nursery.close()


def step(nursery: Nursery, path: Path, kill_before: int = 0) -> int:
    return nursery.run(path.parent, [str(path), str(kill_before)], {})


def test_a_scheduler_killed_before_any_of_its_statements_leaves_all_or_nothing_to_the_next(
    nursery: Nursery, tmp_path: Path
) -> None:
    base = tmp_path / "base" / "journal.db"
    base.parent.mkdir()
    make_journal(base, schedules=2, absence_seconds=9 * 3600.0)
    kills, before_commit = 0, 0
    for number in (*range(1, 30), *range(30, 100_000, 3)):
        path = tmp_path / str(number) / "journal.db"
        shutil.copytree(base.parent, path.parent)
        ended = step(nursery, path, number)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        with closing(sqlite3.connect(path)) as connection:
            ((ticks, runs),) = connection.execute("SELECT (SELECT count(*) FROM tick), (SELECT count(*) FROM flow_run)")
        assert (ticks, runs) == (0, 0) or (ticks > 2 * CAUGHT_UP and runs >= 2 * CAUGHT_UP)
        before_commit += not ticks
        assert step(nursery, path) == 0
        assert violations(path, schedules=2) == []
    assert kills > 30
    assert before_commit > 20


@pytest.mark.parametrize("is_killed", [False, True])
def test_of_two_schedulers_that_start_together_one_starts_each_run(tmp_path: Path, is_killed: bool) -> None:
    for number in range(5):  # the long form is the program of `pairs`
        path = tmp_path / str(number) / "journal.db"
        path.parent.mkdir()
        assert pair(path, is_killed) == []
