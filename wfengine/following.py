"""Reading a stream from outside: each item of a generator once, in order, from any process, over crashes of its producer.

    for item in follow("quiet-heron", "read"):
        ...

The items are those of the journal, which a producer records before its consumer is given them. A reader waits for the next
one; where the producer's process dies it goes on waiting, and is given the rest when the run is resumed: a recorded item is
never replaced, and never given twice. It ends when the stream has an outcome. Nothing is written here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from wfengine.journals import default_journal
from wfengine.recovery import find_run_id
from wfengine_journal.errors import CancelledRun, UsageError
from wfengine_journal.stream_reads import (
    Standing,
    Stream,
    find_stream,
    get_standing,
    list_item_texts,
    list_streaming_tasks,
)

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Items that are read from the file at a time.
BATCH = 500
#: How long a wait lasts before the file is looked at again all the same, in seconds.
LOOK_AGAIN_SECONDS = 60.0

_ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Follower(Iterator[object], AsyncIterator[object]):
    """What `follow` returns: iterate it with `for` or `async for`, in one place at a time."""

    def __init__(
        self, journal: Journal, run_id: int, task: str | int | None, *, start: int, timeout_seconds: float | None
    ) -> None:
        self._journal = journal
        self._run_id = run_id
        self._task = task
        self._timeout_seconds = timeout_seconds
        self._stream = Stream(run_id, 0) if task is None else None
        self._read: deque[object] = deque()
        self._ended = False
        #: Number of the item that comes next, from 0: what a reader keeps to go on there, as `follow(..., start=position)`.
        self.position = start

    def __next__(self) -> object:
        changes, deadline = self._journal.changes, self._deadline()
        while True:
            mark = changes.mark()
            if self._look():
                return self._next_item()
            if self._ended:
                raise StopIteration
            changes.wait(mark, self._remaining(deadline))

    async def __anext__(self) -> object:
        import asyncio

        changes, deadline, loop = self._journal.changes, self._deadline(), asyncio.get_running_loop()
        while True:
            mark = changes.mark()
            if self._look():
                return self._next_item()
            if self._ended:
                raise StopAsyncIteration
            seconds, changed = self._remaining(deadline), asyncio.Event()
            forget = changes.call(mark, lambda: loop.call_soon_threadsafe(changed.set))  # noqa: B023 - of this very turn
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                continue
            finally:
                forget()

    def _next_item(self) -> object:
        self.position += 1
        return self._read.popleft()

    def _deadline(self) -> float | None:
        seconds = self._timeout_seconds
        return None if seconds is None else self._journal.clock.monotonic_seconds() + seconds

    def _remaining(self, deadline: float | None) -> float:
        """Return how long to wait; TimeoutError when the time is up."""
        if deadline is None:
            return LOOK_AGAIN_SECONDS
        remaining = deadline - self._journal.clock.monotonic_seconds()
        if remaining <= 0:
            raise TimeoutError(
                f"Flow run {self._run_id} handed out no item {self.position} within {self._timeout_seconds} s. "
                f"See what it does: wfengine runs show {self._run_id}"
            )
        return min(remaining, LOOK_AGAIN_SECONDS)

    def _look(self) -> bool:
        """Tell whether there is an item to give; note the stream's end, or raise the error it failed with."""
        if self._read or self._ended:
            return bool(self._read)
        records = self._journal.records
        # How it stands is asked before its items are read: what has ended then hands out no more.
        run_state = records.get_flow_run(self._run_id).state
        if self._stream is None and self._task is not None:
            self._stream = find_stream(records, self._run_id, self._task)
        if self._stream is None:
            if run_state in _ENDED:
                raise self._no_such_stream()
            return False
        standing = get_standing(records, self._stream)
        self._read.extend(self._items(self._stream))
        if not self._read and _is_over(standing):
            self._ended = True
            self._say_end(self._stream, standing)
        return bool(self._read)

    def _items(self, stream: Stream) -> list[object]:
        return self._journal.records.list_items(*stream, self.position, BATCH)

    def _say_end(self, stream: Stream, standing: Standing) -> None:
        """Raise what ended a stream that did not complete."""
        if standing.state == "FAILED" and standing.error_id is not None:
            raise self._journal.records.load_error(standing.error_id)
        if standing.state == "COMPLETED" or standing.run_state == "COMPLETED":
            if stream.task_run_id == 0 and self.position == 0:
                self._refuse_consumer(stream)
            return
        if standing.run_error_id is not None and standing.run_state == "FAILED":
            raise self._journal.records.load_error(standing.run_error_id)
        raise CancelledRun(
            f"Flow run {stream.flow_run_id} ended ({standing.run_state}) after {self.position} items of this stream. "
            f"See why: wfengine runs show {stream.flow_run_id}"
        )

    def _refuse_consumer(self, stream: Stream) -> None:
        """Raise UsageError for a flow that streams nothing itself, while tasks of it do."""
        found = list_streaming_tasks(self._journal.records, stream.flow_run_id)
        if found:
            named = ", ".join(f"{name} (task run {task_run_id})" for task_run_id, name in found[:10])
            raise UsageError(
                f"The flow of flow run {self._run_id} hands out no items itself, but tasks of it do: {named}. "
                f"Name one: wfengine follow {self._run_id} {found[0][1]}"
            )

    def _no_such_stream(self) -> UsageError:
        what = f"task run {self._task}" if isinstance(self._task, int) else f"a task '{self._task}'"
        return UsageError(
            f"Flow run {self._run_id} ended and did not call {what}. "
            f"See what it called: wfengine runs show {self._run_id} --tasks"
        )


class TextFollower(Follower):
    """The items as (text, whether it is JSON): for showing them, which must not run code."""

    def _items(self, stream: Stream) -> list[object]:
        return list(list_item_texts(self._journal.records, stream, self.position, BATCH))


def follow_texts(
    journal: Journal, run_id: int, task: str | int | None, *, start: int, timeout_seconds: float | None
) -> TextFollower:
    """Do as `follow`, for showing: the items as (text, whether it is JSON)."""
    return TextFollower(journal, run_id, task, start=start, timeout_seconds=timeout_seconds)


def _is_over(standing: Standing) -> bool:
    if standing.run_state in _ENDED:
        return True
    return standing.state in _ENDED and not standing.is_fatal  # a fatal failure of a run that was resumed runs again


def follow(
    run: int | str,
    task: str | int | None = None,
    *,
    start: int = 0,
    timeout_seconds: float | None = None,
    journal: Journal | None = None,
) -> Follower:
    """Iterate the items that a generator of a flow run hands out, with `for` or `async for`, from any process.

    `run` is an id, a name, the beginning of a name, or '@last'. `task` is the name of a generator task or subflow, whose first
    call is meant, or the id of a task run; without it the items of the flow itself are meant. The first item is number
    `start`. Waits for items to come, at most `timeout_seconds` for each (TimeoutError); also for a run whose process died,
    until somebody resumes it. Ends with the stream; raises the error that the stream or its run failed with, CancelledRun when
    it was cancelled, UsageError when the run has ended and has no such stream.
    """
    if start < 0:
        raise UsageError(f"start is the number of an item, from 0, not {start}.")
    journal = journal if journal is not None else default_journal()
    return Follower(journal, find_run_id(journal, run), task, start=start, timeout_seconds=timeout_seconds)
