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
    assert answer.err.startswith("error[WF1")
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
    assert (process.returncode, out) == (130, ""), error
    assert "stopping; press Ctrl-C again to end at once" in error
    assert error.count("wfengine resume ") == 1
    assert "resume with: wfengine resume " in error.splitlines()[-1]
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
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    command = error.splitlines()[-1].partition("resume with: wfengine ")[2].split()
    (cli.folder / "never").touch()
    assert cli(*command).code == 0


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
    assert answer.err.startswith("error[WF201]")
    assert len(answer.err.splitlines()) == 1
    assert str(runner.pid) in answer.err


def test_an_idempotency_key_returns_the_recorded_run(cli: Cli, flow_file: Path) -> None:
    first = cli("run", "etl.py", "--idempotency-key", "k", "--json").object["run"]
    answer = cli("run", "etl.py", "--idempotency-key", "k", "--json")
    second = answer.object["run"]
    assert answer.err.endswith("; nothing ran\n")
    assert (second["id"], second["result"]) == (first["id"], first["result"])
    assert (cli.folder / "calls.txt").read_text() == "extract\n"


def test_an_async_flow_runs_and_fails_like_any_other(cli: Cli) -> None:
    source = "from wfengine import flow\n@flow\nasync def later(n: int):\n    return 10 // n\n"
    (cli.folder / "later.py").write_text(source, encoding="utf-8")
    assert cli("run", "later.py", "-p", "n=2", "--json").object["run"]["result"] == 5
    assert cli("run", "later.py", "-p", "n=0").code == 1


def test_a_completed_run_is_not_resumed_and_that_is_said(cli: Cli, flow_file: Path) -> None:
    cli("run", "etl.py", "--name", "done")
    answer = cli("resume", "done")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.startswith("done already Completed at 20")
    assert answer.err.endswith("; nothing ran\n")
    assert cli("resume", "done", "--json").object["runs"][0]["nothing_ran"] is True


def test_quiet_leaves_one_line_of_a_run_that_failed_and_none_of_one_that_completed(cli: Cli, flow_file: Path) -> None:
    source = "from wfengine import flow\n@flow\ndef divide(n: int):\n    return 10 // n\n"
    (cli.folder / "divide.py").write_text(source, encoding="utf-8")
    completed = cli("run", "-q", "divide.py", "-p", "n=2")
    assert (completed.code, completed.out, completed.err) == (0, "", "")
    failed = cli("run", "-q", "etl.py", "-p", "bad=2", "--name", "bad")
    assert (failed.code, failed.out) == (1, "")
    said = [line for line in failed.err.splitlines() if " INFO " not in line]  # what the flow itself logs is its own affair
    assert said == ["error: bad Failed: ValueError: row 2 is bad in task clean · next: wfengine resume bad"]


@pytest.mark.parametrize("raised", ["SystemExit(3)", "GeneratorExit()"])
@pytest.mark.parametrize("call", ["leave()", "leave.submit().result()"])
def test_a_task_that_leaves_python_crashes_its_run_which_can_be_resumed(cli: Cli, raised: str, call: str) -> None:
    source = (
        "from pathlib import Path\nfrom wfengine import flow, task\n@task\ndef leave():\n"
        f"    if not Path('stays').exists():\n        raise {raised}\n@flow\ndef leaves():\n    {call}\n"
    )
    (cli.folder / "leaves.py").write_text(source, encoding="utf-8")
    answer = cli("run", "leaves.py", "--name", "left")
    assert answer.code == 7
    assert "Traceback" not in answer.err
    assert answer.err.splitlines()[-1].endswith("resume with: wfengine resume left")
    (cli.folder / "stays").touch()
    assert cli("resume", "left").code == 0


def test_a_resume_whose_flow_is_gone_says_that_and_nothing_else(cli: Cli, flow_file: Path) -> None:
    cli("run", "etl.py", "-p", "bad=2")
    flow_file.unlink()
    answer = cli("resume", "@last")
    assert answer.code == 2
    assert answer.err.startswith("error[WF102]")
    assert len(answer.err.splitlines()) == 1


PARKED = """
import os
import signal
from pathlib import Path
from wfengine import flow, task

@task
def number(n):
    return n

@task(on_interrupt="ask")
def charge():
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

@flow
def inner():
    charge()

@flow
def doubts():
    inner()

@flow
def drifts():
    again = Path("again").exists()
    number(2 if again else 1)
    if not again:
        raise ValueError("once")
"""


