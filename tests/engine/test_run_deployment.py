"""`run_deployment`: what it writes, what it refuses, how it waits, and that a resumed flow is given the run it asked for."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.crash.harness import environment
from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.deployments import run_deployment
from wfengine.executor import Executor
from wfengine.journals import default_journal
from wfengine.run_objects import FlowRun
from wfengine_journal import store
from wfengine_journal.deployments import RemoveDeployment
from wfengine_journal.errors import InvalidValueError, NotFoundError, ParameterError, UsageError, WfengineError

#: Seconds after which a wait counts as hanging.
SECONDS = 60


@flow
def etl(day: str, size: int = 3, mode: Literal["fast", "slow"] = "fast", ids: list[int] | None = None) -> str:
    if day == "never":
        raise ValueError("there is no such day")
    return f"{day} {size}"


@flow
def anything(**rest: object) -> dict[str, object]:
    return rest


@pytest.fixture
def nightly() -> int:
    made = etl.deploy("nightly", parameters={"size": 5}, tags=["prod"], queue="slow", priority=2)
    assert made is not None
    return made


def served(journal: store.Journal, limit: int = 4) -> Callable[[], None]:
    """Execute what is put into queues, on a thread, until the returned function is called."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            mark = journal.changes.mark()
            Executor(journal, limit=limit).run_once()
            journal.changes.wait(mark, 0.2)

    thread = threading.Thread(target=work)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join(SECONDS)

    return stop


def test_request_without_a_wait_stands_in_the_queue(rows: Rows, nightly: int) -> None:
    due = datetime(2030, 1, 1, tzinfo=UTC)
    run = run_deployment(
        "etl/nightly", {"day": "monday"}, due, "my run", 0, ["mine"], "key-1", partition_key="eu", priority=7, queue="quick"
    )
    assert isinstance(run, FlowRun)
    assert (run.id, run.name, run.flow_name, run.state_name, run.deployment_id) == (1, "my run", "etl", "Scheduled", nightly)
    columns = "name, queue, priority, partition_key, state, parameters, tags, due_at, idempotency_key"
    assert rows(f"SELECT {columns} FROM flow_run") == [
        (
            "my run", "quick", 7, "eu", "SCHEDULED", '{"size":5,"day":"monday"}', '["mine", "prod"]',
            "2030-01-01T00:00:00.000000Z", "key-1",
        )
    ]  # fmt: skip
    again = run_deployment("nightly", {"day": "tuesday"}, timeout=0, idempotency_key="key-1")
    assert (again.id, again.parameters) == (1, {"size": 5, "day": "monday"})
    assert run_deployment(nightly, {"day": "tuesday"}, timeout=0).id == 2


def test_returned_run_has_ended_with_its_result(journal: store.Journal, nightly: int) -> None:
    stop = served(journal)
    try:
        run = run_deployment("etl/nightly", {"day": "monday"})
        assert (run.state_name, run.state.result()) == ("Completed", "monday 5")
        failed = run_deployment("etl/nightly", {"day": "never"})
    finally:
        stop()
    assert failed.state.is_failed()
    with pytest.raises(ValueError, match="there is no such day"):
        failed.state.result()


def test_wait_that_is_over_returns_the_run_as_it_is(nightly: int) -> None:
    assert run_deployment("nightly", {"day": "monday"}, timeout=0.05).state_name == "Scheduled"


def test_async_code_awaits_it_and_its_loop_goes_on(journal: store.Journal, nightly: int) -> None:
    async def work() -> tuple[list[FlowRun], FlowRun]:
        ticks = asyncio.create_task(asyncio.sleep(0))
        both = asyncio.gather(*(run_deployment("nightly", {"day": day}) for day in ("a", "b")))
        late = await run_deployment("nightly", {"day": "late"}, timeout=0, scheduled_time=datetime(2090, 1, 1, tzinfo=UTC))
        await ticks
        return await both, late

    stop = served(journal)
    try:
        both, late = asyncio.run(work())
    finally:
        stop()
    assert [run.state.result() for run in both] == ["a 5", "b 5"]
    assert late.state_name == "Scheduled"


