"""The life of a task run, written once: for sync and async tasks, direct calls and submitted ones.

A call goes through eight hops, in this order on this page:

    1  bind               the arguments, by parameter name                              `new_call`
    2  identity           (flow run, scope, task key, call key, occurrence)             `issue`
    3  replay lookup      an outcome recorded by an earlier execution is the answer     `issue`, `answers`
    4  begin attempt      committed before user code runs - or a cached result is it    `life`, `caching`
    5  user code          in its own scope, under the time limit                        `life`
    6  outcome committed  value, checksum, state and transition in one transaction      `life`
    7  retry?             the next instant is journaled, then waited for                `life`
    8  told               future, listeners                                             `life`

A subflow is called the same way; its "user code" is the life of a flow run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wfengine import listeners
from wfengine.answers import answer, drifted_row, take_over_row
from wfengine.doubt import Refused, cut_off, settle_doubt
from wfengine.ended_calls import ToldOfCall
from wfengine.fingerprint import own_code
from wfengine.hooks import Hooks, ask_condition, call_task_hooks, has_untold
from wfengine.identity import RECEIVER, Inputs, describe_inputs, explicit_key
from wfengine.outcomes import outcome_change, refused_change, settle_submitted
from wfengine.prints import record_prints
from wfengine.recalls import recall
from wfengine.result_hashes import known_result_hash
from wfengine.retries import NO_RETRIES, RetryPolicy
from wfengine.returned import is_telling, judged, recorded_name
from wfengine.run_names import task_run_name
from wfengine.scopes import LiveRun, Scope, current_tags
from wfengine.states import State
from wfengine.steps import Delay, Invoke, Outcome, Steps, Write
from wfengine.streams import Feed, stream
from wfengine_journal.codec import Encoded, encode
from wfengine_journal.corrections import NoteTaskCode
from wfengine_journal.errors import (
    JournalError,
    RunHalted,
    UsageError,
    ValueNotStorableError,
)
from wfengine_journal.records import CallRow
from wfengine_journal.states import StateType
from wfengine_journal.transitions import (
    Argument,
    BeginCall,
    Identity,
    StartAttempt,
    tags_text,
)

if TYPE_CHECKING:
    from wfengine.caching import Asking, ResultOptions
    from wfengine.parameters import Parameters
    from wfengine.result_memory import Recorded
    from wfengine.runners import TaskRunner
    from wfengine.tag_limits import TagTurn
    from wfengine.transactional import TransactionOptions
    from wfengine.transactions import Transaction

_logger = logging.getLogger("wfengine.engine")

OnInterrupt = Literal["rerun", "fail", "ask"]


@dataclass(frozen=True, slots=True, eq=False)
class Callee:
    """What is called: a task, or a flow called inside a run. Made once, at decoration."""

    kind: Literal["task", "flow"]
    name: str
    key: str
    decorated: object  # the Task or Flow
    fn: Callable[..., object]
    is_async: bool
    parameters: Parameters
    policy: RetryPolicy = NO_RETRIES
    aliases: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    timeout_seconds: float | None = None
    run_name: str | Callable[..., str] | None = None
    on_interrupt: OnInterrupt = "rerun"
    once: bool = False
    max_interruptions: int = 3
    call_key: str | Callable[..., object] | None = None
    key_args: tuple[str, ...] | None = None
    ignore_args: tuple[str, ...] = ()
    log_prints: bool | None = None
    is_generator: bool = False
    hooks: Hooks | None = None
    transacts: TransactionOptions | None = None  # its code runs inside a transaction; None: as usual
    results: ResultOptions | None = None  # cached, or written in a way of the author's choice; None: neither
    viz_return_value: object = None
    runner: TaskRunner | None = None  # where it runs when it is submitted; None: where its flow says
    resources: Mapping[str, object] | None = None  # what it asks of the worker that runs it
    origin: str = ""  # where the function stands: two functions with one key would get each other's results

    @property
    def is_guarded(self) -> bool:
        """Tell whether a second execution could do harm, so that the start of an attempt must outlive a power cut."""
        return self.once or self.on_interrupt != "rerun"


class Call(ToldOfCall):
    """One call in a running flow. Its row in the journal is written by `life`; before that it has no id."""

    __slots__ = (
        "answered", "arguments", "asking", "attempt", "begin", "callee", "ended_at", "failures", "feed", "first_started",
        "fresh", "gives_up", "identity", "inputs", "interruptions", "is_recorded", "lane", "live_state", "own_scope",
        "own_transaction", "recorded", "replaces", "row", "run", "run_name", "scope", "seq", "tags", "task_run_id",
        "transaction", "turn", "verdict",
    )  # fmt: skip

    def __init__(self, callee: Callee, scope: Scope, arguments: dict[str, object], lane: int) -> None:
        self.callee = callee
        self.run: LiveRun = scope.run
        self.scope = scope
        self.arguments = arguments
        self.lane = lane
        self.own_scope: Scope | None = None  # of the last attempt: what it called
        self.identity: Identity | None = None
        self.inputs: Inputs | None = None
        self.replaces: str | None = None  # the inputs of the recorded call that this one replaces, after drift
        self.row: CallRow | None = None  # what an earlier execution recorded for this identity
        self.begin: BeginCall | None = None  # the change that writes the row, when it was posted and not awaited
        self.transaction: Transaction | None = None  # it is made in
        self.own_transaction: Transaction | None = None
        self.feed: Feed | None = None  # of a generator: what its consumer was given
        self.recorded: Recorded | None = None  # its result, if that is large: the journal has it
        self.is_recorded = False  # its result is committed, with the rows of its transaction
        self.gives_up = False  # its retry_condition_fn said so, or its on_interrupt when its worker died
        self.answered: Outcome | None = None  # recorded, with hooks still to be called for it
        self.asking: Asking | None = None  # what it asks the cache, if its task is cached
        self.turn: TagTurn | None = None  # it waits for the places of its tags, or begins with them
        self.run_name: str | None = None
        self.tags: frozenset[str] = callee.tags
        self.task_run_id = 0
        self.seq = 0
        self.attempt = 0
        self.failures = 0
        self.interruptions = 0
        self.fresh = False  # a recorded failure runs again: its counts begin anew
        self.first_started = 0.0
        self.ended_at = ""  # as journaled
        self.live_state = StateType.PENDING
        self.verdict: State[object] | None = None  # as what it ended, where value and error do not say it all

    def result_text(self) -> str:
        """Name its result in an error."""
        return f"the result of {self}"

    def add_tags(self) -> None:
        """Add the tags of the `with tags(...)` blocks around the call, and around the start of its run."""
        self.tags = self.callee.tags | current_tags() | self.run.outer_tags

    def find_row(self) -> None:
        """Learn the id of the row, where its writing was not awaited: that of a call which did not begin."""
        self.task_run_id = self.found_id()


# ------------------------------------------------------------------------------------------- hops 1 to 3: issue the call


def new_call(callee: Callee, scope: Scope, args: tuple[object, ...], kwargs: dict[str, object], *, has_futures: bool) -> Call:
    """Bind the arguments (hop 1). A call that waits for futures has no defined order, so it is never on the main lane."""
    if scope.call is not None and scope.call.callee.transacts is not None:
        raise scope.call.callee.transacts.refused_inside(f"{callee.kind} '{callee.name}'", scope)
    arguments = callee.parameters.bind(args, kwargs)
    lane = 0 if not has_futures and scope.on_main_lane() else 1
    call = Call(callee, scope, arguments, lane)
    if scope.run.uses_transactions:
        from wfengine.transactions import enclosing_transaction  # many programs never need it

        call.transaction = enclosing_transaction(scope)
    return call


def issue(call: Call) -> Outcome | None:
    """Give the call its identity (hop 2) and look it up (hop 3); return the recorded outcome if there is one.

    All arguments must be values by now. Raises RunHalted where the run has to be parked, or its journal failed.
    """
    try:
        return _issued(call)
    except JournalError as error:
        # Not for the flow to catch: it must not go on as if the task had failed, for which it may have another way.
        raise call.run.halt(RunHalted(error)) from None


def _issued(call: Call) -> Outcome | None:
    callee, run = call.callee, call.run
    known = run.callees.get((callee.kind, callee.key))
    if known is None:
        run.callees[(callee.kind, callee.key)] = callee
        _note_code(call)
    elif known is not callee and known.origin != callee.origin:
        raise _same_key(known, callee)
    if callee.once and call.lane == 1 and callee.call_key is None:
        raise _once_without_key(call)
    inputs = describe_inputs(
        call.arguments, known_hash=known_result_hash, key_args=callee.key_args, ignore_args=callee.ignore_args
    )
    if inputs.opaque:
        _warn_of_opaque(callee, inputs.opaque)
    call.inputs = inputs
    call_key = inputs.key if callee.call_key is None else explicit_key(_explicit_text(callee, call.arguments))
    task_id = run.journal.task_id(callee.kind, callee.key, callee.name)
    occurrence = call.scope.next_occurrence(task_id, call_key)
    call.identity = Identity(run.id, call.scope.task_run_id, task_id, call_key, occurrence)
    if run.recorded is None:
        return None
    outcome = _look_up(call, task_id)
    if run.dry is not None:
        run.dry.decide(call, outcome)
    return outcome


def _note_code(call: Call) -> None:
    """Note with which code the task runs in this execution, for who asks later what changed since."""
    run, callee = call.run, call.callee
    if callee.kind == "task":
        task_id = run.journal.task_id(callee.kind, callee.key, callee.name)
        run.journal.add(NoteTaskCode(run.id, task_id, run.epoch, own_code(callee.fn)))


def _same_key(known: Callee, callee: Callee) -> UsageError:
    return UsageError(
        f"Two {callee.kind}s have the key '{callee.key}': one at {known.origin}, one at {callee.origin}. On resume their "
        "results could not be told apart, so the second was not called. Give one of them "
        + (f"a key of its own: @task(key='{callee.key}_2')." if callee.kind == "task" else "another name: @flow(name=...).")
    )


def _explicit_text(callee: Callee, arguments: Mapping[str, object]) -> str:
    try:
        if callable(callee.call_key):
            return str(callee.call_key(**arguments))
        return str(callee.call_key).format(**arguments)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise UsageError(
            f"The call_key of task '{callee.name}' does not fit its arguments ({type(error).__name__}: {error}). "
            f"It may use: {', '.join(arguments)}."
        ) from error


def _look_up(call: Call, task_id: int) -> Outcome | None:
    run, callee = call.run, call.callee
    recorded = run.recorded
    assert recorded is not None
    assert call.identity is not None
    task_ids = (task_id, *(run.journal.task_id(callee.kind, alias, callee.name) for alias in callee.aliases))
    with run.issue_lock:
        row = recorded.claim(call.identity, task_ids)
        drifted = recorded.proof_of_drift(call.scope.task_run_id, task_ids) if row is None and call.lane == 0 else None
    if drifted is not None:
        row = drifted_row(call, drifted, recorded)
    if row is None:
        return None
    take_over_row(call, row)
    outcome = answer(call, row)
    if outcome is not None and has_untold(call, call.live_state, row.version):
        call.answered = outcome  # `live` calls the hooks before it gives the answer
        return None
    if outcome is not None and call.transaction is not None:
        call.transaction.take(call, outcome.error)
    if outcome is None:
        recorded.note_lived(row)
    return outcome


def _once_without_key(call: Call) -> UsageError:
    return UsageError(
        f"Task '{call.callee.name}' is declared once=True and was called in {call.run} from another thread or asyncio "
        "task than the flow's own, or submitted with futures. Such calls have no order, so on resume it could not be told "
        "whether it already ran, and it was not started. Give it a call_key: @task(once=True, call_key='{order_id}')."
    )


_warned: set[tuple[str, tuple[str, ...]]] = set()


def _warn_of_opaque(callee: Callee, opaque: tuple[str, ...]) -> None:
    key = (callee.key, opaque)
    if key not in _warned:
        _warned.add(key)
        _logger.warning(
            "Task '%s': the argument%s %s has no canonical form, so it does not help to tell calls apart on resume; their "
            "order does. %s, or give the task key_args or a call_key.",
            callee.name,
            "s" if len(opaque) > 1 else "",
            ", ".join(opaque),
            "Make the class of self a dataclass" if opaque == (RECEIVER,) else "Pass plain data",
        )


# ------------------------------------------------------------------------------------------- hops 4 to 8: live it


def life(call: Call) -> Steps[Outcome]:
    """Live an issued call that has no recorded outcome: attempts until it completes or fails, each committed."""
    run, results = call.run, call.callee.results
    if call.row is not None:
        yield from settle_doubt(call, call.row)
        if call.failures and not call.fresh:  # cut off between two attempts, or in a later one than the first
            yield from recall(call)
    if results is not None and results.is_serializable and call.seq == 0:
        write_pending(call)  # it may wait for others, and is seen to do so
    while True:
        # 4  begin attempt, unless the cache has the result
        turn = _tag_turn(call)
        if turn is not None:
            begin, cached = yield from _begin_in_turn(call, turn)
            if cached is not None:
                _tell(call, cached)
                return (yield from _tell_late(call, cached))
        elif results is None:
            begin = _begin_attempt(call)
            yield Write(run, begin, call.callee.is_guarded and run.synced)
        else:
            begin = _begin_attempt(call)
            cached = yield from results.begin(call, begin)
            if cached is not None:
                _tell(call, cached)
                return (yield from _tell_late(call, cached))
        call.task_run_id = begin.task_run_id
        call.live_state = StateType.RUNNING
        if call.callee.hooks is not None:
            yield from call_task_hooks(call, State(StateType.RUNNING, begin.name or ""), call.seq)
        # 5  user code
        outcome = yield from _user_code(call)
        if call.is_recorded:  # a transactional task's, with its rows: hop 6 is done
            _tell(call, outcome)
            return (yield from _tell_late(call, outcome))
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            yield from cut_off(call, outcome.error)
        # 6  outcome committed
        if outcome.error is not None and call.callee.policy.state_condition is not None and not call.gives_up:
            call.gives_up = not (yield from ask_condition(call, call.final_state(outcome.value, outcome.error)))
        try:
            change, outcome, next_attempt = outcome_change(call, outcome)
        except ValueNotStorableError as refusal:
            change, outcome, next_attempt = yield from refused_change(call, outcome, refusal)
        written = change if results is None or call.asking is None else call.asking.completed(call, change)
        is_final = next_attempt is None and call.callee.hooks is None and turn is None  # for its place somebody may wait
        yield Write(run, written, run.synced, final=is_final)
        # 8  told
        if next_attempt is None:
            _tell(call, outcome)
            return (yield from _tell_late(call, outcome))
        # 7  retry
        call.live_state = StateType.SCHEDULED
        yield Delay(run, next_attempt)
        if call.own_scope is not None and call.own_scope.issued:
            yield from recall(call)


def _begin_attempt(call: Call) -> BeginCall | StartAttempt:
    run, at = call.run, call.run.journal.clock.now_text()
    call.seq += 1
    call.attempt += 1
    if call.first_started == 0.0:
        call.first_started = run.journal.clock.monotonic_seconds()
    if call.seq == 1:
        return first_row(call, at, running=True)
    begin = StartAttempt(
        call.begin, run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, at=at, fresh=call.fresh
    )
    call.begin = None
    if call.fresh:
        call.failures = call.interruptions = 0
        call.fresh = False
    return begin


def _tag_turn(call: Call) -> TagTurn | None:
    """Return what a task run has to pass before it begins, where one of its tags has a limit."""
    if not (call.tags or current_tags() or call.run.outer_tags):
        return None
    from wfengine.tag_limits import tag_turn  # programs without tags never need it

    return tag_turn(call)


def _begin_in_turn(call: Call, turn: TagTurn) -> Steps[tuple[BeginCall | StartAttempt, Outcome | None]]:
    """Begin an attempt of a task with a tag that has a limit: not before there is a place, and with it."""
    call.turn = turn
    try:
        if not turn.has_room():
            if call.seq == 0:
                write_pending(call)
            yield from turn.wait_to_begin()
        begin = _begin_attempt(call)
        if call.callee.results is not None:
            return begin, (yield from call.callee.results.begin(call, begin))
        yield from turn.begin(begin)
        return begin, None
    finally:
        turn.leave()
        call.turn = None


def write_pending(call: Call) -> None:
    """Post the row of a submitted call: it is in the file before any later call of the same lane begins."""
    call.seq = 1
    call.begin = first_row(call, call.run.journal.clock.now_text(), running=False)
    call.run.journal.post(call.begin)


def first_row(call: Call, at: str, *, running: bool) -> BeginCall:
    """Return the change that writes the row of an issued call."""
    callee, inputs, identity = call.callee, call.inputs, call.identity
    assert inputs is not None
    assert identity is not None
    if current_tags() or call.run.outer_tags:
        call.add_tags()
    if callee.run_name is not None:
        call.run_name = task_run_name(call)
    return BeginCall(
        identity,
        epoch=call.run.epoch,
        lane=call.lane,
        inputs=inputs.text,
        at=at,
        running=running,
        name=call.run_name,
        tags=tags_text(call.tags) if call.tags else None,
        arguments=_stored_arguments(call.arguments, inputs) if inputs.partial else (),
    )


def _stored_arguments(arguments: Mapping[str, object], inputs: Inputs) -> list[Argument]:
    """Return what is kept of the arguments that do not stand in full in the row; one that cannot be stored stops nothing."""
    stored = []
    for name in inputs.partial:
        value = arguments[name]
        encoded: Encoded | None
        try:
            encoded = encode(value, f"the argument '{name}'")
        except ValueNotStorableError:
            encoded = None
        kind = type(value)
        stored.append(Argument(name, f"{kind.__module__}.{kind.__qualname__}", encoded))
    return stored


def _user_code(call: Call) -> Steps[Outcome]:
    callee = call.callee
    scope = call.own_scope = Scope(call.run, call)
    args, kwargs = callee.parameters.unbind(call.arguments)
    if callee.log_prints:
        record_prints()
    if callee.kind == "flow":
        subflow = callee.fn(scope, call)  # the steps of the child's life, from flow_engine
        outcome = yield from subflow  # type: ignore[misc]  # Callee.fn of a flow returns Steps[Outcome]
    elif callee.is_generator:
        step = Invoke(scope, callee.fn, args, kwargs, callee.is_async, callee.timeout_seconds)
        call.feed = call.feed or Feed()
        outcome = yield from stream(scope, step, call.feed, call.task_run_id, str(call))
    elif callee.transacts is not None:
        return (yield from callee.transacts.run(call, scope, args, kwargs))
    else:
        step = Invoke(scope, callee.fn, args, kwargs, callee.is_async, callee.timeout_seconds)
        outcome = yield step
    assert isinstance(outcome, Outcome)
    if scope.submitted and not scope.attempt_over:
        yield from settle_submitted(scope, outcome)
    if outcome.error is None and is_telling(outcome.value):
        outcome = yield from judged(outcome, step)
    return outcome


def _tell(call: Call, outcome: Outcome) -> None:
    known = call.verdict
    call.live_state = known.type if known is not None else StateType.COMPLETED if outcome.error is None else StateType.FAILED
    if listeners.LISTENERS:
        at, name = call.run.journal.clock.now_text(), None if known is None else recorded_name(known)
        listeners.tell(listeners.Event(call.run.id, call.task_run_id, call.callee.name, call.live_state.value, name, at))


# ------------------------------------------------------------------------------------------- small helpers


def live(call: Call) -> Steps[Outcome]:
    """Return the steps of `life`, with a refusal to run (again) turned into the outcome it stands for."""
    if call.answered is not None:
        return _tell_late(call, call.answered)
    if call.run.dry is not None and not call.run.dry.enters(call):
        raise call.run.halt(call.run.dry.stop(call))
    return life(call) if call.row is None else _live_again(call)


def _live_again(call: Call) -> Steps[Outcome]:
    try:
        outcome = yield from life(call)
    except Refused as refusal:
        outcome = Outcome(None, refusal.error)
        _tell(call, outcome)
    return outcome


def _tell_late(call: Call, outcome: Outcome) -> Steps[Outcome]:
    """Call the hooks of an outcome that no attempt of this execution produced: a cached one, or one whose hooks are due."""
    if call.callee.hooks is not None:
        yield from _call_hooks(call, outcome)
    if call.transaction is not None:
        call.transaction.take(call, outcome.error)
    return outcome


def _call_hooks(call: Call, outcome: Outcome) -> Steps[None]:
    yield from call_task_hooks(call, call.final_state(outcome.value, outcome.error), call.seq)
    if call.transaction is None and outcome.error is None:  # nothing around it waits: what it did is committed
        from wfengine.transaction_steps import commit_steps  # programs without hooks never need it
        from wfengine.transactions import own_transaction

        own = own_transaction(call)
        own.seq = call.seq
        yield from commit_steps(own)


def given(call: Call, outcome: Outcome, return_state: bool) -> object:
    """Return what the caller asked for: the value, the exception raised, or the state."""
    if return_state:
        return call.final_state(outcome.value, outcome.error)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
