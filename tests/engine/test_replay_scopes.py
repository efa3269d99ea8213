"""Where a call belongs: tasks in tasks, threads of the user's own, calls outside of any flow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.conftest import Rows
from wfengine import carry, current_flow_run, current_task_run, flow, task
from wfengine_journal.errors import MissingContextError


class World:
    """What ran, and how often the run still is to be cut off."""

    def __init__(self, crashes: int = 1) -> None:
        self.crashes = crashes
        self.ran: list[str] = []

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def test_finished_task_answers_for_the_tasks_it_called(rows: Rows) -> None:
    world = World()

    @task
    def leaf(number: int) -> int:
        world.ran.append(f"leaf {number}")
        return number

    @task
    def parent() -> int:
        world.ran.append("parent")
        return leaf(1) + leaf(2)

    @flow
    def nested() -> int:
        total = parent()
        world.crash_once()
        return total

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert nested.resume(1) == 3
    assert world.ran == ["parent", "leaf 1", "leaf 2"]
    assert rows("SELECT count(*) FROM orphans") == [(0,)]


def test_unfinished_task_runs_again_and_replays_the_tasks_it_called(rows: Rows) -> None:
    world = World()

    @task
    def leaf(number: int) -> int:
        world.ran.append(f"leaf {number}")
        return number

    @task
    def parent() -> int:
        world.ran.append("parent")
        first = leaf(1)
        world.crash_once()
        return first + leaf(2)

    @flow
    def nested() -> int:
        return parent()

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert nested.resume(1) == 3
    assert world.ran == ["parent", "leaf 1", "parent", "leaf 2"]
    assert rows("SELECT task, attempts, parent_task_id FROM tasks ORDER BY id") == [
        ("parent", 2, None), ("leaf", 1, 1), ("leaf", 1, 1),
    ]  # fmt: skip


def test_equal_calls_in_different_scopes_are_different_calls(rows: Rows) -> None:
    world = World()
    numbers = iter(range(100))

    @task
    def leaf() -> int:
        return next(numbers)

    @task
    def parent(name: str) -> tuple[str, int]:
        return name, leaf()

    @flow
    def nested() -> list[object]:
        values: list[object] = [leaf(), parent("b"), parent("a")]
        world.crash_once()
        return values

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert nested.resume(1) == [0, ("b", 1), ("a", 2)]
    assert rows("SELECT parent_task_id, occurrence FROM tasks WHERE task = 'leaf' ORDER BY id") == [(None, 0), (2, 0), (4, 0)]


@pytest.mark.parametrize("retries", [1, 2])
def test_retried_task_replays_the_tasks_that_its_failed_attempt_called(rows: Rows, retries: int) -> None:
    ran: list[str] = []

    @task
    def leaf(number: int) -> int:
        ran.append(f"leaf {number}")
        return number

    @task(retries=retries)
    def parent() -> int:
        ran.append("parent")
        total = leaf(1) + leaf(2)
        if ran.count("parent") <= retries:
            raise ValueError("flaky")
        return total

    @flow
    def nested() -> int:
        return parent()

    assert nested() == 3
    assert ran == ["parent", "leaf 1", "leaf 2"] + ["parent"] * retries
    assert rows("SELECT task, attempts, state FROM tasks ORDER BY id") == [
        ("parent", retries + 1, "COMPLETED"), ("leaf", 1, "COMPLETED"), ("leaf", 1, "COMPLETED"),
    ]  # fmt: skip


def test_task_retried_in_a_resumed_run_replays_what_both_executions_called() -> None:
    world = World()

    @task
    def leaf(number: int) -> int:
        world.ran.append(f"leaf {number}")
        return number

    @task(retries=1)
    def parent() -> int:
        world.ran.append("parent")
        first = leaf(1)
        world.crash_once()
        second = leaf(2)
        if world.ran.count("parent") == 2:
            raise ValueError("flaky")
        return first + second

    @flow
    def nested() -> int:
        return parent()

    with pytest.raises(KeyboardInterrupt):
        nested()
    assert nested.resume(1) == 3
    assert world.ran == ["parent", "leaf 1", "parent", "leaf 2", "parent"]


def test_retried_task_runs_the_failed_tasks_it_called_again() -> None:
    ran: list[str] = []

    @task
    def leaf() -> int:
        ran.append("leaf")
        if len(ran) == 1:
            raise ValueError("flaky")
        return 5

    @task(retries=1)
    def parent() -> int:
        return leaf()

    @flow
    def nested() -> int:
        return parent()

    assert nested() == 5
    assert ran == ["leaf", "leaf"]


@pytest.mark.parametrize("submitted", [False, True])
def test_fatal_failure_deep_inside_runs_again_on_resume_and_its_siblings_do_not(submitted: bool) -> None:
    ran: list[str] = []
    broken = [True]

    @task
    def leaf(name: str) -> str:
        ran.append(name)
        if name == "bad" and broken[0]:
            raise ValueError("broken")
        return name

    @task
    def parent() -> str:
        ran.append("parent")
        good = leaf.submit("good").result() if submitted else leaf("good")
        bad = leaf.submit("bad").result() if submitted else leaf("bad")
        return good + bad

    @flow
    def nested() -> str:
        return parent()

    with pytest.raises(ValueError, match="broken"):
        nested()
    broken[0] = False
    assert nested.resume(1) == "goodbad"
    assert ran == ["parent", "good", "bad", "parent", "bad"]


def test_tasks_of_a_carried_thread_pool_replay_whatever_their_order() -> None:
    world = World()
    items = [1, 2, 3, 4]

    @task
    def double(number: int) -> int:
        world.ran.append(str(number))
        return number * 2

    @flow
    def pooled() -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(carry(double), item) for item in items]
            doubled = [future.result() for future in futures]
        world.crash_once()
        return doubled

    with pytest.raises(KeyboardInterrupt):
        pooled()
    items.reverse()
    assert pooled.resume(1) == [8, 6, 4, 2]
    assert sorted(world.ran) == ["1", "2", "3", "4"]


def test_task_called_in_a_thread_without_scope_is_refused_with_the_line_that_helps(rows: Rows) -> None:
    problems: list[BaseException] = []

    @task
    def double(number: int) -> int:
        return number * 2

    def body() -> None:
        try:
            double(1)
        except MissingContextError as error:
            problems.append(error)

    @flow
    def threaded() -> None:
        thread = threading.Thread(target=body, name="my-thread")
        thread.start()
        thread.join()

    threaded()
    (problem,) = problems
    assert "wfengine.carry(" in str(problem)
    assert "my-thread" in str(problem)
    assert rows.value("SELECT count(*) FROM tasks") == 0


def test_carried_function_may_be_used_many_times_and_keeps_the_scope_of_a_task() -> None:
    seen: list[tuple[int, object]] = []

    @task
    def leaf(number: int) -> None:
        seen.append((number, current_task_run().task_name))

    @task
    def parent() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(carry(leaf), range(8)))

    @flow
    def nested() -> int:
        parent()
        return current_flow_run().id

    assert nested() == 1
    assert sorted(seen) == [(number, "leaf") for number in range(8)]


def test_task_called_outside_of_a_flow_is_a_run_of_its_own(rows: Rows) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    assert double(4) == 8
    assert rows("SELECT flow, state, result FROM runs") == [("double", "COMPLETED", "8")]
    assert rows("SELECT task, state, result FROM tasks") == [("double", "COMPLETED", "8")]
    assert double(5, return_state=True).result() == 10


def test_submit_outside_of_a_flow_is_refused(rows: Rows) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    with pytest.raises(MissingContextError, match="submit"):
        double.submit(1)
    with pytest.raises(MissingContextError):
        double.map([1, 2])
    with pytest.raises(MissingContextError):
        current_task_run()
    assert rows.value("SELECT count(*) FROM runs") == 0


def test_task_called_after_its_flow_ended_does_not_write_into_the_ended_run(rows: Rows) -> None:
    kept = []

    @task
    def double(number: int) -> int:
        return number * 2

    @flow
    def early() -> None:
        kept.append(carry(double))

    early()
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever it is, it says so
        kept[0](2)
    assert rows.value("SELECT count(*) FROM tasks WHERE run_id = 1") == 0
