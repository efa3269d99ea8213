"""What the daemon is made of: parts that each do one thing on threads of their own - scheduler, executor, automations, upkeep.

A part knows nothing of the others: they meet in the journal. The scheduler, which cannot import this, has the same methods.
"""

from __future__ import annotations

from typing import Protocol

from wfengine_journal.errors import WfengineError


class Service(Protocol):
    """A part of the daemon. Its methods may be called from any thread."""

    name: str  # for people: 'scheduler', 'executor' ...

    @property
    def fault(self) -> WfengineError | None:
        """Return why it cannot go on, None while it can: the daemon then stops, for nothing can be written any more."""

    def start(self) -> None:
        """Begin, on threads of its own, and return at once."""

    def stop_taking(self) -> None:
        """Take up nothing more; what is under way goes on. Returns at once, may be called again."""

    def stop(self, timeout_seconds: float) -> None:
        """Let finish what is under way, at most so long, leave the rest such that another process goes on with it, and end."""

    def report(self) -> dict[str, object]:
        """Return how it is, as JSON values, for `wfengine status` and the heartbeat."""
