"""Generators as tasks and flows: items are recorded one by one, and the consumer sees each once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import State, flow, task
from wfengine.states import Failed
from wfengine_journal.errors import TaskTimeoutError, ValueNotStorableError


@task
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@task
async def numbers_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def test_a_generator_task_hands_out_its_items_as_it_yields_them(rows: Rows) -> None:
    seen: list[object] = []

    @task
    def talk() -> Iterator[str]:
        seen.append("first made")
        yield "a"
        seen.append("second made")
        yield "b"

    @flow
    def work() -> list[str]:
        got = []
        for item in talk():
            seen.append((item, rows.value("SELECT count(*) FROM item"), rows.value("SELECT state FROM tasks")))
            got.append(item)
        return got

    assert work() == ["a", "b"]
    assert seen == ["first made", ("a", 1, "RUNNING"), "second made", ("b", 2, "RUNNING")]
    assert rows("SELECT state, state_name, attempts FROM tasks") == [("COMPLETED", "Completed", 1)]
    assert rows("SELECT task_run_id, key, value FROM item ORDER BY key") == [(1, 0, '"a"'), (1, 1, '"b"')]


def test_async_generator_tasks_and_flows_and_what_they_return(rows: Rows) -> None:
    @task
    def total() -> Iterator[int]:
        yield 1
        return "the end"

    @flow
    async def squares(count: int) -> AsyncIterator[int]:
        async for number in numbers_async(count):
            yield number * number

    @flow
    def outer() -> object:
        result = yield from total()
        yield result

    async def consume() -> list[int]:
        return [item async for item in squares(4)]

    assert asyncio.run(consume()) == [0, 1, 4, 9]
    assert list(outer()) == [1, "the end"]  # type: ignore[call-overload]  # a generator function without annotations
    assert rows("SELECT state FROM runs") == [("COMPLETED",)] * 2
    assert rows.value("SELECT result FROM tasks WHERE task = 'total'") == '"the end"'


def test_a_generator_flow_starts_at_its_first_item(rows: Rows) -> None:
    @flow
    def work(count: int) -> Iterator[int]:
        for number in numbers(count):
            yield number * 10

    items = work(3)
    assert rows.value("SELECT count(*) FROM runs") == 0
    assert next(items) == 0
    assert rows.state() == ("RUNNING", "Running")
    assert list(items) == [10, 20]
    assert rows.state() == ("COMPLETED", "Completed")


def test_generators_nest_as_subflows(rows: Rows) -> None:
    @flow
    def inner(count: int) -> Iterator[int]:
        yield from numbers(count)

    @flow
    def outer() -> int:
        return sum(inner(5))

    assert outer() == 10
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [("outer", "COMPLETED"), ("inner", "COMPLETED")]
    assert rows.value("SELECT count(*) FROM item WHERE flow_run_id = 2 AND task_run_id = 0") == 5


def test_submitted_and_mapped_generators_give_lists(rows: Rows) -> None:
    @flow
    def work() -> list[object]:
        state = numbers(2, return_state=True)
        return [numbers.submit(3).result(), numbers.map([1, 2]).result(), numbers_async.submit(2).result(), state.result()]

    assert work() == [[0, 1, 2], [[0], [0, 1]], [0, 1], [0, 1]]
    assert rows.value("SELECT count(*) FROM item") == 0


def test_a_generator_task_outside_of_a_flow_is_a_run_of_its_own(rows: Rows) -> None:
    assert list(numbers(3)) == [0, 1, 2]
    assert rows("SELECT flow, state FROM runs") == [("numbers", "COMPLETED")]

    async def consume() -> list[int]:
        return [item async for item in numbers_async(2)]

    assert asyncio.run(consume()) == [0, 1]


def test_return_state_of_a_generator_flow_runs_it_to_its_end(rows: Rows) -> None:
    @flow
    def work() -> Iterator[int]:
        yield 1
        yield 2

    state = work(return_state=True)
    assert state.is_completed()
    assert rows.value("SELECT count(*) FROM item") == 2


def test_an_error_comes_where_it_was_raised_and_fails_the_flow(rows: Rows) -> None:
    @task
    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("after one")

    @flow
    def work() -> list[int]:
        got = []
        try:
            for item in breaks():
                got.append(item)  # noqa: PERF402 - what came before the error counts
        except ValueError as error:
            got.append(len(str(error)))
        return got

    assert work() == [1, 9]
    assert rows("SELECT state, error FROM tasks") == [("FAILED", "ValueError: after one")]


def test_a_retried_stream_goes_on_after_the_items_that_were_given(rows: Rows, clock: FakeClock) -> None:
    made: list[int] = []

    @task(retries=1, retry_delay_seconds=30)
    def shaky() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if len(made) == 3:
                raise ConnectionError("lost")
            yield number

    @flow
    def work() -> list[int]:
        return list(shaky())

    assert work() == [0, 1, 2, 3]
    assert made == [0, 1, 2, 0, 1, 2, 3]
    assert sum(clock.slept) == 30
    assert rows.value("SELECT count(*) FROM item") == 4


def test_a_break_closes_the_stream_and_runs_its_cleanup(rows: Rows) -> None:
    seen: list[str] = []

    @task
    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            seen.append("cleaned up")

    @flow
    def work() -> int:
        for number in endless():
            if number == 3:
                break
        return number

    assert work() == 3
    assert seen == ["cleaned up"]
    assert rows("SELECT state, state_name FROM tasks") == [("COMPLETED", "Closed")]


def test_an_async_stream_is_closed_too(rows: Rows) -> None:
    @flow
    async def work() -> int:
        items = numbers_async(10)
        async for number in items:
            if number == 2:
                break
        await items.aclose()  # type: ignore[attr-defined]  # an async generator
        return number

    assert asyncio.run(work()) == 2
    assert rows("SELECT state, state_name FROM tasks") == [("COMPLETED", "Closed")]


def test_the_time_limit_counts_the_generators_own_time(rows: Rows, clock: FakeClock) -> None:
    @task(timeout_seconds=1.0)
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)
        yield 2

    @flow
    async def work() -> list[int]:
        got = []
        try:
            async for item in slow():
                got.append(item)  # noqa: PERF401 - what came before the limit counts
        except TaskTimeoutError:
            got.append(-1)
        return got

    assert asyncio.run(work()) == [1, -1]
    assert rows("SELECT state_name FROM tasks") == [("TimedOut",)]


def test_an_item_that_cannot_be_stored_fails_the_stream(rows: Rows) -> None:
    @task
    def leaks() -> Iterator[object]:
        yield 1
        yield (item for item in ())

    @flow
    def work() -> State[object]:
        try:
            list(leaks())
        except ValueNotStorableError as error:
            return Failed(message=str(error)[:4])
        raise AssertionError

    assert not work(return_state=True).is_completed()
    assert rows.value("SELECT count(*) FROM item") == 1


def test_hooks_of_a_stream_are_called_at_its_end(rows: Rows) -> None:
    seen: list[str] = []

    @task(on_completion=[lambda _task, _run, state: seen.append(state.name)])
    def two() -> Iterator[int]:
        yield 1
        seen.append("between")
        yield 2

    @flow
    def work() -> int:
        return sum(two())

    assert work() == 3
    assert seen == ["between", "Completed"]


KILLED = """
@task
def read(count):
    for number in range(count):
        note(f"made:{number}")
        if number == 3 and first_time():
            kill()
        yield number

