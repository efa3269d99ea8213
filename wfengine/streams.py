"""Generators as tasks and flows: each item is recorded before the consumer is given it.

The consumer drives: between two items the function is suspended, and nothing runs. A resumed or retried stream hands out
the recorded items first; then its function is run from the top, and what it yields is passed over until it comes to the
first item that nobody was given. So the consumer sees each item once, whatever happens to the process.

A consumer that closes a stream (a `break`) ends it: COMPLETED, with the name Closed. If it asks for more in a resumed run,
because its code was edited, the stream goes on.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, cast

from wfengine.steps import Emit, Invoke, Outcome, Steps, StreamClosed, Write, drive_stream, drive_stream_async
from wfengine_journal.codec import encode
from wfengine_journal.errors import RunHalted, ValueNotStorableError
from wfengine_journal.items import RecordItem

if TYPE_CHECKING:
    from wfengine.scopes import Scope
    from wfengine.task_engine import Call

#: Recorded items that are read from the file at a time.
BATCH = 500

Live = Callable[["Call"], Steps[Outcome]]


def is_generator_function(fn: Callable[..., object]) -> bool:
    """Tell whether a function is written with `yield`, sync or async."""
    inner = inspect.unwrap(fn)
    return inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)


class Feed:
    """How many items of a stream its consumer was given so far, over all attempts."""

    __slots__ = ("closed", "given")

    def __init__(self) -> None:
        self.given = 0
        self.closed = False


class _Source:
    """The user's generator, asked for one item at a time."""

    __slots__ = ("_generator", "ended", "returned")

    def __init__(self, generator: object) -> None:
        self._generator = generator
        self.ended = False
        self.returned: object = None

    def next(self) -> object:
        try:
            return next(cast("Generator[object]", self._generator))
        except StopIteration as stop:
            self.ended, self.returned = True, stop.value
            return None

    async def next_async(self) -> object:
        try:
            return await anext(cast("AsyncGenerator[object]", self._generator))
        except StopAsyncIteration:
            self.ended = True
            return None

    def close(self) -> None:
        cast("Generator[object]", self._generator).close()

    async def close_async(self) -> None:
        await cast("AsyncGenerator[object]", self._generator).aclose()


def stream(
    scope: Scope, step: Invoke, feed: Feed, task_run_id: int, what: str
) -> Steps[Outcome]:  # fmt: skip
    """Run a generator to its end and emit its items, each recorded first; `step` says how to make and limit it."""
    run = scope.run
    made = yield step._replace(is_async=False, timeout_seconds=None)
    assert isinstance(made, Outcome)
    if made.error is not None:
        return made
    source = _Source(made.value)
    ask = Invoke(scope, source.next_async if step.is_async else source.next, (), {}, step.is_async, None)
    clock, number, remaining = run.journal.clock, 0, step.timeout_seconds
    while True:
        began = clock.monotonic_seconds()
        outcome = yield ask._replace(timeout_seconds=remaining)
        assert isinstance(outcome, Outcome)
        if outcome.error is not None or source.ended:
            return outcome if outcome.error is not None else Outcome(source.returned, None)
        if remaining is not None:  # the limit is of the function's own time, not of its consumer's
            remaining = max(remaining - (clock.monotonic_seconds() - began), 0.001)
        if number >= feed.given:
            try:
                encoded = encode(outcome.value, f"item {number} of {what}")
            except ValueNotStorableError as refusal:
                return Outcome(None, refusal)
            item = RecordItem(run.id, task_run_id, number, encoded, epoch=run.epoch, at=clock.now_text())
            yield Write(run, item, run.synced)
            feed.given = number + 1
            try:
                yield Emit(outcome.value)
            except StreamClosed:
                return (yield from _close(ask, source, feed))
        number += 1


def _close(ask: Invoke, source: _Source, feed: Feed) -> Steps[Outcome]:
    outcome = yield ask._replace(fn=source.close_async if ask.is_async else source.close)
    assert isinstance(outcome, Outcome)
    feed.closed = outcome.error is None
    return outcome


# ------------------------------------------------------------------------------------------- what the consumer iterates


def items_of_run(steps: Steps[Outcome]) -> Generator[object, None, object]:
    """Iterate the items of a flow that is started by the first `next`; the flow's result is the generator's own."""
    try:
        outcome = yield from drive_stream(steps)
    except RunHalted as signal:
        raise signal.error from None
    return _value(outcome)


async def items_of_run_async(steps: Steps[Outcome]) -> AsyncGenerator[object, None]:
    """Do as `items_of_run` in an event loop."""
    ended: list[Outcome] = []
    try:
        async for item in drive_stream_async(steps, ended.append):
            yield item
    except RunHalted as signal:
        raise signal.error from None
    _value(ended[0])


def items_of_call(
    call: Call, recorded: Outcome | None, live: Callable[[Call], Steps[Outcome]]
) -> Generator[object, None, object]:
    """Iterate the items of an issued call: the recorded ones, then what it yields when it goes on."""
    yield from _recorded_items(call)
    if recorded is not None and not _is_closed(call):
        return _value(recorded)
    return _value((yield from drive_stream(live(call))))


async def items_of_call_async(call: Call, recorded: Outcome | None, live: Live) -> AsyncGenerator[object, None]:
    """Do as `items_of_call` in an event loop."""
    for item in _recorded_items(call):
        yield item
    if recorded is not None and not _is_closed(call):
        _value(recorded)
        return
    ended: list[Outcome] = []
    items = drive_stream_async(live(call), ended.append)
    try:
        async for item in items:
            yield item
    finally:
        await items.aclose()
    _value(ended[0])


def _value(outcome: Outcome) -> object:
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _is_closed(call: Call) -> bool:
    return call.row is not None and call.row.state_name == "Closed"


def _recorded_items(call: Call) -> Iterator[object]:
    """Yield what earlier executions handed out, and count it as given."""
    if call.row is None:
        return
    records, run_id, task_run_id = call.run.journal.records, call.run.id, call.task_run_id
    if call.callee.kind == "flow":
        child = records.find_child_run(task_run_id)
        if child is None:
            return
        run_id, task_run_id = child, 0
    feed = call.feed = Feed()
    while items := records.list_items(run_id, task_run_id, feed.given, BATCH):
        for item in items:
            feed.given += 1
            yield item


def collected(fn: Callable[..., object]) -> Callable[..., object]:
    """Return a function that runs a generator function to its end and returns the list of its items."""
    if inspect.isasyncgenfunction(inspect.unwrap(fn)):

        async def collect_async(*args: object, **kwargs: object) -> list[object]:
            return [item async for item in cast("AsyncIterator[object]", fn(*args, **kwargs))]

        return collect_async

    def collect(*args: object, **kwargs: object) -> list[object]:
        return list(cast("Iterator[object]", fn(*args, **kwargs)))

    return collect
