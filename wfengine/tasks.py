"""`@task`: a function whose every call in a flow is recorded."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from wfengine.flows import Flow
from wfengine.futures import TaskFuture, TaskFutureList, resolved, unsettled_in
from wfengine.hooks import Hook, Hooks, checked_hooks
from wfengine.ids import checked_run_name
from wfengine.loading import is_loading, note_skipped_call
from wfengine.parameters import Parameters, known_options
from wfengine.retries import DelaySeconds, exponential_backoff, make_policy
from wfengine.scopes import current_tracer, find_scope
from wfengine.states import State
from wfengine.steps import Outcome, drive, drive_async
from wfengine.streams import collected, is_generator_function, items_of_call, items_of_call_async
from wfengine.submission import submit
from wfengine.task_engine import Call, Callee, OnInterrupt, given, issue, live, new_call, origin_of
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from wfengine.cache_policies import CachePolicy
    from wfengine.caching import ResultOptions
    from wfengine.distributed_futures import PrefectDistributedFuture
    from wfengine.result_storage import StorageOption
    from wfengine.serializers import Serializer

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

HOOK_OPTIONS = ("on_running", "on_completion", "on_failure", "on_rollback", "on_commit")
__all__ = ["Task", "exponential_backoff", "task", "task_input_hash", "unmapped"]  # noqa: F822 - one is imported when asked for

#: Names a task's own parameters cannot have: they are options of the call.
RESERVED = ("return_state", "wait_for")


class unmapped(Generic[T]):
    """Marks an argument of `.map` that every item gets whole."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class Task(Generic[P, R]):
    """A function made a task by `@task`. Calling it in a flow records the call; a recorded call is not run again."""

    __wfengine_task__ = True

    def __init__(self, fn: Callable[P, R], options: Mapping[str, object]) -> None:
        self.fn = fn
        self._options = dict(options)
        self._callee = _make_callee(self, fn, self._options)
        self._hooks = {
            option: checked_hooks(f"task '{self._callee.name}'", option, options.get(option)) for option in HOOK_OPTIONS
        }
        self._set_hooks()
        self.name = self._callee.name
        self.key = self._callee.key
        self.aliases = tuple(cast("Iterable[str]", self._options.get("aliases", ())))
        self.tags = self._callee.tags
        self.is_async = self._callee.is_async
        self.is_generator = self._callee.is_generator
        self.parameters = self._callee.parameters
        self._own_flows: dict[bool, tuple[Callee, Flow[..., Any]]] = {}
        functools.update_wrapper(self, fn)
        self.__wfengine_key__ = f"task:{self.key}"

    def __repr__(self) -> str:
        return f"<Task '{self.name}'>"

    def __reduce__(self) -> tuple[object, ...]:
        # Only for the pickled function of a flow that cannot be imported; by public names, which stay.
        return functools.partial(task, **self._options), (self.fn,)

    def __get__(self, instance: object, owner: type | None = None) -> Task[..., R]:
        if instance is None:
            return self
        raise UsageError(
            f"task '{self.name}' is a method of {type(instance).__qualname__}, which is not supported yet: what would tell two "
            "instances apart on resume? Make it a function or a @staticmethod that is given what it needs."
        )

    @functools.cached_property
    def _submitted(self) -> Callee:
        """What is submitted: of a generator, a task that returns the list of its items, with a key of its own."""
        callee = self._callee
        if not callee.is_generator:
            return callee
        return dataclasses.replace(callee, fn=collected(callee.fn), key=f"{callee.key}[]", aliases=(), is_generator=False)

    def _set_hooks(self) -> None:
        if any(self._hooks.values()):
            self._callee = dataclasses.replace(self._callee, hooks=Hooks(self, self._hooks))
            self.__dict__.pop("_submitted", None)

    def _add_hook(self, option: str, hook: Hook) -> Hook:
        self._hooks[option] = (*self._hooks[option], *checked_hooks(f"task '{self.name}'", option, [hook]))
        self._options[option] = self._hooks[option]
        self._set_hooks()
        return hook

    def on_running(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(task, task_run, state)` when an attempt begins."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(task, task_run, state)` after a result was committed."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(task, task_run, state)` after the last attempt failed."""
        return self._add_hook("on_failure", hook)

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
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, *args: object, return_state: bool, **kwargs: object) -> State[R]: ...
    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the task in the present flow run and return its result, or raise its exception, after the commit.

        `return_state=True` returns the final state instead; `wait_for=[...]` waits for futures first. An async task
        gives a coroutine; the call takes its place in the order of calls here, not when it is awaited. A generator gives an
        iterator whose items are recorded one by one, see `wfengine.streams`; its state has the list of items as result.
        """
        return_state = bool(kwargs.pop("return_state", False))
        before = kwargs.pop("wait_for", None)
        scope = find_scope()
        if scope is None:
            if (tracer := current_tracer()) is not None:
                return tracer.call(self._callee, args, kwargs, before, return_state)
            return _call_alone(self, args, kwargs, return_state)
        pending: list[TaskFuture[object]] = []
        has_futures = unsettled_in(args, pending) | unsettled_in(kwargs, pending)
        if before is not None:
            has_futures = unsettled_in(list(cast("Iterable[object]", before)), pending) or has_futures
        # A direct call waits for its futures in the body's own thread, so it keeps its place in the order of calls there.
        callee = self._submitted if return_state else self._callee
        call = new_call(callee, scope, args, kwargs, has_futures=has_futures and self.is_async)
        if callee.is_generator:
            if has_futures:
                _resolve(call, pending, before)
            return (items_of_call_async if self.is_async else items_of_call)(call, issue(call), live)
        if self.is_async:
            recorded = issue(call) if not has_futures else None
            return _run_async(call, pending, before, recorded, has_futures, return_state)
        if has_futures:
            _resolve(call, pending, before)
        outcome = issue(call) or drive(live(call))
        return given(call, outcome, return_state)

    def submit(
        self, *args: object, wait_for: Iterable[TaskFuture[object]] | None = None, return_state: bool = False, **kwargs: object
    ) -> TaskFuture[R]:
        """Run the task on the flow's runner and return a future at once. Futures among the arguments are waited for."""
        future = submit(self._submitted, args, kwargs, wait_for)
        if return_state:
            future.wait()
            return cast("TaskFuture[R]", future.state)
        return cast("TaskFuture[R]", future)

    def map(
        self, *args: object, wait_for: Iterable[TaskFuture[object]] | None = None, return_state: bool = False, **kwargs: object
    ) -> TaskFutureList[R]:
        """Submit the task once for each item of its iterable arguments; return the list of futures.

        All iterables must have one length. Text, bytes, and what is marked `unmapped` go whole to each item.
        """
        futures = TaskFutureList(
            submit(self._submitted, item_args, item_kwargs, wait_for)
            for item_args, item_kwargs in _items(self.name, args, kwargs)
        )
        if return_state:
            futures.wait()
            return cast("TaskFutureList[R]", [future.state for future in futures])
        return cast("TaskFutureList[R]", futures)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> PrefectDistributedFuture[R]:
        """Put the call into the queue of background tasks and return its future, after the commit.

        A process that serves the task runs it: `my_task.serve()`, or `wfengine task serve FILE:TASK`. In a flow, a resume
        does not put it there twice.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        wait_for: Iterable[object] | None = None,
        dependencies: Mapping[str, Iterable[object]] | None = None,
    ) -> PrefectDistributedFuture[R]:
        """Do what `delay` does; futures in `wait_for` and `dependencies` have to complete before the call is run."""
        from wfengine.background import enqueue  # most programs never need it

        return enqueue(self, self._submitted, tuple(args or ()), dict(kwargs or {}), wait_for, dependencies)

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

        It stays the same task, so its key stays, unless `key` is among the options.
        """
        kept = dict(self._options)
        if "cache_policy" in options or "cache_key_fn" in options:  # what gives the key now takes the place of what gave it
            kept.update(cache_policy=None, cache_key_fn=None)
        return Task(self.fn, {**kept, "key": self.key, **_known(options)})


