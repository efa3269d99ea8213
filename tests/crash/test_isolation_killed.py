"""A supervisor of isolated runs that is killed: at any moment, and around each of its commits. Its processes die with it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.isolated import HEAD, assert_dies

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc"),
]

#: Seconds after which a supervisor counts as hanging.
SUPERVISOR_SECONDS = 90

PROGRAM = """
@flow
def inner():
    return step(2)

@flow
def main(number: int):
    note(f"pid{os.getpid()}")
    total = step(1) + inner()
    if first_time(f"crashed{number}"):
        os._exit(3)
    return total + step(3)

@flow
def stuck():
    step(1)
    if first_time():
        note(f"started{subprocess.Popen(['sleep', '600']).pid}")
        note(f"pid{os.getpid()}")
        print("stuck", flush=True)
        ctypes.PyDLL(None).sleep(600)  # nothing of Python's runs in this process meanwhile
    return step(2)
"""

#: Launches every run that waits or was cut off, until none is; kills itself where it is told to.
SUPERVISOR = """
import os, signal, sys, threading
from pathlib import Path
from wfengine import use_journal
from wfengine.isolation import Children
from wfengine.recovery import resumable_runs

folder, kill, linger = sys.argv[1:]
journal = use_journal(Path(folder) / "journal.db")
count = 0

def probe(moment, number, changes):
    global count
    count = number
    if f"{moment}:{number}" == kill:
        os.kill(os.getpid(), signal.SIGKILL)

journal.probe_commits(probe)
children = Children(journal)
while True:
    waiting = journal.records.rows("SELECT id FROM flow_run WHERE state = 'SCHEDULED' AND parent_task_run_id IS NULL")
    todo = sorted({row[0] for row in waiting} | set(resumable_runs(journal)))
    if not todo:
        break
    for run_id in todo:
        over = threading.Event()
        children.launch(run_id, memory_limit_bytes=None, time_limit_seconds=None, ended=over.set)
        if linger and os.fork() == 0:  # a process that this one forks does not keep the run's process alive
            print(os.getpid(), flush=True)
            signal.pause()
        assert over.wait(60)
children.close(30)
print(count, flush=True)
"""


class Case:
    """A journal with queued runs, and supervisors for them."""

    def __init__(self, folder: Path, *flows: tuple[str, str]) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        (folder / "program.py").write_text(HEAD + PROGRAM, encoding="utf-8")
        setup = """
import sys
from pathlib import Path
from wfengine import use_journal
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.queued_runs import QueueRun, RunRequest
folder = Path(sys.argv[1])
journal = use_journal(folder / "journal.db")
at = journal.clock.now_text()
for number, (flow, parameters) in enumerate(eval(sys.argv[2])):
    columns = DeploymentColumns(flow, f"file:{folder / 'program.py'}:{flow}", None, None, "{}", None)
    put = PutDeployment(journal.flow_id(flow, None), columns, [], paused=None, at=at)
    journal.write(put, synced=True)
    journal.write(QueueRun(RunRequest(put.id, f"run-{number}", at, eval(parameters))), synced=True)
"""
        subprocess.run([sys.executable, "-c", setup, str(folder), repr(flows)], check=True, timeout=SUPERVISOR_SECONDS)

    def start(self, kill: str = "", linger: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(self.folder), kill, linger],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def supervise(self, kill: str = "") -> tuple[int, str]:
        """Run a supervisor to its end; return its exit code and what it printed."""
        supervisor = self.start(kill)
        out, err = supervisor.communicate(timeout=SUPERVISOR_SECONDS)
        assert supervisor.returncode in (0, -signal.SIGKILL), err
        return supervisor.returncode, out

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.folder / "journal.db")) as connection:
            return connection.execute(sql).fetchall()

    def effects(self, prefix: str) -> list[str]:
        file = self.folder / "effects.txt"
        effects = file.read_text(encoding="utf-8").split() if file.exists() else []
        return [effect.removeprefix(prefix) for effect in effects if effect.startswith(prefix)]


def test_killed_around_each_of_its_commits_a_supervisor_loses_and_doubles_nothing(tmp_path: Path) -> None:
    flows = (("main", "{'number': 1}"),)
    undisturbed = Case(tmp_path / "undisturbed", *flows)
    code, out = undisturbed.supervise()
    assert code == 0
    commits = int(out)
    assert commits >= 2
    for number in range(1, commits + 1):
        for moment in ("before", "after"):
            case = Case(tmp_path / f"{moment}{number}", *flows)
            assert case.supervise(f"{moment}:{number}")[0] == -signal.SIGKILL, f"{moment}:{number}"
            for pid in case.effects("pid"):
                assert_dies(int(pid))
            assert case.supervise()[0] == 0
            assert case.rows("SELECT DISTINCT state FROM flow_run") == [("COMPLETED",)], f"{moment}:{number}"
            assert sorted(case.effects("step")) == ["1", "2", "3"], f"{moment}:{number}"
            # It crashed once by itself, and was cut off once more at the most.
            assert case.rows("SELECT max(crashes) FROM flow_run") in ([(1,)], [(2,)]), f"{moment}:{number}"
            assert case.rows("PRAGMA integrity_check") == [("ok",)]


def test_no_process_outlives_its_supervisor_whatever_it_is_doing(tmp_path: Path) -> None:
    case = Case(tmp_path, ("stuck", "{}"))
    supervisor = case.start(linger="linger")
    assert supervisor.stdout is not None
    lingering = int(supervisor.stdout.readline())
    over = threading.Event()
    while not case.effects("pid"):
        assert supervisor.poll() is None
        over.wait(0.01)
    pids = [int(case.effects("started")[0]), int(case.effects("pid")[0])]
    supervisor.kill()
    for pid in pids:
        assert_dies(pid)
    os.kill(lingering, signal.SIGKILL)
    supervisor.communicate()
    assert case.supervise()[0] == 0
    ((state, crashes),) = case.rows("SELECT state, crashes FROM flow_run")
    assert (state, crashes) == ("COMPLETED", 1)
    assert case.effects("step") == ["1", "2"]
    ((message,),) = case.rows("SELECT message FROM transition WHERE state = 'CRASHED' AND task_run_id = 0")
    assert str(message).startswith(f"process {pids[1]} (wfengine-run ")
