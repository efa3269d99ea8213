"""The task run that the calling code belongs to; empty in a flow's own body.

`run_count` counts the attempts. `id` is None while a function gives the task run its name: there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable

from wfengine.runners.away import ERRAND
from wfengine.runtime.attributes import integer, json_list, json_object, value_of
from wfengine.scopes import current_scope

id: int | None
name: str | None
tags: list[str]
run_count: int
parameters: dict[str, object]
task_name: str | None
api_url: str | None
ui_url: str | None


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "id": integer, "name": str, "tags": json_list, "run_count": int, "parameters": json_object, "task_name": str,
    "api_url": str, "ui_url": str,
}  # fmt: skip

__all__ = ["api_url", "id", "name", "parameters", "run_count", "tags", "task_name", "ui_url"]


def __getattr__(name: str) -> object:
    return value_of("task_run", _FROM_TEXT, _live_value, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _live_value(name: str) -> object:
    scope = current_scope()
    errand = ERRAND.get() if scope is None else None
    if errand is not None:
        return errand.do(_live_value, (name,), {})
    call = None if scope is None else scope.call
    if call is None:
        empty: dict[str, object] = {"tags": [], "run_count": 0, "parameters": {}}
        return empty.get(name)
    values: dict[str, object] = {
        "id": call.task_run_id or None,
        "name": call.run_name or (f"{call.callee.name}-{call.task_run_id}" if call.task_run_id else None),
        "tags": sorted(call.tags),
        "run_count": call.attempt,
        "parameters": dict(call.arguments),
        "task_name": call.callee.name,
    }
    return values.get(name)
