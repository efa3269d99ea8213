"""Runs of deployments: written by something that does not know the flow's code, and begun by a process that does."""

from __future__ import annotations

from datetime import date

import pytest

from tests.engine.conftest import Rows
from wfengine import flow, task
from wfengine.deployments import Deployment
from wfengine.forks import fork_run
from wfengine.recovery import resume_run
from wfengine_journal import store
from wfengine_journal.codec import encode_error
from wfengine_journal.errors import ParameterError
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RefuseRun, RunRequest
from wfengine_journal.tickets import WriteRefused


@task
def following(day: date) -> str:
    return f"after {day.isoformat()} ({type(day).__name__})"


@flow(flow_run_name="report-{day}")
def report(day: date, copies: int = 1) -> str:
    return following(day) * copies


def deployed(**parameters: object) -> int:
    deployment = Deployment.build_from_flow(report, "daily", tags=["night"], parameters=parameters)
    deployment.apply()
    assert deployment.id is not None
    return deployment.id


def request(journal: store.Journal, deployment_id: int, **given: object) -> RunRequest:
    name = new_run_name(journal.records.is_run_name_taken)
    return RunRequest(deployment_id, name, journal.clock.now_text(), **given)  # type: ignore[arg-type]  # a test's shortcut


def queued(journal: store.Journal, deployment_id: int, **given: object) -> int:
    change = QueueRun(request(journal, deployment_id, **given))
    journal.write(change, synced=True)
    return change.flow_run_id


def test_values_become_what_the_flow_takes_when_the_run_is_begun_and_stay_so(own_journal: store.Journal, rows: Rows) -> None:
    run_id = queued(own_journal, deployed(copies=2), parameters={"day": "2026-11-28"}, tags=["by hand"])
    waiting = "SELECT state, state_name, parameters, tags, deployment, queue FROM runs WHERE id = ?"
    assert rows(waiting, run_id) == [
        ("SCHEDULED", "Scheduled", '{"copies":2,"day":"2026-11-28"}', '["by hand", "night"]', "report/daily", "default")
    ]
    assert resume_run(own_journal, run_id).result() == "after 2026-11-28 (date)" * 2
    assert rows("SELECT name, state, tags FROM runs WHERE id = ?", run_id) == [
        ("report-2026-11-28", "COMPLETED", '["by hand", "night"]')
    ]
    assert rows.value("SELECT count(*) FROM argument WHERE flow_run_id = ? AND task_run_id = 0 AND name = 'day'", run_id) == 1
    assert resume_run(own_journal, run_id).result() == "after 2026-11-28 (date)" * 2  # replayed


def test_values_that_do_not_fit_are_refused_and_nothing_is_written(own_journal: store.Journal, rows: Rows) -> None:
    run_id = queued(own_journal, deployed(), parameters={"day": "soon"})
    before = rows("SELECT * FROM flow_run"), rows("SELECT * FROM transition"), rows("SELECT * FROM argument")
    with pytest.raises(ParameterError, match=f"Flow run {run_id} .* cannot begin with"):
        resume_run(own_journal, run_id)
    assert before == (rows("SELECT * FROM flow_run"), rows("SELECT * FROM transition"), rows("SELECT * FROM argument"))


def test_a_refused_run_failed_with_the_reason_and_begins_once_its_values_fit(own_journal: store.Journal, rows: Rows) -> None:
    run_id = queued(own_journal, deployed(), parameters={"day": "soon"})
    refusal = RefuseRun(run_id, version=1, error=encode_error(ParameterError("no date")), at=own_journal.clock.now_text())
    own_journal.write(refusal, synced=True)
    assert rows("SELECT type, message FROM failures WHERE run_id = ?", run_id) == [
        ("wfengine_journal.errors.ParameterError", "no date")
    ]
    with pytest.raises(WriteRefused):
        own_journal.write(refusal, synced=True)
    with pytest.raises(ParameterError):
        resume_run(own_journal, run_id)
    own_journal.write(_SetParameters(run_id, '{"day":"2026-11-28"}'), synced=True)
    assert resume_run(own_journal, run_id).result() == "after 2026-11-28 (date)"


class _SetParameters:
    """What a person does with the sqlite3 program."""

    def __init__(self, run_id: int, text: str) -> None:
        self.values = (text, run_id)

    def apply(self, connection: object) -> None:
        connection.execute("UPDATE flow_run SET parameters = ? WHERE id = ?", self.values)  # type: ignore[attr-defined]

    def landed(self, connection: object) -> bool:
        return True


def test_one_idempotency_key_gives_one_run(own_journal: store.Journal) -> None:
    deployment_id = deployed(day="2026-11-28")
    run_id = queued(own_journal, deployment_id, idempotency_key="order 7")
    again = QueueRun(request(own_journal, deployment_id, idempotency_key="order 7"))
    with pytest.raises(WriteRefused):
        own_journal.write(again, synced=True)
    assert again.existing_id == run_id


def test_each_state_of_a_flow_run_is_an_event_in_order(own_journal: store.Journal, rows: Rows) -> None:
    run_id = queued(own_journal, deployed(day="2026-11-28"))
    resume_run(own_journal, run_id)
    assert rows("SELECT name, resource FROM events WHERE run_id = ? ORDER BY id", run_id) == [
        (f"wfengine.flow-run.{state}", f"wfengine.flow-run.{run_id}") for state in ("Scheduled", "Running", "Completed")
    ]


def test_every_recorded_change_of_a_flow_run_is_an_event(own_journal: store.Journal, rows: Rows) -> None:
    @flow
    def fails(times: int) -> None:
        if times:
            raise ValueError("no")

    resume_run(own_journal, queued(own_journal, deployed(day="2026-11-28")))
    fails(0)
    fails(1, return_state=True)
    fork_run(own_journal, int(str(rows.value("SELECT max(id) FROM flow_run"))), flow=fails)
    changes = rows(
        "SELECT flow_run_id, coalesce(state_name, substr(state, 1, 1) || lower(substr(state, 2))), at FROM transition"
        " WHERE task_run_id = 0 ORDER BY 1, at, seq"
    )
    events = rows("SELECT flow_run_id, replace(name, 'wfengine.flow-run.', ''), occurred_at FROM event ORDER BY 1, id")
    assert len(events) == 8
    assert events == changes
