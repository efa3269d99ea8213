"""On a worker of Dask: carry out an order. What it asks and is answered goes by way of the scheduler, see `dask_exchange`.

A task that waits for an answer lends its thread to others, as `distributed.secede` has it: else tasks that wait for tasks would
keep all threads, and the tasks they wait for none.
"""

from __future__ import annotations

import contextvars
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, cast

from distributed import Worker, get_worker, rejoin, secede
from distributed.core import Status

from wfengine.runners.dask_exchange import FROM_WORKER, TO_WORKER
from wfengine.runners.messages import Order
from wfengine.runners.worker import perform
from wfengine_journal.errors import RunHalted, UsageError
from wfengine_journal.threads import start_thread

#: How long an answer may take before the thread that waits for it is lent, in seconds: many come sooner.
LEND_SECONDS = 0.02
#: How often one who waits looks whether its worker is about to end, in seconds.
LOOK_SECONDS = 5.0
#: Parcels that a worker keeps for tasks to come, in bytes.
KEPT_BYTES = 256 << 20

_GONE = object()
_LEND = object()


def carry_out(key: str, client: str, data: bytes, notice: bool) -> None:
    """Carry out an order, unless another worker did or does. This is what Dask runs; its result goes another way."""
    post = _post_of(get_worker())
    wire = _Wire(post, key, client)
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
        if wire is not None:
            wire.take(**what)

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
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._fetching: dict[str, threading.Lock] = {}

    def get(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Return a parcel; it is fetched once, whoever else wants it too."""
        with self._lock:
            turn = self._fetching.setdefault(name, threading.Lock())
        with turn:
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
                    return self._kept[name]
            data = fetch()
            with self._lock:
                self._keep(name, data)
        return data

    def _keep(self, name: str, data: bytes) -> None:
        self._kept[name] = data
        self._bytes += len(data)
        self._fetching.pop(name, None)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _context() -> contextvars.Context:
    """Return a context for code of a user: it knows Dask's worker, but no flow that runs in the same process."""
    context = contextvars.Context()
    for variable, value in contextvars.copy_context().items():
        if not variable.name.startswith("wfengine"):
            context.run(variable.set, value)
    return context


class _Wire:
    """See `worker.Wire`: the way to the flow's process, for one order."""

    def __init__(self, post: _Post, key: str, client: str) -> None:
        self._post = post
        self._key = key
        self._client = client
        self._thread = threading.get_ident()  # of Dask's own
        self._waiting: dict[object, SimpleQueue[object]] = {}
        self._is_gone = False
        self._attendant: SimpleQueue[object] | None = None

    def begins(self, notice: bool) -> bool:
        """Ask whether this is the first time that the order is carried out."""
        return self._asked("begin", "begin", client=self._client, notice=notice) is True

    def perform(self, order: Order, parcels: dict[str, bytes]) -> bytes:
        """Run the code; return what came of it."""

        def parcel(name: str) -> bytes:
            return parcels[name] if name in parcels else self._post.parcels.get(name, lambda: self._fetched(name))

        context = _context()
        if not order.is_async:
            return perform(order, self, parcel, context)
        return self._attended(lambda: perform(order, self, parcel, context))

    def _fetched(self, name: str) -> bytes:
        return cast(bytes, self._asked(name, "parcel", thread=name))

    def _attended(self, run: Callable[[], bytes]) -> bytes:
        """Run something on another thread, for which this one, Dask's, is lent when it waits."""
        attendant: SimpleQueue[object] = SimpleQueue()
        self._attendant = attendant

        def work() -> None:
            data: object = None
            try:
                data = run()
            finally:
                attendant.put(data)

        start_thread("wfengine-order", work)
        is_lent = False
        while (said := attendant.get()) is _LEND:
            if not is_lent:
                secede()
                is_lent = True
        return cast(bytes, said)

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
            answer = _GONE if self._is_gone else self._wait(waiting)
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
        if threading.get_ident() != self._thread:
            if self._attendant is not None:
                self._attendant.put(_LEND)
            return self._wait_long(waiting)
        secede()
        try:
            return self._wait_long(waiting)
        finally:
            rejoin()

    def _wait_long(self, waiting: SimpleQueue[object]) -> object:
        while not self._post.is_ending:
            try:
                return waiting.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
        return _GONE
