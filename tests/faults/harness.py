"""Let one system call of a case go wrong, go on with its run, and look at both witnesses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.crash import invariants
from tests.crash.harness import Case, Ending, environment, in_parallel
from tests.crash.nursery import Nursery
from tests.faults.injector import HARMLESS_KINDS, KILL_KINDS, LINE_OF_NOTE, Fault

#: What the caller of a flow may be told when the disk failed.
PLAIN_ERRORS = ("JournalUnwritableError", "JournalCorruptError")


@dataclass(frozen=True, slots=True)
class Program:
    """A program under test: what it returns, and what reads its journal after a fault and at the end."""

    path: Path
    flow: str
    expected: object
    after_fault: Callable[[Case], list[str]]
    after_end: Callable[[Case], list[str]]


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that happened: to which call, how the process ended, and what was found wrong."""

    fault: Fault
    call: str
    ending: Ending
    violations: list[str]


def strike(program: Program, folder: Path, fault: Fault, nursery: Nursery) -> Struck | None:
    """Run a fresh case with the fault, then go on without it; None if the process ended before that call."""
    case = Case(folder, program.flow, program=program.path)
    ending = _run(case, fault.variables(case.journal), nursery)
    note = folder / LINE_OF_NOTE
    if not note.exists():
        assert ending.result == program.expected, f"without a fault: {ending}"
        return None
    violations = _said_plainly(program, fault, ending) + program.after_fault(case)
    last = _run(case, {}, nursery)
    if not last.said.startswith("result "):
        violations.append(f"result-equal: no result but {last.said!r} (exit code {last.returncode})\n{last.stderr}")
    elif last.result != program.expected:
        violations.append(f"result-equal: {last.result!r} instead of {program.expected!r}")
    violations += program.after_end(case)
    return Struck(fault, note.read_text(encoding="utf-8").strip(), ending, violations)


def _run(case: Case, variables: dict[str, str], nursery: Nursery) -> Ending:
    case.folder.mkdir(parents=True, exist_ok=True)
    said = case.folder / "stdout.txt"
    said.unlink(missing_ok=True)
    returncode = nursery.run(case.folder, case.arguments(), case.variables() | variables)
    lines = said.read_text(encoding="utf-8").splitlines()
    return Ending(returncode, lines[-1] if lines else "", (case.folder / "stderr.txt").read_text(encoding="utf-8")[-4000:])


def _said_plainly(program: Program, fault: Fault, ending: Ending) -> list[str]:
    """A kill kills; what POSIX allows is not noticed; any other fault ends in the result or in a plain error of ours."""
    if fault.kind in KILL_KINDS:
        return [] if ending.was_killed else [f"killed: {ending}"]
    if ending.said.startswith("result "):
        return [] if ending.result == program.expected else [f"result-equal: {ending.result!r}"]
    if fault.kind in HARMLESS_KINDS:
        return [f"not-noticed: {ending}"]
    kind, _, text = ending.said.removeprefix("error ").partition(": ")
    if not ending.said.startswith("error ") or ending.returncode != 0:
        return [f"plain-message: {ending}"]
    if kind not in PLAIN_ERRORS or "journal.db" not in text:
        return [f"plain-message: {ending.said}"]
    return []


def after_fault(case: Case) -> list[str]:
    """Return what is wrong with wfengine's journal right after a fault."""
    effects = case.effects()
    violations = [f"no-task-failure: {effect.call}" for effect in effects if effect.kind == "caught"]
    if case.journal.exists() and not invariants.is_unborn(case.journal):
        failed = case.query(
            "SELECT 'task', id, state FROM task_run WHERE state = 'FAILED'"
            " UNION ALL SELECT 'flow', id, state FROM flow_run WHERE state = 'FAILED'"
        )
        violations += [f"no-task-failure: {row}" for row in failed]
        violations += _false_completions(case)
    return violations + invariants.after_kill(case.journal, effects)


def _false_completions(case: Case) -> list[str]:
    """A run that is completed has its whole result in the file, and so has each task."""
    rows = case.query("SELECT 'task', id FROM task_run WHERE state = 'COMPLETED' AND result IS NULL")
    rows += case.query(
        "SELECT 'flow', r.id FROM runs r WHERE r.state = 'COMPLETED' AND (r.result IS NULL OR EXISTS"
        " (SELECT 1 FROM task_run t WHERE t.flow_run_id = r.id AND t.state <> 'COMPLETED'))"
    )
    return [f"no-false-completion: {row}" for row in rows]


def after_end(case: Case) -> list[str]:
    """Return what is wrong with wfengine's journal when the run has ended."""
    return after_fault(case) + invariants.after_end(case.journal, case.effects(), 3, is_ordered=False)


def strike_all(program: Program, folder: Path, library: Path, faults: Iterable[Fault], children: int = 2) -> list[Struck]:
    """Let each of these faults happen to a case of its own; those that came too late for it are left out."""
    struck: list[Struck] = []
    problems: list[BaseException] = []
    over: dict[tuple[str, bool], int] = {}  # of each kind: a number that no call had
    waiting = iter(faults)
    lock = threading.Lock()

    def work() -> None:
        nursery = Nursery(program.path, environment() | {"LD_PRELOAD": str(library)})
        try:
            while not problems:
                with lock:
                    fault = next(waiting, None)
                if fault is None:
                    return
                series = (fault.kind, fault.sticky)
                if fault.number >= over.get(series, fault.number + 1):
                    continue
                one = strike(program, folder / str(fault).replace(" ", "-"), fault, nursery)
                if one is None:
                    over[series] = min(fault.number, over.get(series, fault.number))
                else:
                    struck.append(one)
        except BaseException as problem:
            problems.append(problem)
        finally:
            nursery.close()

    in_parallel(work, children)
    if problems:
        raise problems[0]
    return struck


def all_violations(struck: Iterable[Struck]) -> list[str]:
    """Return what was found wrong, with the fault."""
    return [f"{one.fault} ({one.call}): {text}" for one in struck for text in one.violations]
