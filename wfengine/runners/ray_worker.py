"""On a Ray worker: carry out orders, and reach the flow's process through the switchboard of its run.

Ray carries messages between tasks and actors only. So each run has one small actor that workers ask, and that the flow's
process listens to. A worker that waits for an answer longer than a moment lends its processors to other tasks, which Ray
does for whoever waits for Ray on the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import pickle
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from wfengine.runners.away import become_worker_process
from wfengine.runners.messages import MAIN, Order
from wfengine.runners.worker import perform
from wfengine.steps import run_coroutine
from wfengine_journal.errors import RunHalted, UsageError
from wfengine_journal.threads import start_thread

#: A worker that waits longer for an answer lends its processors, in seconds: for a short wait Ray would start a process.
LEND_SECONDS = 0.05
#: How long a line of a log may stay on a worker, in seconds.
TELL_SECONDS = 0.1
#: How long one look for lent processors takes at most, in seconds.
LOOK_SECONDS = 1.0


class SwitchboardGoneError(Exception):
    """A worker cannot speak with its flow's process."""


class Carried(NamedTuple):
    """What Ray brings back of an order; pickled, as Ray carries nothing faster than bytes."""

    told: int  # so many lines of logs went to the switchboard
    rest: tuple[bytes, ...]  # the others
    what: bytes  # came of it
    has_printed: bool


class Packed(NamedTuple):
    """An order as Ray brings it, with its small parcels; the large ones are in Ray's store."""

    order: Order
    small: Mapping[str, bytes]
    switchboard: str  # its name
    number: int  # of the order, there
    says_begun: bool  # whoever gave the order waits for its beginning
    paths: tuple[str, ...]  # where the flow's process finds modules


def carry_out(packed: bytes, parcels: Mapping[str, Any] | None = None) -> bytes:
    """Carry out an order, a pickled `Packed`; return a pickled `Carried`."""
    become_worker_process()
    order, small, switchboard, number, says_begun, paths = pickle.loads(packed)
    _find_modules_in(paths)
    wire = _Wire(switchboard, number)
    written = _written()

    def parcel(name: str) -> bytes:
        try:
            data: bytes = small[name] if parcels is None or name in small else ray.get(parcels[name])
        except RayError as error:
            raise wire.gone(error) from error
        return data

    stop = _Stop()
    try:
        with stop.heard():
            if says_begun:
                wire.say_begun()
            data = perform(order, wire, parcel, run_coroutine=wire.run_coroutine)
    except _Stopped:
        stop.is_asked = True
    told, rest = wire.close()
    if stop.is_asked:
        raise KeyboardInterrupt  # which Ray knows as the end of a task that was cancelled
    if wire.why_gone is not None:
        raise SwitchboardGoneError(wire.why_gone)
    return pickle.dumps(tuple(Carried(told, rest, data, _written() != written)), pickle.HIGHEST_PROTOCOL)


def own_paths() -> tuple[str, ...]:
    """Return where this process finds modules, but for those of its installation of Python."""
    global _own
    entries = tuple(sys.path)
    if entries != _own[0]:
        installed = (sys.prefix, sys.base_prefix)
        _own = entries, tuple(str(Path(entry).absolute()) for entry in entries if not entry.startswith(installed))
    return _own[1]


_own: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
_found: tuple[str, ...] = ()


def _find_modules_in(paths: tuple[str, ...]) -> None:
    """Find modules of the flow's process here too, if its folders are on this machine; a user's script brings them in."""
    global _found
    if paths == _found:
        return
    for path in paths:
        if path not in sys.path and Path(path).is_dir():
            sys.path.append(path)
    _found = paths


def _written() -> int:
    """Return how much this process has printed, which is in files from where Ray shows it to the flow's process."""
    total = 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            total += os.fstat(stream.fileno()).st_size
    return total


def at_depth(depth: int) -> Callable[..., bytes]:
    """Return `carry_out` for orders that so many others may wait for, as another function.

    Of one function Ray runs no more at a time than there are processors, those that wait for others included; one more it
    runs after a second only, the next after two, and so on. Those at another depth are another function's.
    """

    def carry_out_deeper(packed: bytes, parcels: Mapping[str, Any] | None = None) -> bytes:
        return carry_out(packed, parcels)

    carry_out_deeper.__name__ = carry_out_deeper.__qualname__ = f"carry_out_{depth}"
    return carry_out_deeper if depth else carry_out


#: What a worker says of an order: its number, that of a thread, how many lines of logs it said before, more of them; the number
#: of a question and what it asks, if it asks. Ray brings such things out of order, and again if the actor died meanwhile.
Said = tuple[int, int, int, tuple[bytes, ...], int, bytes | None]
#: Stands for a thread where the order begins.
BEGUN = -1


