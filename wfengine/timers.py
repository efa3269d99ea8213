"""`sleep`: a wait whose end is journaled as an instant, so that it outlives the process.

The call is SCHEDULED until that instant. Its identity does not hold its duration: a sleep is told by its place. What was
recorded stays, also where the duration is computed anew on each run, unless the flow was edited and a person resumed it: then
the new duration counts, from the recorded start. A call that has ended does not wait again.
"""

from __future__ import annotations

import datetime
import inspect
import math
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from wfengine.awaiting import in_async_code
from wfengine.deadlines import deadline_error
from wfengine.durable import begin_block, block, record_drawn, tell_block
from wfengine.ids import typed
from wfengine.loading import is_loading
from wfengine.own_calls import own_call
from wfengine.runners.away import ERRAND, asks_the_flow
from wfengine.scopes import Scope, current_tracer, find_scope
from wfengine.states import State
from wfengine.steps import Delay, Outcome, Settle, Steps, Write, drive, drive_async
from wfengine.task_engine import Call, issue
from wfengine_journal.block_transitions import EndTimer, StartTimer, find_first_start
from wfengine_journal.clock import SystemClock, seconds_from_text, text_from_seconds
from wfengine_journal.errors import PausedRun, RunHalted, UsageError
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine_journal.transitions import BeginCall, StartAttempt

#: The furthest instant that a sleep may end at, in seconds since 1970: the year 9999, the last that can be written.
LAST_INSTANT = 253_370_764_800.0
_SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Wish:
    """How long the code asks to sleep: so many seconds from its start, or until an instant."""

    seconds: float | None
    until_seconds: float | None

    def due(self, started: float) -> float:
        """Return the instant at which a sleep that began at `started` ends."""
        due = started + self.seconds if self.seconds is not None else cast(float, self.until_seconds)
        return min(due, LAST_INSTANT)

    def arguments(self) -> dict[str, object]:
        """Return what is shown of it in the journal."""
        until = None if self.until_seconds is None else text_from_seconds(self.until_seconds)
        return {"seconds": self.seconds} if until is None else {"until": until}


@asks_the_flow
def sleep(
    seconds: float | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0,
    until: datetime.datetime | None = None, suspend: bool | None = None,
) -> None:  # fmt: skip
    """Sleep for a time, or `until` an aware datetime; in async code await it. A restart waits only for the rest.

    The instant at which it ends is recorded once: a time that is over returns at once, also after years. `suspend=True`, in
    the body of a flow with nothing else under way, parks the run as PAUSED (Suspended): the flow call raises PausedRun, and no
    thread or process is held. `wfengine resume --all` takes it up after that instant; `wfengine resume RUN` waits for the
    rest. By default the process waits.
    """
    frame = inspect.currentframe()
    begun = _begin(_wish(seconds, days, hours, minutes, until), suspend)
    if in_async_code(frame and frame.f_back):
        return cast(None, begun.perform_async())
    begun.perform()
    return None


async def asleep(
    seconds: float | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0,
    until: datetime.datetime | None = None, suspend: bool | None = None,
) -> None:  # fmt: skip
    """Do what `sleep` does; awaited in any code."""
    errand = ERRAND.get()
    if errand is not None:
        options: dict[str, object] = {"days": days, "hours": hours, "minutes": minutes, "until": until, "suspend": suspend}
        answer = errand.do(sleep, (seconds,), options)  # a coroutine where the flow's process sees async code
        if answer is not None:
            await cast("Awaitable[None]", answer)
        return
    await _begin(_wish(seconds, days, hours, minutes, until), suspend).perform_async()


def _wish(
    seconds: float | None, days: float, hours: float, minutes: float, until: datetime.datetime | None
) -> Wish:  # fmt: skip
    parts = (seconds or 0, minutes * 60, hours * 3600, days * 86400)
    has_time = seconds is not None or any(parts)
    if has_time == (until is not None):
        raise UsageError(
            "sleep() takes either a time - sleep(90), sleep(days=1, hours=2) - or an instant: sleep(until=...). Nothing was "
            f"written; it was given {'both' if has_time else 'neither'}."
        )
    if until is None:
        total = float(sum(parts))
        if math.isnan(total):
            raise UsageError("sleep() was given a time that is not a number. Nothing was written.")
        return Wish(min(total, LAST_INSTANT), None)
    if not isinstance(until, datetime.datetime) or until.tzinfo is None:
        raise UsageError(
            f"sleep(until={until!r}): give a datetime that says its time zone, such as wfengine.now() + timedelta(days=1) or "
            "datetime(2027, 1, 31, 8, tzinfo=ZoneInfo('Europe/Berlin')). Nothing was written."
        )
    return Wish(None, until.timestamp())


# ------------------------------------------------------------------------------------------- one sleep


def _arguments(seconds: float | None = None, until: str | None = None) -> None:
    """The parameters of `sleep`, as they are shown; none of them is a part of its identity."""


_SLEEP = replace(block("sleep", _arguments), key_args=())


