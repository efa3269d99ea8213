"""What a transaction does at its end, written once for `with` and `async with`. See `transactions`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wfengine.fatal import note_task_run
from wfengine.hooks import Hook, Moment, call_hook
from wfengine.states import State
from wfengine.steps import Settle, Steps, Write
from wfengine.task_future import calls_of
from wfengine.transaction_keys import release_steps, write_steps
from wfengine_journal.run_transitions import RollBackFlowRun
from wfengine_journal.states import StateType
from wfengine_journal.transitions import RollBackCall

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine.task_engine import Call
    from wfengine.transactions import Transaction

_logger = logging.getLogger("wfengine.transactions")


def end_steps(txn: Transaction, error: Exception | None) -> Steps[None]:
    """Commit or roll back at the end of the block, or leave it to the transaction around it."""
    if txn.run is not None:
        yield Settle([future for future, call in calls_of(list(txn.run.outstanding)) if txn.surrounds(call)])
    failure = error or txn.doomed
    if failure is not None:
        yield from roll_back_steps(txn, failure)
        if txn.parent is not None:
            txn.parent.doomed = failure
    elif txn.commit_mode == "EAGER":
        yield from commit_steps(txn)
    elif txn.parent is not None:
        txn.parent.entries.append(txn)
    elif txn.commit_mode == "OFF":
        yield from roll_back_steps(txn, None)
    else:
        yield from commit_steps(txn)


def commit_steps(txn: Transaction) -> Steps[bool]:
    """Call the on_commit hooks of all that was staged inside, in order, then of the block; tell whether it committed.

    Where a hook fails, or an earlier execution of the run rolled back a part of it, all of it is rolled back.
    """
    if txn.is_committed() or txn.is_rolled_back():
        return False
    failure = None if txn.was_undone() else (yield from _confirm(txn))
    if failure is not None or txn.was_undone():
        yield from roll_back_steps(txn, failure)
        return False
    yield from write_steps(txn)
    txn.mark_committed()
    return True


def _confirm(txn: Transaction) -> Steps[Exception | None]:
    for entry in txn.entries:
        if not entry.is_committed():
            failure = yield from _confirm(entry)
            if failure is not None:
                return failure
    return (yield from _call_hooks(txn, "on_commit", txn.hooks("on_commit")))


def roll_back_steps(txn: Transaction, failure: Exception | None) -> Steps[bool]:
    """Call the on_rollback hooks, then roll back what was staged inside, last first; tell whether anything was to be done.

    A hook that fails is logged; what it was to undo stays Completed, and the rest is undone all the same.
    """
    if txn.is_committed() or txn.is_rolled_back():
        return False
    hooks = txn.hooks("on_rollback")
    problem = None
    if hooks and not txn.was_undone():
        problem = yield from _call_hooks(txn, "on_rollback", hooks[::-1])
    txn.mark_rolled_back()
    yield from release_steps(txn)
    for entry in reversed(txn.entries):
        yield from roll_back_steps(entry, failure)
    if txn.call is not None and hooks and problem is None:
        yield from _note_undone(txn.call, failure, txn.top_run())
    return True


def _call_hooks(txn: Transaction, option: str, hooks: tuple[tuple[str, Hook], ...]) -> Steps[Exception | None]:
    """Call hooks as `hook(txn)`; stop at the first that fails and return its failure."""
    if not hooks:
        return None
    run = txn.hook_run()
    if run is None:
        _logger.error("The %s hooks of a transaction outside of any flow run were not called: no task ran in it.", option)
        return None
    moment = Moment(run, txn.call, txn.seq, State(StateType.COMPLETED))
    for name, hook in hooks:
        failure = yield from call_hook(moment, option, name, hook, (txn,), again=txn.is_new)
        if failure is not None:
            return failure
    return None


def _note_undone(call: Call, failure: Exception | None, top: LiveRun | None) -> Steps[None]:
    """Record that a task was undone; and the subflows through which the transaction reached it, so that they run again."""
    if failure is not None:
        note_task_run(failure, call.task_run_id)
    if call.row is not None and call.row.state_name == "RolledBack" and call.row.version == call.seq:
        return
    yield _roll_back(call)
    run = call.run
    while run is not top and run.parent_call is not None:
        parent = run.parent_call
        if failure is not None:
            note_task_run(failure, parent.task_run_id)
        if run.rolled_back:
            return
        run.rolled_back = True
        run.version += 1
        at = run.journal.clock.now_text()
        yield Write(parent.run, RollBackFlowRun(run.id, seq=run.version, epoch=run.epoch, at=at), run.synced)
        yield _roll_back(parent)
        run = parent.run


def _roll_back(call: Call) -> Write:
    call.seq += 1
    at = call.run.journal.clock.now_text()
    change = RollBackCall(
        call.run.id, call.task_run_id, seq=call.seq, epoch=call.run.epoch, attempt=call.attempt, at=at,
    )  # fmt: skip
    return Write(call.run, change, call.run.synced)
