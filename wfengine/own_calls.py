"""Calls of wfengine's own functions in a flow, such as `receive`: journaled and replayed as those of tasks are.

The function says in steps what happens between the beginning and the outcome of its call. Unlike user code it may wait for
the journal, and write with the outcome whatever belongs to it: a *rider*, see `wfengine_journal.riders`.

A call that was cut off while it waited goes on waiting when the run is resumed, however often that happens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, cast

from wfengine import listeners
from wfengine.awaiting import in_async_code
from wfengine.doubt import cut_off
from wfengine.outcomes import outcome_change
from wfengine.parameters import Parameters
from wfengine.runners.away import refuse_on_worker
from wfengine.scopes import LiveRun, Scope, current_scope, find_scope
from wfengine.steps import Await, Create, Outcome, Steps, Write, drive, drive_async
from wfengine.task_engine import Call, Callee, first_row, given
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.codec import encode
from wfengine_journal.errors import (
    InternalError,
    JournalError,
    MissingContextError,
    RunHalted,
    UsageError,
    ValueNotStorableError,
)
from wfengine_journal.messages import NoteItem
from wfengine_journal.riders import Rider, WithRiders
from wfengine_journal.states import StateType
from wfengine_journal.tickets import Change
from wfengine_journal.transitions import BeginCall, StartAttempt

#: The item of a call that says until when it waits, as text of the journal.
DEADLINE = "deadline"
#: Seconds that a wait may last at the most: a hundred years, which a date can still be reckoned from.
LONGEST_WAIT_SECONDS = 3_155_760_000.0


class ChangeWithResult(Change, Protocol):
    """A change that is written with its call, and says what is recorded as the result of that."""

    task_run_id: int
    seq: int

    @property
    def result(self) -> object:
        """What the call gives."""


class TimedOut:
    """What a look finds when the time is over."""


TIMED_OUT = TimedOut()


def _own() -> None:
    """Stand for the function of a call, whose steps are ours."""


def own_callee(name: str, key_args: Collection[str] = ()) -> Callee:
    """Return what is called: a function of ours, and those of the arguments it shows that tell its calls apart."""
    key = f"wfengine.{name}"
    return Callee(
        kind="task", name=key, key=key, decorated=_own, fn=_own, is_async=False, parameters=Parameters(_own, owner=key),
        key_args=tuple(key_args), origin=key,
    )  # fmt: skip


def own_call(callee: Callee, scope: Scope, arguments: dict[str, object]) -> Call:
    """Return a call of the running flow, still to be issued. It takes no part in transactions: there is nothing to undo."""
    return Call(callee, scope, arguments, 0 if scope.on_main_lane() else 1)


def scope_of(function: str) -> Scope:
    """Return the scope of the calling code. Raises MissingContextError outside of a flow."""
    scope = find_scope()
    if scope is None:
        refuse_on_worker(f"{function}()", "Call it in the flow, and give the task what came of it.")
        raise MissingContextError(f"{function}() was called outside of a flow run. Call it in a flow or task.")
    return scope


def scope_or_none() -> Scope | None:
    """Return the scope of the calling code; None outside of a flow, and in a thread of the user's own."""
    return find_scope() if current_scope() is not None else None


def caller_awaits() -> bool:
    """Tell whether the code that called the function which asks is async code, which awaits the answer."""
    frame = inspect.currentframe()
    asking = frame and frame.f_back
    return in_async_code(asking and asking.f_back)


def answered(
    call: Call,
    recorded: Outcome | None,
    steps: Callable[[], Steps[Outcome]],
    *,
    awaits: bool,
    convert: Callable[[object], object] | None = None,
) -> object:
    """Give the caller the recorded outcome, or that of the steps; in async code, a coroutine of it.

    `convert` makes what the caller gets of what is recorded.
    """

    def final(outcome: Outcome) -> object:
        value = given(call, outcome, False)
        return value if convert is None else convert(value)

    if not awaits:
        return final(recorded if recorded is not None else drive(steps()))

    async def later() -> object:
        return final(recorded if recorded is not None else await drive_async(steps()))

    return later()


async def given_in_loop(answer: object) -> object:
    """Return what is there already, to who awaits it."""
    return answer


# ------------------------------------------------------------------------------------------- the life of such a call


def is_asked_anew(call: Call) -> bool:
    """Tell whether the call begins as if it had never been made: it is new, or its recorded outcome is not to count."""
    row = call.row
    return row is None or call.fresh or row.state_name == "Rerun" or row.state in ("COMPLETED", "FAILED", "CANCELLED")


def begin_change(call: Call) -> BeginCall | StartAttempt:
    """Return the change that begins the call, or takes it up where an earlier execution was cut off."""
    run, at = call.run, call.run.journal.clock.now_text()
    call.seq += 1
    call.attempt += 1
    if call.seq == 1:
        return first_row(call, at, running=True)
    fresh, call.fresh = call.fresh, False
    return StartAttempt(None, run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, at=at, fresh=fresh)


