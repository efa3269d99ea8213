"""`wfengine send`, `wfengine inputs ls`, `wfengine resume --input`: what they print, and with which exit code."""

from __future__ import annotations

import pytest
from command_line import Cli

PROGRAM = """
from pydantic import BaseModel
from wfengine import flow, receive, suspend_flow_run

class Approval(BaseModel):
    approved: bool
    code: str = ""

@flow
def release():
    answer = suspend_flow_run(wait_for_input=Approval)
    return [answer.approved, answer.code]

@flow
def go_on():
    suspend_flow_run(timeout=None)
    return receive(timeout_seconds=0, default="nothing")
"""


@pytest.fixture
def program(cli: Cli) -> Cli:
    (cli.folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    return cli


def test_a_suspended_run_is_listed_answered_and_goes_on(program: Cli) -> None:
    parked = program("run", "program.py:release")
    assert parked.code == 4
    assert "--input '{\"approved\": true}'" in parked.err
    listed = program("inputs", "ls", "--json").object
    (only,) = listed["inputs"]  # type: ignore[misc]
    assert (only["run_id"], only["kind"], only["model"], only["is_answered"]) == (1, "suspend", "Approval", False)
    shown = program("inputs", "ls")
    assert shown.out.splitlines()[0].split() == ["RUN", "KEY", "ASKED", "UNTIL", "INPUT"]
    assert "approved (boolean), code (string, optional)" in shown.out
    refused = program("resume", "1")
    assert refused.code == 2
    assert "waits for input: approved (boolean)" in refused.err
    assert "--input" in refused.err
    wrong = program("resume", "1", "--input", "approved=maybe")
    assert wrong.code == 2
    assert 'approved: "maybe" is not of type boolean' in wrong.err
    done = program("resume", "1", "--input", "approved=true", "--input", "code=007", "--json")
    assert done.code == 0, done
    assert done.object["runs"][0]["run"]["result"] == [True, "007"]  # type: ignore[index]
    assert "no run" in program("inputs", "ls").err
    late = program("resume", "1", "--input", "approved=true")
    assert "waits for no input" in late.err


def test_an_input_may_be_json_and_is_taken_once(program: Cli) -> None:
    program("run", "program.py:release")
    several = program("resume", "1", "1", "--input", "{}")
    assert several.code == 2
    done = program("resume", "1", "--input", '{"approved": false}')
    assert done.code == 0, done
    assert "[false" in done.err


def test_a_run_that_only_wants_a_word_goes_on_by_resume_and_has_its_messages(program: Cli) -> None:
    parked = program("run", "program.py:go_on")
    assert parked.code == 4
    sent = program("send", "@last", '{"paid": true}', "--key", "k", "--json")
    assert sent.object["message"] == {"id": 1, "run_id": 1, "topic": "default", "is_new": True}
    assert "Nothing is sent" in program("send", "1", "text", "--key", "k").err
    assert "is sent to" in program("send", "1", "1.10", "--text", "--topic", "other").err
    done = program("resume", "1")
    assert done.code == 0, done
    assert "paid" in done.err
    refused = program("send", "1", "late")
    assert refused.code == 1
    assert "error[WF240]" in refused.err


def test_a_hostile_topic_and_a_missing_run_are_refused(program: Cli) -> None:
    program("run", "program.py:go_on")
    assert "error[WF130]" in program("send", "1", "x", "--topic", "wfengine.mine").err
    assert program("send", "99", "x").code == 3
