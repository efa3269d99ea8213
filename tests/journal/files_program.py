"""The program whose journal the tests of files copy, prune, export and damage; and how they run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FLOWS = """
import os
import sys
from pathlib import Path

from wfengine import flow, get_run_logger, task, use_journal
from wfengine.artifacts import create_markdown_artifact
from wfengine.cache_policies import INPUTS

@task(retries=1)
def double(number):
    get_run_logger().info("doubling %s", number)
    if number == 2:
        raise ValueError("two is not for me")
    return number * 2

@task
def large(number):
    return f"{number}" * 5000

@task
def pair():
    return (3, 4)

@task(cache_policy=INPUTS)
def cached(text):
    return text[:2000]

@flow
def child(number):
    return double(number) + len(large(number))

@flow
def parent(number):
    create_markdown_artifact("# made", key="note")
    cached("x" * 4000)
    pair()
    return child(number) + child(number + 10)

@flow
def failing():
    cached("x" * 4000)
    double(2)

@task
def first():
    print("first ran", flush=True)
    return 1

@task
def second():
    print("in the second task" if os.environ.get("WAIT") != "no" else "second ran", flush=True)
    if os.environ.get("WAIT") != "no":
        sys.stdin.read()
    return 2

@flow
def waiting():
    return first() + second()

if __name__ == "__main__":
    use_journal(os.environ.get("JOURNAL", "journal.db"), durability="process")
    if sys.argv[1] == "waiting":
        waiting()
    else:
        for number in range(int(os.environ.get("TIMES", "1"))):
            parent(number * 100 + 5)
            try:
                failing()
            except ValueError:
                pass
            child(number * 100 + 7)
"""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user who set nothing of wfengine, with changes."""
    sources = os.pathsep.join(str(ROOT / folder) for folder in (".", "journal", "scheduler"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WFENGINE_")}
    return {**inherited, "PYTHONPATH": sources, **changes}


def python(folder: Path, *arguments: str, **changes: str) -> str:
    """Run Python in a folder to its end; return what it wrote."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(**changes), text=True, capture_output=True, check=False,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
