"""Run the code of tasks on Ray: on the processors of this machine, or on a cluster.

Each order is a task of Ray that is never retried by Ray: whether an attempt is repeated is decided by the task's own
retries, and recorded. What is large travels through Ray's object store, once. See `ray_worker` for the way back.

A task that is lost, whatever died - its worker, its node, Ray itself - fails with WorkerDiedError. A switchboard that
dies is started again, and what was on its way is said again. When the flow's process dies, Ray ends the workers of
its job; what they might still say reaches nobody, and a resumed run runs again what was not recorded.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic
from typing import Any, cast

from wfengine.runners.messages import Ask, Done, Lost, Order, Tell
from wfengine.runners.processes import GRACE_SECONDS
from wfengine.runners.ray_connection import Connection, connect
from wfengine.runners.remote import Inboxes, Line, RemoteTaskRunner, Workers
from wfengine.runners.threads import ThreadTaskRunner
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread

#: A parcel that is larger goes to Ray's store, in bytes. Ray itself sends what is smaller than 100 KB with the order.
STORED_BYTES = 16 << 10
#: Parcels that are kept in Ray's store for tasks to come, those used last.
KEPT_PARCELS = 64
#: How long a closing run waits for its thread that listens, in seconds.
CLOSE_SECONDS = 5.0

#: What a task may ask of its worker that Ray knows by name, and by the names that others have for it.
_OPTIONS = {
    name: name
    for name in (
        "num_cpus", "num_gpus", "memory", "accelerator_type", "label_selector", "runtime_env", "scheduling_strategy",
    )
} | {"CPU": "num_cpus", "GPU": "num_gpus"}  # fmt: skip


class RayTaskRunner(RemoteTaskRunner):
    """Tasks on Ray: on the one that this process is connected to; else on that at `address`; else on one of their own.

    Without an address, and if the environment has no RAY_ADDRESS, a Ray is started on this machine for the flow run, for this
    machine alone, and ends with it. `init_kwargs` are further arguments of `ray.init`, such as num_cpus. At most
    `max_workers` tasks are with Ray at a time, by default as many as it has processors when the run begins. For
    `max_in_flight` see ThreadTaskRunner.

    `@task(resources={"num_cpus": 2, "num_gpus": 1})` asks for what a worker must have; names that Ray does not know are those
    of custom resources. A task that was cancelled, or ran longer than its limit, is cancelled in Ray, and its worker killed
    if its code takes longer than `processes.GRACE_SECONDS` to unwind.
    """

    given_up = "It was cancelled in Ray."

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: Mapping[str, object] | None = None,
        *,
        max_workers: int | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        super().__init__(max_workers, max_in_flight=max_in_flight)
        if address is not None and not isinstance(address, str):
            raise UsageError(f"RayTaskRunner: address must be a string such as 'auto' or '10.0.0.1:6379', not {address!r}.")
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})
        self._max_workers = max_workers

    def __reduce__(self) -> Any:
        return _runner, (self.address, self.init_kwargs, self._max_workers, self.max_in_flight)

    def start(self, journal: Journal) -> ThreadTaskRunner:
        """See RemoteTaskRunner."""
        running = super().start(journal)
        if self._max_workers is None:
            import ray

            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # as Ray has it
            running.max_workers = max(1, int(resources.get("CPU", 1)))
        return running

    def open_workers(self, journal: Journal) -> Workers:
        """See RemoteTaskRunner."""
        connection = connect(self.address, self.init_kwargs)
        try:
            return _RayWorkers(connection)
        except BaseException:
            connection.close()
            raise


def _runner(
    address: str | None, init_kwargs: dict[str, object], max_workers: int | None, max_in_flight: int | None
) -> RayTaskRunner:
    return RayTaskRunner(address, init_kwargs, max_workers=max_workers, max_in_flight=max_in_flight)


class _Sent:
    """An order that Ray has, and what comes of it."""

    def __init__(self, number: int, line: Line) -> None:
        self.number = number
        self.inboxes = Inboxes(line)
        self.task: Any = None  # Ray's reference
        self.is_over = False  # in Ray: nothing of it runs any more
        #: Where somebody waits for its beginning or its end; most orders are waited for at their inboxes alone.
        self.has_begun = threading.Event() if line.has_limit else None
        self._end: threading.Event | None = None
        self._lock = threading.Lock()
        self._told = 0  # so many lines of its log have come
        self._early: dict[int, tuple[bytes, ...]] = {}  # lines that came before others, by how many are to come before them
        self._questions: dict[int, int] = {}  # the last one of each thread
        self._answers: dict[int, bytes] = {}  # to those
        self._due = 0
        self._has_gap = False  # lines are missing, and will not come
        self._last: tuple[tuple[bytes, ...], Done | Lost] | None = None

    def go_on(self) -> None:
        """Let nobody wait for its beginning any more."""
        if self.has_begun is not None:
            self.has_begun.set()

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until nothing of it runs any more in Ray; tell whether it is so."""
        with self._lock:
            if self.is_over:
                return True
            self._end = self._end or threading.Event()
        return self._end.wait(seconds)

    def take(self, thread: int, before: int, told: tuple[bytes, ...], question: int, what: bytes | None) -> bytes | None:
        """Take what the switchboard brought. Returns the answer to a question that was answered before."""
        self.go_on()
        with self._lock:
            if told and before >= self._told:
                self._early[before] = told
            self._show()
            if what is not None and self._questions.get(thread) == question:
                return self._answers.get(thread)
            if what is not None:
                self._questions[thread] = question
                self._answers.pop(thread, None)
                self.inboxes.put(Ask(thread, what))
            return None

    def answer(self, thread: int, data: bytes) -> None:
        """Keep the answer to the last question of a thread, in case that it is lost on its way."""
        with self._lock:
            self._answers[thread] = data

    def forget(self, thread: int) -> None:
        """Keep nothing for a thread besides the main one that says no more."""
        with self._lock:
            self._questions.pop(thread, None)
            self._answers.pop(thread, None)
        self.inboxes.forget(thread)

    def is_complete(self) -> bool:
        """Say how it ended if it has, and all lines of its log have come; tell whether it is so."""
        with self._lock:
            return self._finish()

    def end(self, due: int, rest: tuple[bytes, ...], message: Done | Lost) -> bool:
        """Take how it ended, to be said when so many lines of its log have come. Returns whether they have."""
        self.go_on()
        with self._lock:
            self.is_over = True
            if self._end is not None:
                self._end.set()
            self._due, self._last = due, (rest, message)
            return self._finish()

    def give_up_logs(self) -> bool:
        """Wait for no lines of its log that have not come. Returns whether it has ended."""
        self.go_on()
        with self._lock:
            self._has_gap = True
            self._show()
            return self._finish()

    def _show(self) -> None:
        """Pass on the lines of its log that are next (the lock is held)."""
        while self._early and (self._has_gap or self._told in self._early):
            first = min(self._early)
            lines = self._early.pop(first)
            self._told = first + len(lines)
            for line in lines:
                self.inboxes.put(Tell(line))

    def _finish(self) -> bool:
        """Say how it ended, if it has, behind its whole log (the lock is held); tell whether that was done."""
        if self._last is None or (self._told < self._due and not self._has_gap):
            return False
        (rest, message), self._last = self._last, None
        for line in rest:
            self.inboxes.put(Tell(line))
        self.inboxes.put(message)
        return True


