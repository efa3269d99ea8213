"""What must become of flow runs, in plain Python: states, results, what really runs, and what the code no longer asks for.

It knows the rules from the design and nothing of the code under test. A program is a tuple of steps with names of their own:

    work NAME VERSION   a task that works; another version is another argument
    shaky NAME          a task that fails while NAME is among what is broken, and ends the flow
    caught NAME         the same, and the flow goes on
    sub NAME            a subflow of one task
    ask NAME            suspends the run until somebody gives the input
    hear NAME           receives a message of that topic, or goes on without
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple


class Step(NamedTuple):
    """One call of the flow, by its identity."""

    kind: str
    name: str
    version: int = 0

    @property
    def task(self) -> str:
        """The key of the task that is called."""
        return {"caught": "shaky"}.get(self.kind, self.kind)

    @property
    def identity(self) -> Step:
        return self._replace(kind=self.task)


Program = tuple[Step, ...]


@dataclass(frozen=True)
class Row:
    """One recorded call. `epoch`: the execution that recorded its outcome."""

    state: str
    value: object = None
    epoch: int = 0
    fatal: bool = False
    inner: bool = False  # of a subflow: its task was recorded


@dataclass
class Run:
    """One flow run: what is recorded, and by which executions."""

    id: int
    state: str = "NONE"
    result: object = None
    rows: dict[Step, Row] = field(default_factory=dict)
    codes: dict[int, Program] = field(default_factory=dict)  # by epoch
    resumed: int = 0  # the last epoch in which a person resumed it
    answered: set[str] = field(default_factory=set)
    told: dict[str, list[int]] = field(default_factory=dict)  # messages by topic that nobody received
    is_deployed: bool = False
    orphans: list[Step] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return max(self.codes, default=0)

    def copy(self, run_id: int) -> Run:
        """Return what a fork of it begins with."""
        return replace(
            self, id=run_id, state="PENDING", result=None, rows=dict(self.rows), codes=dict(self.codes), told={},
            answered=set(), is_deployed=False, orphans=[],
        )  # fmt: skip


class Parked(Exception):
    """The run waits for a person: its state."""


class Execution:
    """One execution of a run's body, by the model."""

    def __init__(self, run: Run, program: Program, broken: Collection[str], *, by_person: bool) -> None:
        self.run = run
        self.program = program
        self.broken = broken
        self.by_person = by_person
        self.ran: list[str] = []  # what really runs, in order
        self.claimed: set[Step] = set()
        self.replaced: set[Step] = set()
        self.epoch = run.epoch + 1

    def go(self) -> Execution:
        """Live the run to its end, or until it is parked."""
        run = self.run
        run.codes[self.epoch] = self.program
        run.resumed = self.epoch if self.by_person and self.epoch > 1 else run.resumed
        values: list[object] = []
        try:
            values.extend(self._call(step) for step in self.program)
        except ValueError as failure:
            run.state, run.result = "FAILED", None
            identity = Step("shaky", str(failure))
            run.rows[identity] = replace(run.rows[identity], fatal=True)
        except Parked as parked:
            run.state = str(parked)
        else:
            run.state, run.result = "COMPLETED", values
            run.orphans = [step for step, row in run.rows.items() if row.state == "COMPLETED" and step not in self.claimed]
        return self

    def _call(self, step: Step) -> object:
        identity = step.identity
        row = self.run.rows.get(identity)
        if row is None:
            self._look_for_drift(identity)
        self.claimed.add(identity)
        if row is not None and row.state == "COMPLETED":
            return row.value
        if row is None or row.state != "FAILED" or self._runs_again(row):
            row = self._execute(identity, row)
            self.run.rows[identity] = row
        if row.state == "PAUSED":
            raise Parked("SUSPENDED")
        if row.state == "FAILED":
            if step.kind == "shaky":
                raise ValueError(step.name)
            return f"caught {step.name}"
        return row.value

    def _runs_again(self, row: Row) -> bool:
        """A person's resume runs the failures again that ended the run; so does one that was cut off before it got there."""
        return row.fatal and (self.by_person or row.epoch < self.run.resumed)

    def _look_for_drift(self, identity: Step) -> None:
        """A new call is proof of drift while completed calls of its task are unclaimed, unless a person resumed edited code."""
        for other, row in self.run.rows.items():
            is_candidate = other.kind == identity.kind and row.state == "COMPLETED"
            if not is_candidate or other in self.claimed or other in self.replaced:
                continue
            is_edited = self.run.codes[row.epoch] != self.program
            resumed = self.run.resumed
            known = resumed > row.epoch and self.run.codes[resumed] == self.program
            if not (is_edited and (self.by_person or known)):
                raise Parked("DRIFTED")
            self.replaced.add(other)
            return

    def _execute(self, identity: Step, row: Row | None) -> Row:
        kind, name, version = identity
        if kind == "ask":
            return Row("COMPLETED", 7, self.epoch) if row and name in self.run.answered else Row("PAUSED", None, self.epoch)
        if kind == "hear":
            waiting = self.run.told.get(name, [])
            return Row("COMPLETED", waiting.pop(0) if waiting else -1, self.epoch)
        if not (row is not None and row.inner):
            self.ran.append(f"{kind} {name} {version}")
        if kind == "shaky" and name in self.broken:
            return Row("FAILED", None, self.epoch)
        return Row("COMPLETED", f"{kind} {name} {version}", self.epoch, inner=kind == "sub")
