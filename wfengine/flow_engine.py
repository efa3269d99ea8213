"""The life of a flow run, written once: for sync and async flows, runs of their own and subflows, new and resumed ones.

    create or claim   the run's row, its epoch, which code runs it        `start`, `take_up`
    body              the flow's function, from the top                    `attempts`
    settle            every submitted task is finished                     `attempts`
    outcome           return value -> state (`returned`), committed        `attempts`, `endings`
    retry?            the next instant is journaled, then waited for       `attempts`

A resumed run executes the same function again; its calls are answered from the journal (`task_engine`, `replay`).
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from wfengine import listeners
from wfengine.cancelled import cancelled_end, ends_as_cancelled, hook_state, news_of_untold, told_run, untold_runs
from wfengine.continuation import CONTINUED, ContinueAsNew, continued, last_continuation
from wfengine.deadlines import at_deadline, binding_deadline, deadline_error, is_past, limit_seconds, new_deadline
from wfengine.endings import (
    Ended,
    end_change,
    ended,
    is_own_timeout,
    may_retry,
    note_paused_state,
    park_change,
    recorded_end,
    storable,
)
from wfengine.fingerprint import flow_code
from wfengine.halts import notice, watch
from wfengine.hooks import call_flow_hooks
from wfengine.ids import render_name, typed
from wfengine.journals import default_durability
from wfengine.keeping import keeping_in
from wfengine.loading import entrypoint_of
from wfengine.openings import opened
from wfengine.ownership import owned_error, refuse_living, sweep
from wfengine.prints import record_prints, wants_prints
from wfengine.replay import Recorded, Rerun
from wfengine.returned import is_telling, judged
from wfengine.run_names import flow_run_name
from wfengine.scopes import ABANDONED, ACTIVE, ACTIVE_TRANSACTION, LiveRun, Scope, current_tags
from wfengine.states import State
from wfengine.steps import Create, Delay, Invoke, Outcome, Settle, Steps, Write
from wfengine.stored_parameters import describe_parameters, restore_parameters
from wfengine.streams import Feed, stream
from wfengine.task_engine import Call
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.errors import (
    CrashedRun,
    InternalError,
    JournalError,
    NotFoundError,
    OwnershipLostError,
    ParameterError,
    PausedRun,
    RunHalted,
    SecretError,
    UsageError,
)
from wfengine_journal.records import FlowRunRow
from wfengine_journal.run_transitions import Admission, ClaimFlowRun, CrashFlowRun, CreateFlowRun
from wfengine_journal.states import StateType
from wfengine_journal.transitions import Argument, tags_text

if TYPE_CHECKING:
    from wfengine.dry_runs import DryRun
    from wfengine.flows import AnyFlow
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.engine")


class How(NamedTuple):
    """How a recorded run is taken up again."""

    reason: str  # 'resume': a person asked; 'recovery': its process died; 'retry': its own policy
    rerun: Rerun
    by_person: bool
    on_drift: str | None = None
    dry: DryRun | None = None  # nothing is executed, see `dry_runs`
    asked: str | None = None  # what a person asked to run again beside the usual, as in `execution.rerun`
    is_found: bool = False  # in a queue, where nobody named it: not to be taken up if it was paused or cancelled meanwhile
    admission: Admission | None = None  # whether its queue and deployment let it begin now; null: whoever asks may


# ------------------------------------------------------------------------------------------- create


def start(flow: AnyFlow, journal: Journal, arguments: dict[str, object], *, parent: Call | None = None) -> Steps[Ended]:
    """Create a new flow run and live it. Nothing is written before all parameters are known to be storable."""
    text, stored = describe_parameters(flow.parameters.owner, arguments)
    key = None if parent is not None else _idempotency_key(flow, arguments)
    if key is not None:
        existing = journal.records.find_flow_run_by_key(journal.flow_id(flow.name, flow.description), key)
        if existing is not None:
            return (yield from _again(flow, journal, existing, key, text, stored))
    if parent is None:
        yield from mention_earlier_runs(flow, journal)
    tags = flow.tags | current_tags() | (frozenset() if parent is None else parent.run.outer_tags)
    code_hash, source = flow_code(flow.fn)
    entrypoint = entrypoint_of(flow.fn)
    name = flow_run_name(flow, journal, arguments, tags, parent)
    durability = parent.run.durability if parent is not None else flow.durability or default_durability(journal)
    create = CreateFlowRun(
        name=name,
        flow_id=journal.flow_id(flow.name, flow.description),
        parent_task_run_id=None if parent is None else parent.task_run_id,
        owner_id=journal.owner_id,
        code_id=journal.code_id(code_hash, source),
        durability=durability,
        parameters=text,
        arguments=stored,
        tags=tags_text(tags),
        idempotency_key=key,
        entrypoint=entrypoint,
        flow_hash=None if entrypoint is not None or parent is not None else flow.store_function(journal),
        at=journal.clock.now_text(),
        deadline_at=new_deadline(flow, journal.clock),
    )
    try:
        created = yield Create(journal, create, durability == "power")
    except BaseException:
        ABANDONED.add((str(journal.path), create.flow_run_id))  # Ctrl-C came as it was committed: nobody executes it
        raise
    if not created:
        if parent is not None:
            _unwind_if_stopped(parent)
        if key is None:
            raise NotFoundError(f"The subflow call {parent} has a run already; resume its parent.")
        existing = journal.records.find_flow_run_by_key(journal.flow_id(flow.name, flow.description), key)
        assert existing is not None
        return (yield from _again(flow, journal, existing, key, text, stored))
    run = LiveRun(journal, flow, create.flow_run_id, name, epoch=1, version=1)
    run.durability, run.synced = durability, durability == "power"
    run.own_deadline = create.deadline_at
    return (yield from _live(run, arguments, tags, parent))


def _unwind_if_stopped(parent: Call) -> None:
    """Raise the signal with which the run around a subflow stops, where it was asked to before the subflow could begin."""
    notice(parent.run.journal)
    parent.run.check_not_halted()


def _idempotency_key(flow: AnyFlow, arguments: dict[str, object]) -> str | None:
    key = flow.idempotency_key
    return None if key is None else render_name(key, arguments, f"flow '{flow.name}' (idempotency_key)")


def _again(flow: AnyFlow, journal: Journal, run_id: int, key: str, parameters: str, stored: list[Argument]) -> Steps[Ended]:
    """Answer a second start with the same idempotency key: the recorded result, or the run is taken up."""
    row = journal.records.get_flow_run(run_id)
    # What does not stand in the row in full shows only a preview there, so its hash is compared too.
    hashes = {argument.name: argument.encoded.hash for argument in stored if argument.encoded is not None}
    if row.parameters != parameters or journal.records.list_arguments(run_id) != hashes:
        raise UsageError(
            f"Flow '{flow.name}' was already started with the idempotency key '{key}' (run {row.id} '{row.name}') and other "
            f"parameters: recorded {row.parameters}, now {parameters}. Use another key for another piece of work."
        )
    entrypoint = entrypoint_of(flow.fn)
    elsewhere = row.entrypoint is not None and entrypoint is not None and row.entrypoint != entrypoint
    if elsewhere and journal.records.list_code_hashes(run_id).get(row.epoch) != flow_code(flow.fn).hash:
        raise UsageError(
            f"The idempotency key '{key}' belongs to run {row.id} '{row.name}' of another flow named '{flow.name}': "
            f"{row.entrypoint}, and this one is {entrypoint}. Give one of the flows another name, or use another key."
        )
    how = How("resume" if row.state in ("FAILED", "CANCELLED") else "recovery", "fatal", by_person=False)
    return (yield from take_up(flow, journal, run_id, how))


def mention_earlier_runs(flow: AnyFlow, journal: Journal) -> Steps[None]:
    """Before a new run: say which earlier runs of this flow were cut off and how to resume them; call their hooks."""
    swept = sweep(journal)
    open_runs = [run for run in journal.list_open_runs(flow.name) if run.parent_task_run_id is None]
    if flow.hooks is not None:
        for run_id in [run.id for run in open_runs] + news_of_untold(flow, journal, swept):
            yield from tell_of_end(flow, journal, journal.records.get_flow_run(run_id))
    for run in open_runs[-3:]:
        if run.state in ("CRASHED", "PAUSED"):
            what = "was cut off" if run.state == "CRASHED" else "is parked"
            _logger.warning(
                "An earlier run of flow '%s' %s: run %d '%s'. This start is a new run; to go on with the earlier one, type: "
                "wfengine resume %s",
                flow.name, what, run.id, run.name, typed(run.id, run.name),
            )  # fmt: skip


def tell_of_end(flow: AnyFlow, journal: Journal, row: FlowRunRow) -> Steps[None]:
    """Call the on_crashed hooks for a run whose process died, unless they were called already.

    So too the on_cancellation hooks, where nobody was there to call them when the run was cancelled.
    """
    if row.state not in ("CRASHED", "CANCELLED") or flow.hooks is None or not flow.hooks.of(StateType(row.state)):
        return
    try:
        parameters = restore_parameters(journal, row)
    except JournalError as error:
        _logger.warning("The hooks of flow run %d '%s' get no parameters: %s", row.id, row.name, error)
        parameters = {}
    yield from call_flow_hooks(told_run(flow, journal, row, parameters), hook_state(row), row.version)


# ------------------------------------------------------------------------------------------- claim


def take_up(flow: AnyFlow, journal: Journal, run_id: int, how: How, *, parent: Call | None = None) -> Steps[Ended]:
    """Claim a recorded run that nobody executes and live it on; a completed one gives its recorded result.

    Raises RunOwnedError when a living process executes it, or was quicker to claim it.
    """
    row = last_continuation(journal, journal.records.get_flow_run(run_id))
    run_id = row.id
    if row.state == "COMPLETED" and not (row.state_name == "RolledBack" and how.rerun == "failed"):
        return recorded_end(journal.records, row)
    if row.state in ("RUNNING", "CANCELLING", "SCHEDULED") and row.owner_id is not None:
        refuse_living(journal, row)
        sweep(journal)
        ABANDONED.discard((str(journal.path), run_id))
        row = journal.records.get_flow_run(run_id)
        if row.state == "CANCELLED":  # its process died while it was being cancelled: that is what was asked, and no more
            yield from tell_of_end(flow, journal, row)
            return recorded_end(journal.records, row)
    if how.is_found and row.state in ("PAUSED", "CANCELLED"):
        raise owned_error(journal, row)
    if how.dry is None and (row.state == "CRASHED" or (row.state == "CANCELLED" and row.id in untold_runs(flow, journal))):
        yield from tell_of_end(flow, journal, row)
    code_hash, source = flow_code(flow.fn)
    code_id = journal.code_id(code_hash, source)
    waited_for_retry = row.next_attempt_at is not None
    reason = "start" if row.epoch == 0 else "retry" if waited_for_retry and how.reason == "recovery" else how.reason
    row, arguments, opening = opened(flow, journal, row)  # before the claim: what does not fit is refused, nothing written
    claim = ClaimFlowRun(
        row.id, version=row.version, epoch=row.epoch + 1, owner_id=journal.owner_id, code_id=code_id, reason=reason,
        at=journal.clock.now_text(), deadline_at=new_deadline(flow, journal.clock), rerun=how.asked, opening=opening,
        admission=how.admission,
    )  # fmt: skip
    try:
        # A first claim need not outlive a power cut: without it the run waits in its queue again.
        claimed = yield Create(journal, claim, row.epoch > 0)
    except BaseException:
        ABANDONED.add((str(journal.path), run_id))
        raise
    if not claimed:
        row = journal.records.get_flow_run(run_id)
        if row.state == "COMPLETED":
            return recorded_end(journal.records, row)
        if parent is not None:
            _unwind_if_stopped(parent)
        raise owned_error(journal, row)
    run = LiveRun(journal, flow, row.id, row.name, epoch=claim.epoch, version=claim.seq)
    run.durability, run.synced = row.durability, row.durability == "power"
    run.on_drift, run.dry = how.on_drift or flow.on_drift, how.dry
    if run.dry is not None:
        run.dry.entered.append((run.id, run.epoch))
    run.own_deadline = claim.deadline_at if reason in ("start", "resume") else row.deadline_at
    # A run that was waiting for its own next attempt when its process died runs its failures again, as it would have.
    rerun: Rerun = "failed" if waited_for_retry else how.rerun
    load_recorded(run, code_hash, rerun, how.by_person)
    failures = 0 if how.reason == "resume" else row.failures  # a person's resume grants all retries anew
    due = None if row.next_attempt_at is None else seconds_from_text(row.next_attempt_at)
    tags = frozenset(json.loads(row.tags or "[]"))
    run.outer_tags = tags - flow.tags
    return (yield from _live(run, arguments, tags, parent, failures, due))


def load_recorded(run: LiveRun, code_hash: str, rerun: Rerun, by_person: bool) -> None:
    """Read what earlier executions recorded, for the calls of this one."""
    run.told |= run.journal.records.list_hook_runs(run.id)
    run.recorded = Recorded.load(
        run.journal.records, run.id, epoch=run.epoch, rerun=rerun, by_person=by_person, code_hash=code_hash
    )


# ------------------------------------------------------------------------------------------- live


def _live(
    run: LiveRun, arguments: dict[str, object], tags: frozenset[str], parent: Call | None, failures: int = 0,
    due: float | None = None,
) -> Steps[Ended]:  # fmt: skip
    """Execute a created or claimed run to its end, from `due` on: an instant in seconds of the wall clock.

    Where it goes on as a new run, and that as a further one, each is executed in its turn; the last one's end is returned.
    """
    while True:
        ending = yield from _live_one(run, arguments, tags, parent, failures, due)
        if isinstance(ending, Ended):
            return ending
        run, arguments, failures, due = ending, ending.parameters, 0, None


def _live_one(
    run: LiveRun, arguments: dict[str, object], tags: frozenset[str], parent: Call | None, failures: int, due: float | None
) -> Steps[Ended | LiveRun]:
    run.parameters = arguments
    run.tags = tags
    run.parent = None if parent is None else parent.run
    run.parent_call = parent
    run.deadline = binding_deadline(run.own_deadline, run.parent)
    run.results = keeping_in(run.flow.results, run.parent)
    run.uses_transactions = ACTIVE_TRANSACTION.get() is not None or (parent is not None and parent.run.uses_transactions)
    run.log_prints = wants_prints(run.flow.log_prints, None if run.parent is None else run.parent.log_prints)
    if run.log_prints:
        record_prints()
    key = (str(run.journal.path), run.id)
    try:
        ACTIVE[key] = run
        ABANDONED.discard(key)
        watch(run.journal)
        _tell(run, "RUNNING", None)
        if due is not None and run.dry is None:
            try:
                yield from _wait_for_attempt(run, due)
            except GeneratorExit:
                raise
            except BaseException as signal:
                return (yield from _stopped(run, signal))
        return (yield from attempts(run, failures))
    finally:
        if run.left_open:
            ABANDONED.add(key)
        ACTIVE.pop(key, None)
        run.close_runners()


def attempts(run: LiveRun, failures: int) -> Steps[Ended | LiveRun]:
    """Run the body until it completes or fails for good; return the run that goes on in its place, if one does."""
    clock = run.journal.clock
    started = clock.monotonic_seconds()
    while True:
        try:
            outcome = yield from _body(run)
            stored = None if isinstance(outcome.error, ContinueAsNew) else (yield from storable(run, outcome))
        except GeneratorExit:
            raise
        except BaseException as signal:
            return (yield from _stopped(run, signal))
        if stored is None:
            return (yield from _goes_on(run, outcome))
        error = stored.outcome.error
        if error is not None and not isinstance(error, Exception):
            return (yield from _stopped(run, error))
        delay = None
        if error is not None and may_retry(stored.outcome) and run.dry is None:
            failures += 1
            delay = run.flow.policy.next_delay_seconds(failures, error, clock.monotonic_seconds() - started)
        next_attempt = None if delay is None else clock.wall_seconds() + delay
        if next_attempt is not None and is_past(run, next_attempt):
            next_attempt = None  # the deadline would come first
        end = end_change(run, stored, next_attempt)
        try:
            yield Write(run, end, run.synced)
        except RunHalted as signal:
            return (yield from _stopped(run, signal))
        run.version = end.seq
        _tell(run, end.state, end.state_name)
        if next_attempt is None:
            run.left_open = False
            end_of_run = ended(run, end, stored.outcome)
            yield from call_flow_hooks(run, end_of_run.state, run.version)
            return end_of_run
        try:
            yield from _wait_for_attempt(run, next_attempt)
            yield from _next_attempt(run)
        except GeneratorExit:
            raise
        except BaseException as signal:
            return (yield from _stopped(run, signal))


def _goes_on(run: LiveRun, outcome: Outcome) -> Steps[LiveRun]:
    assert isinstance(outcome.error, ContinueAsNew)
    successor = yield from continued(run, outcome.error)
    try:
        _tell(run, "COMPLETED", CONTINUED)
        yield from call_flow_hooks(run, State(StateType.COMPLETED, CONTINUED, flow_run_id=run.id), run.version)
    except BaseException:
        ABANDONED.add((str(run.journal.path), successor.id))
        raise
    return successor


def _wait_for_attempt(run: LiveRun, due: float) -> Steps[None]:
    run.waits_for_attempt = True
    try:
        notice(run.journal)  # of what was asked before this run waited, and stands in the way of its next attempt
        yield Delay(run, due)
    finally:
        run.waits_for_attempt = False


def _body(run: LiveRun) -> Steps[Outcome]:
    """Run the flow's function and wait for what it submitted."""
    yield from call_flow_hooks(run, State(StateType.RUNNING, flow_run_id=run.id), run.version)
    if is_past(run) and run.dry is None:
        return Outcome(None, deadline_error(run))
    try:
        args, kwargs = run.flow.parameters.unbind(run.flow.parameters.opened(run.parameters))
    except (SecretError, ParameterError) as error:
        return Outcome(None, error)
    limit = limit_seconds(run) if run.dry is None else None
    fn = run.flow.fn if run.dry is None else run.dry.body(run.flow.fn)
    step = Invoke(Scope(run, None), fn, args, kwargs, run.flow.is_async, limit)
    outcome = (yield from _stream(run, step)) if run.flow.is_generator else (yield step)
    assert isinstance(outcome, Outcome)
    struck = is_own_timeout(run, outcome.error) and limit != run.flow.timeout_seconds
    outcome = yield from at_deadline(run, outcome, struck=struck)
    if outcome.error is None and is_telling(outcome.value):
        outcome = yield from judged(outcome, step, is_whole_state=run.flow.is_task)
    if outcome.error is not None and not isinstance(outcome.error, Exception | ContinueAsNew):
        return outcome
    if is_own_timeout(run, outcome.error):
        run.drop_queued()
        return outcome
    while run.outstanding:  # a task may have submitted further ones meanwhile
        yield Settle(list(run.outstanding))
    if run.halted is not None:
        raise run.halted
    if isinstance(outcome.error, PausedRun) and outcome.state is not None and outcome.state.is_paused():
        raise run.halt(RunHalted(outcome.error))
    return outcome


