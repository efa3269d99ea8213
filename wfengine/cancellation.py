"""Stop runs from outside of them: cancel, pause, unpause. Any process may ask, whichever executes the run.

A run that a process executes is asked, and stops by itself (`halts`). One that nobody executes - in a queue, paused, its
process dead - is cancelled or paused at once, and its on_cancellation hooks are called here, if its code can be loaded.
"""

from __future__ import annotations

import getpass
import logging
import os
from typing import TYPE_CHECKING

from wfengine.cancelled import hook_state, told_run
from wfengine.halts import notice
from wfengine.hooks import call_flow_hooks
from wfengine.ids import typed
from wfengine.journals import default_journal
from wfengine.ownership import sweep
from wfengine.recovery import find_run_id, load_flow, resume_run
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine.states import State
from wfengine.steps import LOOK_AGAIN_SECONDS, drive
from wfengine.stored_parameters import restore_parameters
from wfengine_journal.errors import JournalError, UsageError, WfengineError
from wfengine_journal.requests import Before, RequestCancel, RequestPause, ReturnToWaiting, find_before
from wfengine_journal.states import StateType
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import shown_text

if TYPE_CHECKING:
    from wfengine_journal.records import FlowRunRow
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.engine")

#: Characters that are kept of a reason.
REASON_CHARACTERS = 1000
#: How often a paused run is looked at again because it changed between the look and the write.
TRIES = 5


@asks_the_flow
def cancel(run: int | str, *, reason: str | None = None) -> State[object]:
    """Cancel a run, by id, name, the beginning of a name, or '@last'; return its state after that.

    Its subflows are cancelled with it. CANCELLING: the process that executes it was asked; CANCELLED: nobody did, so it has
    ended. Asking twice is no error. Raises UsageError for a run that has ended, NotFoundError where there is none.
    """
    journal = _journal()
    return cancel_run(journal, find_run_id(journal, run), reason)


@asks_the_flow
def pause(run: int | str, *, reason: str | None = None) -> State[object]:
    """Pause a run: its tasks that run finish and are recorded, nothing new begins; return its state after asking.

    RUNNING named Pausing: the process that executes it was asked; PAUSED: nobody did. `unpause` lets it go on. Raises
    UsageError for a run that has ended, is paused already, or is a subflow.
    """
    journal = _journal()
    return pause_run(journal, find_run_id(journal, run), reason)


@asks_the_flow
def unpause(run: int | str) -> State[object]:
    """Let a paused run go on and return its state.

    One that was paused while it was executed is resumed here, to its end; one that waited, in a queue or for a resume,
    waits again. Raises UsageError for a run that is not paused, or that waits for something else.
    """
    journal = _journal()
    run_id = find_run_id(journal, run)
    return let_wait_again(journal, run_id) or resume_run(journal, run_id)


def _journal() -> Journal:
    scope = current_scope()
    return default_journal() if scope is None else scope.run.journal


# ------------------------------------------------------------------------------------------- cancel


def cancel_run(journal: Journal, run_id: int, reason: str | None = None) -> State[object]:
    """Do what `cancel` does, in a journal and by id."""
    sweep(journal)
    row = journal.records.get_flow_run(run_id)
    request = RequestCancel(run_id, message=requested("cancelled", reason), at=journal.clock.now_text())
    try:
        journal.write(request, synced=True)
    except WriteRefused:
        row = journal.records.get_flow_run(run_id)
        raise UsageError(
            f"Flow run {row.id} '{row.name}' cannot be cancelled: it has ended ({_shown(row)}). "
            f"See it: wfengine runs show {typed(row.id, row.name)}"
        ) from None
    after_cancel(journal, request)
    return _state(journal.records.get_flow_run(run_id))


def after_cancel(journal: Journal, request: RequestCancel) -> None:
    """Do what follows the commit of a cancellation: stop what this process executes, and call hooks of what nobody did."""
    notice(journal)
    for ended_id in reversed(request.ended):  # subflows before the run that called them
        _call_hooks(journal, journal.records.get_flow_run(ended_id))


def _call_hooks(journal: Journal, row: FlowRunRow) -> None:
    """Call the on_cancellation hooks of a run that nobody executed, as far as its code can be had."""
    try:
        flow = load_flow(journal, row)
        if flow.hooks is None or not flow.hooks.of(StateType.CANCELLED):
            return
        run = told_run(flow, journal, row, restore_parameters(journal, row))
    except JournalError:
        raise
    except WfengineError as error:
        _logger.warning(
            "Flow run %d '%s' is cancelled, but its code cannot be loaded here, so its on_cancellation hooks were not "
            "called: %s", row.id, row.name, error,
        )  # fmt: skip
        return
    drive(call_flow_hooks(run, hook_state(row), row.version))


