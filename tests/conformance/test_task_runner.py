"""What every task runner has to do, run over each runner there is."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import wfengine
from wfengine import ThreadTaskRunner, flow, task
from wfengine.runners import TaskRunner
from wfengine_journal import store

RUNNERS: dict[str, TaskRunner] = {"threads": ThreadTaskRunner(), "one thread": ThreadTaskRunner(max_workers=1)}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskRunner]:
    wfengine.use_journal(tmp_path / "journal.db")
    yield RUNNERS[request.param]
    store.close_all()
    wfengine.journals._chosen = None


class OddError(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.left = left


@task
def double(number: int) -> int:
    return number * 2


@task
async def double_async(number: int) -> int:
    return number * 2


@task
def fail(number: int) -> int:
    raise OddError(number, number + 1)


def test_results_come_back_in_the_order_of_the_items(runner: TaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> list[int]:
        return double.map(range(50)).result() + double_async.map(range(50)).result()

    assert main() == [number * 2 for number in range(50)] * 2


def test_exceptions_come_back_as_themselves(runner: TaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> int:
        with pytest.raises(OddError) as caught:
            fail.submit(4).result()
        return caught.value.left

    assert main() == 4


def test_every_submitted_task_is_recorded_even_if_nobody_waits_for_it(runner: TaskRunner, tmp_path: Path) -> None:
    @flow(task_runner=runner)
    def main() -> None:
        double.map(range(30))

    main()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        counts = connection.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall()
    connection.close()
    assert counts == [("COMPLETED", 30)]


def test_tasks_that_wait_for_tasks_never_starve(runner: TaskRunner) -> None:
    @task
    def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + descend.submit(depth - 1).result()

    @flow(task_runner=runner)
    def main() -> int:
        return descend.submit(20).result()

    assert main() == 20


def test_a_task_that_depends_on_futures_gets_their_values(runner: TaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> int:
        future = double.submit(1)
        for _ in range(9):
            future = double.submit(future)
        return future.result()

    assert main() == 2**10


def test_a_runner_leaves_no_thread_behind(runner: TaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> list[int]:
        return double.map(range(20)).result() + double_async.map(range(20)).result()

    main()
    for thread in threading.enumerate():
        if thread.name.startswith(("wfengine-worker", "wfengine-loop")):
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_one_runner_serves_several_runs_at_once(runner: TaskRunner) -> None:
    @flow(task_runner=runner)
    def main(number: int) -> int:
        return sum(double.map(range(number)).result())

    results: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: main(n)})) for n in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number * (number - 1) for number in range(1, 6)}