def _known(options: Mapping[str, object]) -> Mapping[str, object]:
    return known_options("@task", options, _DEFAULTS)


_DEFAULTS: dict[str, object] = {
    "name": None, "key": None, "aliases": (), "description": None, "tags": (), "version": None, "task_run_name": None,
    "retries": 0, "retry_delay_seconds": None, "retry_jitter_factor": None, "retry_condition_fn": None,
    "timeout_seconds": None, "log_prints": None, "call_key": None, "key_args": None, "ignore_args": (),
    "on_running": None, "on_completion": None, "on_failure": None,
    "on_rollback": None, "on_commit": None,
    "on_interrupt": "rerun", "once": False, "max_interruptions": 3,
    "cache_policy": None, "cache_key_fn": None, "cache_expiration": None, "refresh_cache": None, "persist_result": None,
    "result_storage": None, "result_storage_key": None, "result_serializer": None, "cache_result_in_memory": True,
    "viz_return_value": None,
}  # fmt: skip

#: Options that are about results; a task without any of them has nothing to do with `caching`.
_RESULT_OPTIONS = (
    "cache_policy", "cache_key_fn", "cache_expiration", "refresh_cache", "persist_result", "result_storage",
    "result_storage_key", "result_serializer",
)  # fmt: skip


def _make_callee(decorated: object, fn: Callable[..., object], options: Mapping[str, object]) -> Callee:
    if not callable(fn):
        raise UsageError(f"@task decorates functions, not {fn!r}.")
    chosen = {**_DEFAULTS, **options}
    plain_name = getattr(fn, "__name__", type(fn).__name__)
    name = str(chosen["name"] or plain_name)
    owner = f"task '{name}'"
    key_args, ignore_args = chosen["key_args"], chosen["ignore_args"]
    parameters = Parameters(fn, owner=owner, reserved=RESERVED)
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
    qualified_name = str(getattr(fn, "__qualname__", plain_name))
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
        results=_result_options(owner, fn, chosen),
        viz_return_value=chosen["viz_return_value"],
    )


