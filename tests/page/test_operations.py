"""What can be done over HTTP: the same as on the command line, by the command that is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest
from serving_page import Page, run_program, start_flow, until

from wfengine.page.parameters import collect
from wfengine.page.table import OPERATIONS, find
from wfengine_journal.errors import UsageError


def is_refused(answer: httpx.Response) -> bool:
    """Tell whether what was started refused; on a busy machine it says so later than it is waited for, and then has ended."""
    if answer.status_code == 202:
        pid = answer.json()["answer"]["pid"]
        until(lambda: not is_there(pid), "the command ended")
    return answer.status_code in (202, 400, 409)


def is_there(pid: int) -> bool:
    """Tell whether there is a process with that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_operation_has_a_name_a_path_and_parameters_of_its_own() -> None:
    assert len({each.name for each in OPERATIONS}) == len(OPERATIONS)
    assert len({(each.method, each.path) for each in OPERATIONS}) == len(OPERATIONS)
    for each in OPERATIONS:
        assert {f"{{{parameter.name}}}" in each.path for parameter in each.parameters if parameter.place == "path"} <= {True}
        assert each.changes == (each.method in ("POST", "DELETE"))


def test_the_commands_that_are_shown_are_commands_that_there_are() -> None:
    import click

    from wfengine.cli import root

    values = {
        "run_id": 7, "reason": "why", "value": {"a": 1}, "key": "k", "parameters": {"day": "x"}, "rerun": ["failed"],
        "on_drift": "rerun", "takeover": True, "from_task": "load", "topic": "t", "idempotency_key": "i", "action": "cancel",
        "run_ids": [7], "task_run_id": 3, "result": {"a": 1}, "flow": "f", "deployment": "d", "q": "SELECT 1",
        "schedule_id": 3, "start": "2026-11-01", "end": "2026-11-02", "dry_run": True, "name": "-n", "slots": 3, "rate": "10/s",
        "tag": True, "per_partition": "none", "resource": "-r", "payload": {"a": 1}, "labels": {"a": "b"},
        "event": {"name": "x"}, "then_seconds": 3, "tags": ["-t"], "overwrite": True, "event_id": 4, "artifact_id": 5,
        "run_name": "-x", "at": "2026-11-01", "description": "-d", "queue": "q", "priority": 3,
    }  # fmt: skip
    for each in OPERATIONS:
        words = each.words(values)
        if words is None:
            continue
        group: click.Command = root
        context = click.Context(root)
        while isinstance(group, click.Group):
            command = group.get_command(context, words[0])
            assert command is not None, (each.name, words)
            group, words = command, words[1:]
            context = click.Context(group, parent=context)
        group.make_context(group.name, list(words), parent=click.Context(root))  # raises for an option that there is not


def test_a_run_is_cancelled_and_the_answer_holds_the_command(own_page: Page) -> None:
    process = start_flow(own_page.folder, "waiting")
    try:
        until(lambda: own_page.json("/api/v1/runs", search="flow:waiting state:running")["runs"], "it runs")
        answer = own_page.do("/runs/2/cancel", reason="--wrong; $(touch day)")
        assert answer.status_code == 200, answer.text
        assert answer.json()["command"].startswith("wfengine cancel '--reason=--wrong; $(touch day)' 2 --journal ")
        (own_page.folder / "go").touch()  # a sync task ends by itself; nothing begins after it
        until(lambda: own_page.state(2) == "CANCELLED", "it is cancelled")
        assert "--wrong; $(touch day)" in str(own_page.json("/api/v1/runs/2/history"))
        assert own_page.do("/runs/2/cancel").status_code in (400, 409)
    finally:
        process.wait(60)
    assert not (own_page.folder / "day").exists()


def test_a_killed_run_is_seen_crashed_and_its_resume_planned_and_done(own_page: Page) -> None:
    process = start_flow(own_page.folder, "waiting")
    until(lambda: own_page.json("/api/v1/runs", search="flow:waiting log:waiting")["runs"], "it waits")
    process.kill()
    process.wait(60)
    until(lambda: own_page.state(2) == "CRASHED", "the page sees it crashed")
    plan = own_page.do("/runs/2/plan")
    assert plan.status_code == 200, plan.text
    assert plan.json()["answer"]["plans"][0]["counts"]["REPLAY"] == 1
    assert own_page.state(2) == "CRASHED", "nothing was run"
    (own_page.folder / "go").touch()
    assert own_page.do("/runs/2/resume").status_code == 202
    until(lambda: own_page.state(2) == "COMPLETED", "it is resumed")


