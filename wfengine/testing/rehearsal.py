"""Replaying a recorded run in a copy of its journal, with the code of today, and without executing any task.

The flow's body runs; a call that the journal answers is answered. At the first call that would execute anything, the body is
unwound as it is when a run is parked. So nothing of the user's but the bodies of flows is run.
"""

from __future__ import annotations

import contextvars
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.endings import Ended, recorded_end
from wfengine.flow_engine import How, take_up
from wfengine.scopes import ABANDONED, ACTIVE
from wfengine.steps import drive, drive_async
from wfengine.testing.clock import VirtualClock
from wfengine.testing.comparing import Ending, describe_state
from wfengine_journal.clock import SystemClock
from wfengine_journal.copies import CallText, ReopenFlowRun, copy_journal, list_call_texts
from wfengine_journal.errors import JournalError, RunHalted, WfengineError
from wfengine_journal.riders import WithRiders
from wfengine_journal.run_transitions import ClaimFlowRun, CrashFlowRun, EndFlowRun
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread
from wfengine_journal.transitions import BeginCall, RecordedChange, StartAttempt

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.steps import Steps
    from wfengine_journal.records import FlowRunRow, Records
    from wfengine_journal.tickets import Change

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class _NotRecorded(JournalError):
    """Ends a rehearsal: what comes next is not in the journal."""


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


class RehearsalJournal(Journal):
    """A copy of a journal that refuses every change by which a call would begin, and remembers the first."""

    is_rehearsal = True

    def __init__(self, path: Path) -> None:
        super().__init__(path, VirtualClock(SystemClock().wall_seconds()))
        self.stop: Stop | None = None
        self.orphans: dict[int, frozenset[int]] = {}  # by flow run, as of its end: what nobody asked for
        self._let_write, self._let_post = self.write, self.post
        self.write = self._write_unless_it_begins
        self.post = self._post_unless_it_begins

    def _write_unless_it_begins(self, change: Change, *, synced: bool) -> None:
        if isinstance(change, EndFlowRun):
            self.orphans[change.flow_run_id] = frozenset(change.orphan_ids)
        begins = _begins(change)
        if begins is None:
            self._let_write(change, synced=False)
            return
        raise self._stopped_at(begins)

    def _post_unless_it_begins(
        self, change: Change, *, synced: bool = False, on_commit: Callable[[BaseException | None], None] | None = None
    ) -> None:
        begins = _begins(change)
        if isinstance(change, EndFlowRun):
            self.orphans[change.flow_run_id] = frozenset(change.orphan_ids)
        if begins is None:
            self._let_post(change, on_commit=on_commit)
            return
        stopped = self._stopped_at(begins)
        if on_commit is not None:
            on_commit(stopped)

    def _stopped_at(self, change: RecordedChange) -> _NotRecorded:
        if self.stop is None:
            self.stop = self._describe(change)
        return _NotRecorded(f"The replay came to what is not recorded: {self.stop.task}")

    def _describe(self, change: RecordedChange) -> Stop:
        if isinstance(change, StartAttempt) and change.call is not None:
            change = change.call
        if isinstance(change, BeginCall):
            task = self.known_task_key(change.identity.task_id)
            unclaimed = self._unclaimed(change.flow_run_id, change.identity.scope) if change.lane == 0 else ()
            return Stop(task, change.inputs, True, unclaimed)
        found = list_call_texts(self.records, change.flow_run_id, [change.task_run_id])
        if not found:
            return Stop(type(change).__name__, "", is_new=True)
        (begun,) = found
        calls = self._unclaimed(change.flow_run_id, begun.scope) if begun.lane == 0 else ()
        return Stop(begun.task, begun.inputs, False, tuple(call for call in calls if call.task_run_id < begun.task_run_id))

    def _unclaimed(self, run_id: int, scope: int) -> tuple[CallText, ...]:
        """Return the completed calls of a scope's main lane that were not asked for so far: in it, calls have an order."""
        live = ACTIVE.get((str(self.path), run_id))
        if live is None or live.recorded is None:
            return ()
        with live.issue_lock:
            ids = live.recorded.list_orphans()
        return tuple(call for call in list_call_texts(self.records, run_id, ids) if call.lane == 0 and call.scope == scope)


def _begins(change: object) -> RecordedChange | None:
    """Return the change by which a call would begin, or settle without an outcome of its own; None for any other."""
    if isinstance(change, WithRiders):
        return _begins(change.carrier)
    if isinstance(change, RecordedChange) and not isinstance(change, ClaimFlowRun | EndFlowRun | CrashFlowRun):
        return change
    return None


@contextmanager
def rehearsing(source: Path) -> Iterator[RehearsalJournal]:
    """Open a copy of a journal for rehearsals; it is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="wfengine-replay-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve() / "journal.db"
        copy_journal(source, path)
        journal = RehearsalJournal(path)
        try:
            yield journal
        finally:
            journal.close()


def rehearse(journal: RehearsalJournal, run_id: int, flow: AnyFlow) -> Rehearsed:
    """Replay a recorded run, as a recovery would that asks nobody, up to the first call that it would have to execute."""
    records, journal.stop = journal.records, None
    row = records.get_flow_run(run_id)
    recorded = describe_state(recorded_end(records, row).state) if row.state in ENDED else None
    known = {call.id for call in records.list_calls(run_id) if call.orphaned_in is not None}
    journal.write(ReopenFlowRun(run_id, journal.clock.now_text()), synced=False)
    key = (str(journal.path), run_id)
    try:
        ended = _drive(take_up(flow, journal, run_id, How("recovery", "none", by_person=False, on_drift="error")), flow)
    except RunHalted as signal:
        if journal.stop is None:
            return Rehearsed(row, error=signal.error, recorded=recorded)
        return Rehearsed(row, journal.stop, recorded=recorded)
    except WfengineError as error:
        return Rehearsed(row, error=error, recorded=recorded)
    finally:
        ABANDONED.discard(key)
    orphans = list_call_texts(records, run_id, journal.orphans.get(run_id, frozenset()) - known)
    return Rehearsed(
        row, journal.stop, recorded=recorded, ending=_ending(records, row, recorded, ended), orphans=tuple(orphans)
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
            if flow.is_async:
                import asyncio

                outcomes.append(asyncio.run(drive_async(steps)))
            else:
                outcomes.append(drive(steps))
        except BaseException as error:
            outcomes.append(error)

    start_thread("wfengine-replay", lambda: contextvars.Context().run(perform)).join()
    (outcome,) = outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
