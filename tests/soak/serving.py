"""A daemon that serves for as long as a soak lasts: `python -m tests.soak.serving JOURNAL ROUNDS`.

It has a schedule of every second, and flows that send and receive, retry, map over threads, call subflows, wait for each other,
log and fail. With ROUNDS it does not serve, but does one round after the other, and says on each line of standard input what it
holds; 0 is the daemon.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from wfengine import ThreadTaskRunner, flow, get_run_logger, serve, task, use_journal
from wfengine.messages import receive, send
from wfengine.runs import current_flow_run


@task
def add(left: int, right: int) -> int:
    return left + right


@task(retries=1)
def flaky(seen: str) -> str:
    if not Path(seen).exists():
        Path(seen).touch()
        raise ConnectionError("the first time")
    Path(seen).unlink()
    return "at last"


@task
def broken() -> None:
    raise ValueError("never works")


@flow
def part(start: int) -> int:
    return add(start, 1)


@flow(task_runner=ThreadTaskRunner(max_workers=3))
def everything(size: int = 6) -> int:
    """Do some of everything."""
    run = current_flow_run().id
    get_run_logger().info("run %d begins", run)
    total = sum(add.map(range(size), 1).result())
    total += part(total)
    flaky(f"{use_folder()}/seen-{run}")
    for number in range(3):
        send(run, "x" * 2000 + str(number))
    got = [receive() for _ in range(3)]
    try:
        broken()
    except ValueError:
        total += 1
    return total + len(got)


def use_folder() -> str:
    """Return where the flows keep their files."""
    return os.environ["WFENGINE_SOAK_FOLDER"]


def holdings() -> dict[str, int]:
    """Return what this process holds: descriptors, threads, resident kilobytes."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "resident": resident,
    }


def main() -> None:
    """Serve, or do rounds."""
    journal, rounds = Path(sys.argv[1]), int(sys.argv[2])
    use_journal(journal)
    if not rounds:
        serve(everything.to_deployment("often", interval=1.0), everything.to_deployment("seldom", interval=7.0), limit=4)
        return
    for line in sys.stdin:
        for _ in range(int(line)):
            everything()
        print(json.dumps(holdings()), flush=True)


if __name__ == "__main__":
    main()
