"""Back-pressure: how many submitted tasks are in flight, and that being held up never becomes waiting for ever.

Each test is held to an end by the time limit that every test has.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

import wfengine
from wfengine import ThreadTaskRunner, flow, task
from wfengine.exceptions import CancelledRun, MappingLengthMismatch, UsageError
from wfengine.runners.dask import DaskTaskRunner
from wfengine.runners.inline import InlineTaskRunner
from wfengine.runners.processes import ProcessTaskRunner
from wfengine.runners.ray import RayTaskRunner

if TYPE_CHECKING:
    from conftest import Program, Rows

LIMIT = 30  # seconds after which a test counts as hanging


class Source:
    """A generator's items, and how many of them were taken whose tasks had not ended."""

    def __init__(self, items: int | None, full_at: int) -> None:
        self._items = itertools.count() if items is None else range(items)
        self._full_at = full_at
        self._lock = threading.Lock()
        self._taken = self._ended = 0
        self.most = 0
        self.is_full = threading.Event()  # as much was taken as may be: tasks that wait for this prove that it is not less
        self.is_closed = threading.Event()

    def take(self) -> None:
        """Count an item."""
        with self._lock:
            self._taken += 1
            self.most = max(self.most, self._taken - self._ended)
            if self._taken >= self._full_at:
                self.is_full.set()

    def __call__(self) -> Iterator[int]:
        try:
            for number in self._items:
                self.take()
                yield number
        finally:
            self.is_closed.set()

    def end(self) -> None:
        """Count a task that has done its work; it is settled after that."""
        with self._lock:
            self._ended += 1


def task_of(source: Source) -> wfengine.Task[[int], int]:
    @task
    def double(number: int) -> int:
        assert source.is_full.wait(LIMIT)
        source.end()
        return number * 2

    return double


# How many


@pytest.mark.parametrize(("workers", "limit"), [(1, 1), (1, 7), (4, 4), (4, 40)])
def test_a_map_over_a_generator_has_so_many_in_flight_and_no_more(workers: int, limit: int) -> None:
    source = Source(200, limit)
    double = task_of(source)

    @flow(task_runner=ThreadTaskRunner(workers))
    def main() -> list[int]:
        return double.map(source(), max_in_flight=limit).result()

    assert main() == [2 * number for number in range(200)]
    assert source.most == limit


def test_a_thousand_items_of_a_generator_are_in_flight_where_nobody_says_how_many() -> None:
    source = Source(1500, 1000)
    double = task_of(source)

    @flow
    def main() -> int:
        return len(double.map(source()).result())

    assert main() == 1500
    assert source.most == 1000


def test_async_tasks_are_held_up_too() -> None:
    source = Source(100, 10)

    @task
    async def double(number: int) -> int:
        await asyncio.to_thread(source.is_full.wait, LIMIT)
        source.end()
        return number * 2

    @flow
    def main() -> list[int]:
        return double.map(source(), max_in_flight=10).result()

    assert main() == [2 * number for number in range(100)]
    assert source.most == 10


def test_an_async_flow_is_held_up_by_a_map_that_asks_for_it_and_its_tasks_go_on() -> None:
    source = Source(50, 5)
    double = task_of(source)

    @flow
    async def main() -> list[int]:
        futures = double.map(source(), max_in_flight=5)
        return [await future for future in futures]

    assert asyncio.run(main()) == [2 * number for number in range(50)]
    assert source.most == 5


@pytest.mark.parametrize("how", ["submit", "map of a list", "runner of the task"])
def test_a_runner_says_how_much_its_flow_may_submit(how: str) -> None:
    source = Source(100, 10)
    runner = ThreadTaskRunner(2, max_in_flight=10)
    double = task_of(source)
    if how == "runner of the task":
        double = double.with_options(runner=runner)

    @flow(task_runner=None if how == "runner of the task" else runner)
    def main() -> list[int]:
        if how == "map of a list":
            for _ in range(100):
                source.take()
            return double.map(list(range(100))).result()
        return [future.result() for future in [double.submit(number) for number in source()]]

    assert main() == [2 * number for number in range(100)]
    assert how == "map of a list" or source.most == 11  # what the next submit is held up with was taken before


