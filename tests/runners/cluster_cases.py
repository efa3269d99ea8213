"""What is tested of clusters alike: tasks, which their workers import, and what a death must cost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from wfengine import flow, task
from wfengine.exceptions import WorkerDiedError
from wfengine.runners import TaskRunner


@task
def where(number: int) -> tuple[int, int]:
    return number, os.getpid()


@task
def descend(depth: int) -> int:
    return 0 if depth == 0 else 1 + descend.submit(depth - 1).result()


@task
async def descend_async(depth: int) -> int:
    return 0 if depth == 0 else 1 + await descend_async.submit(depth - 1)


@task
def note_and_die(folder: Path) -> None:
    with (folder / "notes").open("a") as notes:
        notes.write("died\n")
    os.kill(os.getpid(), signal.SIGKILL)


def assert_a_death_costs_one_task(runner: TaskRunner, folder: Path, why: str) -> None:
    """Kill a worker among others: its task fails and is not run again, the others complete."""

    @flow(task_runner=runner)
    def main() -> list[int]:
        siblings = where.map(range(20))
        dead = note_and_die.submit(folder)
        more = where.map(range(20, 40))
        with pytest.raises(WorkerDiedError, match=why):
            dead.result()
        return [number for future in (siblings, more) for number, _pid in future.result()]

    assert main() == list(range(40))
    assert (folder / "notes").read_text() == "died\n"


def assert_a_death_is_retried(runner: TaskRunner, folder: Path) -> None:
    """Kill the worker of a task with retries: it completes on another one."""

    @task(retries=1)
    def die_once(folder: Path) -> str:
        if not (folder / "notes").exists():
            note_and_die.fn(folder)
        return "done"

    @flow(task_runner=runner)
    def main() -> str:
        return die_once.submit(folder).result()

    assert main() == "done"
