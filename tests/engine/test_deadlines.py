"""A deadline is an instant: it goes on counting over restarts and retries, and ends the run as TimedOut."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.conftest import FakeClock, Rows
from wfengine import flow, sleep
from wfengine.recovery import resume_run
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import PausedRun, TaskTimeoutError, UsageError


@flow(deadline_seconds=1000)
def late() -> None:
    sleep(days=1)


@flow(deadline_seconds=1000)
async def late_async() -> None:
    await sleep(days=1)  # type: ignore[func-returns-value]


def test_the_deadline_is_recorded_as_an_instant_and_ends_the_run(clock: FakeClock, rows: Rows) -> None:
    due = text_from_seconds(clock.now + 1000)
    with pytest.raises(TaskTimeoutError, match=r"did not end by its deadline, .* wfengine resume"):
        late()
    assert rows("SELECT state, state_name, deadline_at FROM runs") == [("FAILED", "TimedOut", due)]


def test_the_deadline_ends_an_async_run(clock: FakeClock, rows: Rows) -> None:
    with pytest.raises(TaskTimeoutError, match="did not end by its deadline"):
        asyncio.run(late_async())
    assert rows.state() == ("FAILED", "TimedOut")


def test_no_retry_comes_after_the_deadline(clock: FakeClock, rows: Rows) -> None:
    bodies: list[float] = []

    @flow(deadline_seconds=1000, retries=9, retry_delay_seconds=400)
    def failing() -> None:
        bodies.append(clock.now)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    assert len(bodies) == 3


@flow(deadline_seconds=1000)
def suspended() -> str:
    sleep(seconds=900, suspend=True)
    return "slept"


@pytest.mark.parametrize(("recovery", "state"), [(True, "TimedOut"), (False, "Completed")])
def test_a_recovery_is_bound_by_the_deadline_and_a_person_gives_a_new_one(
    clock: FakeClock, rows: Rows, recovery: bool, state: str
) -> None:
    with pytest.raises(PausedRun):
        suspended()
    clock.now += 5000
    assert resume_run(store.open_journal(rows.path), 1, recovery=recovery).name == state


def test_a_subflow_is_bound_by_the_deadline_of_the_run_around_it(clock: FakeClock, rows: Rows) -> None:
    @flow
    def child() -> None:
        sleep(days=1)

    @flow(deadline_seconds=1000)
    def parent() -> None:
        child()

    with pytest.raises(TaskTimeoutError):
        parent()
    assert rows("SELECT DISTINCT state, state_name FROM runs") == [("FAILED", "TimedOut")]


def test_a_deadline_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="deadline_seconds"):
        flow(deadline_seconds=0)(lambda: None)
