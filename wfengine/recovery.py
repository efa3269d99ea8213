"""Take up runs again: find the flow's code, claim the run, live it on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from wfengine.continuation import goes_on_elsewhere, last_continuation
from wfengine.endings import Ended, recorded_end, state_of_parked
from wfengine.flow_engine import How, take_up
from wfengine.loading import load_entrypoint
from wfengine.ownership import owned_error, refuse_living, sweep
from wfengine.replay import ON_DRIFT, Rerun
from wfengine.reruns import Asked, correct
from wfengine.scopes import ACTIVE
from wfengine.states import State
from wfengine.steps import Steps, drive, drive_async
from wfengine_journal import pickling
from wfengine_journal.background import list_ended, list_needs
from wfengine_journal.block_transitions import list_woken
from wfengine_journal.codec import encode, value_hash
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import EntrypointError, JournalCorruptError, OwnershipLostError, RunHalted, UsageError
from wfengine_journal.guarding import holds
from wfengine_journal.records import FlowRunRow, OpenRunRow
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import ResolveCall

if TYPE_CHECKING:
    from wfengine.dry_runs import DryRun
    from wfengine.flows import AnyFlow
    from wfengine.tasks import Task

_logger = logging.getLogger("wfengine.engine")

#: The codec name under which a flow that cannot be imported is stored.
FLOW_CODEC = "cloudpickle-flow"


def resumable_runs(journal: Journal) -> list[int]:
    """Return the ids of runs of their own (no subflows) whose process died, after a sweep, and of those that slept enough."""
    sweep(journal)
    crashed = [run.id for run in journal.list_open_runs() if run.parent_task_run_id is None and run.state == "CRASHED"]
    return sorted({*crashed, *list_woken(journal.records, journal.clock.now_text())})


def find_run_id(journal: Journal, reference: int | str) -> int:
    """Return the id of the run that an id, a name, the beginning of a name, or '@last' refers to."""
    if isinstance(reference, int):
        return reference
    from wfengine_journal.queries import get_run  # the reads for people load slowly, and only a name needs one here

    journal.flush()
    connection = open_reader(journal.path)
    try:
        return get_run(connection, reference).id
    finally:
        connection.close()


def resume_run(
    journal: Journal, run_id: int, *, on_drift: str | None = None, takeover: bool = False, recovery: bool = False,
    rerun: Sequence[str] = (), values: Mapping[str, object] | None = None,
) -> State[object]:  # fmt: skip
    """Resume a run to its end, or until its flow pauses it, and return its state; the flow's code is loaded again.

    `recovery` means that no person is looking: recorded failures stay failures, and drift parks the run even if the
    code was edited. `rerun` and `values`: what is to run again beside the usual, and results by hand, see `reruns`. Raises
    RunOwnedError while another process executes the run, DriftError or InDoubtError when it is
    parked, EntrypointError when the code cannot be found.
    """
    row = journal.records.get_flow_run(run_id)
    flow = load_flow(journal, row)
    steps = resume_steps(
        journal, run_id, flow=flow, on_drift=on_drift, takeover=takeover, recovery=recovery, rerun=rerun, values=values
    )
    try:
        return perform(flow, steps).state
    except RunHalted as signal:
        return state_of_parked(signal)


def perform(flow: AnyFlow, steps: Steps[Ended]) -> Ended:
    """Perform the steps of a run on this thread; those of an async flow in an event loop made for it."""
    if flow.is_async:
        import asyncio

        return asyncio.run(drive_async(steps))
    return drive(steps)


def how_to_resume(on_drift: str | None, asked: Asked, *, recovery: bool, dry: DryRun | None = None) -> How:
    """Return how a run is taken up: `recovery` as its process left it, else as a person wants it who asked for that."""
    usual: Rerun = "failed" if asked.every_failure else "none" if recovery else "fatal"
    by_person = not recovery and on_drift != "error"
    return How("recovery" if recovery else "resume", usual, by_person, on_drift, dry, asked.words)


def resume_steps(
    journal: Journal, run_id: int, *, flow: AnyFlow, on_drift: str | None, takeover: bool, recovery: bool = False,
    rerun: Sequence[str] = (), values: Mapping[str, object] | None = None,
) -> Steps[Ended]:  # fmt: skip
    """Return the steps that take up a run and live it on."""
    if on_drift not in (None, *ON_DRIFT):
        raise UsageError(f"on_drift must be 'error', 'rerun' or 'reuse', not {on_drift!r}.")
    on_drift = on_drift or flow.on_drift
    row = journal.records.get_flow_run(run_id)
    if row.parent_task_run_id is not None:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' is a subflow of another run and goes on when that one does. "
            f"Find it with: wfengine runs show {row.id}"
        )
    if not rerun and not values:
        last = last_continuation(journal, row)
        if last.state == "COMPLETED":
            return recorded_end(journal.records, last)
        if last is not row:
            raise goes_on_elsewhere(row, last)
    if row.epoch == 0:
        _refuse_early(journal, row)
    if takeover and row.state in ("RUNNING", "CANCELLING", "SCHEDULED"):
        _take_over(journal, row)
    asked = _corrected(journal, row.id, rerun, values or {}) if rerun or values else Asked()
    how = how_to_resume(on_drift, asked, recovery=recovery)
    return (yield from take_up(flow, journal, run_id, how))


def _corrected(journal: Journal, run_id: int, rerun: Sequence[str], values: Mapping[str, object]) -> Asked:
    row = journal.records.get_flow_run(run_id)
    if row.state in ("RUNNING", "CANCELLING", "SCHEDULED"):
        refuse_living(journal, row)
        sweep(journal)
        row = journal.records.get_flow_run(run_id)
    return correct(journal, row, rerun, values)


def _refuse_early(journal: Journal, row: FlowRunRow) -> None:
    """Raise UsageError for a background run that waits for others."""
    needs = list(list_needs(journal.records, row.id))
    waits_for = sorted(set(needs) - set(list_ended(journal.records, needs)))
    if waits_for:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' waits for flow run {waits_for[0]}, which has not ended. It is taken up when that "
            f"has; see: wfengine runs show {waits_for[0]}"
        )


def _take_over(journal: Journal, row: FlowRunRow) -> None:
    """Take a run, and the subflows it waits in, from a process that may still live; its writes are refused from here on."""
    if (str(journal.path), row.id) in ACTIVE:
        raise owned_error(journal, row)
    _crash_family(journal, _open_family(journal, row.id), "taken over from a process that did not answer")


def give_up(journal: Journal, run_id: int, message: str) -> bool:
    """Stop a run that this process executes, such that it can be taken up again; what its threads still do is not recorded.

    Returns False when it has ended meanwhile.
    """
    family = _open_family(journal, run_id)
    for run in family:
        live = ACTIVE.get((str(journal.path), run.id))
        if live is not None:
            live.halt(RunHalted(OwnershipLostError(f"{live} was given up by this process: {message}.", flow_run_id=run.id)))
    _crash_family(journal, family, message)
    return bool(family)


def _open_family(journal: Journal, run_id: int) -> list[OpenRunRow]:
    """Return a run and the subflows it waits in, as far as they have not ended; parents come before their subflows."""
    ids = {run_id}
    family = []
    for run in journal.list_open_runs():  # oldest first
        if run.id in ids or run.parent_run_id in ids:
            ids.add(run.id)
            family.append(run)
    return family


def _crash_family(journal: Journal, family: list[OpenRunRow], message: str) -> None:
    for run in reversed(family):
        if run.state in ("RUNNING", "CANCELLING", "SCHEDULED"):
            journal.crash(run.id, run.version, run.epoch, message, counts=False)


def resolve_call(journal: Journal, run_id: int, task_run_id: int, *, done: bool, value: object = None) -> None:
    """Settle a call in doubt by a person's word: `done` with this result, or not done, so that a resume runs it again.

    Committed at once. Raises UsageError when the call is not in doubt or its run is being executed.
    """
    row = journal.records.get_flow_run(run_id)
    call = journal.records.get_call(run_id, task_run_id)
    change = ResolveCall(
        run_id,
        task_run_id,
        seq=call.version + 1,
        epoch=call.epoch,
        attempt=call.attempt,
        at=journal.clock.now_text(),
        result=encode(value, f"the result given for task run {task_run_id}") if done else None,
        message="a person said: done" if done else "a person said: not done",
    )
    try:
        journal.write(change, synced=True)
    except WriteRefused as refusal:
        raise UsageError(
            f"Task run {task_run_id} of flow run {run_id} '{row.name}' is {call.state} (the run is {row.state}), so there is "
            "no doubt to settle. See what is in doubt: wfengine sql 'SELECT * FROM in_doubt'"
        ) from refusal


def load_flow(journal: Journal, row: FlowRunRow) -> AnyFlow:
    """Return the flow of a recorded run: imported by its entrypoint, or from the pickle kept when there is none."""
    if row.entrypoint is not None:
        found = load_entrypoint(row.entrypoint)
        if getattr(found, "__wfengine_task__", False):
            return cast("Task[..., object]", found).as_flow(background=row.queue is not None)
        if not getattr(found, "__wfengine_flow__", False):
            raise EntrypointError(
                f"Flow run {row.id} '{row.name}' was started by {row.entrypoint}, which is now a {type(found).__qualname__} "
                "and no flow. Restore the @flow function of that name."
            )
        return cast("AnyFlow", found)
    if row.flow_hash is None and row.queue is not None:
        raise EntrypointError(
            f"Flow run {row.id} '{row.name}' is of a task that cannot be imported (nested, or typed in), so only a process "
            "that serves it can take it up: serve(my_task)"
        )
    if row.flow_hash is None:
        raise EntrypointError(
            f"Flow run {row.id} '{row.name}' was started by a function that cannot be imported (nested, or typed in) and could "
            f"not be stored. Resume it from code that has the flow: my_flow.resume({row.id})"
        )
    return _load_stored_flow(journal, row)


def store_flow(flow: AnyFlow, journal: Journal) -> bytes | None:
    """Store a flow that cannot be imported, by cloudpickle; return the value's hash, or None with a warning if that fails."""
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(flow)
        if holds(data):
            raise ValueError("it holds the value of a secret")
        pickling.load(data)  # unlike cloudpickle's own, it leaves the classes alone that this process has
    except Exception as error:
        _logger.warning(
            "Flow '%s' cannot be imported afresh and cannot be stored (%s: %s), so only this process can resume its run. "
            "Define it at the top level of a file.",
            flow.name, type(error).__name__, error,
        )  # fmt: skip
        return None
    digest = value_hash(FLOW_CODEC, data)
    journal.put_value((digest, FLOW_CODEC, data, len(data), "wfengine.Flow", f"flow '{flow.name}'"))
    return digest


def _load_stored_flow(journal: Journal, row: FlowRunRow) -> AnyFlow:
    assert row.flow_hash is not None
    codec, stored = journal.records.get_raw_value(row.flow_hash, f"the code of flow run {row.id} '{row.name}'")
    data = cast(bytes, stored)
    if codec != FLOW_CODEC or value_hash(codec, data) != row.flow_hash:
        raise JournalCorruptError(f"The stored code of flow run {row.id} '{row.name}' is damaged. Run: wfengine doctor")
    try:
        return cast("AnyFlow", pickling.load(data))
    except Exception as error:
        raise EntrypointError(
            f"The stored code of flow run {row.id} '{row.name}' cannot be loaded here ({type(error).__name__}: {error}). "
            "It was written by another Python version, or needs a module that is gone."
        ) from error


__all__ = ["find_run_id", "load_flow", "resolve_call", "resumable_runs", "resume_run", "resume_steps", "store_flow", "sweep"]