class _RayWorkers:
    """Ray's workers, for one flow run."""

    def __init__(self, connection: Connection) -> None:
        import ray

        from wfengine.runners import ray_switchboards, ray_worker

        self._ray: Any = ray
        self._packed = ray_worker.Packed
        self._carried = ray_worker.Carried
        self._own_paths = ray_worker.own_paths
        self._connection = connection
        self._lock = threading.Lock()
        self._sent: dict[int, _Sent] = {}
        self._is_closed = False
        self._stored: OrderedDict[str, Any] = OrderedDict()
        self._at_depth = ray_worker.at_depth
        #: By the task's name and depth, and what it asks for, which is kept so that its id stays its own.
        self._functions: dict[tuple[str, int, int], tuple[Any, Mapping[str, object]]] = {}
        self._numbers, self._put_back = ray_switchboards.numbers, ray_switchboards.put_back
        self._connected = ray_switchboards.take(keeps=connection.stays)
        self._name, self._switchboard = self._connected
        self._why_broken: str | None = None
        self._listener = start_thread("wfengine-ray-listen", self._listen)

    # ---- orders

    def begin(self, line: Line, order: Order, parcels: Mapping[str, bytes], hints: Mapping[str, object]) -> None:
        """See Workers."""
        function = self._function_for(line, hints)
        sent = _Sent(next(self._numbers), line)
        with self._lock:
            if self._is_closed:
                raise UsageError("The runner of this flow run was closed.")
            self._sent[sent.number] = sent
        line.worker = sent
        line.forget = sent.forget
        why = self._why_not()
        if why is None:
            small = {name: data for name, data in parcels.items() if len(data) <= STORED_BYTES}
            packed = self._packed(order, small, self._name, sent.number, sent.has_begun is not None, self._own_paths())
            try:
                large = {name: self._store(name, parcel) for name, parcel in parcels.items() if name not in small}
                data = pickle.dumps(tuple(packed), pickle.HIGHEST_PROTOCOL)
                sent.task = function.remote(data, large) if large else function.remote(data)
                sent.task.future().add_done_callback(lambda future: self._ended(sent, future))
                if sent.has_begun is not None:  # its time is its own, and not what Ray needs to find a worker for it
                    sent.has_begun.wait()
                return
            except self._ray.exceptions.RayError as error:
                why = _why(self._ray, error)
        self._finish(sent, 0, (), Lost(why))

    def _why_not(self) -> str | None:
        if not self._ray.is_initialized():  # or Ray would start another one
            return "Ray was shut down while the flow ran"
        return self._why_broken

    def _function_for(self, line: Line, hints: Mapping[str, object]) -> Any:
        key = line.name, line.depth, id(hints) if hints else 0
        known = self._functions.get(key)
        if known is None:
            function = self._ray.remote(max_retries=0, retry_exceptions=False)(self._at_depth(line.depth))
            try:
                known = function.options(name=line.name, **_options(hints)), hints
            except Exception as error:
                raise UsageError(f"{line}: Ray does not take resources={dict(hints)!r}: {error}") from error
            self._functions[key] = known
        return known[0]

    def _store(self, name: str, data: bytes) -> Any:
        """Return a parcel in Ray's store; one that is there already is not sent again."""
        with self._lock:
            stored = self._stored.get(name)
            if stored is not None:
                self._stored.move_to_end(name)
                return stored
        stored = self._ray.put(data)
        with self._lock:
            stored = self._stored.setdefault(name, stored)
            while len(self._stored) > KEPT_PARCELS:
                self._stored.popitem(last=False)  # an order on its way holds its own
        return stored

    def _ended(self, sent: _Sent, future: Any) -> None:
        """Take how Ray's task ended; called on a thread of Ray."""
        error = future.exception()
        if error is not None:
            self._finish(sent, 0, (), Lost(_why(self._ray, error)))
        else:
            carried = self._carried(*pickle.loads(future.result()))
            if carried.has_printed:
                self._connection.expect_prints()
            self._finish(sent, carried.told, carried.rest, Done(carried.what))

    def _finish(self, sent: _Sent, told: int, rest: tuple[bytes, ...], message: Done | Lost) -> None:
        if sent.end(told, rest, message):
            self._forget(sent)

    def _forget(self, sent: _Sent) -> None:
        with self._lock:
            self._sent.pop(sent.number, None)

    # ---- conversations

    def _listen(self) -> None:
        """Hand on what the switchboard hears, on a thread of its own."""
        life, heard = "", 0
        while not self._is_closed:
            try:
                now, heard, said = self._ray.get(self._switchboard.listen.remote(life, heard))
            except Exception as error:
                self._why_broken = f"the switchboard of its flow run is gone: {_first_line(error)}"
                self._give_up_logs()
                return
            if now != life and life:
                self._give_up_logs()
            life = now
            for each in said:
                self._take(*each)

    def _take(self, number: int, thread: int, before: int, told: tuple[bytes, ...], question: int, what: bytes | None) -> None:
        sent = self._sent.get(number)
        if sent is None:
            return
        answer = sent.take(thread, before, told, question, what)
        if answer is not None:
            self._switchboard.answer.remote(number, thread, answer)
        if sent.is_complete():
            self._forget(sent)

    def _give_up_logs(self) -> None:
        """Wait for no more lines of logs, which died with the switchboard that had them."""
        for sent in list(self._sent.values()):
            if sent.give_up_logs():
                self._forget(sent)

    def receive(self, line: Line, thread: int, seconds: float | None) -> object:
        """See Workers."""
        return cast(_Sent, line.worker).inboxes.get(thread, seconds)

    def send(self, line: Line, thread: int, answer: bytes) -> None:
        """See Workers."""
        sent = cast("_Sent | None", line.worker)
        if sent is not None:
            sent.answer(thread, answer)
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._switchboard.answer.remote(sent.number, thread, answer)

    # ---- ends

    def wake(self, line: Line) -> None:
        """See Workers."""
        sent = cast("_Sent | None", line.worker)
        if sent is not None:
            sent.go_on()
            sent.inboxes.put(None)

    def end(self, line: Line) -> None:
        """See Workers."""

    def abandon(self, line: Line) -> None:
        """See Workers."""
        sent = cast("_Sent | None", line.worker)
        if sent is not None:
            self._cancel(sent)

    def _cancel(self, sent: _Sent) -> None:
        """Let the code of an order unwind, and kill its worker if that takes too long. Does not wait."""
        if sent.task is not None and not sent.is_over:
            self._cancel_in_ray(sent, force=False)
            start_thread("wfengine-ray-end", lambda: self._see_it_end(sent))

    def _see_it_end(self, sent: _Sent) -> None:
        if not sent.wait_for_end(GRACE_SECONDS) and not self._is_closed:
            self._cancel_in_ray(sent, force=True)

    def _cancel_in_ray(self, sent: _Sent, *, force: bool) -> None:
        with contextlib.suppress(Exception):  # whatever Ray says: it is over already, or lost
            if self._ray.is_initialized():
                self._ray.cancel(sent.task, force=force)

    def close(self) -> None:
        """See Workers. Code that is left is given the time to unwind, and is then killed."""
        with self._lock:
            left = list(self._sent.values())
        for sent in left:
            self._cancel(sent)
        until = monotonic() + GRACE_SECONDS
        for sent in left:
            sent.wait_for_end(max(0.0, until - monotonic()))
        self._is_closed = True
        for sent in left:
            self._cancel_in_ray(sent, force=True)
        with contextlib.suppress(Exception):
            if self._ray.is_initialized():
                self._switchboard.hang_up.remote()
                self._listener.join(CLOSE_SECONDS)  # of a switchboard that is killed meanwhile, Ray prints that it is
                is_well = self._why_broken is None and not self._listener.is_alive()
                self._put_back(self._connected, keeps=self._connection.stays and is_well)
        self._stored.clear()
        self._connection.close()


def _options(hints: Mapping[str, object]) -> dict[str, object]:
    """Return what a task asks of its worker, in Ray's terms."""
    options: dict[str, object] = {}
    custom: dict[str, object] = {}
    for name, value in hints.items():
        if name in _OPTIONS:
            options[_OPTIONS[name]] = value
        elif name == "resources" and isinstance(value, Mapping):
            custom |= value
        else:
            custom[name] = value
    return options | {"resources": custom} if custom else options


def _why(ray: Any, error: BaseException) -> str:
    """Say what happened to an order that Ray lost."""
    known = ray.exceptions
    if isinstance(error, known.TaskCancelledError):
        return "it was cancelled in Ray"
    if isinstance(error, known.OutOfMemoryError):
        return "its Ray worker was ended because memory ran out"
    if isinstance(error, known.WorkerCrashedError):
        return "its Ray worker died"
    if isinstance(error, known.RayTaskError):
        from wfengine.runners.ray_worker import SwitchboardGoneError

        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, SwitchboardGoneError):
            return str(cause)
        return f"its Ray worker could not run it: {type(cause).__name__}: {cause}"
    return f"Ray lost it: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first.rstrip('.')}"
