"""`wfengine task serve`: which tasks it finds, what it says, how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from command_line import Cli, environment

PROGRAM = """
from wfengine import task

@task
def send(to):
    return f"sent to {to}"

@task
def count(number):
    return number + 1

if __name__ == "__main__":
    send.delay("ada")
    count.delay(1)
"""


@pytest.fixture
def waiting(cli: Cli) -> Cli:
    """A folder with a program whose two tasks wait in the queue."""
    (cli.folder / "mails.py").write_text(PROGRAM)
    subprocess.run([sys.executable, "mails.py"], cwd=cli.folder, env=environment(), check=True)
    return cli


def states(cli: Cli) -> list[object]:
    runs = cli("runs", "ls", "--json").object["runs"]
    assert isinstance(runs, list)
    return [(run["flow"], run["state"]) for run in reversed(runs)]


@pytest.mark.parametrize(
    "targets", [("mails.py",), ("mails.py:send", "mails.py:count"), ("-m", "mails"), ("mails:send", "mails.py")]
)
def test_tasks_are_named_by_file_or_module_all_or_one(waiting: Cli, targets: tuple[str, ...]) -> None:
    answer = waiting("task", "serve", *targets, "--timeout", "1", "--json")
    assert answer.code == 0
    assert answer.object["finished"] == 2
    assert states(waiting) == [("send", "COMPLETED"), ("count", "COMPLETED")]


def test_only_what_was_named_is_served(waiting: Cli) -> None:
    answer = waiting("task", "serve", "mails.py:count", "--timeout", "1")
    assert "serving 'count'" in answer.err
    assert "nothing was left undone" in answer.err
    assert states(waiting) == [("send", "SCHEDULED"), ("count", "COMPLETED")]


def test_quietly_it_says_nothing(waiting: Cli) -> None:
    answer = waiting("task", "serve", "mails.py", "--timeout", "0.1", "-q")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_ends_it_with_its_code(waiting: Cli, number: signal.Signals, code: int) -> None:
    process = waiting.start("task", "serve", "mails.py")
    assert process.stderr is not None
    assert "serving" in process.stderr.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "nothing was left undone" in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "Name the tasks to serve"),
        (("nope.py",), "There is no file nope.py"),
        (("mails.py:sent",), "There is no task 'sent' in mails.py. Did you mean 'send'? Tasks there: send, count."),
        (("empty.py",), "No task is defined in empty.py"),
        (("mails.py", "second.py"), "have the key 'send'"),
        (("mails.py:",), "names no task"),
    ],
)
def test_what_cannot_be_served_is_refused(waiting: Cli, arguments: tuple[str, ...], text: str) -> None:
    (waiting.folder / "empty.py").write_text("from wfengine import flow\n")
    (waiting.folder / "second.py").write_text(PROGRAM)
    answer = waiting("task", "serve", *arguments)
    assert answer.code == 2
    assert text in answer.err
