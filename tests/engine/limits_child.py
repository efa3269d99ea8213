"""What the tests of limits run in processes of their own: `python limits_child.py JOURNAL FOLDER WHAT [ARGUMENT]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from wfengine import flow, task, use_journal
from wfengine.concurrency.sync import concurrency, rate_limit

FOLDER = Path(sys.argv[2])


def note(word: str) -> None:
    """Append one line, whole, to the file that all processes share."""
    file = os.open(FOLDER / "lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{word} {os.getpid()}\n".encode())
    os.close(file)


def linger() -> None:
    """Wait for the disk: meanwhile the other processes have their turn, and would come in if they could."""
    file = os.open(FOLDER / "lines", os.O_WRONLY)
    os.fsync(file)
    os.close(file)


def section() -> None:
    with concurrency("tool", strict=True):
        note("enter")
        linger()
        note("leave")


@task
def tasked() -> None:
    section()


@task(tags=["tool"])
def tagged() -> None:
    note("enter")
    linger()
    note("leave")


@flow
def sections(count: int, what: str) -> None:
    for _ in range(count):
        {"body": section, "task": tasked, "tag": tagged}[what]()


@flow
def held() -> None:
    with concurrency("tool", strict=True):
        note("inside")
        sys.stdin.readline()


@task(tags=["tool"])
def holding() -> None:
    note("inside")
    sys.stdin.readline()


@flow
def tag_held() -> None:
    holding()


@flow
def started(count: int) -> None:
    for _ in range(count):
        rate_limit("api", strict=True)
        note("start")


if __name__ == "__main__":
    use_journal(Path(sys.argv[1]), durability="process")
    argument = sys.argv[4] if len(sys.argv) > 4 else ""
    if sys.argv[3] == "sections":
        sections(int(argument), sys.argv[5])
    elif sys.argv[3] == "outside":
        for _ in range(int(argument)):
            section()
    elif sys.argv[3] == "held":
        held()
    elif sys.argv[3] == "held outside":
        with concurrency("tool", strict=True):
            note("inside")
            sys.stdin.readline()
    elif sys.argv[3] == "tag held":
        tag_held()
    elif sys.argv[3] == "killed":  # just before or after a commit
        point, asked = int(argument), 0

        def probe(*_: object) -> None:
            global asked
            if asked == point:
                os.kill(os.getpid(), signal.SIGKILL)
            asked += 1

        use_journal(Path(sys.argv[1]), durability="process").probe_commits(probe)
        sections(1, sys.argv[5])
        note("done")
    elif sys.argv[3] == "rate":
        started(int(argument))
