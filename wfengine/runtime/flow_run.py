"""The flow run that the calling code belongs to; in a task, the flow run that called it.

`parameters` are the values the flow was called with, defaults included, as objects. `run_count` counts the starts of the
body, resumes and retries among them. `scheduled_start_time` is an aware UTC datetime: when the run was to start, which for
a run started by hand is when it was created. `id` is None while a function gives the run its name: there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from wfengine.runtime.attributes import Attribute, instant, integer, json_list, json_object, nothing, value_of
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


def _run() -> LiveRun | None:
    scope = current_scope()
    return None if scope is None else scope.run


def _of_run(get: Callable[[LiveRun], object], empty: Callable[[], object] = nothing) -> Callable[[], object]:
    def value() -> object:
        run = _run()
        return empty() if run is None else get(run)

    return value


def _parent_id(run: LiveRun) -> int | None:
    return None if run.parent is None else run.parent.id


def _root_id(run: LiveRun) -> int | None:
    while run.parent is not None:
        run = run.parent
    return run.id or None


def _version(run: LiveRun) -> str | None:
    return None if run.flow.version is None else str(run.flow.version)


def _scheduled(run: LiveRun) -> datetime:
    created = run.journal.records.get_flow_run(run.id).created_at if run.id else run.journal.clock.now_text()
    return datetime.fromisoformat(created)


def _now() -> datetime:
    return datetime.fromisoformat(SystemClock().now_text())


_ATTRIBUTES: dict[str, Attribute] = {
    "id": Attribute(_of_run(lambda run: run.id or None), integer),
    "name": Attribute(_of_run(lambda run: run.name or None)),
    "tags": Attribute(_of_run(lambda run: sorted(run.tags), list), json_list),
    "run_count": Attribute(_of_run(lambda run: run.epoch, int), int),
    "parameters": Attribute(_of_run(lambda run: dict(run.parameters), dict), json_object),
    "scheduled_start_time": Attribute(_of_run(_scheduled, _now), instant),
    "flow_name": Attribute(_of_run(lambda run: run.flow.name)),
    "flow_version": Attribute(_of_run(_version)),
    "parent_flow_run_id": Attribute(_of_run(_parent_id), integer),
    "root_flow_run_id": Attribute(_of_run(_root_id), integer),
    "parent_deployment_id": Attribute(nothing, integer),
    "job_variables": Attribute(nothing, json_object),
    "api_url": Attribute(nothing),
    "ui_url": Attribute(nothing),
}

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
    return value_of("flow_run", _ATTRIBUTES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