BAD: list[tuple[str, dict[str, Any], type[WfengineError], str]] = [
    ("no such deployment", {"name": "weekly"}, NotFoundError, "no deployment 'weekly'"),
    ("no name", {"name": ""}, UsageError, "a deployment's name"),
    ("a name that is a number", {"name": 1.5}, UsageError, "a deployment's name"),
    ("unknown parameter", {"parameters": {"dya": "x"}}, ParameterError, "no parameter 'dya'"),
    ("missing parameter", {"parameters": {}}, ParameterError, "'day' is missing"),
    ("text for a number", {"parameters": {"day": "x", "size": "big"}}, ParameterError, "'size' is a whole number"),
    ("number for a text", {"parameters": {"day": 3}}, ParameterError, "'day' is a text"),
    ("none for a text", {"parameters": {"day": None}}, ParameterError, "'day' is a text"),
    ("not among the choices", {"parameters": {"day": "x", "mode": "medium"}}, ParameterError, 'one of "fast", "slow"'),
    ("text for a list", {"parameters": {"day": "x", "ids": "1"}}, ParameterError, "'ids' is a list or null"),
    ("no JSON", {"parameters": {"day": object()}}, InvalidValueError, "JSON does not have"),
    ("parameters that are no dict", {"parameters": [1]}, UsageError, "a dict by name"),
    ("instant without a zone", {"scheduled_time": datetime(2030, 1, 1)}, UsageError, "with a time zone"),  # noqa: DTZ001
    ("a text as instant", {"scheduled_time": "tomorrow"}, UsageError, "with a time zone"),
    ("negative timeout", {"timeout": -1}, UsageError, "0 or more"),
    ("a text as tags", {"tags": "prod"}, UsageError, "list of texts"),
    ("empty key", {"idempotency_key": " "}, UsageError, "not empty"),
    ("queue of tasks", {"queue": "task:x"}, UsageError, "a queue is named"),
    ("priority", {"priority": 10**9}, UsageError, "whole number"),
    ("unknown option", {"paramters": {}}, UsageError, "no option paramters"),
]


