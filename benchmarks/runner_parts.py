"""What a task on a runner costs beside a bare one of the same engine, and which part of it is the journal's.

Four things are measured in turns, in one flow run, after all of them were done once:

- bare: the engine alone, without wfengine.
- ours: the same function as a task on the runner.
- journal: the same task on threads, which is what two states, a value and a future cost wherever the code runs.
- by hand: a task on threads whose code has the bare engine do it: the journal at the pace of the engine, without a runner.

Time is lengthened by other work of the machine; the time of processors, of this process and those that it started, hardly is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

#: Until workers that are not needed any more have ended, in seconds.
SETTLE_SECONDS = 3.0


def measured(what: Callable[[], object], tasks: int) -> tuple[float, float]:
    """Return microseconds, and microseconds of processors, for each task."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running())

    began, before = time.perf_counter(), used()
    what()
    return (time.perf_counter() - began) / tasks * 1e6, (used() - before) / tasks * 1e6


def compare(kinds: Mapping[str, Callable[[], object]], tasks: int, rounds: int, what: str) -> None:
    """Measure in turns, and print one line for time and one for processors. `kinds` are bare, ours, journal and by hand."""
    for kind in kinds.values():
        kind()
    time.sleep(SETTLE_SECONDS)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            found[name].append(measured(kind, tasks))
    for number, name in enumerate(("time", "processors")):
        bare, ours, journal, by_hand = (statistics.median(each[number] for each in found[kind]) for kind in kinds)
        parts = f"journal {journal:5.0f} us, runner {ours - journal:6.0f} us: {(ours - journal) / bare:.2f} x"
        print(
            f"{what:>14} {name:10} bare {bare:6.0f} us, ours {ours:6.0f} us a task: {ours / bare:.2f} x; {parts}; "
            f"by hand {by_hand:6.0f} us: {ours / by_hand:.2f} x"
        )
