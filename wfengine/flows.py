"""`@flow`: a function whose run is journaled and can be resumed."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, overload

from wfengine.endings import Ended, state_of_parked
from wfengine.flow_engine import start, subflow
from wfengine.hooks import Hook, HookDecorators, Hooks
from wfengine.ids import checked_run_name
from wfengine.journals import Durability, default_journal
from wfengine.keeping import keeping_of
from wfengine.loading import is_loading, note_skipped_call
from wfengine.methods import Binds, bound_place, class_part, lost_class, lost_class_text, origin_of, take_apart
from wfengine.parameters import Parameters, known_options
from wfengine.replay import ON_DRIFT
from wfengine.resolution import UpstreamFailure, is_plain, resolved_arguments
from wfengine.retries import DelaySeconds, make_policy
from wfengine.runners import TaskRunner
from wfengine.scopes import Scope, current_scope, current_tracer, find_scope
from wfengine.states import State
from wfengine.steps import Outcome, Steps, drive, drive_async
from wfengine.streams import (
    is_generator_function,
    items_of_run,
    items_of_run_async,
)
from wfengine.submission import call_now
from wfengine.task_engine import Call, Callee
from wfengine.upstream import prerequisites
from wfengine_journal.errors import RunHalted, UsageError
from wfengine_journal.store import Journal

if TYPE_CHECKING:
    from wfengine.deployments import Deployment
    from wfengine.parameter_schema import ParameterSchema
    from wfengine.result_storage import StorageOption
    from wfengine.schedules import Schedule
    from wfengine.serializers import Serializer

P = ParamSpec("P")
R = TypeVar("R")

#: Any flow at all, for code that does not care about its parameters and result.
AnyFlow: TypeAlias = "Flow[..., Any]"

HOOK_OPTIONS = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
RESERVED = ("return_state", "wait_for")
#: The longest deadline, in seconds: a century. What is longer is a mistake, and no date that could be written.
FAR_SECONDS = 100 * 366 * 86400.0


class Flow(HookDecorators, Generic[P, R]):
    """A function made a flow by `@flow`. Calling it starts a flow run; inside a run, a subflow."""

    __wfengine_flow__ = True
    __wfengine_by_name__ = True  # see __reduce__

    def __init__(self, fn: Callable[P, R], options: Mapping[str, object], *, is_task: bool = False) -> None:
        given = {**_DEFAULTS, **options}
        parts = take_apart(fn)
        if parts is None:
            raise UsageError(f"@flow decorates functions, not {fn!r}.")
        functools.update_wrapper(self, parts.fn)  # first: what the function carries along must not hide what is ours
        self.__name__, self.__qualname__ = parts.name, parts.qualified_name
        self._made_of = fn
        self._origin: Flow[..., R] | None = None  # of a bound flow: the one that stands in the class
        self._binds = parts.binds
        fn = self.fn = cast("Callable[P, R]", parts.fn)
        #: What the flow is bound to, the first argument of every call: an instance or a class; () for a plain function.
        self.bound = parts.bound
        self.is_task = is_task  # the flow around a task that was called outside of any flow
        self._options = dict(options)
        self.name = str(given["name"] or parts.name.replace("_", "-"))
        owner = f"flow '{self.name}'"
        self.description = cast("str | None", given["description"]) or inspect.getdoc(fn)
        self.version = given["version"]
        self.is_generator = is_generator_function(fn)
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn)) or inspect.isasyncgenfunction(inspect.unwrap(fn))
        self.parameters = _AnyParameters(fn, owner=owner) if is_task else Parameters(fn, owner=owner, reserved=RESERVED)
        self.should_validate_parameters = bool(given["validate_parameters"])
        self.flow_run_name = checked_run_name(given["flow_run_name"], "flow_run_name", owner)
        self.idempotency_key = cast("str | Callable[..., str] | None", given["idempotency_key"])
        self.tags = frozenset(cast("Iterable[str]", given["tags"] or ()))
        self.task_runner = cast("TaskRunner | None", given["task_runner"])
        self.log_prints = cast("bool | None", given["log_prints"])
        self.durability = cast("Durability | None", given["durability"])  # None: the journal's
        self.timeout_seconds = None if given["timeout_seconds"] is None else float(cast(float, given["timeout_seconds"]))
        self.deadline_seconds = None if given["deadline_seconds"] is None else float(cast(float, given["deadline_seconds"]))
        self.policy = make_policy(
            owner, given["retries"], cast("DelaySeconds | None", given["retry_delay_seconds"]), None, None
        )
        if self.durability not in (None, "power", "process"):
            raise UsageError(f"{owner}: durability must be 'power' or 'process', not {self.durability!r}.")
        self.on_drift = cast("str | None", given["on_drift"])
        if self.on_drift not in (None, *ON_DRIFT):
            raise UsageError(f"{owner}: on_drift must be 'error', 'rerun' or 'reuse', not {self.on_drift!r}.")
        if self.timeout_seconds is not None and self.timeout_seconds <= 0:
            raise UsageError(f"{owner}: timeout_seconds must be above 0, not {self.timeout_seconds!r}.")
        if self.deadline_seconds is not None and not 0 < self.deadline_seconds < FAR_SECONDS:
            raise UsageError(f"{owner}: deadline_seconds must be above 0, not {self.deadline_seconds!r}.")
        self.hooks: Hooks | None = None
        self._take_hooks(owner, given, HOOK_OPTIONS)
        self.results = keeping_of(owner, given)
        # Methods of several classes often have one name; a subflow is told by that of its class too.
        owning_class = "" if given["name"] else class_part(parts.qualified_name)
        self._callee = Callee(
            kind="flow",
            decorated=self,
            origin=origin_of(fn),
            name=self.name,
            key=f"{owning_class}.{self.name}" if owning_class else self.name,
            aliases=(self.name,) if owning_class else (),
            fn=self._as_subflow,
            is_async=self.is_async,
            is_generator=self.is_generator,
            parameters=self.parameters,
        )
        self.__wfengine_key__ = f"flow:{self._callee.key}"
        self._lost_class = lost_class(parts, self.parameters.names)

    def __repr__(self) -> str:
        return f"<Flow '{self.name}'>"

    def __reduce__(self) -> tuple[object, ...]:
        if self._origin is not None:
            return operator.methodcaller("__get__", *bound_place(self._binds, self.bound)), (self._origin,)
        return functools.partial(flow, **self._options), (self._made_of,)  # by public names, which stay

    def __get__(self, instance: object, owner: type | None = None) -> Flow[..., R]:
        """Return the flow bound to the instance, or if it is a class method to the class, that it is looked up in.

        The instance is a parameter of the run like any other: it is stored, and a resume calls the method of an equal one.
        """
        receiver = owner if self._binds is Binds.CLASS else instance
        if receiver is None or self._binds is Binds.NOTHING or self.bound:
            return self
        return self.with_bound((receiver,))

    def with_bound(self, bound: tuple[object, ...]) -> Flow[..., R]:
        """Return the same flow, bound to something else; for the engine."""
        copied: Flow[..., R] = object.__new__(type(self))
        copied.__dict__ = {**self.__dict__, "bound": bound, "_origin": self._origin or self}
        return copied

    def _use_hooks(self, hooks: Hooks) -> None:
        self.hooks = hooks

    def on_cancellation(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(flow, flow_run, state)` after the run was cancelled."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: Hook) -> Hook:
        """Decorate a function to be called as `hook(flow, flow_run, state)` after the run was cut off.

        Where its process died, it is called by the next process that starts or resumes a run of this flow.
        """
        return self._add_hook("on_crashed", hook)

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, /, *args: object, return_state: bool, **kwargs: object) -> State[R]: ...
    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Run the flow and return its result, or raise its exception, after the commit.

        Inside another run this is a subflow. Futures and states among the arguments, in containers too, stand for their
        results; `wait_for=[...]` waits for more. `return_state=True` returns the final state instead; an async flow gives a
        coroutine, a generator an iterator whose items are recorded one by one. While a file is loaded to find its flows, a
        flow called at module level does nothing.
        """
        return_state = bool(kwargs.pop("return_state", False))
        wait_for = kwargs.pop("wait_for", None)
        if is_loading():
            note_skipped_call()
            return self._nothing()
        args = self.bound + args
        # A flow started in a thread of the user's own is a run of its own, whatever else runs in this process.
        scope = find_scope() if current_scope() is not None else None
        if scope is not None:
            before = prerequisites(wait_for)
            return call_now(self._callee, scope, args, kwargs, before=before, fit=self._fit, return_state=return_state)
        if (tracer := current_tracer()) is not None:
            return tracer.call(self._callee, args, kwargs, wait_for, return_state)
        arguments = self._arguments(args, kwargs, wait_for)
        steps = start(self._origin or self, default_journal(), arguments)
        if self.is_generator and not return_state:
            return self._items(_outcomes(steps))
        return _end_async(steps, return_state) if self.is_async else _end(steps, return_state)

    def _items(self, steps: Steps[Outcome]) -> object:
        return items_of_run_async(steps) if self.is_async else items_of_run(steps)

    def _nothing(self) -> object:
        """Return what the flow gives while its file is being loaded."""
        if self.is_generator:
            return _no_items_async() if self.is_async else iter(())
        return _no_result() if self.is_async else None

    def _fit(self, arguments: dict[str, object]) -> dict[str, object]:
        return self.parameters.coerce(arguments) if self.should_validate_parameters else arguments

    def _arguments(self, args: tuple[object, ...], kwargs: dict[str, object], wait_for: object) -> dict[str, object]:
        arguments, before = self.parameters.bind(args, kwargs), prerequisites(wait_for)
        failure = None if before is None else before.failure
        if failure is None and not is_plain(args, kwargs):
            try:
                arguments = resolved_arguments(arguments)
            except UpstreamFailure as found:
                failure = found
        if failure is not None:
            raise failure.error
        return self._fit(arguments)

    def _as_subflow(self, _scope: Scope, call: Call) -> Steps[Outcome]:
        return subflow(self, call)

    def to_deployment(
        self,
        name: str,
        interval: object = None,
        cron: object = None,
        rrule: object = None,
        paused: bool | None = None,
        schedule: Schedule | None = None,
        schedules: Iterable[Schedule | Mapping[str, object]] | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        timezone: str | None = None,
        **options: object,
    ) -> Deployment:
        """Return a deployment of this flow, to be recorded by its `apply`; see `wfengine.deployments`.

        `interval` (a timedelta or seconds), `cron` and `rrule` make schedules; each may be a list of several, and `timezone`
        is that of all of them.
        """
        from wfengine.deployments import Deployment, schedules_of  # most programs never need it

        return Deployment.build_from_flow(
            self, name, schedules=schedules_of(interval, cron, rrule, schedule, schedules, timezone=timezone), paused=paused,
            tags=tags, parameters=parameters, description=description, version=version, **cast("dict[str, Any]", options),
        )  # fmt: skip

    def deploy(self, name: str, *args: object, **options: object) -> int | None:
        """Record a deployment of this flow and return its id; arguments are those of `to_deployment`. Awaited in async code."""
        from wfengine.awaiting import Given, in_async_code

        frame = inspect.currentframe()
        awaits = in_async_code(frame and frame.f_back)
        deployment = self.to_deployment(name, *args, **options)  # type: ignore[arg-type]  # it checks them
        applied = cast("int | None", cast(Any, deployment).apply(_sync=True))
        return cast("int | None", Given(applied)) if awaits else applied

    def serve(
        self,
        name: str | None = None,
        *,
        pause_on_shutdown: bool = False,
        print_starting_message: bool = True,
        limit: int | None = None,
        recover: str = "own",
        stop_timeout: float | None = None,
        **options: object,
    ) -> Coroutine[None, None, None] | None:
        """Record a deployment of this flow and serve it in this process until stopped; see `wfengine.serve`.

        `name`: default the flow's name; a path such as `__file__` stands for the name of that file. `options`: those of
        `to_deployment`: `cron`, `interval`, `rrule`, `schedules`, `parameters`, `tags` and so on.
        """
        from wfengine.serving import serve_flow  # most programs never need it

        return serve_flow(
            self, name, options, pause_on_shutdown=pause_on_shutdown, print_starting_message=print_starting_message,
            limit=limit, recover=recover, **({} if stop_timeout is None else {"stop_timeout": stop_timeout}),
        )  # fmt: skip

    def resume(
        self, run: int | str, *, on_drift: str | None = None, takeover: bool = False, rerun: Iterable[str] = (),
        values: Mapping[str, object] | None = None,
    ) -> R:  # fmt: skip
        """Resume a run of this flow by id, name or '@last', with this very function; return its result.

        What completed is answered from the journal; what was cut off or ended the run runs again. `rerun` names more that
        is to run again: "failed", "changed", "TASK", "TASK[KEY]", "from:TASK"; `values` gives calls a result by hand,
        {"TASK[KEY]": value}.
        """
        from wfengine.recovery import find_run_id, resume_steps  # most programs never need it

        journal = default_journal()
        row = journal.records.get_flow_run(find_run_id(journal, run))
        if row.flow_name != self.name:
            raise UsageError(
                f"Flow run {row.id} '{row.name}' is a run of flow '{row.flow_name}', not of '{self.name}'. If the flow was "
                f"renamed, keep its old name: @flow(name='{row.flow_name}'). Else see its runs with: "
                f"wfengine runs ls --flow {self.name}"
            )
        steps = resume_steps(
            journal, row.id, flow=self, on_drift=on_drift, takeover=takeover, rerun=tuple(rerun), values=values
        )
        if self.is_generator:
            return cast(R, self._items(_outcomes(steps)))
        return cast(R, _end_async(steps, False) if self.is_async else _end(steps, False))

    def validate_parameters(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Return parameters fitted to the type hints, defaults included, as a call would; nothing runs.

        `*args` and `**kwargs` stand under their own names. Raises ParameterError, which names all that does not fit.
        """
        args, kwargs = self.parameters.unbind(dict(parameters))
        return self.parameters.coerce(self.parameters.bind(args, kwargs))

    def parameter_schema(self) -> ParameterSchema:
        """Return the parameters as a JSON schema, described by the docstring."""
        from wfengine.parameter_schema import schema_of  # lazy: only who asks for a schema needs it

        return schema_of(self.parameters, inspect.getdoc(self.fn))

    def visualize(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Draw which task gives its result to which into NAME.png, open it where there is a screen, and return its path.

        The flow's function runs; its tasks and subflows do not, and nothing is journaled. Where the function needs a task's
        result to decide its way, give that task a `viz_return_value`. In a running event loop: `await` what this returns.
        """
        from wfengine.visualization import in_loop, visualize, visualize_async

        return in_loop(visualize, visualize_async, self, args, kwargs)

    def generate_mermaid_graph(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Return the drawing of `visualize` as the text of a Mermaid flowchart, for which nothing has to be installed."""
        from wfengine.visualization import in_loop, mermaid, mermaid_async

        return in_loop(mermaid, mermaid_async, self, args, kwargs)

    async def avisualize(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Do as `visualize` does, in async code."""
        from wfengine.visualization import visualize_async

        return await visualize_async(self, args, kwargs)

    async def agenerate_mermaid_graph(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Do as `generate_mermaid_graph` does, in async code."""
        from wfengine.visualization import mermaid_async

        return await mermaid_async(self, args, kwargs)

    def store_function(self, journal: Journal) -> bytes | None:
        """Store the flow itself by cloudpickle, for a flow that cannot be imported; None if it cannot be pickled."""
        if self.is_task:
            return None  # calling the task again is all there is to resume
        from wfengine.recovery import store_flow  # most flows can be imported

        return store_flow(self, journal)

    def with_options(self, **options: object) -> Flow[P, R]:
        """Return a copy of the flow with some options changed, those of `@flow`, bound to what it is bound to."""
        if self._lost_class and not self.bound:
            raise UsageError(lost_class_text(f"flow '{self.name}': with_options()", "flow", self.__name__))
        made: Flow[P, R] = Flow(self._made_of, {**self._options, **_known(options)})
        return made if self._origin is None else cast("Flow[P, R]", made.with_bound(self.bound))


class _AnyParameters(Parameters):
    """The parameters of the flow that runs a lone task: the task checked them already."""

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        return kwargs

    def unbind(self, arguments: dict[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        return (), arguments


_DEFAULTS: dict[str, object] = {
    "name": None, "version": None, "flow_run_name": None, "description": None, "retries": 0, "retry_delay_seconds": None,
    "timeout_seconds": None, "deadline_seconds": None, "task_runner": None, "validate_parameters": True, "log_prints": None,
    "tags": (), "on_running": None, "on_completion": None, "on_failure": None, "on_cancellation": None, "on_crashed": None,
    "idempotency_key": None, "durability": None, "on_drift": None,
    "persist_result": None, "result_storage": None, "result_serializer": None, "cache_result_in_memory": True,
}  # fmt: skip


def _known(options: Mapping[str, object]) -> Mapping[str, object]:
    return known_options("@flow", options, _DEFAULTS)


async def _no_result() -> None:
    """What an async flow gives while its file is being loaded."""


async def _no_items_async() -> AsyncGenerator[object, None]:
    return
    yield  # what makes this a generator


def _outcomes(steps: Steps[Ended]) -> Steps[Outcome]:
    return (yield from steps).outcome


def _end(steps: Steps[Ended], return_state: bool) -> object:
    try:
        ended = drive(steps)
    except RunHalted as signal:
        return state_of_parked(signal, return_state)
    return _outcome(ended, return_state)


async def _end_async(steps: Steps[Ended], return_state: bool) -> object:
    try:
        ended = await drive_async(steps)
    except RunHalted as signal:
        return state_of_parked(signal, return_state)
    return _outcome(ended, return_state)


def _outcome(ended: Ended, return_state: bool) -> object:
    if return_state:
        return ended.state
    if ended.outcome.error is not None:
        raise ended.outcome.error
    return ended.outcome.value


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    version: str | None = None,
    flow_run_name: str | Callable[..., str] | None = None,
    description: str | None = None,
    retries: object = 0,
    retry_delay_seconds: DelaySeconds | None = None,
    timeout_seconds: float | None = None,
    deadline_seconds: float | None = None,
    task_runner: TaskRunner | None = None,
    validate_parameters: bool = True,
    log_prints: bool | None = None,
    tags: Iterable[str] = (),
    on_running: Iterable[Hook] | None = None,
    on_completion: Iterable[Hook] | None = None,
    on_failure: Iterable[Hook] | None = None,
    on_cancellation: Iterable[Hook] | None = None,
    on_crashed: Iterable[Hook] | None = None,
    idempotency_key: str | Callable[..., str] | None = None,
    durability: Durability | None = None,
    on_drift: Literal["error", "rerun", "reuse"] | None = None,
    persist_result: bool | None = None,
    result_storage: StorageOption = None,
    result_serializer: Serializer | str | None = None,
    cache_result_in_memory: bool = True,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Callable[P, R] | None = None, /, **options: object) -> Flow[P, R] | Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a function a flow: its run, parameters, result and every task call are journaled, so it can be resumed.

    - `name` (default: the function's name with dashes), `flow_run_name` (a template over the parameters, or a function).
    - `retries`, `retry_delay_seconds`: the body is run again, completed calls are answered from the journal, failed ones run.
    - `timeout_seconds` limits one execution of the body. `deadline_seconds` limits the run: it counts from its first start,
      also while nobody executes it, over restarts and retries; a person's resume counts it anew. Either ends it as TimedOut.
    - `on_running`, `on_completion`, `on_failure`, `on_cancellation`, `on_crashed`: functions called as
      `hook(flow, flow_run, state)` after that state was committed, see `wfengine.hooks`.
    - `idempotency_key` (a template over the parameters, or a function): a second start with the same key resumes the first
      run, or returns its recorded result.
    - `durability`: "power" (a result the flow was given survives a pulled plug) or "process" (survives any crash of the
      process; a power cut may take what was committed since the last sync, which the first commit after a second brings).
      Default: the journal's, see `use_journal`.
    - `result_serializer`, `result_storage`: how the results of the run, its tasks and its subflows are written unless they say
      it themselves, see `task`. `persist_result` and `cache_result_in_memory` are accepted: results are recorded in any case.
    - `on_drift`: what a resumed run does where a call's inputs differ from the recorded ones, unless `wfengine resume` says it:
      "error" parks the run even if the code was edited, "rerun" runs the call anew, also when nobody looks.
    - `task_runner`: where submitted tasks run (default: threads). `validate_parameters`: fit arguments to the type hints.

    In a class it makes a method. The instance is a parameter of the run: it is stored, and a resume calls the method of an
    equal one. `@classmethod` and `@staticmethod` stand below `@flow`.
    """
    _known(options)
    if fn is None:
        return lambda decorated: Flow(decorated, options)
    return Flow(fn, options)