def _result_options(owner: str, fn: Callable[..., object], chosen: Mapping[str, object]) -> ResultOptions | None:
    if all(chosen[name] is None for name in _RESULT_OPTIONS):
        return None
    from wfengine.caching import result_options  # takes some milliseconds, which most programs need not spend

    return result_options(owner, fn, chosen)


def _is_async(fn: object) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def _resolve(call: Call, pending: list[TaskFuture[object]], before: object) -> None:
    """Put the results of futures in the place of futures; the first failure is raised."""
    for future in pending:
        future.wait()
    for other in cast("Iterable[object]", before or ()):
        resolved(other)
    call.arguments = {name: resolved(value) for name, value in call.arguments.items()}


async def _run_async(
    call: Call,
    pending: list[TaskFuture[object]],
    before: object,
    recorded: Outcome | None,
    has_futures: bool,
    return_state: bool,
) -> object:
    if has_futures:
        for future in pending:
            await future.wait_async()
        _resolve(call, [], before)
        recorded = issue(call)
    outcome = recorded if recorded is not None else await drive_async(live(call))
    return given(call, outcome, return_state)


def _items(
    name: str, args: tuple[object, ...], kwargs: dict[str, object]
) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    """Return the arguments of each item of a map."""
    columns: list[tuple[int | str, list[object]]] = []
    places: list[tuple[int | str, object]] = [*enumerate(args), *kwargs.items()]
    for place, argument in places:
        value = argument.result() if isinstance(argument, TaskFuture) else argument
        if not isinstance(value, unmapped | str | bytes | State) and isinstance(value, Iterable):
            columns.append((place, list(value)))
    if not columns:
        raise UsageError(f"task '{name}': map() needs at least one iterable argument. To run the task once, use submit().")
    lengths = {len(items) for _, items in columns}
    if len(lengths) > 1:
        sizes = ", ".join(f"{place}: {len(items)}" for place, items in columns)
        raise UsageError(
            f"task '{name}': the iterables given to map() differ in length ({sizes}). Mark whole ones with unmapped()."
        )
    whole_args = [value.value if isinstance(value, unmapped) else value for value in args]
    whole_kwargs = {key: value.value if isinstance(value, unmapped) else value for key, value in kwargs.items()}
    items = []
    for number in range(lengths.pop()):
        item_args, item_kwargs = list(whole_args), dict(whole_kwargs)
        for place, column in columns:
            if isinstance(place, int):
                item_args[place] = column[number]
            else:
                item_kwargs[place] = column[number]
        items.append((tuple(item_args), item_kwargs))
    return items


def _call_alone(called: Task[..., Any], args: tuple[object, ...], kwargs: dict[str, object], return_state: bool) -> object:
    """Run a task called outside of any flow: in a flow run of its own, named after the task."""
    if is_loading():
        note_skipped_call()
        return None
    return called.as_flow()(**called.parameters.bind(args, kwargs), return_state=return_state)


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
    - `cache_policy` (see `wfengine.cache_policies`), `cache_key_fn(context, parameters)` or `persist_result=True` (the policy
      DEFAULT): a call may have the result of an earlier one with the same key, in any run; `cache_expiration` limits for how
      long, `refresh_cache` computes anew. Without them every call runs, equal or not. Results are recorded in any case.
    - `result_serializer` (see `wfengine.serializers`) writes results; the flow is given what it gives back. `result_storage` (a
      folder) keeps the large ones outside of the journal; `result_storage_key`, a template, names the file, and is a cache key.
      `cache_result_in_memory` is accepted: a result stays in memory for as long as the flow holds it.
    - `viz_return_value` is what a call gives while its flow is drawn by `flow.visualize()`, where no task runs.

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
