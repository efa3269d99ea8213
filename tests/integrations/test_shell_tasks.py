"""Tasks that run commands: real programs, which are ended with all that they started, whatever ends their task."""

from __future__ import annotations

import os
import secrets as randomness
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from tests.integrations.conftest import Written
from wfengine import cancel, flow
from wfengine.integrations.commands import READ_BYTES
from wfengine.integrations.shell import run_command
from wfengine.secrets import Secret
from wfengine_journal.errors import CommandFailedError, RunError, TaskTimeoutError, UsageError

PYTHON = sys.executable
#: A command that starts another process, of the same group; both hold open the pipe `held`, in which a byte says so.
HOLDING = ["sh", "-c", "exec 9> held; sleep 600 & echo x >&9; sleep 600"]


@flow
def running(command: list[str] | str, options: dict[str, object]) -> dict[str, object]:
    return run_command(command, **options)  # type: ignore[arg-type]


def run(*words: str, **options: object) -> dict[str, object]:
    return running(list(words), options)


class Held:
    """A pipe whose writing end processes hold: it tells when the last of them is gone, without looking for any."""

    def __init__(self, folder: Path) -> None:
        os.mkfifo(folder / "held")
        self.reader = os.open(folder / "held", os.O_RDONLY | os.O_NONBLOCK)

    def wait_until_held(self) -> None:
        """Return once a process says that it holds it."""
        waiting = select.poll()
        waiting.register(self.reader, select.POLLIN)
        while not waiting.poll(1000):
            pass
        assert os.read(self.reader, 1) == b"x"

    def wait_until_free(self) -> None:
        """Return once nobody holds it any more; the test's time limit is for one that lives on."""
        os.set_blocking(self.reader, True)
        while os.read(self.reader, 100):
            pass
        os.close(self.reader)


def test_output_and_exit_code_are_the_result_and_each_line_is_logged(rows: Rows) -> None:
    program = "import sys; print('one\\ntwo'); print('three', file=sys.stderr); print('ünd vier', end='')"
    assert run(PYTHON, "-X", "utf8", "-c", program) == {
        "exit_code": 0, "output": "one\ntwo\nünd vier", "errors": "three\n", "is_cut": False,
    }  # fmt: skip
    logged = {text for (text,) in rows("SELECT message FROM logs WHERE task = 'run_command'")}
    assert {"one", "two", "three", "ünd vier"} <= logged


