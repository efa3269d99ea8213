"""Deduplication keys: while a run with one waits or runs in its queue, there is no second one, however many ask."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import continue_as_new, flow, task
from wfengine.automations import Automation, EventTrigger, RunDeployment
from wfengine.automations.service import Automations
from wfengine.cancellation import cancel
from wfengine.deployments import run_deployment
from wfengine.events import emit_event
from wfengine.executor import Executor
from wfengine.recovery import resume_run
from wfengine_journal.errors import DuplicateRunError, UsageError
from wfengine_journal.store import Journal


@flow
def etl(day: str = "today") -> str:
    if day == "never":
        raise ValueError("there is no such day")
    return day


@flow
def other(day: str = "today") -> str:
    return day


@pytest.fixture(autouse=True)
def _deployed(journal: Journal) -> None:
    etl.deploy("nightly")
    other.deploy("nightly")


def ask(name: str = "etl/nightly", key: str = "k", **options: Any) -> int:
    found = run_deployment(name, timeout=0, deduplication_key=key, **options)
    return int(found.id)


def test_a_key_is_held_until_its_run_has_ended_however_it_ends(journal: Journal, rows: Rows) -> None:
    ends: list[tuple[str, Callable[[int], object]]] = [
        ("COMPLETED", lambda _: Executor(journal).run_once()),
        ("FAILED", lambda _: Executor(journal).run_once()),
        ("CANCELLED", cancel),
    ]
    for number, (state, end) in enumerate(ends, 1):
        assert ask(parameters={"day": "never" if state == "FAILED" else "a"}) == number
        assert [ask(parameters={"day": "b"}), ask()] == [number, number]
        end(number)
        assert rows.state(number)[0] == state
    assert ask() == 4
    assert rows("SELECT deduplication_key FROM runs") == [("k",)] * 4


def test_keys_of_other_queues_and_flows_are_others(journal: Journal) -> None:
    assert [ask(), ask(key="l"), ask(queue="quick"), ask("other/nightly"), ask()] == [1, 2, 3, 4, 1]
    etl.deploy("weekly")
    assert ask("etl/weekly") == 1
    assert run_deployment("etl/nightly", timeout=0).id == 5


def test_a_request_that_refuses_duplicates_names_the_run_and_writes_nothing(rows: Rows) -> None:
    assert ask(on_duplicate="refuse") == 1
    with pytest.raises(DuplicateRunError, match=r"holds this deduplication key in queue 'default'.*Scheduled") as caught:
        ask(on_duplicate="refuse")
    assert caught.value.flow_run_id == 1
    assert rows.value("SELECT count(*) FROM flow_run") == 1


@pytest.mark.parametrize("options", [{"on_duplicate": "replace"}, {"on_duplicate": None}, {"key": " "}, {"key": 1}])
def test_what_makes_no_sense_is_refused(rows: Rows, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask(**options)
    assert rows("SELECT 1 FROM flow_run") == []


def test_the_idempotency_key_answers_first(journal: Journal) -> None:
    assert ask(idempotency_key="once") == 1
    Executor(journal).run_once()
    assert ask() == 2
    assert ask(idempotency_key="once", on_duplicate="refuse") == 1


def test_a_failed_run_can_be_taken_up_while_another_one_holds_its_key(journal: Journal) -> None:
    assert ask(parameters={"day": "never"}) == 1
    Executor(journal).run_once()
    assert ask() == 2
    with pytest.raises(ValueError, match="no such day"):
        resume_run(journal, 1).result()
    assert ask() == 2


@flow
def endless(left: int = 2) -> int:
    if left:
        continue_as_new(left=left - 1)
    return run_deployment("endless/e", timeout=0, deduplication_key="k").id


def test_a_run_that_goes_on_as_a_new_one_holds_its_key_on(journal: Journal, rows: Rows) -> None:
    endless.deploy("e")
    assert ask("endless/e") == 1
    Executor(journal).run_once()
    assert rows("SELECT id, result FROM runs WHERE state = 'COMPLETED' ORDER BY id DESC LIMIT 1") == [(3, "3")]
    assert ask("endless/e") == 4


# ------------------------------------------------------------------------------------------- in a flow, by an automation

FAIL: list[int] = []


@task
def fail_once() -> None:
    if not FAIL:
        FAIL.append(1)
        raise ValueError("once")


@flow
def asking(policy: str) -> list[object]:
    found: list[object] = []
    for _ in range(2):
        try:
            found.append(run_deployment("etl/nightly", timeout=0, deduplication_key="k", on_duplicate=policy).id)
        except DuplicateRunError as error:
            found.append(str(error)[:10])
    fail_once()
    return found


@pytest.mark.parametrize(("policy", "answers"), [("return", [2, 2]), ("refuse", [2, "Flow run 2"])])
def test_a_flow_is_given_the_same_answer_when_it_is_resumed(journal: Journal, policy: str, answers: list[object]) -> None:
    FAIL.clear()
    with pytest.raises(ValueError, match="once"):
        asking(policy)
    Executor(journal).run_once()  # the key is free again
    assert resume_run(journal, 1).result() == answers


def test_an_automation_starts_no_second_run_and_names_the_one_there_is(journal: Journal, rows: Rows) -> None:
    action = RunDeployment(deployment="etl/nightly", deduplication_key="{{ event.payload }}")
    Automation(name="a", trigger=EventTrigger(expect={"changed"}), actions=[action]).create()
    service = Automations(journal)
    for payload in ("x", "x", "y"):
        emit_event("changed", "file", payload=payload)
    while service.step():
        pass
    assert rows("SELECT id, deduplication_key FROM flow_run") == [(1, "x"), (2, "y")]
    done = [json.loads(str(text))[0] for (text,) in rows("SELECT results FROM firings ORDER BY id")]
    assert [(each["outcome"], each["flow_run_id"], each.get("is_new")) for each in done] == [
        ("done", 1, None), ("done", 1, False), ("done", 2, None),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- other processes

ASKER = """
import sys
from wfengine import use_journal
from wfengine.deployments import run_deployment
use_journal("journal.db")
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    print(run_deployment("etl/nightly", timeout=0, deduplication_key=f"k{number}").id)
"""


def test_of_processes_that_ask_at_once_all_are_given_one_run_for_each_key(program: Program, rows: Rows) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER], cwd=program.folder, env=program.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answers.append(process.communicate(timeout=60)[0].split())
        assert process.returncode == 0
    assert answers[0] == answers[1] == answers[2]
    assert rows("SELECT count(*), count(DISTINCT deduplication_key) FROM flow_run") == [(40, 40)]