def test_failures_are_retried_in_bulk_by_what_is_searched_for(own_page: Page) -> None:
    run_program(own_page.folder, *["failing"] * 3)
    looked_at = own_page.do("/runs/bulk", action="retry", search="state:failed", dry_run=True).json()
    assert (looked_at["matched"], looked_at["done"]) == (3, 0)
    assert looked_at["run_ids"] == [4, 3, 2]
    (own_page.folder / "mended").touch()
    assert own_page.do("/runs/bulk", action="retry", search="state:failed").status_code == 200
    until(lambda: len(own_page.json("/api/v1/runs", search="state:completed flow:failing")["runs"]) == 3, "all are mended")  # type: ignore[arg-type]


def test_a_bulk_action_tells_which_runs_refused_it_and_does_the_others(own_page: Page) -> None:
    run_program(own_page.folder, "asking", "failing", "asking")
    answer = own_page.do("/runs/bulk", action="cancel", run_ids=[1, 2, 3, 4])
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["matched"], found["done"], [each["run_id"] for each in found["refused"]]) == (4, 2, [1, 3])
    assert [own_page.state(run_id) for run_id in (2, 4)] == ["CANCELLED", "CANCELLED"]
    assert own_page.do("/runs/bulk", action="cancel", run_ids=[2, 99]).status_code == 404, "each of them is looked up"
    assert own_page.do("/runs/bulk", action="cancel", run_ids=[2], search="x").status_code == 400
    assert own_page.do("/runs/bulk", action="cancel").status_code == 400


def test_an_input_is_given_and_the_run_goes_on(own_page: Page) -> None:
    run_program(own_page.folder, "asking")
    asked = own_page.json("/api/v1/inputs")["inputs"]
    assert [(each["run_id"], each["key"]) for each in asked] == [(2, "approval")]  # type: ignore[attr-defined]
    wrong = own_page.do("/runs/2/answer", value={"approved": "perhaps"})
    assert is_refused(wrong), wrong.text
    assert own_page.state(2) == "PAUSED"
    assert own_page.do("/runs/2/answer", value={"approved": True, "note": "@/etc/passwd"}).status_code == 202
    until(lambda: own_page.state(2) == "COMPLETED", "it goes on")
    assert own_page.json("/api/v1/runs/2")["run"]["result"] == "yes"  # type: ignore[index]


def test_of_a_call_in_doubt_somebody_says_whether_it_took_effect(own_page: Page) -> None:
    process = start_flow(own_page.folder, "doubtful")
    until(lambda: (own_page.folder / "begun").exists(), "the call began")
    process.kill()
    process.wait(60)
    until(lambda: own_page.state(2) == "CRASHED", "the page sees it crashed")
    own_page.do("/runs/2/resume")
    until(lambda: own_page.state(2) == "PAUSED", "it waits for somebody's word")
    doubt = own_page.json("/api/v1/runs/2")["in_doubt"]
    assert own_page.do("/runs/2/resolve", task_run_id=doubt["task_run_id"]).status_code == 400  # type: ignore[index]
    assert "wfengine resolve" in own_page.client.get("/runs/2").text
    answer = own_page.do("/runs/2/resolve", task_run_id=doubt["task_run_id"], result="sent")  # type: ignore[index]
    assert answer.status_code == 200, answer.text
    own_page.do("/runs/2/resume")
    until(lambda: own_page.state(2) == "COMPLETED", "it goes on")
    assert own_page.json("/api/v1/runs/2")["run"]["result"] == "sent"  # type: ignore[index]


def test_each_choice_of_an_operation_is_one_of_the_command(own_page: Page) -> None:
    run_program(own_page.folder, "failing")
    for choice in next(each.choices for each in find("runs.resume").parameters if each.name == "on_drift"):
        assert own_page.do("/runs/2/plan", on_drift=choice).status_code == 200


def test_a_fork_has_edited_parameters_and_a_text_is_never_taken_for_a_file(own_page: Page) -> None:
    run_program(own_page.folder, "failing")
    secret = own_page.folder / "secret.txt"
    secret.write_text("secret")
    answer = own_page.do("/runs/2/fork", parameters={"day": f"@{secret}", "worst": 5}, from_task="check")
    assert answer.status_code == 200, answer.text
    forked = own_page.json(f"/api/v1/runs/{answer.json()['answer']['run_id']}")["run"]
    assert forked["parameters"] == {"worst": 5, "day": f"@{secret}"}  # type: ignore[index]
    assert own_page.do("/runs/2/fork", parameters={"nothing": 1}).status_code == 400
    assert own_page.do("/runs/2/fork", parameters={"--from": 1}).status_code == 400


