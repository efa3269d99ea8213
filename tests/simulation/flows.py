"""What the simulated deployments run. A task leaves a line in the effect file for each thing that happened.

begin D/R        the body of run R of deployment D was entered
run R/WHAT       a task of run R did WHAT
ack R/WHAT       the flow was given what came of it
crowd D          more runs of D were in their body at once than its limit allows
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.crash.effects import acknowledged, append, has_happened
from wfengine import flow, task
from wfengine.flow_runs import suspend_flow_run
from wfengine.journals import default_journal
from wfengine.messages import receive, send
from wfengine.runs import current_flow_run
from wfengine.timers import sleep

MANY = 1_000_000

_LOCK = threading.Lock()
_INSIDE: Counter[str] = Counter()


@contextmanager
def inside(deployment: str, limit: int) -> Iterator[int]:
    """Be in the body of a run, and see that no more are than may be; yield the run's id."""
    run = current_flow_run().id
    append("begin", f"{deployment}/{run}")
    with _LOCK:
        _INSIDE[deployment] += 1
        if limit and _INSIDE[deployment] > limit:
            append("crowd", deployment)
    try:
        yield run
    finally:
        with _LOCK:
            _INSIDE[deployment] -= 1


def dice(call: str) -> random.Random:
    """Return what is random in a call, the same in each execution."""
    return random.Random(call)


@task(max_interruptions=MANY)
def work(call: str) -> str:
    append("run", call)
    return call


@task(max_interruptions=MANY)
def slow(call: str) -> str:
    default_journal().clock.sleep(dice(call).uniform(10, 1500))
    append("run", call)
    return call


@task(max_interruptions=MANY, retries=3, retry_delay_seconds=120)
def flaky(call: str) -> str:
    for turn in range(dice(call).randrange(3)):
        if not has_happened("fail", f"{call}/{turn}"):
            append("fail", f"{call}/{turn}")
            raise ConnectionError(f"{call} fails")
    append("run", call)
    return call


@task(max_interruptions=MANY)
def broken(call: str) -> str:
    append("run", call)
    raise ValueError("never works")


@flow
def quick(deployment: str, limit: int) -> int:
    with inside(deployment, limit) as run:
        for number in range(2):
            acknowledged(f"{run}/{number}", work(f"{run}/{number}"))
    return 2


@flow
def lasting(deployment: str, limit: int) -> int:
    """Takes its time, in the process, while others begin."""
    with inside(deployment, limit) as run:
        acknowledged(f"{run}/slow", slow(f"{run}/slow"))
        acknowledged(f"{run}/work", work(f"{run}/work"))
    return 2


@flow
def retrying(deployment: str, limit: int) -> int:
    with inside(deployment, limit) as run:
        for future, call in [(flaky.submit(f"{run}/{number}"), f"{run}/{number}") for number in range(2)]:
            acknowledged(call, future.result())
    return 2


@flow
def sleeping(deployment: str, limit: int) -> int:
    """Sleeps for an hour, or less, without a process."""
    with inside(deployment, limit) as run:
        acknowledged(f"{run}/before", work(f"{run}/before"))
        sleep(dice(str(run)).uniform(60, 3600), suspend=True)
        acknowledged(f"{run}/after", work(f"{run}/after"))
    return 2


@flow
def asking(deployment: str, limit: int) -> int:
    """Waits for a person, without a process."""
    with inside(deployment, limit) as run:
        acknowledged(f"{run}/before", work(f"{run}/before"))
        return acknowledged(f"{run}/input", suspend_flow_run(wait_for_input=int, timeout=None))


@flow
def talking(deployment: str, limit: int) -> int:
    """Sends itself messages, and receives each once."""
    with inside(deployment, limit) as run:
        for number in range(3):
            send(run, number)
        acknowledged(f"{run}/work", work(f"{run}/work"))
        return sum(10**place * int(receive()) for place in range(3))


@flow
def part(run: int) -> int:
    acknowledged(f"{run}/part", work(f"{run}/part"))
    return 1


@flow
def nesting(deployment: str, limit: int) -> int:
    with inside(deployment, limit) as run:
        return part(run) + len(acknowledged(f"{run}/work", work(f"{run}/work"))) * 0 + 1


@flow
def failing(deployment: str, limit: int) -> int:
    with inside(deployment, limit) as run:
        acknowledged(f"{run}/work", work(f"{run}/work"))
        return len(broken(f"{run}/broken"))


FLOWS = {each.name: each for each in (quick, lasting, retrying, sleeping, asking, talking, nesting, failing)}
#: What a run of each ends with.
ENDINGS: dict[str, tuple[str, object]] = {
    "quick": ("COMPLETED", 2), "lasting": ("COMPLETED", 2), "retrying": ("COMPLETED", 2), "sleeping": ("COMPLETED", 2),
    "asking": ("COMPLETED", 7), "talking": ("COMPLETED", 210), "nesting": ("COMPLETED", 2), "failing": ("FAILED", None),
}  # fmt: skip
