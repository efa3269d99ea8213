"""Parameters: fitted to their type hints by pydantic, checked before anything is written."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Literal

import pydantic
import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.exceptions import ParameterBindError, ParameterTypeError, ReservedArgumentError
from wfengine.utilities.callables import parameter_schema


class Address(pydantic.BaseModel):
    street: str
    number: int = 1


class Customer(pydantic.BaseModel):
    name: str
    addresses: list[Address] = []


@dataclass
class Window:
    days: int
    label: str = "week"


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


def test_plain_values_are_fitted_to_their_hints() -> None:
    @flow
    def program(count: int, rate: float, day: dt.date, active: bool, ids: set[int]) -> tuple[object, ...]:
        return count, rate, day, active, ids

    assert program("5", "0.5", "2025-04-07", "true", ["1", 2]) == (5, 0.5, dt.date(2025, 4, 7), True, {1, 2})  # type: ignore[arg-type]


def test_a_dict_becomes_the_model_that_the_hint_names(rows: Rows) -> None:
    @flow
    def program(customer: Customer) -> str:
        assert isinstance(customer, Customer)
        return f"{customer.name}: {customer.addresses[0].street} {customer.addresses[0].number}"

    assert program({"name": "Ada", "addresses": [{"street": "Main"}]}) == "Ada: Main 1"  # type: ignore[arg-type]
    assert program(Customer(name="Ada", addresses=[Address(street="Main", number=4)])) == "Ada: Main 4"
    assert "Main" in str(rows("SELECT parameters FROM runs WHERE id = 1"))


def test_lists_of_models_dataclasses_enums_and_literals_are_fitted() -> None:
    @flow
    def program(customers: list[Customer], window: Window, size: Size, mode: Literal["fast", "slow"]) -> tuple[object, ...]:
        return [customer.name for customer in customers], window.days, size, mode

    found = program([{"name": "Ada"}, {"name": "Grace"}], {"days": "7"}, "large", "fast")  # type: ignore[list-item, arg-type]
    assert found == (["Ada", "Grace"], 7, Size.LARGE, "fast")


def test_what_does_not_fit_is_refused_before_anything_is_written(rows: Rows) -> None:
    ran: list[int] = []

    @flow
    def program(count: int, customer: Customer) -> None:
        ran.append(count)

    with pytest.raises(ParameterTypeError, match="count"):
        program("many", {"name": "Ada"})  # type: ignore[arg-type]
    with pytest.raises(ParameterTypeError, match="customer"):
        program(1, {"nickname": "Ada"})  # type: ignore[arg-type]
    assert ran == []
    assert rows("SELECT count(*) FROM runs") == [(0,)]


def test_a_call_that_does_not_bind_is_refused() -> None:
    @flow
    def program(a: int, *, b: int = 2) -> int:
        return a + b

    assert program(1, b=5) == 6
    with pytest.raises(ParameterBindError):
        program()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        program(1, 2)  # type: ignore[misc]


def test_validation_is_turned_off() -> None:
    @flow(validate_parameters=False)
    def program(count: int) -> object:
        return count

    assert program("5") == "5"  # type: ignore[arg-type]


def test_a_task_s_arguments_are_given_as_they_are() -> None:
    @task
    def load(count: int) -> object:
        return count

    @flow
    def program() -> object:
        return load("5")  # type: ignore[arg-type]

    assert program() == "5"


def test_names_that_mean_options_of_the_call_are_reserved() -> None:
    with pytest.raises(ReservedArgumentError, match="return_state"):

        @flow
        def program(return_state: bool) -> None: ...


def test_defaults_variadic_and_keyword_arguments_are_bound() -> None:
    @flow
    def program(first: int, *rest: int, scale: int = 1, **named: int) -> int:
        return scale * (first + sum(rest) + sum(named.values()))

    assert program(1, 2, 3, scale=2, extra=4) == 20


def test_a_flow_has_a_schema_of_its_parameters() -> None:
    @flow
    def program(count: int, customer: Customer, label: str = "none") -> None: ...

    schema = parameter_schema(program)

    assert list(schema.properties) == ["count", "customer", "label"]
    assert schema.required == ["count", "customer"]
    assert schema.properties["count"]["type"] == "integer"
    assert schema.properties["label"]["default"] == "none"
    assert "Customer" in schema.definitions


def test_the_function_itself_is_called_in_tests() -> None:
    @task
    def load(count: int) -> int:
        return count + 1

    @flow
    def program(count: int) -> int:
        return load.fn(count)

    assert load.fn(1) == 2
    assert program.fn(2) == 3
