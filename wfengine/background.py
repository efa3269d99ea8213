"""Put a task into the queue of background tasks: it is stored with its arguments, and committed, before `delay` returns.

A background run is a flow run of its own around the one task. In a running flow it is written together with the call that
put it there, in one transaction: the flow, resumed, is given the run that it already put there.

What may be an argument: whatever can be stored. Futures of submitted tasks are waited for, their results are stored. Futures
of background runs are not: the worker puts their results in their place, and takes the run up only when they are there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from wfengine import listeners
from wfengine.distributed_futures import PrefectDistributedFuture
from wfengine.identity import Inputs, describe_inputs, explicit_key
from wfengine.ids import render_name
from wfengine.journals import default_durability, default_journal
from wfengine.loading import entrypoint_of, is_loading, note_skipped_call
from wfengine.lone_tasks import LONE_CALL
from wfengine.needs import marked, refuse_marks
from wfengine.resolution import UpstreamFailure, resolved, resolved_arguments
from wfengine.retries import NO_RETRIES
from wfengine.scopes import current_scope, current_tags, current_tracer, find_scope
from wfengine.steps import Outcome, Steps, Write, drive
from wfengine.stored_parameters import describe_parameters
from wfengine.task_engine import Call, Callee, issue
from wfengine_journal.background import find_first_call
from wfengine_journal.codec import Encoded, encode
from wfengine_journal.errors import NotFoundError
from wfengine_journal.names import new_run_name
from wfengine_journal.run_transitions import QueuedCall, ScheduleFlowRun, ScheduleFromCall
from wfengine_journal.transitions import Argument, BeginCall, tags_text

if TYPE_CHECKING:
    from wfengine.scopes import Scope
    from wfengine.tasks import Task
    from wfengine_journal.store import Journal

R = TypeVar("R")


def queue_of(task_key: str) -> str:
    """Return the queue in which runs of a task wait."""
    return f"task:{task_key}"


def enqueue(
    task: Task[..., R],
    callee: Callee,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    wait_for: object = None,
    dependencies: Mapping[str, Iterable[object]] | None = None,
) -> PrefectDistributedFuture[R]:
    """Put one call of a task into its queue and return its future, after the commit.

    Futures in `wait_for` and `dependencies` have to complete before it is taken up; it fails with one that fails.
    """
    if is_loading():
        note_skipped_call()
        return cast("PrefectDistributedFuture[R]", None)  # what calls it is not run for its result
    # As for a flow: in a thread of the user's own that belongs to no run, whatever else runs in this process.
    scope = find_scope() if current_scope() is not None else None
    before = [wait_for, *(dependencies or {}).values()]
    if scope is None and (tracer := current_tracer()) is not None:  # a flow that is drawn puts nothing into a queue
        return cast("PrefectDistributedFuture[R]", tracer.submit(callee, args, kwargs, before))
    journal = default_journal() if scope is None else scope.run.journal
    try:
        arguments, needs = _storable(callee, callee.parameters.bind(args, kwargs), before, journal)
    except UpstreamFailure as failure:
        raise failure.error from None
    if scope is not None:
        return _enqueue_in_run(task, callee, scope, arguments, needs)
    scheduled = _scheduled(task, callee, journal, arguments, needs)
    journal.write(scheduled, synced=_is_synced(journal))
    return PrefectDistributedFuture(scheduled.call_id, scheduled.flow_run_id, journal)


def _is_synced(journal: Journal) -> bool:
    return default_durability(journal) == "power"


def _storable(
    callee: Callee, arguments: dict[str, object], before: object, journal: Journal
) -> tuple[dict[str, object], dict[int, bool]]:
    """Return the arguments as they are stored, and the background runs that have to end first. Waits for other futures."""
    needs: dict[int, bool] = {}
    shown = {name: marked(value, needs, journal) for name, value in arguments.items()}
    if needs:
        refuse_marks(list(arguments.values()), callee.parameters.owner)
    resolved(marked(before, needs, journal))
    return resolved_arguments(shown), needs


# ------------------------------------------------------------------------------------------- what is written


def _scheduled(
    task: Task[..., Any], callee: Callee, journal: Journal, arguments: dict[str, object], needs: Mapping[int, bool]
) -> ScheduleFlowRun:
    """Return the change that writes the run. Raises ParameterError for an argument that cannot be stored."""
    text, stored = describe_parameters(callee.parameters.owner, arguments, needed_by="the process that runs it")
    inputs = describe_inputs(arguments)
    tags = tags_text(callee.tags | current_tags())
    return ScheduleFlowRun(
        name=new_run_name(journal.records.is_run_name_taken),
        flow_id=journal.flow_id(task.name, task.__doc__),
        queue=queue_of(task.key),
        durability=default_durability(journal),
        parameters=text,
        arguments=stored,
        tags=tags_text(current_tags()),
        entrypoint=entrypoint_of(task.fn),
        call=QueuedCall(
            journal.task_id("task", callee.key, callee.name),
            explicit_key(LONE_CALL),
            inputs.text,
            None if callee.run_name is None else render_name(callee.run_name, arguments, callee.parameters.owner),
            tags,
            _beside(arguments, inputs, stored),
        ),
        needs=needs,
        at=journal.clock.now_text(),
    )


def _beside(arguments: Mapping[str, object], inputs: Inputs, stored: Iterable[Argument]) -> list[Argument]:
    """Return the arguments that do not stand in full in the task run's row. What is stored already is not encoded again."""
    known = {argument.name: argument for argument in stored}
    return [known.get(name) or _encoded(name, arguments[name]) for name in inputs.partial]


