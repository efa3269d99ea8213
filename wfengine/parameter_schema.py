"""The parameters of a flow as a JSON schema, for forms and for callers in other languages.

pydantic makes the schema of each type hint, and is imported only here and when a schema is asked for. A hint that it cannot
describe - a class of the user's, a name that cannot be resolved - becomes an open schema, which any value fits; it is
never an error.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wfengine.hints import adapters_for, is_field
from wfengine.parameters import Parameters

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic.json_schema import JsonSchemaMode

_Kind = inspect.Parameter
#: Where a schema refers to a model that is defined beside it.
_REFERENCE = "#/definitions/{model}"
_ARGUMENTS = re.compile(r"(Args|Arguments|Params|Parameters):")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_FIELD = re.compile(r":param (?:[\w\[\], .|]+ )?(\w+):\s*(.*)")


@dataclass(frozen=True, slots=True)
class ParameterSchema:
    """A JSON schema of an object with one property for each parameter, in their order (`position`).

    `definitions` are the schemas of the models that the properties refer to.
    """

    title: str = "Parameters"
    type: str = "object"
    properties: dict[str, dict[str, object]] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    definitions: dict[str, dict[str, object]] = field(default_factory=dict)

    def model_dump(self) -> dict[str, object]:
        """Return the schema as a dict that JSON can hold."""
        return {
            "title": self.title, "type": self.type, "properties": self.properties, "required": self.required,
            "definitions": self.definitions,
        }  # fmt: skip

    def model_dump_for_openapi(self) -> dict[str, object]:
        """Return the schema as a dict, `required` left out where nothing is."""
        return {name: value for name, value in self.model_dump().items() if name != "required" or value}


def parameter_schema(fn: Callable[..., object]) -> ParameterSchema:
    """Return the schema of the parameters of a function, flow or task."""
    function = cast("Callable[..., object]", getattr(fn, "fn", fn))
    return schema_of(Parameters(function, owner="the function"), inspect.getdoc(function))


def schema_of(parameters: Parameters, docstring: str | None) -> ParameterSchema:
    """Return the schema of parameters, described by the docstring of their function."""
    hints = {name: hint.hint for name, hint in parameters.hints().items()}
    descriptions = described_arguments(docstring)
    shown = [each for each in parameters.signature.parameters.values() if each.name not in ("self", "cls")]
    adapters = {each.name: _adapter(each, hints.get(each.name, Any)) for each in shown}
    schemas, definitions = _schemas_of(adapters)
    properties: dict[str, dict[str, object]] = {}
    required: list[str] = []
    for position, parameter in enumerate(shown):
        name = parameter.name
        own = {key: value for key, value in schemas.get(name, {}).items() if key not in ("title", "default")}
        properties[name] = {"position": position, "title": name, **own}
        if name in descriptions and "description" not in own:
            properties[name]["description"] = descriptions[name]
        if _is_required(parameter):
            required.append(name)
        else:
            properties[name].update(_default_of(parameter, adapters[name]))
    return ParameterSchema(properties=properties, required=required, definitions=definitions)


def _adapter(parameter: inspect.Parameter, hint: Any) -> TypeAdapter[object] | None:
    """Return pydantic's adapter for a parameter; None where it cannot judge the hint."""
    if parameter.kind is _Kind.VAR_POSITIONAL:
        hint = list[hint]
    elif parameter.kind is _Kind.VAR_KEYWORD:
        hint = dict[str, hint]
    found = adapters_for(hint)
    return found[0] if found else None


def _schemas_of(
    adapters: Mapping[str, TypeAdapter[object] | None],
) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    """Return the schemas by parameter, and the definitions they share: two models of one name are told apart."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Open(GenerateJsonSchema):
        """Leaves what JSON schemas cannot say open."""

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, object]:
            return {}

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Say nothing: a default that is no JSON is left out here."""

    def describe(names: list[str]) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
        mode: JsonSchemaMode = "validation"
        inputs = [(name, mode, adapter) for name in names if (adapter := adapters[name]) is not None]
        found, shared = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE, schema_generator=Open)
        return {name: schema for (name, _), schema in found.items()}, shared.get("$defs", {})

    describable = []
    for name in adapters:
        try:
            describe([name])
        except Exception:  # building a schema runs code of the user's types
            continue
        describable.append(name)
    return describe(describable)


def _is_required(parameter: inspect.Parameter) -> bool:
    if parameter.kind in (_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD):
        return False
    default = parameter.default
    return default is _Kind.empty or (is_field(default) and default.is_required())


def _default_of(parameter: inspect.Parameter, adapter: TypeAdapter[object] | None) -> dict[str, object]:
    """Return the default of a parameter as JSON has it; nothing where it is made anew for each call, or is no JSON."""
    default = parameter.default
    if parameter.kind is _Kind.VAR_POSITIONAL:
        return {"default": []}
    if parameter.kind is _Kind.VAR_KEYWORD:
        return {"default": {}}
    if is_field(default):
        if default.default_factory is not None:
            return {}
        default = default.default
    try:
        plain = default if adapter is None else adapter.dump_python(default, mode="json", warnings=False)
        json.dumps(plain, allow_nan=False)
    except Exception:  # as for the schema
        return {}
    return {"default": plain}


# ---------------------------------------------------------------------------------------------------- docstrings


def described_arguments(docstring: str | None) -> dict[str, str]:
    """Return what a docstring says of each argument: in an `Args:` section as Google writes it, or as `:param name: ...`."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(docstring or "").splitlines()
    for number, line in enumerate(lines):
        if entry := _FIELD.match(line.strip()):
            found[entry[1]] = " ".join([entry[2], *_continued(lines[number + 1 :], _indent(line))]).strip()
        elif _ARGUMENTS.fullmatch(line.strip()) and not _indent(line):
            found.update(_section(lines[number + 1 :]))
    return {name: text for name, text in found.items() if text}


def _section(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    depth = None
    for number, line in enumerate(lines):
        if line.strip() and not _indent(line):
            break  # the next section
        depth = _indent(line) if depth is None and line.strip() else depth
        entry = _ENTRY.match(line.strip()) if line.strip() and _indent(line) == depth else None
        if entry:
            found[entry[1]] = " ".join([entry[2], *_continued(lines[number + 1 :], _indent(line))]).strip()
    return found


def _continued(lines: list[str], depth: int) -> list[str]:
    """Return the lines, deeper than an entry, that go on with it."""
    found = []
    for line in lines:
        if not line.strip() or _indent(line) <= depth:
            break
        found.append(line.strip())
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
