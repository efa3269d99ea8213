"""Events as triggers and actions see them: a row of the journal, with its JSON read and with what is known of its run.

Names that Prefect gives to what is ours - 'prefect.flow-run.Completed', 'prefect.resource.id' - mean the same as ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from wfengine_journal.clock import seconds_from_text
from wfengine_journal.events import EventRow

#: The label that says which resource an event is of.
RESOURCE_ID = "wfengine.resource.id"
RESOURCE_NAME = "wfengine.resource.name"
RESOURCE_ROLE = "wfengine.resource.role"
_PREFECTS = re.compile(r"^prefect\.(?=resource\.|flow-run\.|task-run\.|flow\.|deployment\.|tag\.|\*)")
#: A key that leads into the payload instead of naming a label.
PAYLOAD = "payload."
#: A key of `for_each` that leads to a label of a related resource: 'related:ROLE:LABEL'.
RELATED = "related:"


def ours(name: str) -> str:
    """Return the name that something of Prefect's has here."""
    return _PREFECTS.sub("wfengine.", name)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event."""

    id: int
    name: str
    resource: str
    labels: Mapping[str, object]
    related: tuple[Mapping[str, object], ...]
    payload: object
    at: str
    seconds: float  # `at`, since 1970
    flow_run_id: int | None = None
    task_run_id: int | None = None
    run_name: str | None = None
    flow: str | None = None
    deployment: str | None = None
    keys: tuple[str | None, ...] = ()  # idempotency keys of the event and of its run

    def value(self, key: str) -> object:
        """Return a label of the resource, or a place in the payload ('payload.customer.id'); None: there is none."""
        if key.startswith(PAYLOAD):
            return find_in(self.payload, key.removeprefix(PAYLOAD).split("."))
        if key.startswith(RELATED):
            _, role, label = (key + "::").split(":", 2)
            label = label.removesuffix("::").removesuffix(":")
            return next((each.get(label) for each in self.related if each.get(RESOURCE_ROLE) == role), None)
        return self.labels.get(key)

    def as_json(self) -> dict[str, object]:
        """Return what actions and their templates see of it."""
        found: dict[str, object] = {
            "id": self.id, "name": self.name, "resource": self.resource, "labels": dict(self.labels),
            "related": [dict(each) for each in self.related], "payload": self.payload, "occurred": self.at,
        }  # fmt: skip
        if self.flow_run_id is not None:
            found["flow_run"] = {"id": self.flow_run_id, "name": self.run_name}
            found["flow"] = {"name": self.flow}
            found["deployment"] = {"name": self.deployment}
        if self.task_run_id is not None:
            found["task_run"] = {"id": self.task_run_id}
        return found


def happening(row: EventRow) -> Happening:
    """Return an event of the journal as triggers see it."""
    labels: dict[str, object] = {RESOURCE_ID: row.resource}
    if row.run_name is not None and row.resource.startswith("wfengine.flow-run."):
        labels[RESOURCE_NAME] = row.run_name
    if row.task is not None:
        labels[RESOURCE_NAME] = row.task
    given = _read(row.labels)
    if isinstance(given, dict):
        labels.update(given)
    return Happening(
        row.id, row.name, row.resource, labels, _related(row), _read(row.payload), row.occurred_at, _seconds(row.occurred_at),
        row.flow_run_id, row.task_run_id, row.run_name, row.flow, row.deployment, (row.idempotency_key, row.run_key),
    )  # fmt: skip


def find_in(value: object, path: list[str]) -> object:
    """Return what stands at a path of keys and indexes in lists and dicts; None: nothing."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _related(row: EventRow) -> tuple[Mapping[str, object], ...]:
    given = _read(row.related)
    found = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    if row.run_name is not None and not row.resource.startswith("wfengine.flow-run."):
        found.append(_resource(f"wfengine.flow-run.{row.flow_run_id}", row.run_name, "flow-run"))
    if row.flow is not None:
        found.append(_resource(f"wfengine.flow.{row.flow}", row.flow, "flow"))
    if row.deployment is not None:
        found.append(_resource(f"wfengine.deployment.{row.deployment}", row.deployment, "deployment"))
    tags = _read(row.run_tags)
    found += [_resource(f"wfengine.tag.{tag}", str(tag), "tag") for tag in (tags if isinstance(tags, list) else ())]
    return tuple(found)


def _resource(resource: str, name: str, role: str) -> dict[str, object]:
    return {RESOURCE_ID: resource, RESOURCE_NAME: name, RESOURCE_ROLE: role}


def _read(text: str | None) -> object:
    """Return what a JSON text of the file holds; None for what is no JSON: anybody may have written it."""
    if text is None:
        return None
    try:
        return cast(object, json.loads(text))
    except (ValueError, RecursionError):
        return None


def _seconds(at: str) -> float:
    try:
        return seconds_from_text(at)
    except (ValueError, OverflowError):
        return 0.0
