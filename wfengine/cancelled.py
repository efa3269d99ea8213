"""The end of a flow run that somebody cancelled: what runs finishes, the state is committed, the hooks are called."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from wfengine import listeners
from wfengine.endings import Ended, ended
from wfengine.hooks import call_flow_hooks
from wfengine.scopes import LiveRun
from wfengine.states import State
from wfengine.steps import Outcome, Settle, Steps, Write
from wfengine_journal.errors import InternalError, JournalError, OwnershipLostError, RunHalted
from wfengine_journal.requests import list_untold
from wfengine_journal.run_transitions import EndFlowRun
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.records import FlowRunRow
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.engine")


def ends_as_cancelled(run: LiveRun) -> bool:
    """Tell whether a run that stops was cancelled, and this process can still record that."""
    if run.cancelled is None or run.journal.is_forked:
        return False
    halted = run.halted
    return halted is None or not isinstance(halted.error, OwnershipLostError | JournalError | InternalError)


def cancelled_end(run: LiveRun, signal: BaseException) -> Steps[Ended]:
    """Wait for what still runs, and end the run as cancelled. Raises `signal` where it came from elsewhere, as Ctrl-C does."""
    assert run.cancelled is not None
    run.drop_queued()
    while waiting := [future for future in run.outstanding if not future.done()]:
        yield Settle(waiting)
    row = run.journal.records.get_flow_run(run.id)
    end = EndFlowRun(
        run.id, epoch=run.epoch, at=run.journal.clock.now_text(), state="CANCELLED", message=row.state_message,
        cancels_calls=True,
    )  # fmt: skip
    try:
        yield Write(run, end, run.synced)
        run.version = end.seq
    except RunHalted:
        if not ends_as_cancelled(run) or not _is_cancelled(run):
            raise
    run.left_open = False
    if listeners.LISTENERS or listeners.OF_FLOW_RUNS:
        listeners.tell(listeners.Event(run.id, None, run.flow.name, "CANCELLED", None, end.at))
    end_of_run = ended(run, end, Outcome(None, run.cancelled))
    yield from call_flow_hooks(run, end_of_run.state, run.version)
    if isinstance(signal, RunHalted | Exception | BaseExceptionGroup):
        return end_of_run
    raise signal


def _is_cancelled(run: LiveRun) -> bool:
    """Tell whether somebody else ended the run so, while nobody seemed to execute it."""
    row = run.journal.records.get_flow_run(run.id)
    run.version = row.version
    return row.state == "CANCELLED" and row.epoch == run.epoch


def told_run(flow: AnyFlow, journal: Journal, row: FlowRunRow, parameters: dict[str, object]) -> LiveRun:
    """Return a recorded run for its hooks: nothing of it is executed."""
    run = LiveRun(journal, flow, row.id, row.name, epoch=row.epoch, version=row.version)
    run.told = journal.records.list_hook_runs(row.id)
    run.tags = frozenset(json.loads(row.tags or "[]"))
    run.parameters = parameters
    return run


def hook_state(row: FlowRunRow) -> State[object]:
    """Return the state of a recorded run as its hooks are given it."""
    return State(StateType(row.state), row.state_name or "", row.state_message, flow_run_id=row.id)


def untold_runs(flow: AnyFlow, journal: Journal) -> list[int]:
    """Return the runs of a flow that were cancelled by a process which died before it called their hooks."""
    if flow.hooks is None or not flow.hooks.of(StateType.CANCELLED):
        return []
    return [run_id for run_id in list_untold(journal.records, flow.name) if _has_nobody(journal, run_id)]


#: The flows whose cancelled runs this process looked for, by journal path and name: that reads all of them.
_LOOKED_FOR: set[tuple[str, str]] = set()


def news_of_untold(flow: AnyFlow, journal: Journal, swept: list[int]) -> list[int]:
    """Do as `untold_runs` for the first start of a flow in this process, and after a sweep that found dead processes."""
    key = (str(journal.path), flow.name)
    if key in _LOOKED_FOR and not swept:
        return []
    _LOOKED_FOR.add(key)
    return untold_runs(flow, journal)


def _has_nobody(journal: Journal, run_id: int) -> bool:
    owner_id = journal.records.get_flow_run(run_id).owner_id
    return owner_id is not None and not journal.is_owner_alive(owner_id)