@pytest.mark.parametrize(("options", "kind", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_nonsense_is_refused_before_anything_is_written(
    rows: Rows, nightly: int, options: dict[str, Any], kind: type[WfengineError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        run_deployment(**{"name": "etl/nightly", "parameters": {"day": "x"}, "timeout": 0, **options})
    assert rows.value("SELECT count(*) FROM flow_run") == 0


def test_what_the_flow_would_take_is_not_refused(rows: Rows, nightly: int) -> None:
    for parameters in ({"size": "3"}, {"size": 4.0}, {"size": True}, {"ids": [1, "2"]}, {"ids": None}, {"mode": "slow"}):
        run_deployment("nightly", {"day": "x", **parameters}, timeout=0)  # type: ignore[dict-item]
    anything.deploy("any")
    run_deployment("any", {"whatever": [1, {"a": None}]}, timeout=0)
    assert rows.value("SELECT count(*) FROM flow_run") == 7


def test_removed_deployment_takes_its_waiting_runs_along_and_comes_back_when_it_is_applied(
    journal: store.Journal, rows: Rows, nightly: int
) -> None:
    etl.deploy("nightly", parameters={"size": 5}, cron="0 3 * * *")
    run_deployment("nightly", {"day": "x"}, timeout=0)
    Executor(journal).run_once()
    run_deployment("nightly", {"day": "y"}, timeout=0)
    change = RemoveDeployment(nightly, at=journal.clock.now_text())
    journal.write(change, synced=True)
    assert change.cancelled == 1
    assert rows("SELECT state, state_message FROM flow_run ORDER BY id") == [
        ("COMPLETED", None), ("CANCELLED", "its deployment was removed before it had begun"),
    ]  # fmt: skip
    assert rows("SELECT due_at, next_at, removed_at IS NULL FROM schedule") == [(None, None, 0)]
    assert rows("SELECT 1 FROM deployments") == []
    with pytest.raises(NotFoundError):
        run_deployment("nightly", {"day": "z"}, timeout=0)
    assert etl.deploy("nightly", parameters={"size": 5}, cron="0 3 * * *") == nightly
    assert rows("SELECT due_at IS NOT NULL, removed_at FROM schedule") == [(1, None)]


# ------------------------------------------------------------------------------------------- in a flow


def test_flow_that_asks_has_two_calls_and_is_given_the_run(journal: store.Journal, rows: Rows, nightly: int) -> None:
    @flow
    def outer() -> str:
        run = run_deployment("etl/nightly", {"day": "monday"})
        assert run_deployment("etl/nightly", {"day": "later"}, timeout=0).state_name == "Scheduled"
        return str(run.state.result())

    stop = served(journal)
    try:
        assert outer() == "monday 5"
    finally:
        stop()
    assert rows("SELECT name, state FROM tasks WHERE run_id = 1 ORDER BY id") == [
        ("wfengine.run_deployment-1", "COMPLETED"),
        ("wfengine.wait_for_run-2", "COMPLETED"),
        ("wfengine.run_deployment-3", "COMPLETED"),
    ]


def test_refused_request_in_a_flow_is_an_exception_there_and_writes_nothing(rows: Rows, nightly: int) -> None:
    @flow
    def outer() -> str:
        try:
            run_deployment("etl/nightly", {"dya": 1})
        except ParameterError as error:
            return str(error)
        return "nothing"

    assert "no parameter 'dya'" in outer()
    assert rows.value("SELECT count(*) FROM flow_run") == 1


def test_timeout_in_a_flow_counts_from_the_first_wait_and_is_recorded(rows: Rows, nightly: int) -> None:
    seen = []

    @task
    def step() -> None:
        if len(seen) == 1:
            raise ValueError("once")

    @flow
    def outer() -> str:
        run = run_deployment("etl/nightly", {"day": "monday"}, timeout=0.05)
        seen.append(run)
        step()
        return run.state_name

    with pytest.raises(ValueError, match="once"):
        outer()
    Executor(default_journal()).run_once()  # it has ended meanwhile
    assert outer.resume(1) == "Scheduled"
    assert [run.id for run in seen] == [2, 2]
    assert rows.state(2) == ("COMPLETED", "Completed")


def test_async_flow_asks_for_several_runs_at_once(journal: store.Journal, nightly: int) -> None:
    @flow
    async def outer() -> list[str]:
        runs = await asyncio.gather(*(run_deployment("etl/nightly", {"day": day}) for day in ("a", "b", "c")))
        return [await run.state.result() for run in runs]  # type: ignore[misc]

    stop = served(journal)
    try:
        assert asyncio.run(outer()) == ["a 5", "b 5", "c 5"]
    finally:
        stop()


@flow
def waits_for_another(day: str) -> str:
    return "outer " + run_deployment("etl/nightly", {"day": day}).state.result()


def test_run_that_waits_for_another_leaves_its_place_in_the_executor(journal: store.Journal, nightly: int) -> None:
    waits_for_another.deploy("outer")
    stop = served(journal, limit=1)
    try:
        run = run_deployment("outer", {"day": "monday"}, timeout=SECONDS)
    finally:
        stop()
    assert run.state.result() == "outer monday 5"


# ------------------------------------------------------------------------------------------- other processes, and kills

FLOWS = """
    from wfengine.deployments import run_deployment

    @task
    def before():
        note("before")
        return 1

    @flow
    def etl(day="today"):
        note(f"etl {day}")
        return f"{day} done"

    @flow
    def outer():
        before()
        run = run_deployment("etl/nightly", {"day": "monday"})
        again = run_deployment("etl/nightly", {"day": "tuesday"}, timeout=0)
        return [run.id, run.state.result(), again.id]
"""


def test_run_asked_for_by_one_process_is_executed_by_another_with_resume(program: Program, rows: Rows) -> None:
    program.write(FLOWS + '\n    if __name__ == "__main__":\n        etl.deploy("nightly")\n')
    program.run()
    run = run_deployment("etl/nightly", {"day": "monday"}, timeout=0)
    found: list[FlowRun] = []
    waiter = threading.Thread(
        target=lambda: found.append(run_deployment("etl/nightly", {"day": "x"}, idempotency_key="k", timeout=SECONDS))
    )
    waiter.start()
    mark = threading.Event()
    while rows.value("SELECT count(*) FROM flow_run") != 2:
        mark.wait(0.01)
    for run_id in (run.id, 2):
        done = program.python("-m", "wfengine", "resume", str(run_id))
        assert done.code == 0, done
    waiter.join(SECONDS)
    assert [(each.id, each.state.result()) for each in found] == [(2, "x done")]
    assert program.effects == ["etl", "monday", "etl", "x"]


DRIVER = """
import os, sys
from wfengine import use_journal
sys.path.insert(0, ".")

journal = use_journal("journal.db")
kill, commits = int(sys.argv[1]), 0

def probe(moment, number, changes):
    global commits
    commits = max(commits, number)
    if moment == "after" and number == kill:
        os.kill(os.getpid(), 9)

import asking
journal.probe_commits(probe)
what = sys.argv[2]
if what == "start":
    asking.outer()
else:
    asking.outer.resume(int(what))
print(commits)
"""
ASKING = """
import os, threading
from wfengine import flow, task
from wfengine.deployments import run_deployment

@task
def before():
    return 1

@flow
def etl(day="today"):
    return f"{day} done"

@flow
def outer():
    before()
    run = run_deployment("etl/nightly", {"day": "monday"}, timeout=0.01)
    again = run_deployment("etl/nightly", {"day": "tuesday"}, timeout=0)
    return [run.id, again.id]
"""


@pytest.mark.crash
def test_after_a_kill_at_any_commit_the_resumed_flow_has_asked_once(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    (template / "asking.py").write_text(ASKING)
    (template / "driver.py").write_text(DRIVER)
    code = "from wfengine import use_journal; use_journal('journal.db'); import asking; asking.etl.deploy('nightly')"
    subprocess.run([sys.executable, "-c", code], cwd=template, env=environment(), check=True, timeout=SECONDS)

    def prepare(folder: Path) -> Path:
        shutil.copytree(template, folder)
        return folder

    def drive(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "driver.py", *arguments],
            cwd=folder, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    undisturbed = drive(prepare(tmp_path / "undisturbed"), "0", "start")
    assert undisturbed.returncode == 0, undisturbed
    commits = int(undisturbed.stdout)
    assert commits >= 5
    for number in range(1, commits + 1):
        folder = prepare(tmp_path / str(number))
        drive(folder, str(number), "start")
        read = Rows(folder / "journal.db")
        ids = [row[0] for row in read("SELECT id FROM flow_run WHERE deployment_id IS NULL")]
        if not ids:  # killed before the run was there
            assert read("SELECT 1 FROM flow_run") == []
            continue
        if read.value("SELECT state FROM flow_run WHERE id = ?", ids[0]) != "COMPLETED":
            after = drive(folder, "0", str(ids[0]))
            assert after.returncode == 0, (number, after)
        assert read.value("SELECT state FROM flow_run WHERE id = ?", ids[0]) == "COMPLETED"
        asked = read("SELECT id, parameters, state FROM flow_run WHERE deployment_id IS NOT NULL ORDER BY id")
        assert [(json.loads(str(text))["day"], state) for _, text, state in asked] == [
            ("monday", "SCHEDULED"), ("tuesday", "SCHEDULED"),
        ]  # fmt: skip
        result = json.loads(str(read.value("SELECT result FROM runs WHERE id = ?", ids[0])))
        assert result == [row[0] for row in asked]