def test_where_tasks_run_at_once_nothing_is_in_flight() -> None:
    source = Source(20, 1)
    double = task_of(source)

    @flow(task_runner=InlineTaskRunner())
    def main() -> list[int]:
        return double.map(source(), max_in_flight=1).result()

    assert main() == [2 * number for number in range(20)]
    assert source.most == 1


# Nothing waits for ever


@pytest.mark.parametrize("limit", [1, 2])
def test_tasks_in_tasks_that_are_all_held_up_come_to_an_end_with_one_worker(limit: int) -> None:
    @task
    def tree(depth: int) -> int:
        return 1 if depth == 0 else 1 + sum(tree.map((depth - 1 for _ in range(3)), max_in_flight=limit).result())

    @flow(task_runner=ThreadTaskRunner(1, max_in_flight=limit))
    def main() -> int:
        return tree.submit(4).result() + sum(tree.submit(number).result() for number in range(4))

    assert main() == 121 + 1 + 4 + 13 + 40


def test_items_may_be_futures_of_a_map_that_is_held_up_itself() -> None:
    @task
    def add_one(number: int) -> int:
        return number + 1

    @flow(task_runner=ThreadTaskRunner(1))
    def main() -> list[int]:
        first = add_one.map(iter(range(30)), max_in_flight=2)
        second = add_one.map(iter(first), max_in_flight=1)
        return add_one.map((add_one.submit(future) for future in second), max_in_flight=3).result()

    assert main() == [number + 4 for number in range(30)]


def test_a_generator_may_itself_call_tasks() -> None:
    @task
    def page(number: int) -> list[int]:
        return [number * 10, number * 10 + 1]

    @task
    def double(number: int) -> int:
        return number * 2

    def items() -> Iterator[int]:
        for number in range(10):
            yield from page(number)

    @flow(task_runner=ThreadTaskRunner(1))
    def main() -> list[int]:
        return double.map(items(), max_in_flight=2).result()

    assert main() == [2 * (10 * number + more) for number in range(10) for more in (0, 1)]


def test_a_cancelled_run_is_not_held_up_any_longer(rows: Rows) -> None:
    source = Source(None, 5)
    never = threading.Event()

    @task
    def stuck(number: int) -> None:
        while not never.wait(0.01):
            wfengine.check_cancelled()

    @flow
    def main() -> None:
        stuck.map(source(), max_in_flight=5)

    def cancel() -> None:
        assert source.is_full.wait(LIMIT)
        wfengine.cancel(1)

    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(CancelledRun):
        main()
    other.join()
    assert source.is_closed.wait(LIMIT)
    assert source.most == 5
    assert rows.state()[0] == "CANCELLED"


def test_a_flow_that_ran_too_long_stops_taking_items(rows: Rows) -> None:
    source = Source(None, 10**9)

    @task
    def quick(number: int) -> int:
        return number

    @flow(timeout_seconds=0.5)
    def main() -> None:
        quick.map(source(), max_in_flight=3)

    with pytest.raises(TimeoutError):
        main()
    assert source.is_closed.wait(LIMIT)


def test_an_error_of_the_generator_reaches_the_flow_and_what_was_submitted_goes_on(rows: Rows) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    @flow
    def main() -> None:
        with pytest.raises(ValueError, match="no more"):
            double.map(items())

    main()
    assert rows("SELECT state, count(*) FROM tasks GROUP BY 1") == [("COMPLETED", 5)]


# A resume