def test_a_drifted_run_says_why_once_and_offers_the_rerun(cli: Cli) -> None:
    (cli.folder / "parked.py").write_text(PARKED, encoding="utf-8")
    cli("run", "parked.py:drifts", "--name", "drift")
    (cli.folder / "again").touch()
    answer = cli("resume", "drift", "--on-drift", "error")
    assert answer.code == 4
    assert answer.err.count("x: recorded 1, now 2") + answer.err.count("n: recorded 1, now 2") == 1
    last = answer.err.splitlines()[-1]
    assert last.endswith("next: wfengine resume drift --on-drift rerun")
    assert "replayed" not in last
    assert "wfengine resume drift --on-drift rerun" in cli("runs", "show", "drift").out.partition("next ")[2]
    rerun = cli("resume", "drift", "--on-drift", "rerun")
    assert rerun.code == 0
    assert "(0 replayed, 1 ran, 1 not asked for again)" in rerun.err.splitlines()[-1]


@pytest.mark.crash
def test_a_run_in_doubt_offers_to_resolve_the_call_even_in_a_subflow(cli: Cli) -> None:
    (cli.folder / "parked.py").write_text(PARKED, encoding="utf-8")
    cli("run", "parked.py:doubts", "--name", "doubt")
    answer = cli("resume", "doubt")
    assert answer.code == 4
    assert answer.err.count("a person decides") == 1
    command = answer.err.splitlines()[-1].partition("next: wfengine ")[2].split()
    assert (command[0], command[-2:]) == ("resolve", ["--done", "..."])
    assert " ".join(command) in cli("runs", "show", "doubt").out
    settled = cli(*command[:-1], "null")
    assert settled.err.endswith("Go on with: wfengine resume doubt\n")
    assert cli("resume", "doubt").code == 0


TABLE = """
import threading
from wfengine import flow, task

@task
def double(n, seconds):
    threading.Event().wait(seconds)
    return n * 2

@flow
def maps():
    print("said by the flow")
    return [future.result() for future in double.map(list(range(50)), 0.5)][-1]

@flow
def loops():
    return [double(n, 0.02) for n in range(30)][-1]
"""


def test_in_a_terminal_a_table_is_drawn_and_what_the_flow_prints_stands_above(cli: Cli) -> None:
    (cli.folder / "etl.py").write_text(TABLE, encoding="utf-8")
    shown, code = in_terminal(cli, "run", "etl.py:maps")
    assert code == 0
    assert "said by the flow" in shown
    assert "50/50" in shown
    assert "━" in shown
    assert "result  98" in shown


def test_what_a_flow_prints_is_written_line_by_line_even_without_buffers(cli: Cli) -> None:
    """With PYTHONUNBUFFERED, as in most containers, a line of the progress must not fall between two words of the flow's."""
    (cli.folder / "prints.py").write_text(
        'from wfengine import flow\n@flow\ndef prints():\n    print("one", "line")\n    print("another", 2)\n', "utf-8"
    )
    reading, writing = os.pipe2(os.O_DIRECT)  # each read returns what one write wrote
    with os.fdopen(writing, "wb") as file, os.fdopen(reading, "rb", buffering=0) as pipe:
        subprocess.run(
            cli.command("run", "prints.py"), cwd=cli.folder, env=environment(PYTHONUNBUFFERED="1"),
            stdout=file, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True, timeout=120,
        )  # fmt: skip
        file.close()
        writes = list(iter(lambda: pipe.read(4096), b""))
    assert b"one line\n" in writes
    assert b"another 2\n" in writes


def test_a_loop_has_no_bar_and_no_time_left_because_its_end_is_not_known(cli: Cli) -> None:
    (cli.folder / "etl.py").write_text(TABLE, encoding="utf-8")
    shown, code = in_terminal(cli, "run", "etl.py:loops")
    assert code == 0
    assert "/s" in shown
    assert "━" not in shown
    assert " left" not in shown


@pytest.mark.crash
def test_a_second_ctrl_c_at_a_terminal_gives_the_cursor_back(cli: Cli, flow_file: Path) -> None:
    leader, process = at_terminal(cli, "run", "etl.py", "-p", "wait=never", "--name", "ended")
    until((cli.folder / "waiting").exists)
    os.kill(process.pid, signal.SIGINT)
    shown = b""
    while b"press Ctrl-C again" not in shown:
        shown += os.read(leader, 65536)
    os.kill(process.pid, signal.SIGINT)
    rest, code = shown_to_the_end(leader, process)
    assert code == 130
    assert "\x1b[?25h" in rest
    assert rest.rstrip().endswith("resume with: wfengine resume ended")


def at_terminal(cli: Cli, *arguments: str) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a command line at a pseudo terminal; return the terminal and the process."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        cli.command(*arguments),
        cwd=cli.folder, env=environment(TERM="xterm-256color"), stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    return leader, process


def shown_to_the_end(leader: int, process: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Return what a process shows at its terminal from now on, and its exit code."""
    shown = b""
    with suppress(OSError):  # how Linux says that the other side has closed
        while part := os.read(leader, 65536):
            shown += part
    os.close(leader)
    return shown.decode("utf-8", "replace"), process.wait(60)


def in_terminal(cli: Cli, *arguments: str) -> tuple[str, int]:
    """Run a command line at a pseudo terminal; return what it showed and its exit code."""
    return shown_to_the_end(*at_terminal(cli, *arguments))
