"""The state machine: what is done to real flow runs by real processes, some of them killed, and held against the model.

Every action is a process of its own (`actor`). After each, the model says what must have run, what state each run is in, what
it returned, and which recorded calls are orphans; the file says what is. After a kill the model says what may have run: a
beginning of what would have. From then on it believes the file, of which it checked that it holds nothing else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.crash import effects, invariants
from tests.crash.nursery import Nursery
from tests.model.oracle import Execution, Program, Row, Run, Step

ACTOR = Path(__file__).with_name("actor.py")
KINDS = ("work", "work", "shaky", "caught", "sub", "ask", "hear")
NAMES = "abcdefghijklmnop"
#: At most so many runs, and steps of a program, in one example.
MOST_RUNS, MOST_STEPS = 6, 6

HEAD = """
from pathlib import Path
from tests.crash.effects import append
from wfengine import flow, task
from wfengine.flow_runs import suspend_flow_run
from wfengine.messages import receive

BROKEN = Path(__file__).with_name("broken.txt")
MANY = 1_000_000

@task(max_interruptions=MANY)
def work(name, version):
    append("run", f"work {name} {version}")
    return f"work {name} {version}"

@task(max_interruptions=MANY)
def shaky(name):
    append("run", f"shaky {name} 0")
    if name in BROKEN.read_text():
        raise ValueError(name)
    return f"shaky {name} 0"

@task(max_interruptions=MANY)
def inner(name):
    append("run", f"sub {name} 0")
    return f"sub {name} 0"

@flow
def sub(name):
    return inner(name)

def caught(name):
    try:
        return shaky(name)
    except ValueError:
        return f"caught {name}"

def ask(name):
    return suspend_flow_run(wait_for_input=int, timeout=None, key=name)

def hear(name):
    return receive(name, timeout_seconds=0, default=-1)

