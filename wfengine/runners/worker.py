"""On a worker: run the code of a task, and ask the flow's process for what needs the journal.

A worker has no journal and no scope. In the context of the code that it runs stands its `Errand`, by which the calls of
tasks and flows, and the public functions that need the journal (`asks_the_flow`), find the way to the flow's process.
"""

from __future__ import annotations

import builtins
import contextvars
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from wfengine.prints import is_shown, printed_text
from wfengine.runners.away import ERRAND, Errand
from wfengine.runners.messages import (
    MAIN,
    Apart,
    Asked,
    Begun,
    Call,
    Do,
    Finish,
    Halted,
    Order,
    Ran,
    Run,
    dump,
    load,
    outcome,
    ran,
    unpack_arguments,
)
from wfengine.runners.remote_errors import error_of, failure_of
from wfengine.scopes import current_tags, running_asyncio_task, set_tracer, tags
from wfengine.steps import run_coroutine
from wfengine.task_future import TaskFuture
from wfengine.tracebacks import without_engine_frames
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.errors import MissingContextError, RunHalted, UsageError
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    import asyncio

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

    @property
    def flow_run_id(self) -> int:
        """See PrefectDistributedFuture."""
        return cast(int, self._ask("flow_run_id"))

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


class _Lane:
    """The one thread of control that runs an order: what it asks has an order, what others ask has none. See `scopes`."""

    def __init__(self, thread: int, order: Order) -> None:
        self.thread = thread  # its number
        self.scope = order.scope
        self.is_async = order.is_async
        self.is_asking = False
        self.enter()

    def enter(self) -> None:
        """Make the present thread of control the lane."""
        self._ident = threading.get_ident()
        self._task = running_asyncio_task()

    def is_here(self) -> bool:
        """Tell whether the caller is on the lane."""
        return not self.is_asking and threading.get_ident() == self._ident and running_asyncio_task() is self._task


#: Of the code that runs here.
_LANE: contextvars.ContextVar[_Lane | None] = contextvars.ContextVar("wfengine_lane", default=None)


def _awaitable(error: BaseException) -> BaseException:
    """Return an exception as a future can hold it."""
    return RuntimeError(f"StopIteration: {error}") if isinstance(error, StopIteration) else error


class _Awaited:
    """What runs here, on another thread, for an `await`."""

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None

    def enter(self) -> None:
        """Note that it is the present asyncio task."""
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task

    def cancel(self) -> bool:
        """Cancel it; tell whether there is something that can be cancelled."""
        if self._running is None:
            return False
        loop, task = self._running
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:  # it has ended
            return False
        return True


#: Set in the context of a thread that asks for an `await`.
_AWAITED: contextvars.ContextVar[_Awaited | None] = contextvars.ContextVar("wfengine_awaited", default=None)


