"""On a worker of Dask: carry out an order. What it asks and is answered goes by way of the scheduler, see `dask_exchange`.

A task that waits for an answer lends its thread to others: else tasks that wait for tasks would keep all threads, and the
tasks they wait for none.
"""

from __future__ import annotations

import contextvars
import pickle
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import time
from typing import Any, cast

from distributed import Worker, get_worker, rejoin
from distributed.core import Status
from distributed.threadpoolexecutor import thread_state, threads_lock
from distributed.worker_state_machine import SecedeEvent

from wfengine.runners.away import become_worker_process
from wfengine.runners.dask_exchange import FROM_WORKER, TO_WORKER, Kept
from wfengine.runners.messages import Order
from wfengine.runners.worker import perform
from wfengine_journal.errors import RunHalted, UsageError

#: How long an answer may take before the thread that waits for it is lent, in seconds: many come sooner.
LEND_SECONDS = 0.02
#: How often one who waits looks whether its worker is about to end, in seconds.
LOOK_SECONDS = 5.0

_GONE = object()


def carry_out(key: str, client: str, data: bytes, notice: bool) -> None:
    """Carry out an order, unless another worker did or does. This is what Dask runs; its result goes another way."""
    become_worker_process()
    worker = get_worker()
    post = _post_of(worker)
    wire = _Wire(post, key, client, _Place(key, worker))
    post.wires[key] = wire
    try:
        if not wire.begins(notice):
            return
        order, parcels = pickle.loads(data)
        wire.say("done", data=wire.perform(order, parcels))
    except RunHalted:
        return  # it was given up before it began
    finally:
        del post.wires[key]
        wire.take("gone")  # threads that the code left behind
        wire.place.end()


class _Post:
    """What one worker shares for all its orders."""

    def __init__(self, worker: Worker) -> None:
        self.wires: dict[str, _Wire] = {}
        self.parcels = _Parcels()
        self._worker = weakref.ref(worker)
        worker.stream_handlers[TO_WORKER] = self._take

    def _take(self, key: str, **what: Any) -> None:
        """Take what came, on the thread of the worker's event loop."""
        wire = self.wires.get(key)
        if wire is None:
            return
        wire.take(**what)
        if what["kind"] == "gone":  # at once, before Dask forgets the task: then it does not count as one that runs
            event = wire.place.lend()
            worker = self._worker()
            if event is not None and worker is not None:
                worker.handle_stimulus(event)

    def say(self, message: dict[str, object]) -> None:
        worker = self._worker()
        if worker is not None:
            worker.loop.add_callback(worker.batched_send, message)

    @property
    def is_ending(self) -> bool:
        worker = self._worker()
        return worker is None or worker.status not in (Status.running, Status.paused)


_posts: weakref.WeakKeyDictionary[Worker, _Post] = weakref.WeakKeyDictionary()
_posts_lock = threading.Lock()


def _post_of(worker: Worker) -> _Post:
    with _posts_lock:
        post = _posts.get(worker)
        if post is None:
            post = _posts[worker] = _Post(worker)
        return post


class _Parcels:
    """The parcels that were sent to this worker, of which those used last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = Kept()
        self._fetching: dict[str, threading.Lock] = {}

    def get(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Return a parcel; it is fetched once, whoever else wants it too."""
        with self._lock:
            turn = self._fetching.setdefault(name, threading.Lock())
        with turn:
            with self._lock:
                data = self._kept.find(name)
            if data is None:
                data = fetch()
            with self._lock:
                self._kept.put(name, data)
                self._fetching.pop(name, None)
        return data


