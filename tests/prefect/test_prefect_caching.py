"""Caching: policies and their algebra, keys, expiry, refreshing.

Against Prefect on purpose: a task that asks for no caching is never answered from a cache, not even for equal calls in one run
(`charge(5); charge(5)` charges twice). It asks by `cache_policy`, `cache_key_fn`, `persist_result=True` or
`result_storage_key`. Results are in the journal in any case, so caching needs no other switch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.conftest import VirtualClock
from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE, CachePolicy
from wfengine.tasks import Task, task_input_hash


class Counted:
    """Counts how often a task's body ran."""

    def __init__(self) -> None:
        self.count = 0

    def task(self, **options: object) -> Task[..., int]:
        """Return a task of x and y with these options."""

        @task(**options)  # type: ignore[call-overload, misc]
        def compute(x: int, y: int = 0) -> int:
            self.count += 1
            return x * 100 + y

        return compute  # type: ignore[no-any-return]


@pytest.fixture
def ran() -> Counted:
    return Counted()


def state_names(rows: Rows) -> list[object]:
    """Return the names of the final states of all task runs."""
    return [name for (name,) in rows("SELECT state_name FROM tasks ORDER BY id")]


def test_two_equal_calls_are_two_executions_unless_caching_is_asked_for(ran: Counted) -> None:
    charge = ran.task()

    @flow
    def program() -> list[int]:
        return [charge(5), charge(5)]

    assert program() == [500, 500]
    assert ran.count == 2


def test_inputs_are_remembered_over_runs(ran: Counted, rows: Rows) -> None:
    compute = ran.task(cache_policy=INPUTS)

    @flow
    def program(x: int) -> int:
        return compute(x)

    assert [program(1), program(1), program(2)] == [100, 100, 200]
    assert ran.count == 2
    assert state_names(rows) == ["Completed", "Cached", "Completed"]


def test_a_cached_state_has_the_result_and_is_completed(ran: Counted) -> None:
    compute = ran.task(cache_policy=INPUTS)

    @flow
    def program() -> tuple[object, ...]:
        compute(1)
        state = compute(1, return_state=True)
        return state.name, state.is_completed(), state.result(), compute.submit(1).state.name != "Failed"

    assert program() == ("Cached", True, 100, True)


def test_a_key_function_is_given_the_context_and_the_parameters(ran: Counted) -> None:
    def by_parity(context: object, parameters: dict[str, int]) -> str:
        assert context.task_run.task_key or context.task.name  # type: ignore[attr-defined]
        return f"{context.task.name}-{parameters['x'] % 2}"  # type: ignore[attr-defined]

    compute = ran.task(cache_key_fn=by_parity)

    @flow
    def program() -> list[int]:
        return [compute(1), compute(2), compute(3), compute(4)]

    assert program() == [100, 200, 100, 200]
    assert ran.count == 2


def test_a_key_function_that_gives_none_asks_for_no_caching_this_time(ran: Counted) -> None:
    compute = ran.task(cache_key_fn=lambda context, parameters: None if parameters["x"] == 1 else "one key")

    @flow
    def program() -> list[int]:
        return [compute(1), compute(1), compute(2), compute(3)]

    assert program() == [100, 100, 200, 200]
    assert ran.count == 3


def test_task_input_hash_is_a_key_function(ran: Counted) -> None:
    compute = ran.task(cache_key_fn=task_input_hash)

    @flow
    def program() -> list[int]:
        return [compute(1, 2), compute(1, y=2), compute(x=1, y=3)]

    assert program() == [102, 102, 103]
    assert ran.count == 2


def test_a_cached_result_expires(ran: Counted, virtual_clock: VirtualClock, rows: Rows) -> None:
    compute = ran.task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))

    @flow
    def program() -> int:
        return compute(1)

    program()
    virtual_clock.now += 3599
    program()
    virtual_clock.now += 2
    program()

    assert state_names(rows) == ["Completed", "Cached", "Completed"]


def test_refresh_cache_runs_and_renews(ran: Counted, rows: Rows) -> None:
    compute = ran.task(cache_policy=INPUTS)

    @flow
    def program() -> int:
        compute(1)
        compute.with_options(refresh_cache=True)(1)
        return compute(1)

    assert program() == 100
    assert ran.count == 2
    assert state_names(rows) == ["Completed", "Completed", "Cached"]