def _stream(run: LiveRun, step: Invoke) -> Steps[Outcome]:
    """Run the body of a generator flow; a subflow's consumer is the flow that called it."""
    call = run.parent_call
    if run.feed is None:
        run.feed = call.feed if call is not None and call.feed is not None else Feed()
    if call is not None:
        call.feed = run.feed
    return (yield from stream(step.scope, step, run.feed, 0, str(run)))


def _next_attempt(run: LiveRun) -> Steps[None]:
    """Claim the run for its next attempt: what completed replays, what failed runs again."""
    code_hash, source = flow_code(run.flow.fn)
    claim = ClaimFlowRun(
        run.id, version=run.version, epoch=run.epoch + 1, owner_id=run.journal.owner_id,
        code_id=run.journal.code_id(code_hash, source), reason="retry", at=run.journal.clock.now_text(),
    )  # fmt: skip
    yield Write(run, claim, run.synced)
    run.epoch, run.version = claim.epoch, claim.seq
    load_recorded(run, code_hash, "failed", by_person=False)
    _tell(run, "RUNNING", "Retrying")


def _stopped(run: LiveRun, signal: BaseException) -> Steps[Ended]:
    """End a run that a signal reached: cancelled, if somebody asked for that; else resumable, and the signal goes on."""
    if not ends_as_cancelled(run):
        try:
            seen = yield from _stop(run, signal)
        except RunHalted:
            if not ends_as_cancelled(run):
                raise
        else:
            raise seen from None
    return (yield from cancelled_end(run, signal))


