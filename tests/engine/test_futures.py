"""Futures: what they tell, what waits for them, and what becomes of a call whose input failed."""

from __future__ import annotations

import ast
import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from wfengine import State, TaskFuture, TaskFutureList, allow_failure, as_completed, flow, task, wait
from wfengine.annotations import opaque, quote
from wfengine.exceptions import UsageError
from wfengine.futures import (
    DoneAndNotDoneFutures,
    PrefectConcurrentFuture,
    PrefectFuture,
    PrefectFutureList,
    resolve_futures_to_results,
    resolve_futures_to_states,
)
from wfengine.states import Completed, Failed

if TYPE_CHECKING:
    from conftest import FakeClock, Program, Rows

#: Seconds after which a thread counts as hanging.
PATIENCE = 60.0


@task
def double(number: int) -> int:
    return number * 2


@task
def fail(text: str = "broken") -> int:
    raise ValueError(text)


@task
def describe(value: object) -> str:
    return repr(value)


class Gate:
    """Tasks that end when they are told to."""

    def __init__(self) -> None:
        self.events = [threading.Event() for _ in range(4)]

        @task
        def gated(number: int) -> int:
            assert self.events[number].wait(PATIENCE)
            return number

        self.task = gated


# What a future tells


def test_a_future_tells_its_state_and_its_row(rows: Rows) -> None:
    gate = Gate()

    @flow
    def program() -> list[object]:
        future = gate.task.submit(0)
        before = future.done(), future.state.is_final()
        gate.events[0].set()
        assert future.wait()
        state = future.state
        return [before, future.done(), state.name, state.task_run_id == future.task_run_id, future.result()]

    assert program() == [(False, False), True, "Completed", True, 0]
    assert rows.value("SELECT id FROM tasks") == 1


def test_a_result_that_takes_too_long_is_given_up_and_can_be_had_later(clock: FakeClock) -> None:
    gate = Gate()

    @flow
    def program() -> int:
        future = gate.task.submit(0)
        assert future.wait(0.001) is False
        with pytest.raises(TimeoutError, match=r"task run.* was not finished after 0.001 s"):
            future.result(timeout=0.001)
        gate.events[0].set()
        return future.result()

    assert program() == 0


def test_a_failure_is_raised_or_returned_as_asked() -> None:
    @flow
    def program() -> object:
        future = fail.submit()
        with pytest.raises(ValueError, match="broken"):
            future.result()
        assert future.state.is_failed()
        return type(future.result(raise_on_failure=False)).__name__

    assert program() == "ValueError"


def test_callbacks_are_called_once_also_when_it_is_settled_already() -> None:
    heard: list[int] = []

    @flow
    def program() -> None:
        future = double.submit(1)
        future.add_done_callback(lambda done: heard.append(done.result()))
        future.wait()
        future.add_done_callback(lambda done: heard.append(done.result() + 1))

    program()
    assert heard == [2, 3]


