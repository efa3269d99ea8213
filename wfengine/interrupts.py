"""Async user code that is interrupted when its run is cancelled: by asyncio's own cancellation, as from any other canceller.

An asyncio task may be inside several invocations at once: a flow that awaits a subflow that awaits a task. It is cancelled
once, however many of their runs are, and the cancellation is taken back where the outermost of these invocations is left.
asyncio is not imported here: whoever calls runs in a loop already, or imports it inside.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from wfengine.scopes import LiveRun


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


class Invocation:
    """One invocation of async user code, from its making to its `end`: it is interrupted when its run is cancelled.

    `is_foreign`, at its end: somebody else than us cancelled the asyncio task too.
    """

    __slots__ = ("_around", "_before", "_run", "is_foreign")

    def __init__(self, run: LiveRun) -> None:
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        around = _INVOCATIONS.get(task)
        if around is None:
            around = _INVOCATIONS[task] = _Invocations(task, asyncio.get_running_loop())
        self._around = around
        self._before = task.cancelling()
        self._run = run
        self.is_foreign = False
        around.runs.append(run)
        run.wakers[self] = self._interrupt
        if run.cancelled is not None:
            self._interrupt()

    def _interrupt(self) -> None:
        self._around.interrupt(self._run)

    async def end(self) -> None:
        """Take the cancellation back where this invocation is the outermost that it was meant for."""
        around = self._around
        del self._run.wakers[self]
        around.runs.pop()
        if not around.runs:
            del _INVOCATIONS[around.task]
        if around.cancelled_at is not None and around.cancelled_at == len(around.runs):
            await around.take_back()
        self.is_foreign = around.cancelled_at is None and around.task.cancelling() > self._before
