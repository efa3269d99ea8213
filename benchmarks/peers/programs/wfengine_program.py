"""wfengine: a chain of tasks, a map, many flows of three tasks; durability by the variable WFENGINE_DURABILITY."""

from __future__ import annotations

import os
import time

from measured import measured

from wfengine import flow, task, use_journal

use_journal("journal.db", durability=os.environ["WFENGINE_DURABILITY"])  # type: ignore[arg-type]  # 'power' or 'process'


@task
def step(number: int) -> int:
    return number + 1


@flow
def chained(tasks: int) -> float:
    number = 0
    began = time.perf_counter()
    for _ in range(tasks):
        number = step(number)
    return time.perf_counter() - began


@flow
def mapped(tasks: int) -> float:
    began = time.perf_counter()
    step.map(range(tasks)).result()
    return time.perf_counter() - began


def flows(count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        chained(3)
    return time.perf_counter() - began


measured(chained, mapped, flows)
