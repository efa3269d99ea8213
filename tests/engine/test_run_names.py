"""Names of runs: templates and functions."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

from tests.engine.conftest import Rows
from wfengine import flow, task
from wfengine.ids import NAME_LIMIT
from wfengine.runtime import flow_run, task_run
from wfengine_journal.errors import UsageError


def names(rows: Rows) -> list[object]:
    return [name for (name,) in rows("SELECT name FROM tasks ORDER BY id")]


def test_a_template_is_filled_with_the_parameters_and_their_format_specs(rows: Rows) -> None:
    @task(task_run_name="load {table} page {page:03d}")
    def load(table: str, page: int = 1) -> None: ...

    @flow(flow_run_name="{name}-on-{day:%A}")
    def etl(name: str, day: date) -> None:
        load("users")
        load.map(["a", "b"], page=[2, 3]).wait()

    etl("marvin", date(2026, 11, 27))
    assert rows.value("SELECT name FROM runs") == "marvin-on-Friday"
    assert names(rows) == ["load users page 001", "load a page 002", "load b page 003"]


def test_parameters_are_fitted_to_their_hints_before_the_name_is_made(rows: Rows) -> None:
    @flow(flow_run_name="{day:%A}")
    def etl(day: date) -> None: ...

    etl("2026-11-27")  # type: ignore[arg-type]
    assert rows.value("SELECT name FROM runs") == "Friday"


def test_a_function_without_arguments_asks_the_runtime(rows: Rows) -> None:
    def flow_name() -> str:
        assert flow_run.id is None
        return f"{flow_run.flow_name} of {flow_run.parameters['day']} {flow_run.scheduled_start_time:%Y}"

    def task_name() -> str:
        assert task_run.id is None
        return f"{flow_run.flow_name}/{flow_run.name}/{task_run.task_name}/{task_run.parameters['n']}"

    @task(task_run_name=task_name)
    def step(n: int) -> None: ...

    @flow(flow_run_name=flow_name)
    def etl(day: str) -> None:
        step(5)
        step.submit(6).wait()

    etl("monday")
    name = str(rows.value("SELECT name FROM runs"))
    assert name.startswith("etl of monday 20")
    assert names(rows) == [f"etl/{name}/step/5", f"etl/{name}/step/6"]


def test_a_function_is_given_all_parameters_in_one_dict_or_those_it_names(rows: Rows) -> None:
    @task(task_run_name=lambda parameters: f"all {sorted(parameters)}")
    def in_one(a: int, b: int) -> None: ...

    @task(task_run_name=lambda b: f"b is {b}")
    def by_name(a: int, b: int) -> None: ...

    @task(task_run_name=lambda parameters: f"mine: {parameters}")
    def own(parameters: int) -> None: ...

    @task(task_run_name=lambda **all_of_them: f"{all_of_them}")
    def collected(a: int) -> None: ...

    @flow
    def etl() -> None:
        in_one(1, 2), by_name(1, 2), own(3), collected(4)

    etl()
    assert names(rows) == ["all ['a', 'b']", "b is 2", "mine: 3", "{'a': 4}"]


def test_names_work_in_async_flows_and_subflows(rows: Rows) -> None:
    @task(task_run_name="got {n}")
    async def step(n: int) -> int:
        return n

    @flow(flow_run_name=lambda: f"child of {flow_run.parent_flow_run_id}")
    async def inner() -> int:
        return await step(1)

    @flow(flow_run_name="parent")
    async def outer() -> int:
        return await inner()

    assert asyncio.run(outer()) == 1
    assert rows("SELECT name FROM runs ORDER BY id") == [("parent",), ("child of 1",)]
    assert names(rows) == ["got 1"]


def test_with_options_gives_another_name(rows: Rows) -> None:
    @flow(flow_run_name="first")
    def etl() -> None: ...

    etl.with_options(flow_run_name="second")()
    assert rows.value("SELECT name FROM runs") == "second"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{other}", "KeyError: 'other'"),
        ("{n:%A}", "ValueError: Invalid format specifier"),
        ("{n.day}", "AttributeError"),
        (lambda: 5, r"must be a text; <lambda>\(\) returned int"),
        (lambda other: "x", r"<lambda>\(\), asks for other. It may ask for `parameters`"),
    ],
)
def test_a_name_that_cannot_be_made_is_refused_before_anything_is_written(rows: Rows, name: object, said: str) -> None:
    @flow(flow_run_name=name)  # type: ignore[call-overload]
    def etl(n: int) -> None: ...

    with pytest.raises(UsageError, match=said):
        etl(1)
    assert rows("SELECT * FROM runs") == []


def test_a_name_that_is_neither_text_nor_function_is_refused_at_decoration() -> None:
    with pytest.raises(UsageError, match="flow_run_name must be a text or a function"):
        flow(flow_run_name=5)(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="task_run_name must be a text or a function"):
        task(task_run_name=5)(lambda: None)  # type: ignore[call-overload]


def test_an_empty_name_is_none_and_a_very_long_one_is_cut(rows: Rows) -> None:
    @flow(flow_run_name="{text}")
    def etl(text: str) -> None: ...

    etl("")
    etl("x" * 10_000)
    (first,), (second,) = rows("SELECT name FROM runs ORDER BY id")
    assert first
    assert str(second) == "x" * (NAME_LIMIT - 3) + "..."


def test_what_a_naming_function_calls_is_a_run_of_its_own(rows: Rows) -> None:
    @task
    def counter() -> int:
        return 7

    @flow(flow_run_name=lambda: f"run {counter()}")
    def etl() -> None: ...

    etl()
    assert rows("SELECT name FROM runs WHERE flow = 'etl'") == [("run 7",)]
    assert rows("SELECT r.flow FROM tasks t JOIN runs r ON r.id = t.run_id") == [("counter",)]
