"""Starting the examples as a user does: each in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STEP_LIMIT_SECONDS = 60

#: Runs a flow in a process that kills itself when so many calls of one task are completed and committed.
KILLED = """
import os, signal, sys, threading
from wfengine.listeners import add_listener
from wfengine.loading import load_target

target, task, limit, *arguments = sys.argv[1:]
lock, done = threading.Lock(), []

def kill(event):
    if event.name == task and event.state == "COMPLETED":
        with lock:
            done.append(event)
            if len(done) == int(limit):
                os.kill(os.getpid(), signal.SIGKILL)

add_listener(kill)
(flow,) = load_target(target)
flow(*map(eval, arguments))
"""


def environment() -> dict[str, str]:
    """Return this process's environment without settings of wfengine, its own installation first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WFENGINE_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


def _run(folder: Path, arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=STEP_LIMIT_SECONDS,
        check=False,
    )


def python(folder: Path, *arguments: object, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with the journal `folder`/journal.db, to its end, whatever that is.

    `warnings`: what becomes of one; 'default' where packages of others are used that may warn on a newer Python.
    """
    journal = {"WFENGINE_JOURNAL": str(folder / "journal.db")}
    return _run(folder, [sys.executable, "-W", warnings, *map(str, arguments)], journal)


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in `folder`, as a user types it."""
    return _run(folder, ["sh", "-c", command], {})


def run_until_killed(folder: Path, target: str, task: str, limit: int, *arguments: object, warnings: str = "error") -> None:
    """Run a flow until `limit` calls of `task` are completed; its process is then killed by SIGKILL."""
    ended = python(folder, "-c", KILLED, target, task, limit, *map(repr, arguments), warnings=warnings)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def resume(folder: Path, warnings: str = "error") -> None:
    """Resume the last run in a new process, to its successful end."""
    ended = python(folder, "-m", "wfengine", "resume", "@last", warnings=warnings)
    assert ended.returncode == 0, ended.stderr


def query(database: Path, sql: str) -> list[tuple[object, ...]]:
    """Return what a query gives, read by nothing but SQLite."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()
