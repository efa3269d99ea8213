"""`@task`: a function whose every call in a flow is recorded."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from wfengine.flows import Flow
from wfengine.futures import TaskFutureList
from wfengine.hooks import Hook, HookDecorators, Hooks
from wfengine.ids import checked_run_name
from wfengine.in_flight import pace_of
from wfengine.loading import is_loading, note_skipped_call
from wfengine.mapping import Item, map_items
from wfengine.methods import Binds, Decorated, bound_place, lost_class, lost_class_text, origin_of, take_apart
from wfengine.parameters import Parameters, known_options
from wfengine.retries import DelaySeconds, exponential_backoff, make_policy
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_tracer, find_scope
from wfengine.states import State
from wfengine.streams import collected, is_generator_function
from wfengine.submission import call_now, submit
from wfengine.task_engine import Callee, OnInterrupt
from wfengine.task_future import TaskFuture
from wfengine.upstream import prerequisites
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from wfengine.cache_policies import CachePolicy
    from wfengine.caching import ResultOptions
    from wfengine.distributed_futures import PrefectDistributedFuture
    from wfengine.result_storage import StorageOption
    from wfengine.runners import TaskRunner
    from wfengine.serializers import Serializer
    from wfengine.transactional import TransactionOptions

P = ParamSpec("P")
R = TypeVar("R")

HOOK_OPTIONS = ("on_running", "on_completion", "on_failure", "on_rollback", "on_commit")
__all__ = ["Task", "exponential_backoff", "task", "task_input_hash"]  # noqa: F822 - one is imported when asked for

#: Names a task's own parameters cannot have: they are options of the call.
RESERVED = ("return_state", "wait_for")


class Task(HookDecorators, Generic[P, R]):
    """A function made a task by `@task`. Calling it in a flow records the call; a recorded call is not run again."""

    __wfengine_by_name__ = True  # see __reduce__
    __wfengine_task__ = True

    def __init__(self, fn: Callable[P, R], options: Mapping[str, object]) -> None:
        parts = take_apart(fn)
        if parts is None:
            raise UsageError(f"@task decorates functions, not {fn!r}.")
        functools.update_wrapper(self, parts.fn)  # first: what the function carries along must not hide what is ours
        self.__name__, self.__qualname__ = parts.name, parts.qualified_name
        self._made_of = fn
        self._origin: Task[..., R] | None = None  # of a bound task: the one that stands in the class
        self._binds = parts.binds
        self.fn = cast("Callable[P, R]", parts.fn)
        #: What the task is bound to, the first argument of every call: an instance or a class; () for a plain function.
        self.bound = parts.bound
        self._options = dict(options)
        self._callee = _make_callee(self, parts, self._options)
        self._take_hooks(f"task '{self._callee.name}'", options, HOOK_OPTIONS)
        self.name = self._callee.name
        self.key = self._callee.key
        self.aliases = tuple(cast("Iterable[str]", self._options.get("aliases", ())))
        self.tags = self._callee.tags
        self.is_async = self._callee.is_async
        self.is_generator = self._callee.is_generator
        self.is_transactional = self._callee.transacts is not None
        self.parameters = self._callee.parameters
        self._own_flows: dict[bool, tuple[Callee, Flow[..., Any]]] = {}
        self.__wfengine_key__ = f"task:{self.key}"
        self._lost_class = lost_class(parts, self.parameters.names)

    def __repr__(self) -> str:
        return f"<Task '{self.name}'>"

    def __reduce__(self) -> tuple[object, ...]:
        # For the pickled function of a flow that cannot be imported, and local classes; by public names, which stay.
        if self._origin is not None:
            return operator.methodcaller("__get__", *bound_place(self._binds, self.bound)), (self._origin,)
        return functools.partial(task, **self._options), (self._made_of,)

    def __get__(self, instance: object, owner: type | None = None) -> Task[..., R]:
        """Return the task bound to the instance, or if it is a class method to the class, that it is looked up in."""
        receiver = owner if self._binds is Binds.CLASS else instance
        if receiver is None or self._binds is Binds.NOTHING or self.bound:
            return self
        return self.with_bound((receiver,))

    def with_bound(self, bound: tuple[object, ...]) -> Task[..., R]:
        """Return the same task, bound to something else; for the engine."""
        copied: Task[..., R] = object.__new__(type(self))
        copied.__dict__ = {**self.__dict__, "bound": bound, "_origin": self._origin or self}
        return copied

    @functools.cached_property
    def _submitted(self) -> Callee:
        """What is submitted: of a generator, a task that returns the list of its items, with a key of its own."""
        callee = self._callee
        if not callee.is_generator:
            return callee
        return dataclasses.replace(callee, fn=collected(callee.fn), key=f"{callee.key}[]", aliases=(), is_generator=False)

    def _use_hooks(self, hooks: Hooks) -> None:
        self._callee = dataclasses.replace(self._callee, hooks=hooks)
        self.__dict__.pop("_submitted", None)

    def on_rollback(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(transaction)` to undo the task, see `wfengine.transactions`."""
        return self._add_hook("on_rollback", hook)

    def on_commit(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(transaction)` when what the task did is committed."""
        return self._add_hook("on_commit", hook)

    @property
    def retries(self) -> int:
        """How often the task is tried again."""
        return self._callee.policy.retries

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, /, *args: object, return_state: bool, **kwargs: object) -> State[R]: ...
    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Run the task in the present flow run and return its result, or raise its exception, after the commit.

        Futures and states among the arguments, in containers too, stand for their results; `wait_for=[...]` waits for more.
        If one of them failed the task does not run, and its exception is raised. `return_state=True` returns the final
        state instead. An async task gives a coroutine; the call takes its place in the order of calls here, not when it is
        awaited. A generator gives an iterator whose items are recorded one by one, see `wfengine.streams`; its state has
        the list of items as result.
        """
        return_state = bool(kwargs.pop("return_state", False))
        before = kwargs.pop("wait_for", None)
        if self.bound:
            args = self.bound + args
        scope = find_scope()
        if scope is None:
            if (tracer := current_tracer()) is not None:
                return tracer.call(self._callee, args, kwargs, before, return_state)
            return _call_alone(self, args, kwargs, before, return_state)
        callee = self._submitted if return_state else self._callee
        return call_now(callee, scope, args, kwargs, before=prerequisites(before), return_state=return_state)

    @overload
    def submit(
        self, /, *args: object, wait_for: object = None, return_state: Literal[False] = False, **kwargs: object
    ) -> TaskFuture[R]: ...
    @overload
    def submit(self, /, *args: object, wait_for: object = None, return_state: Literal[True], **kwargs: object) -> State[R]: ...
    def submit(
        self, /, *args: object, wait_for: object = None, return_state: bool = False, **kwargs: object
    ) -> TaskFuture[R] | State[R]:
        """Run the task on the flow's runner and return a future at once; with `return_state`, its final state.

        It begins when the futures among its arguments, and those of `wait_for`, are settled. If one of them failed it does
        not run: the state of its future is NotReady, and `result` raises that one's exception.
        """
        self._refuse_lost_class("submit")
        future = cast("TaskFuture[R]", submit(self._submitted, self.bound + args, kwargs, prerequisites(wait_for)))
        if not return_state:
            return future
        future.wait()
        return future.state

    @overload
    def map(
        self, /, *args: object, wait_for: object = None, return_state: Literal[False] = False, deferred: bool = False,
        max_in_flight: int | None = None, **kwargs: object,
    ) -> TaskFutureList[R]: ...  # fmt: skip
    @overload
    def map(
        self, /, *args: object, wait_for: object = None, return_state: Literal[True], deferred: bool = False,
        max_in_flight: int | None = None, **kwargs: object,
    ) -> list[State[R]]: ...  # fmt: skip
    def map(
        self, /, *args: object, wait_for: object = None, return_state: bool = False, deferred: bool = False,
        max_in_flight: int | None = None, **kwargs: object,
    ) -> TaskFutureList[R] | list[State[R]]:  # fmt: skip
        """Submit the task once for each item of its iterable arguments; return the list of futures, or of final states.

        All iterables must have one length. Text, bytes, and what is marked `unmapped` go whole to each item; a default is
        never taken apart. A future itself counts as its result, which is waited for here; futures among the items, and those
        of `wait_for`, are left to each item. `deferred=True` puts each item into the queue of background tasks, see `delay`.

        Iterators, such as generators, are read as tasks are settled: at most 1,000 of the map are in flight, or
        `max_in_flight`, and until the last item is submitted `map` does not return. See `docs/maps.md`.
        """
        self._refuse_lost_class("map")
        bound = self.bound
        names = self.parameters.names[len(bound) :]
        items, is_open = map_items(f"task '{self.name}'", names, args, kwargs)
        pace = pace_of(f"task '{self.name}'", max_in_flight, is_open=is_open)
        if deferred:
            futures: TaskFutureList[R] = TaskFutureList(self.apply_async(*item, wait_for) for item in items)
        else:
            before = prerequisites(wait_for)
            submitted = self._submitted

            def submit_item(item: Item) -> TaskFuture[object]:
                return submit(submitted, bound + item[0], item[1], before, pace)

            made = map(submit_item, items) if pace is None else pace.futures(items, submit_item)
            futures = TaskFutureList(cast("Iterable[TaskFuture[R]]", made))
        if not return_state:
            return futures
        futures.wait()
        return [future.state for future in futures]

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> PrefectDistributedFuture[R]:
        """Put the call into the queue of background tasks and return its future, after the commit.

        A process that serves the task runs it: `my_task.serve()`, or `wfengine task serve FILE:TASK`. In a flow, a resume
        does not put it there twice.
        """
        return self.apply_async(args, kwargs)

    @asks_the_flow
    def apply_async(
        self,
        args: Iterable[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        wait_for: object = None,
        dependencies: Mapping[str, Iterable[object]] | None = None,
    ) -> PrefectDistributedFuture[R]:
        """Do what `delay` does; futures in `wait_for` and `dependencies` have to complete before the call is run."""
        from wfengine.background import enqueue  # most programs never need it

        self._refuse_lost_class("delay")
        return enqueue(self, self._submitted, self.bound + tuple(args or ()), dict(kwargs or {}), wait_for, dependencies)

    def serve(self, *, limit: int | None = 10, timeout: float | None = None) -> object:
        """Run calls of this task that `delay` put into the queue, until stopped; see `wfengine.task_worker.serve`."""
        from wfengine.task_worker import serve  # most programs never need it

        return serve(self, limit=limit, timeout=timeout)

    async def aserve(self, *, limit: int | None = 10, timeout: float | None = None) -> None:
        """Do what `serve` does, in an event loop."""
        from wfengine.task_worker import aserve  # most programs never need it

        await aserve(self, limit=limit, timeout=timeout)

    def as_flow(self, *, background: bool = False) -> Flow[..., Any]:
        """Return the flow whose body is one call of this task, or one from the queue. For the engine only."""
        from wfengine.lone_tasks import flow_around  # not needed where every task is called in a flow

        known = self._own_flows.get(background)
        if known is None or known[0] is not self._callee:  # a hook may have been added since
            known = self._own_flows[background] = (self._callee, flow_around(self, background=background))
        return known[1]

    def with_options(self, **options: object) -> Task[P, R]:
        """Return a copy of the task with some options changed: those of `@task`, `call_key` among them.

        It stays the same task, so its key stays, unless `key` is among the options; and bound to what it is bound to.
        """
        self._refuse_lost_class("with_options")
        kept = dict(self._options)
        if "cache_policy" in options or "cache_key_fn" in options:  # what gives the key now takes the place of what gave it
            kept.update(cache_policy=None, cache_key_fn=None)
        made: Task[P, R] = Task(self._made_of, {**kept, "key": self.key, **_known(options)})
        return made if self._origin is None else cast("Task[P, R]", made.with_bound(self.bound))

    def _refuse_lost_class(self, method: str) -> None:
        if self._lost_class and not self.bound:
            raise UsageError(lost_class_text(f"task '{self.name}': {method}()", "task", self.__name__))


def _known(options: Mapping[str, object]) -> Mapping[str, object]:
    return known_options("@task", options, _DEFAULTS)


_DEFAULTS: dict[str, object] = {
    "name": None, "key": None, "aliases": (), "description": None, "tags": (), "version": None, "task_run_name": None,
    "retries": 0, "retry_delay_seconds": None, "retry_jitter_factor": None, "retry_condition_fn": None,
    "timeout_seconds": None, "log_prints": None, "call_key": None, "key_args": None, "ignore_args": (),
    "on_running": None, "on_completion": None, "on_failure": None,
    "on_rollback": None, "on_commit": None,
    "on_interrupt": "rerun", "once": False, "max_interruptions": 3, "transaction": False,
    "cache_policy": None, "cache_key_fn": None, "cache_expiration": None, "refresh_cache": None, "persist_result": None,
    "result_storage": None, "result_storage_key": None, "result_serializer": None, "cache_result_in_memory": True,
    "viz_return_value": None, "runner": None, "resources": None,
}  # fmt: skip

#: Options that are about results; a task without any of them has nothing to do with `caching`.
_RESULT_OPTIONS = (
    "cache_policy", "cache_key_fn", "cache_expiration", "refresh_cache", "persist_result", "result_storage",
    "result_storage_key", "result_serializer",
)  # fmt: skip


def _make_callee(decorated: object, parts: Decorated, options: Mapping[str, object]) -> Callee:
    chosen = {**_DEFAULTS, **options}
    fn, qualified_name = parts.fn, parts.qualified_name
    name = str(chosen["name"] or parts.name)
    owner = f"task '{name}'"
    key_args, ignore_args = chosen["key_args"], chosen["ignore_args"]
    transacts = _transaction_options(owner, fn, chosen)
    parameters = Parameters(fn, owner=owner, reserved=RESERVED, left_out=() if transacts is None else ("connection",))
    for listed in (*(cast("Iterable[str]", key_args) or ()), *cast("Iterable[str]", ignore_args)):
        if listed not in parameters.names:
            raise UsageError(f"{owner}: key_args and ignore_args name parameters; it has none called {listed!r}.")
    if chosen["on_interrupt"] not in ("rerun", "fail", "ask"):
        raise UsageError(f"{owner}: on_interrupt must be 'rerun', 'fail' or 'ask', not {chosen['on_interrupt']!r}.")
    timeout = chosen["timeout_seconds"]
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise UsageError(f"{owner}: timeout_seconds must be a number of seconds above 0, not {timeout!r}.")
    once = bool(chosen["once"])
    if isinstance(fn, functools.partial) and not chosen["key"]:
        raise UsageError(
            f"{owner} is made of a functools.partial, whose bound arguments are not recorded: two such tasks could get each "
            "other's results. Give each a key: task(key=...)(partial(...)), or pass the arguments in the call."
        )
    # Tasks made by one function in a loop have one qualified name; the name they were given tells them apart. A task that
    # had no name before is still found under the plain one.
    key = str(chosen["key"] or (f"{qualified_name}:{chosen['name']}" if chosen["name"] else qualified_name))
    return Callee(
        kind="task",
        name=name,
        key=key,
        decorated=decorated,
        fn=fn,
        is_async=_is_async(inspect.unwrap(fn)) or _is_async(getattr(fn, "func", None)),
        is_generator=is_generator_function(fn),
        parameters=parameters,
        policy=make_policy(
            owner,
            chosen["retries"],
            cast("DelaySeconds | None", chosen["retry_delay_seconds"]),
            cast("float | None", chosen["retry_jitter_factor"]),
            chosen["retry_condition_fn"],
        ),
        aliases=tuple(cast("Iterable[str]", chosen["aliases"])) + ((qualified_name,) if key != qualified_name else ()),
        origin=origin_of(fn),
        tags=frozenset(cast("Iterable[str]", chosen["tags"] or ())),
        timeout_seconds=None if timeout is None else float(timeout),
        run_name=checked_run_name(chosen["task_run_name"], "task_run_name", owner),
        on_interrupt="ask" if once and chosen["on_interrupt"] == "rerun" else chosen["on_interrupt"],
        once=once,
        max_interruptions=cast(int, chosen["max_interruptions"]),
        call_key=cast("str | None", chosen["call_key"]),
        key_args=None if key_args is None else tuple(cast("Iterable[str]", key_args)),
        ignore_args=tuple(cast("Iterable[str]", ignore_args)),
        log_prints=cast("bool | None", chosen["log_prints"]),
        transacts=transacts,
        results=_result_options(owner, fn, chosen),
        viz_return_value=chosen["viz_return_value"],
        runner=_checked_runner(owner, chosen["runner"]),
        resources=cast("Mapping[str, object] | None", chosen["resources"]),
    )


def _checked_runner(owner: str, runner: object) -> TaskRunner | None:
    if runner is not None and (isinstance(runner, type) or not hasattr(runner, "submit")):
        raise UsageError(f"{owner}: runner must be a task runner, such as ThreadTaskRunner(max_workers=4), not {runner!r}.")
    return cast("TaskRunner | None", runner)


def _result_options(owner: str, fn: Callable[..., object], chosen: Mapping[str, object]) -> ResultOptions | None:
    if all(chosen[name] is None for name in _RESULT_OPTIONS):
        return None
    from wfengine.caching import result_options  # takes some milliseconds, which most programs need not spend

    return result_options(owner, fn, chosen)


def _transaction_options(owner: str, fn: Callable[..., object], chosen: Mapping[str, object]) -> TransactionOptions | None:
    if not chosen["transaction"]:
        return None
    from wfengine.transactional import transaction_options  # most programs never need it

    return transaction_options(owner, fn, chosen, _RESULT_OPTIONS)


def _is_async(fn: object) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def _call_alone(
    called: Task[..., Any], args: tuple[object, ...], kwargs: dict[str, object], before: object, return_state: bool
) -> object:
    """Run a task called outside of any flow: in a flow run of its own, named after the task."""
    if is_loading():
        note_skipped_call()
        return None
    arguments = called.parameters.bind(args, kwargs)
    return called.as_flow()(**arguments, wait_for=before, return_state=return_state)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    key: str | None = None,
    aliases: Iterable[str] = (),
    description: str | None = None,
    tags: Iterable[str] = (),
    version: str | None = None,
    task_run_name: str | Callable[..., str] | None = None,
    retries: object = 0,
    retry_delay_seconds: DelaySeconds | None = None,
    retry_jitter_factor: float | None = None,
    retry_condition_fn: Callable[..., object] | None = None,
    timeout_seconds: float | None = None,
    log_prints: bool | None = None,
    on_running: Iterable[Hook] | None = None,
    on_completion: Iterable[Hook] | None = None,
    on_failure: Iterable[Hook] | None = None,
    call_key: str | Callable[..., object] | None = None,
    key_args: Iterable[str] | None = None,
    ignore_args: Iterable[str] = (),
    on_interrupt: OnInterrupt = "rerun",
    once: bool = False,
    max_interruptions: int = 3,
    transaction: bool = False,
    cache_policy: CachePolicy | None = None,
    cache_key_fn: Callable[..., str | None] | None = None,
    cache_expiration: timedelta | None = None,
    refresh_cache: bool | None = None,
    persist_result: bool | None = None,
    result_storage: StorageOption = None,
    result_storage_key: str | None = None,
    result_serializer: Serializer | str | None = None,
    cache_result_in_memory: bool = True,
    viz_return_value: object = None,
    runner: TaskRunner | None = None,
    resources: Mapping[str, object] | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Callable[P, R] | None = None, /, **options: object) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task: each call in a flow is journaled, and answered from the journal on resume.

    - `name` shown to people (default: the function's name); `key` identifies the task over renames and moves (default: the
      qualified name, and the `name` if one was given), `aliases` are earlier keys; `task_run_name` is a template over the
      arguments, or a function.
    - `retries` (a number or a tenacity stop), `retry_delay_seconds` (a number, a list, exponential_backoff(...) or a tenacity
      wait), `retry_jitter_factor`, `retry_condition_fn` (a function of the exception, or a tenacity retry): each next instant
      is journaled and survives a restart. `timeout_seconds` limits an attempt.
    - `on_running`, `on_completion`, `on_failure`: functions called as `hook(task, task_run, state)` after that state was
      committed, see `wfengine.hooks`.
    - `call_key`, `key_args`, `ignore_args` say which arguments make a call the same call on resume (default: all).
    - `on_interrupt`: what a call cut off in the middle does on resume: "rerun", "fail" (raises TaskInterrupted) or "ask" (parks
      the run). `once=True` never runs again unasked. `max_interruptions` stops a task that keeps killing its process.
    - `transaction=True`: the function runs inside a transaction of the journal file and is given a `connection` to tables of
      your own in it, named `user_...`; what it writes is committed together with its result, exactly once. See `wfengine.sql`.
    - `cache_policy` (see `wfengine.cache_policies`), `cache_key_fn(context, parameters)` or `persist_result=True` (the policy
      DEFAULT): a call may have the result of an earlier one with the same key, in any run; `cache_expiration` limits for how
      long, `refresh_cache` computes anew. Without them every call runs, equal or not. Results are recorded in any case.
    - `result_serializer` (see `wfengine.serializers`) writes results; the flow is given what it gives back. `result_storage` (a
      folder) keeps the large ones outside of the journal; `result_storage_key`, a template, names the file, and is a cache key.
      `cache_result_in_memory` is accepted: what stays in memory is decided by what there is, see `docs/maps.md`.
    - `viz_return_value` is what a call gives while its flow is drawn by `flow.visualize()`, where no task runs.

    In a class it makes a method, whose instance is an argument like any other: two instances are told apart if they are
    dataclasses, attrs or pydantic objects, or else by the order of their calls. What a task changes on its instance is not
    changed again where the journal answers the call. `@classmethod` and `@staticmethod` stand below `@task`.

    The result is committed before the flow sees it: in durability "power", synced to the disk.
    """
    _known(options)
    if fn is None:
        return lambda decorated: Task(decorated, options)
    return Task(fn, options)


def __getattr__(name: str) -> object:
    if name == "task_input_hash":  # a name that Prefect has here
        from wfengine.cache_policies import task_input_hash

        return task_input_hash
    raise AttributeError(f"module 'wfengine.tasks' has no attribute {name!r}")
