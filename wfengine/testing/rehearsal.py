"""Replaying a recorded run in a copy of its journal, with the code of today, and without executing any task.

The flow's body runs; a call that the journal answers is answered. At the first call that would execute anything, the body is
unwound as it is when a run is parked. So nothing of the user's but the bodies of flows is run.
"""

from __future__ import annotations

import contextvars
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine import recovery
from wfengine.dry_runs import DryRun, Plan
from wfengine.endings import Ended, recorded_end
from wfengine.flow_engine import take_up
from wfengine.reruns import Asked
from wfengine.scopes import ABANDONED
from wfengine.testing.clock import VirtualClock
from wfengine.testing.comparing import Ending, describe_state
from wfengine_journal.clock import SystemClock
from wfengine_journal.copies import CallText, ReopenFlowRun, copy_journal, list_call_texts
from wfengine_journal.errors import DryRunEnded, RunHalted, WfengineError
from wfengine_journal.recorded_calls import list_calls
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.steps import Steps
    from wfengine.task_engine import Call
    from wfengine_journal.records import FlowRunRow, Records

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Stop:
    """The first call that the journal does not answer."""

    task: str
    inputs: str
    is_new: bool  # False: it was begun, and has no outcome or one that does not count
    unclaimed: tuple[CallText, ...] = ()  # completed calls that were made before this one when they were recorded


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of a replay: it ended, or stopped at a call, or was refused."""

    row: FlowRunRow  # as it was recorded
    stop: Stop | None = None
    error: WfengineError | None = None
    recorded: Ending | None = None  # how the run ended, if it did
    ending: Ending | None = None  # how it ends now
    orphans: tuple[CallText, ...] = ()  # completed calls that the code does not make any more


class _Rehearsal(DryRun):
    """Remembers the first call that would run."""

    def __init__(self, flow_run_id: int) -> None:
        super().__init__(Plan(flow_run_id, ""))
        self.first: Stop | None = None

    def stop(self, call: Call) -> RunHalted:
        """Return the signal with which the body ends here."""
        if self.first is None:
            inputs = "" if call.inputs is None else call.inputs.text
            self.first = Stop(call.callee.key, inputs, call.row is None, _unclaimed_before(call))
        return super().stop(call)


def _unclaimed_before(call: Call) -> tuple[CallText, ...]:
    """Return the completed calls of the scope's main lane that were made before this one, and not asked for so far."""
    run = call.run
    if call.lane != 0 or run.recorded is None:
        return ()
    with run.issue_lock:
        ids = run.recorded.list_orphans()
    found = list_call_texts(run.journal.records, run.id, ids)
    return tuple(
        each
        for each in found
        if each.lane == 0 and each.scope == call.scope.task_run_id and (call.row is None or each.task_run_id < call.row.id)
    )


@contextmanager
def rehearsing(source: Path) -> Iterator[Journal]:
    """Open a copy of a journal for rehearsals; it is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="wfengine-replay-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve() / "journal.db"
        copy_journal(source, path)
        journal = Journal(path, VirtualClock(SystemClock().wall_seconds()))
        try:
            yield journal
        finally:
            journal.close()


def rehearse(journal: Journal, run_id: int, flow: AnyFlow) -> Rehearsed:
    """Replay a recorded run, as a recovery would that asks nobody, up to the first call that it would have to execute."""
    records, rehearsal = journal.records, _Rehearsal(run_id)
    row = records.get_flow_run(run_id)
    recorded = describe_state(recorded_end(records, row).state) if row.state in ENDED else None
    known = {call.id for call in list_calls(records, run_id) if call.orphaned_in is not None}
    journal.write(ReopenFlowRun(run_id, journal.clock.now_text()), synced=False)
    how = recovery.how_to_resume("error", Asked(), recovery=True, dry=rehearsal)
    try:
        ended = _drive(take_up(flow, journal, run_id, how), flow)
    except RunHalted as signal:
        stopped = isinstance(signal.error, DryRunEnded)
        return Rehearsed(row, rehearsal.first, None if stopped else signal.error, recorded=recorded)
    except WfengineError as error:
        return Rehearsed(row, error=error, recorded=recorded)
    finally:
        ABANDONED.discard((str(journal.path), run_id))
    (_, epoch) = rehearsal.entered[0]
    ids = {task_run_id for task_run_id, _, _ in records.list_orphans(run_id, epoch)} - known
    orphans = list_call_texts(records, run_id, ids)
    return Rehearsed(
        row, rehearsal.first, recorded=recorded, ending=_ending(records, row, recorded, ended), orphans=tuple(orphans)
    )


def _ending(records: Records, row: FlowRunRow, recorded: Ending | None, ended: Ended) -> Ending:
    now = records.get_flow_run(row.id)
    same_bytes = row.result_hash is not None and (now.state, now.result_hash) == (row.state, row.result_hash)
    return recorded if recorded is not None and same_bytes else describe_state(ended.state)


def _drive(steps: Steps[Ended], flow: AnyFlow) -> Ended:
    """Perform the steps on a thread of its own, which knows nothing of the run or the event loop around the caller."""
    outcomes: list[Ended | BaseException] = []

    def perform() -> None:
        try:
            outcomes.append(recovery.perform(flow, steps))
        except BaseException as error:
            outcomes.append(error)

    start_thread("wfengine-replay", lambda: contextvars.Context().run(perform)).join()
    (outcome,) = outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
