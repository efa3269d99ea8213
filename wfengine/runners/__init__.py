"""Where submitted tasks run. A runner moves work; it never decides what a task's life is, and never writes the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wfengine.steps import Outcome, Steps
    from wfengine_journal.store import Journal


class Job:
    """One submitted task: its steps, what to do with their outcome, and how to give up on it."""

    __slots__ = ("context", "depth", "is_async", "settle", "steps")

    def __init__(
        self,
        steps: Callable[[], Steps[Outcome]],
        settle: Callable[[Outcome | None, BaseException | None], None],
        *,
        is_async: bool,
        context: object,
        depth: int = 0,
    ) -> None:
        self.steps = steps
        self.settle = settle  # called after the outcome is committed
        self.is_async = is_async
        self.context = context  # the contextvars.Context of the submitting code
        self.depth = depth  # of an async task: how many calls enclose it, which must be able to wait for it


class TaskRunner(Protocol):
    """The seam for places where tasks run. What `start` returns serves one flow run."""

    def start(self, journal: Journal) -> TaskRunner:
        """Return a runner ready for one flow run whose outcomes go to `journal`."""

    def submit(self, job: Job) -> None:
        """Take a job; returns at once."""

    def cancel_queued(self) -> None:
        """Settle every job that has not begun with an error."""

    def close(self) -> None:
        """End the runner's threads; jobs that still run are left behind."""
