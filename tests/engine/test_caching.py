"""Cached tasks: which calls get the result of an earlier one, over runs and processes, and what becomes of the others."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task, unmapped
from wfengine.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, CachePolicy
from wfengine.listeners import Event, add_listener, remove_listener
from wfengine.tasks import exponential_backoff, task_input_hash
from wfengine_journal.errors import UsageError

USES = "SELECT task_id, outcome FROM cache_uses ORDER BY task_id"
STATES = "SELECT id, state, state_name, attempts FROM tasks ORDER BY id"


class Counting:
    """Makes tasks that note each execution."""

    def __init__(self) -> None:
        self.ran: list[object] = []

    def square(self, **options: object):  # type: ignore[no-untyped-def]  # the type of a task is in its options here
        @task(**options)  # type: ignore[call-overload]
        def square(x: object) -> object:
            self.ran.append(x)
            return x * x  # type: ignore[operator]

        return square


@pytest.fixture
def counting() -> Counting:
    return Counting()


def calls(called: Callable[..., object], *arguments: object) -> Callable[[], list[object]]:
    """Return a flow that calls a task once for each argument."""

    @flow
    def each() -> list[object]:
        return [called(argument) for argument in arguments]

    return each


# ---------------------------------------------------------------------------------------------------- when it is asked for


def test_two_equal_calls_in_one_flow_are_two_executions(counting: Counting, rows: Rows) -> None:
    assert calls(counting.square(), 5, 5)() == [25, 25]
    assert counting.ran == [5, 5]
    assert rows(USES) == []


def test_a_policy_lets_the_second_equal_call_have_the_first_result(counting: Counting, rows: Rows) -> None:
    assert calls(counting.square(cache_policy=INPUTS), 5, 5, 6)() == [25, 25, 36]
    assert counting.ran == [5, 6]
    assert rows(STATES) == [(1, "COMPLETED", "Completed", 1), (2, "COMPLETED", "Cached", 0), (3, "COMPLETED", "Completed", 1)]
    assert rows(USES) == [(1, "miss"), (2, "hit"), (3, "miss")]
    assert rows("SELECT source_task_id, source_run_id FROM cache_uses WHERE outcome = 'hit'") == [(1, 1)]


def test_a_hit_goes_from_pending_to_cached_without_an_attempt(counting: Counting, rows: Rows) -> None:
    calls(counting.square(cache_policy=INPUTS), 5, 5)()
    assert rows("SELECT seq, state, state_name, attempt FROM history WHERE task_id = 2") == [
        (1, "PENDING", "Pending", 0),
        (2, "COMPLETED", "Cached", 0),
    ]
    assert rows("SELECT count(*) FROM attempts WHERE task_id = 2") == [(0,)]
    assert rows("SELECT result, message FROM tasks WHERE id = 2") == [("25", "the cached result of task run 1 of flow run 1")]


def test_a_cached_state_is_named_so(counting: Counting) -> None:
    square = counting.square(cache_policy=INPUTS)

    @flow
    def twice() -> list[object]:
        return [
            (state.name, state.type.value, state.result())
            for state in (square(2, return_state=True), square(2, return_state=True))
        ]

    assert twice() == [("Completed", "COMPLETED", 4), ("Cached", "COMPLETED", 4)]


def test_results_are_found_in_later_runs(counting: Counting) -> None:
    each = calls(counting.square(cache_policy=INPUTS), 3, 4)
    assert each() == each() == [9, 16]
    assert counting.ran == [3, 4]


def test_the_old_way_of_prefect_is_cached_too(counting: Counting) -> None:
    each = calls(counting.square(cache_key_fn=task_input_hash, cache_expiration=timedelta(hours=1)), 3, 3)
    assert each() == each() == [9, 9]
    assert counting.ran == [3]


def test_persist_result_on_the_task_caches_within_the_run_only(counting: Counting) -> None:
    each = calls(counting.square(persist_result=True), 3, 3)
    assert each() == each() == [9, 9]
    assert counting.ran == [3, 3]


def test_persist_result_on_the_flow_caches_nothing(counting: Counting) -> None:
    square = counting.square()

    @flow(persist_result=True)
    def twice() -> object:
        return square(3) + square(3)

    assert twice() == 18
    assert counting.ran == [3, 3]


@pytest.mark.parametrize("options", [{"cache_policy": NO_CACHE}, {"cache_policy": NO_CACHE, "persist_result": True}])
def test_no_cache_caches_nothing(counting: Counting, options: dict[str, object]) -> None:
    assert calls(counting.square(**options), 3, 3)() == [9, 9]
    assert counting.ran == [3, 3]


def test_a_result_storage_key_is_a_cache_key(counting: Counting, rows: Rows) -> None:
    each = calls(counting.square(result_storage_key="square-of-{parameters[x]}"), 3, 4)
    assert each() == each() == [9, 16]
    assert counting.ran == [3, 4]
    assert rows("SELECT key FROM cache_entries ORDER BY key") == [("square-of-3",), ("square-of-4",)]


def test_with_options_turns_caching_on_and_off(counting: Counting) -> None:
    cached = counting.square().with_options(cache_policy=INPUTS)
    keyed = cached.with_options(cache_key_fn=lambda context, parameters: "always")
    uncached = keyed.with_options(cache_policy=NO_CACHE)
    assert calls(cached, 1, 1)() == [1, 1]
    assert calls(keyed, 2, 3)() == [4, 4]
    assert calls(uncached, 4, 4)() == [16, 16]
    assert counting.ran == [1, 2, 4, 4]


def test_two_tasks_never_share_a_result_by_a_policy_of_ours(rows: Rows) -> None:
    @task(cache_policy=INPUTS)
    def double(x: int) -> int:
        return x * 2

    @task(cache_policy=INPUTS)
    def triple(x: int) -> int:
        return x * 3

    @flow
    def both() -> tuple[int, int]:
        return double(5), triple(5)

    assert both() == (10, 15)


def test_two_tasks_share_a_result_by_the_key_of_a_function() -> None:
    @task(cache_key_fn=lambda context, parameters: "the report")
    def monday() -> str:
        return "made on monday"

    @task(cache_key_fn=lambda context, parameters: "the report")
    def tuesday() -> str:
        return "made on tuesday"

    @flow
    def week() -> list[str]:
        return [monday(), tuesday()]

    assert week() == ["made on monday", "made on monday"]


# ---------------------------------------------------------------------------------------------------- policies at work


def test_the_flow_s_parameters_and_its_run_tell_calls_apart(counting: Counting) -> None:
    by_parameters = counting.square(cache_policy=FLOW_PARAMETERS)
    by_run = counting.square(cache_policy=RUN_ID)

    @flow
    def two(day: str) -> None:
        by_parameters(2), by_parameters(3)
        by_run(4), by_run(5)

    two("monday"), two("monday"), two("tuesday")
    assert counting.ran == [2, 4, 4, 2, 4]


def test_an_argument_can_be_left_out_of_the_key() -> None:
    ran: list[object] = []

    @task(cache_policy=DEFAULT + INPUTS - "debug")
    def load(path: str, debug: bool) -> str:
        ran.append((path, debug))
        return path

    @flow
    def twice() -> None:
        load("a", debug=True), load("a", debug=False), load("b", debug=False)

    twice()
    assert ran == [("a", True), ("b", False)]


def test_an_edited_helper_changes_the_key_and_a_comment_does_not(program: Program, rows: Rows) -> None:
    text = """
        from wfengine.cache_policies import INPUTS, TASK_SOURCE

        def helper(x):
            return x + 1

        @task(cache_policy=INPUTS + TASK_SOURCE)
        def load(x):
            note(f"load-{x}")
            return helper(x)

        @flow
        def main():
            return load(1)

        main()
    """
    program.write(text)
    assert program.run().code == 0
    program.write(text.replace("return x + 1", "# more\n            return x + 1"))
    assert program.run().code == 0
    assert program.effects == ["load-1"]
    program.write(text.replace("return x + 1", "return x + 2"))
    assert program.run().code == 0
    assert program.effects == ["load-1", "load-1"]
    assert rows("SELECT result FROM runs ORDER BY id") == [("2",), ("2",), ("3",)]


def test_a_policy_of_the_user_s_own_sees_the_call(rows: Rows) -> None:
    seen: list[object] = []

    class ByDay(CachePolicy):
        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):  # type: ignore[no-untyped-def]
            run = task_ctx.task_run
            seen.append((task_ctx.task.name, run.flow_run_id, inputs, flow_parameters, task_ctx.parameters == inputs))
            return f"{inputs['path']} of {flow_parameters['day']}"

    @task(cache_policy=ByDay())
    def load(path: str) -> str:
        return path

    @flow
    def etl(day: str) -> None:
        load("a"), load("a")

    etl("monday")
    assert seen == [("load", 1, {"path": "a"}, {"day": "monday"}, True)] * 2
    assert rows("SELECT DISTINCT key FROM cache_uses") == [("a of monday",)]


def test_a_policy_may_leave_single_calls_uncached(counting: Counting, rows: Rows) -> None:
    each = calls(counting.square(cache_key_fn=lambda context, parameters: "k" if parameters["x"] > 1 else None), 1, 1, 2, 2)
    assert each() == [1, 1, 4, 4]
    assert counting.ran == [1, 1, 2]
    assert rows(USES) == [(1, "no key"), (2, "no key"), (3, "miss"), (4, "hit")]


def test_an_upstream_result_without_canonical_form_counts_by_its_stored_hash(program: Program) -> None:
    program.write("""
        from wfengine.cache_policies import INPUTS

        class Model:
            def __init__(self, weight):
                self.weight = weight

        @task
        def train(weight):
            return Model(weight)

        @task(cache_policy=INPUTS)
        def score(model):
            note(f"score-{model.weight}")
            return model.weight * 2

        @flow
        def main():
            return [score(train(1)), score(train(1)), score(train(2))]

        print(main())
    """)
    assert program.run().out.splitlines() == ["[2, 2, 4]"]
    assert program.run().out.splitlines() == ["[2, 2, 4]"]
    assert program.effects == ["score-1", "score-2"]


# ---------------------------------------------------------------------------------------------------- time


def test_an_entry_is_used_until_it_expires(counting: Counting, clock: FakeClock, rows: Rows) -> None:
    each = calls(counting.square(cache_policy=INPUTS, cache_expiration=timedelta(minutes=1)), 3)
    each()
    clock.now += 59
    each()
    clock.now += 1
    each()
    each()
    assert counting.ran == [3, 3]
    assert rows("SELECT outcome, message FROM cache_uses ORDER BY task_id") == [
        ("miss", None),
        ("hit", None),
        ("expired", "the entry was to be used until 2025-06-15T15:07:40.000000Z"),
        ("hit", None),
    ]


def test_refresh_cache_runs_and_replaces_the_entry(counting: Counting, rows: Rows) -> None:
    square = counting.square(cache_policy=INPUTS)
    calls(square, 3)()
    calls(square.with_options(refresh_cache=True), 3, 3)()
    calls(square, 3)()
    assert counting.ran == [3, 3, 3]
    assert rows(USES) == [(1, "miss"), (2, "refreshed"), (3, "refreshed"), (4, "hit")]
    assert rows("SELECT source_task_id FROM cache_uses WHERE task_id = 4") == [(3,)]


# ---------------------------------------------------------------------------------------------------- every way of calling


def test_submitted_and_mapped_tasks_are_cached(counting: Counting, rows: Rows) -> None:
    square = counting.square(cache_policy=INPUTS)

    @flow
    def many() -> list[object]:
        first = square.map([1, 2, 3]).result()
        again = square.map([3, 2, 1, 4]).result()
        future = square.submit(4)
        return [first, again, future.result(), future.state.name]

    assert many() == [[1, 4, 9], [9, 4, 1, 16], 16, "Cached"]
    assert sorted(counting.ran) == [1, 2, 3, 4]  # type: ignore[type-var]
    assert rows("SELECT count(*) FROM tasks WHERE state_name = 'Cached'") == [(4,)]


def test_async_tasks_are_cached_however_they_are_called() -> None:
    ran: list[int] = []

    @task(cache_policy=INPUTS)
    async def square(x: int) -> int:
        ran.append(x)
        await asyncio.sleep(0)
        return x * x

    @flow
    async def many() -> list[object]:
        one = await square(2)
        both = await asyncio.gather(square(2), square(3))
        future = square.submit(3)
        return [one, both, await future, future.state.name]

    assert asyncio.run(many()) == [4, [4, 9], 9, "Cached"]
    assert ran == [2, 3]


def test_a_cached_task_that_calls_tasks_is_answered_as_a_whole(rows: Rows) -> None:
    ran: list[str] = []

    @task
    def part(x: int) -> int:
        ran.append(f"part-{x}")
        return x

    @task(cache_policy=INPUTS)
    def whole(x: int) -> int:
        ran.append(f"whole-{x}")
        return part(x) + part.submit(x + 1).result()

    @flow
    def twice() -> list[int]:
        return [whole(1), whole(1)]

    assert twice() == [3, 3]
    assert ran == ["whole-1", "part-1", "part-2"]
    assert rows("SELECT count(*) FROM tasks") == [(4,)]


def test_a_cached_task_called_in_a_task_and_in_a_subflow_is_cached(counting: Counting) -> None:
    square = counting.square(cache_policy=INPUTS)

    @task
    def outer() -> object:
        return square(3)

    @flow
    def child() -> object:
        return square(3)

    @flow
    def parent() -> list[object]:
        return [outer(), child(), square(3)]

    assert parent() == [9, 9, 9]
    assert counting.ran == [3]


def test_a_cached_task_called_outside_of_any_flow_is_cached(counting: Counting) -> None:
    square = counting.square(cache_policy=INPUTS)
    assert [square(3), square(3)] == [9, 9]
    assert counting.ran == [3]


def test_a_call_whose_arguments_are_futures_has_its_key_from_their_results(counting: Counting) -> None:
    square = counting.square(cache_policy=INPUTS)

    @flow
    def chained() -> list[object]:
        return [square(square.submit(2)), square.submit(square.submit(2)).result(), square(4)]

    assert chained() == [16, 16, 16]
    assert sorted(counting.ran) == [2, 4]  # type: ignore[type-var]


def test_unmapped_and_default_arguments_count_as_if_they_were_passed() -> None:
    ran: list[tuple[int, int]] = []

    @task(cache_policy=INPUTS)
    def add(x: int, y: int = 1) -> int:
        ran.append((x, y))
        return x + y

    @flow
    def many() -> list[int]:
        return [*add.map([1, 2], y=unmapped(1)).result(), add(1), add(x=2, y=1)]

    assert many() == [2, 3, 2, 3]
    assert sorted(ran) == [(1, 1), (2, 1)]


def test_hooks_and_listeners_are_told_of_a_cached_result(counting: Counting) -> None:
    told: list[object] = []
    square = counting.square(cache_policy=INPUTS, on_completion=[lambda task, run, state: told.append((run.id, state.name))])

    def listen(event: Event) -> None:
        if event.task_run_id is not None:
            told.append((event.task_run_id, event.state, event.state_name))

    calls(square, 3)()
    add_listener(listen)
    try:
        calls(square, 3)()
    finally:
        remove_listener(listen)
    assert told == [(1, "Completed"), (2, "COMPLETED", "Cached"), (2, "Cached")]


def test_a_guarded_task_may_be_answered_from_the_cache(rows: Rows) -> None:
    ran: list[int] = []

    @task(once=True, cache_policy=INPUTS)
    def charge(amount: int) -> int:
        ran.append(amount)
        return amount

    @flow
    def shop() -> list[int]:
        return [charge(5), charge(5)]

    assert shop() == [5, 5]
    assert ran == [5]


# ---------------------------------------------------------------------------------------------------- failures


def test_a_failure_never_fills_the_cache_and_a_later_attempt_does(rows: Rows, clock: FakeClock) -> None:
    ran: list[int] = []

    @task(cache_policy=INPUTS, retries=1, retry_delay_seconds=exponential_backoff(10))
    def flaky(x: int) -> int:
        ran.append(x)
        if len(ran) in (1, 2, 3):
            raise ValueError(f"attempt {len(ran)}")
        return x

    @flow
    def main() -> int:
        return flaky(7)

    with pytest.raises(ValueError, match="attempt 2"):
        main()
    assert rows("SELECT count(*) FROM cache_entries") == [(0,)]
    assert main() == main() == 7
    assert ran == [7, 7, 7, 7]
    assert rows("SELECT task_id, outcome FROM cache_uses ORDER BY task_id") == [(1, "miss"), (2, "miss"), (3, "hit")]


def test_a_retry_finds_what_another_run_computed_meanwhile(rows: Rows, clock: FakeClock) -> None:
    ran: list[str] = []

    @task(cache_policy=INPUTS, retries=1, retry_delay_seconds=10)
    def flaky(x: int) -> int:
        ran.append("fails" if not ran else "works")
        if ran == ["fails"]:
            other(x)  # as another process could compute it at this moment
            raise ValueError("the first attempt")
        return x

    @flow
    def other(x: int) -> int:
        return flaky(x)

    @flow
    def main() -> object:
        return flaky(7, return_state=True).name

    assert main() == "Cached"
    assert ran == ["fails", "works"]
    assert rows("SELECT state, state_name, attempt FROM history WHERE task_id = 1 ORDER BY seq") == [
        ("RUNNING", "Running", 1),
        ("SCHEDULED", "AwaitingRetry", 1),
        ("COMPLETED", "Cached", 1),
    ]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_policy_that_raises_leaves_the_call_uncached(
    counting: Counting, rows: Rows, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    def broken(context: object, parameters: dict[str, object]) -> str:
        raise KeyError("no such thing")

    with caplog.at_level(logging.WARNING):
        if is_async:

            @task(cache_key_fn=broken, name="broken async")
            async def square(x: int) -> int:
                counting.ran.append(x)
                return x * x

            @flow
            async def main() -> list[int]:
                return [await square(3), await square(3)]

            assert asyncio.run(main()) == [9, 9]
        else:
            assert calls(counting.square(cache_key_fn=broken, name="broken sync"), 3, 3)() == [9, 9]
    assert counting.ran == [3, 3]
    assert (
        rows("SELECT outcome, key, message FROM cache_uses")
        == [("no key", None, "the cache policy raised KeyError: 'no such thing'")] * 2
    )
    assert len([record for record in caplog.records if "runs uncached" in record.getMessage()]) == 1


def test_a_key_that_is_no_text_leaves_the_call_uncached(counting: Counting, rows: Rows) -> None:
    assert calls(counting.square(cache_key_fn=lambda context, parameters: 7), 3)() == [9]
    ((message,),) = rows("SELECT message FROM cache_uses")
    assert "gave a key of type int" in str(message)


def test_an_argument_without_canonical_form_leaves_the_call_uncached(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    @task(cache_policy=INPUTS)
    def locked(path: str, lock: object) -> str:
        ran.append(path)
        return path

    @task(cache_policy=INPUTS - "lock")
    def without(path: str, lock: object) -> str:
        ran.append(path)
        return path

    @flow
    def main() -> None:
        for _ in range(2):
            locked("a", threading.Lock())
            without("b", threading.Lock())

    with caplog.at_level(logging.WARNING, logger="wfengine.caching"):
        main()
    assert ran == ["a", "b", "a"]
    assert rows("SELECT outcome FROM cache_uses ORDER BY task_id") == [("no key",), ("miss",), ("no key",), ("hit",)]
    ((message,),) = rows("SELECT DISTINCT message FROM cache_uses WHERE message IS NOT NULL")
    assert "argument lock (lock) has no canonical form" in str(message)
    assert len([record for record in caplog.records if "runs uncached" in record.getMessage()]) == 1


@pytest.mark.parametrize("damage", ["UPDATE cache SET result_hash = zeroblob(16)", "UPDATE cache SET result = '\"hi\"'"])
def test_a_damaged_entry_is_not_served(counting: Counting, rows: Rows, journal, damage: str) -> None:  # type: ignore[no-untyped-def]
    each = calls(counting.square(cache_policy=INPUTS), 3)
    each()
    journal._writer.read(lambda connection: connection.execute(damage).fetchall())
    assert each() == [9]
    assert each() == [9]
    assert counting.ran == [3, 3]
    assert rows("SELECT outcome FROM cache_uses ORDER BY task_id") == [("miss",), ("damaged",), ("hit",)]
    assert "checksum does not match" in str(rows("SELECT message FROM cache_uses WHERE outcome = 'damaged'"))


def test_an_entry_whose_value_is_gone_is_not_served(counting: Counting, rows: Rows, journal) -> None:  # type: ignore[no-untyped-def]
    @task(cache_policy=INPUTS)
    def large(x: int) -> str:
        counting.ran.append(x)
        return "x" * 5000

    each = calls(large, 3)
    each()
    journal._writer.read(lambda connection: connection.execute("DELETE FROM value").fetchall())
    each(), each()
    assert counting.ran == [3, 3]
    assert [outcome for _, outcome in rows(USES)] == ["miss", "damaged", "hit"]


def test_a_result_that_cannot_be_stored_is_not_cached(rows: Rows) -> None:
    @task(cache_policy=INPUTS)
    def unstorable() -> object:
        return threading.Lock()

    @flow
    def main() -> None:
        unstorable()

    with pytest.raises(Exception, match="cannot be stored"):
        main()
    assert rows("SELECT count(*) FROM cache_entries") == [(0,)]


# ---------------------------------------------------------------------------------------------------- crash and resume


RESUMED = """
    from wfengine.cache_policies import INPUTS

    @task(cache_policy=INPUTS)
    def load(x):
        note(f"load-{x}")
        if x == 3 and first_time("killed in 3"):
            kill()
        return x * 10

    @flow
    def main():
        results = [load(1), load(1), load(2)]
        if first_time("killed"):
            kill()
        return results + [load(3)]

    main()
