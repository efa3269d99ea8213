"""Some hundred edits of generated flows: cut off by a crash or a failure, edited, resumed, and compared with a model.

What must hold: the resumed run gives what the edited flow gives, never the value of another call; no completed call whose
task, argument and occurrence stayed the same is executed again; what is executed is new, was cut off, or was fatal; what
the edited code no longer asks for is listed as orphan. `edit_corpus` says what a program is and how the model walks it.
Each first process dies by a real SIGKILL, or its flow fails; each resume is another process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery
from tests.engine.edit_corpus import KINDS, Key, Maker, Program, Record, Walk, callees, source

pytestmark = pytest.mark.crash

#: Cases of one test, so that a failing one is found quickly.
CHUNK = 24
#: Tests; a longer search is asked for with EDIT_CORPUS_CHUNKS=100.
CHUNKS = int(os.environ.get("EDIT_CORPUS_CHUNKS", "5"))
#: Every so many cases a second crash hits the resume, and the command line does the last resume.
SECOND_CRASH_EVERY = 4
CLI_EVERY = 8
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Case:
    """One program in a folder of its own, and the processes that run it."""

    folder: Path
    nursery: Nursery
    seed: int
    kind: str

    def write(self, program: Program) -> None:
        (self.folder / "program.py").write_text(source(program), encoding="utf-8")

    def child(self, verb: str, cut_off: str = "") -> tuple[int, dict[str, object]]:
        """Run a process to its end; return its exit code, and what it said."""
        said = self.folder / "stdout.txt"
        said.unlink(missing_ok=True)
        journal, effects = str(self.folder / "journal.db"), str(self.folder / "effects.txt")
        variables = {"WFENGINE_JOURNAL": journal, "EFFECTS": effects, "CUT_OFF": cut_off}
        code = self.nursery.run(self.folder, [verb, str(self.folder / "program.py")], variables)
        lines = said.read_text(encoding="utf-8").splitlines()
        return code, json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}

    def effects(self) -> list[str]:
        """What the tasks left so far, an entry for each execution."""
        file = self.folder / "effects.txt"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def query(self, sql: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(f"{(self.folder / 'journal.db').as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def rows(self) -> dict[Key, tuple[str, bool]]:
        """Return state of each recorded call, and whether it is a fatal failure."""
        found: dict[Key, tuple[str, bool]] = {}
        keys: dict[object, Key] = {None: ()}
        for task_run, scope, task, inputs, occurrence, state, fatal, parent in self.query(
            "SELECT t.id, t.scope, k.name, t.inputs, t.occurrence, t.state, t.fatal, r.parent_task_run_id FROM task_run t"
            " JOIN task k ON k.id = t.task_id JOIN flow_run r ON r.id = t.flow_run_id ORDER BY t.id"
        ):
            (argument,) = json.loads(str(inputs)).values()
            keys[task_run] = (keys[scope or parent], task, argument, occurrence)
            found[keys[task_run]] = (str(state), fatal == 1)
        return found

    def orphans(self) -> list[tuple[object, ...]]:
        found = self.query("SELECT task, inputs FROM orphans")
        return sorted((task, *json.loads(str(inputs)).values()) for task, inputs in found)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "journal", ROOT / "scheduler")))}
    nursery = Nursery(Path(__file__).with_name("edit_child.py"), {**environment, "PYTHONDONTWRITEBYTECODE": "1"})
    yield nursery
    nursery.close()


def cut_off_somewhere(dice: random.Random, walk: Walk) -> str:
    """Choose where a process is to end: between two statements, in a task, or by its own failure."""
    choices = ["in"] * bool(walk.executed) + ["kill", "kill", "raise"] * bool(walk.points)
    if walk.failure is not None:
        choices += ["", ""]
    match dice.choice(choices or [""]):
        case "in":
            return f"in {dice.choice(walk.executed)}"
        case "":
            return ""
        case how:
            return f"{how} {dice.choice(walk.points)}"


def recorded_by(case: Case, walk: Walk, cut_off: str) -> dict[Key, Record]:
    """Return what the journal holds after an execution: states as it says, values as the model says."""
    rows = case.rows()
    if not cut_off.startswith("in "):  # in the middle of a task, other threads may have got anywhere
        expected = {key: (record.state, record.fatal) for key, record in walk.after().items()}
        settled = {key: row for key, row in rows.items() if row[0] in ("COMPLETED", "FAILED")}
        assert settled == {key: state for key, state in expected.items() if state[0] in ("COMPLETED", "FAILED")}
    full = Walk(walk.program, walk.recorded).go()
    values = {key: record.value for key, record in full.after().items()}
    return {
        key: Record(state, values[key] if state in ("COMPLETED", "FAILED") else "", fatal)
        for key, (state, fatal) in rows.items()
    }


def execute(
    case: Case, verb: str, program: Program, recorded: dict[Key, Record], cut_off: str, orphaned: set[Key] | None = None
) -> Walk:
    """Run one process and compare it with the model, which is returned."""
    before = len(case.effects())
    walk = Walk(program, recorded, cut_off, orphaned or set()).go()
    code, answer = case.child(verb, cut_off)
    ran = case.effects()[before:]
    if verb == "plan and resume":
        check_plan(walk, answer.pop("calls"), answer.pop("ended"))
    if code == -signal.SIGKILL:
        assert walk.result is None
        assert walk.failure is None
    elif verb == "cli":
        assert code == (0 if walk.failure is None else 1)
    else:
        assert (code, answer) == (0, {"result": walk.result} if walk.failure is None else {"failure": walk.failure})
    if not cut_off.startswith("in "):
        assert sorted(ran) == sorted(walk.executed)
    if walk.result is not None:
        assert Counter(case.orphans()) == Counter(walk.orphans())
        ((result,),) = case.query("SELECT result FROM runs WHERE parent_run_id IS NULL")
        assert result is None or json.loads(str(result)) == walk.result
    return walk


def check_plan(walk: Walk, calls: object, ended: object) -> None:
    """Compare what `resume --plan` said with the decisions of the model, which are those of the resume."""
    assert isinstance(calls, list)
    planned = Counter(tuple(call) for call in calls if call[0] != "ORPHAN")
    decided = Counter(walk.decisions)
    # It stops where a value would be needed that is not recorded; the calls up to there are all in it.
    first = next((place for place, call in enumerate(walk.decisions) if must_run(walk, call)), None)
    assert not planned - decided
    assert not Counter(walk.decisions if first is None else walk.decisions[: first + 1]) - planned
    if first is None:
        assert ended is True
    if first is None and walk.result is not None:
        orphans = Counter(tuple(call[1:]) for call in calls if call[0] == "ORPHAN")
        assert orphans == Counter(walk.orphans())


def must_run(walk: Walk, call: tuple[str, str, str]) -> bool:
    """Tell whether a call stops a plan; a subflow that was begun is entered."""
    decision, name, _ = call
    return decision == "NEW" or (decision == "RERUN" and name in walk.program.tasks)


def check_case(case: Case) -> None:
    dice = random.Random(case.seed)
    maker = Maker(dice)
    base = maker.program(is_async=case.seed % 3 == 0)
    edited = base
    while edited == base:
        edited = maker.edit(base, case.kind)
    cut_off = cut_off_somewhere(dice, Walk(base).go())
    case.write(base)
    first = execute(case, "start", base, {}, cut_off)
    recorded = recorded_by(case, first, cut_off)
    case.write(edited)
    orphaned: set[Key] = set()
    if case.seed % SECOND_CRASH_EVERY == 0:
        again = cut_off_somewhere(dice, Walk(edited, recorded).go())
        if again.startswith(("kill", "in")):
            second = execute(case, "resume", edited, recorded, again)
            recorded = recorded_by(case, second, again)
            orphaned = {key for key in second.orphaned_inside() if recorded[key[0]].state == "COMPLETED"}  # type: ignore[index]
    last = execute(case, "cli" if case.seed % CLI_EVERY == 0 else "plan and resume", edited, recorded, "", orphaned)
    names_replayed = {name for decision, name, _ in last.decisions if decision == "REPLAY"}
    if last.result is not None and not names_replayed & changed_callees(base, edited):
        assert last.result == Walk(edited).go().result  # as if it had been started today


def changed_callees(base: Program, edited: Program) -> set[str]:
    """Return the tasks and subflows whose recorded outcomes are those of older code, their own or that of what they call."""
    changed = {name for name, body in edited.tasks.items() if base.tasks.get(name) != body}
    changed |= {name for name, body in edited.tasks.items() if body.calls in changed}
    for name, block in edited.flows.items():
        if base.flows[name] != block or callees(block) & changed:
            changed.add(name)
    return changed


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_an_edited_flow_resumes_with_its_own_values_and_runs_only_what_the_edit_touched(
    nursery: Nursery, tmp_path: Path, chunk: int
) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = Case(folder, nursery, seed, KINDS[seed % len(KINDS)])
        try:
            check_case(case)
        except AssertionError as error:
            error.add_note(f"seed {seed}, edit: {case.kind}; the program and its journal are in {folder}")
            error.add_note((folder / "program.py").read_text(encoding="utf-8"))
            raise
