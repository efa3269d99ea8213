"""Deployments and all that is around them, for the tests of their pages: what is applied, and a daemon that serves it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving_page import LIMIT, copy_program, environment

FILE = """
[[deployments]]
flow = "program.py:choosing"
name = "nightly"
description = "What is chosen at night."
tags = ["night"]
schedules = [{cron = "*/5 * * * *", timezone = "Europe/Berlin"}]

[[deployments]]
flow = "program.py:waiting"
name = "by-hand"
queue = "slow"

[[automations]]
name = "ship"
description = "Ship what was ordered."
trigger = {expect = ["order.placed"]}
actions = [{type = "run-deployment", deployment = "waiting/by-hand"}]
"""


def wfengine(folder: Path, *words: str, given: str | None = None) -> str:
    """Run a command to its end, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "wfengine", *words], cwd=folder, env=environment(folder), input=given, capture_output=True,
        text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def manage(folder: Path) -> None:
    """Put deployments, schedules, an automation, and some of everything else into a journal."""
    copy_program(folder)
    (folder / "wfengine.toml").write_text(FILE, encoding="utf-8")
    wfengine(folder, "deploy")
    wfengine(folder, "limits", "set", "database", "--slots", "3")
    wfengine(folder, "limits", "set", "heavy", "--tag", "--slots", "2")
    wfengine(folder, "variables", "set", "batch_size", "500")
    wfengine(folder, "events", "emit", "order.placed", "order.12", "--payload", json.dumps({"total": 80}))


@contextmanager
def daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the journal in a process of its own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wfengine", "serve"], cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT)
        process.kill()
        process.wait()