def _stop(run: LiveRun, signal: BaseException) -> Steps[BaseException]:
    """Record why the run stops before its end, and return what its caller is to see."""
    halted = signal if isinstance(signal, RunHalted) else run.halted
    if halted is not None and isinstance(halted.error, OwnershipLostError | JournalError | InternalError):
        return signal  # nothing can or may be written; the run stays as it is and can be resumed
    if run.journal.is_forked:
        return signal  # a forked child leaves; the run goes on in its parent
    run.drop_queued()
    if isinstance(signal, RunHalted):
        yield Settle([future for future in run.outstanding if not future.done()])
        parked = park_change(run, signal)
        if not _is_parked(run):
            yield Write(run, parked, run.synced)
            run.version = parked.seq
        note_paused_state(run, parked, signal)
        run.left_open = False
        _tell(run, "PAUSED", parked.state_name)
        return signal
    at = run.journal.clock.now_text()
    message = f"interrupted by {type(signal).__name__}"
    run.halt(RunHalted(CrashedRun(f"{run} was interrupted by {type(signal).__name__}.", flow_run_id=run.id)))
    crash = CrashFlowRun(run.id, version=None, epoch=run.epoch, at=at, message=message, counts=False)
    try:
        yield Write(run, crash, True)
        run.left_open = False
        run.version = crash.seq
    except RunHalted as lost:
        _logger.warning("%s", lost)
    _tell(run, crash.state, None)
    yield from call_flow_hooks(run, State(StateType(crash.state), "", message, flow_run_id=run.id), run.version)
    _logger.warning(
        "%s was interrupted by %s. Go on with it: wfengine resume %s", run, type(signal).__name__, typed(run.id, run.name)
    )
    return signal


