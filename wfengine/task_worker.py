"""Serve tasks: run in this process what `delay` puts into their queues, in whichever process.

One thread looks for runs, oldest first: those that wait, and those whose worker died. Each begins on a thread of its own, or
in one event loop if its task is async. Which of several workers gets a run is decided in the journal, where one claim wins;
so a worker may be killed at any instant, and its runs go on in the next one. Between two looks the worker sleeps until
something is put into the journal.

Stopped (SIGTERM, Ctrl-C, `stop`, the end of `timeout`), a worker takes nothing more, lets finish what runs, for a limited
time, and leaves the rest such that another one takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from wfengine.background import queue_of
from wfengine.distributed_futures import current_place
from wfengine.flow_engine import How, take_up
from wfengine.journals import default_journal
from wfengine.loading import is_loading, note_skipped_call
from wfengine.logging import get_logger
from wfengine.ownership import sweep
from wfengine.recovery import give_up
from wfengine.runners import Job
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.scopes import current_scope
from wfengine.steps import Outcome, Steps
from wfengine_journal.background import QueuedRun, list_cut_off, list_ready, list_running
from wfengine_journal.errors import (
    DriftError,
    ForkedProcessError,
    InDoubtError,
    InternalError,
    JournalCorruptError,
    JournalError,
    OwnershipLostError,
    RunHalted,
    RunOwnedError,
    UsageError,
    WfengineError,
)

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.tasks import Task
    from wfengine_journal.changes import Mark
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.task_worker")

#: Runs that a worker has at a time unless it is told otherwise, and at the most.
DEFAULT_LIMIT = 10
MOST_RUNS = 1000
#: How long a worker sleeps at the most before it looks whether it is to stop, in seconds.
SLEEP_SECONDS = 0.1
#: How often a worker looks for runs whose process died, in seconds. Nothing is written when a process is killed.
SWEEP_SECONDS = 1.0
#: How long a stopped worker waits for what it runs, in seconds.
STOP_SECONDS = 30.0
#: Runs that a worker could not begin, one after another, before it stops: most likely it lacks a module they need.
REFUSED_LIMIT = 100


#: What concerns not one run but all of them.
_FAULTS = (JournalError, InternalError, ForkedProcessError)


class TaskWorker:
    """Runs background calls of some tasks in this process, at most `limit` at a time (None: as many as come, up to 1000).

    A run that waits for another background run does not count; when it goes on there may be one more for a while.
    """

    def __init__(self, *tasks: Task[..., Any], limit: int | None = DEFAULT_LIMIT) -> None:
        if limit is not None and not 1 <= limit <= MOST_RUNS:
            raise UsageError(f"limit must be a number of runs from 1 to {MOST_RUNS}, or None, not {limit!r}.")
        self.tasks = tasks
        self.limit = limit
        self._flows = _flows_by_queue(tasks)
        self._lock = threading.Lock()
        self._places: dict[int, _Place] = {}  # by flow run
        self._refused: set[int] = set()  # runs that this worker leaves to another one
        self._refusals = 0  # one after another
        self._fault: WfengineError | None = None
        self._wake = threading.Event()  # something changed: in the journal, or a run of this worker ended or waits
        self._stops = 0  # how often it was asked to stop; the second time it waits for nothing
        self.stopped_by: int | None = None  # the signal that asked
        self.finished = 0  # runs that ended here
        self.left: list[int] = []  # runs that went on when it ended, and were left to the next worker
        self._sweep_at = 0.0
        self.started = False

    @property
    def task_keys(self) -> frozenset[str]:
        """The keys of the tasks it serves."""
        return frozenset(task.key for task in self.tasks)

    @property
    def current_tasks(self) -> int:
        """How many background runs it has at this moment."""
        return len(self._places)

    def start(self, timeout: float | None = None) -> None:
        """Serve until stopped, or for `timeout` seconds. Raises JournalError when the journal cannot be used any more."""
        if current_scope() is not None:
            raise UsageError(
                "A task worker was started in a flow or task, which would never end. Start it in a process of its own."
            )
        with _signals(self):
            self.run(timeout)

    def stop(self) -> None:
        """Take nothing more and end when what runs has ended; called again, leave it to the next worker at once."""
        self._stops += 1

    def run_once(self) -> None:
        """Run what waits in the queues, and what that puts there, to its end, and return."""
        self.run(until_empty=True)

    def run(self, timeout: float | None = None, *, until_empty: bool = False) -> None:
        """Do what `start` does, on any thread: signals are somebody else's business."""
        journal = default_journal()
        runner = ThreadTaskRunner(MOST_RUNS).start(journal)
        clock = journal.clock
        deadline = None if timeout is None else clock.monotonic_seconds() + timeout
        self.started = True
        _logger.info("serving %s from %s, at most %s at a time", self._names(), journal.path, self.limit or MOST_RUNS)
        try:
            while not self._stops and self._fault is None and (deadline is None or clock.monotonic_seconds() < deadline):
                self._wake.clear()
                mark = journal.changes.mark()
                self._sweep(journal)
                was_idle = not self._places  # before the look: what ends meanwhile may have put more into the queue
                has_room = self._begin_what_waits(journal, runner)
                if until_empty and was_idle and not self._places:
                    break
                self._sleep(journal, mark if has_room else None)
            self._finish(journal)
        finally:
            self.started = False
            runner.close()
        if self._fault is not None:
            raise self._fault

    def _names(self) -> str:
        return ", ".join(f"'{task.name}'" for task in self.tasks)

    # ---- taking runs

    def _sweep(self, journal: Journal) -> None:
        now = journal.clock.monotonic_seconds()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            sweep(journal, list_running(journal.records, self._flows))

    def _sleep(self, journal: Journal, mark: Mark | None) -> None:
        """Sleep until there is something to do; with a mark, what is committed by anybody since may be."""
        forget = journal.changes.call(mark, self._wake.set) if mark is not None else None
        self._wake.wait(SLEEP_SECONDS)
        if forget is not None:
            forget()

    def _begin_what_waits(self, journal: Journal, runner: ThreadTaskRunner) -> bool:
        """Begin what may begin; tell whether there are places left."""
        free = self._free_places()
        if free <= 0:
            return False
        passed_over = self._refused | set(self._places)
        most = free + len(passed_over)
        found = [*list_cut_off(journal.records, self._flows, most), *list_ready(journal.records, self._flows, most)]
        begun = [queued for queued in sorted(found) if queued.id not in passed_over][:free]
        for queued in begun:
            self._begin(journal, runner, queued)
        return len(begun) < free

    def _free_places(self) -> int:
        with self._lock:
            return (self.limit or MOST_RUNS) - sum(place.counts for place in self._places.values())

    def _begin(self, journal: Journal, runner: ThreadTaskRunner, queued: QueuedRun) -> None:
        flow = self._flows[queued.queue]
        place = _Place(runner, self._wake)
        context = contextvars.copy_context()
        context.run(current_place.set, place)
        with self._lock:
            self._places[queued.id] = place

        def ended(outcome: Outcome | None, error: BaseException | None) -> None:
            if queued.id in self._places:  # else it was left to the next worker
                self._note(queued.id, outcome, error)  # first, or it could be begun again
            with self._lock:
                self._places.pop(queued.id, None)
            self._wake.set()

        runner.submit(Job(lambda: _lived(flow, journal, queued.id), ended, is_async=flow.is_async, context=context))

    def _note(self, run_id: int, outcome: Outcome | None, error: BaseException | None) -> None:
        """Say what became of a run where the journal does not, and decide whether to go on."""
        self.finished += outcome is not None
        if outcome is not None and outcome.state is not None and outcome.state.is_crashed():
            self._refused.add(run_id)  # the task returned this state; taken up again, it would return it again
        reason = error.error if isinstance(error, RunHalted) else error
        if reason is None or isinstance(reason, RunOwnedError | OwnershipLostError):
            self._refusals = 0  # it ended, or another process has it
        elif isinstance(reason, DriftError | InDoubtError):
            _logger.warning("flow run %d is parked: %s", run_id, reason)
        elif isinstance(reason, _FAULTS) and not isinstance(reason, JournalCorruptError):
            self._fault = reason  # nothing can be written any more
        else:
            self._refuse(run_id, reason)

    def _refuse(self, run_id: int, reason: BaseException) -> None:
        self._refused.add(run_id)
        self._refusals += 1
        _logger.error(
            "flow run %d could not be run here and is left to another worker: %s: %s", run_id, type(reason).__name__, reason
        )
        if self._refusals >= REFUSED_LIMIT:
            self._fault = UsageError(
                f"{REFUSED_LIMIT} background runs in a row could not be run here, the last one (flow run {run_id}) because of "
                f"{type(reason).__name__}: {reason}. They wait on. Correct that and start the worker again."
            )

    # ---- stopping

    def _finish(self, journal: Journal) -> None:
        """Let finish what runs, for a limited time, and leave the rest to the next worker."""
        until = journal.clock.monotonic_seconds() + STOP_SECONDS
        if self._places:
            _logger.info("stopping: up to %d s are left for what runs (%d)", STOP_SECONDS, len(self._places))
        while self._places and self._fault is None and self._stops < 2:
            remaining = until - journal.clock.monotonic_seconds()
            if remaining <= 0:
                break
            self._wake.clear()
            if self._places:
                self._wake.wait(min(remaining, SLEEP_SECONDS))
        with self._lock:
            unfinished = list(self._places)
            self._places.clear()
        self.left = [run_id for run_id in unfinished if self._fault is None and give_up(journal, run_id, _LEFT)]
        if self.left:
            _logger.warning("stopped; left to the next worker: flow run %s", ", ".join(map(str, self.left)))
        elif self._fault is None:
            _logger.info("stopped; nothing was left undone")


