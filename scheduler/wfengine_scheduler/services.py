"""What the daemon is made of: parts that each do one thing on threads of their own - scheduler, executor, automations, upkeep.

A part knows nothing of the others: they meet in the journal.
"""

from __future__ import annotations

import threading
from typing import Protocol

from wfengine_journal.errors import InternalError, WfengineError
from wfengine_journal.threads import start_thread


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


class ThreadedService:
    """A service that works on one thread until it is stopped or cannot go on: all of `Service` but its name and its report.

    A kind of service says in `_work` what it does. It goes on until `_stopping` is set, and may sleep on `_wake` meanwhile.
    """

    name: str

    def __init__(self) -> None:
        self._stopping = threading.Event()  # nothing more is begun
        self._wake = threading.Event()  # there may be something to do
        self._thread: threading.Thread | None = None
        self._fault: WfengineError | None = None

    @property
    def fault(self) -> WfengineError | None:
        """Return why it cannot go on; None while it can."""
        return self._fault

    def start(self) -> None:
        """Begin to work, on a thread of its own."""
        if self._thread is None:
            self._thread = start_thread(f"wfengine-{self.name.replace(' ', '-')}", self._run)

    def stop_taking(self) -> None:
        """Begin nothing more; what is under way goes on. May be called again."""
        self._stopping.set()
        self._wake.set()

    def stop(self, timeout_seconds: float) -> None:
        """Let end what is under way, for so long."""
        self.stop_taking()
        thread = self._thread
        if thread is not None:
            thread.join(max(timeout_seconds, 0.0))

    def _work(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        """Work. No error goes unseen: without its thread a daemon would seem to serve, and not do so."""
        try:
            self._work()
        except WfengineError as error:
            if not self._stopping.is_set():
                self._fault = error
        except Exception as error:
            self._fault = unforeseen(self.name, error)


def unforeseen(name: str, error: Exception) -> InternalError:
    """Return the fault of a service that met an error nobody thought of."""
    fault = InternalError(f"The {name} of this daemon cannot go on: {type(error).__name__}: {error}. Please report this.")
    fault.__cause__ = error
    return fault
