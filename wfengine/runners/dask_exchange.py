"""On a Dask scheduler: carries what is said between flows' processes and the workers that run code of tasks for them.

Both have a connection to the scheduler anyway, and need none to each other. What passes through here is not kept, but for the
parcels used last: one that many workers want comes from the flow's process once.

This is also where the code of an order is begun once and never again. Dask runs a task again when its worker, or the one that
holds its result, is gone; behind the journal's back. So a worker asks before it begins, and the first that asks for an order
may; whatever Dask makes of the task, no other does. That takes one message there and back, and holds on every cluster,
however it is set up and whichever way a task gets to a second worker.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from distributed.comm.core import CommClosedError
from distributed.diagnostics.plugin import SchedulerPlugin

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

#: Ends each name below; raised when messages change, so that flows of two versions of wfengine can share a cluster.
VERSION = 1
FROM_WORKER = f"wfengine-from-worker-{VERSION}"
FROM_CLIENT = f"wfengine-from-client-{VERSION}"
TO_WORKER = f"wfengine-to-worker-{VERSION}"
TOPIC = f"wfengine-{VERSION}"
#: How the key of a Dask task begins that is an order of ours.
PREFIX = "wfengine:"

# What is said. To a worker: begin, answer, parcel, gone. From one: begin, ask, tell, parcel, done.
# To a flow's process: began, ask, tell, parcel, done, lost, unbegun, threads. From one: hello, answer, parcel.


#: Parcels that the scheduler keeps, and each worker, in bytes.
KEPT_BYTES = 256 << 20


class Kept:
    """The parcels that were used last, up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._parcels: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def find(self, name: str) -> bytes | None:
        """Return a parcel, if it is kept."""
        data = self._parcels.get(name)
        if data is not None:
            self._parcels.move_to_end(name)
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a parcel, and drop others for it."""
        if name not in self._parcels:
            self._parcels[name] = data
            self._bytes += len(data)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._parcels.popitem(last=False)[1])


class Exchange(SchedulerPlugin):
    """What stands between flows' processes and workers."""

    name = f"wfengine-exchange-{VERSION}"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """See SchedulerPlugin."""
        self._scheduler = scheduler
        self._begun: dict[str, tuple[str, str]] = {}  # an order: its client and its worker, while Dask knows of it
        self._running: dict[str, set[str]] = {}  # a worker: orders that it carries out
        self._clients: set[str] = set()
        self._parcels = Kept()
        self._wanted: dict[str, dict[str, None]] = {}  # a parcel that was asked for: the orders that wait for it
        scheduler.stream_handlers[FROM_WORKER] = self.from_worker
        scheduler.stream_handlers[FROM_CLIENT] = self.from_client

    # ---- what is said

    def from_worker(self, worker: str, key: str, kind: str, **what: Any) -> None:
        """Take what a worker says."""
        if kind == "begin":
            self._begin(worker, key, **what)
            return
        client, its_worker = self._begun.get(key, ("", ""))
        if kind == "parcel" and its_worker == worker:
            self._want(what["thread"], key)
        elif its_worker != worker or not self._to_client(client, {"key": key, "kind": kind, **what}):
            self._to_worker(worker, {"key": key, "kind": "gone"})
        elif kind == "done":
            self._running[worker].discard(key)

    def _begin(self, worker: str, key: str, client: str, notice: bool) -> None:
        """Let a worker begin an order, or not."""
        may = key not in self._begun and key in self._scheduler.tasks and client in self._scheduler.clients
        if may:
            self._begun[key] = client, worker
            self._running.setdefault(worker, set()).add(key)
        self._to_worker(worker, {"key": key, "kind": "begin", "data": may})
        if may and notice:
            self._to_client(client, {"key": key, "kind": "began"})

    def from_client(self, client: str, kind: str, key: str = "", **what: Any) -> None:
        """Take what a flow's process says."""
        if kind == "hello":
            self._clients.add(client)
            self._to_client(client, {"kind": "threads", "data": self._scheduler.total_nthreads})
            return
        if kind == "parcel":
            self._bring(what["thread"], what["data"])
            return
        its_client, worker = self._begun.get(key, ("", ""))
        if its_client == client:
            self._to_worker(worker, {"key": key, "kind": kind, **what})

    def _want(self, name: str, key: str) -> None:
        """Get a parcel for an order: from here, or from its client, unless it was asked already."""
        data = self._parcels.find(name)
        if data is not None:
            self._to_worker(self._begun[key][1], {"key": key, "kind": "parcel", "thread": name, "data": data})
            return
        waiting = self._wanted.setdefault(name, {})
        waiting[key] = None
        if len(waiting) == 1:
            self._fetch(name)

    def _fetch(self, name: str) -> None:
        """Ask the client of the first order that waits for a parcel."""
        key = next(iter(self._wanted[name]))
        self._to_client(self._begun[key][0], {"key": key, "kind": "parcel", "thread": name})

    def _bring(self, name: str, data: bytes) -> None:
        self._parcels.put(name, data)
        for key in self._wanted.pop(name, ()):
            self._to_worker(self._begun[key][1], {"key": key, "kind": "parcel", "thread": name, "data": data})

    def _want_no_more(self, key: str) -> None:
        """An order is over; if its client was asked for a parcel that others want too, ask the next one."""
        for name, waiting in list(self._wanted.items()):
            if key in waiting:
                was_asked = next(iter(waiting)) == key
                del waiting[key]
                if not waiting:
                    del self._wanted[name]
                elif was_asked:
                    self._fetch(name)

    def _to_client(self, client: str, message: dict[str, Any]) -> bool:
        """Send to a flow's process, as an event that nobody keeps; False if it is gone."""
        stream = self._scheduler.client_comms.get(client)
        if stream is None or client not in self._scheduler.clients:
            return False
        with contextlib.suppress(CommClosedError):
            stream.send({"op": "event", "topic": TOPIC, "event": (0, message)})
            return True
        return False

    def _to_worker(self, worker: str, message: dict[str, Any]) -> None:
        stream = self._scheduler.stream_comms.get(worker)
        if stream is not None:
            with contextlib.suppress(CommClosedError):
                stream.send({"op": TO_WORKER, **message})

    # ---- what happens

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """See SchedulerPlugin."""
        if finish == "forgotten" and key in self._begun:
            client, worker = self._begun[key]
            if self._end(key, client, worker, "Dask was told to forget it"):
                self._to_worker(worker, {"key": key, "kind": "gone"})
            self._want_no_more(key)
            del self._begun[key]
        elif finish == "erred" and isinstance(key, str) and key.startswith(PREFIX):
            said = kwargs.get("exception_text")  # of Dask's own code, as ours raises nothing; None: it blames a death
            why = str(said or "workers died again and again before they began it")
            if key in self._begun:
                client, worker = self._begun[key]
                self._end(key, client, worker, str(said or _died(worker)))
            else:
                for who in self._scheduler.tasks[key].who_wants or ():
                    self._to_client(who.client_key, {"key": key, "kind": "unbegun", "data": why})

    def _end(self, key: str, client: str, worker: str, why: str) -> bool:
        """Tell the flow's process of an order whose end will not be told by its worker; False if it was told before."""
        running = self._running.get(worker, set())
        if key not in running:
            return False
        running.discard(key)
        self._to_client(client, {"key": key, "kind": "lost", "data": why})
        return True

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """See SchedulerPlugin."""
        self._tell_threads()

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str = "", **kwargs: Any) -> None:
        """See SchedulerPlugin."""
        for key in list(self._running.get(worker, ())):
            self._end(key, *self._begun[key], _died(worker))
        self._running.pop(worker, None)
        self._tell_threads()

    def _tell_threads(self) -> None:
        for client in self._clients:
            self._to_client(client, {"kind": "threads", "data": self._scheduler.total_nthreads})

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """See SchedulerPlugin. Its orders were forgotten before."""
        self._clients.discard(client)


def _died(worker: str) -> str:
    return f"its worker {worker} died, or left the cluster"
