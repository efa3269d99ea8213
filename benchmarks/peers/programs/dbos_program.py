"""DBOS on SQLite: steps of a workflow; a workflow for each item, from a queue; many workflows of three steps."""

from __future__ import annotations

import os
import time

from dbos import DBOS
from measured import measured

DBOS(config={"name": "bench", "system_database_url": "sqlite:///dbos.sqlite", "log_level": "ERROR", "run_admin_server": False})
took: list[float] = []


@DBOS.step()
def step(number: int) -> int:
    return number + 1


@DBOS.workflow()
def chained(tasks: int) -> int:
    number = 0
    began = time.perf_counter()
    for _ in range(tasks):
        number = step(number)
    took.append(time.perf_counter() - began)
    return number


@DBOS.workflow()
def one(number: int) -> int:
    return number + 1


@DBOS.workflow()
def mapped(tasks: int) -> int:
    return sum(handle.get_result() for handle in [DBOS.start_workflow(one, number) for number in range(tasks)])


def chain(tasks: int) -> float:
    chained(tasks)
    return took[-1]


def fan_out(tasks: int) -> float:
    began = time.perf_counter()
    mapped(tasks)
    return time.perf_counter() - began


def flows(count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        chained(3)
    return time.perf_counter() - began


DBOS.launch()
measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
