"""What a child process of `crashtest` does: it starts a flow, or goes on with its run, and kills itself where it is told to.

Run as `python -m wfengine.testing.crash_child ORDER.json`. The answer is written to a file, since what the user's code prints
is its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from wfengine.endings import recorded_end
from wfengine.journals import use_journal
from wfengine.loading import load_entrypoint
from wfengine.recovery import resume_run
from wfengine.testing.clock import VirtualClock
from wfengine.testing.comparing import Ending, describe_state
from wfengine_journal import pickling
from wfengine_journal.clock import SystemClock, seconds_from_text
from wfengine_journal.errors import NotFoundError, WfengineError
from wfengine_journal.riders import WithRiders
from wfengine_journal.run_transitions import ClaimFlowRun, CreateFlowRun, EndFlowRun
from wfengine_journal.store import Journal, open_journal
from wfengine_journal.transitions import BeginCall, CompleteCall, FailAttempt, StartAttempt
from wfengine_journal.view_rows import find_last_instant

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.states import State
    from wfengine_journal.tickets import Change

#: In each case's journal the flow's own run is the first one that is made.
RUN_ID = 1
Moment: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is told."""

    journal: str
    entrypoint: str | None  # None: the flow is pickled beside its arguments
    pickle: str  # the file of (flow or None, args, kwargs)
    kill: str  # such as 'before:7'; '' to live on
    note: str  # the file that says what was being committed when the kill came
    answer: str
    virtual_clock: bool
    sys_path: list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child that lived to its end says: the ending, and how many commits the flow had."""

    ending: Ending
    commits: int


class Commits:
    """Counts the commits of a flow from the one that makes its run, says what each is, and kills where it is told to."""

    def __init__(self, journal: Journal, kill: str, note: Path) -> None:
        self._journal = journal
        self._kill = kill
        self._note = note
        self._names: dict[int, str] = {}
        self.before_first = 0
        self.count = 0

    def __call__(self, moment: Moment, number: int, changes: Sequence[Change]) -> None:
        """Kill this process if its order says so. Called by the writer, with its lock held."""
        if not self.count and not any(isinstance(change, CreateFlowRun | ClaimFlowRun) for change in changes):
            self.before_first = number
            return
        said = "; ".join(self._describe(change) for change in changes)
        self.count = number - self.before_first
        if self._kill == f"{moment}:{self.count}":
            self._note.write_text(said, encoding="utf-8")
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    def _describe(self, change: object) -> str:
        if isinstance(change, WithRiders):
            return self._describe(change.carrier)
        if isinstance(change, CreateFlowRun):
            return "the flow run begins" if change.task_run_id == 0 and change.flow_run_id == RUN_ID else "a subflow begins"
        if isinstance(change, EndFlowRun):
            return f"the {'flow run' if change.flow_run_id == RUN_ID else 'subflow'} ends: {change.state}"
        if isinstance(change, BeginCall):
            self._names[change.task_run_id] = self._journal.known_task_key(change.identity.task_id)
            return f"{self._task(change)} {'begins' if change.running else 'is submitted'}"
        if isinstance(change, StartAttempt):
            return f"{self._task(change)} begins attempt {change.attempt}"
        if isinstance(change, CompleteCall):
            return f"{self._task(change)} completes"
        if isinstance(change, FailAttempt):
            return f"{self._task(change)} fails" + (" and waits for a retry" if change.next_attempt_at else "")
        words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(change).__name__.lstrip("_")).lower()
        if words == "statement":
            return "a name is registered, or a line logged"
        return f"{self._task(change)}: {words}" if getattr(change, "task_run_id", 0) else words

    def _task(self, change: object) -> str:
        task_run_id = getattr(change, "task_run_id", 0)
        return f"task '{self._names.get(task_run_id, '?')}' (task run {task_run_id})"


def main(path: str) -> None:
    """Do as the order in that file says."""
    order = Order(**json.loads(Path(path).read_text(encoding="utf-8")))
    sys.path[:] = order.sys_path
    flow, args, kwargs = cast("tuple[Any, tuple[object, ...], dict[str, object]]", _unpickled(Path(order.pickle)))
    if order.entrypoint is not None:
        flow = load_entrypoint(order.entrypoint)
    journal_path = Path(order.journal)
    open_journal(journal_path, _clock(journal_path) if order.virtual_clock else None)
    journal = use_journal(journal_path, durability="process")
    commits = Commits(journal, order.kill, Path(order.note))
    journal.probe_commits(commits)
    ending = _ending(journal, flow, args, kwargs)
    journal.flush()
    Path(order.answer).write_text(json.dumps(asdict(Answer(ending, commits.count))), encoding="utf-8")


def _unpickled(path: Path) -> object:
    return pickling.load(path.read_bytes())


def _clock(journal_path: Path) -> VirtualClock:
    """Return a clock that begins now, or where that of the killed process had come to, whichever is later."""
    now = SystemClock().wall_seconds()
    last = find_last_instant(journal_path) if journal_path.exists() else None
    return VirtualClock(now if last is None else max(now, seconds_from_text(last)))


def _ending(journal: Journal, flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> Ending:
    try:
        return describe_state(_end(journal, flow, args, kwargs))
    except WfengineError as error:
        return Ending(type(error).__name__, "", str(error), is_final=False)


def _end(journal: Journal, flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> State[object]:
    """Start the flow, go on with its run, or look how that ended."""
    try:
        row = journal.records.get_flow_run(RUN_ID)
    except NotFoundError:
        state = cast("Any", flow)(*args, **kwargs, return_state=True)
        if isinstance(state, Awaitable):
            import asyncio

            state = asyncio.run(_awaited(state))
        return cast("State[object]", state)
    if row.state in ("COMPLETED", "FAILED", "CANCELLED"):
        return recorded_end(journal.records, row).state
    return resume_run(journal, RUN_ID, recovery=True)


async def _awaited(state: Awaitable[object]) -> object:
    return await state


if __name__ == "__main__":
    main(sys.argv[1])