_LEFT = "its worker was stopped; another one takes it up"


class _Place:
    """What one run counts for; see `distributed_futures.Place`."""

    __slots__ = ("_changed", "_lock", "_waits", "runner")

    def __init__(self, runner: object, changed: threading.Event) -> None:
        self.runner = runner
        self._changed = changed
        self._lock = threading.Lock()
        self._waits = 0  # threads and coroutines of the run that wait for other background runs

    @property
    def counts(self) -> bool:
        return not self._waits

    def leave(self) -> None:
        with self._lock:
            self._waits += 1
        self._changed.set()

    def come_back(self) -> None:
        with self._lock:
            self._waits -= 1


def _lived(flow: AnyFlow, journal: Journal, run_id: int) -> Steps[Outcome]:
    ended = yield from take_up(flow, journal, run_id, How("recovery", "none", by_person=False, is_found=True))
    return ended.outcome


def _flows_by_queue(tasks: tuple[Task[..., Any], ...]) -> dict[str, AnyFlow]:
    """Return the flow around each task by the queues it is found in: that of its key, and of earlier keys."""
    if not tasks:
        raise UsageError("There are no tasks to serve. Name them: serve(my_task, other_task)")
    flows: dict[str, AnyFlow] = {}
    for task in tasks:
        if not getattr(task, "__wfengine_task__", False):
            raise UsageError(f"serve() takes tasks, functions decorated with @task, and not {task!r}.")
        if queue_of(task.key) in flows:
            raise UsageError(
                f"Two of the tasks to serve have the key '{task.key}', so a call of one could be run as a call of the other. "
                f"Give one of them a key of its own: @task(key='{task.key}_2')."
            )
        flows[queue_of(task.key)] = task.as_flow(background=True)
    for task in tasks:
        for alias in task.aliases:
            flows.setdefault(queue_of(alias), task.as_flow(background=True))
    return flows


