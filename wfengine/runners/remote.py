"""Tasks whose code runs elsewhere: in processes of this machine, on Dask, on Ray.

The life of a task run is lived here, on a thread of the flow's process like that of any task (`threads`): identity, attempts,
retries, commits, hooks. Only its code runs on a worker. In its place stands a *conversation*: the order goes out, the
worker asks for what needs the journal - a task it calls, a variable, a sleep - and is answered, and in the end says what
came of the order. So workers never open the journal, and everything they do is recorded here, in the order in which they
do it.

A task or flow that the worker's code calls is lived here too, and its code goes to the very thread of the worker that
called it. What it submits goes to the runner's queue.

A runner of this kind is a `RemoteTaskRunner` that says how to get workers (`Workers`); everything else is the same for all.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, cast

import xxhash

from wfengine import prints
from wfengine.runners.messages import (
    MAIN,
    Apart,
    Ask,
    Asked,
    Begun,
    Call,
    Do,
    Done,
    Finish,
    Halted,
    Lost,
    Names,
    Order,
    Ran,
    Run,
    Tell,
    dump,
    is_outcome,
    load,
    pack_arguments,
)
from wfengine.runners.remote_calls import answer_call, answer_do, begin_call, take_log
from wfengine.runners.remote_errors import error_of, failure_of
from wfengine.runners.threads import Running, ThreadTaskRunner
from wfengine.scopes import current_tags
from wfengine.steps import Invoke, run_coroutine, timed_out
from wfengine.task_future import worker_hooks
from wfengine_journal.errors import (
    InDoubtError,
    MissingContextError,
    RunHalted,
    Signal,
    TaskInterrupted,
    UnsendableError,
    UsageError,
    WorkerDiedError,
)
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine.task_engine import Callee
    from wfengine_journal.store import Journal


class Workers(Protocol):
    """Where the code of tasks runs, for one flow run. All methods may be called from any thread."""

    def begin(self, line: Line, order: Order, parcels: Mapping[str, bytes], hints: Mapping[str, object]) -> None:
        """Give an order to a worker, which may take its time to be there.

        `parcels` are those that the order names; one that the worker has need not be sent. `hints` are what the task asks
        of a worker.
        """

    def receive(self, line: Line, thread: int, seconds: float | None) -> object:
        """Wait for what a thread of the line's worker says: Ask, Done or Lost, for MAIN Tell too; None: look for a halt.

        What a thread says first of all goes to `line.attend`. Raises TimeoutError after so many seconds.
        """

    def send(self, line: Line, thread: int, answer: bytes) -> None:
        """Send an answer to the thread of a line's worker that waits for it. A worker that is gone does not hear it."""

    def wake(self, line: Line) -> None:
        """Let all who wait in `receive` look whether the run was halted; must not block."""

    def abandon(self, line: Line) -> None:
        """Nobody waits for this line any more: stop what its worker does if that is possible."""

    def end(self, line: Line) -> None:
        """What came of a line's order was taken: its worker is free."""

    def close(self) -> None:
        """End all workers that are this run's own."""


