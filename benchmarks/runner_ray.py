"""What a task costs on Ray, ours beside a bare one: `python -m benchmarks.runner_ray [--tasks 1000] [--rounds 5]`.

Both run the same no-op on the same Ray with the same number in flight. The bare one gives Ray the next when one is done, and
takes its value; see `runner_parts` for what is measured.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ray

from benchmarks.runner_parts import compare
from wfengine import flow, task, use_journal
from wfengine.runners.ray import RayTaskRunner
from wfengine.task_runners import ThreadTaskRunner

IN_FLIGHT = (2, 8, 32)


@task
def step(number: int) -> int:
    return number


@task
def by_hand(number: int) -> int:
    found: int = ray.get(_bare().remote(number))
    return found


def _bare() -> Any:
    if not _functions:
        _functions.append(ray.remote(max_retries=0)(step.fn))
    return _functions[0]


_functions: list[Any] = []


def bare(tasks: int, in_flight: int) -> None:
    """Run bare tasks, so many at a time."""
    function = _bare()
    waiting = [function.remote(number) for number in range(in_flight)]
    for number in range(in_flight, tasks):
        (done,), waiting = ray.wait(waiting, num_returns=1)
        ray.get(done)
        waiting.append(function.remote(number))
    ray.get(waiting)


def measure(tasks: int, in_flight: int, rounds: int) -> None:
    """Print what is found with so many in flight."""
    threads = ThreadTaskRunner(in_flight)
    here, asks = step.with_options(runner=threads), by_hand.with_options(runner=threads)

    @flow(task_runner=RayTaskRunner(max_workers=in_flight))
    def fan_out() -> None:
        kinds = {
            "bare": lambda: bare(tasks, in_flight),
            "ours": lambda: step.map(range(tasks)).result(),
            "journal": lambda: here.map(range(tasks)).result(),
            "by hand": lambda: asks.map(range(tasks)).result(),
        }
        compare(kinds, tasks, rounds, f"{in_flight} in flight")

    fan_out()


def main() -> None:
    """Print two lines for each number in flight."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_ray", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as folder:
        use_journal(Path(folder) / "journal.db", durability="process")
        for in_flight in IN_FLIGHT:
            measure(options.tasks, in_flight, options.rounds)
    ray.shutdown()


if __name__ == "__main__":
    main()
