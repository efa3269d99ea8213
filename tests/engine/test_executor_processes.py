"""Runs of deployments and processes that die: what was cut off is taken up, once, and the places of the dead are free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from tests.engine.deployed import deploy, put, set_queue
from tests.engine.test_executor import await_state, executing, noting
from wfengine import use_journal
from wfengine.executor import Executor
from wfengine_journal.store import Journal

FLOWS = """
from wfengine.executor import Executor

@task
def step(name):
    note(name)
    return name

@flow
def two_steps(what="x"):
    return [step(f"{what}1"), step(f"{what}2")]

@flow
def dies(always=True):
    step("begun")
    if always or first_time():
        kill()
    return "lived"

@flow
def hangs(name="x"):
    note(name)
    print("running", flush=True)
    time.sleep(600)

def main():
    # moment and number of the commit at which this process kills itself; none: never
    journal = use_journal(None)
    if len(sys.argv) > 1:
        point = sys.argv[1]
        def probe(moment, number, changes):
            if f"{moment}:{number}" == point:
                kill()
        journal.probe_commits(probe)
    Executor(journal, limit=int(os.environ.get("LIMIT", "10"))).run_once()
    print("commits", journal._writer.commits)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def executor_program(program: Program) -> Program:
    program.write(FLOWS)
    return program


@pytest.fixture
def opened(executor_program: Program) -> Journal:
    """The journal of the program, open in the test's own process too."""
    return use_journal(executor_program.folder / "journal.db")


def deploy_of(journal: Journal, program: Program, flow: str, name: str = "main", **columns: object) -> int:
    """Record a deployment of a flow of the program."""
    return deploy(journal, flow.replace("_", "-"), name, entrypoint=f"file:{program.path}:{flow}", **columns)


@pytest.mark.long
def test_each_run_ran_once_wherever_its_executor_was_killed(
    opened: Journal, executor_program: Program, rows: Rows, tmp_path: Path
) -> None:
    program = executor_program
    limited = deploy_of(opened, program, "two_steps", "limited", concurrency_limit=1)
    set_queue(opened, "default", slots=1, rate=(100, 1))
    opened.close()
    path = tmp_path / "journal.db"
    before = path.read_bytes()

    def killed_at(point: str) -> bool:
        """Put two runs into a fresh journal, kill their executor there, start another one; False: it was not killed."""
        for file in tmp_path.glob("journal.db*"):
            file.unlink()
        path.write_bytes(before)
        (tmp_path / "effects.txt").unlink(missing_ok=True)
        fresh = use_journal(path)
        ids = [put(fresh, limited, what=name) for name in "ab"]
        fresh.close()
        killed = program.python(str(program.path), point).was_killed
        if killed:
            done = program.python(str(program.path))
            assert done.code == 0, done
        found = rows("SELECT id, state, crashes FROM flow_run ORDER BY id")
        assert [(run_id, state) for run_id, state, _ in found] == [(run_id, "COMPLETED") for run_id in ids], point
        assert sum(int(str(crashes)) for _, _, crashes in found) <= 1, point
        recorded = rows(
            "SELECT r.id, t.state, (SELECT count(*) FROM transition n WHERE n.task_run_id = t.id AND n.state = 'COMPLETED')"
            " FROM flow_run r JOIN task_run t ON t.flow_run_id = r.id ORDER BY r.id, t.id"
        )
        assert recorded == [(run_id, "COMPLETED", 1) for run_id in ids for _ in range(2)], point
        assert set(program.effects) == {"a1", "a2", "b1", "b2"}, point
        assert len(program.effects) <= 5, point  # the one step that was cut off may run again
        assert rows("SELECT count(*) FROM execution WHERE epoch > 2") == [(0,)], point
        return killed

    number = 1
    while killed_at(f"before:{number}") and killed_at(f"after:{number}"):
        number += 1
    assert number > 8  # the claim, two steps and the end of each of the runs have commits


def test_two_executors_on_one_file_run_each_of_200_queued_runs_once(
    opened: Journal, executor_program: Program, rows: Rows
) -> None:
    program = executor_program
    deployments = [deploy_of(opened, program, "two_steps", name, queue=name) for name in "abc"]
    set_queue(opened, "b", slots=2)
    ids = [put(opened, deployments[number % 3], what=f"n{number}-", priority=number % 5) for number in range(200)]

    children = [
        subprocess.Popen([sys.executable, str(program.path)], cwd=program.folder, env=program.environment) for _ in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]

    Executor(opened).run_once()  # what the full queue kept one of them from seeing at its end
    assert rows("SELECT id, state, epoch FROM flow_run ORDER BY id") == [(run_id, "COMPLETED", 1) for run_id in ids]
    assert len(program.effects) == 400
    assert len(set(program.effects)) == 400


def test_a_run_that_always_kills_its_process_is_left_after_its_recoveries(
    opened: Journal, executor_program: Program, rows: Rows
) -> None:
    program = executor_program
    run_id = put(opened, deploy_of(opened, program, "dies", max_recoveries=2))
    other = put(opened, deploy_of(opened, program, "two_steps", priority=-1, queue="other"))

    for _ in range(3):
        assert program.python(str(program.path)).was_killed
    done = program.python(str(program.path))
    assert done.code == 0, done

    assert rows("SELECT state, crashes, epoch FROM flow_run WHERE id = ?", run_id) == [("CRASHED", 3, 3)]
    assert rows.value("SELECT state FROM flow_run WHERE id = ?", other) == "COMPLETED"
    assert program.effects.count("begun") == 1  # its result is recorded: only the flow was begun again
    name = rows.value("SELECT name FROM flow_run WHERE id = ?", run_id)
    assert f"flow run {run_id} '{name}' crashed 3 times and is not taken up by itself any more" in done.err
    assert "wfengine resume" in done.err


def test_a_run_that_killed_its_process_once_goes_on_by_itself(opened: Journal, executor_program: Program, rows: Rows) -> None:
    program = executor_program
    run_id = put(opened, deploy_of(opened, program, "dies"), always=False)

    assert program.python(str(program.path)).was_killed
    assert program.python(str(program.path)).code == 0

    assert rows("SELECT state, crashes, epoch FROM flow_run WHERE id = ?", run_id) == [("COMPLETED", 1, 2)]


@pytest.fixture
def hanging(opened: Journal, executor_program: Program) -> Iterator[subprocess.Popen[str]]:
    """Have another process execute a run that does not end, in a queue with one place."""
    set_queue(opened, "default", slots=1)
    run_id = put(opened, deploy_of(opened, executor_program, "hangs"))
    assert run_id == 1
    child = subprocess.Popen(
        [sys.executable, str(executor_program.path)], cwd=executor_program.folder, env=executor_program.environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "running\n"
            yield child
        finally:
            child.kill()


def test_the_place_of_a_killed_process_is_free(opened: Journal, rows: Rows, hanging: subprocess.Popen[str]) -> None:
    waiting = put(opened, deploy(opened, noting), what="waits")
    with executing(opened, recover="none"):
        other = put(opened, deploy(opened, noting, queue="other"), what="other")
        await_state(opened, rows, other, "COMPLETED")
        assert rows.value("SELECT state FROM flow_run WHERE id = ?", waiting) == "SCHEDULED"
        os.kill(hanging.pid, signal.SIGKILL)
        await_state(opened, rows, waiting, "COMPLETED")

    assert rows.state(1) == ("CRASHED", "Crashed")