def _is_parked(run: LiveRun) -> bool:
    """Tell whether somebody paused the run while it waited for its next attempt, which needs nothing more."""
    row = run.journal.records.get_flow_run(run.id)
    return row.state == "PAUSED" and row.epoch == run.epoch


def _tell(run: LiveRun, state: str, state_name: str | None) -> None:
    if listeners.LISTENERS or listeners.OF_FLOW_RUNS:
        listeners.tell(listeners.Event(run.id, None, run.flow.name, state, state_name, run.journal.clock.now_text()))


# ------------------------------------------------------------------------------------------- subflows


def subflow(flow: AnyFlow, call: Call) -> Steps[Outcome]:
    """Live the run that a subflow call stands for: a new one, or the one that an earlier execution started."""
    journal = call.run.journal
    run_id = journal.records.find_child_run(call.task_run_id)
    try:
        if run_id is None:
            ended = yield from start(flow, journal, call.arguments, parent=call)
        else:
            ended = yield from _subflow_again(flow, journal, run_id, call)
    except JournalError as error:
        return Outcome(None, call.run.halt(RunHalted(error)))  # not for the flow to catch, as in `task_engine._look_up`
    except RunHalted as signal:
        # What parks or stops the child stops the parent: it cannot go on without the child's result.
        return Outcome(None, call.run.halt(signal))
    except Exception as error:
        return Outcome(None, error)
    except BaseException as signal:
        return Outcome(None, signal)
    if ended.state.is_cancelled() and call.run.halted is not None:
        return Outcome(None, call.run.halted)  # the run around it was cancelled, and it with that
    return ended.outcome