@dataclass(frozen=True, slots=True)
class _Sleep:
    """A sleep that took its place in the order of calls, to be performed by a thread or awaited."""

    call: Call | None  # None: outside of any flow run
    recorded: Outcome | None
    wish: Wish
    suspends: bool

    def perform(self) -> None:
        """Sleep on the calling thread."""
        if self.call is None:
            _SYSTEM_CLOCK.sleep(self._left())
        elif self.recorded is None:
            drive(_sleeping(self.call, self.wish, self.suspends))
        elif self.recorded.error is not None:
            raise self.recorded.error

    async def perform_async(self) -> None:
        """Sleep in the running event loop, which goes on with other work."""
        if self.call is None:
            await _SYSTEM_CLOCK.sleep_async(self._left())
        elif self.recorded is None:
            await drive_async(_sleeping(self.call, self.wish, self.suspends))
        elif self.recorded.error is not None:
            raise self.recorded.error

    def _left(self) -> float:
        if is_loading() or current_tracer() is not None:  # nothing is run for its effects
            return 0.0
        at = _SYSTEM_CLOCK.wall_seconds()
        return max(0.0, self.wish.due(at) - at)


def _begin(wish: Wish, suspend: bool | None) -> _Sleep:
    scope = find_scope()
    if scope is None:
        return _Sleep(None, None, wish, False)
    call = own_call(_SLEEP, scope, wish.arguments())
    return _Sleep(call, issue(call), wish, bool(suspend))


def _sleeping(call: Call, wish: Wish, suspends: bool) -> Steps[None]:
    """Wait until the recorded instant, and record that it came."""
    run = call.run
    if suspends:
        _refuse_elsewhere(call.scope)
    due = yield from _started(call, wish)
    if due is None:
        return
    if suspends and not _is_waited_for(call):
        while run.outstanding:  # what was submitted goes on meanwhile
            yield Settle(list(run.outstanding))
        if due > run.journal.clock.wall_seconds():
            raise run.halt(_suspended(run, due))
    if run.deadline is not None and run.deadline < due:
        yield Delay(run, run.deadline)
        raise deadline_error(run)
    yield Delay(run, due)
    call.seq += 1
    end = EndTimer(
        run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, due_at=text_from_seconds(due),
        at=run.journal.clock.now_text(),
    )  # fmt: skip
    yield Write(run, end, False)  # lost in a power cut, it would be found to be over again: nothing is waited for twice
    tell_block(call, "COMPLETED")


def _started(call: Call, wish: Wish) -> Steps[float | None]:
    """Return the instant at which the sleep ends, once that is in the file; None if it has ended."""
    run, row = call.run, call.row
    if row is not None and row.next_attempt_at is not None and not call.fresh:
        due = _moved(call, wish)
        if due is not None or row.state != "SCHEDULED":  # cancelled meanwhile
            inputs = call.inputs.text if due is not None and call.inputs is not None else None
            yield from _start_timer(call, begin_block(call), due or seconds_from_text(row.next_attempt_at), inputs)
        return due or seconds_from_text(row.next_attempt_at)
    begin = begin_block(call)
    due = seconds_from_text(text_from_seconds(wish.due(seconds_from_text(begin.at))))
    if due <= run.journal.clock.wall_seconds():
        yield from record_drawn(call, begin, None)
        return None
    yield from _start_timer(call, begin, due, None)
    return due


def _start_timer(call: Call, begin: BeginCall | StartAttempt, due: float, inputs: str | None) -> Steps[None]:
    start = StartTimer(begin, attempt=call.attempt, due_at=text_from_seconds(due), inputs=inputs)
    # Synced: nothing else may be written for as long as it sleeps, and after a power cut it would begin anew.
    yield Write(call.run, start, call.run.synced)
    call.seq, call.task_run_id = start.seq, start.task_run_id
    tell_block(call, "SCHEDULED")


def _moved(call: Call, wish: Wish) -> float | None:
    """Return the instant to which an edit of the code moved a recorded sleep; None if it stays where it is."""
    row, recorded = call.row, call.run.recorded
    assert row is not None
    assert recorded is not None
    if not recorded.drift_is_expected(row):
        return None
    started = find_first_start(call.run.journal.records, row.id)
    if started is None:
        return None
    due_at = text_from_seconds(wish.due(seconds_from_text(started)))
    return None if due_at == row.next_attempt_at else seconds_from_text(due_at)


# ------------------------------------------------------------------------------------------- suspension


def _refuse_elsewhere(scope: Scope) -> None:
    """Raise UsageError where a run cannot be left and come back to: what else is under way in it would be cut off."""
    run: LiveRun | None = scope.run
    here: Scope | None = scope
    if scope.on_main_lane():
        while here is not None and here.call is None:
            parent_call = here.run.parent_call
            if parent_call is None:
                return
            here = parent_call.scope if parent_call.lane == 0 else None
    raise UsageError(
        f"sleep(suspend=True) was called in {run}, but not on the flow's own thread of control: in a task, in another asyncio "
        "task or thread, or in a subflow that is called from there. Only the body of a flow can be left and come back to. "
        "Leave suspend away, and the process waits; or sleep in the flow's body."
    )


def _is_waited_for(call: Call) -> bool:
    """Tell whether a person resumed the run before its time, and so waits here for the rest of this sleep."""
    run, row = call.run, call.row
    return row is not None and run.journal.records.list_reasons(run.id).get(run.epoch) == "resume"


def _suspended(run: LiveRun, due: float) -> RunHalted:
    wake_at = text_from_seconds(due if run.deadline is None else min(due, run.deadline))
    top = run
    while top.parent is not None:
        top = top.parent
    text = (
        f"{run} sleeps until {text_from_seconds(due)}; no process holds it. From then on it is taken up by: "
        f"wfengine resume --all. To wait for the rest here: wfengine resume {typed(top.id, top.name)}"
    )
    state: State[object] = State(StateType.PAUSED, "Suspended", text, flow_run_id=run.id)
    return RunHalted(PausedRun(text, flow_run_id=run.id, state=state, wake_at=wake_at))
