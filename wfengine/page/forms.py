"""The form in which a run of a deployment is started: a field for each parameter, by the schema that the deployment keeps.

What is left as it stood is not sent, so that the defaults of the deployment and of the flow hold. What somebody typed is kept
when it is refused, and the refusal stands at its field. The code of the flow is not loaded for any of this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wfengine.page.rendering import json_text
from wfengine.parameter_checks import misfit
from wfengine.references import mentions

#: Levels of a schema and of references in it that are gone into, and fields that are shown.
DEPTH = 20
FIELDS = 200
_WORDS = {
    "integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "array": "list, as JSON",
    "object": "object, as JSON", "null": "null",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter. `kind`: choice, boolean, number, text, lines or json; `text`: what stands in the field."""

    name: str
    kind: str
    hint: str
    is_required: bool
    description: str
    text: str
    choices: tuple[tuple[str, str], ...] = ()  # what is sent, and what is shown
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent, read by the schema: values by name, and why some cannot be taken."""

    values: dict[str, object]
    problems: dict[str, str]


def parsed_schema(text: str | None) -> dict[str, Any]:
    """Return a schema of parameters; one that cannot be read knows no parameter."""
    try:
        found = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) and isinstance(found.get("properties"), dict) else {}


def fields_of(
    schema: Mapping[str, Any], own: Mapping[str, object], typed: Mapping[str, str], problems: Mapping[str, str]
) -> list[Field]:  # fmt: skip
    """Return the fields of a form. `own`: the deployment's parameters; `typed`: what somebody typed already, by name."""
    required = schema.get("required")
    wanted = set(required) if isinstance(required, list) else set()
    found = []
    for name, part in list(schema.get("properties", {}).items())[:FIELDS]:
        part = _plain(part, schema)
        kind, choices = _kind(part)
        initial = _initial(part, kind, name, own)
        is_required = name in wanted and name not in own
        if kind in ("choice", "boolean") and not initial:
            choices = (("", "choose" if is_required else "as the flow has it"), *choices)
        found.append(
            Field(
                str(name), kind, _hint(part), is_required, str(part.get("description", "")), typed.get(name, initial), choices,
                problems.get(name),
            )
        )  # fmt: skip
    return found


def read(schema: Mapping[str, Any], own: Mapping[str, object], typed: Mapping[str, str]) -> Form:
    """Return what was typed as values, with what is wrong with it, by name."""
    values: dict[str, object] = {}
    problems: dict[str, str] = {}
    for field in fields_of(schema, own, {}, {}):
        text = typed.get(field.name, field.text)
        if text == field.text:
            if field.is_required and text == "":
                problems[field.name] = "is missing"
            continue
        part = _plain(schema["properties"][field.name], schema)
        try:
            value = _value(part, field, text)
        except ValueError as error:
            problems[field.name] = str(error)
            continue
        if schema.get("x-validated", False) and (problem := _problem(part, value, schema, 0)):
            problems[field.name] = problem
        values[field.name] = value
    return Form(values, problems)


# ------------------------------------------------------------------------------------------- parts of a schema


def _plain(part: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part without references, and without a null beside the one thing that it may be."""
    for _ in range(DEPTH):
        if not isinstance(part, dict):
            return {}
        own = {name: part[name] for name in ("default", "description") if name in part}
        if isinstance(part.get("$ref"), str):
            definitions = schema.get("definitions")
            other = definitions.get(part["$ref"].rpartition("/")[2]) if isinstance(definitions, dict) else None
            part = {**other, **own} if isinstance(other, dict) else own
        elif isinstance(part.get("allOf"), list) and len(part["allOf"]) == 1 and isinstance(part["allOf"][0], dict):
            part = {**part["allOf"][0], **own}
        elif (options := _without_null(part)) is not None and len(options) == 1 and isinstance(options[0], dict):
            part = {**options[0], **own, "nullable": True}
        else:
            return part
    return {}


def _without_null(part: Mapping[str, Any]) -> list[object] | None:
    options = part.get("anyOf")
    return [each for each in options if each != {"type": "null"}] if isinstance(options, list) else None


def _kind(part: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    allowed = part.get("enum", [part["const"]] if "const" in part else None)
    if isinstance(allowed, list):
        shown = [(json_text(each), each if isinstance(each, str) else json_text(each)) for each in allowed[:FIELDS]]
        return "choice", tuple(shown)
    kind = part.get("type")
    if kind == "boolean":
        return "boolean", (("true", "true"), ("false", "false"))
    if kind in ("integer", "number"):
        return "number", ()
    if kind == "string":
        return ("lines" if "\n" in str(part.get("default", "")) else "text"), ()
    return "json", ()


def _hint(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if "enum" in part or "const" in part:
        return "choice"
    if kind == "string" and isinstance(part.get("format"), str):
        return str(part["format"])
    options = _without_null(part)
    if options:
        return " or ".join(dict.fromkeys(_hint(each) for each in options if isinstance(each, dict))) or "JSON"
    return _WORDS.get(kind, "JSON, else text") if isinstance(kind, str) else "JSON, else text"


def _initial(part: Mapping[str, Any], kind: str, name: str, own: Mapping[str, object]) -> str:
    """Return what stands in a field before somebody types: the deployment's value, else the flow's default."""
    if name not in own and "default" not in part:
        return ""
    value = own[name] if name in own else part["default"]
    if value is None:
        return ""
    if kind in ("text", "lines", "number") and isinstance(value, str):
        return value
    if kind == "json":
        return value if isinstance(value, str) and not _is_json(value) and value.isprintable() else json_text(value)
    return json_text(value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# ------------------------------------------------------------------------------------------- what was typed


def _value(part: Mapping[str, Any], field: Field, text: str) -> object:
    """Return the value that a text means in a field. Raises ValueError with why not."""
    if field.kind in ("text", "lines") or mentions(text):
        return None if text == "" and part.get("nullable") else text
    if text == "":
        if part.get("nullable"):
            return None
        raise ValueError("is empty; leave what stood there, or give another value")
    if field.kind == "choice" and text not in [sent for sent, _ in field.choices]:
        raise ValueError("is none of what can be chosen")
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        if field.kind == "json" and misfit(part, text) is None and part.get("type") not in ("array", "object"):
            return text
        wanted = _WORDS.get(str(part.get("type")))
        if field.kind != "json" and wanted is not None:
            raise ValueError(f"is a {wanted}, and not {text[:80]!r}") from None
        raise ValueError(f"is no JSON: {error}") from None


def _refused(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _problem(part: Mapping[str, Any], value: object, schema: Mapping[str, Any], depth: int) -> str | None:
    """Return why a value certainly does not fit; what is inside of it is looked at too."""
    if depth > DEPTH or mentions(value) or (value is None and part.get("nullable")):
        return None
    if wanted := misfit(part, value):
        return f"is {wanted}, and not {json_text(value)[:80]}"
    if isinstance(value, dict) and isinstance(part.get("properties"), dict):
        for name in part.get("required") or ():
            if name not in value:
                return f"needs {name!r}"
        for name, item in value.items():
            if name in part["properties"]:
                inner = _plain(part["properties"][name], schema)
                if problem := _problem(inner, item, schema, depth + 1):
                    return f"{name} {problem}"
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        inner = _plain(part["items"], schema)
        for number, item in enumerate(value):
            if problem := _problem(inner, item, schema, depth + 1):
                return f"item {number + 1} {problem}"
    return None