class Inboxes:
    """What workers of a cluster said to one line, which came on threads of the cluster's client."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._inboxes: dict[int, SimpleQueue[object]] = {MAIN: SimpleQueue()}

    def put(self, message: object) -> None:
        """Take an Ask, Tell, Done or Lost, or None to wake who waits. Does not wait."""
        if type(message) is Ask and message.thread not in self._inboxes:
            with self._lock:
                self._inboxes[message.thread] = SimpleQueue()
            self._line.attend(message)
        elif type(message) is Ask:
            self._inboxes[message.thread].put(message)
        else:
            with self._lock:
                inboxes = [self._inboxes[MAIN]] if type(message) is Tell else list(self._inboxes.values())
            for inbox in inboxes:
                inbox.put(message)

    def get(self, thread: int, seconds: float | None) -> object:
        """See Workers.receive."""
        inbox = self._inboxes[thread]
        try:
            message = inbox.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None
        if type(message) is Lost:
            inbox.put(message)  # for whoever waits here next: the code that called the code that ran there
        return message

    def forget(self, thread: int) -> None:
        """Keep nothing for a thread besides the main one that says no more."""
        with self._lock:
            self._inboxes.pop(thread, None)


class RemoteTaskRunner(ThreadTaskRunner):
    """At most `max_workers` tasks at a time, their code on workers. Made concrete by `open_workers`."""

    #: What can be said of the code of a task that was given up, such as "Its process was stopped."
    given_up = "Its worker may still run; whatever it returns is discarded."

    def start(self, journal: Journal) -> ThreadTaskRunner:
        """Return a running copy for one flow run."""
        return _RunningRemotely(self, journal)

    def open_workers(self, journal: Journal) -> Workers:
        """Return workers for one flow run. Raises UsageError where there can be none."""
        raise NotImplementedError


class _RunningRemotely(Running):
    """The runner of one flow run."""

    def __init__(self, runner: RemoteTaskRunner, journal: Journal) -> None:
        super().__init__(runner.max_workers, journal)
        self.given_up = runner.given_up
        self.workers = runner.open_workers(journal)
        self.names = Names()
        self._functions: dict[int, tuple[object, str, bytes]] = {}
        self._functions_lock = threading.Lock()

    def takes_to_loop(self, is_async: bool) -> bool:
        """Async tasks have an event loop of their own on their worker."""
        return False

    def enter_thread(self) -> None:
        """See Running."""
        super().enter_thread()
        worker_hooks.away = self.away

    def away(self, step: Invoke) -> Invoke:
        """Return the step that stands here for one whose code runs on a worker."""
        call = step.scope.call
        if step.scope.closed or (call is not None and call.callee.transacts is not None):
            return step  # a hook, or what has a connection to the journal in its hands
        return step._replace(fn=Line(self, step).converse, args=(), kwargs={}, is_async=False, timeout_seconds=None)

    def close(self) -> None:
        super().close()
        self.workers.close()

    def order_of(self, step: Invoke) -> tuple[Order, dict[str, bytes]]:
        """Return what a worker is to run for a step, and the parcels that belong to it."""
        callee = _callee_of(step)
        function, data = self._function(step)
        labels = () if callee is None else callee.parameters.names
        arguments, parcels = pack_arguments(step.args, step.kwargs, self.names, lambda: _owner(step), labels)
        log_prints = step.scope.run.log_prints if callee is None or callee.log_prints is None else callee.log_prints
        order = Order(function, arguments, tuple(parcels), step.is_async, log_prints, current_tags())
        return order, {function: data, **parcels}

    def _function(self, step: Invoke) -> tuple[str, bytes]:
        """Return name and pickle of a function; a script's is as it was when it was first sent in this run."""
        known = self._functions.get(id(step.fn))
        if known is None:
            try:
                data = dump(self._sendable(step), self.names)
            except Exception as error:
                raise UnsendableError(
                    f"The code of {_owner(step)} cannot be sent to a worker: {type(error).__name__}: {error}. Something that "
                    "it refers to outside of itself cannot be pickled: make that inside the task, or define the task at the "
                    "top of a module."
                ) from error
            known = step.fn, xxhash.xxh3_128_hexdigest(data), data
            with self._functions_lock:
                self._functions[id(step.fn)] = known
        return known[1], known[2]

    def _sendable(self, step: Invoke) -> object:
        """Return the task or flow, so that it is the one its own code refers to; a function that belongs to none, itself."""
        callee = _callee_of(step)
        decorated = step.scope.run.flow if callee is None else callee.decorated
        return decorated if getattr(decorated, "fn", None) is step.fn else step.fn


def _callee_of(step: Invoke) -> Callee | None:
    return None if step.scope.call is None else step.scope.call.callee


def _owner(step: Invoke) -> str:
    return str(step.scope.call) if step.scope.call is not None else str(step.scope.run)


class _Later:
    """What a function gives that another thread calls."""

    def __init__(self, fn: Callable[[], object]) -> None:
        self._fn = fn
        self._value: object = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Call it."""
        try:
            self._value = self._fn()
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def value(self) -> object:
        """Return what it returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value


def _nothing(_: int) -> None:
    """Do nothing."""


class _Slot:
    """The place of one task among those that run at a time: it is lent while any thread that speaks for the task waits."""

    def __init__(self, runner: _RunningRemotely) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._waiting = 0
        self.hooks = (self._blocks, self._goes_on)

    @contextlib.contextmanager
    def lent_here(self) -> Iterator[None]:
        """Let this be what is lent where the calling thread waits in the block."""
        before, worker_hooks.hooks = worker_hooks.hooks, self.hooks
        try:
            yield
        finally:
            worker_hooks.hooks = before

    def _blocks(self) -> None:
        with self._lock:
            self._waiting += 1
            is_first = self._waiting == 1
        if is_first:
            self._runner.lend()
        else:
            self._runner.journal.flush()

    def _goes_on(self) -> None:
        with self._lock:
            self._waiting -= 1
            is_last = self._waiting == 0
        if is_last:
            self._runner.take_back()


