"""Parameters of a deployment's run, held against the schema that the deployment keeps: the flow's code is not at hand.

Only what the flow could not take is refused, names first: the flow itself fits values to its hints when the run begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from wfengine.plain_json import plain_json
from wfengine.references import mentions
from wfengine_journal.errors import ParameterError

_WHOLE = re.compile(r"\s*[+-]?[0-9][0-9_]*(\.0*)?\s*")
_BOOLEANS = frozenset({"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"})


def check_given(
    owner: str, schema_text: str | None, own: Mapping[str, object], given: Mapping[str, object], *, complete: bool = True
) -> None:
    """Raise ParameterError where parameters do not fit a deployment, which has some of its `own`.

    `schema_text`: its schema; None: not known, then only JSON is asked for. `complete`: whether nothing may be missing.
    """
    plain_json(dict(given), f"parameters of {owner}")
    schema = json.loads(schema_text) if schema_text is not None else None
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return
    known: dict[str, object] = schema["properties"]
    problems = []
    if not schema.get("additionalProperties", True):
        unknown = [repr(name) for name in given if name not in known]
        if unknown:
            problems.append(f"there is no parameter {', '.join(unknown)} (there are: {', '.join(known) or 'none'})")
    if schema.get("x-validated", False):
        for name, value in given.items():
            if name in known and not mentions(value) and (wanted := misfit(known[name], value)):
                problems.append(f"'{name}' is {wanted}, and not {_shown(value)}")
    missing = [name for name in schema.get("required", ()) if name not in given and name not in own]
    if complete and missing:
        problems.append(f"{', '.join(map(repr, missing))} {'is' if len(missing) == 1 else 'are'} missing")
    if problems:
        raise ParameterError(f"{owner}: {'; '.join(problems)}.")


def value_of_text(schema_text: str | None, name: str, text: str) -> object:
    """Return the value that a text of the command line means: JSON where it is JSON that fits, else the text."""
    schema = json.loads(schema_text) if schema_text is not None else {}
    property_ = schema.get("properties", {}).get(name, {}) if isinstance(schema, dict) else {}
    if isinstance(property_, dict) and property_.get("type") == "string":
        return text
    try:
        value: object = json.loads(text)
        plain_json(value, f"parameter {name}")
    except (ValueError, RecursionError):
        return text
    return text if misfit(property_, value) else value


def misfit(schema: object, value: object) -> str | None:
    """Return what a schema asks for, where a value is certainly something else; None where it may fit."""
    if not isinstance(schema, dict):
        return None
    options = schema.get("anyOf")
    if isinstance(options, list) and options:
        found = [misfit(option, value) for option in options]
        return None if None in found else " or ".join(dict.fromkeys(cast("list[str]", found)))
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(allowed, list):
        return None if value in allowed else "one of " + ", ".join(map(_shown, allowed))
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _WORDS or _may_be(kind, schema, value):
        return None
    return _WORDS[kind]


_WORDS = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip


def _may_be(kind: str, schema: Mapping[str, object], value: object) -> bool:
    match kind:
        case "integer":
            return (isinstance(value, str) and _WHOLE.fullmatch(value) is not None) or (
                isinstance(value, int | float) and float(value).is_integer() if _is_small(value) else isinstance(value, int)
            )
        case "number":
            return isinstance(value, int | float) or (isinstance(value, str) and _is_number(value))
        case "boolean":
            return value in (0, 1) if isinstance(value, int | float) else str(value).strip().lower() in _BOOLEANS
        case "string":  # what has a format, such as a date, may be written as a number too
            return isinstance(value, str) or ("format" in schema and isinstance(value, int | float))
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, dict)
        case _:
            return value is None


def _is_small(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."
