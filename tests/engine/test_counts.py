"""What a task costs, in numbers that do not depend on time or on the machine: a guard against getting slower unnoticed.

Each case runs a flow with few units (task calls) and with many; the difference, divided, is what one more unit costs.
Statements, commits, syncs and threads are exact; bytes and Python calls depend a little on the versions of SQLite and
Python, so they have an upper bound, a few percent above what was measured.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.engine.conftest import FakeClock
from tests.engine.counting import Counts, Recorder
from wfengine import Flow, current_flow_run, flow, receive, send, sleep, task
from wfengine.cache_policies import INPUTS
from wfengine.recovery import resume_run
from wfengine.redaction import KEEPER
from wfengine.runners.threads import DEFAULT_MAX_WORKERS
from wfengine_journal.guarding import POST
from wfengine_journal.store import Journal, open_journal

Durability = Literal["power", "process"]

#: Units of the two runs whose difference is taken, and of one before them, in which names are registered.
WARM_UP, FEW, MANY = 3, 10, 60
#: Tasks of a small flow.
SMALL = 3
#: Tasks of a map.
MAPPED = 1000
#: How far above what was measured a bound lies.
SLACK = 1.06

WHAT_TO_DO = """
A number that went up: find out which change does it (git stash, run this test), and whether what it gives is worth that
to every task. If so, or if the number went down, enter the new one here and give the reason in the commit."""


@task
def step(number: int) -> int:
    return number + 1


@task
async def async_step(number: int) -> int:
    return number + 1


@task(cache_policy=INPUTS)
def cached_step(number: int) -> int:
    return number + 1


failed_once: set[int] = set()


@task(retries=1)
def fails_once(number: int) -> int:
    if number not in failed_once:
        failed_once.add(number)
        raise ValueError(number)
    return number


@flow
def chain(count: int) -> int:
    number = 0
    for _ in range(count):
        number = step(number)
    return number


@flow
async def async_chain(count: int) -> int:
    number = 0
    for _ in range(count):
        number = await async_step(number)
    return number


@flow
def cache_hits(count: int) -> None:
    for number in range(count):
        cached_step(number)


@flow
def retries(count: int) -> None:
    failed_once.clear()
    for number in range(count):
        fails_once(number)


@flow
def sleeps(count: int) -> None:
    for _ in range(count):
        sleep(0.001)


@flow
def messages(count: int) -> None:
    me = current_flow_run().id
    for number in range(count):
        send(me, number)
        receive()


@flow
def small(count: int) -> None:
    for number in range(count):
        step(number)


@flow
def interrupted(count: int) -> int:
    number = chain.fn(count)
    if interruptions.pop(current_flow_run().id, None) is None:
        interruptions[current_flow_run().id] = True
        raise KeyboardInterrupt
    return number


interruptions: dict[int, bool] = {}


all_submitted = threading.Event()


@task
def gated_step(number: int) -> int:
    all_submitted.wait()
    return number + 1


@flow
def mapped(count: int) -> list[int]:
    all_submitted.clear()
    futures = gated_step.map(range(count))
    all_submitted.set()  # from here on no worker finds the queue empty, however slowly this thread is served
    return futures.result()


@flow
async def gathered(count: int) -> list[int]:
    return list(await asyncio.gather(*[async_step(number) for number in range(count)]))


def run(done: Flow[[int], object], durability: Durability) -> Callable[[int], object]:
    """Return what runs a flow with a number of units."""
    chosen = done.with_options(durability=durability)
    if chosen.is_async:
        return lambda count: asyncio.run(chosen(count))  # type: ignore[arg-type]  # an awaitable, as it says
    return chosen


def small_flows(durability: Durability) -> Callable[[int], object]:
    one = run(small, durability)
    return lambda count: [one(SMALL) for _ in range(count)]


@dataclass(frozen=True)
class Case:
    """A kind of unit, and what one of it is known to cost in each durability."""

    work: Flow[[int], object]
    process: Counts
    power: Counts


# Statements, commits, syncs, threads; at most so many bytes of the log and Python calls. Where a unit is synced once, two
# statements switch the way of syncing there and back.
CASES = {
    "a task": Case(chain, Counts(8, 2, 0, 0, 12_850, 90), Counts(10, 2, 1, 0, 12_850, 90)),
    "an async task": Case(async_chain, Counts(8, 2, 0, 0, 12_850, 103), Counts(10, 2, 1, 0, 12_850, 239)),
    "a hit of the cache": Case(cache_hits, Counts(8, 1, 0, 0, 13_310, 132), Counts(8, 1, 1, 0, 13_310, 132)),
    # Its traceback is as long as the paths of this checkout, and its warning goes to whoever listens to logging here.
    "a task that fails once": Case(retries, Counts(19, 4, 0, 0, 40_000, 406), Counts(23, 4, 2, 0, 40_000, 406)),
    "a message sent and received": Case(messages, Counts(21, 3, 0, 0, 38_300, 285), Counts(23, 3, 2, 0, 38_300, 285)),
    "a durable sleep": Case(sleeps, Counts(10, 2, 0, 0, 15_500, 117), Counts(12, 2, 1, 0, 15_500, 117)),
}
FLOW_OF_3 = Counts(42, 8, 0, 0, 76_400, 541), Counts(48, 8, 5, 0, 76_400, 541)
#: What a call costs that is answered from the records of an earlier execution, in either durability.
REPLAYED = Counts(0, 0, 0, 0, 0, 56)
#: Upper bounds for a task of a map, whatever the threads do: tasks that end at the same time share a commit.
OF_A_MAP = Counts(7.2, 0.5, 0.5, 0, 8_000, 140)
#: Upper bounds for one of many async tasks that begin in the same turn of their loop, and end in the same turn. What ends in
#: "power" waits for the disk on another thread, while the loop goes on. In "process" the calls are 141 to 155.
OF_A_GATHER = Counts(4.1, 0.02, 0, 0, 1_000, 165), Counts(5.1, 0.5, 0.5, 0, 8_000, 190)


@pytest.fixture
def still(tmp_path: Path, clock: FakeClock) -> Journal:
    """The test's journal, with a clock that stands still: it is synced only where a commit asks for it."""
    KEEPER.__init__()  # type: ignore[misc]  # a process that knows secrets looks for them in what it writes
    POST.is_alert = False
    return open_journal(tmp_path / "journal.db")