# ------------------------------------------------------------------------------------------- serve


def serve(
    *tasks: Task[..., Any],
    limit: int | None = DEFAULT_LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
) -> Coroutine[None, None, None] | None:
    """Run calls of these tasks that `delay` puts into their queues, at most `limit` at a time, until stopped.

    Blocks; in an event loop it returns a coroutine to await, as `aserve` does. SIGTERM and Ctrl-C stop it gracefully: what
    runs may finish, for at most 30 seconds; a second signal ends it at once. Nothing is lost either way. `timeout`: stop
    after so many seconds. While a file is loaded to find its tasks it does nothing.
    """
    if is_loading():
        note_skipped_call()
        return None
    _refuse_status_server(status_server_port)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        get_logger()  # shows on stderr what is logged, unless the program has configured logging
        TaskWorker(*tasks, limit=limit).start(timeout)
        return None
    return aserve(*tasks, limit=limit, timeout=timeout)


async def aserve(
    *tasks: Task[..., Any],
    limit: int | None = DEFAULT_LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
) -> None:
    """Do what `serve` does without stopping the event loop. Cancelled, it stops gracefully."""
    if is_loading():
        note_skipped_call()
        return
    _refuse_status_server(status_server_port)
    get_logger()
    worker = TaskWorker(*tasks, limit=limit)
    with _signals(worker):
        serving = asyncio.get_running_loop().run_in_executor(None, worker.run, timeout)
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            worker.stop()
            await serving
            raise


def _refuse_status_server(port: int | None) -> None:
    if port is not None:
        raise UsageError(
            "serve(status_server_port=...) is not there: nothing of wfengine listens unless it has to. What a worker "
            "does stands in the journal: wfengine runs ls"
        )


@contextlib.contextmanager
def _signals(worker: TaskWorker) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C stop the worker, as long as it is served from the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        worker.stopped_by = number
        worker.stop()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