def test_a_future_is_awaited_where_a_loop_runs() -> None:
    @task
    async def soon(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @flow
    async def program() -> list[object]:
        first, second = double.submit(1), soon.submit(2)
        return [await first, await second, await soon.submit(second), await soon(first)]

    assert asyncio.run(program()) == [2, 2, 2, 2]


def test_prefects_names_are_those_of_ours() -> None:
    assert PrefectFuture is PrefectConcurrentFuture is TaskFuture
    assert PrefectFutureList is TaskFutureList
    assert PrefectFuture[int]


# Lists


def chunk_data(data: list[object], size: int) -> list[list[object]]:
    """A helper as users write it."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_slices_and_sums_of_a_list_of_futures_are_lists_of_futures_too() -> None:
    @task
    def total(numbers: list[int]) -> int:
        assert type(numbers) is list
        return sum(numbers)

    @flow
    def program() -> list[object]:
        futures = double.map(range(5))
        chunks = chunk_data(futures, 2)  # type: ignore[arg-type]
        assert [type(chunk) for chunk in chunks] == [TaskFutureList] * 3
        both = futures[:1] + futures[-1:]
        both.wait()
        return [
            total.map(chunks).result(), [total(chunk) for chunk in chunks], both.result(), futures.copy().result(),
            sorted(future.result() for future in futures), len(futures[1:2]), (futures + futures[:1]).result()[-1],
        ]  # fmt: skip

    assert program() == [[2, 10, 8], [2, 10, 8], [0, 8], [0, 2, 4, 6, 8], [0, 2, 4, 6, 8], 1, 0]


def test_the_results_of_a_list_have_one_time_limit_for_all(clock: FakeClock) -> None:
    gate = Gate()

    @flow
    def program() -> list[int]:
        futures = gate.task.map([0, 1])
        with pytest.raises(TimeoutError):
            futures.result(timeout=0.001)
        futures.wait(timeout=0.001)
        for event in gate.events:
            event.set()
        return futures.result(timeout=PATIENCE)

    assert program() == [0, 1]


def test_failures_stand_in_a_list_of_results_where_they_are_asked_for() -> None:
    @flow
    def program() -> list[str]:
        futures = TaskFutureList([double.submit(1), fail.submit("one"), fail.submit("two")])
        with pytest.raises(ValueError, match="one"):
            futures.result()
        return [repr(result) for result in futures.result(raise_on_failure=False)]

    assert program() == ["2", "ValueError('one')", "ValueError('two')"]


# Waiting for many


def test_wait_tells_what_is_settled_and_what_is_not(clock: FakeClock) -> None:
    gate = Gate()

    @flow
    def program() -> tuple[int, int]:
        futures = [gate.task.submit(0), gate.task.submit(1)]
        gate.events[1].set()
        futures[1].wait()
        answer = wait([*futures, futures[0]], timeout=0.001)
        assert isinstance(answer, DoneAndNotDoneFutures)
        assert answer == ({futures[1]}, {futures[0]})
        gate.events[0].set()
        done, not_done = wait(futures)
        return len(done), len(not_done)

    assert program() == (2, 0)


def test_as_completed_gives_each_future_once_and_keeps_its_time_limit(clock: FakeClock) -> None:
    gate = Gate()

    @flow
    def program() -> list[int]:
        futures = [gate.task.submit(number) for number in range(2)]
        gate.events[1].set()
        found = as_completed([*futures, *futures], timeout=0.5)
        first = next(found).result()
        clock.now += 1
        with pytest.raises(TimeoutError, match="Not all of 2 task runs"):
            next(found)
        gate.events[0].set()
        return [first, *(future.result() for future in as_completed(futures[:1]))]

    assert program() == [1, 0]


def test_structures_of_futures_are_resolved_by_hand() -> None:
    @flow
    def program() -> list[object]:
        futures = double.map([1, 2])
        states = resolve_futures_to_states({"a": futures, "b": (quote(futures[0]), 5)})
        assert isinstance(states, dict)
        assert type(states["a"]) is list
        assert all(isinstance(state, State) for state in states["a"])
        assert states["b"] == (quote(futures[0]), 5)
        with pytest.raises(ValueError, match="broken"):
            resolve_futures_to_results([fail.submit()])
        plain = [1]
        assert resolve_futures_to_results(plain) is plain
        return [resolve_futures_to_results({"x": [futures, 7]}), [state.data for state in states["a"]]]

    assert program() == [{"x": [[2, 4], 7]}, [2, 4]]


# Futures and states among arguments


def test_marks_say_how_a_future_is_passed_on(rows: Rows) -> None:
    @task
    def kind(value: object) -> str:
        return type(value).__name__

    @flow
    def program() -> list[str]:
        future = double.submit(1)
        nested = {"a": [future]}
        return [
            *[kind(value) for value in (future, quote(future), opaque(future), nested, opaque([1]), allow_failure(future))],
            *[kind.submit(value).result() for value in (future, quote(future), opaque(future), quote([future]))],
        ]

    assert program() == ["int", "TaskFuture", "int", "dict", "list", "int", "int", "TaskFuture", "int", "list"]
    # The marks are in no row: what the task saw is what the journal has.
    inputs = [str(shown) for (shown,) in rows("SELECT inputs FROM tasks WHERE task = 'kind' ORDER BY id")]
    assert inputs[0] == inputs[2] == inputs[5] == '{"value":2}'
    assert "opaque" not in "".join(inputs)


def test_a_mark_is_no_part_of_the_identity_of_a_call(program: Program, rows: Rows) -> None:
    text = """
        from wfengine.annotations import opaque, quote
        from wfengine import allow_failure, unmapped

        @task
        def load(value):
            note(f"load-{value}")
            return value

        @flow
        def main():
            values = [load(FIRST), load.submit(SECOND).result(), load.map([3, 4], wait_for=None).result()]
            kill()
    """
    program.write(text.replace("FIRST", "quote([1])").replace("SECOND", "2") + "\n        main()\n")
    program.run_and_be_killed()
    edited = text.replace("FIRST", "[1]").replace("SECOND", "opaque(2)").replace("kill()", "return values")
    program.write(edited + "\n        main()\n")
    assert program.resume()["result"] == "[[1], 2, [3, 4]]"
    assert sorted(program.effects) == ["load-2", "load-3", "load-4", "load-[1]"]


def test_big_plain_data_is_given_to_the_task_itself_and_not_copied() -> None:
    seen: list[int] = []

    @task
    def look(data: object) -> None:
        seen.append(id(data))

    @flow
    def program() -> list[int]:
        data = {"rows": [[number, "text"] for number in range(1000)]}
        look(data)
        look(quote(data))
        look.submit(data).wait()
        return [id(data)] * 3

    assert program() == seen


def test_states_stand_for_their_results_in_flows_and_subflows_too() -> None:
    @flow
    def child(number: int, more: list[int]) -> int:
        return number + sum(more)

    @flow
    def parent() -> int:
        future = double.submit(5)
        return child(future, [future, double(1, return_state=True)], wait_for=[future])  # type: ignore[arg-type,call-overload,no-any-return]

    assert parent() == 22
    assert child(Completed(data=1), more=[Completed(data=2)]) == 3  # type: ignore[arg-type,list-item]
    with pytest.raises(ValueError, match="no"):
        child(1, [Failed(data=ValueError("no"))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no"):
        child(1, [], wait_for=Failed(data=ValueError("no")))  # type: ignore[call-overload]
    assert child(1, [], wait_for=[allow_failure(Failed(data=ValueError("no")))]) == 1  # type: ignore[call-overload]


def test_an_async_subflow_waits_for_futures_without_stopping_the_loop() -> None:
    @task
    async def soon(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @flow
    async def child(number: int) -> int:
        return number + 1

    @task
    async def calls_a_flow() -> int:
        return await child(soon.submit(1))  # type: ignore[arg-type]

    @flow
    async def parent() -> list[int]:
        return [await child(soon.submit(5)), await calls_a_flow.submit()]  # type: ignore[arg-type]

    assert asyncio.run(parent()) == [6, 2]


def test_a_generator_waits_for_its_inputs_too() -> None:
    @task
    def count(upto: int) -> object:
        yield from range(upto)

    @task
    async def count_async(upto: int) -> object:
        for number in range(upto):
            yield number

    @flow
    async def program() -> list[object]:
        upto = double.submit(1)
        return [list(count(upto)), [number async for number in count_async(upto)], await count.submit(upto)]  # type: ignore[attr-defined,call-overload]

    assert asyncio.run(program()) == [[0, 1]] * 3


# What waits for something that failed


def test_a_call_whose_input_failed_does_not_run_and_has_a_row_that_says_why(rows: Rows) -> None:
    @flow
    def program() -> list[object]:
        failed = fail.submit()
        future = describe.submit([failed])
        second = describe.submit(future)
        future.wait()
        with pytest.raises(ValueError, match="broken"):
            second.result()
        state, later = future.state, second.state
        return [state.type.value, state.name, state.message, later.name, later.message, state.task_run_id]

    assert program() == [
        "PENDING",
        "NotReady",
        "did not begin: task run 1 of task 'fail' did not complete",
        "NotReady",
        "did not begin: task run 1 of task 'fail' did not complete",
        2,
    ]
    assert rows("SELECT task, state, state_name, message, attempts, started_at FROM tasks") == [
        ("fail", "FAILED", "Failed", None, 1, rows.value("SELECT started_at FROM tasks WHERE id = 1")),
        ("describe", "PENDING", "NotReady", "did not begin: task run 1 of task 'fail' did not complete", 0, None),
        ("describe", "PENDING", "NotReady", "did not begin: task run 1 of task 'fail' did not complete", 0, None),
    ]
    assert "task run 1 of 'fail'" in str(rows.value("SELECT inputs FROM tasks WHERE id = 2"))
    assert rows("SELECT state_name FROM history WHERE task_id = 2") == [("NotReady",)]


def test_direct_calls_raise_what_their_input_raised_or_give_the_state(rows: Rows) -> None:
    @flow
    def child(value: object) -> None:
        raise AssertionError

    @task
    async def describe_async(value: object) -> str:
        raise AssertionError

    @flow
    async def program() -> list[str]:
        failed = fail.submit()
        names = []
        for call in (describe, child):
            with pytest.raises(ValueError, match="broken"):
                call(failed)
            names.append(call(failed, return_state=True).name)
        with pytest.raises(ValueError, match="broken"):
            await describe_async(failed)
        names.append((await describe_async(1, wait_for=[failed], return_state=True)).name)  # type: ignore[call-overload]
        return names

    assert asyncio.run(program()) == ["NotReady"] * 3
    assert rows("SELECT task, count(*) FROM tasks GROUP BY task, state_name ORDER BY task") == [
        ("describe", 2), ("describe_async", 2), ("fail", 1),
    ]  # fmt: skip
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_every_submitted_call_has_a_row_whatever_becomes_of_it(rows: Rows) -> None:
    @task
    def some_fail(number: int) -> int:
        if number % 3 == 0:
            raise ValueError(number)
        return number

    @flow
    def program() -> None:
        first = some_fail.map(range(30))
        describe.map(first)
        describe.map(range(30), wait_for=first)
        describe.map(allow_failure(first))

    program()
    assert rows("SELECT state_name, count(*) FROM tasks GROUP BY state_name ORDER BY state_name") == [
        ("Completed", 20 + 20 + 30), ("Failed", 10), ("NotReady", 10 + 30),
    ]  # fmt: skip
    assert rows("SELECT tasks_done, tasks_total FROM runs") == [(70, 120)]


def test_allow_failure_gives_the_exception_and_wait_for_only_waits() -> None:
    @flow
    def program() -> list[object]:
        failed, fine = fail.submit(), double.submit(1)
        not_ready = describe.submit(failed)
        return [
            describe(allow_failure(failed)),
            describe.submit({"a": allow_failure([failed, fine])}).result(),
            describe.submit(1, wait_for=[allow_failure(failed)]).result(),
            describe.submit(2, wait_for=allow_failure(failed)).result(),
            describe(allow_failure(not_ready)),
            describe.map(allow_failure([failed, fine])).result(),
            describe(allow_failure(fail(return_state=True))),
        ]

    broken = "ValueError('broken')"
    assert program() == [broken, f"{{'a': [{broken}, 2]}}", "1", "2", broken, [broken, "2"], broken]


def test_wait_for_takes_one_many_or_nested_and_what_is_no_future() -> None:
    order: list[str] = []

    @task
    def noted(text: str) -> str:
        order.append(text)
        return text

    @flow
    def program() -> None:
        first = noted.submit("first")
        noted.submit("second", wait_for=first).wait()
        noted.submit("third", wait_for=[[first], {"a": first}, 5, None]).wait()
        noted("fourth", wait_for=(future for future in [first]))  # type: ignore[call-overload]

    program()
    assert order == ["first", "second", "third", "fourth"]


def test_a_flow_that_returns_what_did_not_begin_fails_with_the_cause(program: Program) -> None:
    program.write(
        """
        @task
        def extract():
            if first_time():
                raise ValueError("no network")
            return 5

        @task
        def load(value):
            note(f"load-{value}")
            return value

        @flow
        def main():
            return load.submit(extract.submit())

        main()
        """
    )
    done = program.run()
    assert "ValueError: no network" in done.err
    # What it waited for was fatal, so a resume runs it again; then the call begins, in the row it has.
    assert program.resume()["result"] == "5"
    assert program.effects == ["load-5"]


RESUMED = """
    @task
    def extract(number):
        note(f"extract-{number}")
        if number and not (HERE / "mended").exists():
            raise ValueError(number)
        return number * 10

    @task
    def load(value, more=0):
        note(f"load-{value}")
        return value

    @flow
    def child(value):
        return load(value, 1)

    @flow
    def main():
        extracted = extract.map(range(3))
        loaded = load.map(extracted, more=unmapped([1]))
        waiting = load.map([7, 8], wait_for=[extracted[1]])
        direct = [load(future, 2, return_state=True) for future in extracted]
        below = [child(future, return_state=True) for future in extracted]
        for futures in (loaded, waiting):
            futures.wait()
        STOP
        return [*loaded, *waiting, *direct, *below]

    main()
"""
ROWS = "SELECT task, id, state_name, inputs, occurrence FROM tasks ORDER BY id"


def test_calls_that_did_not_begin_have_their_own_rows_when_they_can(program: Program, rows: Rows) -> None:
    text = "from wfengine import unmapped\n" + RESUMED.replace("\n    ", "\n")
    program.write(text.replace("STOP", "pass"))
    assert "ValueError" in program.run().err
    before = rows(ROWS)
    assert rows("SELECT state_name, count(*) FROM tasks GROUP BY 1 ORDER BY 1") == [
        ("Completed", 4), ("Failed", 2), ("NotReady", 6),
    ]  # fmt: skip
    (program.folder / "mended").touch()
    answer = program.resume()
    assert answer["result"] == "[0, 10, 20, 7, 8, 0, 10, 20, 0, 10, 20]", answer
    after = rows(ROWS)
    assert [row[:2] for row in after if row[0] == "extract" or row[1] in {other[1] for other in before}] == [
        row[:2] for row in before
    ], "every row is that of the same call"
    # A subflow's task has a row when it is called, and that is all that is new.
    assert len(after) == len(before) + 2
    assert {row[2] for row in after} == {"Completed"}
    inputs = dict(zip((row[1] for row in before), (row[3] for row in after), strict=False))
    assert {inputs[row[1]] for row in before if row[2] == "NotReady"} == {
        '{"more":[1],"value":10}', '{"more":[1],"value":20}', '{"more":0,"value":7}', '{"more":0,"value":8}',
        '{"more":2,"value":10}', '{"more":2,"value":20}',
    }  # fmt: skip
    assert rows("SELECT count(*) FROM orphans") == [(0,)]
    assert sorted(program.effects) == sorted(
        ["extract-0", "extract-1", "extract-2", "extract-1", "extract-2", "load-7", "load-8"]
        + 3 * ["load-0", "load-10", "load-20"]
    )


def test_chains_below_a_failure_have_their_own_rows_when_they_can_begin(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def extract():
            if first_time():
                raise ValueError("no network")
            return 5

        @task
        def add(value, more=1, *, other=None):
            note(f"add-{value}-{more}")
            return value + more

        @flow
        def main():
            state = extract(return_state=True)
            first = add.submit(state)
            second = add.submit(first, more=first)
            third = add.submit(2, wait_for=[[second], state])
            return [add.submit(third, other=[second, {"a": first}]), add(third, return_state=True), state]

        main()
        """
    )
    program.run()
    before = rows("SELECT id, state_name FROM tasks")
    assert [name for _, name in before] == ["Failed"] + ["NotReady"] * 5
    assert program.resume()["result"] == "[4, 4, 5]"
    assert rows("SELECT id, state_name FROM tasks") == [(number, "Completed") for number, _ in before]
    assert sorted(program.effects) == ["add-2-1", "add-3-1", "add-3-1", "add-5-1", "add-6-6"]


