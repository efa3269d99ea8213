"""What the engine's tests share: a journal of their own, its rows by SQL, a clock that only moves when slept on, and
programs that are real files run by real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forked
from tests.conftest import VirtualClock
from wfengine import use_journal
from wfengine_journal import store
from wfengine_journal.connection import open_reader

FakeClock = VirtualClock  # as tests of the engine name it
#: Seconds after which a test program counts as hanging.
PROGRAM_SECONDS = 60


class Rows:
    """The rows of a journal, read by SQL through a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        opened = store._OPEN.get(os.path.realpath(self.path))
        if opened is not None:
            opened.flush()
        connection = open_reader(self.path)
        try:
            return [tuple(row) for row in connection.execute(sql, parameters)]
        finally:
            connection.close()

    def value(self, sql: str, *parameters: object) -> object:
        """Return the only value of the only row."""
        ((only,),) = self(sql, *parameters)
        return only

    def state(self, run_id: int = 1) -> tuple[object, object]:
        """Return state and state name of a flow run."""
        ((state, name),) = self("SELECT state, state_name FROM runs WHERE id = ?", run_id)
        return state, name


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, empty_journal: Path) -> Iterator[store.Journal]:
    """Use a journal in the test's own folder for all runs of the test."""
    shutil.copy(empty_journal, tmp_path)
    yield use_journal(tmp_path / "journal.db")
    store.close_all()


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path / "journal.db")


@pytest.fixture
def clock(tmp_path: Path, journal: store.Journal) -> FakeClock:
    """Use the test's journal with a clock that only moves when it is slept on."""
    journal.close()
    fake = FakeClock()
    store.open_journal(tmp_path / "journal.db", fake)
    use_journal(tmp_path / "journal.db")
    return fake


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def answer(self) -> dict[str, object]:
        """The JSON object that RESUME prints."""
        found: dict[str, object] = json.loads(self.out.splitlines()[-1])
        return found


PROGRAM_HEAD = """
from __future__ import annotations
import asyncio, datetime, os, random, sys, time, uuid
from pathlib import Path
from wfengine import as_completed, carry, flow, task, use_journal

HERE = Path(os.environ["PROGRAM_FOLDER"])

def note(text):
    with (HERE / "effects.txt").open("a") as effects:
        effects.write(f"{text}\\n")

def kill():
    os.kill(os.getpid(), 9)

def first_time(name="crashed"):
    if (HERE / name).exists():
        return False
    (HERE / name).touch()
    return True

"""

RESUME = """
import json, sys
from wfengine import use_journal
from wfengine.recovery import find_run_id, resume_run
from wfengine_journal.errors import WfengineError

options = json.loads(sys.argv[1])
journal = use_journal(None)
try:
    state = resume_run(journal, find_run_id(journal, options.pop("run")), **options)
    result = state.result(raise_on_failure=False)
    print(json.dumps({"state": state.type.value, "result": repr(result), "type": type(result).__qualname__}))
except WfengineError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


class Program:
    """A script in the test's folder, run and resumed by processes of their own; it notes its side effects in a file.

    `is_fresh`: each process is started; else it is forked by one that has imported wfengine, see `tests.forked`.
    """

    def __init__(self, folder: Path, is_fresh: bool = False) -> None:
        self.folder = folder
        self.is_fresh = is_fresh
        self.path = folder / "program.py"
        self.environment = {
            **os.environ,
            "PROGRAM_FOLDER": str(folder),
            "WFENGINE_JOURNAL": str(folder / "journal.db"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def write(self, text: str) -> None:
        """Write the script, with the head that all scripts share before it."""
        self.path.write_text(PROGRAM_HEAD + textwrap.dedent(text), encoding="utf-8")

    def python(self, *arguments: str, stdin: str | None = None) -> Done:
        done = forked.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            timeout=PROGRAM_SECONDS,
            is_fresh=self.is_fresh,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self) -> Done:
        """Start the script."""
        return self.python(str(self.path))

    def run_and_be_killed(self) -> None:
        """Start the script, which has to kill itself."""
        done = self.run()
        assert done.was_killed, done

    def resume(self, run: int | str = "@last", **options: object) -> dict[str, object]:
        """Resume a run in a new process; return what became of it."""
        done = self.python("-c", RESUME, json.dumps({"run": run, **options}))
        assert done.code == 0, done
        return done.answer

    @property
    def effects(self) -> list[str]:
        """What the script noted so far, over all processes."""
        file = self.folder / "effects.txt"
        return file.read_text(encoding="utf-8").split() if file.exists() else []


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path, journal: store.Journal) -> Program:
    """A script of the test; the journal is left to its processes, which are started anew in a module with FRESH_PROCESSES."""
    journal.close()
    return Program(tmp_path, getattr(request.module, "FRESH_PROCESSES", False))
