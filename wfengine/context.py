"""The run that the calling code belongs to, under the names Prefect gives it: `get_run_context`, `FlowRunContext`,
`TaskRunContext`, `tags`, `TagsContext`.

A context is a view of the live run, made when it is asked for: a task that does not ask pays nothing. `flow_run` and
`task_run` show the run as it is at the moment they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from wfengine.run_objects import FlowRun, TaskRun, flow_run_of, task_run_of
from wfengine.runners.away import ERRAND
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.scopes import Scope, current_scope, current_tags, tags
from wfengine_journal.errors import MissingContextError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.runners import TaskRunner
    from wfengine.scopes import LiveRun
    from wfengine.task_engine import Call
    from wfengine.tasks import Task

__all__ = ["FlowRunContext", "TagsContext", "TaskRunContext", "get_run_context", "tags"]


class FlowRunContext:
    """A flow run, for the code that belongs to it."""

    __slots__ = ("_run",)

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    @classmethod
    def get(cls) -> FlowRunContext | None:
        """Return that of the calling code, in a task that of the flow run that called it; None outside of a run."""
        scope = current_scope()
        if scope is None:
            return cast("FlowRunContext | None", _asked(cls))
        return cls(scope.run)

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return _far, ("FlowRunContext",)

    def __repr__(self) -> str:
        return f"<FlowRunContext of {self._run}>"

    @property
    def flow(self) -> AnyFlow:
        """Return the flow."""
        return self._run.flow

    @property
    def flow_run(self) -> FlowRun:
        """Return the flow run as it is now."""
        return flow_run_of(self._run)

    @property
    def parameters(self) -> dict[str, object]:
        """Return the values the flow was called with, defaults included."""
        return dict(self._run.parameters)

    @property
    def start_time(self) -> datetime:
        """Return when the body was started, the last time if it was more than once."""
        return _last_start(self._run, 0)

    @property
    def task_runner(self) -> TaskRunner:
        """Return what runs the tasks that are submitted; before the first of them it is not started yet."""
        chosen = self._run.flow.task_runner
        return self._run.runners.get(chosen) or chosen or ThreadTaskRunner()

    @property
    def log_prints(self) -> bool:
        """Tell whether what the flow prints is logged."""
        return self._run.log_prints


class TaskRunContext:
    """A task run, for the code that belongs to it."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @classmethod
    def get(cls) -> TaskRunContext | None:
        """Return that of the calling code; None outside of a task, in the body of a flow too."""
        scope = current_scope()
        if scope is None:
            return cast("TaskRunContext | None", _asked(cls))
        return None if scope.call is None else cls(scope.call)

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return _far, ("TaskRunContext",)

    def __repr__(self) -> str:
        return f"<TaskRunContext of {self._call}>"

    @property
    def task(self) -> Task[..., Any]:
        """Return the task."""
        return cast("Task[..., Any]", self._call.callee.decorated)

    @property
    def task_run(self) -> TaskRun:
        """Return the task run as it is now."""
        return task_run_of(self._call)

    @property
    def flow_run_context(self) -> FlowRunContext:
        """Return that of the flow run which called the task."""
        return FlowRunContext(self._call.run)

    @property
    def parameters(self) -> dict[str, object]:
        """Return the values the task was called with, defaults included."""
        return dict(self._call.arguments)

    @property
    def start_time(self) -> datetime:
        """Return when this attempt began."""
        return _last_start(self._call.run, self._call.task_run_id)

    @property
    def log_prints(self) -> bool:
        """Tell whether what the task prints is logged."""
        own = self._call.callee.log_prints
        return self._call.run.log_prints if own is None else own


class TagsContext:
    """The tags that runs started now get from the `with tags(...)` blocks around them."""

    __slots__ = ("current_tags",)

    def __init__(self, current_tags: frozenset[str]) -> None:
        self.current_tags = current_tags

    @classmethod
    def get(cls) -> TagsContext:
        """Return that of the calling code."""
        return cls(current_tags())


def get_run_context() -> FlowRunContext | TaskRunContext:
    """Return the context of the task that the calling code belongs to, else of the flow. Raises MissingContextError."""
    scope = current_scope()
    if scope is None and (errand := ERRAND.get()) is not None:
        return cast("FlowRunContext | TaskRunContext", errand.do(get_run_context, (), {}))
    if scope is None:
        raise MissingContextError("get_run_context() was called outside of a flow run. Call it in a flow or task.")
    return context_of(scope)


def context_of(scope: Scope) -> FlowRunContext | TaskRunContext:
    """Return the context of the code in a scope."""
    return FlowRunContext(scope.run) if scope.call is None else TaskRunContext(scope.call)


def _asked(kind: type[FlowRunContext | TaskRunContext]) -> object:
    """Return the context of code on a worker; None outside of a run."""
    errand = ERRAND.get()
    return None if errand is None else errand.do(find_context, (kind.__name__,), {})


def find_context(kind: str) -> FlowRunContext | TaskRunContext | None:
    """Return a context of that name of the calling code: asked for by code on a worker."""
    return FlowRunContext.get() if kind == "FlowRunContext" else TaskRunContext.get()


def value_in_context(kind: str, name: str) -> object:
    """Return an attribute of a context of the calling code: asked for by code on a worker."""
    return getattr(find_context(kind), name)


class _FarFlowRunContext(FlowRunContext):
    """That of a flow run, for code on a worker: each attribute is asked for."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<FlowRunContext of the flow's process>"

    def __getattribute__(self, name: str) -> object:
        return _value_there("FlowRunContext", self, name)


class _FarTaskRunContext(TaskRunContext):
    """That of a task run, for code on a worker: each attribute is asked for."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<TaskRunContext of the flow's process>"

    def __getattribute__(self, name: str) -> object:
        return _value_there("TaskRunContext", self, name)


def _value_there(kind: str, context: object, name: str) -> object:
    errand = None if name.startswith("_") or name == "get" else ERRAND.get()
    return object.__getattribute__(context, name) if errand is None else errand.do(value_in_context, (kind, name), {})


def _far(kind: str) -> object:
    return _FarFlowRunContext() if kind == "FlowRunContext" else _FarTaskRunContext()


def _last_start(run: LiveRun, task_run_id: int) -> datetime:
    # What gives a run its name runs before there is a row: it starts now.
    text = run.journal.records.find_last_start(run.id, task_run_id) or run.journal.clock.now_text()
    return datetime.fromisoformat(text)
