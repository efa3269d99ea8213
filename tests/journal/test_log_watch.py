"""Whoever waits for another process's commit is told of it by the system, or looks often where the system does not tell."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from wfengine_journal import store
from wfengine_journal.changes import Changes
from wfengine_journal.file_events import FileEvents, open_events
from wfengine_journal.store import Journal

#: Seconds after which what should happen at once counts as hanging.
LONG = 60.0

needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")

#: Commits a row of its own with nothing but Python's sqlite3, for each line that it is given; then says so.
PLAIN_PYTHON = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("CREATE TABLE IF NOT EXISTS mine (x)")
print("ready", flush=True)
for line in sys.stdin:
    connection.execute(line).fetchall()
    print("done", flush=True)
"""

INSERT = "INSERT INTO mine VALUES (1)"


class Other:
    """Another process, which has the file open and executes one statement after the other in it."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PLAIN_PYTHON, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready\n"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def execute(self, statement: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        assert self._answer() == "done\n"

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of somebody's with write-ahead logging, which this process does not have open."""
    with closing(sqlite3.connect(tmp_path / "file.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return tmp_path / "file.db"


@pytest.fixture
def other(file: Path) -> Iterator[Other]:
    process = Other(file)
    yield process
    process.end()


@pytest.fixture
def events(file: Path, other: Other) -> Iterator[FileEvents]:
    opened = open_events(Path(f"{file}-wal"))
    assert opened is not None
    assert opened.follow()
    yield opened
    opened.close()


# ---------------------------------------------------------------------------------------------- what the system tells


@needs_inotify
@pytest.mark.parametrize("mode", ["NORMAL", "FULL", "OFF"])
def test_every_commit_of_another_process_is_told_of(events: FileEvents, other: Other, mode: str) -> None:
    other.execute(f"PRAGMA synchronous = {mode}")
    assert not events.wait(0)
    for _ in range(3):
        other.execute(INSERT)
        assert events.wait(LONG)
        assert not events.wait(0)


@needs_inotify
def test_a_commit_ends_a_wait_that_is_under_way(events: FileEvents, other: Other) -> None:
    told: list[bool] = []
    waiter = threading.Thread(target=lambda: told.append(events.wait(LONG)))
    waiter.start()
    other.execute(INSERT)
    waiter.join(LONG)
    assert told == [True]


@needs_inotify
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 program")
def test_a_commit_of_the_sqlite3_program_is_told_of(events: FileEvents, other: Other, file: Path) -> None:
    subprocess.run(["sqlite3", file, INSERT], check=True)
    assert events.wait(LONG)


@needs_inotify
@pytest.mark.parametrize("change", ["CREATE TABLE more (x)", "VACUUM", "PRAGMA user_version = 7"])
def test_other_changes_of_the_file_are_told_of_too(events: FileEvents, other: Other, change: str) -> None:
    other.execute(change)
    assert events.wait(LONG)


@needs_inotify
@pytest.mark.parametrize("kind", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_commits_are_told_of_after_the_log_was_begun_anew(events: FileEvents, other: Other, kind: str) -> None:
    other.execute(INSERT)
    other.execute(f"PRAGMA wal_checkpoint({kind})")
    assert events.wait(LONG)
    other.execute(INSERT)
    assert events.follow()
    assert events.wait(LONG)
    assert not events.wait(0)


@needs_inotify
def test_commits_are_told_of_after_the_log_was_deleted_and_made_again(events: FileEvents, other: Other, file: Path) -> None:
    other.end()
    assert not Path(f"{file}-wal").exists()
    assert events.wait(LONG)
    assert not events.follow()
    successor = Other(file)
    assert events.follow()
    successor.execute(INSERT)
    assert events.wait(LONG)
    successor.end()


@needs_inotify
def test_a_wait_can_be_ended_without_a_write(events: FileEvents) -> None:
    events.wake()
    events.wake()
    assert not events.wait(LONG)
    told: list[bool] = []
    waiter = threading.Thread(target=lambda: told.append(events.wait(LONG)))
    waiter.start()
    events.wake()
    waiter.join(LONG)
    assert told == [False]


@needs_inotify
def test_no_descriptor_is_left_when_one_of_the_two_cannot_be_had(tmp_path: Path) -> None:
    program = (
        "import os, resource, ctypes; from pathlib import Path; from wfengine_journal.file_events import open_events\n"
        "lowest = os.dup(0); os.close(lowest)\n"
        "for free in (0, 1):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, 4096))\n"
        "    assert open_events(Path('x')) is None\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))\n"
        "assert os.dup(0) == lowest\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


# ------------------------------------------------------------------------------------------------ who waits is told


def descriptors() -> Counter[str]:
    """Count what the system has lent this process of the kinds that a watch takes."""
    kinds: Counter[str] = Counter()
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # the one that listed the folder
            kinds[str(link.readlink())] += 1
    return Counter({kind: count for kind, count in kinds.items() if "inotify" in kind or "eventfd" in kind})


def is_watched(log: Path) -> bool:
    """Tell whether the system tells this process of writes to a file."""
    number = f"ino:{log.stat().st_ino:x} "
    for information in Path("/proc/self/fdinfo").iterdir():
        try:
            if any(line.startswith("inotify") and number in line for line in information.read_text().splitlines()):
                return True
        except OSError:
            continue
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("It did not come to that.")


def log_of(journal: Journal) -> Path:
    return Path(f"{journal.path}-wal")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    yield store.open_journal(tmp_path / "journal.db")
    store.close_all()


@pytest.fixture
def neighbour(journal: Journal) -> Iterator[Other]:
    process = Other(journal.path)
    yield process
    process.end()


def wait_in_silence(journal: Journal) -> threading.Event:
    """Wait for a change, and return when nothing is looked for any more and the system was asked to tell."""
    told = threading.Event()
    journal.changes.call(journal.changes.mark(), told.set)
    wait_until(lambda: is_watched(log_of(journal)) and looks_left(journal.changes) == 0)
    assert not told.is_set()
    return told


def looks_left(changes: Changes) -> int:
    watch = changes._watch
    assert watch is not None
    return watch._looks_left


@needs_inotify
def test_a_waiter_is_told_after_a_long_silence(journal: Journal, neighbour: Other) -> None:
    for _ in range(2):
        told = wait_in_silence(journal)
        neighbour.execute(INSERT)
        assert told.wait(LONG)


@needs_inotify
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 program")
def test_a_waiter_is_told_of_what_the_sqlite3_program_did(journal: Journal) -> None:
    told = wait_in_silence(journal)
    subprocess.run(["sqlite3", journal.path, "CREATE TABLE mine (x)"], check=True)
    assert told.wait(LONG)


@needs_inotify
@pytest.mark.parametrize("kind", ["PASSIVE", "RESTART", "TRUNCATE"])
def test_a_waiter_is_told_after_the_log_was_begun_anew(journal: Journal, neighbour: Other, kind: str) -> None:
    neighbour.execute(INSERT)
    told = wait_in_silence(journal)
    neighbour.execute(f"PRAGMA wal_checkpoint({kind})")
    neighbour.execute(INSERT)
    assert told.wait(LONG)


@needs_inotify
def test_a_commit_that_was_looked_for_before_somebody_waits_is_not_missed(journal: Journal, neighbour: Other) -> None:
    mark, first = journal.changes.mark(), threading.Event()
    journal.changes.call(mark, first.set)
    neighbour.execute(INSERT)
    assert first.wait(LONG)
    wait_in_silence(journal)  # it has been looked for, and nobody had that mark
    late = threading.Event()
    journal.changes.call(mark, late.set)
    assert late.wait(LONG)


def test_a_waiter_is_told_of_its_own_process_in_silence_too(journal: Journal) -> None:
    told = threading.Event()
    journal.changes.call(journal.changes.mark(), told.set)
    journal.flow_id("etl", None)
    assert told.is_set()


# ------------------------------------------------------------------------------------------------ nothing is left behind


@needs_inotify
def test_no_descriptor_is_left_when_the_journal_is_closed(journal: Journal) -> None:
    before = descriptors()
    told = wait_in_silence(journal)
    journal.close()
    assert told.is_set()
    assert not descriptors() - before


@needs_inotify
def test_no_descriptor_is_left_when_nobody_waits_any_more(journal: Journal, neighbour: Other) -> None:
    before = descriptors()
    told = wait_in_silence(journal)
    watcher = journal.changes._watcher
    assert watcher is not None
    neighbour.execute(INSERT)
    assert told.wait(LONG)
    watcher.join(LONG)
    assert not descriptors() - before


FORK = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_log_watch import INSERT, LONG, Other, descriptors, wait_in_silence
from wfengine_journal import store
journal = store.open_journal(Path(sys.argv[1]))
told = wait_in_silence(journal)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    mine = descriptors()
    theirs = store.open_journal(Path(sys.argv[1]))
    theirs.changes.wait(theirs.changes.mark(), 0.001)
    os.write(writing, repr((mine, told.is_set())).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(os.read(reading, 1000).decode(), descriptors().total())
neighbour = Other(journal.path)
told.wait(LONG)
told = wait_in_silence(journal)
neighbour.execute(INSERT)
assert told.wait(LONG)
neighbour.end()
store.close_all()
"""


@needs_inotify
def test_a_forked_child_has_none_of_the_descriptors_and_waits_for_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "journal.db"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(Counter(), False) 2\n", "")


# ------------------------------------------------------------------------------------------------ where it is not told


FALL_BACK = """
import sys, threading
from pathlib import Path
HIDE
sys.path.insert(0, sys.argv[2])
from test_log_watch import LONG, descriptors, wait_until
from wfengine_journal import store
journal = store.open_journal(Path(sys.argv[1]))
listed = descriptors().total()
LIMIT
told = threading.Event()
journal.changes.call(journal.changes.mark(), told.set)
wait_until(lambda: not journal.changes._watch._is_told)
print("ready", listed, flush=True)
assert told.wait(LONG)
print("told", flush=True)
sys.stdin.readline()
"""

#: How a process comes to have no inotify: lines before the imports, and after the journal was opened.
WITHOUT = {
    "a Python that was built without ctypes": ("sys.modules['_ctypes'] = None", ""),
    "no descriptor left": (
        "import os, resource",
        "lowest = os.dup(0); os.close(lowest); resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, 4096))",
    ),
}


@pytest.mark.parametrize("reason", WITHOUT)
def test_a_waiter_is_told_where_the_system_does_not_tell_and_nothing_is_said_of_it(tmp_path: Path, reason: str) -> None:
    before, after = WITHOUT[reason]
    program = FALL_BACK.replace("HIDE", before).replace("LIMIT", after)
    waiting = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "journal.db"), str(Path(__file__).parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready 0\n"
    committing = Other(tmp_path / "journal.db")
    assert waiting.stdout.readline() == "told\n"
    output, errors = waiting.communicate("\n")
    assert (output, errors, waiting.returncode) == ("", "", 0)
    committing.end()


def test_who_waits_for_a_moment_only_asks_nothing_of_the_system(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from wfengine_journal import store\n"
        "journal = store.open_journal(Path(sys.argv[1]))\n"
        "journal.changes.wait(journal.changes.mark(), 0.001)\n"
        "assert journal.changes._watch is None or journal.changes._watch._looks_left > 0, 'it took too long to tell'\n"
        "print('ctypes' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "journal.db")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
