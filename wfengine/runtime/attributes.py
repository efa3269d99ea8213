"""How the attributes of the three modules are found: in the live run, or in an environment variable that a test set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from wfengine_journal.errors import UsageError


class Attribute(NamedTuple):
    """One attribute: what gives its value, and what its environment variable's text means."""

    get: Callable[[], object]
    from_text: Callable[[str], object] = str


def value_of(module: str, attributes: Mapping[str, Attribute], name: str) -> object:
    """Return an attribute of the module `flow_run`, `task_run` or `deployment`. Raises AttributeError.

    A variable may also stand for an attribute that does not exist; its text is the value.
    """
    variable = f"WFENGINE__RUNTIME__{module.upper()}__{name.upper()}"
    text = os.environ.get(variable)
    attribute = attributes.get(name)
    if text is None:
        if attribute is None:
            raise AttributeError(f"wfengine.runtime.{module} has no attribute {name!r}. It has: {', '.join(attributes)}.")
        return attribute.get()
    try:
        return text if attribute is None else attribute.from_text(text)
    except ValueError as error:
        raise UsageError(f"{variable}={text!r} cannot stand for {module}.{name}: {error}") from error


def integer(text: str) -> object:
    """Return a number where the text is one; a test may stand in any text for an id."""
    return int(text) if text.lstrip("-").isdigit() else text


def json_list(text: str) -> list[object]:
    """Return a JSON array, or a text split at its commas."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    found: list[object] = json.loads(text)
    return found


def json_object(text: str) -> dict[str, object]:
    """Return a JSON object."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it has to be a JSON object")
    return found


def instant(text: str) -> datetime:
    """Return an ISO-8601 instant; UTC where it names no zone."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def nothing() -> None:
    """Return None: what there is no server for, or is not known here."""
