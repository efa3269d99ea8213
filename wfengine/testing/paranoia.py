"""`paranoid_replay`: run a flow and, after each outcome of a task, replay what there is so far, as if the process had died."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from wfengine.flows import Flow
from wfengine.listeners import Event, add_listener, remove_listener
from wfengine.steps import run_coroutine
from wfengine.testing.clock import VirtualClock
from wfengine.testing.rehearsal import rehearse, rehearsing
from wfengine.testing.replays import judge
from wfengine.testing.temporary import TemporaryJournal, temporary_journal
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

P = ParamSpec("P")
R = TypeVar("R")

#: In the journal made for it, the flow's own run is the first.
RUN_ID = 1
#: What a task run's outcome is.
OUTCOMES = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


def paranoid_replay(flow: Flow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow and replay it after each outcome of a task and at its end; raise AssertionError where a replay differs.

    The run has a temporary journal and a virtual clock. A replay executes no task, but the flow's body from the top, as a
    resume does: it has to make the same calls with the same arguments. Returns the flow's result, or raises what it raises; an
    async flow is run to its end too. Takes as many replays as the run has outcomes.
    """
    if not getattr(flow, "__wfengine_flow__", False):
        raise UsageError(f"paranoid_replay takes a flow, not {flow!r}.")
    with temporary_journal(clock=VirtualClock()) as journal:
        watch = _Watch(flow, journal)
        add_listener(watch)
        try:
            result = flow(*args, **kwargs)
            return cast(R, run_coroutine(result) if isinstance(result, Awaitable) else result)
        finally:
            remove_listener(watch)
            watch.look("the run had ended")
            if watch.problem is not None:
                raise AssertionError(watch.problem)


class _Watch:
    """A listener that replays a run whenever something came of one of its calls, until a replay differs."""

    def __init__(self, flow: AnyFlow, journal: TemporaryJournal) -> None:
        self._flow = flow
        self._journal = journal
        self._looking = threading.Lock()
        self.problem: str | None = None

    def __call__(self, event: Event) -> None:
        """Replay the run so far. Called on the thread that committed the outcome."""
        if event.task_run_id is not None and event.state in OUTCOMES:
            self.look(f"task '{event.name}' (task run {event.task_run_id}) was {event.state}")

    def look(self, after: str) -> None:
        """Replay the run so far, unless that is being done: a replay tells its own events to every listener."""
        if self.problem is not None or not self._looking.acquire(blocking=False):
            return
        try:
            if not self._journal.runs():
                return
            with rehearsing(self._journal.path) as copy:
                found = judge(rehearse(copy, RUN_ID, self._flow))
            if found is not None:
                self.problem = (
                    f"A resume of flow '{self._flow.name}' would go another way. After {after}, it was replayed, and {found}"
                )
        finally:
            self._looking.release()
