"""`run`, `resume` and `watch` with the engine: real processes, killed and interrupted for real."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import Cli, environment

FLOW = """
import os
import signal
from pathlib import Path

from wfengine import flow, get_run_logger, task


@task
def extract(count):
    with open("calls.txt", "a") as file:
        file.write("extract\\n")
    return list(range(count))


@task
def clean(row, bad):
    if row == bad and not Path("fixed").exists():
        raise ValueError(f"row {row} is bad")
    return row * 2


@task
def wait_for(name):
    import threading
    Path("waiting").touch()
    pause = threading.Event()
    while not Path(name).exists():
        pause.wait(0.02)


@flow
def etl(count: int = 5, bad: int = -1, options: dict = {}, kill: bool = False, wait: str = ""):
    rows = extract(count)
    if kill and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if wait:
        wait_for(wait)
    get_run_logger().info("cleaning")
    total = sum(future.result() for future in clean.map(rows, bad))
    return {"total": total, "options": options}
"""


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    path = tmp_path / "etl.py"
    path.write_text(FLOW, encoding="utf-8")
    return path


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_run_completes_and_ends_with_one_line(cli: Cli, flow_file: Path) -> None:
    answer = cli("run", "etl.py", "-p", "count=3")
    assert (answer.code, answer.out) == (0, "")
    last = answer.err.splitlines()[-1]
    assert "Completed · 4/4 tasks · " in last
    assert "journal .wfengine/journal.db" in last
    assert "next: wfengine runs show " in last
    assert "  clean 3/3" in answer.err.splitlines()


def test_a_run_prints_one_object_with_json(cli: Cli, flow_file: Path) -> None:
    options = ["--name", "first", "--tag", "b", "--tag", "a", "--durability", "process"]
    found = cli("run", "etl.py:etl", "--json", *options).object
    run = found["run"]
    assert (found["command"], run["name"], run["tags"], run["durability"]) == ("run", "first", ["a", "b"], "process")
    assert run["result"] == {"total": 20, "options": {}}
    assert (run["replayed"], run["ran"], run["exit_code"]) == (0, 6, 0)


def test_parameters_come_as_text_json_or_from_a_file(cli: Cli, flow_file: Path) -> None:
    (cli.folder / "options.json").write_text('{"deep": [1, "@"]}', encoding="utf-8")
    found = cli("run", "etl.py", "-p", "options=@options.json", "-p", "count=2", "--json").object
    assert found["run"]["parameters"]["options"] == {"deep": [1, "@"]}
    assert found["run"]["parameters"]["count"] == 2
    found = cli("run", "etl.py", "-p", "options=@-", "--json", stdin='{"a": 1}').object
    assert found["run"]["parameters"]["options"] == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing.py"], "nothing.py"),
        (["no.such.module"], "no"),
        (["etl.py:nothing"], "nothing"),
        (["etl.py", "-p", "colour=red"], "colour"),
        (["etl.py", "-p", "count=many"], "count"),
        (["needs.py"], "day"),
        (["etl.py", "-p", "count"], "NAME=VALUE"),
        (["etl.py", "-p", "options=@missing.json"], "missing.json"),
        (["etl.py", "--durability", "none"], "durability"),
        (["broken.py"], "broken.py"),
    ],
)
def test_a_start_that_cannot_work_is_refused_before_anything_is_written(
    cli: Cli, flow_file: Path, arguments: list[str], text: str
) -> None:
    (cli.folder / "broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    (cli.folder / "needs.py").write_text("from wfengine import flow\n@flow\ndef needs(day):\n    pass\n", encoding="utf-8")
    answer = cli("run", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error[WF10")
    assert text in answer.err
    assert "Traceback" not in answer.err
    assert not (cli.folder / ".wfengine").exists()
    assert not (cli.folder / "calls.txt").exists()


def test_a_failed_run_exits_1_shows_the_users_traceback_and_resumes_once_fixed(cli: Cli, flow_file: Path) -> None:
    answer = cli("run", "etl.py", "-p", "bad=2")
    assert answer.code == 1
    assert "ValueError: row 2 is bad" in answer.err
    assert str(flow_file) in answer.err
    assert f"{os.sep}wfengine{os.sep}" not in answer.err.replace("/.wfengine/", "")
    assert "fix it, then: wfengine resume " in answer.err.splitlines()[-1]
    (cli.folder / "fixed").touch()
    resumed = cli("resume", "@last", "--json")
    assert resumed.code == 0
    (only,) = resumed.object["runs"]
    assert (only["run"]["state"], only["run"]["result"]["total"]) == ("COMPLETED", 20)
    assert only["run"]["ran"] == 1
    assert (cli.folder / "calls.txt").read_text() == "extract\n"


@pytest.mark.crash
def test_a_killed_run_is_seen_as_crashed_at_once_and_resume_all_takes_it_up(cli: Cli, flow_file: Path) -> None:
    assert cli("run", "etl.py", "-p", "kill=true").code == -signal.SIGKILL
    (run,) = cli("runs", "ls", "--json").object["runs"]
    assert run["state"] == "CRASHED"
    watched = cli("watch")
    assert watched.code == 7
    assert f"wfengine resume {run['name']}" in watched.err
    answer = cli("resume", "--all")
    assert answer.code == 0
    assert "Completed · 6/6 tasks (1 replayed, 5 ran)" in answer.err.splitlines()[-1]
    assert (cli.folder / "calls.txt").read_text() == "extract\n"
    assert "nothing to resume" in cli("resume", "--all").err


@pytest.mark.crash
def test_the_printed_resume_command_names_a_journal_that_was_named(cli: Cli, flow_file: Path) -> None:
    cli("run", "etl.py", "-p", "kill=true", "--journal", "my.db")
    line = cli("watch", "--journal", "my.db").err.splitlines()[-1]
    command = line.partition("resume with: wfengine ")[2].split()
    assert cli(*command).code == 0


@pytest.mark.crash
def test_ctrl_c_stops_a_run_such_that_it_can_be_resumed(cli: Cli, flow_file: Path) -> None:
    process = cli.start("run", "etl.py", "-p", "wait=go")
    until((cli.folder / "waiting").exists)
    os.kill(process.pid, signal.SIGINT)
    (cli.folder / "go").touch()
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "interrupted; resume with: wfengine resume " in error
    assert "Traceback" not in error
    assert cli("runs", "ls", "--json").object["runs"][0]["state"] == "CRASHED"
    assert cli("resume", "@last").code == 0
    assert (cli.folder / "calls.txt").read_text() == "extract\n"


@pytest.mark.crash
def test_a_second_ctrl_c_ends_the_process_though_a_task_goes_on(cli: Cli, flow_file: Path) -> None:
    process = cli.start("run", "etl.py", "-p", "wait=never")
    until((cli.folder / "waiting").exists)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
    process.communicate(timeout=60)
    assert process.returncode == 130
    (cli.folder / "never").touch()
    assert cli("resume", "@last").code == 0


def test_watch_follows_a_run_of_another_process_to_its_end(cli: Cli, flow_file: Path) -> None:
    runner = cli.start("run", "etl.py", "-p", "wait=go")
    until((cli.folder / "waiting").exists)
    watcher = cli.start("watch")
    assert watcher.stderr is not None
    first = watcher.stderr.readline()
    (cli.folder / "go").touch()
    _, rest = watcher.communicate(timeout=60)
    assert runner.wait(60) == 0
    runner.communicate()
    assert "flow etl · run 1" in first
    assert watcher.returncode == 0
    assert "Completed · 7/7 tasks" in rest.splitlines()[-1]


@pytest.mark.crash
def test_watch_notices_that_the_process_was_killed(cli: Cli, flow_file: Path) -> None:
    runner = cli.start("run", "etl.py", "-p", "wait=never")
    until((cli.folder / "waiting").exists)
    watcher = cli.start("watch")
    assert watcher.stderr is not None
    watcher.stderr.readline()
    runner.kill()
    runner.communicate()
    _, error = watcher.communicate(timeout=60)
    assert watcher.returncode == 7
    assert "resume with: wfengine resume " in error.splitlines()[-1]


def test_a_run_that_another_process_executes_cannot_be_resumed(cli: Cli, flow_file: Path) -> None:
    runner = cli.start("run", "etl.py", "-p", "wait=go")
    until((cli.folder / "waiting").exists)
    answer = cli("resume", "@last")
    (cli.folder / "go").touch()
    runner.communicate(timeout=60)
    assert answer.code == 5
    assert "error[WF201]" in answer.err
    assert str(runner.pid) in answer.err


def test_an_idempotency_key_returns_the_recorded_run(cli: Cli, flow_file: Path) -> None:
    first = cli("run", "etl.py", "--idempotency-key", "k", "--json").object["run"]
    second = cli("run", "etl.py", "--idempotency-key", "k", "--json").object["run"]
    assert (second["id"], second["result"]) == (first["id"], first["result"])
    assert (cli.folder / "calls.txt").read_text() == "extract\n"


def test_an_async_flow_runs_and_fails_like_any_other(cli: Cli) -> None:
    source = "from wfengine import flow\n@flow\nasync def later(n: int):\n    return 10 // n\n"
    (cli.folder / "later.py").write_text(source, encoding="utf-8")
    assert cli("run", "later.py", "-p", "n=2", "--json").object["run"]["result"] == 5
    assert cli("run", "later.py", "-p", "n=0").code == 1


def test_in_a_terminal_a_table_is_drawn_and_what_the_flow_prints_stands_above(cli: Cli) -> None:
    source = (
        "from wfengine import flow, task\n@task\ndef double(n):\n    return n * 2\n"
        "@flow\ndef etl():\n    print('said by the flow')\n    return [f.result() for f in double.map(list(range(50)))][-1]\n"
    )
    (cli.folder / "etl.py").write_text(source, encoding="utf-8")
    shown, code = in_terminal(cli, "run", "etl.py")
    assert code == 0
    assert "said by the flow" in shown
    assert "50/50" in shown
    assert "━" in shown
    assert "result  98" in shown


def in_terminal(cli: Cli, *arguments: str) -> tuple[str, int]:
    """Run a command line at a pseudo terminal; return what it showed and its exit code."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        cli.command(*arguments),
        cwd=cli.folder, env=environment(TERM="xterm-256color"), stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side has closed
        while part := os.read(leader, 65536):
            shown += part
    os.close(leader)
    return shown.decode("utf-8", "replace"), process.wait(60)