def begin(call: Call, notes: Sequence[Rider] = ()) -> Steps[None]:
    """Begin the call; the notes are written with it."""
    change = begin_change(call)
    yield Write(call.run, WithRiders(change, notes) if notes else change, False)
    call.task_run_id = change.task_run_id
    call.live_state = StateType.RUNNING


def complete_with(call: Call, start: BeginCall | StartAttempt, change: ChangeWithResult) -> Steps[Outcome]:
    """Commit what a call asks for together with the call, begun and completed, in one transaction."""
    run = call.run
    if (yield Create(run.journal, change, run.synced)):
        call.task_run_id, call.seq, call.ended_at = change.task_run_id, change.seq, start.at
        outcome = Outcome(change.result, None)
        tell(call, outcome)
        return outcome
    yield Write(run, start, False)  # this process lost the run: refused as any write is
    raise run.halt(RunHalted(InternalError(f"{call} was refused, and then was not. Please report this.")))


def begin_until(call: Call, timeout_seconds: float | None, notes: Sequence[Rider] = ()) -> Steps[str | None]:
    """Begin a call that waits, with notes; return until when: the instant is recorded, and an earlier execution's one stays."""
    if not is_asked_anew(call):
        found = call.run.journal.records.find_item(call.run.id, call.task_run_id, DEADLINE)
        if found is not None:
            yield from begin(call, notes)
            return cast("str | None", found[0])
    until = instant_after(call.run, timeout_seconds)
    encoded = encode(until, "until when a call waits")
    yield from begin(call, [NoteItem(call.run.id, DEADLINE, encoded, at=call.run.journal.clock.now_text()), *notes])
    return until


def instant_after(run: LiveRun, seconds: float | None) -> str | None:
    """Return the instant so many seconds from now; None for none."""
    return None if seconds is None else text_from_seconds(run.journal.clock.wall_seconds() + seconds)


def is_over(run: LiveRun, until: str | None) -> bool:
    """Tell whether an instant has come."""
    return until is not None and run.journal.clock.wall_seconds() >= seconds_from_text(until)


def wait(call: Call, look: Callable[[], object]) -> Steps[object]:
    """Wait until a look finds something, and return it. A call that is unwound meanwhile is recorded as cut off."""

    def look_unless_given_up() -> object:
        if call.scope.is_given_up():
            raise RunHalted(MissingContextError(f"{call} was given up: the attempt that made it is over."))
        return look()

    try:
        return (yield Await(call.run, look_unless_given_up))
    except GeneratorExit:
        raise
    except BaseException as signal:
        if not call.scope.is_given_up():
            yield from cut_off(call, signal)
        raise


def end(call: Call, outcome: Outcome, riders: Sequence[Rider] = ()) -> Steps[Outcome | None]:
    """Record the outcome, in one transaction with the riders; None when one of them refused, and nothing was written."""
    run, seq, failures = call.run, call.seq, call.failures
    try:
        change, outcome, _ = outcome_change(call, outcome)
    except ValueNotStorableError as refusal:
        riders = ()  # what is not received is left for others
        change, outcome, _ = outcome_change(call, Outcome(None, refusal))
    if not riders:
        yield Write(run, change, run.synced)
    else:
        whole = WithRiders(change, riders)
        if not (yield Create(run.journal, whole, run.synced)):
            if whole.was_checked:  # the run itself was lost to another process: meet that refusal as any write does
                yield Write(run, change, run.synced)
                raise run.halt(RunHalted(InternalError(f"{call} was refused, and then was not. Please report this.")))
            call.seq, call.failures = seq, failures
            return None
    tell(call, outcome)
    return outcome


def settled(call: Call, outcome: Outcome, riders: Sequence[Rider] = ()) -> Steps[Outcome]:
    """Record an outcome with riders that refuse nothing."""
    ended = yield from end(call, outcome, riders)
    assert ended is not None
    return ended


def tell(call: Call, outcome: Outcome) -> None:
    """Tell the listeners of a committed outcome."""
    call.live_state = StateType.COMPLETED if outcome.error is None else StateType.FAILED
    if listeners.LISTENERS:
        at = call.run.journal.clock.now_text()
        listeners.tell(listeners.Event(call.run.id, call.task_run_id, call.callee.name, call.live_state.value, None, at))


def halting(call: Call, error: JournalError | ValueNotStorableError) -> RunHalted:
    """Return the signal with which the run stops where the file cannot give what is asked: not for the flow to catch."""
    return call.run.halt(RunHalted(error))


# ------------------------------------------------------------------------------------------- checks of arguments


def checked_seconds(timeout_seconds: object, function: str) -> float | None:
    """Return a time limit in seconds; None for none. Raises UsageError."""
    if timeout_seconds is None:
        return None
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float) or not timeout_seconds >= 0:
        raise UsageError(
            f"{function}: the time limit must be a number of seconds, 0 or more, or None; not {timeout_seconds!r}."
        )
    return min(float(timeout_seconds), LONGEST_WAIT_SECONDS)
