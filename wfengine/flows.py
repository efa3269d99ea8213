"""`@flow`: a function whose run is journaled and can be resumed."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from wfengine.flow_engine import Ended, start, subflow
from wfengine.journals import Durability, default_journal
from wfengine.loading import is_loading, note_skipped_call
from wfengine.methods import Binds, bound_place, class_part, lost_class, lost_class_text, origin_of, take_apart
from wfengine.parameters import Parameters, known_options
from wfengine.recovery import find_run_id, resume_steps, store_flow
from wfengine.resolution import UpstreamFailure, is_plain, resolved_arguments
from wfengine.retries import DelaySeconds, make_policy
from wfengine.runners import TaskRunner
from wfengine.scopes import Scope, current_scope, find_scope
from wfengine.states import State
from wfengine.steps import Outcome, Steps, drive, drive_async
from wfengine.submission import call_now
from wfengine.task_engine import Call, Callee
from wfengine.upstream import Prerequisites, prerequisites
from wfengine_journal.errors import RunHalted, UsageError
from wfengine_journal.store import Journal

P = ParamSpec("P")
R = TypeVar("R")

#: Any flow at all, for code that does not care about its parameters and result.
AnyFlow: TypeAlias = "Flow[..., Any]"

RESERVED = ("return_state", "wait_for")


class Flow(Generic[P, R]):
    """A function made a flow by `@flow`. Calling it starts a flow run; inside a run, a subflow."""

    __wfengine_flow__ = True
    __wfengine_by_name__ = True  # see __reduce__

    def __init__(self, fn: Callable[P, R], options: Mapping[str, object], *, is_task: bool = False) -> None:
        given = {**_DEFAULTS, **options}
        decorated = take_apart(fn)
        if decorated is None:
            raise UsageError(f"@flow decorates functions, not {fn!r}.")
        functools.update_wrapper(self, decorated.fn)  # first: what the function carries along must not hide what is ours
        self.__name__, self.__qualname__ = decorated.name, decorated.qualified_name
        self._made_of = fn
        self._binds = decorated.binds
        self._origin: Flow[..., R] | None = None  # of a bound flow: the one that stands in the class
        fn = self.fn = cast("Callable[P, R]", decorated.fn)
        #: What the flow is bound to, the first argument of every call: an instance or a class; () for a plain function.
        self.bound = decorated.bound
        self._is_task = is_task  # the flow around a task that was called outside of any flow
        self._options = dict(options)
        self.name = str(given["name"] or decorated.name.replace("_", "-"))
        owner = f"flow '{self.name}'"
        self.description = cast("str | None", given["description"]) or inspect.getdoc(fn)
        self.version = given["version"]
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn))
        self.parameters = _AnyParameters(fn, owner=owner) if is_task else Parameters(fn, owner=owner, reserved=RESERVED)
        self.validate_parameters = bool(given["validate_parameters"])
        self.flow_run_name = cast("str | Callable[..., str] | None", given["flow_run_name"])
        self.idempotency_key = cast("str | Callable[..., str] | None", given["idempotency_key"])
        self.tags = frozenset(cast("Iterable[str]", given["tags"] or ()))
        self.task_runner = cast("TaskRunner | None", given["task_runner"])
        self.log_prints = cast("bool | None", given["log_prints"])
        self.durability = cast("Durability | None", given["durability"])  # None: the journal's
        self.timeout_seconds = None if given["timeout_seconds"] is None else float(cast(float, given["timeout_seconds"]))
        self.policy = make_policy(
            owner, given["retries"], cast("DelaySeconds | None", given["retry_delay_seconds"]), None, None
        )
        if self.durability not in (None, "power", "process"):
            raise UsageError(f"{owner}: durability must be 'power' or 'process', not {self.durability!r}.")
        if self.timeout_seconds is not None and self.timeout_seconds <= 0:
            raise UsageError(f"{owner}: timeout_seconds must be above 0, not {self.timeout_seconds!r}.")
        # Methods of several classes often have one name; a subflow is told by that of its class too.
        owning_class = "" if given["name"] else class_part(decorated.qualified_name)
        self._callee = Callee(
            kind="flow",
            origin=origin_of(fn),
            name=self.name,
            key=f"{owning_class}.{self.name}" if owning_class else self.name,
            aliases=(self.name,) if owning_class else (),
            fn=self._as_subflow,
            is_async=self.is_async,
            parameters=self.parameters,
        )
        self.__wfengine_key__ = f"flow:{self._callee.key}"
        self._lost_class = lost_class(decorated, self.parameters.names)

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
        return self._with_bound((receiver,))

    def _with_bound(self, bound: tuple[object, ...]) -> Flow[..., R]:
        copied: Flow[..., R] = object.__new__(type(self))
        copied.__dict__ = {**self.__dict__, "bound": bound, "_origin": self._origin or self}
        return copied

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, /, *args: object, return_state: bool, **kwargs: object) -> State[R]: ...
    def __call__(self, /, *args: object, **kwargs: object) -> object:
        """Run the flow and return its result, or raise its exception, after the commit.

        Inside another run this is a subflow. Futures and states among the arguments, in containers too, stand for their
        results; `wait_for=[...]` waits for more. `return_state=True` returns the final state instead; an async flow gives a
        coroutine. While a file is loaded to find its flows, a flow called at module level does nothing.
        """
        return_state = bool(kwargs.pop("return_state", False))
        before = prerequisites(kwargs.pop("wait_for", None))
        if is_loading():
            note_skipped_call()
            return _nothing() if self.is_async else None
        args = self.bound + args
        # A flow started in a thread of the user's own is a run of its own, whatever else runs in this process.
        scope = find_scope() if current_scope() is not None else None
        if scope is not None:
            return call_now(self._callee, scope, args, kwargs, before=before, fit=self._fit, return_state=return_state)
        arguments = self._arguments(args, kwargs, before)
        journal = default_journal()
        steps = start(self._origin or self, journal, arguments)
        return _end_async(steps, return_state) if self.is_async else _end(steps, return_state)

    def _fit(self, arguments: dict[str, object]) -> dict[str, object]:
        return self.parameters.coerce(arguments) if self.validate_parameters else arguments

    def _arguments(
        self, args: tuple[object, ...], kwargs: dict[str, object], before: Prerequisites | None
    ) -> dict[str, object]:
        arguments = self.parameters.bind(args, kwargs)
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

    def resume(self, run: int | str, *, on_drift: str | None = None, takeover: bool = False) -> R:
        """Resume a run of this flow by id, name or '@last', with this very function; return its result.

        What completed is answered from the journal; what was cut off or ended the run runs again.
        """
        journal = default_journal()
        row = journal.records.get_flow_run(find_run_id(journal, run))
        if row.flow_name != self.name:
            raise UsageError(
                f"Flow run {row.id} '{row.name}' is a run of flow '{row.flow_name}', not of '{self.name}'. If the flow was "
                f"renamed, keep its old name: @flow(name='{row.flow_name}'). Else see its runs with: "
                f"wfengine runs ls --flow {self.name}"
            )
        steps = resume_steps(journal, row.id, flow=self, on_drift=on_drift, takeover=takeover)
        return cast(R, _end_async(steps, False) if self.is_async else _end(steps, False))

    def store_function(self, journal: Journal) -> bytes | None:
        """Store the flow itself by cloudpickle, for a flow that cannot be imported; None if it cannot be pickled."""
        if self._is_task:
            return None  # calling the task again is all there is to resume
        return store_flow(self, journal)

    def with_options(self, **options: object) -> Flow[P, R]:
        """Return a copy of the flow with some options changed, those of `@flow`, bound to what it is bound to."""
        if self._lost_class and not self.bound:
            raise UsageError(lost_class_text(f"flow '{self.name}': with_options()", "flow", self.__name__))
        made: Flow[P, R] = Flow(self._made_of, {**self._options, **_known(options)})
        return made if self._origin is None else cast("Flow[P, R]", made._with_bound(self.bound))


class _AnyParameters(Parameters):
    """The parameters of the flow that runs a lone task: the task checked them already."""

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        return kwargs

    def unbind(self, arguments: dict[str, object]) -> tuple[tuple[object, ...], dict[str, object]]:
        return (), arguments


_DEFAULTS: dict[str, object] = {
    "name": None, "version": None, "flow_run_name": None, "description": None, "retries": 0, "retry_delay_seconds": None,
    "timeout_seconds": None, "task_runner": None, "validate_parameters": True, "log_prints": None, "tags": (),
    "idempotency_key": None, "durability": None,
}  # fmt: skip


def _known(options: Mapping[str, object]) -> Mapping[str, object]:
    return known_options("@flow", options, _DEFAULTS)


async def _nothing() -> None:
    """What an async flow gives while its file is being loaded."""


def _end(steps: Steps[Ended], return_state: bool) -> object:
    try:
        ended = drive(steps)
    except RunHalted as signal:
        raise signal.error from None
    return _outcome(ended, return_state)


async def _end_async(steps: Steps[Ended], return_state: bool) -> object:
    try:
        ended = await drive_async(steps)
    except RunHalted as signal:
        raise signal.error from None
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
    task_runner: TaskRunner | None = None,
    validate_parameters: bool = True,
    log_prints: bool | None = None,
    tags: Iterable[str] = (),
    idempotency_key: str | Callable[..., str] | None = None,
    durability: Durability | None = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Callable[P, R] | None = None, /, **options: object) -> Flow[P, R] | Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a function a flow: its run, parameters, result and every task call are journaled, so it can be resumed.

    - `name` (default: the function's name with dashes), `flow_run_name` (a template over the parameters, or a function).
    - `retries`, `retry_delay_seconds`: the body is run again, completed calls are answered from the journal, failed ones run.
    - `idempotency_key` (a template over the parameters, or a function): a second start with the same key resumes the first
      run, or returns its recorded result.
    - `durability`: "power" (a result the flow was given survives a pulled plug) or "process" (survives any crash of the
      process; a power cut may take up to the last second). Default: the journal's, see `use_journal`.
    - `task_runner`: where submitted tasks run (default: threads). `validate_parameters`: fit arguments to the type hints.
    """
    _known(options)
    if fn is None:
        return lambda decorated: Flow(decorated, options)
    return Flow(fn, options)
