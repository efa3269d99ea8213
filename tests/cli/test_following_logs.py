"""`wfengine runs logs RUN --follow` in one process shows what others log: over kill -9 and a resume, each line once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import Cli, environment

#: Seconds within which something has to happen on a machine that is busy with other things.
LIMIT = 120

PROGRAM = """
import os
from pathlib import Path
from wfengine import flow, get_run_logger, task

@task
def step(n):
    get_run_logger().info("task %d", n)
    return n

@flow(flow_run_name="monday")
def etl():
    get_run_logger().info("begin")
    step(1)
    get_run_logger().info("middle")
    step(2)
    if not Path("killed").exists():
        Path("killed").touch()
        os.write(1, b"there\\n")
        os.read(0, 1)
        os.kill(os.getpid(), 9)
    step(3)
    get_run_logger().info("end")
"""


@pytest.mark.crash
def test_lines_of_a_killed_and_resumed_run_are_followed_each_once_until_it_ends(cli: Cli) -> None:
    (cli.folder / "etl.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "wfengine"]
    running = subprocess.Popen(
        [*command, "run", "etl.py", "--quiet"], cwd=cli.folder, env=environment(), stdin=subprocess.PIPE, bufsize=0,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    follower = None
    try:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == b"there\n"
        follower = subprocess.Popen(
            [*command, "runs", "logs", "1", "--follow", "--json"], cwd=cli.folder, env=environment(), stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert follower.stdout is not None
        first = [json.loads(follower.stdout.readline())["message"] for _ in range(4)]
        running.stdin.write(b"x")
        assert running.wait(LIMIT) == -9
        assert cli("resume", "1", "--quiet").code == 0
        rest = [json.loads(line) for line in follower.communicate(timeout=LIMIT)[0].splitlines()]
        assert follower.returncode == 0
    finally:
        for process in (running, follower):
            if process is not None:
                process.kill()
                process.communicate()
    assert first == ["begin", "task 1", "middle", "task 2"]
    # The body is executed again and logs again what it says between its tasks, as lines of its own; tasks are not.
    assert [line["message"] for line in rest] == ["begin", "middle", "task 3", "end"]
    logged = json.loads(cli("runs", "logs", "1", "--json").out)["logs"]
    assert [line["message"] for line in logged] == first + [line["message"] for line in rest]
    assert [line["id"] for line in logged][4:] == [line["id"] for line in rest]