def test_a_killed_map_over_a_generator_goes_on_and_repeats_nothing_that_was_recorded(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine import ThreadTaskRunner

        @task
        def double(number):
            note(f"{number}")
            if number == 120 and first_time():
                kill()
            return number * 2

        @flow(task_runner=ThreadTaskRunner(2))
        def main():
            return sum(double.map((number for number in range(300)), max_in_flight=20).result())

        main()
        """
    )
    program.run_and_be_killed()
    recorded = {
        int(str(value)) for (value,) in rows("SELECT json_extract(inputs, '$.number') FROM tasks WHERE state = 'COMPLETED'")
    }
    before = (program.folder / "effects.txt").read_text().split()
    assert len(recorded) >= 80
    assert max(map(int, before)) < 160
    answer = program.python("-c", RESUME_LAST).out.strip()
    assert answer == str(sum(2 * number for number in range(300)))
    again = list(map(int, (program.folder / "effects.txt").read_text().split()[len(before) :]))
    assert recorded.isdisjoint(again)
    assert sorted(recorded | set(again)) == list(range(300))


RESUME_LAST = """
from wfengine import use_journal
from wfengine.recovery import find_run_id, resume_run
journal = use_journal(None)
print(resume_run(journal, find_run_id(journal, "@last")).result())
"""


# Lengths


def test_an_iterator_beside_a_list_is_read_to_one_item_more(rows: Rows) -> None:
    @task
    def pair(left: int, right: str) -> tuple[int, str]:
        return left, right

    taken: list[int] = []
    numbers = (taken.append(number) or number for number in itertools.count())  # type: ignore[func-returns-value]

    @flow
    def main() -> list[tuple[int, str]]:
        with pytest.raises(MappingLengthMismatch, match=r"left: more than 2, right: 2\)\. Every"):
            pair.map(numbers, ["a", "b"])
        return pair.map(iter([1, 2]), ["a", "b"]).result()

    assert main() == [(1, "a"), (2, "b")]
    assert taken == [0, 1, 2]
    assert rows.value("SELECT count(*) FROM tasks") == 2


def test_iterators_that_end_apart_are_an_error_that_says_how_many_were_submitted(rows: Rows) -> None:
    @task
    def pair(left: int, right: int) -> int:
        return left + right

    @flow
    def main() -> None:
        with pytest.raises(MappingLengthMismatch, match=r"left: more than 2, right: 2\)\. The first 2 were submitted\. Every"):
            pair.map(itertools.count(), right=iter([1, 2]))

    main()
    assert rows.value("SELECT count(*) FROM tasks") == 2


# Options


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "many"])
def test_nonsense_is_refused_before_anything_is_submitted(wrong: object, rows: Rows) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    @flow
    def main() -> None:
        with pytest.raises(UsageError, match="task 'double': max_in_flight must be a whole number, at least 1"):
            double.map([1], max_in_flight=wrong)  # type: ignore[call-overload]

    main()
    assert rows.value("SELECT count(*) FROM tasks") == 0
    for kind in (ThreadTaskRunner, ProcessTaskRunner):
        with pytest.raises(UsageError, match=f"{kind.__name__}: max_in_flight must be"):
            kind(max_in_flight=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [DaskTaskRunner, RayTaskRunner])
def test_the_runners_of_clusters_take_the_same_limit(kind: Callable[..., ThreadTaskRunner]) -> None:
    assert kind(max_in_flight=9).max_in_flight == 9
    with pytest.raises(UsageError, match=f"{kind.__name__}: max_in_flight must be"):
        kind(max_in_flight=0)
    if kind is RayTaskRunner:  # that of Dask takes nothing along to a worker
        assert pickle.loads(pickle.dumps(kind(max_in_flight=9))).max_in_flight == 9


@pytest.mark.parametrize("kind", [ThreadTaskRunner, ProcessTaskRunner])
def test_a_runner_keeps_its_limits_where_it_is_pickled(kind: Callable[..., ThreadTaskRunner]) -> None:
    made = pickle.loads(pickle.dumps(kind(3, max_in_flight=9)))
    assert (type(made), made.max_workers, made.max_in_flight) == (kind, 3, 9)
    assert pickle.loads(pickle.dumps(kind(3))).max_in_flight is None


# In other processes


def test_maps_in_processes_are_held_up_in_the_flow_and_on_a_worker(program: Program) -> None:
    program.write(
        """
        from wfengine.runners.processes import ProcessTaskRunner

        @task
        def double(number):
            return number * 2

        @task
        def nested(numbers):
            return sum(double.map(iter(range(numbers)), max_in_flight=2).result())

        @flow(task_runner=ProcessTaskRunner(1, max_in_flight=3))
        def main():
            return nested.map((number for number in range(8)), max_in_flight=2).result()

        if __name__ == "__main__":
            print(main())
        """
    )
    assert program.run().out.strip() == str([number * (number - 1) for number in range(8)])
