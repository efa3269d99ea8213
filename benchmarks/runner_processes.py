"""What a task in a process costs, ours beside a bare one: `python -m benchmarks.runner_processes [--tasks 2000] [--rounds 3]`.

Both run the same function in two processes with two in flight. The bare one is `concurrent.futures.ProcessPoolExecutor`,
which is given the next when one is done; ours commits two states and a value for each task (durability "process"). A second
part computes for a while in each task, with one process and with two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from wfengine import flow, task, use_journal
from wfengine.task_runners import ProcessTaskRunner, ThreadTaskRunner

PROCESSES = 2
#: What a task computes, in microseconds of this machine, more or less: nothing, a millisecond, ten.
LOADS = {"no-op": 0, "1 ms": 30_000, "10 ms": 300_000}
#: Tasks of the second part.
COMPUTING = 100


def compute(rounds: int) -> int:
    """Keep the interpreter busy."""
    total = 0
    for number in range(rounds):
        total += number
    return total


step = task(compute)


def bare(tasks: int, rounds: int) -> float:
    """Return the seconds that a bare task takes."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        list(pool.map(compute, [0] * PROCESSES * 4))
        started = time.perf_counter()
        waiting = {pool.submit(compute, rounds) for _ in range(PROCESSES)}
        for _ in range(PROCESSES, tasks):
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                waiting.add(pool.submit(compute, rounds))
        wait(waiting)
        return (time.perf_counter() - started) / tasks


def ours(tasks: int, rounds: int, processes: int = PROCESSES) -> float:
    """Return the seconds that a task of ours takes."""

    @flow(task_runner=ProcessTaskRunner(processes))
    def fan_out() -> float:
        step.map([0] * processes * 4).result()
        started = time.perf_counter()
        step.map([rounds] * tasks).result()
        return (time.perf_counter() - started) / tasks

    return fan_out()


def journaled(tasks: int, rounds: int) -> float:
    """Return the seconds that a task of ours takes on threads, with as many at a time: what is not due to processes."""

    @flow(task_runner=ThreadTaskRunner(PROCESSES))
    def fan_out() -> float:
        step.map([0] * PROCESSES * 4).result()
        started = time.perf_counter()
        step.map([rounds] * tasks).result()
        return (time.perf_counter() - started) / tasks

    return fan_out()


def main() -> None:
    """Print a line for each load, and what a second process is worth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_processes", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        use_journal(Path(folder) / "journal.db", durability="process")
        nothing = 0.0
        for name, rounds in LOADS.items():
            tasks = options.tasks if rounds == 0 else options.tasks // 10
            found: dict[Callable[[int, int], float], list[float]] = {bare: [], ours: []}
            for _ in range(options.rounds):
                for measure, seconds in found.items():
                    seconds.append(measure(tasks, rounds) * 1e6)
            theirs, us = (statistics.median(seconds) for seconds in found.values())
            nothing = us if rounds == 0 else nothing
            print(f"{name:>6}: bare pool {theirs:7.0f} us, ours {us:7.0f} us a task, {us / theirs:.2f} x")
        alone = statistics.median(journaled(options.tasks, 0) * 1e6 for _ in range(options.rounds))
        print(f"no-op on threads: {alone:7.0f} us a task, the journal's part of the {nothing:.0f} us")
        worth = [ours(COMPUTING, LOADS["10 ms"], 1) / ours(COMPUTING, LOADS["10 ms"], 2) for _ in range(options.rounds)]
        print(f"two processes beside one: {statistics.median(worth):.2f} x ({min(worth):.2f}-{max(worth):.2f})")


if __name__ == "__main__":
    main()
