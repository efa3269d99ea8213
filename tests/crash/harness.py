"""Start children, kill them, go on with their runs, and look at both witnesses.

A *case* is one flow run from its first start to its end, over as many processes as it takes, in a folder of its own:
`journal.db`, `effects.txt`, and `stderr.txt` of all its children.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from tests.crash import effects, invariants
from tests.crash.effects import Effect
from tests.crash.nursery import Life, Nursery
from wfengine_journal import schema, store

ROOT = Path(__file__).resolve().parents[2]
ZOO = Path(__file__).with_name("zoo.py")
#: Statements that make a new file, the same for every flow: kills before them are tested once, by the full enumeration.
SCHEMA_STATEMENTS = sum(len(schema.statements(schema.read_sql(name))) for name in (*schema.SCRIPTS.values(), "views.sql"))
#: Set: before each statement, where the gate takes some; see `chosen`.
EACH_STATEMENT = bool(os.environ.get("WFENGINE_EACH_STATEMENT"))
#: The gate kills before each so many-th statement, and wherever two kinds of statement follow each other for the first time.
CHOSEN_EACH = 6
#: No child may live longer, in seconds: far more than any needs, so that only a hang reaches it.
CHILD_LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One flow run under torture, and how its children are started."""

    folder: Path
    flow: str
    options: tuple[str, ...] = ()
    program: Path = ZOO

    @property
    def journal(self) -> Path:
        """The journal of this case."""
        return self.folder / "journal.db"

    def with_schema(self) -> Case:
        """Put a journal without runs into the folder: what each first child would make, by the same statements; return self."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal.write_bytes(empty_journal())
        return self

    def effects(self) -> list[Effect]:
        """Return what the tasks and the flow of this case left so far."""
        return effects.read(self.folder / "effects.txt")

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Return the rows of a query on the journal."""
        return invariants.query(self.journal, sql)

    def start(self, *options: str) -> Child:
        """Start a child that starts the flow, or goes on with its run if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Child(self, options)

    def run(self, *options: str, nursery: Nursery | None = None, life: Life | None = None) -> Ending:
        """Start a child - fresh, or from a nursery, which can kill it after a time - and wait for its end."""
        if nursery is None:
            return self.start(*options).end()
        self.folder.mkdir(parents=True, exist_ok=True)
        said, stderr = self.folder / "stdout.txt", self.folder / "stderr.txt"
        for path in (said, stderr):
            path.touch(0o600)  # a child can be killed before it makes them
        said.write_text("")
        returncode = nursery.run(self.folder, [*self.arguments(), *options], self.variables(), life)
        lines = said.read_text(encoding="utf-8").splitlines()
        return Ending(returncode, lines[-1] if lines else "", _tail(stderr))

    def arguments(self) -> list[str]:
        """Return the command line that all children of this case share."""
        return [self.flow, "--journal", str(self.journal), *self.options]

    def variables(self) -> dict[str, str]:
        """Return the environment variables of this case."""
        return {effects.VARIABLE: str(self.folder / "effects.txt")}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: killed, or what it said last."""

    returncode: int
    said: str
    stderr: str

    @property
    def was_killed(self) -> bool:
        """Tell whether a SIGKILL ended it."""
        return self.returncode == -9

    @property
    def result(self) -> object:
        """Return the flow's result; AssertionError when the child gave none."""
        kind, _, text = self.said.partition(" ")
        assert kind == "result", f"the child gave no result: exit code {self.returncode}, {self.said!r}\n{self.stderr}"
        return json.loads(text)

    @property
    def error(self) -> str:
        """Return 'TYPE: text' of the error the flow call raised; AssertionError when there was none."""
        kind, _, text = self.said.partition(" ")
        assert kind == "error", f"the child raised no error: exit code {self.returncode}, {self.said!r}\n{self.stderr}"
        return text


class Child:
    """A real process that executes a flow. A watchdog kills it when it hangs; then `end` fails."""

    def __init__(self, case: Case, options: tuple[str, ...]) -> None:
        command = [sys.executable, "-W", "error", str(case.program), *case.arguments(), *options]
        self._stderr = case.folder / "stderr.txt"
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env=environment() | case.variables(), cwd=case.folder,
            )  # fmt: skip
        self.pid = self._process.pid
        self._said = ""
        self._hung = False
        self._watchdog = threading.Timer(CHILD_LIMIT_SECONDS, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _give_up(self) -> None:
        self._hung = True
        self._process.kill()

    def wait_for(self, word: str) -> None:
        """Wait until the child has said a line that begins with this word."""
        while line := self.line():
            if line.startswith(word):
                return
        ending = self.end()
        raise AssertionError(f"the child ended before it said {word!r}: {ending}")

    def line(self) -> str:
        """Wait for the next line the child says and return it; empty at its end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            self._said = line.rstrip("\n")
        return line

    def tell(self, line: str) -> None:
        """Give the child a line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill_after(self, seconds: float) -> None:
        """Send SIGKILL after a time, whatever the child is doing then."""
        threading.Event().wait(seconds)
        self._process.kill()

    def end(self) -> Ending:
        """Wait for the end. AssertionError if the watchdog had to end it."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        while self.line():
            pass
        returncode = self._process.wait(CHILD_LIMIT_SECONDS)
        self._watchdog.cancel()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # killed before it read what it was told
            self._process.stdin.close()
        stderr = _tail(self._stderr)
        assert not self._hung, f"the child was still running after {CHILD_LIMIT_SECONDS} s\n{stderr}"
        return Ending(returncode, self._said, stderr)


def environment() -> dict[str, str]:
    """Return the environment of a child: ours, and the source roots."""
    roots = (ROOT, ROOT / "journal", ROOT / "scheduler")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(root) for root in roots)}


@functools.cache
def empty_journal() -> bytes:
    """Return a journal file that was just made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.db")
        store.open_journal(path).close()
        return path.read_bytes()


def _tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-4000:]


