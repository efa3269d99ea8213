"""A flow run that ends by going on as a new one, so that an endless flow has runs of a bounded size.

The end of the one and the beginning of the other are one transaction. The new run is lived on in the loop that lived the
old one (`flow_engine`), so nothing grows with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wfengine.deadlines import new_deadline
from wfengine.fingerprint import flow_code
from wfengine.ids import typed
from wfengine.run_names import flow_run_name
from wfengine.scopes import ABANDONED, LiveRun
from wfengine.steps import Steps, Write
from wfengine_journal.block_transitions import ContinueFlowRun, find_last_continuation
from wfengine_journal.codec import encode
from wfengine_journal.errors import Signal, UsageError
from wfengine_journal.run_transitions import CreateFlowRun, EndFlowRun
from wfengine_journal.transitions import tags_text

if TYPE_CHECKING:
    from wfengine_journal.records import FlowRunRow
    from wfengine_journal.store import Journal
    from wfengine_journal.transitions import Argument

#: Name of the state of a run that another one continues.
CONTINUED = "ContinuedAsNew"


class ContinueAsNew(Signal):
    """Unwinds the body of a flow that goes on as a new run with these parameters; `text` and `stored` are how they are kept."""

    def __init__(self, parameters: dict[str, object], text: str, stored: Sequence[Argument]) -> None:
        super().__init__("continue as new")
        self.parameters = parameters
        self.text = text
        self.stored = stored


def continued(run: LiveRun, signal: ContinueAsNew) -> Steps[LiveRun]:
    """End the run and create the one that goes on, in one transaction; return the new one, ready to be lived."""
    run.close_runners()
    create = _successor(run, signal)
    end = EndFlowRun(
        run.id, epoch=run.epoch, at=create.at, state="COMPLETED", state_name=CONTINUED,
        message=f"goes on as flow run '{create.name}'",
        result=encode(None, f"the result of {run}"),
        orphan_ids=run.recorded.list_orphans() if run.recorded is not None else (),
        adopted_ids=run.recorded.list_adopted() if run.recorded is not None else (),
    )  # fmt: skip
    try:
        yield Write(run, ContinueFlowRun(end, create), run.synced)
    except BaseException:
        if create.flow_run_id:
            ABANDONED.add((str(run.journal.path), create.flow_run_id))  # as in `flow_engine.start`
        raise
    run.version = end.seq
    run.left_open = False
    successor = LiveRun(run.journal, run.flow, create.flow_run_id, create.name, epoch=1, version=1)
    successor.durability, successor.synced = run.durability, run.synced
    successor.parameters = signal.parameters
    successor.on_drift = run.on_drift
    successor.own_deadline = create.deadline_at
    return successor


def _successor(run: LiveRun, signal: ContinueAsNew) -> CreateFlowRun:
    flow, journal = run.flow, run.journal
    row = journal.records.get_flow_run(run.id)
    code_hash, source = flow_code(flow.fn)
    return CreateFlowRun(
        name=flow_run_name(flow, journal, signal.parameters, run.tags, run.parent_call),
        flow_id=journal.flow_id(flow.name, flow.description),
        parent_task_run_id=row.parent_task_run_id,
        owner_id=journal.owner_id,
        code_id=journal.code_id(code_hash, source),
        durability=run.durability,
        parameters=signal.text,
        arguments=signal.stored,
        tags=tags_text(run.tags),
        idempotency_key=None,  # it stays with the first run, from which the last one is found
        entrypoint=row.entrypoint,
        flow_hash=row.flow_hash,
        at=journal.clock.now_text(),
        deadline_at=new_deadline(flow, journal.clock),
        continues=run.id,
    )


def last_continuation(journal: Journal, row: FlowRunRow) -> FlowRunRow:
    """Return the run that goes on in the place of one that was continued as new; any other is its own."""
    if row.state_name != CONTINUED:
        return row
    return journal.records.get_flow_run(find_last_continuation(journal.records, row.id))


def goes_on_elsewhere(row: FlowRunRow, last: FlowRunRow) -> UsageError:
    """Return the error that says which run is to be resumed in the place of one that was continued as new."""
    state = last.state if last.state_name is None else f"{last.state}/{last.state_name}"
    return UsageError(
        f"Flow run {row.id} '{row.name}' has ended: it was continued as new, and flow run {last.id} '{last.name}' goes on in "
        f"its place ({state}). Resume that one: wfengine resume {typed(last.id, last.name)}"
    )
