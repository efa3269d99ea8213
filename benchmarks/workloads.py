"""The workloads that run inside this process. Each round measures the reference and then ours, on the same disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.raw import Synchronous, raw_microseconds
from benchmarks.table import Row
from wfengine import flow, task, use_journal

CHAIN_TASKS = 1000
FAN_OUT_TASKS = (1000, 10_000)
SMALL_FLOWS = 500
SMALL_FLOW_TASKS = 3
SIZED_TASKS = 5000
#: Tasks run before the clock starts: names are registered, code is compiled, the file exists.
WARM_UP_TASKS = 50

DURABLE = {
    "process": "start and result: safe from kill -9",
    "power": "start: safe from kill -9; result: synced",
}
RAW: dict[str, Synchronous] = {"process": "NORMAL", "power": "FULL"}


@task
def step(number: int) -> int:
    """Do nothing but depend on the step before."""
    return number + 1


@task
async def async_step(number: int) -> int:
    """Do nothing, in the event loop."""
    return number + 1


@task
def sized(value: dict[str, str]) -> dict[str, str]:
    """Take and give 100 bytes of JSON."""
    return value


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """Give a new folder with a new journal in use, closed at the end."""
    with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
        journal = use_journal(Path(name) / "journal.db")
        try:
            yield Path(name)
        finally:
            journal.close()


def chain_seconds(tasks: int, durability: str) -> float:
    """Return the seconds that so many dependent tasks take, inside one flow run."""

    @flow(name="chain", durability=durability)  # type: ignore[arg-type]  # 'power' or 'process'
    def chain(count: int) -> float:
        number = 0
        began = time.perf_counter()
        for _ in range(count):
            number = step(number)
        return time.perf_counter() - began

    chain(WARM_UP_TASKS)
    return chain(tasks)


def _chain(name: str, durability: str, reach: str, then: str, rounds: int, folder: Path | None) -> Row:
    ours, raw = [], []
    for _ in range(rounds):
        with scratch(folder) as place:
            raw.append(raw_microseconds(place, CHAIN_TASKS, RAW[durability]))
            ours.append(chain_seconds(CHAIN_TASKS, durability) / CHAIN_TASKS * 1e6)
    what = f"chain of {CHAIN_TASKS:,}, {durability}"
    return Row(name, what, ours, "us/task", reach, then, DURABLE[durability], raw, _raw_name(durability), "tasks")


def _raw_name(durability: str) -> str:
    return "raw-N" if durability == "process" else "raw-F"


def chain_process(rounds: int, folder: Path | None) -> list[Row]:
    """W1."""
    return [_chain("W1", "process", "2.5 x, 10,000/s", "1.7 x, 18,000/s", rounds, folder)]


def chain_power(rounds: int, folder: Path | None) -> list[Row]:
    """W1p."""
    return [_chain("W1p", "power", "1.3 x", "1.1 x", rounds, folder)]


def fan_out_seconds(tasks: int, durability: str) -> float:
    """Return the seconds from the first submit to the last result."""

    @flow(name="fan-out", durability=durability)  # type: ignore[arg-type]  # as above
    def fanned(count: int) -> float:
        began = time.perf_counter()
        step.map(range(count)).result()
        return time.perf_counter() - began

    fanned(WARM_UP_TASKS)
    return fanned(tasks)


def submitted_async_seconds(tasks: int, durability: str) -> float:
    """Return the seconds of a map of async tasks in a plain flow."""

    @flow(name="async-fan-out", durability=durability)  # type: ignore[arg-type]  # as above
    def fanned(count: int) -> float:
        began = time.perf_counter()
        async_step.map(range(count)).result()
        return time.perf_counter() - began

    fanned(WARM_UP_TASKS)
    return fanned(tasks)


def gathered_seconds(tasks: int, durability: str) -> float:
    """Return the seconds of asyncio.gather over async tasks in an async flow."""
    import asyncio

    @flow(name="gathered", durability=durability)  # type: ignore[arg-type]  # as above
    async def gathered(count: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*[async_step(number) for number in range(count)])
        return time.perf_counter() - began

    asyncio.run(gathered(WARM_UP_TASKS))
    return asyncio.run(gathered(tasks))


def _fan(name: str, what: str, measure: Callable[[int, str], float], rounds: int, folder: Path | None) -> list[Row]:
    rows = []
    for durability in ("process", "power"):
        for tasks in FAN_OUT_TASKS:
            ours, raw = [], []
            for _ in range(rounds):
                with scratch(folder) as place:
                    raw.append(raw_microseconds(place, 1000, RAW[durability]))
                    ours.append(measure(tasks, durability) / tasks * 1e6)
            reach = "8,000/s" if durability == "process" else "7,000/s"
            label = f"{what} of {tasks:,}, {durability}"
            durable = DURABLE[durability]
            rows.append(Row(name, label, ours, "us/task", reach, "15,000/s", durable, raw, _raw_name(durability), "tasks"))
    return rows


def fan_out(rounds: int, folder: Path | None) -> list[Row]:
    """W2."""
    return _fan("W2", "map", fan_out_seconds, rounds, folder)


def fan_out_async(rounds: int, folder: Path | None) -> list[Row]:
    """W2a."""
    mapped = _fan("W2a", "async map", submitted_async_seconds, rounds, folder)
    return mapped + _fan("W2a", "gather", gathered_seconds, rounds, folder)


def small_flows(rounds: int, folder: Path | None) -> list[Row]:
    """W3."""

    @flow(name="small", durability="process")
    def small() -> None:
        number = 0
        for _ in range(SMALL_FLOW_TASKS):
            number = step(number)

    ours, raw = [], []
    for _ in range(rounds):
        with scratch(folder) as place:
            raw.append(raw_microseconds(place, CHAIN_TASKS, "NORMAL") * SMALL_FLOW_TASKS)
            small()
            began = time.perf_counter()
            for _ in range(SMALL_FLOWS):
                small()
            ours.append((time.perf_counter() - began) / SMALL_FLOWS * 1e6)
    what = f"{SMALL_FLOWS} flows of {SMALL_FLOW_TASKS}, process"
    reference = f"{SMALL_FLOW_TASKS} raw-N"
    return [Row("W3", what, ours, "us/flow", "1,500/s", "4,000/s", DURABLE["process"], raw, reference, "flows")]


def bytes_per_task(rounds: int, folder: Path | None) -> list[Row]:
    """W7."""

    @flow(name="sized", durability="process")
    def fill(count: int) -> None:
        for number in range(count):
            sized({"value": f"{number:087d}"})

    ours = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
            sizes = []
            for count in (WARM_UP_TASKS, SIZED_TASKS):
                journal = use_journal(Path(name) / "journal.db")
                fill(count)
                journal.close()  # folds the log into the file
                sizes.append(journal.path.stat().st_size)
            ours.append((sizes[1] - sizes[0]) / SIZED_TASKS)
    return [Row("W7", "2 x 100 B JSON a task", ours, "bytes", "600", "400", "with attempts, state history, checksums")]
