"""What the code that runs now belongs to: a flow run, and within it a scope.

A *scope* is an enclosing call: the flow's body is the root, and a task that calls tasks opens its own. It travels in a
context variable: through our runners, through asyncio tasks, and with `carry` into a user's own threads.

The *main lane* of a scope is the one thread of control that runs its body. Only calls issued there have a defined order.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from wfengine.result_memory import ResultMemory
from wfengine.runners.away import is_worker_process
from wfengine_journal.errors import (
    CancelledRun,
    InternalError,
    JournalError,
    MissingContextError,
    OwnershipLostError,
    RunHalted,
)

if TYPE_CHECKING:
    from wfengine.dry_runs import DryRun
    from wfengine.flows import AnyFlow
    from wfengine.in_flight import InFlight
    from wfengine.keeping import Keeping
    from wfengine.loop_commits import LoopCommits
    from wfengine.replay import Recorded
    from wfengine.runners import TaskRunner
    from wfengine.streams import Feed
    from wfengine.task_engine import Call, Callee
    from wfengine.task_future import TaskFuture
    from wfengine.transactions import Transaction
    from wfengine.visualization import Tracer
    from wfengine_journal.store import Journal

P = ParamSpec("P")
R = TypeVar("R")


class LiveRun:
    """One flow run while this process executes it: from its claim to its end."""

    __slots__ = (
        "__weakref__", "callees", "cancelled", "deadline", "dry", "durability", "epoch", "feed", "flow", "halted", "held_keys",
        "id", "issue_lock", "journal", "left_open", "log_prints", "memory", "name", "on_drift", "outer_tags", "outstanding",
        "own_deadline", "parameters", "parent", "parent_call", "recorded", "results", "rolled_back", "runners", "synced",
        "tags", "told", "turns", "uses_transactions", "version", "waits_for_attempt", "wakers",
    )  # fmt: skip

    def __init__(self, journal: Journal, flow: AnyFlow, run_id: int, name: str, *, epoch: int, version: int) -> None:
        self.journal = journal
        self.flow = flow
        self.id = run_id
        self.name = name
        self.epoch = epoch
        self.version = version
        self.durability = "power"
        self.synced = True  # outcomes wait for the disk (durability "power")
        self.own_deadline: str | None = None  # as recorded
        self.deadline: float | None = None  # the earliest of its own and those of the runs around it, in seconds
        self.parameters: dict[str, object] = {}
        self.tags: frozenset[str] = frozenset()
        self.outer_tags: frozenset[str] = frozenset()  # of a resumed run: those of the `with tags(...)` it was started in
        self.parent: LiveRun | None = None
        self.parent_call: Call | None = None  # the call that a subflow's run stands for
        self.told: set[tuple[int, int, str, str]] = set()  # hooks that were called, as `list_hook_runs`
        self.dry: DryRun | None = None  # nothing is executed: what would be is noted
        self.recorded: Recorded | None = None  # what earlier executions recorded; None in a first execution
        self.on_drift: str | None = None
        self.results: Keeping | None = None  # how its results are written, where its flow or one around it says so
        self.runners: dict[
            TaskRunner | None, TaskRunner
        ] = {}  # started for this run, by the one that was chosen; None: by nobody
        self.outstanding: set[TaskFuture[object]] = set()  # submitted and not settled
        self.memory = ResultMemory()  # of the results of its submitted tasks
        self.issue_lock = threading.Lock()
        self.halted: RunHalted | None = None  # once set, no further call of this run does anything
        self.cancelled: CancelledRun | None = None  # set where somebody asked that, so that the run ends as cancelled
        self.wakers: dict[object, Callable[[], object]] = {}  # what to call when the run is halted
        self.waits_for_attempt = False  # between two attempts of the body
        self.log_prints = False
        self.left_open = True  # the journal still says RUNNING
        self.feed: Feed | None = None  # of a generator flow: what its consumer was given
        self.uses_transactions = False  # a transaction was begun in it, or around it
        self.held_keys: dict[str, Transaction] = {}  # of its SERIALIZABLE transactions
        self.rolled_back = False  # a transaction around this subflow undid a part of it
        self.callees: dict[tuple[str, str], Callee] = {}  # what was called so far, by kind and key
        self.turns: dict[object, LoopCommits] = {}  # by event loop: the commits it waits for

    def check_not_halted(self) -> None:
        """Unwind again where user code swallowed the signal that stopped this run."""
        if self.halted is not None:
            raise RunHalted(self.halted.error)

    def halt(self, signal: RunHalted) -> RunHalted:
        """Stop the run: every later call unwinds with the same signal. Returns the first one."""
        if self.halted is None:
            self.halted = signal
            self._wake()
        return self.halted

    def cancel(self, error: CancelledRun) -> RunHalted:
        """Stop the run so that it ends as cancelled, also where it was about to be parked. Returns the signal."""
        if self.halted is not None and isinstance(self.halted.error, OwnershipLostError | JournalError | InternalError):
            return self.halted  # it cannot end here at all
        if self.cancelled is None:
            self.cancelled = error
            self.halted = RunHalted(error)
            self._wake()
        assert self.halted is not None
        return self.halted

    def drop_queued(self) -> None:
        """Settle what was submitted and has not begun with an error."""
        for runner in list(self.runners.values()):
            runner.cancel_queued()

    def close_runners(self) -> None:
        """End the runners; a later submit starts new ones."""
        runners, self.runners = self.runners, {}
        for runner in runners.values():
            runner.close()
        self.memory.close()

    @contextmanager
    def woken_by_halt(self, waker: Callable[[], object]) -> Iterator[None]:
        """Call `waker`, on any thread, when the run is halted while the block runs; it must not block.

        Whoever waits in the block looks whether the run is halted first: it may have been, before.
        """
        key = object()
        self.wakers[key] = waker
        try:
            yield
        finally:
            del self.wakers[key]

    def _wake(self) -> None:
        for waker in list(self.wakers.values()):
            waker()

    def __str__(self) -> str:
        return f"flow run {self.id} '{self.name}'"


class Scope:
    """An enclosing call, and the counters that tell equal calls in it apart."""

    __slots__ = (
        "_lane_task", "_lane_thread", "attempt_over", "call", "closed", "enclosing", "epoch", "issued", "places", "run",
        "submitted", "transactions",
    )  # fmt: skip

    def __init__(self, run: LiveRun, call: Call | None) -> None:
        self.run = run
        self.call = call  # None: the flow's body
        self.enclosing = None if call is None else call.scope
        self.epoch = run.epoch
        self.issued: dict[int, dict[bytes, int]] = {}  # by task and call key
        self.submitted: InFlight | None = None  # by its code, and not settled: a task is not over before they are
        self.attempt_over = False  # set when the attempt was given up (timeout) though its thread may still run
        self.closed = False  # set for hooks, and what names a run: what they call is not part of this run
        self.transactions = 0  # begun in this scope so far
        self.places: set[int] = set()  # rows of the places of limits that its code holds
        self._lane_thread = 0
        self._lane_task: object | None = None

    def is_given_up(self) -> bool:
        """Tell whether this attempt, or one that encloses it, is over, though its thread may still run."""
        scope: Scope | None = self
        while scope is not None:
            if scope.attempt_over or scope.epoch != self.run.epoch:
                return True
            scope = scope.enclosing
        return False

    @property
    def task_run_id(self) -> int:
        """The id of the enclosing task run; 0 for the flow's body."""
        return 0 if self.call is None else self.call.task_run_id

    @property
    def depth(self) -> int:
        """How many calls of this run enclose it; 0 for the flow's body."""
        depth, scope = 0, self.enclosing
        while scope is not None:
            depth, scope = depth + 1, scope.enclosing
        return depth

    def enter_lane(self) -> None:
        """Make the present thread of control (thread and asyncio task) the scope's main lane; called where its body starts."""
        self._lane_thread = threading.get_ident()
        self._lane_task = running_asyncio_task()

    def on_main_lane(self) -> bool:
        """Tell whether the caller is the body's own thread of control."""
        return threading.get_ident() == self._lane_thread and running_asyncio_task() is self._lane_task

    def next_occurrence(self, task_id: int, call_key: bytes) -> int:
        """Return 0, 1, 2 ... for equal calls, in the order in which they are issued."""
        with self.run.issue_lock:
            counts = self.issued.get(task_id)
            if counts is None:
                counts = self.issued[task_id] = {}
            occurrence = counts.get(call_key, 0)
            counts[call_key] = occurrence + 1
        return occurrence


