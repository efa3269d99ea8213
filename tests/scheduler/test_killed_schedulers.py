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


def step(nursery: Nursery, path: Path, kill_before: int = 0, what: str = "decide") -> int:
    return nursery.run(path.parent, [str(path), str(kill_before), what], {})


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


def test_a_deployment_whose_resuming_is_killed_goes_on_with_all_of_the_pause_settled_or_is_paused(
    nursery: Nursery, tmp_path: Path
) -> None:
    base = tmp_path / "base" / "journal.db"
    base.parent.mkdir()
    make_journal(base, schedules=2, absence_seconds=9 * 3600.0)
    with closing(sqlite3.connect(base, isolation_level=None)) as connection:
        connection.execute("UPDATE deployment SET paused = 1")
        connection.execute("UPDATE schedule SET deployment_id = 1, slug = id")
    seen: set[tuple[int, bool]] = set()
    for number in range(1, 100_000, 2):
        path = tmp_path / str(number) / "journal.db"
        shutil.copytree(base.parent, path.parent)
        ended = step(nursery, path, number, "unpause")
        with closing(sqlite3.connect(path)) as connection:
            ((paused, ticks),) = connection.execute("SELECT paused, (SELECT count(*) FROM tick) FROM deployment WHERE id = 1")
        seen.add((paused, ticks > 0))
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        assert step(nursery, path, 0, "unpause") == step(nursery, path) == 0
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT schedule_id, count(*) > 8, max(outcome) FROM tick GROUP BY 1 ORDER BY 1")
            assert found.fetchall() == [(1, 1, "skipped"), (2, 1, "skipped")]
    assert seen == {(1, False), (0, True)}


@pytest.mark.parametrize("is_killed", [False, True])
def test_of_two_schedulers_that_start_together_one_starts_each_run(tmp_path: Path, is_killed: bool) -> None:
    for number in range(10):  # the long form is the program of `pairs`
        path = tmp_path / str(number) / "journal.db"
        path.parent.mkdir()
        assert pair(path, is_killed) == []
