"""The verbs that mend a run: each does what it says, says what it did, and names the next command - which works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import Answer, Cli

FLOW = """
from wfengine import flow, task

@task
def extract(day):
    with open("calls.txt", "a") as file:
        file.write(f"extract {day}\\n")
    return day * 10

@task
def load(rows, rate):
    with open("calls.txt", "a") as file:
        file.write(f"load {rows}\\n")
    if rows == 20:
        raise ValueError("twenty")
    return rows * rate

@flow
def etl(days: int = 4, rate: int = 1):
    return sum(load(extract(day), rate) for day in range(days))
"""


@pytest.fixture
def failed(cli: Cli) -> Cli:
    write(cli)
    assert cli("run", "etl.py", "--name", "first").code == 1
    (cli.folder / "calls.txt").unlink()
    return cli


def write(cli: Cli, *edit: str) -> None:
    (cli.folder / "etl.py").write_text(FLOW.replace(*edit) if edit else FLOW, encoding="utf-8")


def calls(cli: Cli) -> list[str]:
    file = cli.folder / "calls.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def follow(cli: Cli, answer: Answer) -> Answer:
    """Type the command that an answer ends with."""
    command = re.search(r"wfengine ((?:resume|fork|replay|retry|runs show)\b.*)$", answer.err.strip().splitlines()[-1])
    assert command is not None, answer.err
    return cli(*shlex.split(command[1]))


def test_a_plan_says_what_would_run_and_why_and_its_command_does_just_that(failed: Cli) -> None:
    write(failed, "rows == 20", "rows < 0")
    planned = failed("resume", "first", "--plan", "--rerun", "extract[0]")
    assert planned.code == 0
    assert "REPLAY 0 · RERUN 1 · NEW 0 · ORPHAN 0" in planned.err
    assert "RERUN  extract(day=0) #1  - to run again: extract[0]" in planned.err
    assert calls(failed) == []
    done = follow(failed, planned)
    assert done.code == 0, done
    assert calls(failed) == ["extract 0", "load 20", "extract 3", "load 30"]
    assert "result  60" in done.err


def test_a_plan_shows_each_changed_argument(failed: Cli) -> None:
    write(failed, "load(extract(day), rate)", "load(extract(day), rate + 1)")
    planned = failed("resume", "first", "--plan")
    assert "NEW    load(rate=2, rows=0)  - its inputs changed" in planned.err
    assert "rate: recorded 1, now 2" in planned.err
    plan = failed("resume", "first", "--plan", "--json").object["plans"]
    assert isinstance(plan, list)
    assert plan[0]["counts"] == {"REPLAY": 1, "NEW": 1, "ORPHAN": 1}


def test_a_result_set_by_hand_takes_the_place_of_a_failure(failed: Cli) -> None:
    done = failed("resume", "first", "--set", "load[rows=20]=21")
    assert done.code == 0, done
    assert "result  61" in done.err
    assert calls(failed) == ["extract 3", "load 30"]


@pytest.mark.parametrize("text", ["load[20]", "load[20]=", "=3", "load[20]=text", "load[zz]=1"])
def test_a_set_that_says_nothing_is_refused_with_an_example(failed: Cli, text: str) -> None:
    refused = failed("resume", "first", "--set", text)
    assert refused.code == 2
    assert "error[WF100]" in refused.err
    assert calls(failed) == []


def test_a_fork_goes_on_from_a_task_with_another_parameter_by_the_command_it_names(failed: Cli) -> None:
    write(failed, "rows == 20", "rows < 0")
    forked = failed("fork", "first", "--from", "load", "-p", "rate=2")
    assert forked.code == 0, forked
    assert calls(failed) == []
    done = follow(failed, forked)
    assert "result  120" in done.err
    assert failed("runs", "show", "first").out.count("Failed") > 0


def test_diff_names_the_first_call_that_differs(failed: Cli) -> None:
    write(failed, "rows == 20", "rows < 0")
    assert failed("run", "etl.py", "--name", "second").code == 0
    different = failed("diff", "first", "second")
    assert different.code == 1
    assert "load: equal inputs, another outcome" in different.err
    assert "FAILED ValueError: twenty" in different.err
    assert failed("run", "etl.py", "--name", "third").code == 0
    assert failed("diff", "second", "third").code == 0
    found = failed("diff", "first", "second", "--json").object
    assert (found["alike"], found["differs"]) == (5, True)
    assert failed("run", "etl.py", "--name", "fourth", "-p", "rate=3").code == 0
    assert "load: the inputs differ" in failed("diff", "third", "fourth").err


def test_replay_runs_the_body_over_the_record_and_stops_where_nothing_is_recorded(failed: Cli) -> None:
    done = failed("replay", "first")
    assert done.code == 0, done
    assert "and raises ValueError: twenty" in done.err
    write(failed, "range(days)", "range(days + 1)")
    assert failed("resume", "first").code == 1
    assert failed("replay", "first", "--json").object["plan"]
    assert calls(failed) == ["load 20"]


def test_replay_under_the_debugger_stops_in_the_flow_with_the_values_that_were(failed: Cli) -> None:
    done = failed("replay", "first", "--pdb", stdin="n\np days, rate\nc\n")
    assert done.code == 0, done
    assert "(4, 1)" in done.out
    assert calls(failed) == []


def test_retry_runs_every_failure_again(failed: Cli) -> None:
    write(failed, "rows == 20", "rows < 0")
    done = failed("retry", "first")
    assert done.code == 0, done
    assert calls(failed) == ["load 20", "extract 3", "load 30"]


@pytest.mark.parametrize("verb", [("fork",), ("diff", "@last"), ("replay",), ("retry",), ("resume", "--plan")])
def test_a_run_that_is_not_there_is_named(failed: Cli, verb: tuple[str, ...]) -> None:
    answer = failed(*verb, "nobody")
    assert answer.code == 3
    assert "There is no run 'nobody'" in answer.err


def test_a_run_parked_by_drift_says_in_words_what_to_type_and_each_of_it_works(cli: Cli, tmp_path: Path) -> None:
    text = "import time\nNOW = time.time()\n" + FLOW.replace("load(extract(day), rate)", "load(extract(day + NOW), rate)")
    (tmp_path / "etl.py").write_text(text, encoding="utf-8")
    (tmp_path / "once.py").write_text(
        text.replace("rows == 20", "not __import__('os').path.exists('mended')"), encoding="utf-8"
    )
    assert cli("run", "once.py", "--name", "drifts").code == 1
    (tmp_path / "mended").touch()
    parked = cli("resume", "drifts", "--on-drift", "error")
    assert parked.code != 0
    for word in ("is parked", "recorded", "now", "clock", "--on-drift rerun", "--on-drift reuse"):
        assert word in parked.err, word
    assert cli("resume", "drifts", "--on-drift", "reuse").code == 0
