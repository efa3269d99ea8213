"""No more threads, and no more memory: for a flow, for SQLite alone, and for commands."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.harness import Case
from tests.damage.rich import environment, make_rich
from tests.faults import harness
from tests.faults.program import SMALL_FLOW
from tests.faults.test_scarce import run
from wfengine_journal.store import open_journal

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not Path("/proc/self/statm").exists(), reason="needs Linux: how much memory a process has is read there"
    ),
]


def resumed_rightly(case: Case) -> bool:
    assert harness.after_fault(case) == []
    assert run(case).result == SMALL_FLOW.expected
    assert harness.after_end(case) == []
    return True


@pytest.mark.parametrize(
    ("scarce", "needs"),
    [
        ("threads:0", "wfengine-halts"),  # it was a RuntimeError without a word of ours
        ("threads:2", "wfengine-worker-1"),  # the flow was recorded as failed
        ("heap:100000", "memory"),  # it was a MemoryError
    ],
)
def test_what_there_is_too_little_of_is_told_plainly_and_the_run_goes_on_when_there_is_more(
    tmp_path: Path, scarce: str, needs: str
) -> None:
    case = Case(tmp_path / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    ending = run(case, SCARCE=scarce)
    assert (ending.returncode, ending.said.partition(":")[0]) == (0, "error JournalUnwritableError"), ending
    assert needs in ending.said
    assert "ulimit -a" in ending.said
    assert resumed_rightly(case)


def test_with_fewer_threads_than_its_tasks_could_use_a_flow_gets_by(tmp_path: Path) -> None:
    case = Case(tmp_path / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    assert run(case, SCARCE="threads:3").result == SMALL_FLOW.expected
    assert harness.after_end(case) == []


@pytest.mark.parametrize("kilobytes", range(1250, 1800, 200))
def test_where_ever_sqlite_runs_out_of_memory_the_run_can_be_resumed(tmp_path: Path, kilobytes: int) -> None:
    case = Case(tmp_path / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    ending = run(case, SCARCE=f"heap:{kilobytes}000")
    assert ending.said.startswith(("result ", "error JournalUnwritableError: ")), ending
    assert resumed_rightly(case)


#: Of memory it is SQLite's that is scarce: without any Python itself cannot even import.
COMMAND = """
import contextlib, sqlite3, sys
from tests.faults.small_flow import make_scarce
from wfengine.cli import _run
if sys.argv[1] == "heap":
    with contextlib.suppress(MemoryError):
        sqlite3.connect(":memory:").execute("PRAGMA hard_heap_limit = 30000")  # of the whole process
else:
    make_scarce("threads", 0)
sys.exit(_run(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    make_rich(folder)
    return folder


@pytest.mark.parametrize("scarce", ["threads", "heap"])
@pytest.mark.parametrize("command", ["runs show 1", "backup copy.db --force", "variables set size 7"])
def test_a_command_without_memory_or_threads_does_its_work_or_says_why_not(rich: Path, scarce: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, scarce, *command.split()], cwd=rich, env=environment(rich), text=True,
        capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 5), done
    assert "Traceback" not in done.stderr
    assert "fault in wfengine" not in done.stderr
    assert bool(done.returncode) == ("error[WF405]" in done.stderr)
    assert done.returncode or scarce == "threads"


def test_a_task_with_a_time_limit_does_not_fail_for_want_of_its_thread(tmp_path: Path) -> None:
    code = """
from wfengine import flow, task, use_journal
from wfengine_journal.errors import JournalUnwritableError
from tests.faults.small_flow import make_scarce

@task(timeout_seconds=50)
def limited():
    return 1

@flow
def trusting():
    try:
        return limited()
    except Exception as error:
        print("caught", error)
        raise

use_journal("journal.db")
make_scarce("threads", 2)
try:
    trusting()
except JournalUnwritableError as error:
    print("wfengine-timed-task" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), text=True, capture_output=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done
    assert invariants.query(tmp_path / "journal.db", "SELECT state FROM tasks") == [("RUNNING",)]


def test_who_could_not_wait_for_want_of_a_thread_can_later(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal.db")
    code = """
import resource, sys, threading
from pathlib import Path
from tests.faults.small_flow import make_scarce
from wfengine_journal.errors import JournalUnwritableError
from wfengine_journal.store import open_journal
journal = open_journal(Path(sys.argv[1]))
mark = journal.changes.mark()
make_scarce("threads", 0)
try:
    journal.changes.call(mark, print)
except JournalUnwritableError:
    print("none", flush=True)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
threading.stack_size(0)
changed = threading.Event()
journal.changes.call(mark, changed.set)
print("waits", flush=True)
changed.wait(60)
print(changed.is_set())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(journal.path)], env=environment(tmp_path), text=True, stdout=subprocess.PIPE
    )
    watchdog = threading.Timer(100, process.kill)
    watchdog.start()
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["none\n", "waits\n"]
    journal.owner_id  # noqa: B018 - a commit of another process: ours
    assert process.communicate()[0] == "True\n"
    watchdog.cancel()
    journal.close()