def test_calls_that_did_not_begin_are_not_written_twice_by_a_recovery(program: Program, rows: Rows) -> None:
    text = "from wfengine import unmapped\n" + RESUMED.replace("\n    ", "\n")
    text = "from wfengine.journals import default_journal\n" + text
    program.write(text.replace("STOP", "default_journal().flush(); kill()"))  # nobody waits for the rows of what did not begin
    program.run_and_be_killed()
    before = rows(ROWS)
    assert [row[2] for row in before].count("NotReady") == 6
    program.write(text.replace("STOP", "return [state.name for state in [*direct, *below]]"))
    # A crash recovery replays failures as they were, so the same calls wait for the same failures.
    assert program.resume(recovery=True)["result"] == repr(["Completed", "NotReady", "NotReady"] * 2)
    assert rows(ROWS) == before
    assert len(program.effects) == 3 + 3


def test_one_that_fails_again_keeps_its_row_and_takes_no_other_ones(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def extract(number):
            if number == 1 or not (HERE / "mended").exists():
                raise ValueError(number)
            return number

        @task
        def load(value):
            return value

        @flow
        def main():
            loaded = load.map(extract.map([1, 2]))
            return loaded

        main()
        """
    )
    program.run()
    before = {message: number for number, message in rows("SELECT id, message FROM tasks WHERE state_name = 'NotReady'")}
    first, second = (f"did not begin: task run {number} of task 'extract' did not complete" for number in (1, 2))
    assert before.keys() == {first, second}
    (program.folder / "mended").touch()
    program.resume()
    assert set(rows("SELECT id, state_name, message FROM tasks WHERE task = 'load'")) == {
        (before[first], "NotReady", first), (before[second], "Completed", None),
    }  # fmt: skip
    assert rows("SELECT count(*) FROM tasks") == [(4,)]


RECOVER = """
from wfengine import use_journal
from wfengine.recovery import resume_run
resume_run(use_journal(None), 1, recovery=True)
"""


def test_those_that_did_not_begin_have_their_place_in_the_order_of_completion(program: Program) -> None:
    program.write(
        """
        @task
        def work(number):
            if number == 1:
                raise ValueError(number)
            return number

        @task
        def after(number):
            return number

        @flow
        def main():
            first = work.map(range(3))
            names = []
            for future in as_completed([*first, *after.map(first)]):
                names.append((future.call.callee.name, future.task_run_id))
            note(repr(names).replace(" ", ""))
            if first_time("once") or first_time("twice"):
                kill()
            return names

        main()
        """
    )
    program.run_and_be_killed()
    for _ in range(2):
        program.python("-c", RECOVER)
    first, again, and_again = program.effects
    assert again == and_again
    assert sorted(ast.literal_eval(first)) == sorted(ast.literal_eval(again))


def test_a_task_that_is_given_its_own_future_is_told_so() -> None:
    own: list[TaskFuture[object]] = []

    @task
    def inner(value: object) -> object:
        return value

    @flow
    def child() -> object:
        return inner(own[0])

    @task
    def waits_for_itself(how: str, go: object) -> object:
        assert isinstance(go, threading.Event)
        assert go.wait(PATIENCE)
        calls = {
            "result": lambda: own[0].result(),
            "submit": lambda: inner.submit(own[0]),
            "wait_for": lambda: inner.submit(1, wait_for=own),
            "call": lambda: inner(own[0]),
            "subflow": child,
        }
        return calls[how]()

    @flow
    def program(how: str) -> object:
        go = threading.Event()
        own[:] = [waits_for_itself.submit(how, quote(go))]
        go.set()
        return own[0].result()

    for how in ("result", "submit", "wait_for", "call", "subflow"):
        with pytest.raises(UsageError, match="waits for its own end"):
            program(how)


def test_a_task_is_not_over_before_what_it_submitted_is(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def child(number):
            if first_time():
                kill()
            note(f"child-{number}")
            return number

        @task
        def parent(number):
            child.submit(number)
            return number

        @task
        async def parent_async(number):
            child.submit(number)
            return number

        @flow
        def main():
            return [parent(1), parent_async.submit(2).result()]

        main()
        """
    )
    program.run_and_be_killed()
    # Were the parent recorded before its child, the resumed run would never call the child again.
    assert program.resume()["result"] == "[1, 2]"
    assert [effect for effect in program.effects if effect.startswith("child")] == ["child-1", "child-2"]
    assert rows("SELECT task, state FROM tasks ORDER BY id") == [
        ("parent", "COMPLETED"), ("child", "COMPLETED"), ("parent_async", "COMPLETED"), ("child", "COMPLETED"),
    ]  # fmt: skip


def test_a_failed_child_that_nobody_asked_for_does_not_fail_its_parent(rows: Rows) -> None:
    @task
    def parent() -> str:
        fail.submit()
        return "fine"

    @flow
    def program() -> str:
        return parent()

    assert program() == "fine"
    assert rows("SELECT task, state FROM tasks ORDER BY id") == [("parent", "COMPLETED"), ("fail", "FAILED")]