@flow
def main():
    return [
"""


def source(program: Program) -> str:
    """Return the file of a program."""
    lines = (f"        {kind}({name!r}{f', {version}' if kind == 'work' else ''})," for kind, name, version in program)
    return HEAD + "\n".join(lines) + "\n    ]\n"


def in_doubt_or(state: str) -> str:
    """Return the state of a call; one word for all that say no more than that it has no outcome."""
    return "IN DOUBT" if state in ("RUNNING", "CRASHED", "PENDING") else state


class FlowRuns(RuleBasedStateMachine):
    """Flow runs of one file on one journal."""

    nursery: ClassVar[Nursery]
    empty: ClassVar[Path]

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=MOST_STEPS))
    def begin(self, kinds: list[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wfengine-model-"))
        shutil.copy(self.empty, self.folder / "journal.db")
        self.break_these(set())
        self.names = iter([first + second for first in NAMES for second in NAMES])
        self.rewrite(tuple(Step(kind, next(self.names)) for kind in kinds))
        self.runs: dict[int, Run] = {}
        self.seen = 0
        self.hours = 0.0
        self.act("deploy")
        self.act("tick", 0)  # a schedule counts from when it is seen first

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # ---- what is done

    def break_these(self, names: set[str]) -> None:
        """Let tasks of these names fail from now on, and no others."""
        self.broken = names
        (self.folder / "broken.txt").write_text(" ".join(sorted(names)), encoding="utf-8")

    def rewrite(self, program: Program) -> None:
        """Edit the code: what is executed from now on is this."""
        self.program = program
        (self.folder / "program.py").write_text(source(self.program), encoding="utf-8")

    def act(self, action: str, *arguments: object, kill: int = 0) -> tuple[bool, str]:
        """Have a process do something; return whether it was killed, and the error that it met."""
        stdout = self.folder / "stdout.txt"
        stdout.unlink(missing_ok=True)
        variables = {effects.VARIABLE: str(self.folder / "effects.txt")}
        line = [str(self.folder), action, json.dumps(arguments), str(kill)]
        code = self.nursery.run(self.folder, line, variables)
        stderr = (self.folder / "stderr.txt").read_text(encoding="utf-8")[-3000:]
        assert code in ((0, -9) if kill else (0,)), f"{action} ended with {code}\n{stderr}"
        if code == -9:
            return True, ""
        said = json.loads(stdout.read_text(encoding="utf-8").splitlines()[-1])
        return False, str(said)

    def ran(self) -> list[str]:
        """Return what really ran since it was asked last."""
        found = [effect.call for effect in effects.read(self.folder / "effects.txt") if effect.kind == "run"]
        new, self.seen = found[self.seen :], len(found)
        return new

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(invariants.connect(self.folder / "journal.db")) as connection:
            connection.row_factory = None
            found: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
            return found

    def runs_in(self, *states: str) -> list[Run]:
        return [run for run in self.runs.values() if run.state in states]

    def chosen(self, data: st.DataObject, *states: str) -> Run:
        return data.draw(st.sampled_from(self.runs_in(*states)), label="run")

    # ---- rules

    @precondition(lambda self: len(self.runs) < MOST_RUNS)
    @rule(kill=st.integers(0, 14))
    def start(self, kill: int) -> None:
        run = Run(self.next_id())
        self.execute([run], "start", kill=kill, by_person=False)

    @precondition(lambda self: self.runs_in("CRASHED", "FAILED", "SUSPENDED", "PENDING", "DRIFTED"))
    @rule(data=st.data(), kill=st.integers(0, 14))
    def resume(self, data: st.DataObject, kill: int) -> None:
        run = self.chosen(data, "CRASHED", "FAILED", "SUSPENDED", "PENDING", "DRIFTED")
        self.execute([run], "resume", run.id, kill=kill, by_person=True)

    @precondition(lambda self: self.runs_in("CRASHED"))
    @rule(kill=st.integers(0, 20))
    def recover(self, kill: int) -> None:
        self.execute(self.runs_in("CRASHED"), "recover", kill=kill, by_person=False)

    @precondition(lambda self: self.runs_in("SCHEDULED"))
    @rule(kill=st.integers(0, 20))
    def serve(self, kill: int) -> None:
        self.execute(self.runs_in("SCHEDULED"), "serve", kill=kill, by_person=False)

    @precondition(lambda self: len(self.runs) < MOST_RUNS)
    @rule(hours=st.sampled_from([0.5, 1.0, 2.0]), kill=st.integers(0, 2))
    def tick(self, hours: float, kill: int) -> None:
        first, before = self.next_id(), int(self.hours)
        self.hours += hours
        if self.act("tick", hours, kill=kill)[0]:
            self.act("tick", 0)  # time has passed all the same, and the next scheduler decides
        for run_id in range(first, first + int(self.hours) - before):
            self.runs[run_id] = Run(run_id, "SCHEDULED", is_deployed=True)

    @precondition(lambda self: self.runs_in("CRASHED", "FAILED", "COMPLETED", "SUSPENDED") and len(self.runs) < MOST_RUNS)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        run = self.chosen(data, "CRASHED", "FAILED", "COMPLETED", "SUSPENDED")
        fork = run.copy(self.next_id())
        assert self.act("fork", run.id) == (False, "")
        self.runs[fork.id] = fork
        self.believe(fork)

    @precondition(lambda self: self.runs_in("CRASHED", "SUSPENDED", "SCHEDULED", "DRIFTED"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run = self.chosen(data, "CRASHED", "SUSPENDED", "SCHEDULED", "DRIFTED")
        assert self.act("cancel", run.id) == (False, "")
        run.state = "CANCELLED"

    @precondition(lambda self: self.runs_in("SUSPENDED"))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        run = self.chosen(data, "SUSPENDED")
        (name,) = [step.name for step, row in run.rows.items() if row.state == "PAUSED"]
        if name not in run.answered:
            assert self.act("answer", run.id, name) == (False, "")
            run.answered.add(name)

    @precondition(lambda self: self.runs_in("CRASHED", "SUSPENDED", "SCHEDULED") and self.topics())
    @rule(data=st.data(), value=st.integers(0, 99))
    def tell(self, data: st.DataObject, value: int) -> None:
        run = self.chosen(data, "CRASHED", "SUSPENDED", "SCHEDULED")
        topic = data.draw(st.sampled_from(self.topics()), label="topic")
        assert self.act("tell", run.id, topic, value) == (False, "")
        run.told.setdefault(topic, []).append(value)

    @rule(data=st.data())
    def break_or_mend(self, data: st.DataObject) -> None:
        names = [step.name for step in self.program if step.task == "shaky"]
        if names:
            self.break_these(self.broken ^ {data.draw(st.sampled_from(names), label="what")})

    @rule(data=st.data(), how=st.sampled_from(["version", "add", "remove", "swap"]))
    def edit(self, data: st.DataObject, how: str) -> None:
        place = data.draw(st.integers(0, len(self.program) - 1), label="place")
        step = self.program[place]
        steps = list(self.program)
        if how == "version" and step.kind == "work":
            steps[place] = step._replace(version=step.version + 1)
        elif how == "add" and len(steps) < MOST_STEPS:
            steps.insert(place, Step(data.draw(st.sampled_from(KINDS), label="kind"), next(self.names)))
        elif how == "remove" and len(steps) > 1:
            del steps[place]
        elif how == "swap":
            steps[place], steps[-1] = steps[-1], steps[place]
        self.rewrite(tuple(steps))

    # ---- what must come of it

    def topics(self) -> list[str]:
        return [step.name for step in self.program if step.kind == "hear"]

    def next_id(self) -> int:
        ((last,),) = self.query("SELECT coalesce(max(id), 0) FROM flow_run")
        return int(last) + 1

    def execute(self, runs: list[Run], action: str, *arguments: object, kill: int, by_person: bool) -> None:
        """Have runs executed one after the other, and compare with what the model says of that."""
        known = {
            run.id: (run, Run(**{**vars(run), "told": {key: list(each) for key, each in run.told.items()}})) for run in runs
        }
        for run_id, (run, before) in known.items():
            before.rows, before.codes = dict(run.rows), dict(run.codes)
            assert run_id == before.id
        expected: list[str] = []
        killed, error = self.act(action, *arguments, kill=kill)
        executions: list[Execution] = []
        for run in runs:
            if action == "start":
                self.runs[run.id] = run
            executions.append(Execution(run, self.program, self.broken, by_person=by_person).go())
            expected += executions[-1].ran
        ran = self.ran()
        if not killed:
            assert ran == expected, f"ran {ran}, not {expected}; {error}"
            for run in runs:
                self.compare(run)
                self.believe(run)
            return
        assert ran == expected[: len(ran)], f"ran {ran} before the kill, which is no beginning of {expected}"
        for run in runs:
            self.believe_after_kill(run, known[run.id][1], by_person=by_person)

    def compare(self, run: Run) -> None:
        """Hold the state, the result, the calls and the orphans of a run that was not killed against the model."""
        ((state, name, result),) = self.query("SELECT state, state_name, result FROM runs WHERE id = ?", run.id)
        assert self.state_of(state, name) == run.state, f"run {run.id} is {state} {name}, not {run.state}"
        if run.state == "COMPLETED":
            assert json.loads(result) == run.result
            assert sorted(self.orphans(run.id)) == sorted(run.orphans)
        recorded = self.rows(run)
        states = {step: in_doubt_or(row.state) for step, row in recorded.items()}
        expected = {step: in_doubt_or(row.state) for step, row in run.rows.items()}
        assert states == expected, f"run {run.id} holds {states}, not {expected}"

    def believe(self, run: Run) -> None:
        """Take over from the file which execution recorded what."""
        for step, row in self.rows(run).items():
            known = run.rows.get(step)
            run.rows[step] = row if known is None or known.state != row.state else Row(
                row.state, known.value, row.epoch, row.fatal, row.inner
            )  # fmt: skip

    def believe_after_kill(self, run: Run, before: Run, *, by_person: bool) -> None:
        """Take over how far a killed execution got; each outcome in the file is one that the model knows."""
        found = self.query("SELECT state, state_name, epoch, result FROM flow_run WHERE id = ?", run.id)
        if not found:
            assert before.state == "NONE"
            self.runs.pop(run.id, None)
            return
        ((state, name, epoch, result),) = found
        recorded = self.rows(run)
        would_be = run.rows
        for step, row in recorded.items():
            if row.state in ("COMPLETED", "FAILED"):
                assert would_be[step].state == row.state or before.rows.get(step, row).state == row.state
        reached = self.state_of(state, name)
        if epoch == before.epoch:  # it was not even claimed
            run.codes, run.resumed, run.told, run.result = before.codes, before.resumed, before.told, before.result
            run.state = before.state
            run.rows = before.rows
            self.believe(run)
            return
        run.told = {
            topic: values for topic in before.told
            if (values := before.told[topic][self.received(run, topic, before) :])
        }  # fmt: skip
        values = {step: row.value for step, row in (*before.rows.items(), *would_be.items()) if row.value is not None}
        run.rows = {step: Row(row.state, values.get(step), row.epoch, row.fatal, row.inner) for step, row in recorded.items()}
        if reached in ("RUNNING", "PENDING"):
            run.state, run.result = "CRASHED", None
        else:
            assert reached == run.state, f"run {run.id} is {reached}, not {run.state}"
            if reached == "COMPLETED":
                assert json.loads(result) == run.result

    def received(self, run: Run, topic: str, before: Run) -> int:
        """Return how many messages of a topic, of those nobody had received before, were received by the killed execution."""
        ((left,),) = self.query(
            "SELECT count(*) FROM message WHERE flow_run_id = ? AND topic = ? AND received_by IS NULL", run.id, topic
        )
        return len(before.told[topic]) - int(left)

    @staticmethod
    def state_of(state: str, name: str | None) -> str:
        """Return a state in the words of the model."""
        return {"Suspended": "SUSPENDED", "Drifted": "DRIFTED"}.get(name or "", state)

    def rows(self, run: Run) -> dict[Step, Row]:
        """Return the recorded calls of a run."""
        found = self.query(
            "SELECT k.name, t.inputs, t.state, t.epoch, t.fatal, (SELECT count(*) FROM flow_run c JOIN task_run i"
            "  ON i.flow_run_id = c.id AND i.state = 'COMPLETED' WHERE c.parent_task_run_id = t.id) FROM task_run t"
            " JOIN task k ON k.id = t.task_id WHERE t.flow_run_id = ? AND t.scope = 0 ORDER BY t.id",
            run.id,
        )
        return {
            self.step(task, inputs): Row(state, None, epoch, fatal == 1, inner > 0)
            for task, inputs, state, epoch, fatal, inner in found
        }

    @staticmethod
    def step(task: str, inputs: str) -> Step:
        """Return the identity of a recorded call."""
        given = json.loads(inputs)
        kind = {"wfengine.suspend": "ask", "wfengine.receive": "hear"}.get(task, task)
        return Step(kind, str(given.get("name") or given.get("key") or given.get("topic")), int(given.get("version") or 0))

    def orphans(self, run_id: int) -> list[Step]:
        found = self.query("SELECT task, inputs FROM orphans WHERE run_id = ?", run_id)
        return [self.step(task, inputs) for task, inputs in found]

    @invariant()
    def every_run_is_as_the_model_says(self) -> None:
        """Also those that nobody touched: no run appears, is lost, or changes by what is done to others."""
        if not hasattr(self, "folder"):
            return
        found = self.query("SELECT id, state, state_name FROM runs WHERE parent_run_id IS NULL ORDER BY id")
        states = {run_id: self.state_of(state, name) for run_id, state, name in found}
        expected = {run.id: run.state for run in self.runs.values()}
        states = {
            run_id: "CRASHED" if expected.get(run_id) == "CRASHED" and state in ("RUNNING", "PENDING") else state
            for run_id, state in states.items()
        }
        assert states == expected, f"runs are {states}, not {expected}"
        assert invariants.history_gapless(self.folder / "journal.db") == []
