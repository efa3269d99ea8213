"""Messages to flow runs, events that they set, and waiting for what the world outside has to bring about.

    send(run, value)           from any process, in flows and outside of them
    receive()                  in a flow or task: the oldest message of a topic, each received once
    set_event(key, value)      in a flow or task: shows a value to others
    get_event(run, key)        anywhere: waits until the run has set it
    wait_until(condition)      in a flow or task: waits until a function says so

In a flow each of these is a call like that of a task: recorded, and answered from the journal on resume. A message and the
call that sends or receives it are committed together, so that a process which dies at any instant neither loses nor doubles
it. Until when a call waits is recorded too, and counts over restarts. In async code all of them are awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wfengine.ids import typed
from wfengine.journals import default_durability, default_journal
from wfengine.loading import leaves_no_trace
from wfengine.own_calls import (
    TIMED_OUT,
    answered,
    begin,
    begin_change,
    begin_until,
    caller_awaits,
    checked_seconds,
    end,
    given_in_loop,
    halting,
    is_over,
    own_call,
    own_callee,
    scope_of,
    scope_or_none,
    settled,
    tell,
    wait,
)
from wfengine.recovery import find_run_id
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import naming
from wfengine.steps import LOOK_AGAIN_SECONDS, Create, Outcome, Steps, Write
from wfengine.task_engine import Call, issue
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.codec import encode
from wfengine_journal.errors import (
    InternalError,
    InvalidValueError,
    JournalError,
    NotFoundError,
    ReceiveTimeoutError,
    RunEndedError,
    RunHalted,
    UsageError,
    ValueNotStorableError,
    WfengineError,
)
from wfengine_journal.messages import (
    ENDED,
    MessageRow,
    NoteItem,
    PutMessage,
    SendFromCall,
    TakeMessage,
    find_oldest,
    load_message,
)
from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from wfengine_journal.changes import Mark
    from wfengine_journal.records import Records
    from wfengine_journal.store import Journal

#: Characters of a topic, of the name of an event, and of an idempotency key.
NAME_LIMIT = 500
#: Topics that begin so are wfengine's own.
OWN_TOPICS = "wfengine."
#: How often `wait_until` asks its condition though the journal has not changed, in seconds, unless it is told otherwise.
ASK_AGAIN_SECONDS = 1.0


class _Raise:
    def __repr__(self) -> str:
        return "(an error)"


#: Stands for "no default was given: a time limit that passes is an error".
RAISE = _Raise()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was sent. `is_new` is False when it had been sent before, with the same idempotency key."""

    id: int
    flow_run_id: int
    topic: str
    is_new: bool


# ------------------------------------------------------------------------------------------- send


@asks_the_flow
def send(run: int | str, value: object, *, topic: str = "default", idempotency_key: str | None = None) -> Any:
    """Send a value to a flow run - its id, name, the beginning of its name, or '@last' - and return the Message, committed.

    It is kept until the run receives it: one that was cut off, is paused or waits to be started finds it later. Raises
    RunEndedError when the run has ended. A second message with the same topic and idempotency key is not sent; `is_new`
    of the answer says so. In a flow, a resume does not send it again.
    """
    awaits = caller_awaits()
    checked_topic(topic)
    return send_to(run, value, topic, idempotency_key, awaits=awaits)


def send_to(run: int | str, value: object, topic: str, idempotency_key: str | None, *, awaits: bool) -> object:
    """Do what `send` does, with topics of our own too."""
    if idempotency_key is not None:
        checked_name(idempotency_key, "An idempotency key")
    scope = scope_or_none()
    if scope is None:
        message = _send_outside(run, value, topic, idempotency_key)
        return given_in_loop(message) if awaits else message
    arguments = {"run": run, "value": value, "topic": topic, "idempotency_key": idempotency_key}
    call = own_call(_SEND, scope, arguments)
    steps = lambda: _send(call, run, value, topic, idempotency_key)  # noqa: E731 - a thunk
    return answered(call, issue(call), steps, awaits=awaits, convert=lambda done: _message(done, topic))


