"""Parameters of flows: fitted to their hints before anything is journaled, and as they were on resume."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from enum import Enum

import pydantic
import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine_journal.errors import ParameterError, UsageError


class Color(Enum):
    RED = "red"


class Line(pydantic.BaseModel):
    item: str
    count: int = 1


class Order(pydantic.BaseModel):
    lines: list[Line]


@dataclass
class Point:
    x: int
    y: float = 0.0


def test_a_flow_is_given_what_its_hints_say() -> None:
    @flow
    def etl(
        order: Order, orders: list[Line], point: Point, day: date, color: Color, either: int | str, many: dict[str, list[int]]
    ) -> tuple[object, ...]:
        return order, orders, point, day, color, either, many

    given = etl(
        {"lines": [{"item": "a", "count": "2"}]},
        [{"item": "b"}],
        {"x": "1"},
        "2026-01-02",
        "red",
        "5",
        {"a": ["1"]},  # type: ignore[arg-type, list-item]
    )
    assert given == (
        Order(lines=[Line(item="a", count=2)]), [Line(item="b")], Point(1), date(2026, 1, 2), Color.RED, "5", {"a": [1]},
    )  # fmt: skip


def test_a_parameter_that_does_not_fit_is_refused_before_anything_is_journaled(rows: Rows) -> None:
    @flow
    def etl(size: int, day: date) -> None: ...

    with pytest.raises(ParameterError) as caught:
        etl("many", "tomorrow")  # type: ignore[arg-type]
    assert "parameter 'size' = 'many' does not fit int" in str(caught.value)
    assert "parameter 'day' = 'tomorrow' does not fit" in str(caught.value)
    with pytest.raises(ParameterError, match="missing argument 'day'"):
        etl(1)  # type: ignore[call-arg]
    assert rows("SELECT * FROM runs") == []


def test_a_subflow_s_parameter_that_does_not_fit_is_an_error_its_parent_may_catch(rows: Rows) -> None:
    @flow
    def inner(size: int) -> int:
        return size

    @flow
    def outer() -> str:
        try:
            inner("many")  # type: ignore[arg-type]
        except ParameterError:
            return "caught"
        return "not caught"

    assert outer() == "caught"
    assert rows("SELECT flow FROM runs") == [("outer",)]


def test_without_validation_values_come_as_they_are_given() -> None:
    @flow(validate_parameters=False)
    def etl(size: int) -> object:
        return size

    assert etl("many") == "many"  # type: ignore[arg-type]
    assert etl.should_validate_parameters is False


def test_async_flows_are_given_what_their_hints_say() -> None:
    @flow
    async def etl(size: int) -> int:
        return size

    assert asyncio.run(etl("5")) == 5  # type: ignore[arg-type]


def test_tasks_take_what_they_are_given_as_it_is() -> None:
    @task
    def load(size: int) -> object:
        return size

    @flow
    def etl() -> object:
        return load("5")  # type: ignore[arg-type]

    assert etl() == "5"


def test_validate_parameters_returns_what_a_call_would_be_given() -> None:
    @flow
    def etl(size: int, day: date = date(2026, 1, 2), *rest: int, **more: int) -> None: ...

    assert etl.validate_parameters({"size": "5", "rest": ["1"], "more": {"a": "2"}}) == {
        "size": 5, "day": date(2026, 1, 2), "rest": (1,), "more": {"a": 2},
    }  # fmt: skip
    with pytest.raises(ParameterError, match="does not fit int"):
        etl.validate_parameters({"size": "many"})
    with pytest.raises(ParameterError, match="'sice' but no such parameter"):
        etl.validate_parameters({"sice": 5})


@pytest.mark.parametrize("name", ["return_state", "wait_for"])
def test_reserved_names_are_refused_at_decoration(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"def fn({name}=None): ...", namespace)
    with pytest.raises(UsageError, match=f"parameter named '{name}'"):
        flow(namespace["fn"])  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=f"parameter named '{name}'"):
        task(namespace["fn"])  # type: ignore[call-overload]


def test_fields_of_pydantic_are_defaults_and_constraints(rows: Rows) -> None:
    @flow
    def etl(size: int = pydantic.Field(default=5, gt=0)) -> int:
        return size

    assert etl() == 5
    assert rows.value("SELECT parameters FROM runs") == '{"size":5}'
    with pytest.raises(ParameterError, match="greater than 0"):
        etl(0)


def test_a_resumed_flow_is_given_the_fitted_parameters(program: Program) -> None:
    program.write("""
        import pydantic

        class Line(pydantic.BaseModel):
            item: str
            count: int = 1

        @flow
        def etl(lines: list[Line], day: datetime.date):
            if first_time():
                kill()
            return [type(each).__name__ for each in lines], lines[0].count, day.isoformat()

        if __name__ == "__main__":
            etl([{"item": "a", "count": "2"}], "2026-01-02")
    """)
    program.run_and_be_killed()
    assert program.resume()["result"] == "(['Line'], 2, '2026-01-02')"