@task
def store(number):
    note(f"stored:{number}")

@flow
def work():
    for number in read(5):
        store(number)

if __name__ == "__main__":
    work()
"""

KILLED_ASYNC = KILLED.replace("def read", "async def read").replace("def work", "async def work").replace("for number in read",
    "async for number in read").replace("    work()", "    asyncio.run(work())")  # fmt: skip

KILLED_SUBFLOW = KILLED.replace("@flow\ndef work", "@flow\ndef pump():\n    yield from read(5)\n\n@flow\ndef work").replace(
    "in read(5):", "in pump():"
)


@pytest.mark.parametrize("text", [KILLED, KILLED_ASYNC, KILLED_SUBFLOW], ids=["sync", "async", "subflow"])
def test_a_killed_stream_goes_on_and_each_item_is_stored_once(program: Program, rows: Rows, text: str) -> None:
    program.write(text)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert [effect for effect in program.effects if effect.startswith("stored")] == [f"stored:{n}" for n in range(5)]
    made = [effect for effect in program.effects if effect.startswith("made")]
    assert made == [f"made:{n}" for n in (0, 1, 2, 3, 0, 1, 2, 3, 4)]
    assert rows.value("SELECT count(*) FROM item WHERE task_run_id <> 0") == 5


def test_a_completed_stream_is_replayed_from_the_file(program: Program) -> None:
    program.write(KILLED.replace("number == 3 and first_time()", "False").replace(
        "        store(number)", "        store(number)\n    if first_time():\n        kill()"))  # fmt: skip
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert len(program.effects) == 10


def test_a_stream_that_was_closed_goes_on_when_edited_code_asks_for_more(program: Program) -> None:
    text = KILLED.replace("number == 3 and first_time()", "False").replace(
        "        store(number)", "        store(number)\n        if number == LAST:\n            break\n    store(100)\n"
        "    if first_time():\n        raise ValueError('mend me')")  # fmt: skip
    program.write(text.replace("LAST", "1"))
    assert program.run().code == 1
    program.write(text.replace("LAST", "3"))
    assert program.resume()["state"] == "COMPLETED"
    stored = [effect for effect in program.effects if effect.startswith("stored")]
    assert stored == ["stored:0", "stored:1", "stored:100", "stored:2", "stored:3"]


def test_a_failed_stream_runs_again_on_resume_and_keeps_what_it_gave(program: Program) -> None:
    program.write(KILLED.replace("kill()", "raise ValueError('mend me')"))
    assert program.run().code == 1
    assert program.resume()["state"] == "COMPLETED"
    assert [effect for effect in program.effects if effect.startswith("stored")] == [f"stored:{n}" for n in range(5)]


def test_items_that_do_not_fit_a_row_come_back_whole(rows: Rows) -> None:
    @task
    def pages() -> Iterator[str]:
        yield "a" * 5000
        yield "b"

    @flow
    def work() -> list[int]:
        return [len(page) for page in pages()]

    assert work() == [5000, 1]
    assert rows("SELECT value IS NULL FROM item ORDER BY key") == [(1,), (0,)]


@pytest.mark.parametrize("make", [lambda: numbers, lambda: numbers_async])
def test_a_generator_that_is_never_asked_leaves_no_row(rows: Rows, make: Callable[[], Callable[[int], object]]) -> None:
    @flow
    def work() -> None:
        make()(3)

    work()
    assert rows.value("SELECT count(*) FROM tasks") == 0
