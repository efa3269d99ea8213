"""On a worker: run the code of a task, and ask the flow's process for what needs the journal.

A worker has no journal and no scope. In the context of the code that it runs stands its `Errand`, by which the calls of
tasks and flows, and the public functions that need the journal (`asks_the_flow`), find the way to the flow's process.
"""

from __future__ import annotations

import builtins
import contextvars
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

from wfengine.runners.away import ERRAND, Errand
from wfengine.runners.messages import MAIN, Call, Do, Halted, Order, Ran, Run, dump, load, outcome, ran, unpack_arguments
from wfengine.runners.remote_errors import error_of, failure_of
from wfengine.scopes import current_tags, set_tracer
from wfengine.steps import run_coroutine
from wfengine.task_future import TaskFuture
from wfengine.tracebacks import without_engine_frames
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.errors import RunHalted, UsageError

R = TypeVar("R")


class Wire(Protocol):
    """The way from a worker to the flow's process, for one order."""

    def ask(self, thread: int, what: bytes) -> bytes:
        """Send a question and wait for its answer, on the thread of that number."""

    def tell(self, what: bytes) -> None:
        """Send what has no answer."""


class WorkerFuture(TaskFuture[Any]):
    """A future of the run, in the code of a task on a worker; what it is asked is asked of the flow's process."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"<TaskFuture {self.number} of the flow's process>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerFuture) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)

    @property
    def clock(self) -> Clock:
        """See TaskFuture."""
        return SystemClock()

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """See TaskFuture."""
        return self._ask("result", timeout=timeout, raise_on_failure=raise_on_failure)

    def wait(self, timeout: float | None = None) -> bool:
        """See TaskFuture."""
        return cast(bool, self._ask("wait", timeout))

    def done(self) -> bool:
        """See TaskFuture."""
        return cast(bool, self._ask("done"))

    @property
    def state(self) -> Any:
        """See TaskFuture."""
        return self._ask("state")

    @property
    def task_run_id(self) -> int | None:
        """See TaskFuture."""
        return cast("int | None", self._ask("task_run_id"))

    def refuse_endless_wait(self) -> None:
        """See TaskFuture; the flow's process looks."""

    def refuse_own_end(self) -> None:
        """See TaskFuture; the flow's process looks."""

    async def wait_async(self) -> None:
        """See TaskFuture."""
        await _errand().later(self.wait)

    async def result_async(self) -> Any:
        """See TaskFuture."""
        return await _errand().later(self.result)

    def add_done_callback(self, callback: Callable[[TaskFuture[Any]], object]) -> None:
        """Refuse: nothing on a worker hears of the end of a task by itself."""
        raise UsageError(
            "add_done_callback() does not work in a task that runs on a worker. Wait for the future there, or add the "
            "callback in the flow."
        )

    def _ask(self, name: str, *args: object, **kwargs: object) -> object:
        return _errand().ask(Do("future", name, (self, *args), kwargs))


#: Of threads that ask something, besides main ones.
_numbers = itertools.count(MAIN + 1)


def _errand() -> _Errand:
    errand = ERRAND.get()
    if errand is None:
        raise UsageError("A future of a task on a worker was used after that task was over. Wait for it inside the task.")
    return cast(_Errand, errand)


