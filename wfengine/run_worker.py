"""The loop of those who take runs out of queues and run them in this process: `task_worker`, `executor`.

One thread looks for runs. Each begins on a thread of its own, or in one event loop if its flow is async. Which of several
processes gets a run is decided in the journal, where one claim wins; so a worker may be killed at any instant, and its runs
go on in the next one. Between two looks the thread sleeps until something is put into the journal, or a run ends.

Stopped, a worker takes nothing more, lets finish what runs, for a limited time, and leaves the rest such that another one
takes it up.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wfengine.distributed_futures import current_place
from wfengine.recovery import give_up
from wfengine.runners import Job
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.steps import Outcome, Steps
from wfengine_journal.block_transitions import find_last_continuation
from wfengine_journal.errors import (
    DriftError,
    ForkedProcessError,
    InDoubtError,
    InternalError,
    JournalCorruptError,
    JournalError,
    OwnershipLostError,
    PausedRun,
    RunHalted,
    RunOwnedError,
    UsageError,
    WfengineError,
)

if TYPE_CHECKING:
    from wfengine_journal.changes import Mark
    from wfengine_journal.store import Journal

#: Runs that a worker has at a time unless it is told otherwise, and at the most.
DEFAULT_LIMIT = 10
MOST_RUNS = 1000
#: How long a worker sleeps at the most before it looks whether it is to stop, in seconds.
SLEEP_SECONDS = 0.1
#: After a look a worker rests so many times as long as that took, at the most so many seconds, unless it was idle so long: each
#: commit of its runs may have put something into a queue, and it is not to do nothing but look.
REST_TIMES = 9.0
MOST_REST_SECONDS = 0.005
#: How often a worker looks for runs whose process died, in seconds. Nothing is written when a process is killed.
SWEEP_SECONDS = 1.0
#: How long a stopped worker waits for what it runs unless it is told otherwise, in seconds.
STOP_SECONDS = 30.0

#: What concerns not one run but all of them.
_FAULTS = (JournalError, InternalError, ForkedProcessError)


def checked_limit(limit: int | None) -> int | None:
    """Return a number of runs at a time. Raises UsageError."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_RUNS):
        raise UsageError(f"limit must be a number of runs from 1 to {MOST_RUNS}, or None, not {limit!r}.")
    return limit


class Place:
    """What one run counts for; see `distributed_futures.Place`."""

    __slots__ = ("_changed", "_lock", "_waits", "runner")

    def __init__(self, runner: object, changed: threading.Event) -> None:
        self.runner = runner
        self._changed = changed
        self._lock = threading.Lock()
        self._waits = 0  # threads and coroutines of the run that wait for other background runs

    @property
    def counts(self) -> bool:
        """Tell whether it takes a place: a run that waits for another one does not."""
        return not self._waits

    def leave(self) -> None:
        """See `distributed_futures.Place`."""
        with self._lock:
            self._waits += 1
        self._changed.set()

    def come_back(self) -> None:
        """See `distributed_futures.Place`."""
        with self._lock:
            self._waits -= 1


