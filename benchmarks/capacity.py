"""How far one machine goes: an old file, a large flow, runs out of a queue, many processes, many runs that wait."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import CHILD_SECONDS, _environment, _run
from benchmarks.raw import raw_microseconds
from benchmarks.table import Row
from benchmarks.workloads import CHAIN_TASKS, chain_seconds, scratch, step
from wfengine import flow, use_journal
from wfengine.executor import Executor
from wfengine_journal.names import new_run_name
from wfengine_journal.queries import list_runs, reading
from wfengine_journal.queued_runs import QueueRun, RunRequest

#: Task runs that are in the file already, and in how many runs.
OLD_TASKS, OLD_RUNS = 1_000_000, 100
LISTED_RUNS = 50
QUEUED_RUNS = 300
#: Processes that write to one file, and flows of a few tasks that each of them runs.
WRITERS, WRITTEN_FLOWS = 8, 100
WAITING_RUNS = 500

WRITER = f"""\
import sys, time
from wfengine import flow, task

@task
def step(number):
    return number + 1

@flow(durability="process")
def small():
    number = 0
    for _ in range(3):
        number = step(number)

if __name__ == "__main__":
    small()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range({WRITTEN_FLOWS}):
        small()
"""

WAITING = """\
import resource, sys, time
from wfengine import flow, receive, use_journal
from wfengine.executor import Executor
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest

@flow
def plain():
    receive("word")

@flow
async def coroutine():
    await receive("word")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024

def main(chosen, count):
    journal = use_journal(None)
    deployment = chosen.to_deployment("waiting")
    deployment.apply()
    executor = Executor(journal, limit=1000, flows={chosen.name: chosen})
    executor.start()

    def put(count):
        for _ in range(count):
            name = new_run_name(journal.records.is_run_name_taken)
            journal.write(QueueRun(RunRequest(deployment.id, name, journal.clock.now_text())), synced=False)

    def wait(count):
        while journal.records.rows("SELECT count(*) FROM task_run WHERE state = 'RUNNING'", ())[0][0] < count:
            time.sleep(0.05)

    put(10)
    wait(10)
    before = resident()
    put(count)
    wait(10 + count)
    print((resident() - before) / count)
    sys.stdout.flush()
    import os
    os._exit(0)

if __name__ == "__main__":
    main({"plain": plain, "coroutine": coroutine}[sys.argv[1]], int(sys.argv[2]))
"""


@flow
def nothing() -> None:
    """Be begun and end."""


@flow(name="old", durability="process")
def old(count: int) -> None:
    """Fill a file."""
    step.map(range(count)).result()


def old_file(rounds: int, folder: Path | None) -> list[Row]:
    """W6. The file is filled once, which takes minutes."""
    fresh, aged, listed = [], [], []
    with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
        path = Path(name) / "old.db"
        journal = use_journal(path)
        for _ in range(OLD_RUNS):
            old(OLD_TASKS // OLD_RUNS)
        journal.close()
        for _ in range(rounds):
            with scratch(folder):
                fresh.append(chain_seconds(CHAIN_TASKS, "process") / CHAIN_TASKS * 1e6)
            journal = use_journal(path)
            aged.append(chain_seconds(CHAIN_TASKS, "process") / CHAIN_TASKS * 1e6)
            journal.close()
            began = time.perf_counter()
            with reading(path) as connection:
                list_runs(connection, limit=LISTED_RUNS)
            listed.append((time.perf_counter() - began) * 1000)
    what = f"W1 with {OLD_TASKS:,} old task runs in the file"
    return [
        Row("W6", what, aged, "us/task", "1.15 x", "1.05 x", "as W1", fresh, "a new file", "tasks"),
        Row("W6", f"list the last {LISTED_RUNS} runs of it", listed, "ms", "20 ms", "", ""),
    ]


def many_processes(rounds: int, folder: Path | None) -> list[Row]:
    """W10."""
    one, all_ = [], []
    for _ in range(rounds):
        one.append(_written(1, folder))
        all_.append(_written(WRITERS, folder))
    what = f"{WRITERS} processes run flows of 3 tasks on one file, process"
    return [Row("W10", what, all_, "us/flow", "2 x, 0 errors", "1 x", "as W3", one, "1 process", "flows")]


def _written(processes: int, folder: Path | None) -> float:
    """Return the microseconds for each flow, of all processes together; one that fails ends the benchmark."""
    with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
        (Path(name) / "writer.py").write_text(WRITER, encoding="utf-8")
        children = [
            subprocess.Popen(
                [sys.executable, "writer.py"], cwd=name, env=_environment(), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for _ in range(processes)
        ]  # fmt: skip
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        began = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            _, said = child.communicate(timeout=CHILD_SECONDS)
            if child.returncode != 0:
                raise SystemExit(f"one of {processes} processes failed:\n{said}")
        return (time.perf_counter() - began) / (processes * WRITTEN_FLOWS) * 1e6


def queued_runs(rounds: int, folder: Path | None) -> list[Row]:
    """Runs of deployments that do nothing: from the first one's start to the last one's end, one executor."""
    ours, raw = [], []
    for _ in range(rounds):
        with scratch(folder) as place:
            raw.append(raw_microseconds(place, QUEUED_RUNS, "FULL"))
            journal = use_journal(place / "journal.db")
            deployment = nothing.to_deployment("queued")
            deployment.apply()
            assert deployment.id is not None
            for _ in range(QUEUED_RUNS):
                name = new_run_name(journal.records.is_run_name_taken)
                journal.write(QueueRun(RunRequest(deployment.id, name, journal.clock.now_text())), synced=False)
            began = time.perf_counter()
            Executor(journal, flows={"nothing": nothing}).run_once()
            ours.append((time.perf_counter() - began) / QUEUED_RUNS * 1e6)
    what = f"{QUEUED_RUNS} runs out of a queue, power"
    return [Row("C1", what, ours, "us/run", "", "", "start: safe from kill -9; end: synced", raw, "raw-F", "runs")]


def waiting_runs(rounds: int, folder: Path | None) -> list[Row]:
    """Memory of a run that waits for a message in the daemon's process."""
    rows = []
    for kind in ("plain", "coroutine"):
        each = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
                (Path(name) / "waiting.py").write_text(WAITING, encoding="utf-8")
                each.append(float(_run(Path(name), "waiting.py", kind, str(WAITING_RUNS))))
        what = f"memory of a run that waits, {'def' if kind == 'plain' else 'async def'}"
        rows.append(Row("C2", what, each, "kB", "", "", ""))
    return rows
