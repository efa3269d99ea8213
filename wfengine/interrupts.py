"""Async user code that is interrupted when its run is cancelled: by asyncio's own cancellation, as from any other canceller.

An asyncio task may be inside several invocations at once: a flow that awaits a subflow that awaits a task. It is cancelled
once, however many of their runs are, and the cancellation is taken back where the outermost of these invocations is left.
asyncio is not imported here: whoever calls runs in a loop already, or imports it inside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from wfengine.scopes import LiveRun


class Interruption:
    """What became of one invocation: whether somebody else than us cancelled its asyncio task too."""

    __slots__ = ("is_foreign",)

    def __init__(self) -> None:
        self.is_foreign = False


class _Invocations:
    """The invocations of user code that one asyncio task is in, outermost first, by their runs."""

    __slots__ = ("cancelled_at", "loop", "runs", "task")

    def __init__(self, task: asyncio.Task[object], loop: asyncio.AbstractEventLoop) -> None:
        self.task = task
        self.loop = loop
        self.runs: list[LiveRun] = []
        self.cancelled_at: int | None = None  # index of the invocation that we cancelled, and that takes it back

    def interrupt(self, run: LiveRun) -> None:
        """Cancel the task if its run was cancelled, in the loop; called on any thread."""
        with suppress(RuntimeError):  # the loop was closed
            self.loop.call_soon_threadsafe(self._cancel, run)

    def _cancel(self, run: LiveRun) -> None:
        if run.cancelled is None or run not in self.runs:
            return  # halted for another reason; or the invocation was left meanwhile
        index = self.runs.index(run)
        if self.cancelled_at is None:
            self.cancelled_at = index
            self.task.cancel()
        else:
            self.cancelled_at = min(index, self.cancelled_at)

    async def take_back(self) -> None:
        """Let a cancellation that was not delivered yet pass, and forget that it was asked for."""
        import asyncio

        self.cancelled_at = None
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        self.task.uncancel()


#: By asyncio task. What stands here is inside user code.
_INVOCATIONS: dict[asyncio.Task[object], _Invocations] = {}


@asynccontextmanager
async def interruptible(run: LiveRun) -> AsyncIterator[Interruption]:
    """Cancel the present asyncio task when the run is cancelled while the block runs."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    around = _INVOCATIONS.get(task)
    if around is None:
        around = _INVOCATIONS[task] = _Invocations(task, asyncio.get_running_loop())
    found, before = Interruption(), task.cancelling()
    around.runs.append(run)
    try:
        with run.woken_by_halt(lambda: around.interrupt(run)):
            if run.cancelled is not None:
                around.interrupt(run)
            yield found
    finally:
        around.runs.pop()
        if not around.runs:
            del _INVOCATIONS[task]
        if around.cancelled_at == len(around.runs):
            await around.take_back()
        found.is_foreign = task.cancelling() > before and around.cancelled_at is None
