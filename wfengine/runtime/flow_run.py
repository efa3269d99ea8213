"""The flow run that the calling code belongs to; in a task, the flow run that called it.

`parameters` are the values the flow was called with, defaults included, as objects. `run_count` counts the starts of the
body, resumes and retries among them. `scheduled_start_time` is an aware UTC datetime: when the run was to start, which for
a run started by hand is when it was created. `id` is None while a function gives the run its name: there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from wfengine.runners.away import ERRAND
from wfengine.runtime.attributes import instant, integer, json_list, json_object, value_of
from wfengine.scopes import LiveRun, current_scope
from wfengine_journal.clock import SystemClock

id: int | None
name: str | None
tags: list[str]
run_count: int
parameters: dict[str, object]
scheduled_start_time: datetime
flow_name: str | None
flow_version: str | None
parent_flow_run_id: int | None
root_flow_run_id: int | None
parent_deployment_id: int | None
job_variables: dict[str, object] | None
api_url: str | None
ui_url: str | None


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "id": integer, "name": str, "tags": json_list, "run_count": int, "parameters": json_object,
    "scheduled_start_time": instant, "flow_name": str, "flow_version": str, "parent_flow_run_id": integer,
    "root_flow_run_id": integer, "parent_deployment_id": integer, "job_variables": json_object, "api_url": str, "ui_url": str,
}  # fmt: skip

__all__ = [
    "api_url",
    "flow_name",
    "flow_version",
    "id",
    "job_variables",
    "name",
    "parameters",
    "parent_deployment_id",
    "parent_flow_run_id",
    "root_flow_run_id",
    "run_count",
    "scheduled_start_time",
    "tags",
    "ui_url",
]


def __getattr__(name: str) -> object:
    return value_of("flow_run", _FROM_TEXT, _live_value, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _live_value(name: str) -> object:
    scope = current_scope()
    if scope is None:
        errand = ERRAND.get()
        return _empty_value(name) if errand is None else errand.do(_live_value, (name,), {})
    run = scope.run
    if name == "scheduled_start_time":
        return datetime.fromisoformat(
            run.journal.records.get_flow_run(run.id).created_at if run.id else run.journal.clock.now_text()
        )
    values: dict[str, object] = {
        "id": run.id or None,
        "name": run.name or None,
        "tags": sorted(run.tags),
        "run_count": run.epoch,
        "parameters": dict(run.parameters),
        "flow_name": run.flow.name,
        "flow_version": None if run.flow.version is None else str(run.flow.version),
        "parent_flow_run_id": None if run.parent is None else run.parent.id,
        "root_flow_run_id": _root_id(run),
    }
    return values.get(name)


def _empty_value(name: str) -> object:
    if name == "scheduled_start_time":
        return datetime.fromisoformat(SystemClock().now_text())
    empty: dict[str, object] = {"tags": [], "run_count": 0, "parameters": {}}
    return empty.get(name)


def _root_id(run: LiveRun) -> int | None:
    while run.parent is not None:
        run = run.parent
    return run.id or None
