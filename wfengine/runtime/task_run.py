"""The task run that the calling code belongs to; empty in a flow's own body.

`run_count` counts the attempts. `id` is None while a function gives the task run its name: there is none yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wfengine.runtime.attributes import Attribute, integer, json_list, json_object, nothing, value_of
from wfengine.scopes import current_scope

if TYPE_CHECKING:
    from wfengine.task_engine import Call

id: int | None
name: str | None
tags: list[str]
run_count: int
parameters: dict[str, object]
task_name: str | None
api_url: str | None
ui_url: str | None


def _of_call(get: Callable[[Call], object], empty: Callable[[], object] = nothing) -> Callable[[], object]:
    def value() -> object:
        scope = current_scope()
        return empty() if scope is None or scope.call is None else get(scope.call)

    return value


def _name(call: Call) -> str | None:
    return call.run_name or (f"{call.callee.name}-{call.task_run_id}" if call.task_run_id else None)


_ATTRIBUTES: dict[str, Attribute] = {
    "id": Attribute(_of_call(lambda call: call.task_run_id or None), integer),
    "name": Attribute(_of_call(_name)),
    "tags": Attribute(_of_call(lambda call: sorted(call.tags), list), json_list),
    "run_count": Attribute(_of_call(lambda call: call.attempt, int), int),
    "parameters": Attribute(_of_call(lambda call: dict(call.arguments), dict), json_object),
    "task_name": Attribute(_of_call(lambda call: call.callee.name)),
    "api_url": Attribute(nothing),
    "ui_url": Attribute(nothing),
}

__all__ = ["api_url", "id", "name", "parameters", "run_count", "tags", "task_name", "ui_url"]


def __getattr__(name: str) -> object:
    return value_of("task_run", _ATTRIBUTES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
