"""The demo: run a flow over 28,298 airports, kill its process with SIGKILL, resume it, and check what came out.

Every step happens as a user would do it, in a process of its own; the flow is a plain file that is copied into the
demo's folder. What is said about the runs is read from the journals.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import cast

from wfengine_journal.errors import InternalError, UsageError
from wfengine_journal.location import ENVIRONMENT_VARIABLE
from wfengine_journal.queries import get_run, list_subflow_runs, reading
from wfengine_journal.rows import Run, TaskCount
from wfengine_journal.task_queries import task_counts

FOLDER = "wfengine-demo"
FLOW_FILE = "airports.py"
#: The task whose map is cut off, and after how many of its calls: half of the 234 countries.
CUT_TASK = "summarise"
CUT_AFTER = 117
#: A step of the demo that takes longer than this hangs, in seconds; on a slow machine it takes two.
STEP_LIMIT_SECONDS = 120
#: Subflow runs that are looked at; the flow has one.
SUBFLOW_LIMIT = 10

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found. `tasks`: the resumed run's calls by task."""

    journal: Path
    run: Run
    tasks: tuple[TaskCount, ...]
    rows: int
    other_rows: int
    identical: bool  # the report of the killed and resumed run, and that of the run nobody killed

    @property
    def verdict(self) -> str:
        """The comparison in a line."""
        return (
            f"{self.rows} rows against {self.other_rows}: {'identical' if self.identical else 'NOT identical, which is a bug'}"
        )


def run_demo(folder: Path | None = None, *, say: Say) -> DemoResult:
    """Run the demo in `folder` (default: ./wfengine-demo) and return what it found.

    Each line of its talk goes to `say`. The journal is `folder`/journal.db, or the one that WFENGINE_JOURNAL names.
    Raises UsageError without the package airportsdata, or where the folder cannot be written.
    """
    if importlib.util.find_spec("airportsdata") is None:
        raise UsageError("The demo reads the package airportsdata. Install it: pip install 'wfengine[examples]'")
    return _Demo(folder or Path(FOLDER), say).run()


