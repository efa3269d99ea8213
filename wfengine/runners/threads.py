"""Run submitted tasks on threads of this process, and submitted async tasks in an event loop on a thread.

What a task calls runs in another loop than the task itself: a task that waits for it without `await` stops its own loop,
and not the one that it waits for.

A worker leaves the commit of an outcome to the next commit, which is usually the beginning of its own next task; when
nothing is queued it commits itself. So under fan-out a task costs one shared commit.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from wfengine.in_flight import check_limit
from wfengine.runners import Job
from wfengine.steps import drive_async, drive_deferred
from wfengine.task_future import worker_hooks
from wfengine_journal.errors import JournalUnwritableError, RunHalted, UsageError, WfengineError
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    import asyncio

#: Tasks that run at the same time unless the user says otherwise. Threads that wait for other tasks do not count.
DEFAULT_MAX_WORKERS = 32
#: How long a closing runner waits for the thread of its event loop, in seconds.
CLOSE_SECONDS = 5.0

_numbers = itertools.count(1)


class ThreadTaskRunner:
    """At most `max_workers` tasks at a time, on threads started as they are needed. The default runner.

    A flow, or a task, that has submitted `max_in_flight` tasks that are not settled waits at its next submit (default: 10,000,
    and no limit in an event loop); see `docs/maps.md`.
    """

    __wfengine_by_name__ = True  # an option of a flow, which may stand in a local class

    max_in_flight: int | None = None

    def __init__(self, max_workers: int | None = None, *, max_in_flight: int | None = None) -> None:
        if max_workers is not None and max_workers < 1:
            raise UsageError(f"max_workers must be at least 1, not {max_workers!r}.")
        self.max_workers = max_workers or DEFAULT_MAX_WORKERS
        if max_in_flight is not None:
            check_limit(type(self).__name__, max_in_flight)
            self.max_in_flight = max_in_flight

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(type(self), max_in_flight=self.max_in_flight), (self.max_workers,)

    def start(self, journal: Journal) -> ThreadTaskRunner:
        """Return a running copy for one flow run."""
        return Running(self.max_workers, journal)

    def submit(self, job: Job) -> None:
        """See TaskRunner."""
        raise UsageError("A task runner has to be started by a flow: @flow(task_runner=ThreadTaskRunner()).")

    def cancel_queued(self) -> None:
        """See TaskRunner."""

    def close(self) -> None:
        """See TaskRunner."""


class Running(ThreadTaskRunner):
    """The runner of one flow run."""

    def __init__(self, max_workers: int, journal: Journal) -> None:
        super().__init__(max_workers)
        self.journal = journal
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._workers = 0
        self._idle = 0
        self._blocked = 0  # workers that wait for other tasks
        self._closed = False
        self._loops: dict[int, _Loop] = {}  # by depth of nesting

    def submit(self, job: Job) -> None:
        if self.takes_to_loop(job.is_async):
            self._submit_to_loop(job)
            return
        self._queue.append(job)
        # While every worker is busy the lock, which all of them share, is not needed: each looks into the queue before it
        # sleeps, and counts itself idle before it looks.
        if self._idle or self._workers - self._blocked < self.max_workers:
            with self._changed:
                if self._idle:
                    self._changed.notify()
                if len(self._queue) > self._idle:
                    try:
                        self._add_worker()
                    except JournalUnwritableError:
                        try:
                            self._queue.remove(job)  # whoever submits it settles it
                        except ValueError:
                            return  # a worker that waited for other tasks has it now
                        raise

    def takes_to_loop(self, is_async: bool) -> bool:
        """Tell whether a task is lived in an event loop, and not on a thread of its own."""
        return is_async

    def enter_thread(self) -> None:
        """Say to the engine, on each thread that is to live tasks, what is special about it."""
        worker_hooks.hooks = (self.lend, self.take_back)

    def _add_worker(self) -> None:
        """Start a thread if the limit allows (the lock is held).

        Raises JournalUnwritableError when there are no more threads, unless others will do the work, fewer than allowed.
        """
        if self._workers - self._blocked < self.max_workers and not self._closed:
            try:
                start_thread(f"wfengine-worker-{next(_numbers)}", self._work)
            except JournalUnwritableError:
                if self._workers <= self._blocked:
                    raise
            else:
                self._workers += 1

    def _work(self) -> None:
        self.enter_thread()
        while (job := self._next_job()) is not None:
            _run(job)
            job = None  # nor may its arguments be kept while this worker has nothing to do
            if self.journal.is_forked:
                os._exit(1)  # user code forked, and its child came back here, where there is no flow to go on with
            if not self._queue:
                self.journal.flush()

    def _next_job(self) -> Job | None:
        """Take a job, or wait for one; None: this worker is to end."""
        if self._workers - self._blocked <= self.max_workers:
            try:
                return self._queue.popleft()
            except IndexError:
                pass
        with self._changed:
            while self._workers - self._blocked <= self.max_workers or not self._queue:
                self._idle += 1
                try:
                    return self._queue.popleft()
                except IndexError:
                    if self._closed:
                        break
                    self._changed.wait()
                finally:
                    self._idle -= 1
            self._workers -= 1  # closed, or: one that was blocked works again, and this one is too many
            if self._queue:
                self._changed.notify()  # the call that woke this one was meant for a worker that stays
            return None

    def resize(self, max_workers: int) -> None:
        """Allow so many tasks at a time from now on; those that run go on. Does not block."""
        with self._changed:
            self.max_workers = max_workers
            self._changed.notify_all()
            for _ in range(len(self._queue) - self._idle):
                self._add_worker()

    def lend(self) -> None:
        """Let another task run meanwhile: the calling thread begins to wait."""
        self.journal.flush()  # what this worker left to the next commit may be what it waits for
        with self._changed:
            self._blocked += 1
            if self._queue and not self._idle:
                try:
                    self._add_worker()
                except JournalUnwritableError:
                    self._blocked -= 1
                    raise

    def take_back(self) -> None:
        """See `lend`: it goes on."""
        with self._changed:
            self._blocked -= 1

    def _submit_to_loop(self, job: Job) -> None:
        with self._changed:
            loop = self._loops.get(job.depth)
            if loop is None:
                loop = self._loops[job.depth] = _Loop(self, job.depth)
        loop.submit(job)

    def cancel_queued(self) -> None:
        while True:
            try:
                job = self._queue.popleft()
            except IndexError:
                return
            job.settle(None, RunHalted(WfengineError("The flow run was stopped before this task began.")))

    def close(self) -> None:
        self.cancel_queued()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for loop in self._loops.values():
            loop.close()


def _run(job: Job) -> None:
    context = cast(contextvars.Context, job.context)
    context.run(drive_deferred, job.steps(), job.settle)


class _Loop:
    """An event loop on a thread of its own, for the async tasks of one flow run at one depth of nesting."""

    def __init__(self, runner: object, depth: int) -> None:
        import asyncio

        self._place = (runner, depth)

        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: deque[Job] = deque()
        self._wake_due = False
        self._thread = start_thread(f"wfengine-loop-{next(_numbers)}", self._run)

    def _run(self) -> None:
        worker_hooks.loop = self._place
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        if not self._wake_due:  # one wake for all that is submitted until the loop looks: a wake costs a system call
            self._wake_due = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._wake_due = False  # before the look: what is submitted from now on wakes the loop again
        while self._jobs:
            job = self._jobs.popleft()
            task = self._loop.create_task(_live(job), context=cast(contextvars.Context, job.context))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        def cancel_and_stop() -> None:
            for task in self._tasks:
                task.cancel()
            self._loop.call_soon(self._loop.stop)

        self._loop.call_soon_threadsafe(cancel_and_stop)
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)


async def _live(job: Job) -> None:
    settle: Callable[..., None] = job.settle
    try:
        outcome = await drive_async(job.steps())
    except BaseException as error:
        settle(None, error)
    else:
        settle(outcome, None)