"""


def test_a_hit_that_was_journaled_replays_though_its_entry_is_gone(program: Program, rows: Rows) -> None:
    program.write(RESUMED.replace("return results + [load(3)]", "return results"))
    program.run_and_be_killed()
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("Completed",), ("Cached",), ("Completed",)]
    forget = "from wfengine import use_journal; use_journal(None).read(lambda c: c.execute('DELETE FROM cache').fetchall())"
    assert program.python("-c", forget).code == 0
    assert program.resume(recovery=True)["result"] == "[10, 10, 20]"
    assert program.effects == ["load-1", "load-2"]


def test_a_killed_computation_leaves_no_entry_and_runs_again(program: Program, rows: Rows) -> None:
    (program.folder / "killed").touch()
    program.write(RESUMED)
    program.run_and_be_killed()
    assert rows("SELECT result FROM cache_entries ORDER BY result") == [("10",), ("20",)]
    assert program.resume(recovery=True)["result"] == "[10, 10, 20, 30]"
    assert program.effects == ["load-1", "load-2", "load-3", "load-3"]
    assert rows("SELECT result FROM cache_entries ORDER BY result") == [("10",), ("20",), ("30",)]


def test_a_call_in_doubt_may_be_answered_by_what_another_run_computed_meanwhile(program: Program, rows: Rows) -> None:
    (program.folder / "killed").touch()
    program.write(RESUMED)
    program.run_and_be_killed()
    assert program.run().code == 0
    assert program.resume(1, recovery=True)["result"] == "[10, 10, 20, 30]"
    assert program.effects == ["load-1", "load-2", "load-3", "load-3"]
    assert rows("SELECT state_name FROM tasks WHERE run_id = 1 ORDER BY id")[-1] == ("Cached",)


def test_results_are_found_by_other_processes(program: Program) -> None:
    (program.folder / "killed").touch()
    (program.folder / "killed in 3").touch()
    program.write(RESUMED)
    assert program.run().code == 0
    assert program.run().code == 0
    assert program.effects == ["load-1", "load-2", "load-3"]


def test_a_resumed_fatal_failure_asks_the_cache_before_it_runs_again(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.cache_policies import INPUTS

        @task(cache_policy=INPUTS)
        def load(x):
            note(f"load-{x}")
            if first_time():
                raise ValueError("not yet")
            return x

        @flow
        def main():
            return load(1)

        main()
    """)
    assert program.run().code == 1
    assert program.run().code == 0
    assert program.resume(1)["result"] == "1"
    assert program.effects == ["load-1", "load-1"]
    assert rows("SELECT state_name FROM tasks WHERE run_id = 1") == [("Cached",)]


# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cache_policy": "INPUTS"}, "must be a cache policy"),
        ({"cache_policy": CachePolicy}, "must be a cache policy"),
        ({"cache_key_fn": "key"}, "must be a function"),
        ({"cache_policy": INPUTS, "cache_expiration": 60}, "must be a timedelta"),
        ({"cache_policy": INPUTS, "cache_expiration": timedelta(seconds=-1)}, "must be a timedelta"),
        ({"result_storage_key": 7}, "must be a text"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_decoration(
    counting: Counting, options: dict[str, object], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        counting.square(**options)


@pytest.mark.parametrize(
    ("options", "text", "is_cached"),
    [
        ({"cache_policy": TASK_SOURCE, "cache_key_fn": task_input_hash}, "The cache_key_fn gives the key", True),
        ({"cache_policy": INPUTS, "persist_result": False}, "turns off the caching", False),
        ({"cache_expiration": timedelta(hours=1)}, "do nothing without a cache_policy", False),
        ({"refresh_cache": True}, "do nothing without a cache_policy", False),
        ({"cache_policy": INPUTS, "result_storage_key": "key-{parameters[x]}"}, "The result_storage_key is the key", True),
    ],
)
def test_options_that_contradict_each_other_are_warned_of(
    counting: Counting, caplog: pytest.LogCaptureFixture, options: dict[str, object], text: str, is_cached: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        each = calls(counting.square(**options), 3, 3)
    assert text in caplog.text
    assert each() == [9, 9]
    assert counting.ran == ([3] if is_cached else [3, 3])


def test_a_generator_is_not_cached_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[int] = []
    with caplog.at_level(logging.WARNING):

        @task(cache_policy=INPUTS)
        def numbers() -> object:
            ran.append(1)
            yield 1

    assert "is a generator, whose items cannot be cached" in caplog.text

    @flow
    def main() -> list[object]:
        return [*numbers(), *numbers()]  # type: ignore[misc]

    assert main() == [1, 1]
    assert ran == [1, 1]


def test_a_storage_key_that_does_not_fit_leaves_the_call_uncached(counting: Counting, rows: Rows) -> None:
    assert calls(counting.square(result_storage_key="{parameters[y]}"), 3)() == [9]
    ((message,),) = rows("SELECT message FROM cache_uses")
    assert "does not fit this call (KeyError: 'y')" in str(message)


def test_a_task_that_a_policy_calls_is_no_part_of_the_run(counting: Counting, rows: Rows) -> None:
    @task
    def version() -> str:
        return "v1"

    assert calls(counting.square(cache_key_fn=lambda context, parameters: version()), 3, 3)() == [9, 9]
    assert counting.ran == [3]
    assert rows("SELECT count(*) FROM tasks WHERE run_id = 1") == [(2,)]


def test_very_long_and_odd_keys_are_taken(counting: Counting, rows: Rows) -> None:
    keys = ["k" * 5000 + "1", "k" * 5000 + "2", "\ud800", ""]
    square = counting.square(cache_key_fn=lambda context, parameters: keys[parameters["x"]])
    assert calls(square, 0, 1, 2, 3)() == calls(square, 0, 1, 2, 3)() == [0, 1, 4, 9]
    assert counting.ran == [0, 1, 2, 3]
    assert rows("SELECT max(length(key)) < 1100 FROM cache_entries") == [(1,)]
