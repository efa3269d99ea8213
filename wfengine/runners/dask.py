"""Run the code of tasks on the workers of a Dask cluster: one that is there, or one of the run's own on this machine.

Each order is one Dask task. Everything besides - whether it may begin, what its code asks and is answered, what came of it -
goes by way of the scheduler (`dask_exchange`), to which both sides have a connection anyway; what carries it out there is
`dask_worker`. So Dask's own results stay empty, and no result is fetched from a worker that may be gone.

This module can be imported without Dask.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

from wfengine.runners.messages import Ask, Done, Lost, Order, Tell
from wfengine.runners.remote import Inboxes, Line, RemoteTaskRunner, Workers
from wfengine.runners.threads import Running, ThreadTaskRunner
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal

#: Tasks in flight for each thread of the cluster: while one runs, the next is on its way.
IN_FLIGHT_PER_THREAD = 2
#: In flight at the least where workers come as they are needed, which Dask decides by what waits.
IN_FLIGHT_AT_LEAST = 32
#: A parcel that is smaller goes with every order, in bytes; a larger one is sent when a worker does not have it.
INLINE_BYTES = 8 << 10
#: How often one who waits for a worker looks whether the run was halted just when nobody could wake it, in seconds.
LOOK_SECONDS = 5.0
#: How often an order is given again that Dask gave up before its code began.
GIVEN_AGAIN = 5
#: When a LocalCluster of the run's own gives up a worker that died: never.
LOST_WORKER_TIMEOUT = "10000 days"

_logger = logging.getLogger("wfengine.runners.dask")


class DaskTaskRunner(RemoteTaskRunner):
    """Run tasks on a Dask cluster: at an `address`, on a `cluster`, on one made for each flow run, or on this machine.

    - `address`: of a scheduler, as "tcp://host:8786". It is left as it is when the run ends.
    - `cluster`: a cluster object that is there, which is left as it is too.
    - `cluster_class`, `cluster_kwargs`: what makes a cluster when a flow run submits its first task, a class or the name of one
      such as "dask_kubernetes.operator.KubeCluster"; it is closed with the run. Default: `distributed.LocalCluster`, as many
      processes as there are processors, on this machine's own network only, without a dashboard.
    - `adapt_kwargs`: lets that cluster grow and shrink, as `cluster.adapt(minimum=0, maximum=20)`.
    - `client_kwargs`: for `distributed.Client`, as `{"timeout": 60, "security": Security(...)}`.
    - `max_workers`: tasks that are with the cluster at a time; default: twice its threads, as they come and go.
    - `max_in_flight`: see ThreadTaskRunner.

    A task's `resources={"GPU": 1}` are those that a Dask worker is started with; `dask.annotate(...)` around a submit holds
    too. Needs the package distributed here, and wfengine on the scheduler and the workers.
    """

    given_up = "A task on Dask cannot be stopped while it computes: whatever it returns is discarded."

    def __init__(
        self,
        address: str | None = None,
        *,
        cluster: object = None,
        cluster_class: str | Callable[..., object] | None = None,
        cluster_kwargs: Mapping[str, object] | None = None,
        adapt_kwargs: Mapping[str, object] | None = None,
        client_kwargs: Mapping[str, object] | None = None,
        max_workers: int | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        super().__init__(max_workers, max_in_flight=max_in_flight)
        if sum(each is not None for each in (address, cluster, cluster_class)) > 1:
            raise UsageError("DaskTaskRunner: give one of address, cluster and cluster_class.")
        if (cluster_kwargs or adapt_kwargs) and (address or cluster):
            raise UsageError("DaskTaskRunner: cluster_kwargs and adapt_kwargs are for a cluster that the runner itself makes.")
        if (cluster_kwargs or {}).get("asynchronous") or (client_kwargs or {}).get("asynchronous"):
            raise UsageError("DaskTaskRunner: asynchronous=True is not possible here. Leave it out.")
        self._address = address
        self._cluster = cluster
        self._cluster_class = cluster_class
        self._cluster_kwargs = dict(cluster_kwargs or {})
        self._adapt_kwargs = dict(adapt_kwargs or {})
        self._client_kwargs = dict(client_kwargs or {})
        self._keeps_up = max_workers is None

    def __reduce__(self) -> tuple[type[DaskTaskRunner], tuple[()]]:
        # It is an option of a flow or task that goes to a worker, where it starts nothing; what it connects with stays here.
        return type(self), ()

    def start(self, journal: Journal) -> ThreadTaskRunner:
        """See RemoteTaskRunner."""
        running = super().start(journal)
        cast(_OnDask, cast(Any, running).workers).serve(cast(Running, running), self._keeps_up, bool(self._adapt_kwargs))
        return running

    def open_workers(self, journal: Journal) -> Workers:
        """See RemoteTaskRunner."""
        try:
            importlib.import_module("wfengine.runners.dask_worker")
        except ImportError as error:
            raise UsageError("Running tasks on Dask needs the package distributed: pip install 'wfengine[dask]'") from error
        own = None if self._address or self._cluster is not None else self._made_cluster()
        cluster: Any = self._cluster if own is None else own
        try:
            if str(getattr(cluster, "scheduler_address", "")).startswith("inproc:"):
                raise UsageError(
                    "DaskTaskRunner: a cluster inside this process (processes=False) only does what threads do. Leave "
                    "processes=False out, or use ThreadTaskRunner()."
                )
            if own is not None and self._adapt_kwargs:
                own.adapt(**self._adapt_kwargs)
            return _OnDask(self._connected(cluster), own)
        except BaseException:
            if own is not None:
                own.close()
            raise

    def _made_cluster(self) -> Any:
        make = self._cluster_class
        kwargs = dict(self._cluster_kwargs)
        if make is None:
            from distributed import LocalCluster

            _be_patient()
            make, kwargs = LocalCluster, _quiet(kwargs)
        elif isinstance(make, str):
            make = _named(make)
        return make(**kwargs)

    def _connected(self, cluster: object) -> Any:
        from distributed import Client

        place = cluster if cluster is not None else self._address
        try:
            return Client(place, **{"set_as_default": False, **self._client_kwargs})
        except (OSError, TimeoutError) as error:
            raise UsageError(
                f"The Dask scheduler at {getattr(place, 'scheduler_address', place)} cannot be reached: {error}. See that it "
                "runs (dask scheduler), or give more time: DaskTaskRunner(..., client_kwargs={'timeout': 60})."
            ) from error


def _quiet(kwargs: dict[str, object]) -> dict[str, object]:
    """Return options of a LocalCluster: no dashboard unless it is asked for, and its port for figures is any that is free."""
    kwargs = {"silence_logs": logging.ERROR, **kwargs}  # of dead workers we tell ourselves
    if "dashboard_address" in kwargs:
        return kwargs
    scheduler = {"dashboard": False, "dashboard_address": "127.0.0.1:0", **cast(Any, kwargs.get("scheduler_kwargs", {}))}
    return {**kwargs, "dashboard_address": None, "scheduler_kwargs": scheduler}


def _be_patient() -> None:
    """Let a LocalCluster give up no worker that died and is started again.

    So long after each death, which is 15 seconds as Dask comes, it looks whether the worker is there, and if not, ends it for
    good. Where workers die again and again it finds one that died just now, sooner or later each of them; when the last one
    is given up, the tasks wait for ever. What somebody has set otherwise stays.
    """
    import dask

    place = "distributed.deploy.lost-worker-timeout"
    if dask.config.get(place) == "15s":  # what Dask itself comes with
        dask.config.set({place: LOST_WORKER_TIMEOUT})


def _named(name: str) -> Callable[..., object]:
    module, _, rest = name.rpartition(".")
    try:
        return cast(Callable[..., object], getattr(importlib.import_module(module), rest))
    except (ImportError, AttributeError, ValueError) as error:
        text = f"DaskTaskRunner: there is no cluster_class {name!r}: {error}. Write 'package.module.Class'."
        raise UsageError(text) from error


class _Said:
    """What became of one order so far."""

    def __init__(self, line: Line, order: Order, parcels: Mapping[str, bytes], hints: Mapping[str, object]) -> None:
        self.line = line
        self.order = order
        self.parcels = parcels
        self.hints = dict(hints) or None
        self.inboxes = Inboxes(line)
        line.forget = self.inboxes.forget
        self.has_begun = threading.Event()  # only set for one that has a limit; or: there is something else to see
        self.key = ""
        self.future: Any = None  # of Dask
        self.times_given = 0


class _OnDask:
    """The workers of a cluster, for one flow run. See `Workers`."""

    def __init__(self, client: Any, own: Any) -> None:
        from distributed import Future

        from wfengine.runners import dask_exchange as exchange
        from wfengine.runners.dask_worker import carry_out  # both import Dask

        self._client = client
        self._own = own
        self._exchange = exchange
        self._carry_out = carry_out
        self._lock = threading.Lock()
        self._said: dict[str, _Said] = {}  # by key of the Dask task
        self._lost: str | None = None  # why nothing can be given to the cluster any more
        self._resize: Callable[[int], None] = lambda threads: None
        try:
            client.register_plugin(exchange.Exchange())
        except Exception as error:
            client.close()
            raise UsageError(
                f"The Dask scheduler cannot load wfengine: {type(error).__name__}: {error}. Install the same version of "
                "wfengine on the scheduler and on all workers as here."
            ) from error
        client.subscribe_topic(exchange.TOPIC, self._take)
        # Dask cancels all futures when the scheduler is lost or restarted. This one stands for all of ours.
        self._sentinel: Any = Future(f"wfengine-connection-{uuid.uuid4().hex}", client)
        self._sentinel.add_done_callback(self._connection_lost)

    def serve(self, running: Running, keeps_up: bool, is_adaptive: bool) -> None:
        """Keep the number of tasks in flight what it should be, if that was not said."""

        def resize(threads: int) -> None:
            wanted = IN_FLIGHT_PER_THREAD * threads
            running.resize(max(wanted, IN_FLIGHT_AT_LEAST) if is_adaptive or threads == 0 else wanted)

        if keeps_up:
            self._resize = resize
            self._post({"kind": "hello"})

    # ---- to the workers

    def begin(self, line: Line, order: Order, parcels: Mapping[str, bytes], hints: Mapping[str, object]) -> None:
        """See Workers. The time limit of a task begins when its code does: until then this waits."""
        said = line.worker = _Said(line, order, parcels, hints)
        self._give(said)
        while line.has_limit and not said.has_begun.wait(LOOK_SECONDS):
            line.check_wanted()

    def _give(self, said: _Said) -> None:
        """Give an order to Dask, under a key that no other has."""
        said.times_given += 1
        said.key = key = f"{self._exchange.PREFIX}{re.sub('[^A-Za-z0-9_.]', '_', said.line.name)}-{uuid.uuid4().hex}"
        with self._lock:
            self._said[key] = said
        inline = {name: data for name, data in said.parcels.items() if len(data) <= INLINE_BYTES}
        data = pickle.dumps((said.order, inline), pickle.HIGHEST_PROTOCOL)
        if self._lost is None:
            try:
                said.future = self._client.submit(
                    self._carry_out, key, self._client.id, data, said.line.has_limit, key=key, pure=False, resources=said.hints
                )
            except (OSError, RuntimeError) as error:  # the client is closed
                self._lost = self._lost or f"it cannot be given to the cluster: {error}"
        if self._lost is not None:
            self._end_of(said, Lost(self._lost))

    def receive(self, line: Line, thread: int, seconds: float | None) -> object:
        """See Workers."""
        return cast(_Said, line.worker).inboxes.get(thread, seconds)

    def send(self, line: Line, thread: int, answer: bytes) -> None:
        """See Workers."""
        self._post({"kind": "answer", "key": cast(_Said, line.worker).key, "thread": thread, "data": answer})

    def wake(self, line: Line) -> None:
        """See Workers."""
        said = cast("_Said | None", line.worker)
        if said is not None:
            said.has_begun.set()
            said.inboxes.put(None)

    def end(self, line: Line) -> None:
        """See Workers. Dask forgets the task; if its code runs, it is told so when it asks something."""
        said = cast(_Said, line.worker)
        with self._lock:
            self._said.pop(said.key, None)
        future, said.future = said.future, None
        if future is not None:
            future.release()

    def abandon(self, line: Line) -> None:
        """See Workers."""
        said = cast("_Said | None", line.worker)
        if said is not None:
            self.end(line)
            self._end_of(said, Lost("it was given up"))

    def close(self) -> None:
        """See Workers."""
        self._lost = "the flow run is over"
        for each in (self._client, self._own):
            try:
                if each is not None:
                    each.close()
            except Exception:  # what is made by others, and may be half gone: the outcome of the run is not changed by that
                _logger.warning("Dask was not ended properly", exc_info=True)

    def _post(self, message: dict[str, object]) -> None:
        """Send to the exchange. Does not block, nor fail when the scheduler is gone."""
        self._client.loop.add_callback(self._post_now, message)

    def _post_now(self, message: dict[str, object]) -> None:
        stream = self._client.scheduler_comm
        if stream is not None and self._lost is None:
            try:
                stream.send({"op": self._exchange.FROM_CLIENT, **message})
            except OSError:
                return  # whoever waits is told by `_connection_lost`

    # ---- from the workers; on the thread of the client's event loop

    def _take(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        kind, data = message["kind"], message.get("data")
        if kind == "threads":
            self._resize(cast(int, data))
            return
        said = self._said.get(message["key"])
        if said is None:
            return  # of one that was given up
        if kind == "done":
            self._end_of(said, Done(cast(bytes, data)))
        elif kind == "ask":
            said.inboxes.put(Ask(message["thread"], cast(bytes, data)))
        elif kind == "tell":
            said.inboxes.put(Tell(cast(bytes, data)))
        elif kind == "began":
            said.has_begun.set()
        elif kind == "parcel":
            name = message["thread"]
            self._post_now({"kind": "parcel", "key": said.key, "thread": name, "data": said.parcels[name]})
        else:
            self._not_done(said, kind, cast(str, data))

    def _not_done(self, said: _Said, kind: str, why: str) -> None:
        if kind == "lost":
            self._end_of(said, Lost(why))
        elif said.times_given <= GIVEN_AGAIN:
            with self._lock:
                del self._said[said.key]
            self._give(said)
        else:
            self._end_of(said, Lost(f"no worker could begin it: {why}"))

    def _end_of(self, said: _Said, how: Done | Lost) -> None:
        said.inboxes.put(how)
        said.has_begun.set()

    def _connection_lost(self, sentinel: object) -> None:
        """All futures were cancelled. On a thread of the client's own."""
        self._lost = self._lost or "the connection to the Dask scheduler was lost"
        with self._lock:
            every = list(self._said.values())
        for said in every:
            self._end_of(said, Lost(self._lost))
