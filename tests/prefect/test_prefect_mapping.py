"""Mapping, futures, and what marks an argument, as Prefect documents them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.prefect.conftest import Rows
from wfengine import allow_failure, flow, task, unmapped
from wfengine.exceptions import MappingLengthMismatch, MappingMissingIterable
from wfengine.futures import PrefectFuture, PrefectFutureList, as_completed, resolve_futures_to_results, wait
from wfengine.task_runners import ThreadPoolTaskRunner
from wfengine.utilities.annotations import opaque, quote


@task
def double(number: int) -> int:
    return number * 2


@task
def add(left: int, right: int = 10) -> int:
    return left + right


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def test_a_list_is_mapped_and_reduced(rows: Rows) -> None:
    @flow
    def program() -> int:
        return total(double.map([1, 2, 3]))

    assert program() == 12
    assert rows("SELECT task, count(*) FROM tasks GROUP BY task ORDER BY task") == [("double", 3), ("total", 1)]


def test_a_map_gives_a_list_of_futures() -> None:
    @flow
    def program() -> bool:
        futures = double.map([1, 2, 3])
        assert isinstance(futures, PrefectFutureList)
        assert isinstance(futures, list)
        assert all(isinstance(future, PrefectFuture) for future in futures)
        futures.wait()
        assert futures.result() == [2, 4, 6]
        return all(future.state.is_completed() for future in futures)

    assert program()


def test_maps_are_chained_through_their_futures() -> None:
    @flow
    def program() -> list[int]:
        return add.map(double.map([1, 2, 3]), right=unmapped(1)).result()

    assert program() == [3, 5, 7]


def test_several_iterables_are_walked_in_step() -> None:
    @flow
    def program() -> list[int]:
        return add.map([1, 2, 3], right=(10, 20, 30)).result()

    assert program() == [11, 22, 33]


def test_an_argument_that_is_no_iterable_is_given_to_each_item() -> None:
    @flow
    def program() -> list[int]:
        return add.map([1, 2], 5).result()

    assert program() == [6, 7]


def test_unmapped_marks_a_list_that_goes_whole_to_each_item() -> None:
    @task
    def add_sum(number: int, others: list[int]) -> int:
        return number + sum(others)

    @flow
    def program() -> list[int]:
        return add_sum.map([1, 2], unmapped([10, 20])).result()

    assert program() == [31, 32]


def test_ranges_generators_and_the_result_of_a_task_are_mapped_over() -> None:
    @task
    def numbers() -> list[int]:
        return [4, 5]

    def generated() -> Iterator[int]:
        yield from (1, 2)

    @flow
    def program() -> list[list[int]]:
        return [double.map(items).result() for items in (range(2), generated(), numbers(), numbers.submit())]

    assert program() == [[0, 2], [2, 4], [8, 10], [8, 10]]


def test_iterables_of_two_lengths_are_refused() -> None:
    @flow
    def program() -> object:
        return add.map([1, 2, 3], [1, 2])

    with pytest.raises(MappingLengthMismatch):
        program()


def test_a_map_without_an_iterable_is_refused() -> None:
    @flow
    def program() -> object:
        return add.map(1, unmapped([2]))

    with pytest.raises(MappingMissingIterable):
        program()


@task
def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("two")
    return number


def test_one_item_that_fails_leaves_the_others_their_results() -> None:
    @flow
    def program() -> list[object]:
        futures = fail_at_two.map([1, 2, 3])
        return [future.result(raise_on_failure=False) for future in futures]

    first, second, third = program()
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)


def test_allow_failure_gives_the_exception_to_the_next_task() -> None:
    @task
    def describe(result: object) -> str:
        return f"failed: {result}" if isinstance(result, Exception) else f"got {result}"

    @flow
    def program() -> list[str]:
        futures = fail_at_two.map([1, 2])
        single = describe.submit(allow_failure(fail_at_two.submit(2)))
        return [*describe.map(allow_failure(futures)).result(), single.result()]

    assert program() == ["got 1", "failed: two", "failed: two"]


def test_without_it_the_next_task_does_not_run() -> None:
    ran: list[object] = []

    @task
    def describe(result: object) -> None:
        ran.append(result)

    @flow
    def program() -> str:
        future = describe.submit(fail_at_two.submit(2))
        future.wait()
        return f"{future.state.type.value} {future.state.name}"

    assert program() == "PENDING NotReady"
    assert ran == []


def test_wait_for_orders_tasks_that_pass_nothing_on() -> None:
    order: list[str] = []

    @task
    def first() -> None:
        order.append("first")

    @task
    def second(number: int) -> int:
        order.append(f"second {number}")
        return number

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def program() -> None:
        begun = first.submit()
        second.submit(1, wait_for=[begun]).wait()
        second(2, wait_for=[begun])
        second.map([3], wait_for=[begun]).wait()

    program()
    assert order == ["first", "second 1", "second 2", "second 3"]


def test_futures_are_found_in_nested_containers() -> None:
    @task
    def deep(data: dict[str, object]) -> object:
        return data

    @flow
    def program() -> object:
        one, two = double.submit(1), double.submit(2)
        return deep({"a": [one, {"b": (two, {"c": one})}], "d": 5})

    assert program() == {"a": [2, {"b": (4, {"c": 2})}], "d": 5}


def test_quote_and_opaque_leave_what_they_mark_alone() -> None:
    @task
    def length(items: object) -> int:
        return len(items)  # type: ignore[arg-type]

    @flow
    def program() -> tuple[int, int]:
        return length(quote([1, 2, 3]).unquote()), length.submit(opaque([1, 2])).result()

    assert program() == (3, 2)


def test_completed_futures_are_handed_out_as_they_come() -> None:
    @flow
    def program() -> list[int]:
        return sorted(future.result() for future in as_completed(double.map([1, 2, 3])))

    assert program() == [2, 4, 6]


def test_wait_tells_what_is_done() -> None:
    @flow
    def program() -> tuple[int, int]:
        done, not_done = wait([double.submit(1), double.submit(2)])
        return len(done), len(not_done)

    assert program() == (2, 0)


def test_futures_in_a_structure_are_resolved_by_hand() -> None:
    @flow
    def program() -> object:
        return resolve_futures_to_results({"x": [double.submit(1), 7]})

    assert program() == {"x": [2, 7]}


def test_callbacks_are_called_with_the_future() -> None:
    heard: list[int] = []

    @flow
    def program() -> None:
        future = double.submit(4)
        future.add_done_callback(lambda done: heard.append(done.result()))
        future.wait()

    program()
    assert heard == [8]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_tasks_that_submit_tasks_and_wait_for_them_never_starve(workers: int) -> None:
    @task
    def leaf(number: int) -> int:
        return number

    @task
    def branch(depth: int) -> int:
        if depth == 0:
            return leaf.submit(1).result()
        return sum(branch.map([depth - 1, depth - 1]).result())

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=workers))
    def program() -> int:
        return branch.submit(3).result()

    assert program() == 8