def running_asyncio_task() -> object | None:
    """Return the asyncio task that runs the calling code; None outside of one."""
    asyncio = sys.modules.get("asyncio")  # not imported: then no loop runs
    if asyncio is None:
        return None
    try:
        task: object | None = asyncio.current_task()
    except RuntimeError:
        return None
    return task


_SCOPE: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("wfengine_scope", default=None)
#: The innermost transaction block; it counts for calls of the scope in which it was entered.
ACTIVE_TRANSACTION: contextvars.ContextVar[Transaction | None] = contextvars.ContextVar("wfengine_transaction", default=None)
#: Set while a flow is drawn. Asked only where no scope is, so that calls in a run pay nothing for it.
_TRACER: contextvars.ContextVar[Tracer | None] = contextvars.ContextVar("wfengine_tracer", default=None)
_TAGS: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("wfengine_tags", default=frozenset())

#: The flow runs this process executes now, by (journal path, id).
ACTIVE: dict[tuple[str, int], LiveRun] = {}
#: Runs that this process stopped executing without having been able to record it: the disk failed, Ctrl-C came twice.
ABANDONED: set[tuple[str, int]] = set()

current_scope = _SCOPE.get
current_tracer = _TRACER.get
current_tags = _TAGS.get
set_scope = _SCOPE.set
set_tracer = _TRACER.set
reset_scope = _SCOPE.reset