def _last_asked(journal: Journal, run_id: int) -> str:
    """Return why a run's body was started the last time that was not a recovery, which only goes on with what was begun."""
    reasons = [reason for _, reason in sorted(journal.records.list_reasons(run_id).items()) if reason != "recovery"]
    return reasons[-1]


def _subflow_again(flow: AnyFlow, journal: Journal, run_id: int, call: Call) -> Steps[Ended]:
    row = journal.records.get_flow_run(run_id)
    # Cut off when its failure was being run again: that has to be done still.
    begun_again = call.row is not None and call.row.is_cut_off and call.row.error_id is not None
    undone = call.row is not None and call.row.state_name == "RolledBack" and row.state_name == "RolledBack"
    was_cancelled = call.row is not None and call.row.state == "CANCELLED"
    runs_again = begun_again or undone or was_cancelled or (call.row is not None and call.row.is_failure)
    if (row.state == "COMPLETED" and not undone) or (row.state in ("FAILED", "CANCELLED") and not runs_again):
        return recorded_end(journal.records, row)  # it ended, and the process died before the call's outcome was written
    recorded = call.run.recorded
    rerun: Rerun = "none"
    if undone:
        rerun = "failed"
    elif begun_again:  # by the rule of the execution that was cut off
        rerun = "fatal" if _last_asked(journal, run_id) == "resume" else "failed"
    elif recorded is not None:
        rerun = recorded.rerun_of(call.row) if call.row is not None else recorded.rerun_in(call.scope.task_run_id)
    how = How(
        "resume" if recorded is not None and recorded.by_person else "retry" if rerun == "failed" else "recovery",
        rerun,
        by_person=recorded is not None and recorded.by_person and flow.on_drift != "error",
        on_drift=call.run.on_drift,
        dry=call.run.dry,
    )
    return (yield from take_up(flow, journal, run_id, how, parent=call))
