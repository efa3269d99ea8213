"""Flows in flows, tasks in tasks, recursion, and ways that are found only while the flow runs."""

from __future__ import annotations

import asyncio

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.task_runners import ThreadPoolTaskRunner


@task
def square(number: int) -> int:
    return number * number


@flow
def squares(numbers: list[int]) -> list[int]:
    return square.map(numbers).result()


def test_a_flow_calls_flows_and_uses_their_results(rows: Rows) -> None:
    @flow
    def statistics(numbers: list[int]) -> dict[str, int]:
        found = squares(numbers)
        return {"sum": sum(found), "count": len(found)}

    @flow
    def report() -> str:
        numbers = statistics([1, 2, 3])
        return f"{numbers['sum']} of {numbers['count']}"

    assert report() == "14 of 3"
    assert rows("SELECT flow, parent_run_id FROM runs ORDER BY id") == [("report", None), ("statistics", 1), ("squares", 2)]


def test_a_subflow_s_failure_is_caught_or_ends_the_parent() -> None:
    @flow
    def child() -> None:
        raise LookupError("nothing there")

    @flow
    def parent(catch: bool) -> str:
        if catch:
            state = child(return_state=True)
            return state.type.value
        child()
        return "never"

    assert parent(True) == "FAILED"
    with pytest.raises(LookupError, match="nothing there"):
        parent(False)


def test_a_subflow_has_retries_of_its_own() -> None:
    calls: list[str] = []

    @flow(retries=2)
    def child() -> str:
        calls.append("child")
        if len(calls) < 3:
            raise ConnectionError
        return "at last"

    @flow
    def parent() -> str:
        return child()

    assert parent() == "at last"
    assert len(calls) == 3


def test_a_completed_subflow_is_not_run_again_by_its_parent_s_retry() -> None:
    calls: list[str] = []

    @flow
    def child() -> str:
        calls.append("child")
        return "done"

    @flow(retries=1)
    def parent() -> str:
        result = child()
        calls.append("parent")
        if calls.count("parent") == 1:
            raise RuntimeError("after the child")
        return result

    assert parent() == "done"
    assert calls == ["child", "parent", "parent"]


def test_a_future_passed_to_a_subflow_counts_as_its_result() -> None:
    @flow
    def parent() -> list[int]:
        return squares([square.submit(2), 3])  # type: ignore[list-item]

    assert parent() == [16, 9]


def test_async_subflows_run_at_the_same_time() -> None:
    meeting: list[asyncio.Event] = []

    @flow
    async def child(number: int) -> int:
        meeting[number].set()
        await meeting[1 - number].wait()  # each waits for the other, so neither can end alone
        return number

    @flow
    async def parent() -> list[int]:
        meeting.extend([asyncio.Event(), asyncio.Event()])
        return list(await asyncio.gather(child(0), child(1)))

    assert asyncio.run(parent()) == [0, 1]


def test_tasks_call_tasks_and_flows(rows: Rows) -> None:
    @task
    def outer(number: int) -> int:
        return square(number) + sum(squares([number, number]))

    @flow
    def program() -> int:
        return outer(3)

    assert program() == 27
    assert rows("SELECT count(*) FROM tasks WHERE task = 'square'") == [(3,)]


def test_a_task_outside_of_a_flow_is_recorded_too(rows: Rows) -> None:
    assert square(5) == 25
    assert rows("SELECT task, result FROM tasks") == [("square", "25")]


def test_a_flow_calls_itself() -> None:
    @flow
    def factorial(number: int) -> int:
        return 1 if number <= 1 else number * factorial(number - 1)

    assert factorial(6) == 720


def test_a_task_calls_itself() -> None:
    @task
    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    @flow
    def program() -> int:
        return fibonacci(8)

    assert program() == 21


def test_calls_fifty_deep_end_with_one_worker() -> None:
    @task
    def nest(depth: int) -> int:
        return 0 if depth == 0 else 1 + nest.submit(depth - 1).result()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def program() -> int:
        return nest.submit(50).result()

    assert program() == 50


def test_a_flow_decides_what_to_call_by_what_it_got(rows: Rows) -> None:
    @task
    def classify(number: int) -> str:
        return "even" if number % 2 == 0 else "odd"

    @task
    def halve(number: int) -> int:
        return number // 2

    @task
    def grow(number: int) -> int:
        return 3 * number + 1

    @flow
    def collatz(number: int) -> int:
        steps = 0
        while number != 1:
            number = halve(number) if classify(number) == "even" else grow(number)
            steps += 1
        return steps

    assert collatz(6) == 8
    assert rows("SELECT task, count(*) FROM tasks GROUP BY task ORDER BY task") == [("classify", 8), ("grow", 2), ("halve", 6)]


def test_tasks_and_flows_made_in_a_loop_are_told_apart() -> None:
    @flow
    def program() -> list[int]:
        results = []
        for factor in (2, 3):

            @task(name=f"times-{factor}")
            def multiply(number: int, factor: int = factor) -> int:
                return number * factor

            results.append(multiply(10))
        return results

    assert program() == [20, 30]


class Warehouse:
    """Tasks and flows as methods."""

    table = "sales"

    def __init__(self, rate: int) -> None:
        self.rate = rate

    @task
    def convert(self, amount: int) -> int:
        return amount * self.rate

    @classmethod
    @task
    def name_of(cls, suffix: str) -> str:
        return f"{cls.table}_{suffix}"

    @staticmethod
    @task
    def clean(text: str) -> str:
        return text.strip()

    @flow
    def load(self, amounts: list[int]) -> list[int]:
        return [self.convert(amount) for amount in amounts]


def test_methods_are_tasks_and_flows() -> None:
    @flow
    def program() -> tuple[object, ...]:
        warehouse = Warehouse(7)
        submitted = warehouse.convert.submit(3).result()
        return warehouse.convert(2), submitted, Warehouse.name_of("2025"), Warehouse.clean("  a "), warehouse.load([1, 2])

    assert program() == (14, 21, "sales_2025", "a", [7, 14])
    assert Warehouse(3).load([1]) == [3]


def test_a_callable_object_is_a_task() -> None:
    class Scaler:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, number: int) -> int:
            return number * self.factor

    scale = task(name="scale")(Scaler(4))

    @flow
    def program() -> int:
        return scale(5)

    assert program() == 20
