"""What a run waits for, as `wfengine runs show` says it: queue, partition, rate, deployment, limit, tag, run, time."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.engine.conftest import FakeClock, Rows
from tests.engine.deployed import deploy, put, set_queue
from tests.engine.test_executor import GATES, Gate, await_state, executing, gate, noting, waits_at
from wfengine import flow, task
from wfengine.concurrency import set_limit
from wfengine.concurrency.sync import concurrency
from wfengine.deployments import run_deployment
from wfengine.executor import Executor
from wfengine.journals import default_journal
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.connection import open_reader
from wfengine_journal.store import Journal
from wfengine_journal.waiting_reasons import list_reasons

__all__ = ["gate"]  # a fixture


def reasons(run_id: int) -> list[str]:
    journal = default_journal()
    journal.flush()
    with closing(open_reader(journal.path)) as connection:
        return list_reasons(connection, run_id, journal.clock.now_text())


def await_reason(journal: Journal, run_id: int, part: str) -> list[str]:
    """Wait until a run waits for something, told by each commit."""
    for _ in range(1000):
        mark = journal.changes.mark()
        found = reasons(run_id)
        if any(part in reason for reason in found):
            return found
        journal.changes.wait(mark, 60)
    raise AssertionError(found)


def test_a_queued_run_waits_for_what_its_queue_or_deployment_has_not(journal: Journal, gate: Gate, rows: Rows) -> None:
    one = deploy(journal, waits_at, parameters={"gate": "gate"})
    other = deploy(journal, waits_at, "other", parameters={"gate": "gate"}, queue="wide", concurrency_limit=1)
    set_queue(journal, "default", slots=1)
    set_queue(journal, "wide", partition_slots=1)
    first, second = put(journal, one), put(journal, one)
    third = put(journal, other, partition_key="eu")
    with executing(journal):
        gate.await_arrivals(2)
        fourth = put(journal, other, partition_key="eu")
        fifth = put(journal, other)
        sixth = put(journal, one, after_runs=[first])
        assert reasons(first) == reasons(third) == []
        assert reasons(second) == ["waits for one of the 1 places of queue 'default'"]
        assert reasons(fourth) == ["waits for one of the 1 places of 'eu' in queue 'wide'"]
        assert reasons(fifth) == ["waits for the running run of deployment 'waits-at/other', which may have one at a time"]
        assert reasons(sixth)[0].startswith("waits for the end of flow run 1 '")
        set_queue(journal, "default", paused=True)
        assert reasons(second) == ["queue 'default' is paused"]
        set_queue(journal, "default", paused=False)
    assert rows.state(first) == ("COMPLETED", "Completed")


def test_a_run_waits_for_its_time_its_rate_or_to_be_taken_up(clock: FakeClock) -> None:
    journal = default_journal()
    deployment = deploy(journal, noting)
    due = put(journal, deployment, due_at=text_from_seconds(clock.now + 60))
    assert reasons(due) == ["is due at 2025-06-15T15:07:40Z"]
    clock.now += 61
    assert reasons(due) == ["waits to be taken out of queue 'default', where it has a place"]
    set_queue(journal, "default", rate=(1, 60))
    Executor(journal).run_once()
    assert reasons(due) == []
    assert reasons(put(journal, deployment)) == ["waits for the rate of queue 'default'"]
    assert reasons(99) == []


@flow
def holds(gate: str) -> None:
    with concurrency("database"):
        GATES[gate].pass_through()


@flow
def enters(gate: str) -> None:
    with concurrency("database"):
        pass


@task(tags=["heavy"])
def heavy(gate: str) -> None:
    GATES[gate].pass_through()


@flow
def tagged(gate: str) -> None:
    heavy(gate)


@flow
def asks(gate: str) -> None:
    run_deployment("holds/main", {"gate": gate})


@pytest.fixture
def _limited() -> None:
    set_limit("database", slots=1)
    set_limit("heavy", slots=1, tag=True)


@pytest.mark.usefixtures("_limited")
def test_a_running_run_waits_for_a_limit_a_tag_or_another_run(journal: Journal, gate: Gate, rows: Rows) -> None:
    ids = {each: deploy(journal, each, parameters={"gate": "gate"}) for each in (holds, enters, tagged, asks)}
    with executing(journal):
        asking = put(journal, ids[asks])
        gate.await_arrivals(1)
        assert await_reason(journal, asking, "flow run 2")[0].startswith("waits for the end of flow run 2 '")
        entering = put(journal, ids[enters])
        assert await_reason(journal, entering, "limit") == ["waits for a place of limit 'database', held by flow run 2"]
        put(journal, ids[tagged])
        gate.await_arrivals(1)
        late = put(journal, ids[tagged])
        assert await_reason(journal, late, "tag") == ["waits for a place of tag 'heavy', held by flow run 4"]
        gate.opened.set()
        for run_id in (asking, entering, late):
            await_state(journal, rows, run_id, "COMPLETED")
            assert reasons(run_id) == []