_SEND = own_callee("send", ("run", "value", "topic", "idempotency_key"))


def _message(done: object, topic: str) -> Message:
    run_id, message_id, is_new = cast("list[Any]", done)
    return Message(message_id, run_id, topic, is_new)


def _put(journal: Journal, run: int | str, value: object, topic: str, key: str | None, sender: int | None) -> PutMessage:
    encoded = encode(value, f"the message to flow run {run}")
    at = journal.clock.now_text()
    return PutMessage(find_run_id(journal, run), topic, encoded, at=at, idempotency_key=key, sender_run_id=sender)


def _send_outside(run: int | str, value: object, topic: str, key: str | None) -> Message:
    if leaves_no_trace():
        return Message(0, 0, topic, False)
    journal = default_journal()
    put = _put(journal, run, value, topic, key, None)
    return write_message(journal, put)


def write_message(journal: Journal, put: PutMessage) -> Message:
    """Write a message that no call sends. Raises RunEndedError and NotFoundError."""
    try:
        journal.write(put, synced=default_durability(journal) == "power")
    except WriteRefused:
        raise _refused(journal, put) from None
    return Message(put.message_id, put.flow_run_id, put.topic, put.is_new)


def _send(call: Call, run: int | str, value: object, topic: str, key: str | None) -> Steps[Outcome]:
    """Commit the message and the call that sends it, in one transaction; a refusal is the recorded failure of the call."""
    journal = call.run.journal
    try:
        put = _put(journal, run, value, topic, key, call.run.id)
    except (UsageError, ValueNotStorableError) as error:
        yield from begin(call)
        return (yield from settled(call, Outcome(None, error)))
    start = begin_change(call)
    change = SendFromCall(start, put, attempt=call.attempt)
    if (yield Create(journal, change, call.run.synced)):
        call.task_run_id, call.seq, call.ended_at = change.task_run_id, change.seq, start.at
        outcome = Outcome([put.flow_run_id, put.message_id, put.is_new], None)
        tell(call, outcome)
        return outcome
    yield Write(call.run, start, False)  # where this process lost the run, it is refused as any write is
    if change.was_checked:
        raise call.run.halt(RunHalted(InternalError(f"{call} was refused, and then was not. Please report this.")))
    call.task_run_id = start.task_run_id
    return (yield from settled(call, Outcome(None, _refused(journal, put))))


def _refused(journal: Journal, put: PutMessage) -> WfengineError:
    """Return the error that says why a message was not written."""
    if put.run_state is None:
        return NotFoundError(f"There is no flow run {put.flow_run_id} in {journal.path}. See them with: wfengine runs ls")
    name = journal.records.get_flow_run(put.flow_run_id).name
    return RunEndedError(
        f"Flow run {put.flow_run_id} '{name}' has ended ({put.run_state}) and receives nothing more; the message of topic "
        f"'{put.topic}' was not sent. See how it ended: wfengine runs show {typed(put.flow_run_id, name)}",
        flow_run_id=put.flow_run_id,
    )


# ------------------------------------------------------------------------------------------- receive


@asks_the_flow
def receive(topic: str = "default", *, timeout_seconds: float | None = None, default: object = RAISE) -> Any:
    """Wait for the oldest message of a topic that nobody has received, and return its value. In a flow or task.

    Without one within `timeout_seconds` the answer is `default`, or ReceiveTimeoutError. The limit counts from the first
    time the call was made, over restarts; a message that was sent later is left to the next call.
    """
    awaits = caller_awaits()
    checked_topic(topic)
    return receive_from(topic, timeout_seconds, default, awaits=awaits)