class _Place:
    """One of a worker's threads, which has an order to carry out, and can be lent meanwhile.

    `distributed.secede` does that for the thread that calls it. Here others do it too: those which the code started, and the
    worker's event loop when nobody waits for the order any more, so that code which cannot be stopped is in nobody's way.
    """

    def __init__(self, key: str, worker: Worker) -> None:
        self._key = key
        self._worker = worker
        self._thread = threading.current_thread()
        self._executor = thread_state.executor
        self._began = time()
        self._lock = threading.Lock()
        self._is_lent = False
        self._is_over = False

    @property
    def is_here(self) -> bool:
        """Whether the caller is that thread."""
        return threading.current_thread() is self._thread

    def lend(self) -> SecedeEvent | None:
        """Let another thread take its place; return what the worker has to be told, once."""
        with self._lock:
            if self._is_lent or self._is_over:
                return None
            self._is_lent = True
            self._leave()
        return SecedeEvent(key=self._key, compute_duration=time() - self._began, stimulus_id=f"secede-{time()}")

    def _leave(self) -> None:
        with threads_lock:
            self._executor._threads.discard(self._thread)  # noqa: SLF001 - see above
            self._executor._adjust_thread_count()  # noqa: SLF001

    def lend_from_elsewhere(self) -> None:
        """Lend it, on any thread but the one of the event loop."""
        event = self.lend()
        if event is not None:
            self._worker.loop.add_callback(self._worker.handle_stimulus, event)

    def take_back(self) -> None:
        """Wait until another thread makes room for this one."""
        with self._lock:
            was_lent, self._is_lent = self._is_lent, False
        if was_lent:
            rejoin()
        with self._lock:
            if self._is_lent:  # again, while it waited: it has the place all the same now, and would leave with it
                self._leave()

    def end(self) -> None:
        """The order is carried out: if the thread has no place any more, it ends."""
        with self._lock:
            self._is_over = True
            if self._is_lent:
                thread_state.proceed = False


def _context() -> contextvars.Context:
    """Return a context for code of a user: it knows Dask's worker, but no flow that runs in the same process."""
    context = contextvars.Context()
    for variable, value in contextvars.copy_context().items():
        if not variable.name.startswith("wfengine"):
            context.run(variable.set, value)
    return context


class _Wire:
    """See `worker.Wire`: the way to the flow's process, for one order."""

    def __init__(self, post: _Post, key: str, client: str, place: _Place) -> None:
        self._post = post
        self._key = key
        self._client = client
        self.place = place
        self._waiting: dict[object, SimpleQueue[object]] = {}
        self._is_gone = False

    def begins(self, notice: bool) -> bool:
        """Ask whether this is the first time that the order is carried out."""
        return self._asked("begin", "begin", client=self._client, notice=notice) is True

    def perform(self, order: Order, parcels: dict[str, bytes]) -> bytes:
        """Run the code; return what came of it."""

        def parcel(name: str) -> bytes:
            return parcels[name] if name in parcels else self._post.parcels.get(name, lambda: self._fetched(name))

        return perform(order, self, parcel, _context())

    def _fetched(self, name: str) -> bytes:
        return cast(bytes, self._asked(name, "parcel", thread=name))

    def ask(self, thread: int, what: bytes) -> bytes:
        """See Wire."""
        return cast(bytes, self._asked(thread, "ask", thread=thread, data=what))

    def tell(self, what: bytes) -> None:
        """See Wire."""
        self.say("tell", data=what)

    def say(self, kind: str, **what: object) -> None:
        """Say something."""
        self._post.say({"op": FROM_WORKER, "key": self._key, "kind": kind, **what})

    def take(self, kind: str, thread: object = None, data: object = None) -> None:
        """Take what was answered; must not block."""
        if kind == "gone":
            self._is_gone = True
            for waiting in list(self._waiting.values()):
                waiting.put(_GONE)
            return
        waiting_one = self._waiting.get("begin" if kind == "begin" else thread)
        if waiting_one is not None:
            waiting_one.put(data)

    def _asked(self, place: object, kind: str, **what: object) -> object:
        """Say something that is answered, and wait for that. Raises RunHalted when nobody is there to answer any more."""
        waiting = self._waiting[place] = SimpleQueue()
        try:
            self.say(kind, **what)
            answer = _GONE if self._is_gone else self._wait(waiting) if kind == "ask" else self._wait_long(waiting)
        finally:
            del self._waiting[place]
        if answer is _GONE:
            raise RunHalted(UsageError("The flow's process is gone, or waits for this task no more."))
        return answer

    def _wait(self, waiting: SimpleQueue[object]) -> object:
        """Wait for an answer; if it is not there soon, lend this thread meanwhile."""
        try:
            return waiting.get(timeout=LEND_SECONDS)
        except Empty:
            pass
        self.place.lend_from_elsewhere()
        try:
            return self._wait_long(waiting)
        finally:
            if self.place.is_here and not self._is_gone:
                self.place.take_back()

    def _wait_long(self, waiting: SimpleQueue[object]) -> object:
        while not self._post.is_ending:
            try:
                return waiting.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
        return _GONE
