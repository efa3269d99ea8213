"""How a call is answered from what earlier executions recorded of it: hop 3 of a task call. Nothing is executed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.fatal import note_task_run
from wfengine.fingerprint import own_code
from wfengine.replay import Recorded, drift_error
from wfengine.result_hashes import remember_result_hash
from wfengine.result_memory import note_recorded
from wfengine.scopes import current_tags
from wfengine.states import State
from wfengine.steps import Outcome
from wfengine_journal.corrections import ReuseCall, SupersedeCall
from wfengine_journal.errors import RunHalted, TaskInterrupted
from wfengine_journal.states import StateType
from wfengine_journal.transitions import OrphanCall

if TYPE_CHECKING:
    from wfengine.task_engine import Call
    from wfengine_journal.records import CallRow


def take_over_row(call: Call, row: CallRow) -> None:
    """Let a call go on from the row that an earlier execution wrote for it."""
    call.row = row
    call.run_name = row.name
    call.task_run_id = row.id
    call.seq = row.version
    call.attempt = row.attempt
    call.failures = row.failures
    call.interruptions = row.interruptions
    call.live_state = StateType(row.state)
    if current_tags() or call.run.outer_tags:
        call.add_tags()


def answer(call: Call, row: CallRow) -> Outcome | None:
    """Return the recorded outcome, or None if the call has to run (again). Nothing is executed or written here."""
    recorded = call.run.recorded
    assert recorded is not None
    if row.state_name == "Rerun":  # taken back by a person
        _run_again(call, row, recorded)
        return None
    if row.state_name == "RolledBack" and (recorded.rerun_of(row) == "failed" or row.fatal == 1):
        _run_again(call, row, recorded)
        return None
    if row.state == "COMPLETED" and row.result_hash is not None:
        if recorded.asks_for_changed and recorded.is_changed(row, own_code(call.callee.fn)):
            _take_back(call, row)
            _run_again(call, row, recorded)
            return None
        value = _recorded_value(call, row)
        if row.result_codec != "json":
            remember_result_hash(value, row.result_hash)
        _take_over_state(call, row)
        return Outcome(value, None)
    if row.is_failure and row.error_id is not None:
        rerun = recorded.rerun_of(row)
        again = rerun == "failed" or (rerun == "fatal" and row.fatal == 1)
        error = call.run.journal.records.load_error(row.error_id) if not again or call.callee.on_interrupt == "fail" else None
        # An author who forbade a second execution forbade it for later resumes too.
        if error is not None and (not again or isinstance(error, TaskInterrupted)):
            note_task_run(error, row.id)
            _take_over_state(call, row)
            return Outcome(_recorded_value(call, row), error)
        _run_again(call, row, recorded)
    return None


def _take_back(call: Call, row: CallRow) -> None:
    """Keep the outcome of a call whose task changed in the history; it is run again."""
    run = call.run
    message = "to run again: its code changed"
    call.seq = row.version + 1
    change = SupersedeCall(
        run.id, row.id, seq=call.seq, epoch=run.epoch, message=message, at=run.journal.clock.now_text()
    )  # fmt: skip
    run.journal.post(change)  # in the file before its next attempt begins


def _run_again(call: Call, row: CallRow, recorded: Recorded) -> None:
    call.fresh = True
    with call.run.issue_lock:
        recorded.diverge(row)


def _recorded_value(call: Call, row: CallRow) -> object:
    """Return the recorded result, or the data recorded with a failure; None for none."""
    if row.result_codec is None or row.result_hash is None:
        return None
    records, what = call.run.journal.records, f"the result of {call}"
    data = records.get_raw_value(row.result_hash, what)[1] if row.result is None else row.result
    value = records.load_result(data, row.result_codec, row.result_hash, what)
    note_recorded(call, row.result_codec, data, row.result_hash)
    return value


def _take_over_state(call: Call, row: CallRow) -> None:
    call.ended_at = row.ended_at or ""
    if row.state_name is not None or row.state_message is not None or row.state not in ("COMPLETED", "FAILED"):
        call.verdict = State(StateType(row.state), row.state_name, row.state_message)


def drifted_row(call: Call, drifted: CallRow, recorded: Recorded) -> CallRow | None:
    """Decide about a new call that proves drift: park the run, run it as a new call, or let the recorded one stand for it."""
    run, callee, inputs, identity = call.run, call.callee, call.inputs, call.identity
    assert inputs is not None
    assert identity is not None
    before = run.journal.records.get_inputs(drifted.id)
    if callee.once or not (run.on_drift in ("rerun", "reuse") or recorded.drift_is_expected(drifted)):
        raise run.halt(RunHalted(drift_error(run.id, run.name, callee.name, before, inputs.text)))
    if run.on_drift != "reuse":
        with run.issue_lock:
            recorded.accept_drift(drifted)
        run.journal.post(OrphanCall(drifted.id, run.epoch))  # in the file before the call that replaces it begins
        call.replaces = before
        return None
    with run.issue_lock:
        row = recorded.reuse(drifted)
    reuse = ReuseCall(
        run.id, row.id, seq=row.version + 1, epoch=run.epoch, task_id=identity.task_id, call_key=identity.call_key,
        occurrence=identity.occurrence, inputs=inputs.text, at=run.journal.clock.now_text(),
        message=f"reused, as a person asked; it was called with {before}",
    )  # fmt: skip
    run.journal.post(reuse)  # in the file before any later call of the flow begins
    return row._replace(version=row.version + 1)
