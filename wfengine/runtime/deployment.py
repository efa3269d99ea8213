"""The deployment that the calling code's flow run was started by.

`parameters` are those of the flow run, as in Prefect; `flow_run_id` is its id. A run that no deployment started has no
deployment's `id`, `name` and `version`: they are None.
"""

from __future__ import annotations

from wfengine.runtime import flow_run
from wfengine.runtime.attributes import Attribute, integer, json_object, nothing, value_of

id: int | None
name: str | None
version: str | None
parameters: dict[str, object]
flow_run_id: int | None

_ATTRIBUTES: dict[str, Attribute] = {
    "id": Attribute(nothing, integer),
    "name": Attribute(nothing),
    "version": Attribute(nothing),
    "parameters": Attribute(lambda: flow_run.parameters, json_object),
    "flow_run_id": Attribute(lambda: flow_run.id, integer),
}

__all__ = ["flow_run_id", "id", "name", "parameters", "version"]


def __getattr__(name: str) -> object:
    return value_of("deployment", _ATTRIBUTES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
