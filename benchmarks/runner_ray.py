"""What a task costs on Ray, ours beside a bare one: `python -m benchmarks.runner_ray [--tasks 2000] [--rounds 3]`.

Both run the same no-op on the same Ray with the same number in flight. The bare one gives Ray the next when one is done, and
takes its value; ours does what it does anywhere: two states committed, value stored, a future settled.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ray

from wfengine import flow, task, use_journal
from wfengine.runners.ray import RayTaskRunner

IN_FLIGHT = (2, 8, 32)


@task
def step(number: int) -> int:
    return number


def bare(tasks: int, in_flight: int) -> float:
    """Return the seconds that a bare task takes."""
    function = ray.remote(max_retries=0)(step.fn)
    started = time.perf_counter()
    waiting = [function.remote(number) for number in range(in_flight)]
    for number in range(in_flight, tasks):
        (done,), waiting = ray.wait(waiting, num_returns=1)
        ray.get(done)
        waiting.append(function.remote(number))
    ray.get(waiting)
    return (time.perf_counter() - started) / tasks


def ours(tasks: int, in_flight: int) -> float:
    """Return the seconds that a task of ours takes."""

    @flow(task_runner=RayTaskRunner(max_workers=in_flight))
    def fan_out() -> float:
        step.map(range(in_flight * 2)).result()
        started = time.perf_counter()
        step.map(range(tasks)).result()
        return (time.perf_counter() - started) / tasks

    return fan_out()


def main() -> None:
    """Print one line for each number in flight."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_ray", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as folder:
        use_journal(Path(folder) / "journal.db")
        bare(200, 2)
        for in_flight in IN_FLIGHT:
            found: dict[Callable[[int, int], float], list[float]] = {bare: [], ours: []}
            for _ in range(options.rounds):
                for measure, seconds in found.items():
                    seconds.append(measure(options.tasks, in_flight) * 1e6)
            theirs, us = (statistics.median(seconds) for seconds in found.values())
            print(f"{in_flight:3} in flight: bare Ray {theirs:6.0f} us, ours {us:6.0f} us a task, {us / theirs:.2f} x")
    ray.shutdown()


if __name__ == "__main__":
    main()