class RunWorker:
    """What every worker does. A kind of worker says where it finds runs, and what it does with those it cannot begin.

    At most `limit` runs at a time; None: as many as come, up to 1000. A run that waits for another background run does not
    count; when it goes on there may be one more for a while.
    """

    _log = logging.getLogger("wfengine.run_worker")
    stop_seconds: float | None = STOP_SECONDS  # how long it waits for what runs when it was stopped; null: until it is told
    _left = "its worker was stopped; another one takes it up"  # why a run was given up

    def __init__(self, limit: int | None) -> None:
        self.limit = checked_limit(limit)
        self.finished = 0  # runs that ended here
        self.left: list[int] = []  # runs that went on when it ended, and were left to the next worker
        self.started = False
        self.fault: WfengineError | None = None  # why it cannot go on
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}  # by flow run
        self._taken = 0  # places that were ever taken
        self._refused: set[int] = set()  # runs that this worker leaves to another one
        self._wake = threading.Event()  # something changed: in the journal, or a run of this worker ended or waits
        self._rest = threading.Event()  # never set
        self._stops = 0  # how often it was asked to stop; the second time it waits for nothing
        self._until: float | None = None  # of the monotonic clock: when what still runs is left to the next worker
        self._sweep_at = 0.0
        self._due_at: float | None = None  # of the wall clock: when a run is due though nothing changes until then

    # ---- what a kind of worker says

    def sweep(self, journal: Journal) -> None:
        """Mark the runs whose process died; called at the start and about every second."""
        raise NotImplementedError

    def begin_what_waits(self, journal: Journal, runner: ThreadTaskRunner) -> bool:
        """Begin what may begin; tell whether there are places left. May set `_due_at`."""
        raise NotImplementedError

    def refuse(self, run_id: int, reason: BaseException) -> None:
        """Say that a run could not be begun here; called with what its claim or its code raised."""
        raise NotImplementedError

    def accept(self) -> None:
        """Note that a run was begun here, or that another process has it."""

    def forget(self, run_id: int) -> None:
        """Forget what is known of a run that has no place any more."""

    def tell_to_stop(self, seconds: float) -> None:
        """Tell what can be told to stop, and has so many seconds for that; called once, when the time to stop in is known."""

    def leave_rest(self, journal: Journal, run_ids: Sequence[int]) -> list[int]:
        """Leave runs that did not end in time to the next worker; return which of them were left so.

        One that was continued as new meanwhile goes on as another run, and that is left.
        """
        present = [find_last_continuation(journal.records, run_id) for run_id in run_ids]
        return [run_id for run_id in present if give_up(journal, run_id, self._left)]

    # ---- the loop

    def work(self, journal: Journal, *, timeout: float | None = None, until_empty: bool = False) -> None:
        """Serve on this thread until stopped, for `timeout` seconds, or until nothing runs and nothing may begin."""
        runner = ThreadTaskRunner(MOST_RUNS).start(journal)
        clock = journal.clock
        deadline = None if timeout is None else clock.monotonic_seconds() + timeout
        self.started = True
        try:
            while not self._stops and self.fault is None and (deadline is None or clock.monotonic_seconds() < deadline):
                looked_at = clock.monotonic_seconds()
                self._wake.clear()
                mark = journal.changes.mark()
                self._sweep_if_due(journal)
                with self._lock:
                    was_idle, taken = not self._places, self._taken
                self._due_at = None
                has_room = self.begin_what_waits(journal, runner)
                # Nothing ran before the look and nothing began in it: what ends meanwhile may have let others begin.
                if until_empty and was_idle and self._taken == taken:
                    break
                rested_at = clock.monotonic_seconds()
                rested_at += min((rested_at - looked_at) * REST_TIMES, MOST_REST_SECONDS)
                self._sleep(journal, mark if has_room else None, deadline)
                if has_room and (seconds := rested_at - clock.monotonic_seconds()) > 0:
                    self._rest.wait(seconds)
            self._finish(journal)
        finally:
            self.started = False
            runner.close()

    def _sweep_if_due(self, journal: Journal) -> None:
        now = journal.clock.monotonic_seconds()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self.sweep(journal)

    def _sleep(self, journal: Journal, mark: Mark | None, deadline: float | None) -> None:
        """Sleep until there is something to do; with a mark, what is committed by anybody since may be.

        Asked to stop, perhaps by a signal in this very thread, nobody can wake it: it looks whether it was.
        """
        forget = journal.changes.call(mark, self._wake.set) if mark is not None else None
        try:
            while not self._wake.wait(self._seconds_to_sleep(journal, has_room=mark is not None)):
                now = journal.clock.monotonic_seconds()
                if self._stops or now >= self._sweep_at or (deadline is not None and now >= deadline):
                    return
                if mark is not None and self._due_at is not None and journal.clock.wall_seconds() >= self._due_at:
                    return
        finally:
            if forget is not None:
                forget()

    def _seconds_to_sleep(self, journal: Journal, *, has_room: bool) -> float:
        if not has_room or self._due_at is None:
            return SLEEP_SECONDS
        return min(SLEEP_SECONDS, max(0.0, self._due_at - journal.clock.wall_seconds()))

    # ---- one run

    def free_places(self) -> int:
        """Return how many runs may begin now."""
        with self._lock:
            return (self.limit or MOST_RUNS) - sum(place.counts for place in self._places.values())

    def occupy(self, runner: object, run_id: int) -> Place:
        """Take a place for a run; `run_ended` gives it back."""
        place = Place(runner, self._wake)
        with self._lock:
            self._places[run_id] = place
            self._taken += 1
        return place

    def begin(
        self, runner: ThreadTaskRunner, run_id: int, place: Place, steps: Callable[[], Steps[Outcome]], *, is_async: bool
    ) -> None:
        """Live a run that has a place, on a thread or in the event loop; `run_ended` is told of its end."""
        self.perform(runner, steps, functools.partial(self.run_ended, run_id), place, is_async=is_async)

    def perform(
        self, runner: ThreadTaskRunner, steps: Callable[[], Steps[Outcome]],
        ended: Callable[[Outcome | None, BaseException | None], None], place: Place, *, is_async: bool = False,
    ) -> None:  # fmt: skip
        """Perform steps on a thread or in the event loop."""
        context = contextvars.copy_context()
        context.run(current_place.set, place)
        runner.submit(Job(steps, ended, is_async=is_async, context=context))

    def run_ended(self, run_id: int, outcome: Outcome | None, error: BaseException | None) -> None:
        """Note how a run ended and give its place back; on any thread."""
        if run_id in self._places:  # else it was left to the next worker
            self._note(run_id, outcome, error)  # first, or it could be begun again
        with self._lock:  # at once: who sees that no place is taken must not take the run for one that is under way
            self._places.pop(run_id, None)
            self.forget(run_id)
        self._wake.set()

    def _note(self, run_id: int, outcome: Outcome | None, error: BaseException | None) -> None:
        """Say what became of a run where the journal does not, and decide whether to go on."""
        self.finished += outcome is not None
        if outcome is not None and outcome.state is not None and outcome.state.is_crashed():
            self._refused.add(run_id)  # its code returned this state; taken up again, it would return it again
        reason = error.error if isinstance(error, RunHalted) else error
        if reason is None or isinstance(reason, RunOwnedError | OwnershipLostError | PausedRun):
            self.accept()  # it ended, waits, or another process has it
        elif isinstance(reason, DriftError | InDoubtError):
            self._log.warning("flow run %d is parked: %s", run_id, reason)
        elif isinstance(reason, _FAULTS) and not isinstance(reason, JournalCorruptError):
            self.fault = reason  # nothing can be written any more
        else:
            self.refuse(run_id, reason)

    # ---- stopping

    def _finish(self, journal: Journal) -> None:
        """Let finish what runs, for a limited time, and leave the rest to the next worker."""
        if self._until is None and self.stop_seconds is not None:
            self._until = journal.clock.monotonic_seconds() + self.stop_seconds
        if self._places:
            self._log.info("stopping: %s for what runs (%d)", self._patience(journal), len(self._places))
        is_told = False
        while self._places and self.fault is None and self._stops < 2:
            if self._until is not None and not is_told:
                is_told = True
                self.tell_to_stop(max(0.0, self._until - journal.clock.monotonic_seconds()))
            remaining = SLEEP_SECONDS if self._until is None else self._until - journal.clock.monotonic_seconds()
            if remaining <= 0:
                break
            self._wake.clear()
            if self._places:
                self._wake.wait(min(remaining, SLEEP_SECONDS))
        with self._lock:
            unfinished = list(self._places)
            self._places.clear()
        self.left = self.leave_rest(journal, unfinished) if self.fault is None else []
        if self.left:
            self._log.warning("stopped; left to the next worker: flow run %s", ", ".join(map(str, self.left)))
        elif self.fault is None:
            self._log.info("stopped; nothing was left undone")

    def _patience(self, journal: Journal) -> str:
        if self._until is None:
            return "nothing more is taken up; it waits"
        return f"up to {max(0.0, self._until - journal.clock.monotonic_seconds()):.0f} s are left"