class Switchboard:
    """Connects the workers of a flow run with its flow's process; an actor of Ray, with an event loop.

    Another run of that process may have it later: orders whose number is lower than its first one are over.
    """

    def __init__(self) -> None:
        self._first = 0
        self._asking: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._is_news = asyncio.Event()
        self._begin_life()

    def _begin_life(self) -> None:
        self._life = uuid.uuid4().hex  # one that died begins anew
        self._heard = 0  # so many things were said that the flow's process has
        self._said: list[Said] = []  # the others
        self._is_over = False

    async def renew(self, first: int) -> None:
        """Be another run's from now on, whose orders have this number and higher ones."""
        self._first = first
        self._begin_life()

    def _refuse_former(self, number: int) -> None:
        if number < self._first or self._is_over:
            raise SwitchboardGoneError("The flow run that it works for is over.")

    @ray.method(max_task_retries=-1)
    async def ask(self, number: int, thread: int, before: int, told: tuple[bytes, ...], question: int, what: bytes) -> bytes:
        """Take a question of a thread of an order, and the lines of logs before it; return the answer."""
        self._refuse_former(number)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asking[number, thread] = answer
        self._say(number, thread, before, told, question, what)
        try:
            return await answer
        finally:
            if self._asking.get((number, thread)) is answer:
                del self._asking[number, thread]

    @ray.method(max_task_retries=-1)
    async def tell(self, number: int, before: int, told: tuple[bytes, ...]) -> None:
        """Take lines of the log of an order."""
        self._say(number, MAIN, before, told, 0, None)

    @ray.method(max_task_retries=-1)
    async def begin(self, number: int) -> None:
        """Take that an order begins."""
        self._say(number, BEGUN, 0, (), 0, None)

    def _say(self, *what: Any) -> None:
        if what[0] < self._first:
            return
        self._said.append(what)
        self._is_news.set()

    @ray.method(max_task_retries=-1)
    async def listen(self, life: str, heard: int) -> tuple[str, int, tuple[Said, ...]]:
        """Wait until there is something besides what was heard in that life; return life, what is heard then, and the rest.

        What was returned is kept until it is known to have arrived. Who was in another life is told so at once.
        """
        if life == self._life:
            del self._said[: heard - self._heard]
            self._heard = heard
        if not self._said and life == self._life and not self._is_over:
            self._is_news.clear()
            await self._is_news.wait()
        return self._life, self._heard + len(self._said), tuple(self._said)

    async def hang_up(self) -> None:
        """Let the flow's process, which waits in `listen`, go, and the workers that wait for an answer of it unwind."""
        self._is_over = True
        self._is_news.set()
        for asking in self._asking.values():
            if not asking.done():
                asking.set_exception(SwitchboardGoneError("The flow run that it works for is over."))

    async def answer(self, number: int, thread: int, data: bytes) -> None:
        """Answer a question, if somebody still waits."""
        asking = self._asking.get((number, thread))
        if asking is not None and not asking.done():
            asking.set_result(data)


class _Gone(RunHalted):
    """The code that runs is to unwind, because its flow's process cannot be reached."""


