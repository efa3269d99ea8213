"""Runs that wait for runs of the same limit: these take the places of those who wait for them, and nobody else does."""

from __future__ import annotations

import threading

import pytest

from tests.engine.conftest import Program, Rows
from tests.engine.deployed import deploy, put, set_queue
from tests.engine.test_executor import await_state, executing
from wfengine import flow
from wfengine.deployments import run_deployment
from wfengine_journal.store import Journal

WORKING: list[int] = []
MOST: list[int] = []
ORDER: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    for each in (WORKING, MOST, ORDER):
        each.clear()


def work(what: object) -> None:
    """Note how many work at a time."""
    WORKING.append(1)
    MOST.append(len(WORKING))
    ORDER.append(what)
    WORKING.pop()


@flow
def nested(left: int = 1, queues: list[str] | None = None) -> str:
    """Wait for one like this, so often; each in the next of the queues."""
    work(left)
    if not left:
        return "the innermost"
    following = [*queues[1:], queues[0]] if queues else None
    run = run_deployment("nested/main", {"left": left - 1, "queues": following}, queue=following[0] if following else None)
    work(left)
    return f"{left} {run.state.result()}"


@flow
def plain(what: object = None) -> None:
    work(what)


def ends_as(journal: Journal, rows: Rows, run_id: int) -> object:
    await_state(journal, rows, run_id, "COMPLETED", "FAILED", "CANCELLED")
    return rows.value("SELECT coalesce(result, error) FROM runs WHERE id = ?", run_id)


def test_a_run_in_a_queue_of_one_place_is_given_what_it_waits_for(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested, queue="narrow")
    set_queue(journal, "narrow", slots=1)
    with executing(journal):
        run_id = put(journal, deployment, left=3)
        assert ends_as(journal, rows, run_id) == '"3 2 1 the innermost"'
    assert max(MOST) == 1


def test_a_deployment_with_one_run_at_a_time_can_wait_for_itself(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested, concurrency_limit=1)
    with executing(journal):
        run_id = put(journal, deployment, left=3)
        assert ends_as(journal, rows, run_id) == '"3 2 1 the innermost"'
    assert max(MOST) == 1


def test_so_can_the_runs_of_one_partition(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, partitioned, queue="split")
    set_queue(journal, "split", partition_slots=1)
    with executing(journal):
        assert ends_as(journal, rows, put(journal, deployment, partition_key="eu", left=2)) == "0"


@flow
def partitioned(left: int) -> int:
    if left:
        return int(run_deployment("partitioned/main", {"left": left - 1}, partition_key="eu").state.result())  # type: ignore[call-overload]
    return left


def test_the_place_is_lent_to_nobody_else(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested, queue="narrow")
    other = deploy(journal, plain, queue="narrow", priority=9)
    set_queue(journal, "narrow", slots=1)
    run_id = put(journal, deployment, left=2)
    with executing(journal):
        await_state(journal, rows, run_id, "RUNNING", "COMPLETED")
        first = put(journal, other, what="other")
        assert ends_as(journal, rows, run_id) == '"2 1 the innermost"'
        ends_as(journal, rows, first)
    assert ORDER[-1] == "other"
    assert max(MOST) == 1


def test_as_many_runs_as_there_are_places_can_wait_at_the_same_time(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested, queue="two")
    set_queue(journal, "two", slots=2)
    with executing(journal):
        runs = [put(journal, deployment, left=2) for _ in range(4)]
        assert [ends_as(journal, rows, run_id) for run_id in runs] == ['"2 1 the innermost"'] * 4
    assert max(MOST) <= 2


def test_places_are_lent_around_several_queues(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested)
    for queue in ("a", "b"):
        set_queue(journal, queue, slots=1)
    with executing(journal):
        run_id = put(journal, deployment, queue="a", left=4, queues=["a", "b"])
        assert ends_as(journal, rows, run_id) == '"4 3 2 1 the innermost"'
    assert rows("SELECT queue, count(*) FROM runs GROUP BY 1") == [("a", 3), ("b", 2)]


def test_a_deployment_that_cancels_what_comes_beyond_its_limit_cancels_that_too(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, nested, concurrency_limit=1, collision="cancel_new")
    with executing(journal):
        run_id = put(journal, deployment, left=1)
        assert "CancelledRun" in str(ends_as(journal, rows, run_id))


# ------------------------------------------------------------------------------------------- circles


@flow
def waits_for_itself(key: str) -> None:
    run_deployment("waits-for-itself/main", {"key": key}, idempotency_key=key)


@flow
def one(ready: str = "one") -> object:
    return _ask("two/main", "one/main")


@flow
def two(ready: str = "two") -> object:
    return _ask("one/main", "two/main")


BOTH = threading.Barrier(2)


def _ask(other: str, own: str) -> object:
    BOTH.wait(60)
    run = run_deployment(other, deduplication_key="k", timeout=600)
    return run.state.result()


def test_a_run_that_would_wait_for_itself_fails_and_says_so(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, waits_for_itself)
    with executing(journal):
        run_id = put(journal, deployment, idempotency_key="k", key="k")
        error = str(ends_as(journal, rows, run_id))
    assert "DeadlockError: flow run 1 " in error
    assert "waits for itself" in error
    assert "wfengine runs show 1" in error


def test_of_two_runs_that_wait_for_each_other_one_at_least_is_told(journal: Journal, rows: Rows) -> None:
    deployments = [deploy(journal, each) for each in (one, two)]
    with executing(journal):
        runs = [put(journal, each, deduplication_key="k") for each in deployments]
        errors = [str(ends_as(journal, rows, run_id)) for run_id in runs]
    assert any("DeadlockError: flow run" in error and "waits for flow run" in error for error in errors)


# ------------------------------------------------------------------------------------------- a kill in the middle

KILLED = """
    from wfengine.deployments import run_deployment
    from wfengine.executor import Executor

    @flow
    def outer():
        note("outer")
        return run_deployment("inner/main").state.result()

    @flow
    def inner():
        note("inner")
        if first_time():
            kill()
        return "done"

    if __name__ == "__main__":
        from wfengine.concurrency import set_queue
        set_queue("narrow", slots=1)
        for each in (outer, inner):
            each.deploy("main", queue="narrow")
        run_deployment("outer/main", timeout=0, idempotency_key="k")
        Executor(use_journal(None)).run_once()
"""


def test_a_run_that_was_killed_while_it_lent_its_place_goes_on_and_lends_it_again(program: Program, rows: Rows) -> None:
    program.write(KILLED)
    program.run_and_be_killed()
    done = program.run()
    assert done.code == 0, done
    assert rows("SELECT id, state, result FROM runs ORDER BY id") == [(1, "COMPLETED", '"done"'), (2, "COMPLETED", '"done"')]
    assert program.effects == ["outer", "inner", "outer", "inner"]