def _encoded(name: str, value: object) -> Argument:
    encoded: Encoded = encode(value, f"the argument '{name}'")
    return Argument(name, encoded.python_type, encoded)


# ------------------------------------------------------------------------------------------- in a running flow


def _enqueue_in_run(
    task: Task[..., R], callee: Callee, scope: Scope, arguments: dict[str, object], needs: Mapping[int, bool]
) -> PrefectDistributedFuture[R]:
    """Put a task into its queue as a journaled call of the running flow, named after the task and '.delay'."""
    journal = scope.run.journal
    # What it had to wait for was waited for here, so it keeps its place in the order of calls.
    call = Call(_enqueueing(callee), scope, arguments, 0 if scope.on_main_lane() else 1)
    outcome = issue(call) or drive(_write(call, _scheduled(task, callee, journal, arguments, needs)))
    if outcome.error is not None:
        raise outcome.error
    flow_run_id = cast(int, outcome.value)
    task_run_id = find_first_call(journal.records, flow_run_id)
    if task_run_id is None:
        raise NotFoundError(f"{call} put flow run {flow_run_id} into the queue, which is not in {journal.path} any more.")
    return PrefectDistributedFuture(task_run_id, flow_run_id, journal)


@functools.lru_cache(maxsize=1000)
def _enqueueing(callee: Callee) -> Callee:
    """Return what is called in the flow: it puts the task into the queue, so the task's own options are not its."""
    return dataclasses.replace(
        callee,
        name=f"{callee.name}.delay",
        key=f"{callee.key}.delay",
        aliases=tuple(f"{alias}.delay" for alias in callee.aliases),
        policy=NO_RETRIES,
        timeout_seconds=None,
        run_name=None,
        on_interrupt="rerun",
        once=False,
        transacts=None,
        hooks=None,
    )


def _write(call: Call, scheduled: ScheduleFlowRun) -> Steps[Outcome]:
    """Commit the call and the run that it puts into the queue, in one transaction."""
    run, inputs = call.run, call.inputs
    assert call.identity is not None
    assert inputs is not None
    begin = BeginCall(
        call.identity,
        epoch=run.epoch,
        lane=call.lane,
        inputs=inputs.text,
        at=scheduled.at,
        running=True,
        tags=scheduled.call.tags,
        arguments=_beside(call.arguments, inputs, scheduled.arguments),
    )
    change = ScheduleFromCall(begin, scheduled)
    yield Write(run, change, run.synced or _is_synced(run.journal))
    call.task_run_id = change.task_run_id
    if listeners.LISTENERS:
        listeners.tell(listeners.Event(run.id, call.task_run_id, call.callee.name, "COMPLETED", None, scheduled.at))
    return Outcome(scheduled.flow_run_id, None)
