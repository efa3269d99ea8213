"""A daemon is killed after each commit of its life: ticks, starts and ends of runs. The next one does what is left, once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import VirtualClock
from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from wfengine_journal import store
from wfengine_journal.connection import open_reader
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_journal.queued_runs import QueueRun, RunRequest

#: Seconds after which a process counts as hanging.
SECONDS = 60
HOUR = 3600.0
#: How the runs come about: they wait in a queue already, or a schedule is due.
KINDS = ("queued", "ticks")
#: Pairs of daemons that are started together; more in a longer programme.
PAIRS = int(os.environ.get("WFENGINE_DAEMON_PAIRS") or 10)

#: What serves, and kills itself.
PROGRAM = Path(__file__).with_name("served.py")

FLOW = """
import os
from pathlib import Path
from wfengine import flow, task

def note(text):
    with Path(__file__).with_name("effects.txt").open("a") as effects:
        effects.write(text + "\\n")

@task
def work():
    note("work")
    return 1

@flow
def etl():
    return work() + 1
"""


def prepare(folder: Path, what: str) -> Path:
    """Make a journal with a deployment of which two runs wait in a queue, or that is hourly and unserved for 2.5 hours."""
    folder.mkdir()
    file = folder / "program.py"
    file.write_text(FLOW, encoding="utf-8")
    path = folder / "journal.db"
    journal = store.open_journal(path, VirtualClock(time.time() - 2.5 * HOUR))
    try:
        at = journal.clock.now_text()
        columns = DeploymentColumns("hourly", f"file:{file}:etl", None, None, "{}", None)
        hourly = ScheduleColumns("interval", "3600", None, "UTC", True, "{}", "", True, catch_up="all")
        schedules = [hourly] if what == "ticks" else []
        put = PutDeployment(journal.flow_id("etl", None), columns, schedules, paused=None, at=at)
        journal.write(put, synced=True)
        for name in ("calm-fox", "wild-cat") if what == "queued" else ():
            journal.write(QueueRun(RunRequest(put.id, name, at)), synced=True)
    finally:
        journal.close()
    return path


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(PROGRAM, environment())
    yield nursery
    nursery.close()


def serve(nursery: Nursery, path: Path, kill: int) -> tuple[int, str]:
    """Let a daemon serve a journal; return its exit code and all that it said."""
    code = nursery.run(path.parent, [str(path), str(kill)], {})
    return code, "".join((path.parent / f"{name}.txt").read_text() for name in ("stderr", "stdout"))


def assert_each_due_run_ran_once(path: Path, what: str) -> None:
    with closing(open_reader(path)) as connection:
        ticks = connection.execute("SELECT nominal_at, outcome, flow_run_id FROM tick ORDER BY nominal_at").fetchall()
        runs = connection.execute("SELECT id, state, nominal_at FROM flow_run ORDER BY id").fetchall()
        attempts = connection.execute("SELECT count(*) FROM task_run WHERE state = 'COMPLETED'").fetchone()
    if what == "ticks":
        assert [tick[1] for tick in ticks] == ["started", "started"]
        assert Counter((run[0], run[2]) for run in runs) == Counter((tick[2], tick[0]) for tick in ticks)
    assert [run[1] for run in runs] == ["COMPLETED", "COMPLETED"]
    assert attempts[0] == 2


@pytest.mark.parametrize("what", KINDS)
def test_after_a_kill_at_any_commit_each_due_run_ran_once(tmp_path: Path, nursery: Nursery, what: str) -> None:
    path = prepare(tmp_path / "undisturbed", what)
    code, said = serve(nursery, path, 0)
    assert code == 0, said
    assert_each_due_run_ran_once(path, what)
    commits = int(said.split()[-1])
    assert commits >= 6, "ticks, starts and ends are committed one by one"
    cut = set()
    for number in range(1, commits + 1):
        folder = tmp_path / str(number)
        path = prepare(folder, what)
        code, said = serve(nursery, path, number)
        if code == 0:  # fewer commits this time: what waited together was committed together
            assert_each_due_run_ran_once(path, what)
            continue
        assert code == -signal.SIGKILL, said
        cut.add((folder / "killed-after.txt").read_text())
        code, said = serve(nursery, path, 0)
        assert code == 0, (number, said)
        assert_each_due_run_ran_once(path, what)
    assert any("FlowRun" in what for what in cut), cut


@pytest.mark.parametrize("what", KINDS)
def test_of_two_daemons_that_start_together_each_due_run_is_executed_once(tmp_path: Path, what: str) -> None:
    for number in range(PAIRS):
        folder = tmp_path / str(number)
        path = prepare(folder, what)
        both = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(path), "0"],
                cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        said = [process.communicate(timeout=SECONDS) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert_each_due_run_ran_once(path, what)
        assert (folder / "effects.txt").read_text().split() == ["work", "work"]


@pytest.mark.parametrize(
    "bug",
    [
        "UPDATE flow_run SET nominal_at = NULL WHERE id = 2",  # a tick without its run
        "UPDATE task_run SET state = 'CRASHED' WHERE id = 2",  # a task that was not ended
        "UPDATE tick SET outcome = 'skipped', flow_run_id = NULL",  # ticks that nobody decided to start
    ],
)
def test_what_a_daemon_with_a_bug_would_leave_is_found(tmp_path: Path, nursery: Nursery, bug: str) -> None:
    path = prepare(tmp_path / "sound", "ticks")
    code, said = serve(nursery, path, 0)
    assert code == 0, said
    assert_each_due_run_ran_once(path, "ticks")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(bug)
    with pytest.raises(AssertionError):
        assert_each_due_run_ran_once(path, "ticks")