class _Demo:
    def __init__(self, folder: Path, say: Say) -> None:
        self.folder = folder
        self.say = say
        self.flow_file = folder / FLOW_FILE
        self.report = folder / "report.db"
        self.other_report = folder / "report-not-killed.db"
        self.journal = Path(os.environ.get(ENVIRONMENT_VARIABLE) or folder / "journal.db")
        self.other_journal = folder / "journal-not-killed.db"

    def run(self) -> DemoResult:
        try:
            self._prepare()
        except OSError as error:
            raise UsageError(
                f"The demo cannot write its folder {self.folder.absolute()}: {error.strerror or error}. "
                "Start it in a folder that you can write to."
            ) from error
        self.say(f"The flow: {self.flow_file}   the journal: {self.journal}\n")
        run = self._run_and_kill()
        run, tasks = self._resume(run)
        rows, others = self._compare()
        result = DemoResult(self.journal, run, tasks, len(rows), len(others), rows == others)
        self.say(f"   {result.verdict}\n")
        self._say_what_next(run)
        return result

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        text = example_source().read_text(encoding="utf-8")
        if not self.flow_file.exists():
            self.flow_file.write_text(text, encoding="utf-8")
        elif self.flow_file.read_text(encoding="utf-8") != text:
            self.say(f"{self.flow_file} was edited; the demo uses it as it is. Delete it to have the original again.")
        for report in (self.report, self.other_report):
            report.unlink(missing_ok=True)  # so that what is compared below was written now

    def _run_and_kill(self) -> Run:
        self.say("1. Run it, and kill -9 its process when half of its 234 countries are done.")
        ended = self._python("-m", "wfengine.demo", self.flow_file, self.report, CUT_AFTER, journal=self.journal)
        if ended.returncode != -signal.SIGKILL:
            raise self._unexpected("The run that was to be killed", ended)
        with reading(self.journal) as connection:
            run = get_run(connection, int(ended.stdout.split()[-1]))
        self.say(f"   killed: exit status {ended.returncode}\n")
        return run

    def _resume(self, run: Run) -> tuple[Run, tuple[TaskCount, ...]]:
        command = self._command(f"resume {run.name}")
        self.say(f"2. Resume it in a new process: {command}")
        ended = self._python("-m", "wfengine", "resume", run.id, journal=self.journal)
        if ended.returncode != 0:
            raise self._unexpected(f"'{command}'", ended)
        with reading(self.journal) as connection:
            run = get_run(connection, run.id)
            counts = task_counts(connection, run.id)
            for subflow in list_subflow_runs(connection, run.id, SUBFLOW_LIMIT):
                counts += task_counts(connection, subflow.id)
        tasks = tuple(count for count in counts if count.kind == "task")
        self._say_counts(run, tasks)
        return run, tasks

    def _say_counts(self, run: Run, counts: tuple[TaskCount, ...]) -> None:
        self.say(f"   run {run.id} '{run.name}' is {run.state}; from the journal:\n")
        self.say(f"   {'task':<18}{'calls':>7}{'replayed':>10}{'ran':>6}")
        for count in counts:
            self.say(f"   {count.task:<18}{count.count:>7}{count.replayed:>10}{count.count - count.replayed:>6}")
        self.say("")

    def _compare(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        self.say("3. Compare its report with that of a run that nobody kills.")
        ended = self._python("-m", "wfengine.demo", self.flow_file, self.other_report, 0, journal=self.other_journal)
        if ended.returncode != 0:
            raise self._unexpected("The run that was not to be killed", ended)
        return list(_rows(self.report)), list(_rows(self.other_report))

    def _say_what_next(self, run: Run) -> None:
        query = "SELECT task, count(*) AS calls, sum(replayed) AS replayed, max(duration_s) FROM tasks GROUP BY task"
        self.say("Look at it:")
        self.say(f'   sqlite3 -box {shlex.quote(str(self.journal))} "{query}"')
        self.say(f"   {self._command(f'runs show {run.name}')}")
        self.say(f"   {self._command('run ' + shlex.quote(str(self.flow_file)) + ':airports -p path=report.db')}")

    def _command(self, arguments: str) -> str:
        return f"{_program()} {arguments} --journal {shlex.quote(str(self.journal))}"

    def _python(self, *arguments: object, journal: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, ENVIRONMENT_VARIABLE: str(journal.absolute())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=STEP_LIMIT_SECONDS,
            check=False,
        )

    def _unexpected(self, what: str, ended: subprocess.CompletedProcess[str]) -> InternalError:
        return InternalError(
            f"{what} ended with exit status {ended.returncode} and said:\n{ended.stdout}{ended.stderr}\n"
            f"If you did not edit {self.flow_file}, this is a fault in wfengine: please report it."
        )


def example_source() -> Path:
    """Return the flow's file: part of the installed package, or of the checkout that an editable install uses."""
    installed = Path(__file__).with_name("_demo") / FLOW_FILE
    return installed if installed.exists() else Path(__file__).parent.parent / "examples" / FLOW_FILE


def _program() -> str:
    """Return what to type for `wfengine`: the name if the shell finds this very program by it, else its path."""
    beside = Path(sys.executable).with_name("wfengine")
    found = shutil.which("wfengine")
    if found is not None and Path(found).resolve() == beside.resolve():
        return "wfengine"
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m wfengine"
    return shlex.quote(os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside))


def _rows(database: Path) -> Iterator[dict[str, object]]:
    from sqlite_utils import Database

    report = Database(database)
    try:
        yield from cast("Iterator[dict[str, object]]", report["country"].rows_where(order_by="country"))
    finally:
        report.close()


# ---------------------------------------------------------------------------------------------------- in the child


def run_and_kill(flow_file: str, report: str, kill_after: int) -> None:
    """Run the demo's flow in this process, which is killed after so many calls of the mapped task; 0: never.

    Just before the kill the id of the run is written to stdout, for the process that resumes it.
    """
    from wfengine.listeners import Event, add_listener
    from wfengine.loading import load_target

    lock, done = Lock(), 0

    def kill_in_the_middle(event: Event) -> None:
        nonlocal done
        if event.name == CUT_TASK and event.state == "COMPLETED":
            with lock:
                done += 1
                if done == kill_after:
                    sys.stdout.write(f"{event.flow_run_id}\n")
                    sys.stdout.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

    add_listener(kill_in_the_middle)
    (flow,) = load_target(f"{flow_file}:airports")
    cast("Callable[[str], object]", flow)(str(Path(report).absolute()))


if __name__ == "__main__":
    run_and_kill(sys.argv[1], sys.argv[2], int(sys.argv[3]))