def find_scope() -> Scope | None:
    """Return the scope a task call belongs to, or None outside of any run and in a hook.

    Raises MissingContextError in a thread that lost its scope, and unwinds a run that was stopped.
    """
    scope = _SCOPE.get()
    if scope is None:
        if (
            (ACTIVE or is_worker_process())
            and threading.current_thread() is not threading.main_thread()
            and _TRACER.get() is None
        ):
            _refuse_lost_thread()
        return None
    if scope.closed:
        return None
    if scope.run.halted is not None:
        scope.run.check_not_halted()
    if scope.is_given_up():
        raise RunHalted(
            MissingContextError(
                f"This attempt of {scope.call} was given up (it timed out), so what it still does is not recorded. "
                "Nothing to do: the flow went on without it."
            )
        )
    return scope


def _refuse_lost_thread() -> None:
    run = next(iter(ACTIVE.values()), "the flow run of a task on this worker")
    raise MissingContextError(
        f"A task was called in thread {threading.current_thread().name!r}, which does not know its flow run while {run} is "
        "executing, so the call could not be recorded. Wrap what the thread runs, in the flow: "
        "executor.submit(wfengine.carry(fn), ...) - or use task.submit(...)."
    )


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """Return `fn` bound to the present flow run, for a thread or executor of your own.

    Call it in the flow: `executor.submit(carry(my_task), 1)`. The thread's task calls are then recorded in this run.
    """
    return _Carried(fn, contextvars.copy_context())


class _Carried(Generic[P, R]):
    def __init__(self, fn: Callable[P, R], context: contextvars.Context) -> None:
        self._fn = fn
        self._context = context

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        # A context can be entered once at a time; each call gets a copy, so that a pool may run many at once.
        return self._context.copy().run(self._fn, *args, **kwargs)


@contextmanager
def naming(run: LiveRun, call: Call | None) -> Iterator[None]:
    """Let the function in the block, which names a run, ask about that run, as far as it is known: it has no id yet."""
    scope = Scope(run, call)
    scope.closed = True
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Give every flow run and task run created inside the block these tags."""
    token = _TAGS.set(_TAGS.get() | frozenset(names))
    try:
        yield _TAGS.get()
    finally:
        _TAGS.reset(token)
