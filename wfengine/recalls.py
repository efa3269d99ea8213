"""What the earlier attempts of a task called, for its next one: it replays what completed, as a resumed run would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.replay import Recorded
from wfengine.steps import Settle, Steps, Write
from wfengine.task_future import calls_of
from wfengine_journal.recorded_calls import list_calls_inside
from wfengine_journal.transitions import SettleCall

if TYPE_CHECKING:
    from wfengine.task_engine import Call
    from wfengine_journal.records import CallRow


def recall(call: Call) -> Steps[None]:
    """Let the next attempt replay what the failed one called, as a resumed run would."""
    run = call.run
    yield Settle([future for future, inner in calls_of(list(run.outstanding)) if _is_inside(inner, call)])
    for row in _calls_inside(call):
        if row.state == "RUNNING":  # by a thread that was left behind at a time limit: its outcome is refused from here on
            message = "the attempt of the task that called it was given up"
            yield Write(run, _interrupted(call, row, message), run.synced)
    rows = _calls_inside(call)
    with run.issue_lock:
        if run.recorded is None:
            run.recorded = Recorded(run.journal.records, run.id, until_id=0)
        run.recorded.retry(call.task_run_id, rows)


def _is_inside(inner: Call, outer: Call) -> bool:
    """Tell whether a call was made by another one, directly or by tasks that it called."""
    enclosing = inner.scope.call
    while enclosing is not None and enclosing is not outer:
        enclosing = enclosing.scope.call
    return enclosing is outer


def _calls_inside(call: Call) -> list[CallRow]:
    return list_calls_inside(call.run.journal.records, call.run.id, call.task_run_id)


def _interrupted(call: Call, row: CallRow, message: str) -> SettleCall:
    run = call.run
    return SettleCall(
        run.id, row.id, seq=row.version + 1, epoch=run.epoch, attempt=row.attempt, at=run.journal.clock.now_text(),
        state="CRASHED", state_name="Interrupted", message=message,
    )  # fmt: skip
