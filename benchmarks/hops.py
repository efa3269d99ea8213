"""Where the microseconds of one task go: the eight hops of `wfengine.task_engine`, timed one by one.

The steps of a call are performed here by hand, as `wfengine.steps.drive` performs them, with the clock read in between.
"""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import time
from pathlib import Path

from benchmarks.raw import raw_microseconds
from benchmarks.workloads import CHAIN_TASKS, RAW, WARM_UP_TASKS, chain_seconds, scratch, step
from wfengine import flow
from wfengine.resolution import is_plain
from wfengine.scopes import find_scope
from wfengine.steps import Write, _perform
from wfengine.task_engine import issue, live, new_call
from wfengine_journal.tickets import Change

HOPS = (
    "scope and futures among the arguments",
    "1 bind",
    "2, 3 identity and lookup",
    "4 begin: the change is made",
    "4 begin: statements",
    "4 begin: transaction",
    "5 user code in its scope",
    "6 outcome: encoded, the change is made",
    "6 outcome: statements",
    "6 outcome: transaction",
    "8 told",
)


class _Timed:
    """A change that notes how long its statements take."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self.nanoseconds = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        began = time.perf_counter_ns()
        self._change.apply(connection)
        self.nanoseconds = time.perf_counter_ns() - began

    def landed(self, connection: sqlite3.Connection) -> bool:
        return self._change.landed(connection)


def print_hops(name: str, folder: Path | None) -> None:
    """Print the median microseconds of each hop of workload W1 or W1p."""
    durability = "power" if name == "W1p" else "process"
    with scratch(folder) as place:
        raw = raw_microseconds(place, CHAIN_TASKS, RAW[durability])
        whole = chain_seconds(CHAIN_TASKS, durability) / CHAIN_TASKS * 1e6
        samples = _samples(durability)
    medians = [statistics.median(column) / 1000 for column in zip(*samples, strict=True)]
    print(f"{name}: {whole:.1f} us a task ({whole / raw:.2f} x raw, {raw:.1f} us); by hop, medians of {CHAIN_TASKS:,} tasks:")
    for hop, microseconds in zip(HOPS, medians, strict=True):
        print(f"  {microseconds:6.1f}  {hop}")
    print(f"  {sum(medians):6.1f}  sum, the reading of the clock included")


def _samples(durability: str) -> list[tuple[int, ...]]:
    @flow(name="hops", durability=durability)  # type: ignore[arg-type]  # 'power' or 'process'
    def hops(count: int) -> None:
        samples.extend(_one(number) for number in range(count))

    samples: list[tuple[int, ...]] = []
    hops(WARM_UP_TASKS)
    samples.clear()
    hops(CHAIN_TASKS)
    return samples


def _one(number: int) -> tuple[int, ...]:
    clock = time.perf_counter_ns
    times = [clock()]
    args: tuple[object, ...] = (number,)
    kwargs: dict[str, object] = {}
    scope = find_scope()
    assert scope is not None
    has_futures = not is_plain(args, kwargs)
    times.append(clock())
    call = new_call(step._callee, scope, args, kwargs, has_futures=has_futures)  # noqa: SLF001 - the hops are the engine's inside
    times.append(clock())
    issue(call)
    times.append(clock())
    steps = live(call)
    begin = steps.send(None)
    times.append(clock())
    begin_statements = _commit(begin)
    times.append(clock())
    outcome = _perform(steps.send(None))
    times.append(clock())
    complete = steps.send(outcome)
    times.append(clock())
    outcome_statements = _commit(complete)
    times.append(clock())
    try:
        steps.send(None)
    except StopIteration:
        times.append(clock())
    spans = [later - earlier for earlier, later in itertools.pairwise(times)]
    scoped, bound, issued, made, begun, ran, encoded, ended, told = spans
    return (
        scoped, bound, issued, made, begin_statements, begun - begin_statements, ran, encoded, outcome_statements,
        ended - outcome_statements, told,
    )  # fmt: skip


def _commit(write: object) -> int:
    """Perform a Write and return the nanoseconds of its statements."""
    assert isinstance(write, Write)
    timed = _Timed(write.change)
    _perform(write._replace(change=timed))
    return timed.nanoseconds
