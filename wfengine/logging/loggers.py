"""The loggers of user code, under the names Prefect gives them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from wfengine.context import FlowRunContext, TaskRunContext, context_of
from wfengine.logging.handlers import FLOW_RUNS, ROOT, TASK_RUNS, install
from wfengine.runners.away import ERRAND
from wfengine.scopes import ACTIVE, LiveRun, current_scope, current_tracer
from wfengine_journal.daemons import names_of_run
from wfengine_journal.errors import MissingContextError, UsageError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.run_objects import FlowRun, TaskRun
    from wfengine.tasks import Task

    LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    LoggerAdapter = logging.LoggerAdapter


#: The field of each run's deployment, once it was asked for.
_DEPLOYMENTS: WeakKeyDictionary[LiveRun, dict[str, object]] = WeakKeyDictionary()


class RunLogger(LoggerAdapter):
    """A logger whose records carry the run they belong to, and what a call gives as `extra`."""

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """See logging.LoggerAdapter; the `extra` of a call is added to that of the run."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def getChild(self, suffix: str, extra: Mapping[str, object] | None = None) -> RunLogger:
        """Return a logger below this one that speaks for the same run, with more fields."""
        return RunLogger(self.logger.getChild(suffix), {**(self.extra or {}), **(extra or {})})


def get_logger(name: str | None = None) -> logging.Logger:
    """Return a logger of the standard `logging` below 'wfengine'. Its lines do not go to the journal; see `get_run_logger`."""
    install()
    if name is None or name == ROOT or name.startswith(f"{ROOT}."):
        return logging.getLogger(name or ROOT)
    return logging.getLogger(f"{ROOT}.{name}")


def get_run_logger(context: FlowRunContext | TaskRunContext | None = None, **fields: object) -> LoggerAdapter | logging.Logger:
    """Return a logger whose lines go to the journal, with the run they belong to, and to standard logging.

    The run is that of the calling code, or of `context`. `fields` are put on each record besides the run's own:
    flow_run_id, flow_run_name, flow_name, deployment, and in a task task_run_id, task_run_name, task_name, attempt.
    The logger may be used on any thread while the run goes on. MissingContextError outside of a flow or task.
    """
    if context is None:
        scope = current_scope()
        if scope is None:
            errand = ERRAND.get()
            if errand is not None:
                name, extra = cast("tuple[str, dict[str, object]]", errand.do(logger_parts, (), fields))
                return RunLogger(logging.getLogger(name), extra)
            return _logger_outside()
        context = context_of(scope)
    if isinstance(context, TaskRunContext):
        outer = context.flow_run_context
        return task_run_logger(context.task_run, context.task, outer.flow_run, outer.flow, **fields)
    if isinstance(context, FlowRunContext):
        return flow_run_logger(context.flow_run, context.flow, **fields)
    raise UsageError(f"get_run_logger() takes a FlowRunContext or TaskRunContext, not {type(context).__name__}.")


def logger_parts(**fields: object) -> tuple[str, dict[str, object]]:
    """Return the name and the fields of the logger of the calling code: asked for by code on a worker."""
    logger = cast(RunLogger, get_run_logger(None, **fields))
    return logger.logger.name, dict(logger.extra or {})


def _logger_outside() -> logging.Logger:
    if current_tracer() is not None:  # a flow that is being drawn belongs to no run
        return logging.getLogger(FLOW_RUNS)
    if logging.getLogger(FLOW_RUNS).disabled and logging.getLogger(TASK_RUNS).disabled:
        silent = logging.getLogger(f"{ROOT}.disabled")
        silent.disabled = True
        return silent
    raise MissingContextError(
        "get_run_logger() was called outside of a flow run. Use logging.getLogger() there; around a test of a function that "
        "logs: with disable_run_logger()."
    )


def flow_run_logger(flow_run: FlowRun, flow: AnyFlow | None = None, **fields: object) -> RunLogger:
    """Return the logger of a flow run, for a hook that is given one. Its lines reach the journal while the run is executed."""
    return _run_logger(FLOW_RUNS, {**_fields_of(flow_run, flow), **fields})


def task_run_logger(
    task_run: TaskRun,
    task: Task[..., Any] | None = None,
    flow_run: FlowRun | None = None,
    flow: AnyFlow | None = None,
    **fields: object,
) -> RunLogger:
    """Return the logger of a task run, for a hook that is given one. Its lines reach the journal while the run is executed."""
    context = FlowRunContext.get()
    if flow_run is None and context is not None and context.flow_run.id == task_run.flow_run_id:
        flow_run, flow = context.flow_run, flow or context.flow
    own = {
        "task_run_id": task_run.id,
        "task_run_name": task_run.name,
        "task_name": task.name if task is not None else task_run.task_key,
        "flow_run_id": task_run.flow_run_id,
        "attempt": task_run.run_count,
    }
    return _run_logger(TASK_RUNS, {**(_fields_of(flow_run, flow) if flow_run is not None else {}), **own, **fields})


def _fields_of(flow_run: FlowRun, flow: AnyFlow | None) -> dict[str, object]:
    return {
        "flow_run_id": flow_run.id,
        "flow_run_name": flow_run.name,
        "flow_name": flow.name if flow is not None else flow_run.flow_name,
        **_deployment_of(flow_run),
    }


def _deployment_of(flow_run: FlowRun) -> dict[str, object]:
    """Return the name of the deployment of a run that this process executes, as a field."""
    run = next((run for (_, run_id), run in list(ACTIVE.items()) if run_id == flow_run.id), None)
    if run is None:
        return {}
    if run not in _DEPLOYMENTS:
        names = run.journal.records.read(lambda connection: names_of_run(connection, flow_run.id))
        _DEPLOYMENTS[run] = {} if names is None or names.deployment is None else {"deployment": names.deployment}
    return _DEPLOYMENTS[run]


def _run_logger(name: str, fields: dict[str, object]) -> RunLogger:
    install()
    return RunLogger(logging.getLogger(name), fields)


@contextmanager
def disable_run_logger() -> Iterator[None]:
    """Silence the loggers of runs in this process, for tests: inside, `get_run_logger()` works outside of a run too."""
    loggers = [logging.getLogger(name) for name in (FLOW_RUNS, TASK_RUNS)]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
