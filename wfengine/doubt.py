"""Calls that began and have no outcome: what is recorded when one is cut off, and what a resume does about it.

`on_interrupt` and `max_interruptions` decide. Nothing here runs user code.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wfengine.fatal import note_task_run
from wfengine.ids import typed
from wfengine.steps import Delay, Steps, Write
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.codec import encode_error
from wfengine_journal.errors import (
    ForkedProcessError,
    InDoubtError,
    JournalError,
    OwnershipLostError,
    PausedRun,
    RunHalted,
    TaskInterrupted,
    TooManyInterruptions,
)
from wfengine_journal.transitions import SettleCall

if TYPE_CHECKING:
    from wfengine.task_engine import Call
    from wfengine_journal.records import CallRow

_logger = logging.getLogger("wfengine.engine")


def settle_doubt(call: Call, row: CallRow) -> Steps[None]:
    """Decide about a call that began earlier and has no outcome: wait on, give up, raise, park - or let it run again."""
    policy = call.callee.on_interrupt
    if row.state == "SCHEDULED" and row.next_attempt_at is not None:
        yield Delay(call.run, seconds_from_text(row.next_attempt_at))
    elif row.is_cut_off or (row.state == "PAUSED" and row.state_name == "InDoubt"):
        if policy == "ask" and row.attempt > 0:
            yield from _park_in_doubt(call)
        if policy == "fail" and row.attempt > 0:
            yield from _give_up(call, TaskInterrupted(_interrupted_text(call), flow_run_id=call.run.id, task_run_id=row.id))
        if call.callee.kind == "task" and row.interruptions >= call.callee.max_interruptions:
            yield from _give_up(call, TooManyInterruptions(_too_many_text(call), flow_run_id=call.run.id, task_run_id=row.id))


def _give_up(call: Call, error: Exception) -> Steps[None]:
    """Record a failure that no attempt produced, and raise it in the flow."""
    yield Write(call.run, _settled(call, "FAILED", None, str(error), encode_error(error)), call.run.synced)
    raise Refused(note_task_run(error, call.task_run_id))


def _park_in_doubt(call: Call) -> Steps[None]:
    resolve = f"wfengine resolve {typed(call.run.id, call.run.name)} {call.task_run_id}"
    text = (
        f"{call.run} is parked: {call} was started and cut off, and its author asked that a person decides whether it took "
        f"effect. Look, then type: {resolve} --done VALUE   (it took effect)   or: {resolve} --not-done   (run it again)"
    )
    yield Write(call.run, _settled(call, "PAUSED", "InDoubt", "cut off; waiting for wfengine resolve"), call.run.synced)
    raise call.run.halt(RunHalted(InDoubtError(text, flow_run_id=call.run.id, task_run_id=call.task_run_id)))


def cut_off(call: Call, error: BaseException) -> Steps[None]:
    """Record that user code was unwound by a signal (Ctrl-C, exit, cancellation, a parked run), and go on unwinding."""
    cancelled = call.run.cancelled
    if cancelled is not None and not call.run.journal.is_forked:
        yield Write(call.run, _settled(call, "CANCELLED", None, "cut off when its flow run was cancelled"), False)
    elif isinstance(error, RunHalted):
        if not isinstance(error.error, OwnershipLostError | JournalError):
            # What may not run again unasked is in doubt now: it began, and a person has to say what it did.
            name = "Paused" if isinstance(error.error, PausedRun) else "Drifted"
            if call.callee.is_guarded or isinstance(error.error, InDoubtError):
                name = "InDoubt"
            yield Write(call.run, _settled(call, "PAUSED", name, "parked by a call inside it"), False)
    else:
        message = f"interrupted by {type(error).__name__}"
        try:
            yield Write(call.run, _settled(call, "CRASHED", "Interrupted", message), call.run.synced)
        except ForkedProcessError:
            _logger.debug("A forked child leaves %s; its parent records it.", call)
    raise error


def _settled(call: Call, state: str, name: str | None, message: str, error: object = None) -> SettleCall:
    call.seq += 1
    return SettleCall(
        call.run.id,
        call.task_run_id,
        seq=call.seq,
        epoch=call.run.epoch,
        attempt=call.attempt,
        at=call.run.journal.clock.now_text(),
        state=state,
        state_name=name,
        message=message,
        error=error,  # type: ignore[arg-type]  # an EncodedError or None
        call=call.begin,
    )


class Refused(Exception):
    """Unwinds a life that is not to be lived; `error` is the outcome it stands for."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _interrupted_text(call: Call) -> str:
    return (
        f"{call} was cut off in an earlier attempt and may or may not have taken effect; its on_interrupt='fail' forbids to "
        "run it again. Catch TaskInterrupted in the flow, or check by hand and resume with the task changed."
    )


def _too_many_text(call: Call) -> str:
    return (
        f"{call} was running {call.interruptions} times when its process died, so it is not started again "
        "(max_interruptions). Find out what kills the process; to try again, raise max_interruptions and type: "
        f"wfengine resume {typed(call.run.id, call.run.name)}"
    )
