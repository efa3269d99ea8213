"""What a task in a process costs, ours beside a bare one: `python -m benchmarks.runner_processes [--tasks 2000] [--rounds 3]`.

Both run the same function in two processes with two in flight. The bare one is `concurrent.futures.ProcessPoolExecutor`,
which is given the next when one is done; see `runner_parts` for what is measured (durability "process"). A second part
computes for a while in each task, with one process and with two.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from benchmarks.runner_parts import compare
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


def bare(pool: ProcessPoolExecutor, tasks: int, rounds: int) -> None:
    """Run bare tasks in processes."""
    waiting = {pool.submit(compute, rounds) for _ in range(PROCESSES)}
    for _ in range(PROCESSES, tasks):
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            waiting.add(pool.submit(compute, rounds))
    wait(waiting)


def measure(tasks: int, rounds: int, times: int, what: str) -> None:
    """Print what a task costs that computes so much."""
    with ProcessPoolExecutor(PROCESSES) as pool:

        @task
        def by_hand(rounds: int) -> int:
            return pool.submit(compute, rounds).result()

        threads = ThreadTaskRunner(PROCESSES)
        here, asks = step.with_options(runner=threads), by_hand.with_options(runner=threads)

        @flow(task_runner=ProcessTaskRunner(PROCESSES))
        def fan_out() -> None:
            kinds = {
                "bare": lambda: bare(pool, tasks, rounds),
                "ours": lambda: step.map([rounds] * tasks).result(),
                "journal": lambda: here.map([0] * tasks).result(),
                "by hand": lambda: asks.map([rounds] * tasks).result(),
            }
            compare(kinds, tasks, times, what)

        fan_out()


def computed(processes: int) -> float:
    """Return the seconds that tasks take which compute, in so many processes."""

    @flow(task_runner=ProcessTaskRunner(processes))
    def fan_out() -> float:
        step.map([0] * processes * 4).result()
        started = time.perf_counter()
        step.map([LOADS["10 ms"]] * COMPUTING).result()
        return time.perf_counter() - started

    return fan_out()


def main() -> None:
    """Print two lines for each load, and what a second process is worth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_processes", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        use_journal(Path(folder) / "journal.db", durability="process")
        for name, rounds in LOADS.items():
            measure(options.tasks if rounds == 0 else options.tasks // 10, rounds, options.rounds, name)
        worth = [computed(1) / computed(2) for _ in range(options.rounds)]
        print(f"two processes beside one: {statistics.median(worth):.2f} x ({min(worth):.2f}-{max(worth):.2f})")


if __name__ == "__main__":
    main()
