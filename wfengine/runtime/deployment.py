"""The deployment that the calling code's flow run was started by.

`parameters` are those of the flow run, as in Prefect; `flow_run_id` is its id. A run that no deployment started has no
deployment's `id`, `name` and `version`: they are None.
"""

from __future__ import annotations

from collections.abc import Callable

from wfengine.runtime import flow_run
from wfengine.runtime.attributes import integer, json_object, value_of

id: int | None
name: str | None
version: str | None
parameters: dict[str, object]
flow_run_id: int | None

_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "id": integer, "name": str, "version": str, "parameters": json_object, "flow_run_id": integer,
}  # fmt: skip

__all__ = ["flow_run_id", "id", "name", "parameters", "version"]


def __getattr__(name: str) -> object:
    return value_of("deployment", _FROM_TEXT, _live_value, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _live_value(name: str) -> object:
    if name == "parameters":
        return flow_run.parameters
    return flow_run.id if name == "flow_run_id" else None