def receive_from(
    topic: str,
    timeout_seconds: float | None,
    default: object = RAISE,
    *,
    awaits: bool,
    convert: Callable[[object], object] | None = None,
) -> object:
    """Do what `receive` does, with topics of our own too; `convert` makes the answer of what is recorded."""
    seconds = checked_seconds(timeout_seconds, "receive()")
    if leaves_no_trace():
        return given_in_loop(None) if awaits else None
    call = own_call(_RECEIVE, scope_of("receive"), {"topic": topic, "timeout_seconds": timeout_seconds})
    return answered(call, issue(call), lambda: _receive(call, topic, seconds, default), awaits=awaits, convert=convert)


_RECEIVE = own_callee("receive", ("topic",))


def _receive(call: Call, topic: str, seconds: float | None, default: object) -> Steps[Outcome]:
    run = call.run
    until = yield from begin_until(call, seconds)
    while True:
        found = yield from wait(call, lambda: look_for_message(call, topic, until))
        if not isinstance(found, MessageRow):
            what = f"no message of topic '{topic}' came"
            return (yield from settled(call, _too_late(call, what, until, default)))
        try:
            value = load_message(run.journal.records, found)
        except (JournalError, ValueNotStorableError) as error:
            raise halting(call, error) from None
        take = TakeMessage(found.id, scope=call.scope.task_run_id, at=run.journal.clock.now_text())
        outcome = yield from end(call, Outcome(value, None), [take])
        if outcome is not None:
            return outcome
        # Another call was quicker: wait for the next one.


def look_for_message(call: Call, topic: str, until: str | None) -> object:
    """Return the oldest message that was sent in time, TIMED_OUT when there can be none any more, else None."""
    found = find_oldest(call.run.journal.records, call.run.id, topic)
    if found is not None and (until is None or found.sent_at <= until):
        return found
    return TIMED_OUT if is_over(call.run, until) else None


def _too_late(call: Call, what: str, until: str | None, default: object) -> Outcome:
    if default is not RAISE:
        return Outcome(default, None)
    text = f"{what[0].upper()}{what[1:]} by {until}: {call} waited for it as long as its timeout_seconds said."
    return Outcome(None, ReceiveTimeoutError(text, flow_run_id=call.run.id, task_run_id=call.task_run_id))


# ------------------------------------------------------------------------------------------- events


@asks_the_flow
def set_event(key: str, value: object = None) -> Any:
    """Show a value to others under a name, in the place of an earlier one; committed when it returns. In a flow or task.

    Others ask with `get_event(run, key)`, or look: `wfengine sql`. A resumed run does not set it again.
    """
    awaits = caller_awaits()
    checked_name(key, "The key of an event")
    if leaves_no_trace():
        return given_in_loop(None) if awaits else None
    call = own_call(_SET_EVENT, scope_of("set_event"), {"key": key, "value": value})
    return answered(call, issue(call), lambda: _set_event(call, key, value), awaits=awaits)


_SET_EVENT = own_callee("set_event", ("key", "value"))


def _set_event(call: Call, key: str, value: object) -> Steps[Outcome]:
    yield from begin(call)
    try:
        encoded = encode(value, f"the value of the event '{key}'")
    except ValueNotStorableError as error:
        return (yield from settled(call, Outcome(None, error)))
    at = call.run.journal.clock.now_text()
    note = NoteItem(call.run.id, event_item(key), encoded, at=at, task_run_id=0)
    return (yield from settled(call, Outcome(None, None), [note]))


def event_item(key: str) -> str:
    """Return the key of the item in which an event stands, under the flow's body."""
    return f"event:{key}"