def test_a_line_is_in_the_log_while_the_command_runs(rows: Rows, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    seen: list[object] = []

    def look() -> None:
        while not rows("SELECT 1 FROM logs WHERE message = 'first'"):
            threading.Event().wait(0.01)
        seen.append(rows("SELECT 1 FROM logs WHERE message = 'second'"))
        gate.write_text("go")

    looking = threading.Thread(target=look)
    looking.start()
    run("sh", "-c", "echo first; read -r _ < gate; echo second", cwd=str(tmp_path))
    looking.join()
    assert seen == [[]]
    assert rows("SELECT 1 FROM logs WHERE message = 'second'")


def test_words_are_not_read_by_a_shell(tmp_path: Path) -> None:
    words = ["$HOME", "`id`", "a; touch evil", "-n", "x'y\"z", "", "*", "ä\n"]
    done = run(PYTHON, "-X", "utf8", "-c", "import sys; print(sys.argv[1:])", *words, cwd=str(tmp_path))
    assert done["output"] == f"{words}\n"
    assert list(tmp_path.glob("evil")) == []


def test_text_is_run_by_a_shell_only_by_choice() -> None:
    with pytest.raises(UsageError, match="shell=True"):
        running("echo a | tr a b", {})
    assert running("echo a | tr a b", {"shell": True})["output"] == "b\n"
    with pytest.raises(UsageError, match="one text"):
        running(["echo"], {"shell": True})


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        ([], {}, "name of a program"),
        (["-c", "x"], {}, "name of a program"),
        (["no-such-program-anywhere"], {}, "not on the PATH"),
        (["echo", "a\0b"], {}, "zero characters"),
        (["echo"], {"cwd": "/no/such/folder"}, "not there"),
        (["echo"], {"env": {"A=B": "x"}}, "environment variable"),
        (["echo"], {"env": {"A": 1}}, "has to be text"),
        (["echo"], {"keep_characters": -1}, "keep_characters"),
    ],
)
def test_nonsense_is_refused(words: list[str], options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(*words, **options)


def test_a_secret_is_no_word_of_a_command() -> None:
    @flow
    def telling() -> None:
        run_command(["echo", Secret("env:HOME")])  # type: ignore[list-item]

    with pytest.raises(UsageError, match="env or stdin"):
        telling()


def test_another_exit_code_is_an_error_with_the_last_words() -> None:
    with pytest.raises(CommandFailedError, match=r"exit code 3.*It said: no such table") as caught:
        run("sh", "-c", "echo begun; echo no such table >&2; exit 3")
    assert (caught.value.exit_code, caught.value.output, caught.value.errors) == (3, "begun\n", "no such table\n")
    assert run("sh", "-c", "exit 3", ok_codes=[0, 3])["exit_code"] == 3
    with pytest.raises(CommandFailedError, match="signal 9") as caught:
        run("sh", "-c", "kill -9 $$")
    assert caught.value.exit_code == -9


def test_standard_input_is_what_was_given_and_else_nothing() -> None:
    assert run("cat")["output"] == ""
    large = "ä line\n" * 20_000
    assert run("cat", stdin=large, keep_characters=1_000_000)["output"] == large
    assert run("true", stdin=large)["exit_code"] == 0  # it does not read


def test_long_output_is_cut_at_its_beginning() -> None:
    done = run(PYTHON, "-c", f"print('a' * {3 * READ_BYTES}); print('end')", keep_characters=10)
    assert done == {"exit_code": 0, "output": "aaaaa\nend\n", "errors": "", "is_cut": True}


def test_a_secret_is_given_in_the_environment_and_hidden_in_all_that_is_kept(
    written: Written, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    canary = randomness.token_hex(16)
    monkeypatch.setenv("CANARY", canary)
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", "x")
    program = "import os, sys; v = os.environ['TOKEN'] + sys.stdin.read(); print(v, 'x' * 200); print(v, file=sys.stderr)"
    options: dict[str, object] = {"env": {"TOKEN": Secret("env:CANARY")}, "stdin": Secret("env:CANARY")}
    done = run(PYTHON, "-c", program, **options, keep_characters=300)
    assert done["errors"] == "******\n"
    with pytest.raises(CommandFailedError) as caught:
        run(PYTHON, "-c", program + "; sys.exit(1)", **options)
    assert canary not in str(caught.value) + caught.value.output
    assert "Secret('env:CANARY')" in written
    assert canary not in written
    assert rows("SELECT 1 FROM logs WHERE message LIKE '***%'")
    assert run("sh", "-c", "echo ${WFENGINE_SECRETS_KEY:-none}")["output"] == "none\n"


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    held = Held(tmp_path)
    run("sh", "-c", "(exec 9> held; echo there >&9; exec sleep 600) & read -r _ < /dev/null; exec 9> held", cwd=str(tmp_path))
    held.wait_until_free()


def test_the_whole_group_is_ended_past_the_time_limit(tmp_path: Path) -> None:
    held = Held(tmp_path)
    with pytest.raises(TaskTimeoutError, match="was ended with all that it started"):
        run(*HOLDING, cwd=str(tmp_path), timeout_seconds=2)
    held.wait_until_free()


def test_a_program_that_does_not_listen_is_killed() -> None:
    with pytest.raises(TaskTimeoutError):
        run("sh", "-c", "trap '' TERM; while :; do sleep 600; done", timeout_seconds=0.1)


def test_the_time_limit_of_the_task_ends_the_group_too(tmp_path: Path) -> None:
    held = Held(tmp_path)

    @flow
    def limited() -> None:
        run_command.with_options(timeout_seconds=2)(HOLDING, cwd=str(tmp_path))

    with pytest.raises(TaskTimeoutError):
        limited()
    held.wait_until_free()


def test_the_whole_group_is_ended_when_the_run_is_cancelled(tmp_path: Path, rows: Rows) -> None:
    held = Held(tmp_path)

    def cancel_it() -> None:
        held.wait_until_held()
        cancel(1)

    @flow
    def cancelled() -> None:
        run_command(HOLDING, cwd=str(tmp_path))

    cancelling = threading.Thread(target=cancel_it)
    cancelling.start()
    with pytest.raises(RunError):
        cancelled()
    cancelling.join()
    held.wait_until_free()
    assert rows.state()[0] == "CANCELLED"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_the_whole_group_is_killed_with_the_flows_process_and_the_command_starts_anew(program: Program, tmp_path: Path) -> None:
    held = Held(tmp_path)
    program.write(
        f"HOLDING = {HOLDING!r}\n"
        + """
from wfengine.integrations.shell import run_command

@flow
def main():
    if (HERE / "again").exists():
        return run_command(["echo", "again"])["output"]
    return run_command(HOLDING)["output"]

if __name__ == "__main__":
    main()
"""
    )
    started = subprocess.Popen([PYTHON, str(program.path)], cwd=tmp_path, env=program.environment)
    held.wait_until_held()
    started.kill()
    assert started.wait() == -signal.SIGKILL
    held.wait_until_free()
    (tmp_path / "again").touch()
    assert program.resume()["result"] == repr("again\n")
