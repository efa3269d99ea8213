"""The small flow whose every system call goes wrong once: a chain, a map, a retry, a log line and an artifact.

Run as a script it is a child of the harness.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash import effects
from tests.crash.child import main
from tests.crash.effects import acknowledged, append
from tests.crash.nursery import FLAG, serve
from tests.faults import injector
from wfengine import flow, get_run_logger, task, use_journal
from wfengine.artifacts import create_table_artifact
from wfengine_journal.errors import JournalUnwritableError, WfengineError

FLOW = "small"
EXPECTED = [3, 10, 11, 12, "at last"]
MANY = 1_000_000
#: The stack of a thread where threads are scarce: no two of them fit beside what is allowed.
STACK_BYTES = 1 << 30


@task(max_interruptions=MANY)
def add(call: str, left: int, right: int) -> int:
    get_run_logger().info("about to add for %s", call)
    append("run", call)
    return left + right


@task(max_interruptions=MANY)
def publish(call: str, value: int) -> int:
    create_table_artifact([{"value": value}], key="small-table")
    append("run", call)
    return value


@task(max_interruptions=MANY, retries=1)
def flaky(call: str) -> str:
    if not effects.has_happened("fail", call):
        append("fail", call)
        raise RuntimeError("the first attempt fails")
    append("run", call)
    return "at last"


def tried(call: str, work: Callable[[], Any]) -> Any:
    """Call a task as careless users do: a fault of the disk must not look to them like a failure of their task."""
    try:
        value = work()
    except Exception as error:
        append("caught", f"{call} {type(error).__name__}")
        raise
    return acknowledged(call, value)


@flow
def small() -> list[Any]:
    first = tried("first", lambda: add("first", 1, 1))
    second = tried("second", lambda: publish("second", first + 1))
    mapped = [
        tried(f"map/{number}", future.result)
        for number, future in enumerate(add.map([f"map/{number}" for number in range(3)], range(3), 10))
    ]
    return [second, *mapped, tried("flaky", lambda: flaky("flaky"))]


def make_scarce(what: str, number: int) -> None:
    """Let the process have so many more open files, files of so many bytes, so much more memory, or so many more threads."""
    import resource

    if what == "threads":  # each asks for more than there is room for beyond these
        threading.stack_size(STACK_BYTES)
        what, number = "memory", number * STACK_BYTES + STACK_BYTES // 2
    if what == "memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + number, resource.RLIM_INFINITY))
        return
    lowest = os.dup(0)
    os.close(lowest)
    limit, value = (resource.RLIMIT_NOFILE, lowest + number) if what == "files" else (resource.RLIMIT_FSIZE, number)
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))


def execute() -> None:
    """Be a child of the harness: start the flow with a fault ahead, or go on with its run without one."""
    append("start", str(os.getpid()))
    scarce, number = os.environ.get("SCARCE", ":").split(":")
    if "FAULTS_KIND" not in os.environ and not scarce:
        main({FLOW: small})
        return
    if not scarce:
        injector.arm()
    try:
        if scarce in ("files", "size", "memory", "threads"):
            make_scarce(scarce, int(number))
        journal = use_journal(sys.argv[sys.argv.index("--journal") + 1])
        if scarce == "heap":  # of SQLite: it says so as Python does, by MemoryError
            with contextlib.suppress(JournalUnwritableError):  # it is set, and this very call has too little already
                journal.read_itself(lambda connection: connection.execute(f"PRAGMA hard_heap_limit = {number}").fetchone())
        if scarce == "pages":
            pages = journal.read_itself(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
            journal.read_itself(
                lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + int(number)}").fetchone()
            )
        result = small()
    except WfengineError as error:
        print(f"error {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    else:
        print(f"result {json.dumps(result)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
