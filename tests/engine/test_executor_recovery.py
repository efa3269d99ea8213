"""What an executor takes up that did not come out of a queue just now: crashed runs, and those that slept enough."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Rows
from tests.engine.deployed import deploy, put, set_queue
from tests.engine.test_executor import Gate, gate, noting, waits_at
from wfengine import flow, sleep, use_journal
from wfengine.executor import Executor, Recover
from wfengine.journals import default_journal
from wfengine.recovery import resume_run
from wfengine_journal.importing import import_runs
from wfengine_journal.store import Journal

__all__ = ["gate"]  # a fixture


@pytest.fixture
def crashed(journal: Journal, gate: Gate) -> list[int]:
    """Runs that were left in the middle: one of a deployment, one that only has a queue, and one of neither."""
    deployment = deploy(journal, waits_at, parameters={"gate": "gate"})
    runs = [put(journal, deployment, what=what) for what in ("deployed", "queued", "alone")]
    executor = Executor(journal)
    executor.start()
    gate.await_arrivals(3)
    executor.stop(0)
    journal.flush()
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as connection:
        connection.execute("UPDATE flow_run SET deployment_id = NULL WHERE id >= 2")
        connection.execute("UPDATE flow_run SET queue = NULL WHERE id = 3")
    gate.opened.set()
    return runs


#: How the events of a run that begins, or goes on, are named.
BEGUN = ("wfengine.flow-run.Running", "wfengine.flow-run.Resuming")


def changes(rows: Rows, queue: str | None = None) -> list[tuple[object, ...]]:
    """Return (run, name of its new state) since the crash, in their order: of all runs, or of those of a queue."""
    return rows(
        "SELECT e.flow_run_id, e.name FROM event e JOIN flow_run r ON r.id = e.flow_run_id AND (? IS NULL OR r.queue = ?)"
        " WHERE e.id > (SELECT max(id) FROM event WHERE name = 'wfengine.flow-run.Crashed') ORDER BY e.id",
        queue,
        queue,
    )


def began(rows: Rows) -> list[object]:
    """Return the runs in the order in which they were taken up after the crash."""
    return [run_id for run_id, name in changes(rows) if name in BEGUN]


def most_at_a_time(rows: Rows, queue: str) -> int:
    """Return how many runs of a queue were RUNNING at the same moment since the crash, at the most."""
    running: set[object] = set()
    most = 0
    for run_id, name in changes(rows, queue):
        running.discard(run_id)
        if name in BEGUN:
            running.add(run_id)
        most = max(most, len(running))
    return most


@pytest.mark.parametrize(("recover", "done"), [("own", [1]), ("all", [1, 2, 3]), ("none", [])])
def test_whose_crashed_runs_are_taken_up_is_told(
    journal: Journal, crashed: list[int], rows: Rows, recover: Recover, done: list[int]
) -> None:
    Executor(journal, recover=recover).run_once()
    assert rows("SELECT id FROM flow_run WHERE state = 'COMPLETED' ORDER BY id") == [(run_id,) for run_id in done]
    assert rows("SELECT id FROM flow_run WHERE state = 'CRASHED' ORDER BY id") == [(n,) for n in crashed if n not in done]


def test_by_itself_an_executor_takes_up_those_of_its_own_deployments_and_queues(
    journal: Journal, crashed: list[int], rows: Rows
) -> None:
    other = deploy(journal, noting, queue="quick")
    for executor in (Executor(journal, deployment_ids=[other]), Executor(journal, queues=["quick"])):
        executor.run_once()
        assert rows("SELECT DISTINCT state FROM flow_run") == [("CRASHED",)]
    Executor(journal, queues=["default"]).run_once()
    assert rows("SELECT id FROM flow_run WHERE state = 'COMPLETED'") == [(crashed[0],)]


def test_crashed_runs_go_on_one_after_the_other_where_there_is_one_place(
    journal: Journal, crashed: list[int], rows: Rows
) -> None:
    set_queue(journal, "default", slots=1)
    Executor(journal, recover="all").run_once()
    assert rows("SELECT DISTINCT state FROM flow_run") == [("COMPLETED",)]
    assert most_at_a_time(rows, "default") == 1
    assert [run_id for run_id in began(rows) if run_id != crashed[2]] == crashed[:2]  # that one has no queue to wait in


def test_what_crashed_goes_on_before_what_waits_whatever_its_priority(journal: Journal, crashed: list[int], rows: Rows) -> None:
    set_queue(journal, "default", slots=1)
    new = put(journal, deploy(journal, noting, priority=9), what="new")
    Executor(journal).run_once()
    assert began(rows) == [crashed[0], new]


def test_crashed_runs_compete_for_the_places_of_their_deployment_too(journal: Journal, crashed: list[int], rows: Rows) -> None:
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as connection:
        connection.execute("UPDATE flow_run SET deployment_id = 1")
        connection.execute("UPDATE deployment SET concurrency_limit = 1")
    Executor(journal).run_once()
    assert rows("SELECT DISTINCT state FROM flow_run") == [("COMPLETED",)]
    assert began(rows) == crashed


@flow
def naps(what: object) -> object:
    sleep(3600, suspend=True)
    return what


@pytest.mark.parametrize("recover", ["own", "none"])
def test_a_run_that_sleeps_is_woken_when_its_timer_ends(clock: FakeClock, rows: Rows, recover: Recover) -> None:
    journal = default_journal()
    deployment = deploy(journal, naps)
    for what in (1, 2):
        put(journal, deployment, what=what)
    Executor(journal, recover=recover).run_once()
    assert rows("SELECT state, wake_at IS NOT NULL FROM flow_run") == [("PAUSED", 1)] * 2
    set_queue(journal, "default", slots=1)
    for seconds, woken in ((3599, False), (1, recover == "own")):
        clock.now += seconds
        Executor(journal, recover=recover).run_once()
        assert rows("SELECT state FROM flow_run") == [("COMPLETED" if woken else "PAUSED",)] * 2


def test_an_imported_run_is_left_to_a_person(journal: Journal, crashed: list[int], tmp_path: Path) -> None:
    journal.close()
    here = use_journal(tmp_path / "here.db")
    deploy(here, waits_at)
    import_runs(here, tmp_path / "journal.db", [])
    rows = Rows(tmp_path / "here.db")
    assert rows("SELECT deployment_id, queue, state, crashes FROM flow_run") == [
        (1, "default", "CRASHED", -1), (None, "default", "CRASHED", -1), (None, None, "CRASHED", -1),
    ]  # fmt: skip
    Executor(here, recover="all").run_once()
    assert rows("SELECT DISTINCT state FROM flow_run") == [("CRASHED",)]
    assert resume_run(here, crashed[0]).result() == "deployed"
    assert rows("SELECT crashes FROM flow_run WHERE id = 1") == [(0,)]