class _Errand(Errand):
    """What stands in the context of code that runs here; calls of tasks and flows come to it as to a `Tracer`."""

    def __init__(
        self, wire: Wire, parcels: Callable[[str], bytes], run_coroutine: Callable[[Any, Callable[[], object]], object]
    ) -> None:
        self._wire = wire
        self._run_coroutine = run_coroutine
        self._parcels = parcels
        self._process = os.getpid()
        self.is_over = False  # the order is carried out; threads that its code left behind are heard no more

    # ---- calls of tasks and flows; the names are those of a tracer

    def call(self, callee: Any, args: tuple[object, ...], kwargs: dict[str, object], before: object, return_state: bool) -> Any:
        """Make a call; something async gives what has to be awaited, a generator an iterator over what it gave."""
        what = Call(callee.decorated, args, kwargs, before, return_state, submitted=False, tags=current_tags())
        if callee.is_async:
            begun = self.ask(what)  # it has its place in the order of calls now
            answer: Any = self.later(lambda: self.ask(Finish(begun.number)))
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
        if os.getpid() != self._process:
            raise UsageError(
                "A forked process of a task on a worker called something of wfengine, which was not done: it cannot speak for "
                "the process it comes from. Do that in the task itself."
            )
        lane = _LANE.get()
        if self.is_over or lane is None:
            raise RunHalted(
                MissingContextError(
                    "A thread that outlives the task which started it called something of wfengine, which was not done: the "
                    "task is over. Wait for the thread in the task."
                )
            )
        is_on_lane = lane.is_here()
        thread = lane.thread if is_on_lane else next(_numbers)
        lane.is_asking = lane.is_asking or is_on_lane
        try:
            answer = load(self._wire.ask(thread, dump(Asked(lane.scope, what))))
            while isinstance(answer, Run | Apart):
                if isinstance(answer, Run):
                    said = self.run(answer.order, answer.parcels, thread)
                else:
                    self._run_apart(answer.number)
                    said = dump(Asked(lane.scope, None))
                answer = load(self._wire.ask(thread, said))
        finally:
            if is_on_lane:
                lane.is_asking = False
        if isinstance(answer, Halted):
            raise RunHalted(UsageError(answer.text))
        assert isinstance(answer, Ran)
        if answer.failure is not None:
            raise error_of(answer.failure)
        return answer.value

    def _run_apart(self, number: int) -> None:
        context = contextvars.copy_context()

        def body() -> None:
            with suppress(BaseException):  # the thread that asked hears of it
                self.ask(Finish(number))

        start_thread("wfengine-apart", lambda: context.run(body))

    async def later(self, ask: Callable[[], R]) -> R:
        """Ask without stopping the event loop, on a thread of its own: others, that wait too, may have to go first."""
        import asyncio

        loop = asyncio.get_running_loop()
        answered: asyncio.Future[R] = loop.create_future()

        def finish(settle: Callable[[Any], None], value: object) -> None:
            if not answered.done():
                settle(value)

        def body() -> None:
            settle: Callable[[Any], None] = answered.set_result
            value: object
            try:
                value = ask()
            except BaseException as error:
                settle, value = answered.set_exception, _awaitable(error)
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(finish, settle, value)

        context = contextvars.copy_context()
        awaited = _Awaited()
        context.run(_AWAITED.set, awaited)
        start_thread("wfengine-ask", lambda: context.run(body))
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            if awaited.cancel():  # async code that runs for it: it is unwound first, as if it had been awaited here
                await asyncio.wait([answered])
            raise

    def do(self, fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Have a public function called in the flow's process."""
        answer = self.ask(Do(fn.__module__, fn.__qualname__, args, kwargs))
        return self.later(lambda: self.ask(Finish(answer.number))) if isinstance(answer, Begun) else answer

    @property
    def is_async(self) -> bool:
        """Tell whether the code that runs here is that of an async task or flow."""
        lane = _LANE.get()
        return lane is not None and lane.is_async

    def tell(self, what: object) -> None:
        """Say something that has no answer: a line of a log."""
        if not self.is_over and os.getpid() == self._process:
            self._wire.tell(dump(what))

    # ---- running

    def run(self, order: Order, parcels: Mapping[str, bytes], thread: int) -> bytes:
        """Run what is ordered, on this thread, which has that number; return what came of it, pickled."""
        get = _either(parcels, self._parcels)
        lane = _Lane(thread, order)
        token = _LANE.set(lane)
        try:
            function = _function(order.function, get)
            args, kwargs = unpack_arguments(order.arguments, get)
            with _prints_told(order.log_prints), tags(*order.tags):
                result = function(*args, **kwargs)
                if order.is_async:
                    awaited = _AWAITED.get()

                    def enter() -> None:
                        lane.enter()
                        if awaited is not None:
                            awaited.enter()
                            _AWAITED.set(None)

                    result = self._run_coroutine(result, enter)
            return ran(result, f"'{getattr(function, '__qualname__', function)}'")
        except RunHalted as signal:
            return outcome(Halted(str(signal)))
        except BaseException as error:
            return outcome(Ran(None, failure_of(without_engine_frames(error), _dump_readable)))
        finally:
            _LANE.reset(token)


def perform(
    order: Order,
    wire: Wire,
    parcels: Callable[[str], bytes],
    context: contextvars.Context | None = None,
    run_coroutine: Callable[[Any, Callable[[], object]], object] = run_coroutine,
) -> bytes:
    """Run an order, the first of its conversation; return what came of it, pickled, for `Done`.

    `parcels` gives the bytes of those that the order names. The code runs in `context`, by default an empty one. Async code is
    run to its end by `run_coroutine`, which calls its second argument first of all in the thread and task that run it.
    """
    _log_to_the_flow()
    process = os.getpid()
    try:
        return (context or contextvars.Context()).run(_perform, order, _Errand(wire, parcels, run_coroutine))
    finally:
        if os.getpid() != process:
            os._exit(1)  # user code forked, and its child came back here, where it must not speak for its parent


def _perform(order: Order, errand: _Errand) -> bytes:
    ERRAND.set(errand)
    set_tracer(cast(Any, errand))
    try:
        return errand.run(order, {}, MAIN)
    finally:
        errand.is_over = True


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
    if errand is not None and _prints.get() and is_shown(options):
        errand.tell(printed_text(values, options))