class Line:
    """The conversation about one order: with the thread of a worker that runs it, and the threads which that started."""

    def __init__(self, runner: _RunningRemotely, step: Invoke) -> None:
        self._runner = runner
        self._step = step
        self._scopes: dict[int, contextvars.Context] = {}  # by the number that stands in an order
        self._begun: dict[int, Callable[[], object]] = {}  # calls of something async that are not awaited yet
        self._numbers = itertools.count(1)
        self.forget: Callable[[int], object] = _nothing  # to be called when a thread besides the main one says no more
        self._slot = _Slot(runner)
        self._has_begun = threading.Event()  # or it is over
        self.worker: object = None  # for the runner to remember what it likes

    def __str__(self) -> str:
        return _owner(self._step)

    @property
    def name(self) -> str:
        """The name of the task or flow whose code is to run."""
        callee = _callee_of(self._step)
        return self._step.scope.run.flow.name if callee is None else callee.name

    @property
    def has_limit(self) -> bool:
        """Whether the code has a time limit, which begins when `begin` returns."""
        return self._step.timeout_seconds is not None

    @property
    def depth(self) -> int:
        """How many tasks may wait for this one."""
        return max(0, self._step.scope.depth - 1)

    def attend(self, first: Ask) -> None:
        """Answer the first question of a thread besides the main one, and what follows, on a thread here besides."""
        start_thread("wfengine-line", lambda: self._attend(first))

    def _wake(self) -> None:
        self._runner.workers.wake(self)

    def converse(self) -> object:
        """Have the order carried out: return its value, or raise its exception, as the function itself would."""
        step = self._step
        if step.timeout_seconds is None:
            return self._converse()
        outcome = _Later(self._converse)
        context, about_thread = contextvars.copy_context(), dict(vars(worker_hooks))

        def body() -> None:
            vars(worker_hooks).update(about_thread)  # it stands for this thread: where it blocks, this one does
            step.scope.enter_lane()
            outcome.run()
            self._has_begun.set()

        start_thread("wfengine-line", lambda: context.run(body))
        self._has_begun.wait()  # how long it waits for a worker does not count
        if not outcome.done.wait(step.timeout_seconds):
            step.scope.attempt_over = True
            self._runner.workers.abandon(self)
            raise timed_out(step, self._runner.given_up)
        return outcome.value()

    def _converse(self) -> object:
        runner, step = self._runner, self._step
        order, parcels = runner.order_of(step)
        self._scopes[0] = contextvars.copy_context()
        with self._slot.lent_here(), step.scope.run.woken_by_halt(self._wake):
            self.check_wanted()
            hints = {} if step.scope.call is None else step.scope.call.callee.resources or {}
            runner.workers.begin(self, order, parcels, hints)
            try:
                self.check_wanted()
                self._has_begun.set()
                message = self._answered(MAIN, step)
            except BaseException:
                runner.workers.abandon(self)
                raise
            finally:
                self._scopes.clear()
        runner.workers.end(self)
        if isinstance(message, Lost):
            raise _died(message, step)
        assert isinstance(message, Done)
        return _given(self._heard(message.what), step)

    def check_wanted(self) -> None:
        """Unwind if nobody waits for what comes of this any more."""
        scope = self._step.scope
        scope.run.check_not_halted()
        if scope.attempt_over:  # its limit came while it waited for a worker
            raise RunHalted(MissingContextError(f"{self} was given up before it began."))

    def _answered(self, thread: int, step: Invoke) -> object:
        """Answer what a thread of the worker asks until it says what came of its order, or is lost; return that."""
        while True:
            message = self._runner.workers.receive(self, thread, None)
            step.scope.run.check_not_halted()
            if message is None:
                continue
            if type(message) is Tell:
                self._take(message)
            elif type(message) is not Ask:
                return message
            else:
                what = self._heard(message.what)
                if is_outcome(message.what):
                    return what
                self._reply(thread, what)

    def _heard(self, data: bytes) -> object:
        """Return what the worker said; what cannot be read is a failure of its code that says so."""
        try:
            return load(data, self._runner.names)
        except Exception as error:
            text = (
                f"{self}: what its worker sent cannot be read in the flow's process: {type(error).__name__}: {error}. Send "
                "plain data, or objects of modules that can be imported there too."
            )
            return Ran(None, failure_of(UnsendableError(text), dump))

    def _reply(self, thread: int, asked: object) -> None:
        """Do what a thread of the worker asks for, and answer it."""
        if type(asked) is Ran:  # it asked for something that cannot be read
            self._send(thread, asked)
            return
        with self._in_thread(thread):
            answer: Ran | Halted
            try:
                answer = Ran(self._done(cast(Asked, asked).what))
            except Signal as signal:
                answer = Halted(str(signal))
            except BaseException as error:  # for the code that asked, whatever it is; without an answer it waits for ever
                answer = Ran(None, failure_of(error, dump))
        self._send(thread, answer)

    def _done(self, what: object) -> object:
        if isinstance(what, Finish):
            return self._begun.pop(what.number)()
        if isinstance(what, Call) and not what.submitted and cast(Any, what.callee).is_async:
            number = next(self._numbers)
            self._begun[number] = begin_call(what)
            return Begun(number)
        result = answer_call(what) if isinstance(what, Call) else answer_do(cast(Do, what))
        if not inspect.iscoroutine(result):
            return result
        number = next(self._numbers)
        self._begun[number] = lambda: run_coroutine(result)
        return Begun(number)

    def _send(self, thread: int, answer: object) -> None:
        try:
            data = dump(answer, self._runner.names)
        except Exception as error:
            text = f"{self}: what it asked for cannot be sent to its worker: {type(error).__name__}: {error}"
            data = dump(Ran(None, failure_of(UsageError(text), dump)))
        self._runner.workers.send(self, thread, data)

    @contextlib.contextmanager
    def _in_thread(self, thread: int) -> Iterator[None]:
        """Let code that is invoked in the block go to the thread of the worker that waits for the block."""

        def away(step: Invoke) -> Invoke:
            same = self._runner.away(step)
            if same is step:
                return step
            run = self._run_inside if step.timeout_seconds is None else self._run_apart
            return same._replace(fn=lambda: run(step, thread))

        before = worker_hooks.away
        worker_hooks.away = away
        try:
            yield
        finally:
            worker_hooks.away = before

    def _run_inside(self, step: Invoke, thread: int) -> object:
        """Have a thread of the worker run something before it is answered."""
        order, parcels = self._runner.order_of(step)
        number = next(self._numbers)
        self._scopes[number] = contextvars.copy_context()
        try:
            self._send(thread, Run(order._replace(scope=number), parcels))
            said = self._answered(thread, step)
        finally:
            self._scopes.pop(number, None)
        if isinstance(said, Lost):
            raise _died(said, step)
        return _given(said, step)

    def _run_apart(self, step: Invoke, thread: int) -> object:
        """Have another thread of the worker run something that has a limit, while the one that asked waits."""
        unlimited = step._replace(timeout_seconds=None)

        def run_inside() -> object:
            step.scope.enter_lane()
            assert worker_hooks.away is not None
            return cast(Invoke, worker_hooks.away(unlimited)).fn()

        context, number, outcome = contextvars.copy_context(), next(self._numbers), _Later(run_inside)
        self._begun[number] = lambda: context.run(outcome.run)
        self._send(thread, Apart(number))
        message: object = None
        while message is None:
            message = self._runner.workers.receive(self, thread, None)
            step.scope.run.check_not_halted()
        if isinstance(message, Lost):
            raise _died(message, step)
        if not outcome.done.wait(step.timeout_seconds):
            step.scope.attempt_over = True
            raise timed_out(step)
        return outcome.value()

    def _attend(self, first: Ask) -> None:
        worker_hooks.hooks = self._slot.hooks
        try:
            asked = self._heard(first.what)
            context = self._scopes.get(asked.scope) if isinstance(asked, Asked) else contextvars.copy_context()
            if context is None:
                self._send(first.thread, Halted("The task whose code asked for something is over, so it was not done."))
            else:
                context.copy().run(self._reply, first.thread, asked)
        finally:
            self.forget(first.thread)

    def _take(self, message: Tell) -> None:
        what = load(message.what, self._runner.names)
        if isinstance(what, str):
            prints.log_printed(what)
        else:
            take_log(what)