def wait_until_ended(journal: Journal, run_id: int) -> State[object]:
    """Wait until a run that was asked to stop has done so: it ended, is paused, or its process died. Return its state."""
    while True:
        mark = journal.changes.mark()
        row = journal.records.get_flow_run(run_id)
        if row.state not in ("RUNNING", "CANCELLING"):
            return _state(row)
        journal.changes.wait(mark, LOOK_AGAIN_SECONDS)
        sweep(journal)


# ------------------------------------------------------------------------------------------- pause


def pause_run(journal: Journal, run_id: int, reason: str | None = None) -> State[object]:
    """Do what `pause` does, in a journal and by id."""
    sweep(journal)
    row = journal.records.get_flow_run(run_id)
    _refuse_subflow(row, "pause")
    request = RequestPause(run_id, message=requested("paused", reason), at=journal.clock.now_text())
    try:
        journal.write(request, synced=True)
    except WriteRefused:
        row = journal.records.get_flow_run(run_id)
        why = "is paused already" if row.state == "PAUSED" else "cannot be paused"
        raise UsageError(
            f"Flow run {row.id} '{row.name}' {why} ({_shown(row)}). See it: wfengine runs show {typed(row.id, row.name)}"
        ) from None
    notice(journal)
    return _state(journal.records.get_flow_run(run_id))


def let_wait_again(journal: Journal, run_id: int) -> State[object] | None:
    """Let a paused run wait again for what it waited for; None where it is to be resumed: it was paused while it ran."""
    for _ in range(TRIES):
        change = change_to_wait_again(journal, run_id, requested("unpaused", None))
        if change is None:
            return None
        try:
            journal.write(change, synced=True)
        except WriteRefused:
            continue
        return _state(journal.records.get_flow_run(run_id))
    raise UsageError(f"Flow run {run_id} changes all the time. See it: wfengine runs show {run_id}")


def change_to_wait_again(journal: Journal, run_id: int, message: str) -> ReturnToWaiting | None:
    """Return the change that lets a paused run wait again; None where it is to be resumed. Raises UsageError."""
    row = journal.records.get_flow_run(run_id)
    _refuse_subflow(row, "unpause")
    before = find_before(journal.records, run_id)
    if before is None or row.state_name not in (None, "Paused"):
        raise UsageError(_not_paused(row))
    target = _waited_for(before)
    if target is None:
        return None
    return ReturnToWaiting(
        run_id, version=row.version, state=target[0], state_name=target[1], message=message, at=journal.clock.now_text()
    )


def _waited_for(before: Before) -> tuple[str, str | None] | None:
    """Return the state in which a run waited, and to which it returns; None: a process executed it, and nobody does now."""
    if before.queue is not None:
        return "SCHEDULED", None  # a worker takes it up there, also where it was cut off or paused while it ran
    if before.state == "CRASHED" or before.state == "PENDING" or (before.state == "SCHEDULED" and before.epoch == 0):
        return before.state, before.state_name
    return None


def _not_paused(row: FlowRunRow) -> str:
    what = f"Flow run {row.id} '{row.name}'"
    if row.state == "PAUSED":
        said = f" ({row.state_message})" if row.state_message else ""
        resume = f"wfengine resume {typed(row.id, row.name)}"
        return f"{what} was not paused by a person: it is {_shown(row)}{said}. Go on with it: {resume}"
    if row.state_name == "Pausing":
        return (
            f"{what} is still pausing: its tasks that run finish first. Wait for it: wfengine watch {typed(row.id, row.name)}"
        )
    return f"{what} is not paused, but {_shown(row)}. See it: wfengine runs show {typed(row.id, row.name)}"


def _refuse_subflow(row: FlowRunRow, verb: str) -> None:
    if row.parent_task_run_id is not None:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' is a subflow and stops with the run that called it: wfengine {verb} that one. "
            f"Find it with: wfengine runs show {row.id}"
        )


# ------------------------------------------------------------------------------------------- small helpers


def requested(what: str, reason: str | None) -> str:
    """Return what the history says of it: who asked, and why."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user here, as in some containers
        who = "somebody"
    said = f"{what} by {who} (process {os.getpid()})"
    return said if not reason else f"{said}: {shown_text(reason)[:REASON_CHARACTERS]}"


def _shown(row: FlowRunRow) -> str:
    return row.state_name or row.state.capitalize()


def _state(row: FlowRunRow) -> State[object]:
    return State(StateType(row.state), row.state_name, row.state_message, flow_run_id=row.id)


__all__ = [
    "after_cancel",
    "cancel",
    "cancel_run",
    "change_to_wait_again",
    "let_wait_again",
    "pause",
    "pause_run",
    "requested",
    "unpause",
    "wait_until_ended",
]