def measured(journal: Journal, work: Callable[[int], object], few: int, many: int) -> tuple[Counts, list[str]]:
    """Return what one unit of some work costs, and the statements that one unit runs, each with how often."""
    return measured_prepared(journal, lambda count: lambda: work(count), few, many)


def measured_prepared(
    journal: Journal, prepare: Callable[[int], Callable[[], object]], few: int, many: int
) -> tuple[Counts, list[str]]:
    """Do as `measured` for work that has to be prepared, which is not counted."""
    prepare(WARM_UP)()
    found = []
    for count in (few, many):
        work = prepare(count)
        recorder = Recorder(journal)
        recorder.start()
        try:
            work()
        finally:
            found.append((recorder.stop(), Counter(shape_of(statement) for statement in recorder.statements)))
    (less, less_said), (more, more_said) = found
    said = [f"{times / (many - few):6.2f}  {shape}" for shape, times in (more_said - less_said).most_common(30)]
    return more.per_unit(less, many - few), said


def shape_of(statement: str) -> str:
    """Return the beginning of a statement without what tells it from others of its kind."""
    words = " ".join(statement.split())
    return "".join("N" if character.isdigit() else character for character in words)[:70]


def compare(what: str, found: Counts, known: Counts, said: list[str]) -> None:
    exact = {name: round(getattr(found, name)) for name in ("statements", "commits", "syncs", "threads")}
    wrong = [
        f"{name} of {what}: {number}, known as {getattr(known, name)}"
        for name, number in exact.items()
        if number != getattr(known, name)
    ]
    wrong += [
        f"{name} of {what}: {getattr(found, name):.1f}, bound {getattr(known, name) * SLACK:.1f}"
        for name in ("log_bytes", "calls")
        if getattr(found, name) > getattr(known, name) * SLACK
    ]
    assert not wrong, "\n".join([*wrong, WHAT_TO_DO, "The statements, with how many a unit runs:", *said])


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("what", CASES)
def test_a_unit_of_work_costs_what_it_is_known_to_cost(still: Journal, what: str, durability: Durability) -> None:
    case = CASES[what]
    work = run(case.work, durability)
    if case.work is cache_hits:
        work(MANY)  # from here on the cache has them
    found, said = measured(still, work, FEW, MANY)
    compare(f"{what} in {durability!r}", found, case.process if durability == "process" else case.power, said)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_flow_costs_what_it_is_known_to_cost(still: Journal, durability: Durability) -> None:
    found, said = measured(still, small_flows(durability), FEW, MANY)
    compare(f"a flow of 3 tasks in {durability!r}", found, FLOW_OF_3[durability == "power"], said)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_replayed_task_costs_neither_a_statement_nor_a_commit(still: Journal, durability: Durability) -> None:
    work = run(interrupted, durability)

    def resumed(count: int) -> Callable[[], object]:
        with pytest.raises(KeyboardInterrupt):
            work(count)
        ((run_id,),) = still.records.rows("SELECT max(id) FROM flow_run")
        return lambda: resume_run(still, run_id)

    found, said = measured_prepared(still, resumed, FEW, MANY)
    compare(f"a replayed task in {durability!r}", found, REPLAYED, said)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_tasks_of_a_map_share_commits_and_threads(still: Journal, durability: Durability) -> None:
    work = run(mapped, durability)
    work(WARM_UP)
    recorder = Recorder(still)
    recorder.start()
    try:
        work(MAPPED)
    finally:
        found = recorder.stop()
    one = found.per_unit(Counts(0, 0, 0, 0, 0, 0), MAPPED)
    wrong = [
        name
        for name in ("statements", "commits", "syncs", "log_bytes", "calls")
        if getattr(one, name) > getattr(OF_A_MAP, name)
    ]
    assert not wrong, f"{', '.join(wrong)} of a task of a map in {durability!r}: {one}, at most {OF_A_MAP}\n{WHAT_TO_DO}"
    assert found.threads <= DEFAULT_MAX_WORKERS + 1, "the workers, and one that commits what nobody waits for"


@pytest.mark.parametrize("durability", ["process", "power"])
def test_async_tasks_that_are_ready_together_share_commits(still: Journal, durability: Durability) -> None:
    work = run(gathered, durability)
    work(WARM_UP)
    recorder = Recorder(still)
    recorder.start()
    try:
        work(MAPPED)
    finally:
        found = recorder.stop()
    one, bound = found.per_unit(Counts(0, 0, 0, 0, 0, 0), MAPPED), OF_A_GATHER[durability == "power"]
    wrong = [
        name
        for name in ("statements", "commits", "syncs", "log_bytes", "calls")
        if round(getattr(one, name), 2) > getattr(bound, name)
    ]
    assert not wrong, f"{', '.join(wrong)} of a gathered task in {durability!r}: {one}, at most {bound}\n{WHAT_TO_DO}"