def test_a_message_is_sent_once_for_a_key(own_page: Page) -> None:
    run_program(own_page.folder, "asking")
    for value in (["--journal=/tmp/x"], ["again"]):
        assert own_page.do("/runs/2/messages", topic="-t", value=value, idempotency_key="--help").status_code == 200
    rows = own_page.json("/api/v1/sql", q="SELECT topic, value, idempotency_key FROM messages WHERE topic = '-t'")["rows"]
    assert rows == [["-t", '["--journal=/tmp/x"]', "--help"]]


def test_no_request_names_code_to_be_run(own_page: Page) -> None:
    names = {parameter.name for each in OPERATIONS if each.changes for parameter in each.parameters}
    assert not names & {"entrypoint", "file", "module", "path", "command", "journal"}
    for fields in ({"entrypoint": "os:system"}, {"flow": "os:system"}, {"takeover": True, "journal": "/tmp/other.db"}):
        assert own_page.do("/runs/1/resume", **fields).status_code == 400
    answer = own_page.do("/deployments/os%3Asystem/ls/runs", parameters={"command": "touch x"})
    assert answer.status_code in (400, 404), answer.text
    assert own_page.do("/deployments/--help/--json/runs").status_code in (400, 404)


def test_an_entry_point_that_somebody_wrote_into_the_journal_is_refused_when_it_is_no_flow(own_page: Page) -> None:
    import sqlite3

    run_program(own_page.folder, "failing")
    with sqlite3.connect(own_page.folder / "journal.db") as connection:
        connection.execute("UPDATE flow_run SET entrypoint = 'module:os:system' WHERE id = 2")
    connection.close()
    answer = own_page.do("/runs/2/resume")
    assert is_refused(answer), answer.text
    assert own_page.state(2) == "FAILED"


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"1", b'{"reason": 1}', b'{"reason": "a", "reason": "b"}', b'{"nothing": 1}', b"\xff",
        b'{"reason": "\\u0000"}', b'{"reason": "\\ud800"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_refused_in_words(page: Page, body: bytes) -> None:
    answer = page.client.post("/api/v1/runs/1/cancel", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_that_is_not_json_by_its_header_is_refused(page: Page) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = page.client.post("/api/v1/runs/1/cancel", content=b"{}", headers={"content-type": kind})
        assert answer.status_code == 400


def test_what_there_is_not_is_answered_404(page: Page) -> None:
    paths = ["/api/v1/runs/99", "/api/v1/runs/99/tasks", "/api/v1/runs/99/logs", "/api/v1/tasks/99", "/api/v1/nothing"]
    for path in [*paths, "/runs/99", "/tasks/99", "/runs/99.json", "/runs/99/logs/stream", "/nothing", "/do/nothing"]:
        assert page.client.get(path).status_code in ((405,) if path == "/do/nothing" else (404,)), path
    for verb in ("cancel", "resume", "retry", "pause", "unpause", "plan", "fork", "answer", "messages"):
        assert page.do(f"/runs/99/{verb}").status_code == 404, verb
    assert [page.client.get(f"/api/v1/runs/{2**63 - number}").status_code for number in range(3)] == [400, 400, 404]


def test_a_journal_that_is_not_there_yet_is_told_of(tmp_path: Path) -> None:
    from serving_page import page_over

    with page_over(tmp_path) as served:
        for path in ("/", "/runs", "/sql", "/api/v1/runs", "/overview.json"):
            answer = served.client.get(path)
            assert answer.status_code == 404
            assert "wfengine run" in answer.text
    assert not (tmp_path / "journal.db").exists()


def test_parameters_are_checked_by_their_description() -> None:
    operation = find("runs.cancel")
    assert collect(operation.parameters, {"run_id": "7"}, [], {"reason": "x"}) == {"run_id": 7, "reason": "x"}
    for path, query, body in (
        ({"run_id": "x"}, [], {}), ({"run_id": "0"}, [], {}), ({"run_id": "\u0663"}, [], {}),
        ({"run_id": "7"}, [("reason", "x")], {}),
        ({"run_id": "7"}, [], {"run_id": 8}), ({"run_id": "7"}, [], {"reason": True}),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            collect(operation.parameters, path, query, body)


def test_a_page_and_its_twin_say_the_same(page: Page) -> None:
    for path, twin in (
        ("/", "/overview.json"),
        ("/runs", "/runs.json"),
        ("/runs/2", "/runs/2.json"),
        ("/tasks/1", "/tasks/1.json"),
        ("/flows", "/flows.json"),
        ("/timeline", "/timeline.json"),
    ):
        html, data = page.client.get(path).text, page.json(twin)
        assert f'href="{twin}' in html
        assert json.dumps(data)
    assert [run["id"] for run in page.json("/runs.json", q="state:failed")["runs"]] == [2]  # type: ignore[attr-defined]