class _Errand(Errand):
    """What stands in the context of code that runs here; calls of tasks and flows come to it as to a `Tracer`."""

    def __init__(self, wire: Wire, parcels: Callable[[str], bytes]) -> None:
        self._wire = wire
        self._parcels = parcels
        self._main = threading.get_ident()
        self.is_asking = False  # the main thread waits for an answer, and is no other's

    # ---- calls of tasks and flows; the names are those of a tracer

    def call(self, callee: Any, args: tuple[object, ...], kwargs: dict[str, object], before: object, return_state: bool) -> Any:
        """Make a call; something async gives what has to be awaited, a generator an iterator over what it gave."""
        what = Call(callee.decorated, args, kwargs, before, return_state, submitted=False, tags=current_tags())
        if callee.is_async:
            answer: Any = self.later(lambda: self.ask(what))
            return _items_later(answer) if callee.is_generator and not return_state else answer
        answer = self.ask(what)
        return iter(answer) if callee.is_generator and not return_state else answer

    def submit(self, callee: Any, args: tuple[object, ...], kwargs: dict[str, object], before: object) -> Any:
        """Submit a task; its future is of the flow's process."""
        task = callee.decorated
        return self.ask(Call(task, args, kwargs, before, False, submitted=True, tags=current_tags()))

    # ---- asking

    def ask(self, what: object) -> Any:
        """Ask the flow's process and wait for the answer; what has to be run here first is run on this thread."""
        thread = MAIN if threading.get_ident() == self._main and not self.is_asking else next(_numbers)
        self.is_asking = self.is_asking or thread == MAIN
        try:
            answer = load(self._wire.ask(thread, dump(what)))
            while isinstance(answer, Run):
                answer = load(self._wire.ask(thread, self.run(answer.order, answer.parcels)))
        finally:
            if thread == MAIN:
                self.is_asking = False
        if isinstance(answer, Halted):
            raise RunHalted(UsageError(answer.text))
        assert isinstance(answer, Ran)
        if answer.failure is not None:
            raise error_of(answer.failure)
        return answer.value

    async def later(self, ask: Callable[[], R]) -> R:
        """Ask without stopping the event loop."""
        import asyncio

        return await asyncio.to_thread(ask)

    def do(self, fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Have a public function called in the flow's process."""
        return self.ask(Do(fn.__module__, fn.__qualname__, args, kwargs))

    def tell(self, what: object) -> None:
        """Say something that has no answer: a line of a log."""
        self._wire.tell(dump(what))

    # ---- running

    def run(self, order: Order, parcels: Mapping[str, bytes]) -> bytes:
        """Run what is ordered, on this thread; return what came of it, pickled."""
        get = _either(parcels, self._parcels)
        asked, self.is_asking = self.is_asking, False
        try:
            function = _function(order.function, get)
            args, kwargs = unpack_arguments(order.arguments, get)
            with _prints_told(order.log_prints):
                result = function(*args, **kwargs)
                if order.is_async:
                    result = run_coroutine(result)
            return ran(result, f"'{getattr(function, '__qualname__', function)}'")
        except RunHalted as signal:
            return outcome(Halted(str(signal)))
        except BaseException as error:
            return outcome(Ran(None, failure_of(without_engine_frames(error), _dump_readable)))
        finally:
            self.is_asking = asked


def perform(order: Order, wire: Wire, parcels: Callable[[str], bytes]) -> bytes:
    """Run an order, the first of its conversation; return what came of it, pickled, for `Done`.

    `parcels` gives the bytes of those that the order names.
    """
    _log_to_the_flow()
    return contextvars.Context().run(_perform, order, wire, parcels)


def _perform(order: Order, wire: Wire, parcels: Callable[[str], bytes]) -> bytes:
    errand = _Errand(wire, parcels)
    ERRAND.set(errand)
    set_tracer(cast(Any, errand))
    return errand.run(order, {})


def _dump_readable(value: object) -> bytes:
    """Pickle something that can also be unpickled, which not every class of exceptions sees to."""
    data = dump(value)
    load(data)
    return data


def _either(first: Mapping[str, bytes], others: Callable[[str], bytes]) -> Callable[[str], bytes]:
    return lambda name: first[name] if name in first else others(name)


#: Functions by the names of their parcels, so that one that is called often is unpickled once.
_functions: dict[str, Callable[..., object]] = {}


def _function(name: str, parcels: Callable[[str], bytes]) -> Callable[..., object]:
    function = _functions.get(name)
    if function is None:
        loaded = load(parcels(name))
        function = _functions[name] = getattr(loaded, "fn", loaded)
    return function


def has_function(name: str) -> bool:
    """Tell whether a function's parcel need not be sent any more."""
    return name in _functions


async def _items_later(answer: Any) -> Any:
    for item in await answer:
        yield item


# ---------------------------------------------------------------------------------------------------- prints and logs


class _ToTheFlow(logging.Handler):
    """Sends the lines of runs' loggers to the flow's process, where they are written and shown."""

    def emit(self, record: logging.LogRecord) -> None:
        errand = ERRAND.get()
        if errand is None:
            return
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.msg, record.exc_info, record.exc_text = f"{record.msg}\n{record.exc_text}", None, None
        errand.tell(record)


_logs = False


def _log_to_the_flow() -> None:
    global _logs
    if not _logs:
        _logs = True
        logger = logging.getLogger("wfengine")
        logger.addHandler(_ToTheFlow())
        logger.propagate = False
        logger.setLevel(logging.DEBUG)  # the flow's process decides


@contextmanager
def _prints_told(wanted: bool) -> Iterator[None]:
    token = _prints.set(wanted)
    if wanted and builtins.print is not _print:
        global _plain_print
        _plain_print, builtins.print = builtins.print, _print
    try:
        yield
    finally:
        _prints.reset(token)


_prints: contextvars.ContextVar[bool] = contextvars.ContextVar("wfengine_worker_prints", default=False)
_plain_print: Callable[..., None] = builtins.print


def _print(*values: object, **options: object) -> None:
    _plain_print(*values, **options)
    errand = ERRAND.get()
    if errand is not None and _prints.get() and options.get("file") in (None, sys.stdout, sys.stderr):
        separator = options.get("sep")
        errand.tell((" " if separator is None else str(separator)).join(str(value) for value in values))
