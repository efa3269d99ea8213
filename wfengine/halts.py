"""Runs of this process that somebody asked to stop: how that is noticed, and how the run is halted for it.

Who asks writes into the journal (`wfengine_journal.requests`). The owner notices at its next write, which is refused; at once
where the asker is in the same process; and else by a watcher, one thread per journal as long as runs are executed, that
looks for commits of other processes. A halted run unwinds: its next engine call raises, waits end, async code is
cancelled, queued tasks are dropped. What it ends as is decided in `flow_engine`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary, ref

from wfengine.ids import typed
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import ACTIVE, LiveRun, current_scope, find_scope
from wfengine.states import State
from wfengine_journal.errors import (
    CancelledRun,
    DriftError,
    ForkedProcessError,
    InDoubtError,
    JournalError,
    PausedRun,
    RunHalted,
)
from wfengine_journal.requests import list_asked
from wfengine_journal.states import StateType
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: How often the watcher looks whether another process has committed anything, in seconds. A look costs some microseconds.
WATCH_SECONDS = 0.05


#: What parks a run: a task of it that runs may go on to its end.
_PARKING = (PausedRun, DriftError, InDoubtError)


class _Row(Protocol):
    """How a run stands in the journal."""

    @property
    def state(self) -> str: ...
    @property
    def state_name(self) -> str | None: ...
    @property
    def state_message(self) -> str | None: ...
    @property
    def epoch(self) -> int: ...


@asks_the_flow
def check_cancelled() -> None:
    """Unwind the calling code if its flow run was cancelled, or taken from this process; else return at once.

    For sync code that is busy for long without a call of a task: it is not interrupted, so it has to ask. The signal is no
    Exception, so `except Exception` lets it pass; `finally` blocks run. In a run that is paused, and outside of any, it does
    nothing: what runs may finish.
    """
    scope = current_scope()
    if scope is None or (scope.run.halted is not None and isinstance(scope.run.halted.error, _PARKING)):
        return
    find_scope()


def halt_as_asked(run: LiveRun, row: _Row) -> RunHalted | None:
    """Halt a run of this process if its row says that somebody asked for that; return the signal."""
    if row.epoch != run.epoch or not run.left_open:
        return None
    if row.state in ("CANCELLING", "CANCELLED"):
        return _cancel(run, row.state_message or "")
    parked_by_another = row.state == "PAUSED" and run.waits_for_attempt
    if parked_by_another or (row.state == "RUNNING" and row.state_name == "Pausing"):
        return _pause(run, row.state_message or "")
    return None


def _cancel(run: LiveRun, message: str) -> RunHalted:
    text = f"{run} was {message or 'cancelled'}. What completed is recorded; to go on with it after all: {_resume(run)}"
    signal = run.cancel(CancelledRun(text, flow_run_id=run.id))
    run.drop_queued()
    return signal


def _pause(run: LiveRun, message: str) -> RunHalted:
    state: State[object] = State(StateType.PAUSED, message=message, flow_run_id=run.id)
    text = f"{run} was {message or 'paused'}. Go on with it: wfengine unpause {typed(run.id, run.name)}"
    signal = run.halt(RunHalted(PausedRun(text, flow_run_id=run.id, state=state)))
    run.drop_queued()
    return signal


def _resume(run: LiveRun) -> str:
    top = run
    while top.parent is not None:
        top = top.parent
    return f"wfengine resume {typed(top.id, top.name)}"


def notice(journal: Journal) -> None:
    """Halt those runs of this process that somebody asked to stop."""
    path = str(journal.path)
    live = {run.id: run for (of_path, _), run in list(ACTIVE.items()) if of_path == path and run.left_open}
    for row in list_asked(journal.records, list(live)):
        halt_as_asked(live[row.id], row)


# ------------------------------------------------------------------------------------------- the watcher


class _Watch:
    """Looks at one journal while this process executes runs that stand in it."""

    def __init__(self, journal: Journal) -> None:
        self._path = str(journal.path)
        self._journal = ref(journal)
        self._lock = threading.Lock()
        self._watching = False
        self._has_new = False  # a run began since the last look: what was committed before it is news to it
        self._pause = threading.Event()

    def begin(self) -> None:
        """Watch from now on for the sake of a run that is in ACTIVE."""
        self._has_new = True
        if not self._watching:
            with self._lock:
                if not self._watching:
                    start_thread("wfengine-halts", self._run)  # it waits for this lock before it looks
                    self._watching = True

    def _run(self) -> None:
        seen = None
        while True:
            self._pause.wait(WATCH_SECONDS)
            journal = self._journal()
            with self._lock:
                if journal is None or not any(path == self._path for path, _ in list(ACTIVE)):
                    self._watching = False
                    return
            try:
                version = journal.changes.data_version()
                if version != seen or self._has_new:
                    self._has_new = False
                    notice(journal)
                    seen = version
            except (JournalError, ForkedProcessError):
                seen = None  # whoever executes the runs meets the error as well


#: The watchers by journal; a forked child opens journals, and so watchers, of its own.
_WATCHES: WeakKeyDictionary[Journal, _Watch] = WeakKeyDictionary()


def watch(journal: Journal) -> None:
    """See to it that a run which this process executes is halted when somebody asks for that."""
    found = _WATCHES.get(journal)
    if found is None:
        found = _WATCHES[journal] = _Watch(journal)
    found.begin()
