"""paranoid_replay finds, while a flow runs for the first time, what would go another way on a resume."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import random
import uuid

import pytest

from wfengine import Flow, flow, task
from wfengine.listeners import LISTENERS
from wfengine.testing import paranoid_replay
from wfengine_journal.errors import UsageError

RAN: list[str] = []
COUNTER = itertools.count()


@task
def keep(value: object) -> object:
    RAN.append(f"keep {value}")
    return value


@task(retries=2, retry_delay_seconds=86_400)
def flaky(number: int) -> int:
    RAN.append("flaky")
    if RAN.count("flaky") < 3:
        raise ValueError("not yet")
    return number


@task
async def keep_later(value: object) -> object:
    await asyncio.sleep(0)
    return value


@task
def fails() -> None:
    raise LookupError("no such thing")


@flow
def steady(count: int) -> int:
    total = 0
    for number in range(count):
        total += keep(number)  # type: ignore[operator]
    futures = [keep.submit(number) for number in range(count)]
    try:
        fails()
    except LookupError:
        total += flaky(100)
    return total + sum(future.result() for future in futures)  # type: ignore[misc]


@flow
async def steady_async(count: int) -> list[object]:
    return list(await asyncio.gather(*(keep_later(number) for number in range(count))))


@flow
def steady_with_subflow() -> int:
    RAN.append("body")
    return steady(2) + steady(3)


@flow
def reads_a_clock() -> object:
    return keep(datetime.datetime.now(datetime.UTC))


@flow
async def makes_a_uuid() -> object:
    await keep_later("first")
    return await keep_later(str(uuid.uuid4()))


@flow
def draws_a_number() -> object:
    return keep(random.random())


@flow
def takes_turns() -> object:
    keep("always")
    return flaky(1) if next(COUNTER) % 2 == 0 else keep("other")


@flow
def returns_what_was_counted() -> int:
    keep("always")
    return next(COUNTER)


@flow
def counts_up_in_threads() -> list[object]:
    start = next(COUNTER) * 1000
    return keep.map(range(start, start + 3)).result()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


def test_a_deterministic_flow_gives_its_result_and_runs_each_task_once() -> None:
    assert paranoid_replay(steady, 4) == 6 + 100 + 6
    assert RAN.count("flaky") == 3
    assert sorted(ran for ran in RAN if ran != "flaky") == sorted(2 * [f"keep {number}" for number in range(4)])
    assert LISTENERS == []


def test_async_flows_and_subflows_are_replayed_too() -> None:
    assert paranoid_replay(steady_async, count=5) == [0, 1, 2, 3, 4]  # type: ignore[comparison-overlap]
    assert paranoid_replay(steady_with_subflow) == 1 + 100 + 1 + 3 + 100 + 3
    assert RAN.count("body") > 5


@pytest.mark.parametrize(
    ("nondeterministic", "call", "cause"),
    [
        (reads_a_clock, "task 'keep' (task run 1)", "looks like a clock was read"),
        (makes_a_uuid, "task 'keep_later' (task run 2)", "looks like a new UUID"),
        (draws_a_number, "task 'keep' (task run 1)", "looks like a random number"),
    ],
)
def test_what_changes_from_run_to_run_is_named_with_its_cause(
    nondeterministic: Flow[[], object], call: str, cause: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        paranoid_replay(nondeterministic)
    assert f"After {call} was COMPLETED, it was replayed" in str(caught.value)
    assert "does not match what the journal recorded" in str(caught.value)
    assert cause in str(caught.value)
    assert "wfengine resume" not in str(caught.value)


def test_another_branch_taken_on_a_replay_is_found() -> None:
    with pytest.raises(AssertionError, match=r"would go another way"):
        paranoid_replay(takes_turns)


def test_another_result_is_found_at_the_end() -> None:
    with pytest.raises(AssertionError, match=r"After the run had ended, it was replayed, and the result is \d+, recorded \d+"):
        paranoid_replay(returns_what_was_counted)


def test_calls_of_threads_are_judged_at_the_end_at_the_latest() -> None:
    with pytest.raises(AssertionError, match="value"):
        paranoid_replay(counts_up_in_threads)


def test_what_the_flow_raises_is_raised() -> None:
    @flow
    def failing() -> None:
        keep(1)
        fails()

    with pytest.raises(LookupError):
        paranoid_replay(failing)


def test_only_flows_are_taken() -> None:
    with pytest.raises(UsageError, match="takes a flow"):
        paranoid_replay(len)  # type: ignore[arg-type]


def test_it_works_inside_an_event_loop_too() -> None:
    async def main() -> object:
        return paranoid_replay(steady_async, 2)

    assert asyncio.run(main()) == [0, 1]
