"""How the attributes of the three modules are found: in the live run, or in an environment variable that a test set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from wfengine_journal.errors import UsageError


def value_of(
    module: str, from_text: Mapping[str, Callable[[str], object]], live_value: Callable[[str], object], name: str
) -> object:
    """Return an attribute of the module `flow_run`, `task_run` or `deployment`: what the environment says, else `live_value`.

    `from_text` lists the attributes, and what the text of a variable means for each. A variable may also stand for an
    attribute that does not exist; its text is the value. Raises AttributeError.
    """
    variable = f"WFENGINE__RUNTIME__{module.upper()}__{name.upper()}"
    text = os.environ.get(variable)
    if text is None:
        if name not in from_text:
            raise AttributeError(f"wfengine.runtime.{module} has no attribute {name!r}. It has: {', '.join(from_text)}.")
        return live_value(name)
    try:
        return from_text.get(name, str)(text)
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
