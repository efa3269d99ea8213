"""A reader that follows a stream from another process while its producer is killed before each statement, and resumed."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.feeds import ITEMS
from tests.crash.harness import Case, environment
from tests.crash.nursery import Nursery
from wfengine.following import follow
from wfengine_journal.store import close_all, open_journal

pytestmark = pytest.mark.crash

PROGRAM = Path(__file__).with_name("feeds.py")
#: A reader that waits longer hangs, in seconds.
LIMIT_SECONDS = 60.0


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(PROGRAM, environment())
    yield nursery
    nursery.close()
    close_all()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("flow", "task", "step"), [("feed", "read", 1), ("piped", "source", 4)])
def test_a_reader_is_given_each_item_once_wherever_the_producer_is_killed(
    nursery: Nursery, tmp_path: Path, flow: str, task: str, step: int
) -> None:
    kills = in_the_middle = 0
    with concurrent.futures.ThreadPoolExecutor(1) as readers:
        for number in range(1, 10_000, step):
            case = Case(tmp_path / str(number), flow, program=PROGRAM).with_schema()
            if not case.run("--kill-before", str(number), nursery=nursery).was_killed:
                break
            if not case.query("SELECT 1 FROM runs"):
                continue
            in_the_middle += case.query("SELECT count(*) BETWEEN 1 AND 5 FROM item") == [(1,)]
            follower = follow("@last", task, journal=open_journal(case.journal), timeout_seconds=LIMIT_SECONDS)
            reading = readers.submit(list, follower)
            ended = case.run(nursery=nursery)
            items = reading.result(LIMIT_SECONDS)
            assert items == ended.result, f"killed before statement {number}"
            assert [str(item)[0] for item in items] == [str(place) for place in range(ITEMS)]
            kills += 1
    print(f"{flow}: {kills} kills, {in_the_middle} between two items")
    assert in_the_middle > 2
