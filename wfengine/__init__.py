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

from wfengine._version import __version__
from wfengine.annotations import allow_failure, unmapped
from wfengine.flows import Flow, flow
from wfengine.futures import TaskFuture, TaskFutureList, as_completed, wait
from wfengine.journals import use_journal
from wfengine.logging import get_run_logger
from wfengine.retries import exponential_backoff
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.runs import current_flow_run, current_task_run
from wfengine.scopes import carry, tags
from wfengine.states import State
from wfengine.tasks import Task, task
from wfengine_journal.errors import WfengineError

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
    "as_completed",
    "carry",
    "current_flow_run",
    "current_task_run",
    "exponential_backoff",
    "flow",
    "get_run_logger",
    "tags",
    "task",
    "unmapped",
    "use_journal",
    "wait",
]

for _name in __all__:
    if hasattr(globals()[_name], "__module__") and not isinstance(globals()[_name], str):
        globals()[_name].__module__ = "wfengine"  # users see one package
del _name