def _died(lost: Lost, step: Invoke) -> BaseException:
    """Return what it means for the task that its worker is lost: what its author said for a process that died."""
    call, run = step.scope.call, step.scope.run
    callee = None if call is None else call.callee
    policy = "rerun" if callee is None else callee.on_interrupt
    text = f"{_owner(step)}: {lost.why}"
    if step.scope.is_given_up():
        return RunHalted(MissingContextError(f"{text}. Its attempt was given up, so that is not recorded."))
    run_id, task_run_id = run.id, step.scope.task_run_id or None
    if policy == "ask":
        doubt = InDoubtError(
            f"{text}. Its author asked that a person decides whether it took effect. Look, then type: "
            f"wfengine resolve {run.id} {task_run_id} --done VALUE   or: --not-done   (run it again)",
            flow_run_id=run_id, task_run_id=task_run_id,
        )  # fmt: skip
        return run.halt(RunHalted(doubt))
    if policy == "fail":
        assert call is not None
        call.gives_up = True
        text += ". Its author asked that it is not run again unasked"
        return TaskInterrupted(f"{text}.", flow_run_id=run_id, task_run_id=task_run_id)
    text += ". Give the task retries, and it is tried again on another worker"
    return WorkerDiedError(f"{text}.", flow_run_id=run_id, task_run_id=task_run_id)


def _given(said: object, step: Invoke) -> object:
    """Return or raise what came of an order."""
    if isinstance(said, Halted):
        step.scope.run.check_not_halted()
        raise RunHalted(UsageError(said.text))
    assert isinstance(said, Ran)
    if said.failure is not None:
        raise error_of(said.failure)
    return said.value