# ------------------------------------------------------------------------------------------- kill at every statement


class AfterKill(Protocol):
    """What a program's witnesses must satisfy after a kill."""

    def __call__(self, journal: Path, effects: list[Effect], /) -> list[str]: ...


class AfterEnd(Protocol):
    """What they must satisfy when the run has ended."""

    def __call__(self, journal: Path, effects: list[Effect], in_flight: int, is_ordered: bool, /) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Checks:
    """The invariants of a program: those of wfengine unless it is another program's turn."""

    after_kill: AfterKill = invariants.after_kill
    after_end: AfterEnd = invariants.after_end
    in_flight: int = 1
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class KilledAt:
    """One kill of an enumeration: before which statement, and what was found wrong."""

    number: int
    statement: str
    case: Case
    violations: list[str]


def kill_at(case: Case, number: int, expected: object, checks: Checks, nursery: Nursery | None) -> KilledAt | None:
    """Kill a child of the case before statement `number`, go on to the end, check; None if it ended before that statement."""
    ending = case.run("--kill-before", str(number), nursery=nursery)
    if not ending.was_killed:
        assert ending.result == expected, f"without a kill: {ending}"
        return None
    violations = checks.after_kill(case.journal, case.effects())
    last = case.run(nursery=nursery)
    if not last.said.startswith("result "):
        violations.append(f"result-equal: no result but {last.said!r} (exit code {last.returncode})\n{last.stderr}")
    elif last.result != expected:
        violations.append(f"result-equal: {last.result!r} instead of {expected!r}")
    violations += checks.after_end(case.journal, case.effects(), checks.in_flight, checks.is_ordered)
    statement = (case.folder / "killed-before.sql").read_text(encoding="utf-8")
    return KilledAt(number, statement.partition("\n")[0][:80], case, violations)


def chosen(case: Case) -> list[int]:
    """Return before which statements the gate kills; before each with WFENGINE_EACH_STATEMENT.

    They are each `CHOSEN_EACH`-th, from a start that depends on the flow, and each that is the first of its kind after the one
    before it. `case` is one that begins with a file that has the schema, and is run for that.
    """
    ending = case.run("--list-statements")
    assert ending.said.startswith("result "), ending
    kinds = (case.folder / "statements.txt").read_text(encoding="utf-8").splitlines()
    if EACH_STATEMENT:
        return list(range(1, 100_000))
    first_pairs = {pair: number for number, pair in reversed(list(enumerate(pairwise(["", *kinds]), 1)))}
    start = 1 + zlib.crc32(case.flow.encode()) % CHOSEN_EACH
    return sorted({*first_pairs.values(), *range(start, len(kinds) + 1, CHOSEN_EACH)})


def kill_at_every_statement(
    make_case: Callable[[int], Case],
    expected: object,
    checks: Checks,
    *,
    first: int = 1,
    last: int = 100_000,
    step: int = 1,
    numbers: Iterable[int] | None = None,
    program: Path = ZOO,
    children: int = 2,
) -> list[KilledAt]:
    """Kill a fresh case before each statement up to the last, or until one ends unkilled; `children` at a time. In order.

    Where the first is the one after the schema, the cases begin with a file that has it, whose statements are numbered anew.
    `numbers` of `chosen` cases: before these statements only.
    """
    has_schema = first == SCHEMA_STATEMENTS or numbers is not None
    if has_schema:
        first = 1
        empty_journal()  # before there are threads
    found: list[KilledAt] = []
    todo = iter(range(first, last + 1, step) if numbers is None else numbers)
    lock = threading.Lock()
    over = threading.Event()
    problems: list[BaseException] = []

    def work() -> None:
        nursery = Nursery(program, environment())
        try:
            while not over.is_set():
                with lock:
                    number = next(todo, None)
                if number is None:
                    return
                case = make_case(number)
                killed = kill_at(case.with_schema() if has_schema else case, number, expected, checks, nursery)
                if killed is None and numbers is None:
                    over.set()
                elif killed is not None:
                    found.append(killed)
        except BaseException as problem:
            problems.append(problem)
            over.set()
        finally:
            nursery.close()

    in_parallel(work, children)
    if problems:
        raise problems[0]
    return sorted(found, key=lambda killed: killed.number)


def in_parallel(work: Callable[[], None], times: int) -> None:
    """Run `work` on so many threads and wait for all."""
    threads = [threading.Thread(target=work) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def all_violations(kills: list[KilledAt]) -> list[str]:
    """Return what was found wrong, with where the kill was."""
    return [f"killed before statement {kill.number} ({kill.statement}): {text}" for kill in kills for text in kill.violations]
