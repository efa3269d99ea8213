"""`wfengine cancel`, `pause` and `unpause`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import Cli

PROGRAM = """
import pathlib, threading
from wfengine import check_cancelled, flow, task

HERE = pathlib.Path(__file__).parent

@task
def work():
    (HERE / "started").touch()
    while not (HERE / "go_on").exists():
        check_cancelled()
        threading.Event().wait(0.002)
    return 1

@flow(flow_run_name="{name}")
def etl(name: str):
    return work() + work.with_options(name="again")()
"""


def start(cli: Cli, name: str = "quiet-heron") -> subprocess.Popen[str]:
    """Run the flow in a process of its own, until its task has begun."""
    (cli.folder / "etl.py").write_text(PROGRAM)
    (cli.folder / "started").unlink(missing_ok=True)
    process = cli.start("run", "etl.py", "-p", f"name={name}")
    while not (cli.folder / "started").exists():
        assert process.poll() is None, process.communicate()
    return process


def test_cancel_waits_for_the_end_and_says_what_it_did(cli: Cli) -> None:
    process = start(cli)
    answer = cli("cancel", "quiet-heron", "--reason", "wrong day", "--wait")
    _, err = process.communicate(timeout=60)

    assert answer.code == 0, answer
    assert "quiet-heron is cancelled (cancelled by" in answer.err
    assert "wrong day" in answer.err
    assert "next: wfengine runs show quiet-heron" in answer.err
    assert process.returncode == 6, err
    assert "cancelled" in err.lower()


def test_cancel_without_wait_names_the_command_that_waits(cli: Cli) -> None:
    process = start(cli)
    answer = cli("cancel", "quiet-heron", "--json")
    process.communicate(timeout=60)

    (found,) = answer.object["runs"]  # type: ignore[misc]
    assert answer.object["command"] == "cancel"
    assert found["run"]["state"] in ("CANCELLING", "CANCELLED")
    assert found["next_command"].endswith("quiet-heron")
    assert cli("runs", "show", "quiet-heron", "--json").object["run"]["state"] == "CANCELLED"  # type: ignore[index]


def test_a_run_that_has_ended_is_refused(cli: Cli) -> None:
    process = start(cli)
    cli("cancel", "quiet-heron", "--wait")
    process.communicate(timeout=60)
    answer = cli("cancel", "quiet-heron")

    assert answer.code == 2
    assert "cannot be cancelled: it has ended (Cancelled)" in answer.err


def test_pause_and_unpause(cli: Cli) -> None:
    process = start(cli)
    paused = cli("pause", "quiet-heron", "--reason", "the warehouse is down")
    early = cli("unpause", "quiet-heron")
    (cli.folder / "go_on").touch()
    process.communicate(timeout=60)
    again = cli("pause", "quiet-heron")
    done = cli("unpause", "quiet-heron")

    assert paused.code == 0
    assert "quiet-heron was asked to pause" in paused.err
    assert "next: wfengine watch quiet-heron" in paused.err
    assert early.code == 2
    assert "still pausing" in early.err
    assert process.returncode == 4
    assert "is paused already" in again.err
    assert done.code == 0, done
    assert cli("runs", "show", "quiet-heron", "--json").object["run"]["state"] == "COMPLETED"  # type: ignore[index]


@pytest.mark.parametrize("verb", ["cancel", "pause", "unpause"])
def test_a_run_that_is_not_there_and_a_journal_that_is_not_there(cli: Cli, verb: str) -> None:
    answer = cli(verb, "nobody")
    assert answer.code == 5
    assert list(Path(cli.folder).iterdir()) == []
    process = start(cli)
    (cli.folder / "go_on").touch()
    process.communicate(timeout=60)
    assert cli(verb, "nobody").code == 3