@asks_the_flow
def get_event(run: int | str, key: str, *, timeout_seconds: float | None = None, default: object = RAISE) -> Any:
    """Wait until a flow run has set an event, and return its value: in a flow, where the answer is recorded, or anywhere.

    Not set within `timeout_seconds` (0: look once), the answer is `default`, or ReceiveTimeoutError; when the run has ended
    without it, `default` or RunEndedError.
    """
    awaits = caller_awaits()
    checked_name(key, "The key of an event")
    seconds = checked_seconds(timeout_seconds, "get_event()")
    scope = scope_or_none()
    if scope is None:
        if leaves_no_trace():
            return given_in_loop(None) if awaits else None
        waiting = _Outside(default_journal(), run, key, seconds, default)
        return waiting.later() if awaits else waiting.now()
    call = own_call(_GET_EVENT, scope, {"run": run, "key": key, "timeout_seconds": timeout_seconds})
    return answered(call, issue(call), lambda: _get_event(call, run, key, seconds, default), awaits=awaits)


_GET_EVENT = own_callee("get_event", ("run", "key"))


def _get_event(call: Call, run: int | str, key: str, seconds: float | None, default: object) -> Steps[Outcome]:
    records = call.run.journal.records
    until = yield from begin_until(call, seconds)
    try:
        run_id = find_run_id(call.run.journal, run)
        records.get_flow_run(run_id)
    except UsageError as error:
        return (yield from settled(call, Outcome(None, error)))

    def look() -> object:
        return _look_for_event(records, run_id, key) or (TIMED_OUT if is_over(call.run, until) else None)

    found = yield from wait(call, look)
    if found is TIMED_OUT:
        outcome = _too_late(call, f"flow run {run_id} did not set the event '{key}'", until, default)
    elif isinstance(found, RunEndedError):
        outcome = Outcome(None, found) if default is RAISE else Outcome(default, None)
    else:
        outcome = Outcome(cast("tuple[object]", found)[0], None)
    return (yield from settled(call, outcome))


def _look_for_event(records: Records, run_id: int, key: str) -> tuple[object] | RunEndedError | None:
    """Return the value in a tuple, the error where it will never be set, or None: not yet."""
    row = records.get_flow_run(run_id)  # first: what it sets before it ends is there when it has ended
    found = records.find_item(run_id, 0, event_item(key))
    if found is not None or row.state not in ENDED:
        return found
    return RunEndedError(
        f"Flow run {run_id} '{row.name}' has ended ({row.state}) without setting the event '{key}'. "
        f"See what it did: wfengine runs show {typed(run_id, row.name)}",
        flow_run_id=run_id,
    )


class _Outside:
    """Waiting for an event outside of any flow: nothing is recorded."""

    def __init__(self, journal: Journal, run: int | str, key: str, seconds: float | None, default: object) -> None:
        self._journal = journal
        self._run_id = find_run_id(journal, run)
        self._key = key
        self._until = None if seconds is None else text_from_seconds(journal.clock.wall_seconds() + seconds)
        self._default = default

    def now(self) -> object:
        self._journal.flush()
        for mark in self._looks():
            self._journal.changes.wait(mark, LOOK_AGAIN_SECONDS)
        return self._answer()

    async def later(self) -> object:
        import asyncio

        loop = asyncio.get_running_loop()
        self._journal.flush()
        for mark in self._looks():
            changed = asyncio.Event()
            forget = self._journal.changes.call(mark, lambda: loop.call_soon_threadsafe(changed.set))  # noqa: B023 - of this turn
            try:
                await asyncio.wait_for(changed.wait(), LOOK_AGAIN_SECONDS)
            except TimeoutError:
                continue
            finally:
                forget()
        return self._answer()

    def _looks(self) -> Generator[Mark, None, None]:
        """Yield a mark to wait for changes from, until something is found."""
        self._found: tuple[object] | RunEndedError | None = None
        while True:
            mark = self._journal.changes.mark()
            self._found = _look_for_event(self._journal.records, self._run_id, self._key)
            over = self._until is not None and self._journal.clock.wall_seconds() >= seconds_from_text(self._until)
            if self._found is not None or over:
                return
            yield mark

    def _answer(self) -> object:
        if isinstance(self._found, tuple):
            return self._found[0]
        if self._default is not RAISE:
            return self._default
        if self._found is not None:
            raise self._found
        raise ReceiveTimeoutError(
            f"Flow run {self._run_id} did not set the event '{self._key}' by {self._until}.", flow_run_id=self._run_id
        )


