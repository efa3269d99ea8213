"""The JSON schema of a flow's parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

from wfengine import flow, task
from wfengine.parameter_schema import described_arguments
from wfengine.utilities.callables import ParameterSchema, parameter_schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Order(pydantic.BaseModel):
    """An order of a customer."""

    number: int
    lines: list[Line] = []


class Line(pydantic.BaseModel):
    item: str


class Box:
    pass


def property_of(hint: object, default: object = ...) -> dict[str, object]:
    """Return what the schema says of one parameter of that hint."""

    def fn(x): ...

    fn.__annotations__ = {"x": hint}
    if default is not ...:
        fn.__defaults__ = (default,)
    return parameter_schema(fn).properties["x"]


def test_a_plain_function_is_described_in_the_order_of_its_parameters() -> None:
    def fn(day: date, size: int = 3, *, name: str = "x") -> None: ...

    assert parameter_schema(fn).model_dump() == {
        "title": "Parameters",
        "type": "object",
        "properties": {
            "day": {"position": 0, "title": "day", "type": "string", "format": "date"},
            "size": {"position": 1, "title": "size", "type": "integer", "default": 3},
            "name": {"position": 2, "title": "name", "type": "string", "default": "x"},
        },
        "required": ["day"],
        "definitions": {},
    }


def test_a_function_without_parameters_requires_nothing() -> None:
    schema = parameter_schema(lambda: None)
    assert schema == ParameterSchema()
    assert schema.model_dump_for_openapi() == {"title": "Parameters", "type": "object", "properties": {}, "definitions": {}}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Path, {"type": "string", "format": "path"}),
        (Any, {}),
        (Annotated[int, pydantic.Field(gt=0)], {"type": "integer", "exclusiveMinimum": 0}),
        (Box, {}),
        (list[Box], {"type": "array", "items": {}}),
        (Callable[[int], int], {}),
        ("NoSuchName", {}),
        ([int], {}),
        (Color, {"$ref": "#/definitions/Color"}),
        (Point, {"$ref": "#/definitions/Point"}),
        (list[Order], {"type": "array", "items": {"$ref": "#/definitions/Order"}}),
    ],
    ids=lambda each: str(each).split(" at 0x")[0],
)
def test_each_hint_has_its_schema_and_an_unknown_one_an_open_schema(hint: object, expected: dict[str, object]) -> None:
    assert property_of(hint) == {"position": 0, "title": "x", **expected}


def test_models_are_defined_once_beside_the_properties() -> None:
    def fn(order: Order, orders: list[Order], color: Color = Color.RED, point: Point = Point(1)) -> None: ...  # noqa: B008

    schema = parameter_schema(fn)
    assert sorted(schema.definitions) == ["Color", "Line", "Order", "Point"]
    assert schema.definitions["Order"]["description"] == "An order of a customer."
    assert schema.definitions["Color"]["enum"] == ["red", "blue"]
    assert schema.properties["color"]["default"] == "red"
    assert schema.properties["point"]["default"] == {"x": 1, "y": 0}
    assert json.loads(json.dumps(schema.model_dump())) == schema.model_dump()


def test_one_hint_that_cannot_be_described_costs_only_its_own_property() -> None:
    class Broken:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: object, handler: object) -> object:
            raise RuntimeError("no schema today")

    def fn(a: int, b: Any, c: str) -> None: ...

    fn.__annotations__["b"] = Broken
    properties = parameter_schema(fn).properties
    assert [sorted(each) for each in properties.values()] == [
        ["position", "title", "type"], ["position", "title"], ["position", "title", "type"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "default", "shown"),
    [
        (date, date(2026, 1, 2), {"default": "2026-01-02"}),
        (Decimal, Decimal("1.10"), {"default": "1.10"}),
        (int | None, None, {"default": None}),
        (Any, date(2026, 1, 2), {"default": "2026-01-02"}),
        (Any, object(), {}),
        (float, float("nan"), {}),
        (Box, Box(), {}),
    ],
    ids=lambda each: str(each).split(" at 0x")[0],
)
def test_a_default_is_shown_as_json_or_left_out(hint: object, default: object, shown: dict[str, object]) -> None:
    found = property_of(hint, default)
    assert {key: value for key, value in found.items() if key == "default"} == shown


def test_a_pydantic_field_says_default_constraints_and_description() -> None:
    def fn(
        a: int = pydantic.Field(gt=0, description="how many"),
        b: int = pydantic.Field(default=5),
        c: list[int] = pydantic.Field(default_factory=list),  # noqa: B008
    ) -> None: ...

    schema = parameter_schema(fn)
    assert schema.required == ["a"]
    assert schema.properties["a"] == {
        "position": 0, "title": "a", "type": "integer", "exclusiveMinimum": 0, "description": "how many",
    }  # fmt: skip
    assert schema.properties["b"]["default"] == 5
    assert "default" not in schema.properties["c"]


def test_variable_arguments_are_a_list_and_an_object() -> None:
    def fn(*rest: int, **more: str) -> None: ...

    schema = parameter_schema(fn)
    assert schema.required == []
    assert schema.properties["rest"] == {
        "position": 0, "title": "rest", "type": "array", "items": {"type": "integer"}, "default": [],
    }  # fmt: skip
    assert schema.properties["more"]["additionalProperties"] == {"type": "string"}


def test_flows_and_tasks_have_the_schema_of_their_functions() -> None:
    @flow
    def etl(day: date, size: int = 3) -> None:
        """Load a day.

        Args:
            day: the day to load
            size: rows of one batch,
                as many as fit
        """

    @task
    def load(n: int) -> None: ...

    schema = etl.parameter_schema()
    assert schema == parameter_schema(etl) == parameter_schema(etl.fn)
    assert [each.get("description") for each in schema.properties.values()] == [
        "the day to load",
        "rows of one batch, as many as fit",
    ]
    assert parameter_schema(load).required == ["n"]


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        (None, {}),
        ("Nothing about arguments: at all.", {}),
        (
            "Do.\n\nArgs:\n  a: one\n  b (int): two\n  *rest: three\n\nReturns:\n  c: four",
            {"a": "one", "b": "two", "rest": "three"},
        ),
        ("Do.\n\nArguments:\n    a: one\n\n    b: two\nNote: this is another section", {"a": "one", "b": "two"}),
        ("Do.\n\n:param a: one\n   and more\n:param int b: two\n:returns: three", {"a": "one and more", "b": "two"}),
        ("Do.\n\nArgs:\n    a: see: there\n        x: y", {"a": "see: there x: y"}),
        ("Args:", {}),
    ],
)
def test_docstrings_describe_arguments_in_the_usual_ways(docstring: str | None, found: dict[str, str]) -> None:
    assert described_arguments(docstring) == found


def test_pydantic_is_loaded_only_when_a_schema_is_asked_for() -> None:
    program = """
import sys
from wfengine import flow
import wfengine.utilities.callables
@flow
def etl(day: int): ...
assert "pydantic" not in sys.modules
etl.parameter_schema()
assert "pydantic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