@pytest.mark.parametrize(
    ("policy", "calls", "executions"),
    [
        (INPUTS, [(1, 1), (1, 1), (1, 2)], 2),
        (INPUTS - "y", [(1, 1), (1, 2), (2, 2)], 2),
        (INPUTS - "x" - "y", [(1, 1), (2, 2)], 1),
        (INPUTS + TASK_SOURCE, [(1, 1), (1, 1), (2, 1)], 2),
        (TASK_SOURCE, [(1, 1), (2, 2)], 1),
        (RUN_ID, [(1, 1), (2, 2)], 1),
        (INPUTS + RUN_ID, [(1, 1), (1, 1), (2, 1)], 2),
        (FLOW_PARAMETERS, [(1, 1), (2, 2)], 1),
        (FLOW_PARAMETERS + INPUTS, [(1, 1), (2, 2), (1, 1)], 2),
        (DEFAULT, [(1, 1), (1, 1), (2, 2)], 2),
        (NO_CACHE, [(1, 1), (1, 1)], 2),
        (NO_CACHE + INPUTS, [(1, 1), (1, 1)], 1),
        (CachePolicy.from_cache_key_fn(lambda context, parameters: str(parameters["x"])), [(1, 1), (1, 2), (2, 2)], 2),
        (INPUTS + CachePolicy.from_cache_key_fn(lambda context, parameters: "k"), [(1, 1), (1, 1), (1, 2)], 2),
    ],
)  # fmt: skip
def test_policies_say_what_counts_in_one_run(
    ran: Counted, policy: CachePolicy, calls: list[tuple[int, int]], executions: int
) -> None:
    compute = ran.task(cache_policy=policy)

    @flow
    def program(unused: int = 1) -> None:
        for call in calls:
            compute(*call)

    program()
    assert ran.count == executions


@pytest.mark.parametrize(
    ("policy", "executions"),
    [(INPUTS, 1), (INPUTS + RUN_ID, 2), (RUN_ID, 2), (DEFAULT, 2), (FLOW_PARAMETERS, 2), (TASK_SOURCE, 1), (NO_CACHE, 2)],
)
def test_policies_say_what_counts_between_runs(ran: Counted, policy: CachePolicy, executions: int) -> None:
    compute = ran.task(cache_policy=policy)

    @flow
    def program(parameter: int) -> int:
        return compute(7)

    assert [program(1), program(2)] == [700, 700]
    assert ran.count == executions


def test_an_edited_task_is_another_source() -> None:
    ran: list[str] = []

    def versions() -> list[Callable[[int], str]]:
        @task(name="compute", key="compute", cache_policy=TASK_SOURCE + INPUTS)
        def first(x: int) -> str:
            ran.append("first")
            return f"first {x}"

        @task(name="compute", key="compute", cache_policy=TASK_SOURCE + INPUTS)
        def second(x: int) -> str:
            ran.append("second")
            return f"second {x + 0}"

        return [first, second]

    @flow
    def program(version: int) -> str:
        return versions()[version](1)

    assert [program(0), program(0), program(1)] == ["first 1", "first 1", "second 1"]
    assert ran == ["first", "second"]


def test_a_failure_never_fills_the_cache() -> None:
    calls: list[int] = []

    @task(cache_policy=INPUTS)
    def flaky(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise ConnectionError("not yet")
        return x

    @flow
    def program() -> tuple[bool, int, int]:
        return flaky(3, return_state=True).is_failed(), flaky(3), flaky(3)

    assert program() == (True, 3, 3)
    assert len(calls) == 2


def test_persist_result_asks_for_the_default_policy(ran: Counted) -> None:
    """Inputs, source and run together, as in Prefect: equal calls of one run share a result, those of two runs do not."""
    compute = ran.task(persist_result=True)

    @flow
    def program() -> list[int]:
        return [compute(1), compute(1)]

    program()
    program()
    assert ran.count == 2


def test_a_storage_key_names_the_result(ran: Counted) -> None:
    compute = ran.task(result_storage_key="answer-{parameters[x]}", persist_result=True)

    @flow
    def program(y: int) -> int:
        return compute(1, y)

    assert [program(5), program(6)] == [105, 105]
    assert ran.count == 1


def test_a_map_takes_from_the_cache_item_by_item(ran: Counted) -> None:
    compute = ran.task(cache_policy=INPUTS)

    @flow
    def program(numbers: list[int]) -> list[int]:
        return compute.map(numbers).result()

    assert program([1, 2, 3]) == [100, 200, 300]
    assert program([2, 3, 4]) == [200, 300, 400]
    assert ran.count == 4