# ------------------------------------------------------------------------------------------- conditions


@asks_the_flow
def wait_until(
    condition: Callable[[], object],
    *,
    timeout_seconds: float | None = None,
    every_seconds: float = ASK_AGAIN_SECONDS,
    name: str | None = None,
    default: object = RAISE,
) -> Any:
    """Wait until a function returns something true, and return that, recorded. In a flow or task.

    It is asked whenever the journal has changed, and at least `every_seconds`: it must be quick, without side effects, and
    may look at whatever there is - files, events, variables. What it raises is the failure of the call. Not true within
    `timeout_seconds`, the answer is `default`, or ReceiveTimeoutError. `name` is shown in place of the function's name.
    """
    awaits = caller_awaits()
    seconds = checked_seconds(timeout_seconds, "wait_until()")
    every = checked_seconds(every_seconds, "wait_until()") or 0.0
    if not callable(condition):
        raise UsageError(f"wait_until() takes a function without arguments, such as a lambda, not {condition!r}.")
    shown = name or str(getattr(condition, "__qualname__", type(condition).__qualname__))
    if leaves_no_trace():
        return given_in_loop(None) if awaits else None
    call = own_call(_WAIT_UNTIL, scope_of("wait_until"), {"condition": shown, "timeout_seconds": timeout_seconds})
    ask = _Asking(call, condition, every)
    return answered(call, issue(call), lambda: _wait_until(call, ask, shown, seconds, default), awaits=awaits)


_WAIT_UNTIL = own_callee("wait_until", ("condition",))


class _Asking:
    """Asks a condition, no more often than it has to be."""

    def __init__(self, call: Call, condition: Callable[[], object], every_seconds: float) -> None:
        self._call = call
        self._condition = condition
        self._every = every_seconds
        self._mark: Mark | None = None
        self._asked_at = 0.0

    def __call__(self) -> Outcome | None:
        journal = self._call.run.journal
        mark, now = journal.changes.mark(), journal.clock.monotonic_seconds()
        if mark == self._mark and now - self._asked_at < self._every:
            return None
        self._mark, self._asked_at = mark, now
        try:
            with naming(self._call.run, self._call):  # what it calls is no part of the run
                found = self._condition()
        except Exception as error:
            return Outcome(None, error)
        return Outcome(found, None) if found else None


def _wait_until(call: Call, ask: _Asking, shown: str, seconds: float | None, default: object) -> Steps[Outcome]:
    until = yield from begin_until(call, seconds)
    found = yield from wait(call, lambda: ask() or (TIMED_OUT if is_over(call.run, until) else None))
    if not isinstance(found, Outcome):
        found = _too_late(call, f"the condition {shown} did not come true", until, default)
    return (yield from settled(call, found))


# ------------------------------------------------------------------------------------------- checks of arguments


def checked_topic(topic: object) -> None:
    """Raise InvalidValueError for what is no topic, and for those of our own."""
    if checked_name(topic, "A topic").startswith(OWN_TOPICS):
        raise InvalidValueError(
            f"The topic {topic!r} begins with '{OWN_TOPICS}', as those of wfengine itself do. Take another."
        )


def checked_name(name: object, what: str) -> str:
    """Return a topic, key or name. Raises InvalidValueError for one that could not be typed or read again."""
    if not isinstance(name, str) or not name or len(name) > NAME_LIMIT:
        raise InvalidValueError(f"{what} must be a text of 1 to {NAME_LIMIT} characters, not {_shown(name)}.")
    if not name.isprintable():  # control characters, line ends, lone surrogates
        raise InvalidValueError(f"{what} must be of printable characters; {_shown(name)} is not.")
    return name


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
