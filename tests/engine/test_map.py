"""`map`: which arguments are taken apart, which go whole to every item, and what a resume makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from wfengine import TaskFutureList, allow_failure, flow, task, unmapped
from wfengine.annotations import opaque, quote
from wfengine.exceptions import MappingLengthMismatch, MappingMissingIterable, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Program, Rows


@task
def pair(left: object, right: object = "default") -> object:
    return left, right


@task
def numbers(upto: int) -> list[int]:
    return list(range(upto))


@task
def fail(number: int) -> int:
    if number == 1:
        raise ValueError("broken")
    return number


def mapped(make: Callable[[], TaskFutureList[object]]) -> list[object]:
    """Return the results of a map that is made in a flow of its own."""

    @flow
    def program() -> list[object]:
        return make().result()

    return program()


# Which arguments are taken apart


class Countdown:
    """Iterable in the old way."""

    def __getitem__(self, place: int) -> int:
        if place > 1:
            raise IndexError
        return 7 - place


def letters() -> Iterator[str]:
    yield from "ab"


ITERABLES = {
    "list": ([1, 2], [1, 2]),
    "tuple": ((1, 2), [1, 2]),
    "range": (range(2), [0, 1]),
    "dict": ({"a": 1, "b": 2}, ["a", "b"]),
    "set": ({5}, [5]),
    "generator": (letters, ["a", "b"]),
    "map": (lambda: map(str, [1, 2]), ["1", "2"]),
    "old iterable": (Countdown(), [7, 6]),
    "array": (np.arange(2), [0, 1]),
    "series": (pd.Series([1.5, 2.5]), [1.5, 2.5]),
    "frame": (pd.DataFrame({"a": [1], "b": [2]}), ["a", "b"]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", ITERABLES, ids=str)
def test_every_iterable_is_taken_apart(case: str) -> None:
    given, items = ITERABLES[case]
    value = given() if callable(given) else given
    assert mapped(lambda: pair.map(value)) == [(item, "default") for item in items]
    value = given() if callable(given) else given
    assert mapped(lambda: pair.map(0, right=value)) == [(0, item) for item in items]


def test_what_is_no_iterable_goes_whole_to_every_item(tmp_path: Path) -> None:
    @dataclass
    class Config:
        limit: int = 3

    (tmp_path / "data.txt").write_text("a\nb\n")
    with (tmp_path / "data.txt").open() as file:
        for whole in ("text", b"bytes", 5, None, Config(), np.array(3), tmp_path):
            assert mapped(lambda whole=whole: pair.map([1, 2], whole)) == [(1, whole), (2, whole)]  # type: ignore[misc]
        assert mapped(lambda: describe_kind.map([1], file)) == ["TextIOWrapper"]


@task
def describe_kind(_: object, value: object) -> str:
    return type(value).__name__


def test_unmapped_marks_a_whole_also_beneath_and_above_other_marks() -> None:
    for whole in (unmapped([1]), unmapped(quote([1])), quote(unmapped([1])), unmapped(opaque([1]))):
        assert mapped(lambda whole=whole: pair.map([1, 2], whole)) == [(1, [1]), (2, [1])]  # type: ignore[misc]


def test_defaults_are_never_taken_apart_and_extra_names_are_mapped() -> None:
    @task
    def gather(first: object, *more: object, default: tuple[int, ...] = (1, 2), **named: object) -> object:
        return first, more, default, named

    assert mapped(lambda: gather.map([1, 2], "x", [3, 4], a=[5, 6], b=7)) == [
        (1, ("x", 3), (1, 2), {"a": 5, "b": 7}),
        (2, ("x", 4), (1, 2), {"a": 6, "b": 7}),
    ]


def test_an_iterator_is_used_up_once_and_so_is_that_of_wait_for() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    @flow
    def program() -> list[object]:
        first = numbers.submit(1)
        return pair.map(source(), wait_for=(future for future in [first])).result()

    assert program() == [(0, "default"), (1, "default"), (2, "default")]
    assert taken == [0, 1, 2]


# Refusals


def test_lengths_that_differ_are_named_before_anything_is_submitted(rows: Rows) -> None:
    @flow
    def program() -> None:
        with pytest.raises(MappingLengthMismatch, match=r"task 'pair'.*left: 3, right: 2.*unmapped"):
            pair.map([1, 2, 3], right=[1, 2])

    program()
    assert rows.value("SELECT count(*) FROM tasks") == 0


def test_a_map_over_nothing_iterable_is_refused() -> None:
    @flow
    def program() -> None:
        for arguments in ((), (1,), ("text", unmapped([1])), (allow_failure(3), quote(4))):
            with pytest.raises(MappingMissingIterable, match=r"task 'pair'.*submit\(\)"):
                pair.map(*arguments)

    program()


@pytest.mark.parametrize("deferred", [False, True])
def test_arguments_that_do_not_fit_are_refused(rows: Rows, deferred: bool) -> None:
    @flow
    def program() -> None:
        with pytest.raises(ParameterError, match="unexpected argument 'wrong'"):
            pair.map([1], wrong=[2], deferred=deferred)

    program()
    assert rows.value("SELECT count(*) FROM tasks") == 0


# Futures


def test_a_future_counts_as_its_result_and_futures_are_items(rows: Rows) -> None:
    @flow
    def program() -> list[object]:
        future = numbers.submit(2)
        items = numbers.map([1, 2])
        return [
            pair.map(future).result(),
            pair.map(future, right=unmapped(future)).result(),
            pair.map(items, right=numbers(2, return_state=True)).result(),
            pair.map([[items[0]], {"a": items[1]}], right=unmapped([future])).result(),
        ]

    assert program() == [
        [(0, "default"), (1, "default")],
        [(0, [0, 1]), (1, [0, 1])],
        [([0], 0), ([0, 1], 1)],
        [([[0]], [[0, 1]]), ({"a": [0, 1]}, [[0, 1]])],
    ]
    assert rows.value("SELECT count(*) FROM tasks") == 3 + 1 + 8


def test_allow_failure_marks_every_item() -> None:
    @task
    def shown(value: object, _: object = None) -> str:
        return repr(value)

    @flow
    def program() -> list[object]:
        futures = fail.map([0, 1])
        return [
            shown.map(allow_failure(futures)).result(),
            shown.map(unmapped(allow_failure(futures[1])), [1, 2]).result(),
            shown.map(allow_failure(futures[1]), [1]).result(),
            [state.name for state in shown.map(futures, return_state=True)],
        ]

    broken = "ValueError('broken')"
    assert program() == [["0", broken], [broken, broken], [broken], ["Completed", "NotReady"]]


def test_quoted_items_are_passed_on_as_they_stand() -> None:
    @flow
    def program() -> list[str]:
        futures = numbers.map([1])
        return describe_kind.map([1], quote(futures)).result()

    assert program() == ["TaskFuture"]


def test_the_failure_of_a_future_that_is_mapped_over_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="broken"):
        mapped(lambda: pair.map(fail.submit(1)))


def test_every_item_of_a_map_waits_for_all_of_another_one(rows: Rows) -> None:
    ended: list[int] = []

    @task
    def first(number: int) -> int:
        ended.append(number)
        return number

    @task
    def second(_: int) -> int:
        return len(ended)

    @flow
    def program() -> set[int]:
        before = first.map(range(1000))
        return set(second.map(range(1000), wait_for=before).result())

    assert program() == {1000}
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 2000


def test_async_tasks_are_mapped_like_sync_ones() -> None:
    @task
    async def soon(number: int, more: int) -> int:
        await asyncio.sleep(0)
        return number + more

    @flow
    async def program() -> list[object]:
        futures = soon.map(range(3), 10)
        assert isinstance(futures, TaskFutureList)
        return [[await future for future in futures], await soon.map(futures, unmapped(1))[2]]

    assert asyncio.run(program()) == [[10, 11, 12], 13]


def test_states_are_given_where_they_are_asked_for() -> None:
    @flow
    def program() -> list[object]:
        states = fail.map([0, 1], return_state=True)
        assert type(states) is list
        single = fail.submit(0, return_state=True)
        return [[state.type.value for state in states], single.is_completed()]

    assert program() == [["COMPLETED", "FAILED"], True]


# Killed and resumed


def test_a_map_goes_on_after_a_kill_whatever_it_was_given(program: Program, rows: Rows) -> None:
    program.write(
        """
        import numpy as np
        from wfengine import allow_failure, unmapped

        @task
        def extract(number):
            note(f"extract-{number}")
            if number == 1:
                raise ValueError(number)
            return number * 10

        @task
        def load(value, more, extra=("a",)):
            note(f"load-{value}-{more}")
            if value == 3 and first_time():
                kill()
            return f"{value}-{more}"

        def source():
            yield from range(5)

        @flow
        def main():
            extracted = extract.map(np.arange(3))
            one = load.map(allow_failure(extracted), unmapped([1])).result()
            two = load.map(source(), more="x").result()
            return [*one, *two]

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume()["result"] == repr(["0-[1]", "1-[1]", "20-[1]", "0-x", "1-x", "2-x", "3-x", "4-x"])
    effects = program.effects
    for effect in ("extract-0", "extract-1", "extract-2", "load-0-[1]", "load-20-[1]"):
        assert effects.count(effect) == 1, effects
    assert effects.count("load-3-x") == 2
    assert rows.value("SELECT count(*) FROM tasks WHERE task = 'load'") == 8
    assert rows("SELECT count(*) FROM orphans") == [(0,)]


def test_an_item_that_is_put_in_the_middle_is_the_only_one_that_runs(program: Program) -> None:
    text = """
        @task
        def load(value, more):
            note(f"load-{value}")
            return value

        @flow
        def main():
            values = load.map(ITEMS, more=[9] * len(ITEMS)).result()
            kill()

        main()
    """
    program.write(text.replace("ITEMS", "[1, 2, 3]"))
    program.run_and_be_killed()
    program.write(text.replace("ITEMS", "[0, 1, 2, 2, 3]").replace("kill()", "return values"))
    assert program.resume()["result"] == "[0, 1, 2, 2, 3]"
    assert sorted(program.effects[3:]) == ["load-0", "load-2"]
