"""Durable workflows in one SQLite file.

    from wfengine import flow, task

    @task
    def extract(day): ...

    @flow
    def etl(day): ...

Every call of a task in a flow is journaled into `.wfengine/journal.db`. A run that was cut off is resumed by
`wfengine resume`, and no task whose result the flow was given runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine._version import __version__
from wfengine.annotations import allow_failure, unmapped
from wfengine.flows import Flow, flow
from wfengine.futures import TaskFuture, TaskFutureList, as_completed, wait
from wfengine.journals import use_journal
from wfengine.retries import exponential_backoff
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.scopes import carry, tags
from wfengine.states import State
from wfengine.tasks import Task, task
from wfengine_journal.errors import WfengineError

if TYPE_CHECKING:
    from wfengine import artifacts, context, runtime, secrets, variables
    from wfengine.cancellation import cancel, pause, unpause
    from wfengine.context import get_run_context
    from wfengine.deployments import deploy
    from wfengine.durable import continue_as_new, now, random, side_effect, today, uuid4
    from wfengine.flow_runs import pause_flow_run, resume_flow_run, suspend_flow_run
    from wfengine.following import follow
    from wfengine.halts import check_cancelled
    from wfengine.logging.loggers import get_run_logger
    from wfengine.messages import get_event, receive, send, set_event, wait_until
    from wfengine.runs import current_flow_run, current_task_run
    from wfengine.serving import aserve, serve
    from wfengine.timers import sleep

#: Names that are loaded when they are first asked for, so that `import wfengine` stays quick, and the modules they stand in.
#: A name with an empty module is a module itself.
_LATER = {
    "artifacts": "",
    "aserve": "wfengine.serving",
    "cancel": "wfengine.cancellation",
    "check_cancelled": "wfengine.halts",
    "context": "",
    "continue_as_new": "wfengine.durable",
    "current_flow_run": "wfengine.runs",
    "current_task_run": "wfengine.runs",
    "deploy": "wfengine.deployments",
    "follow": "wfengine.following",
    "get_event": "wfengine.messages",
    "get_run_context": "wfengine.context",
    "get_run_logger": "wfengine.logging.loggers",
    "now": "wfengine.durable",
    "pause": "wfengine.cancellation",
    "pause_flow_run": "wfengine.flow_runs",
    "random": "wfengine.durable",
    "receive": "wfengine.messages",
    "resume_flow_run": "wfengine.flow_runs",
    "runtime": "",
    "secrets": "",
    "send": "wfengine.messages",
    "serve": "wfengine.serving",
    "set_event": "wfengine.messages",
    "side_effect": "wfengine.durable",
    "sleep": "wfengine.timers",
    "suspend_flow_run": "wfengine.flow_runs",
    "today": "wfengine.durable",
    "unpause": "wfengine.cancellation",
    "uuid4": "wfengine.durable",
    "variables": "",
    "wait_until": "wfengine.messages",
}

__all__ = [
    "Flow",
    "State",
    "Task",
    "TaskFuture",
    "TaskFutureList",
    "ThreadTaskRunner",
    "WfengineError",
    "__version__",
    "allow_failure",
    "artifacts",
    "as_completed",
    "aserve",
    "cancel",
    "carry",
    "check_cancelled",
    "context",
    "continue_as_new",
    "current_flow_run",
    "current_task_run",
    "deploy",
    "exponential_backoff",
    "flow",
    "follow",
    "get_event",
    "get_run_context",
    "get_run_logger",
    "now",
    "pause",
    "pause_flow_run",
    "random",
    "receive",
    "resume_flow_run",
    "runtime",
    "secrets",
    "send",
    "serve",
    "set_event",
    "side_effect",
    "sleep",
    "suspend_flow_run",
    "tags",
    "task",
    "today",
    "unmapped",
    "unpause",
    "use_journal",
    "uuid4",
    "variables",
    "wait",
    "wait_until",
]


def __getattr__(name: str) -> object:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'wfengine' has no attribute {name!r}")
    from importlib import import_module

    if not module:
        return import_module(f"wfengine.{name}")
    found: object = getattr(import_module(module), name)
    found.__module__ = "wfengine"
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


for _name in __all__:
    if hasattr(globals().get(_name), "__module__") and not isinstance(globals()[_name], str):
        globals()[_name].__module__ = "wfengine"  # users see one package
del _name
