"""What is told of a call while it is made and after it has ended; and what is left of a submitted one then.

A future may be held for as long as its flow runs, a hundred thousand of them at a time. So from the moment it is settled
it has no arguments, no scope and no attempts any more: an `EndedCall` of a few fields stands for its call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.states import State, StateDetails
from wfengine_journal.codec import error_message
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine.task_engine import Callee
    from wfengine_journal.transitions import Identity


class ToldOfCall:
    """What is told of a call, whether it goes on or has ended."""

    __slots__ = ()

    callee: Callee
    run: LiveRun
    identity: Identity | None
    task_run_id: int
    ended_at: str
    verdict: State[object] | None

    def __str__(self) -> str:
        number = f" {self.task_run_id}" if self.task_run_id else ""
        return f"task run{number} of '{self.callee.name}' ({self.run})"

    def found_id(self) -> int:
        """Return the id of the row, looked for where its writing was not awaited; 0 if there is none."""
        if not self.task_run_id and self.identity is not None:
            self.run.journal.flush()
            return self.run.journal.records.find_call(self.identity) or 0
        return self.task_run_id

    def final_state(self, value: object, error: BaseException | None) -> State[object]:
        """Return the state that an outcome means; `value` beside an error is data that was returned with a failed state."""
        known, at, details = self.verdict, self.ended_at or None, self._details()
        if error is None:
            name, message = (None, None) if known is None else (known.name, known.message)
            return State(StateType.COMPLETED, name, message, at, details, value)
        data, message = error if value is None else value, error_message(error)
        if known is None:
            kind = StateType.FAILED if isinstance(error, Exception) else StateType.CRASHED
            return State(kind, None, message, at, details, data, error)
        return State(known.type, known.name, message if known.message is None else known.message, at, details, data, error)

    def found_identity(self) -> Identity | None:
        """Return its identity, from its row if it has ended; None for a call that has none yet."""
        if self.identity is None and self.task_run_id:
            self.run.journal.flush()
            row = self.run.journal.records.get_call(self.run.id, self.task_run_id)
            return row.identity(self.run.id)
        return self.identity

    def _details(self) -> StateDetails:
        """Return the ids of the task run; of a subflow's call, that of the run it started."""
        if self.callee.kind == "task":
            return StateDetails(self.run.id, self.task_run_id or None)
        return StateDetails(self.run.journal.records.find_child_run(self.task_run_id))


class EndedCall(ToldOfCall):
    """What is left of a submitted call that has ended."""

    __slots__ = ("callee", "ended_at", "identity", "run", "task_run_id", "verdict")

    def __init__(self, call: ToldOfCall) -> None:
        self.callee = call.callee
        self.run = call.run
        self.identity = None if call.task_run_id else call.identity  # its row has it
        self.task_run_id = call.task_run_id
        self.ended_at = call.ended_at
        self.verdict = call.verdict

    def find_row(self) -> None:
        """Learn the id of the row, where its writing was not awaited: that of a call which did not begin."""
        self.task_run_id = self.found_id()