class _Wire:
    """See `worker.Wire`."""

    def __init__(self, switchboard: str, number: int) -> None:
        self._name = switchboard
        self._number = number
        self._lock = threading.Lock()
        self._questions = 0  # so many were asked
        self._kept: list[bytes] = []  # lines of logs
        self._told = 0
        self._is_over: threading.Event | None = None  # where lines are told meanwhile
        self._changed = threading.Condition()
        self._lending: set[Any] = set()  # what threads besides the main one wait for
        self.why_gone: str | None = None

    def gone(self, error: BaseException) -> RunHalted:
        """Remember that the flow's process cannot be reached; return what unwinds the code."""
        first = str(error).partition("\n")[0]
        self.why_gone = f"its worker lost its connection to the flow: {type(error).__name__}: {first}"
        return _Gone(UsageError(self.why_gone))

    def _switchboard(self) -> Any:
        known = _switchboards.get(self._name)
        if known is None:
            _switchboards.clear()  # those of other runs, which may be over
            known = _switchboards[self._name] = ray.get_actor(self._name)
        return known

    def say_begun(self) -> None:
        """Say that the order begins."""
        with contextlib.suppress(RayError, ValueError):
            self._switchboard().begin.remote(self._number)

    def ask(self, thread: int, what: bytes) -> bytes:
        """See Wire."""
        try:
            with self._lock:
                before, told = self._take()
                self._questions += 1
                waited = self._switchboard().ask.remote(self._number, thread, before, told, self._questions, what)
            return self._answer(waited)
        except (RayError, ValueError) as error:  # ValueError: there is no switchboard of the name
            raise self.gone(error) from error

    def _take(self) -> tuple[int, tuple[bytes, ...]]:
        """Return how many lines of logs were told before, and those to tell now (the lock is held)."""
        before, told = self._told, tuple(self._kept)
        self._told += len(told)
        self._kept.clear()
        return before, told

    def _answer(self, waited: Any) -> bytes:
        future: Future[bytes] = waited.future()
        with contextlib.suppress(TimeoutError):
            return future.result(LEND_SECONDS)
        if threading.current_thread() is threading.main_thread():
            data: bytes = ray.get(waited)
            return data
        with self._changed:
            self._lending.add(waited)
            self._changed.notify_all()
        try:
            return future.result()
        finally:
            with self._changed:
                self._lending.discard(waited)

    def tell(self, what: bytes) -> None:
        """See Wire."""
        with self._lock:
            self._kept.append(what)
            if self._is_over is None:
                is_over = self._is_over = threading.Event()
                start_thread("wfengine-worker-tell", lambda: self._tell(is_over))

    def _tell(self, is_over: threading.Event) -> None:
        """Tell what was logged while the order is carried out; its last lines go with what came of it."""
        while not is_over.wait(TELL_SECONDS):
            with self._lock:
                if self._kept and not is_over.is_set():
                    before, told = self._take()
                    with contextlib.suppress(RayError, ValueError):
                        self._switchboard().tell.remote(self._number, before, told)

    def close(self) -> tuple[int, tuple[bytes, ...]]:
        """Return how many lines of logs were told, and the others."""
        with self._lock:
            if self._is_over is not None:
                self._is_over.set()
            return self._told, tuple(self._kept)

    def run_coroutine(self, coroutine: Coroutine[Any, Any, object], begin: Callable[[], object]) -> object:
        """Run async code in an event loop on a thread of its own, while the main thread lends what that waits for."""
        if threading.current_thread() is not threading.main_thread():
            return run_coroutine(coroutine, begin)
        aside = _Aside(coroutine, begin, self._changed)
        try:
            while not aside.outcome.done():
                with self._changed:
                    self._changed.wait_for(lambda: self._lending or aside.outcome.done())
                    waited = list(self._lending)
                if waited:
                    ray.wait(waited, timeout=LOOK_SECONDS)
        except _Stopped:
            aside.cancel()
            raise
        return aside.outcome.result()


#: Of the run that this worker works for, by name.
_switchboards: dict[str, Any] = {}


class _Aside:
    """Async code of a task, in an event loop on a thread of its own."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, object], begin: Callable[[], object], changed: threading.Condition
    ) -> None:
        self._coroutine = coroutine
        self._begin = begin
        self._changed = changed
        self._task: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_begun = threading.Event()
        self.outcome: Future[object] = Future()
        context = contextvars.copy_context()
        start_thread("wfengine-worker-loop", lambda: context.run(self._live))

    def _live(self) -> None:
        try:
            self.outcome.set_result(asyncio.run(self._awaited()))
        except BaseException as error:
            self.outcome.set_exception(error)
        finally:
            self._has_begun.set()
            with self._changed:
                self._changed.notify_all()

    async def _awaited(self) -> object:
        self._begin()
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        self._has_begun.set()
        return await self._coroutine

    def cancel(self) -> None:
        """Cancel the code, and wait for its end."""
        self._has_begun.wait()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._task.cancel)
        with contextlib.suppress(BaseException):
            self.outcome.result()


class _Stopped(RunHalted):
    """The code that runs is to unwind, because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__(UsageError("This task was cancelled, or ran longer than its limit."))


class _Stop:
    """That Ray was told to cancel an order, which it does with what Ctrl-C does."""

    def __init__(self) -> None:
        self.is_asked = False

    def _raise(self, _number: int, _frame: object) -> None:
        if not self.is_asked:
            self.is_asked = True
            raise _Stopped

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Let code in the block unwind by an exception of ours, which no code takes for the user's."""
        if threading.current_thread() is not threading.main_thread():
            yield  # not where Ray runs tasks today
            return
        before = signal.signal(signal.SIGINT, self._raise)
        _Waker.set()
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class _Waker:
    """Wakes the main thread from a system call, such as a sleep, when Ray interrupts it; Ray itself waits for its end."""

    _write = -1

    @classmethod
    def set(cls) -> None:
        """Let Python's note of an interruption come here."""
        if not hasattr(signal, "pthread_kill"):
            return
        if cls._write < 0:
            read, cls._write = os.pipe()
            os.set_blocking(cls._write, False)
            signal.signal(signal.SIGURG, lambda _number, _frame: None)
            start_thread("wfengine-worker-wake", lambda: cls._wake(read))
        signal.set_wakeup_fd(cls._write, warn_on_full_buffer=False)

    @staticmethod
    def _wake(read: int) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while True:
            if signal.SIGINT in os.read(read, 1):
                signal.pthread_kill(main, signal.SIGURG)
