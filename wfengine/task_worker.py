"""Serve tasks: run in this process what `delay` puts into their queues, in whichever process.

A worker looks for runs of its tasks, oldest first: those that wait, and those whose worker died; what it does with them is
in `run_worker`. It is stopped by SIGTERM, Ctrl-C, `stop`, or the end of `timeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from wfengine.background import queue_of
from wfengine.flow_engine import How, take_up
from wfengine.journals import default_journal
from wfengine.loading import is_loading, note_skipped_call
from wfengine.logging import get_logger
from wfengine.ownership import sweep
from wfengine.run_worker import DEFAULT_LIMIT, MOST_RUNS, RunWorker
from wfengine.scopes import current_scope
from wfengine.signal_handling import handling
from wfengine.steps import Outcome, Steps
from wfengine_journal.background import list_cut_off, list_ready, list_running
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.runners.threads import ThreadTaskRunner
    from wfengine.tasks import Task
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.task_worker")

#: Runs that a worker could not begin, one after another, before it stops: most likely it lacks a module they need.
REFUSED_LIMIT = 100


class TaskWorker(RunWorker):
    """Runs background calls of some tasks in this process, at most `limit` at a time (None: as many as come, up to 1000).

    A run that waits for another background run does not count; when it goes on there may be one more for a while.
    """

    _log = _logger

    def __init__(self, *tasks: Task[..., Any], limit: int | None = DEFAULT_LIMIT) -> None:
        super().__init__(limit)
        self.tasks = tasks
        self._flows = _flows_by_queue(tasks)
        self._refusals = 0  # one after another
        self.stopped_by: int | None = None  # the signal that asked

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
        names = ", ".join(f"'{task.name}'" for task in self.tasks)
        _logger.info("serving %s from %s, at most %s at a time", names, journal.path, self.limit or MOST_RUNS)
        self.work(journal, timeout=timeout, until_empty=until_empty)
        if self.fault is not None:
            raise self.fault

    def sweep(self, journal: Journal) -> None:
        """See RunWorker."""
        sweep(journal, list_running(journal.records, self._flows))

    def begin_what_waits(self, journal: Journal, runner: ThreadTaskRunner) -> bool:
        """See RunWorker."""
        free = self.free_places()
        if free <= 0:
            return False
        passed_over = self._refused | set(self._places)
        most = free + len(passed_over)
        found = [*list_cut_off(journal.records, self._flows, most), *list_ready(journal.records, self._flows, most)]
        begun = [queued for queued in sorted(found) if queued.id not in passed_over][:free]
        for queued in begun:
            flow = self._flows[queued.queue]
            steps = functools.partial(_lived, flow, journal, queued.id)
            self.begin(runner, queued.id, self.occupy(runner, queued.id), steps, is_async=flow.is_async)
        return len(begun) < free

    def accept(self) -> None:
        """See RunWorker."""
        self._refusals = 0

    def refuse(self, run_id: int, reason: BaseException) -> None:
        """See RunWorker. After many in a row it ends: most likely it lacks a module they need."""
        self._refused.add(run_id)
        self._refusals += 1
        _logger.error(
            "flow run %d could not be run here and is left to another worker: %s: %s", run_id, type(reason).__name__, reason
        )
        if self._refusals >= REFUSED_LIMIT:
            self.fault = UsageError(
                f"{REFUSED_LIMIT} background runs in a row could not be run here, the last one (flow run {run_id}) because of "
                f"{type(reason).__name__}: {reason}. They wait on. Correct that and start the worker again."
            )


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


def _signals(worker: TaskWorker) -> contextlib.AbstractContextManager[None]:
    """Let SIGTERM and Ctrl-C stop the worker, as long as it is served from the main thread."""

    def stop(number: int) -> None:
        worker.stopped_by = number
        worker.stop()

    return handling((signal.SIGTERM, signal.SIGINT), stop)
