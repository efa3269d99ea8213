"""References in parameters: resolved when the run begins, and what the journal keeps of them."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from pydantic import SecretStr

from tests.engine.conftest import Rows
from tests.secrets.conftest import Written
from wfengine import flow, secrets
from wfengine.automations import Automation, EventTrigger, RunDeployment
from wfengine.automations.service import Automations
from wfengine.deployments import Deployment, run_deployment
from wfengine.events import emit_event
from wfengine.executor import Executor
from wfengine.recovery import resume_run
from wfengine.secrets import Secret
from wfengine.variables import Variable
from wfengine_journal.errors import ParameterError, SecretError
from wfengine_journal.store import Journal

VALUE = "r3ferred-value"
SEEN: list[tuple[object, ...]] = []


@flow(name="etl")
def etl(password: str, limit: int = 3, options: dict[str, Any] | None = None, hidden: SecretStr | None = None) -> str:
    if os.environ.get("ETL_FAILS"):
        raise RuntimeError("once")
    SEEN.append((password, limit, options, None if hidden is None else hidden.get_secret_value()))
    return f"{password[:3]} {limit}"


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def run_all(journal: Journal) -> None:
    Executor(journal).run_once()


def deploy(**parameters: object) -> None:
    Deployment.build_from_flow(etl, "main", parameters=parameters).apply()


def test_references_of_a_deployment_are_resolved_when_the_run_begins(journal: Journal, rows: Rows, written: Written) -> None:
    secrets.set("db", VALUE)
    Variable.set("limit", 500)
    Variable.set("region", "north")
    deploy(
        password="{{ secrets.db }}", limit="{{ variables.limit }}", hidden="{{secrets.db}}",
        options={"url": "https://{{ variables.region }}/{{ secrets.db }}", "list": ["{{ variables.limit }}"], "x": "{{ x }}"},
    )  # fmt: skip
    run_deployment("etl/main", timeout=0)
    assert "{{ secrets.db }}" in str(rows("SELECT parameters FROM runs"))
    Variable.set("limit", 7, overwrite=True)
    run_all(journal)
    assert [(VALUE, 7, {"url": f"https://north/{VALUE}", "list": [7], "x": "{{ x }}"}, VALUE)] == SEEN
    ((parameters, state),) = rows("SELECT parameters, state FROM runs")
    assert (json.loads(str(parameters))["password"], json.loads(str(parameters))["limit"], state) == (
        "Secret('db')",
        7,
        "COMPLETED",
    )
    assert VALUE not in written


def test_a_resumed_run_has_the_variables_that_it_began_with_and_the_secret_as_it_is_now(
    journal: Journal, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.set("db", VALUE)
    Variable.set("limit", 500)
    deploy(password="{{ secrets.db }}", limit="{{ variables.limit }}")
    run_deployment("etl/main", timeout=0)
    monkeypatch.setenv("ETL_FAILS", "1")
    run_all(journal)
    assert rows.state() == ("FAILED", "Failed")
    monkeypatch.delenv("ETL_FAILS")
    Variable.set("limit", 1, overwrite=True)
    secrets.set("db", "another-value", overwrite=True)
    assert resume_run(journal, 1).result() == "ano 500"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ secrets.missing }}", r"There is no secret 'missing'. Set it: wfengine secrets set missing"),
        ("{{ variables.missing }}", r"There is no variable 'missing'. Set it: wfengine variables set missing VALUE"),
        ("a {{ secrets.missing }} b", r"There is no secret 'missing'"),
        ("{{ secrets.a b }}", r"is no reference: write \{\{ secrets.NAME \}\}"),
        ("{{ secrets.command:ls }}", r"is no reference"),
        ("{{ variables.indirect }}", r"Variable 'indirect' holds a reference itself, and those are not followed"),
    ],
)
def test_a_reference_that_leads_nowhere_fails_the_run_plainly(journal: Journal, rows: Rows, text: str, said: str) -> None:
    Variable.set("indirect", "{{ secrets.db }}")
    deploy(password=text)
    run_deployment("etl/main", timeout=0)
    run_all(journal)
    assert rows.state() == ("FAILED", "Failed")
    ((message,),) = rows("SELECT message FROM failures")
    assert re.search(said, str(message)), message
    assert SEEN == []


def test_a_request_may_refer_and_give_a_secret_itself(journal: Journal, rows: Rows) -> None:
    secrets.set("db", VALUE)
    Variable.set("limit", 4)
    deploy(password="x")
    run_deployment("etl/main", parameters={"password": Secret("db"), "limit": "{{ variables.limit }}"}, timeout=0)
    assert json.loads(str(rows("SELECT parameters FROM runs")[0][0]))["password"] == "{{ secrets.db }}"
    run_all(journal)
    assert SEEN == [(VALUE, 4, None, None)]
    with pytest.raises(SecretError, match=r"only a secret with a name can"):
        run_deployment("etl/main", parameters={"password": Secret("env:X")}, timeout=0)


def test_the_value_of_a_secret_is_no_parameter_of_a_deployment() -> None:
    secrets.set("db", VALUE)
    with pytest.raises(ValueError, match=r"holds the value of a secret.*\{\{ secrets.NAME \}\}"):
        deploy(password=str(secrets.get("db")))


def test_prefects_way_of_writing_them_is_known(journal: Journal) -> None:
    secrets.set("db", VALUE)
    Variable.set("limit", 4)
    deploy(password="{{ prefect.blocks.secret.db }}", limit="{{ prefect.variables.limit }}")
    run_deployment("etl/main", timeout=0)
    run_all(journal)
    assert SEEN == [(VALUE, 4, None, None)]


def test_an_event_cannot_choose_a_secret(journal: Journal, rows: Rows) -> None:
    secrets.set("admin", VALUE)
    deploy(password="x")
    Automation(
        name="a",
        trigger=EventTrigger(expect=("order.placed",)),
        actions=[RunDeployment(deployment="etl/main", parameters={"password": "{{ event.payload.note }}"})],
    ).create()
    emit_event("order.placed", resource="order.1", payload={"note": "{{ secrets.admin }}"})
    service = Automations(journal)
    while service.step():
        pass
    assert rows("SELECT count(*) FROM runs") == [(0,)]
    assert "those are not followed in what comes from an event" in str(rows("SELECT results FROM firings"))


def test_what_a_flow_is_called_with_in_code_is_text() -> None:
    etl("{{ secrets.db }}")
    assert SEEN == [("{{ secrets.db }}", 3, None, None)]


def test_a_reference_for_a_parameter_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(ParameterError):
        deploy(nonsense="{{ secrets.db }}")
