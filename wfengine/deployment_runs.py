"""`run_deployment`: ask for a run of a deployment, from any process, and wait for its end.

    run = run_deployment("etl/nightly", parameters={"day": "2026-11-28"})
    run.state.result()

The run waits in its deployment's queue until somebody executes it: a daemon (`wfengine serve`), or `wfengine resume RUN`.
In a running flow the request is a journaled call: the flow, resumed, is given the run that it already asked for, and its wait
is one too, which goes on waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from wfengine.deployment_options import checked_priority, checked_queue, checked_tags, checked_text
from wfengine.distributed_futures import place_left
from wfengine.end_watch import watch_of
from wfengine.endings import recorded_end
from wfengine.ids import NAME_LIMIT, typed
from wfengine.journals import default_journal
from wfengine.loading import leaves_no_trace
from wfengine.own_calls import (
    TIMED_OUT,
    answered,
    begin_change,
    begin_until,
    caller_awaits,
    checked_seconds,
    given_in_loop,
    is_over,
    own_call,
    own_callee,
    scope_or_none,
    settled,
    tell,
    wait,
)
from wfengine.parameter_checks import check_given
from wfengine.references import written
from wfengine.run_objects import FlowRun
from wfengine.runners.away import asks_the_flow
from wfengine.states import State
from wfengine.steps import Create, Outcome, Steps, Write
from wfengine.task_engine import Call, issue
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.deployment_calls import QueueFromCall
from wfengine_journal.deployments import DeploymentRow, find_deployments, get_columns
from wfengine_journal.errors import (
    DeadlockError,
    DuplicateRunError,
    InternalError,
    NotFoundError,
    RunHalted,
    UsageError,
    WfengineError,
)
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.states import StateType
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import key_text, shown_text
from wfengine_journal.waits import NoteWait, find_circle, find_outermost

if TYPE_CHECKING:
    from wfengine.scopes import Scope
    from wfengine_journal.records import FlowRunRow
    from wfengine_journal.store import Journal

FINAL = ("COMPLETED", "FAILED", "CANCELLED")

#: What becomes of a request whose deduplication key a run holds: it is given that run, or an error.
ON_DUPLICATE = ("return", "refuse")
#: Options of Prefect's that name a server or a place: there is none here.
WITHOUT_MEANING = frozenset({"client", "poll_interval", "as_subflow", "job_variables", "work_queue_name"})

_logger = logging.getLogger("wfengine.deployments")


@asks_the_flow
def run_deployment(
    name: str | int,
    parameters: Mapping[str, object] | None = None,
    scheduled_time: datetime | None = None,
    flow_run_name: str | None = None,
    timeout: float | None = None,
    tags: Iterable[str] | None = None,
    idempotency_key: str | None = None,
    *,
    priority: int | None = None,
    queue: str | None = None,
    partition_key: str | None = None,
    deduplication_key: str | None = None,
    on_duplicate: str = "return",
    **options: object,
) -> Any:
    """Put a run of a deployment into its queue, wait until it has ended, and return it as it is then, a `FlowRun`.

    `name`: 'flow/name', or the name alone where it is enough, or the deployment's id. To be awaited in async code.

    - `parameters`: they go before those of the deployment. What the flow could not take is refused before anything is written.
    - `timeout`: wait so many seconds at most, and return the run as it is then; 0 does not wait. The run is not concerned.
    - `scheduled_time`: not taken up before. `queue`, `priority`: instead of the deployment's.
    - `idempotency_key`: a second request with the same key, for the same flow, is given the first one's run.
    - `partition_key`: runs of one key share the queue's limit for each partition.
    - `deduplication_key`: while a run of the flow with that key waits or runs in the queue there is no second one: the request
      is given that run, or raises DuplicateRunError (`on_duplicate="refuse"`). Once it has ended, the key is free again.

    Raises NotFoundError, ParameterError, UsageError, DuplicateRunError.
    """
    awaits = caller_awaits()
    if leaves_no_trace():
        return given_in_loop(None) if awaits else None
    seconds = checked_seconds(timeout, "run_deployment()")
    asked = Asked(
        name, parameters, scheduled_time, flow_run_name, tags, idempotency_key, priority, queue, partition_key, options,
        deduplication_key, on_duplicate,
    )  # fmt: skip
    scope = scope_or_none()
    if scope is not None:
        return _in_flow(asked, scope, seconds, awaits=awaits)
    journal = default_journal()
    run_id = request_run(journal, asked).run_id
    if awaits:
        return _ended_later(journal, run_id, seconds)
    wait_for_end(journal, run_id, seconds)
    return flow_run_of_row(journal, journal.records.get_flow_run(run_id))


# ------------------------------------------------------------------------------------------- what is asked for


class Asked:
    """A request for a run of a deployment; checked as far as it can be without the deployment."""

    def __init__(
        self, name: object, parameters: object = None, scheduled_time: object = None, flow_run_name: object = None,
        tags: object = None, idempotency_key: object = None, priority: object = None, queue: object = None,
        partition_key: object = None, options: Mapping[str, object] | None = None, deduplication_key: object = None,
        on_duplicate: object = "return",
    ) -> None:  # fmt: skip
        owner = "run_deployment()"
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise UsageError(f"{owner} is given a deployment's name, as 'flow/name', or its id, and not {name!r}.")
        self.name = name
        if parameters is not None and not isinstance(parameters, Mapping):
            raise UsageError(f"{owner}: parameters are a dict by name, not {parameters!r}.")
        self.parameters = cast("dict[str, object]", written(dict(parameters or {})))
        self.due_at = _due_text(scheduled_time)
        self.run_name = _checked_run_name(owner, flow_run_name)
        self.tags = [shown_text(tag) for tag in checked_tags(owner, tags or ())]
        self.idempotency_key = _key(owner, "idempotency_key", idempotency_key)
        self.partition_key = _key(owner, "partition_key", partition_key)
        self.deduplication_key = _key(owner, "deduplication_key", deduplication_key)
        if on_duplicate not in ON_DUPLICATE:
            raise UsageError(f"{owner}: on_duplicate is 'return' or 'refuse', not {on_duplicate!r}.")
        self.refuses_duplicate = on_duplicate == "refuse"
        self.priority = None if priority is None else checked_priority(owner, priority)
        self.queue = None if queue is None else checked_queue(owner, queue)
        _note_options(options or {})

    def request(self, journal: Journal, deployment: DeploymentRow) -> RunRequest:
        """Return what is written. Raises ParameterError for parameters that the flow could not take."""
        columns = journal.records.read(lambda connection: get_columns(connection, deployment.id))
        owner = f"A run of deployment '{deployment.full_name}'"
        check_given(owner, columns.parameter_schema, json.loads(columns.parameters), self.parameters)
        return RunRequest(
            deployment.id,
            self.run_name or new_run_name(journal.records.is_run_name_taken),
            journal.clock.now_text(),
            parameters=self.parameters,
            tags=self.tags,
            idempotency_key=self.idempotency_key,
            deduplication_key=self.deduplication_key,
            refuses_duplicate=self.refuses_duplicate,
            queue=self.queue,
            priority=self.priority,
            partition_key=self.partition_key,
            due_at=self.due_at,
        )


def the_deployment(journal: Journal, name: str | int) -> DeploymentRow:
    """Return the deployment that a name or id means. Raises NotFoundError."""
    found = journal.records.read(lambda connection: find_deployments(connection, name))
    if not found:
        raise NotFoundError(
            f"There is no deployment {name!r} in {journal.path}. See them with: wfengine deployments ls. Make one with: "
            "flow.deploy(NAME), or wfengine deploy FILE:FLOW --name NAME"
        )
    if len(found) > 1:
        names = ", ".join(row.full_name for row in found)
        raise NotFoundError(f"Several deployments are named {name!r}: {names}. Name the flow as well.")
    return found[0]


class Answer(NamedTuple):
    """The run that answers a request."""

    run_id: int
    is_new: bool  # false: one of the keys says that it is an earlier one


def request_run(journal: Journal, asked: Asked) -> Answer:
    """Write the run, unless one of the keys says that an earlier one is the answer. Raises DuplicateRunError."""
    deployment = the_deployment(journal, asked.name)
    change = QueueRun(asked.request(journal, deployment))
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        if change.existing_id is None:
            raise _removed(deployment) from None
        if change.is_duplicate and asked.refuses_duplicate:
            raise _duplicate(journal, change.existing_id) from None
        return Answer(change.existing_id, False)
    return Answer(change.flow_run_id, True)


def _duplicate(journal: Journal, run_id: int) -> DuplicateRunError:
    row = journal.records.get_flow_run(run_id)
    name = typed(row.id, row.name)
    return DuplicateRunError(
        f"Flow run {row.id} '{row.name}' holds this deduplication key in queue '{row.queue}' until it ends: it is "
        f"{row.state_name or row.state.capitalize()}. Look at it: wfengine runs show {name}. To be given it instead of this "
        "error, ask with on_duplicate='return'.",
        flow_run_id=row.id,
    )


def _removed(deployment: DeploymentRow) -> NotFoundError:
    return NotFoundError(f"Deployment '{deployment.full_name}' was removed meanwhile. See them with: wfengine deployments ls")


def _due_text(scheduled_time: object) -> str | None:
    if scheduled_time is None:
        return None
    if not isinstance(scheduled_time, datetime) or scheduled_time.utcoffset() is None:
        raise UsageError(
            f"run_deployment(): scheduled_time is a datetime with a time zone, such as datetime.now(UTC), not "
            f"{scheduled_time!r}."
        )
    try:
        return text_from_seconds(scheduled_time.timestamp())
    except (OverflowError, ValueError, OSError) as error:
        raise UsageError(f"run_deployment(): scheduled_time lies outside of the calendar: {scheduled_time!r}.") from error


def _checked_run_name(owner: str, name: object) -> str | None:
    text = checked_text(owner, "flow_run_name", name)
    return None if text is None else shown_text(text).strip()[:NAME_LIMIT] or None


def _key(owner: str, option: str, value: object) -> str | None:
    text = checked_text(owner, option, value)
    if text is not None and not text.strip():
        raise UsageError(f"{owner}: {option} is a text that is not empty.")
    return None if text is None else key_text(text)


def _note_options(options: Mapping[str, object]) -> None:
    unknown = sorted(set(options) - WITHOUT_MEANING)
    if unknown:
        raise UsageError(f"run_deployment() has no option {', '.join(unknown)}. See: help(wfengine.deployments.run_deployment)")
    meant = sorted(option for option in options if options[option] is not None)
    if meant:
        _logger.warning("run_deployment(): %s mean%s nothing here.", ", ".join(meant), "s" if len(meant) == 1 else "")


# ------------------------------------------------------------------------------------------- waiting, outside of a flow


def wait_for_end(journal: Journal, flow_run_id: int, timeout: float | None) -> bool:
    """Wait until a run has ended, whoever executes it, at most `timeout` seconds; tell whether it has."""
    if timeout == 0 or _has_ended(journal, flow_run_id):
        return timeout != 0
    over = threading.Event()
    problems: list[WfengineError] = []

    def finish(problem: WfengineError | None) -> None:
        if problem is not None:
            problems.append(problem)
        over.set()

    watch = watch_of(journal)
    ticket = watch.add(flow_run_id, finish)
    try:
        over.wait(timeout)
    finally:
        watch.remove(ticket)
    if problems:
        raise problems[0]
    return over.is_set()


async def _ended_later(journal: Journal, flow_run_id: int, timeout: float | None) -> FlowRun:
    if timeout != 0 and not _has_ended(journal, flow_run_id):
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def finish(problem: WfengineError | None) -> None:
            if not over.done():
                over.set_result(None) if problem is None else over.set_exception(problem)

        def call(problem: WfengineError | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, problem)

        watch = watch_of(journal)
        ticket = watch.add(flow_run_id, call)
        try:
            await asyncio.wait_for(over, timeout)
        except TimeoutError:
            pass
        finally:
            watch.remove(ticket)
    return flow_run_of_row(journal, journal.records.get_flow_run(flow_run_id))


def _has_ended(journal: Journal, flow_run_id: int) -> bool:
    return journal.records.get_flow_run(flow_run_id).state in FINAL


def flow_run_of_row(journal: Journal, row: FlowRunRow, state: State[object] | None = None) -> FlowRun:
    """Return a recorded run as an object; `state`: what it is said to be in, default what it is."""
    if state is None:
        state = (
            recorded_end(journal.records, row).state
            if row.state in FINAL
            else State(StateType(row.state), row.state_name, row.state_message, flow_run_id=row.id)
        )
    parameters = json.loads(row.parameters)
    return FlowRun(
        row.id, row.name, row.flow_name, state, parameters if isinstance(parameters, dict) else {},
        frozenset(json.loads(row.tags or "[]")), row.epoch, deployment_id=row.deployment_id,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- in a running flow

_RUN = own_callee("run_deployment", ("name", "parameters", "flow_run_name", "idempotency_key"))
_WAIT = own_callee("wait_for_run", ("flow_run_id",))


def _in_flow(asked: Asked, scope: Scope, seconds: float | None, *, awaits: bool) -> object:
    """Ask in a journaled call, and wait in another; what the flow is given is recorded, and the same when it is resumed."""
    asking = _asking(asked, scope, awaits=awaits)  # issued at once, so that calls keep their order
    if awaits:
        return _in_flow_later(cast("Coroutine[None, None, object]", asking), asked, scope, seconds)
    run_id = cast(int, asking)
    return _as_asked(asked, scope, run_id) if seconds == 0 else _waiting(scope, run_id, seconds, awaits=False)


async def _in_flow_later(
    asking: Coroutine[None, None, object], asked: Asked, scope: Scope, seconds: float | None
) -> object:  # fmt: skip
    run_id = cast(int, await asking)
    if seconds == 0:
        return _as_asked(asked, scope, run_id)
    return await cast("Coroutine[None, None, object]", _waiting(scope, run_id, seconds, awaits=True))


def _asking(asked: Asked, scope: Scope, *, awaits: bool) -> object:
    arguments: dict[str, object] = {
        "name": asked.name, "parameters": asked.parameters, "flow_run_name": asked.run_name,
        "idempotency_key": asked.idempotency_key, "scheduled_time": asked.due_at, "deduplication_key": asked.deduplication_key,
    }  # fmt: skip
    call = own_call(_RUN, scope, arguments)
    return answered(call, issue(call), lambda: _ask(call, asked), awaits=awaits)


def _ask(call: Call, asked: Asked) -> Steps[Outcome]:
    run = call.run
    deployment = the_deployment(run.journal, asked.name)
    request = asked.request(run.journal, deployment)
    begin = begin_change(call)
    change = QueueFromCall(begin, request, attempt=call.attempt)
    if not (yield Create(run.journal, change, True)):
        if change.duplicate_id is not None:
            yield Write(run, begin, False)
            call.task_run_id, call.live_state = begin.task_run_id, StateType.RUNNING
            return (yield from settled(call, Outcome(None, _duplicate(run.journal, change.duplicate_id))))
        if not change.was_checked:
            raise _removed(deployment)
        yield Write(run, change, True)  # this process lost the run: meet that refusal as any write does
        raise run.halt(RunHalted(InternalError(f"{call} was refused, and then was not. Please report this.")))
    call.seq, call.task_run_id = change.seq, change.task_run_id
    outcome = Outcome(change.run_id, None)
    tell(call, outcome)
    return outcome


def _waiting(scope: Scope, run_id: int, seconds: float | None, *, awaits: bool) -> object:
    journal = scope.run.journal
    call = own_call(_WAIT, scope, {"flow_run_id": run_id, "timeout": seconds})

    def convert(recorded: object) -> FlowRun:
        seen = cast("dict[str, Any]", recorded)
        row = journal.records.get_flow_run(run_id)
        state: State[object] | None = None
        if (row.state, row.state_name) != (seen["state"], seen["name"]):  # it went on after the flow had looked
            state = State(StateType(seen["state"]), seen["name"], seen["message"], flow_run_id=run_id)
        return flow_run_of_row(journal, row, state)

    return answered(call, issue(call), lambda: _wait(call, run_id, seconds), awaits=awaits, convert=convert)


def _wait(call: Call, run_id: int, seconds: float | None) -> Steps[Outcome]:
    """Wait for the end, or for the instant until which to wait; how the run was then is the outcome."""
    run, journal = call.run, call.run.journal
    note = NoteWait(run.id, run_id, owner_id=journal.owner_id, at=journal.clock.now_text())
    until = yield from begin_until(call, seconds, [note])
    circle = journal.read(lambda connection: find_circle(connection, find_outermost(connection, run.id)))
    if circle:
        return (yield from settled(call, Outcome(None, _deadlock(journal, circle))))

    def look() -> object:
        row = run.journal.records.get_flow_run(run_id)
        return row if row.state in FINAL else TIMED_OUT if is_over(run, until) else None

    with place_left():
        found = yield from wait(call, look)
    row = run.journal.records.get_flow_run(run_id) if found is TIMED_OUT else cast("FlowRunRow", found)
    return (yield from settled(call, Outcome({"state": row.state, "name": row.state_name, "message": row.state_message}, None)))


def _deadlock(journal: Journal, circle: list[int]) -> DeadlockError:
    """Return the error of a run that would wait for itself. It is found once its wait is recorded: by the last of a circle."""
    rows = [journal.records.get_flow_run(flow_run_id) for flow_run_id in circle]
    names = [f"flow run {row.id} '{row.name}'" for row in rows]
    what = " waits for ".join([*names, "itself" if len(rows) == 1 else f"flow run {rows[0].id}"])
    return DeadlockError(
        f"{what}, which would never end. A key that an earlier request had gives its run back: ask with another "
        f"idempotency or deduplication key, or do not wait (timeout=0). Look at it: wfengine runs show {rows[-1].id}",
        flow_run_id=rows[0].id,
    )


def _as_asked(asked: Asked, scope: Scope, run_id: int) -> FlowRun:
    """Return a run that was not waited for, as it was when it was asked for, whatever has become of it since."""
    row = scope.run.journal.records.get_flow_run(run_id)
    return flow_run_of_row(scope.run.journal, row, State(StateType.SCHEDULED, flow_run_id=run_id))
