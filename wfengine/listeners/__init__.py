"""Listeners: our own observers, told of every state a run of this process enters, after the commit that made it true.

A listener must not block and cannot influence a run; what it raises is logged. Metrics, traces and notifications are
listeners.
"""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

_logger = logging.getLogger("wfengine.listeners")


class Event(NamedTuple):
    """One committed state change. `task_run_id` is None for a flow run; `at` is ISO-8601 UTC text."""

    flow_run_id: int
    task_run_id: int | None
    name: str
    state: str
    state_name: str | None
    at: str


class Listener(Protocol):
    """The seam for observers."""

    def __call__(self, event: Event) -> None:
        """Take notice of an event, on the thread that committed it."""


LISTENERS: list[Listener] = []
#: Those that are told of flow runs only: then a task pays nothing for them.
OF_FLOW_RUNS: list[Listener] = []


def add_listener(listener: Listener, *, of_tasks: bool = True) -> None:
    """Tell `listener` of every event of this process from now on, or only of those of flow runs."""
    (LISTENERS if of_tasks else OF_FLOW_RUNS).append(listener)


def remove_listener(listener: Listener) -> None:
    """Stop telling `listener`."""
    (LISTENERS if listener in LISTENERS else OF_FLOW_RUNS).remove(listener)


def close_listeners() -> None:
    """Let listeners that hold something back hand it on: the process is about to end without the interpreter's own end."""
    for listener in (*LISTENERS, *OF_FLOW_RUNS):
        close = getattr(listener, "close", None)
        if close is not None:
            close()


def tell(event: Event) -> None:
    """Tell all listeners; one that raises is logged and told again next time."""
    for listener in LISTENERS if event.task_run_id is not None else (*LISTENERS, *OF_FLOW_RUNS):
        try:
            listener(event)
        except Exception:
            _logger.exception("A listener failed on %s; the run goes on.", event)
