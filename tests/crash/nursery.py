"""Children by the hundred: a process that has imported everything forks one real process for each start it is asked for.

Importing Python, wfengine and asyncio is most of a short child's life. The nursery itself never opens a journal and has
one thread, so a forked child is as good as a fresh process; the tests of recovery by other means start fresh ones. (It does
not import sqlite-utils, which imports numpy, which starts a thread and makes each fork dearer.) Taking an interpreter down is
most of what is left: it writes to each page that the child shares with the nursery. So a child ends when its threads have
ended and what it registered for its end was done, and only every few are taken down to the last object.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

#: What a nursery's command line consists of.
FLAG = "--nursery"
#: A child that lives longer is ended by its own alarm, in seconds, and leaves in `stderr.txt` where its threads stood.
CHILD_LIMIT_SECONDS = 120
#: How often one looks how much a child has worked, in seconds.
LOOK_SECONDS = 0.0005
#: One child in so many takes its interpreter down as Python does, destructors and all.
WHOLE_END_EACH = 16


@dataclass(frozen=True, slots=True)
class Life:
    """How long a child may live before it is killed: seconds on the wall, or, on whatever busy machine, of its own work."""

    seconds: float
    is_work: bool = False


class Nursery:
    """The parent's side of one nursery process. One start at a time."""

    def __init__(self, program: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(program), FLAG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def run(self, folder: Path, arguments: list[str], variables: dict[str, str], life: Life | None = None) -> int:
        """Run one child to its end; its output goes to `stdout.txt` and `stderr.txt` of the folder. Return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), arguments, variables, life and asdict(life)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery process died"
        return int(answer)

    def close(self) -> None:
        """End the nursery."""
        self._process.communicate(timeout=CHILD_LIMIT_SECONDS)


def serve(main: Callable[[], None]) -> None:
    """Fork a child for each line on standard input, which runs `main` and ends."""
    import argparse  # noqa: F401 - so that no child has to
    import asyncio  # noqa: F401 - the same
    import concurrent.futures.thread  # noqa: F401 - the same
    import gc

    import cloudpickle  # noqa: F401 - the same

    gc.collect()
    gc.freeze()  # else a child's collector looks at all that was imported, and each page of it has to be copied for that
    number = 0
    while line := sys.stdin.readline():
        number += 1
        folder, arguments, variables, life = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(folder, arguments, variables)
            main()
            if number % WHOLE_END_EACH:
                end_at_once()
            return
        if life is not None:
            kill_after(pid, Life(**life))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)


def end_at_once(code: int = 0) -> None:
    """End this process as Python does, but for its objects: they are not destroyed one by one."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def kill_after(pid: int, life: Life) -> None:
    """Send SIGKILL to a child that lives longer from now on, whatever it is doing then. Needs Linux."""
    worked = (~pid << 3) | 2  # the kernel's number for the clock of another process's work
    before = time.clock_gettime(worked)
    child = os.pidfd_open(pid)
    try:
        left = life.seconds
        while left > 0.0:
            if select.select([child], [], [], max(left, LOOK_SECONDS))[0]:
                return
            left = life.seconds - (time.clock_gettime(worked) - before) if life.is_work else 0.0
        os.kill(pid, signal.SIGKILL)
    finally:
        os.close(child)


def _become(folder: str, arguments: list[str], variables: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv[1:] = arguments
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(CHILD_LIMIT_SECONDS)
