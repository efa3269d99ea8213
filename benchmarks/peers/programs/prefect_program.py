"""Prefect with its ephemeral server and default settings."""

from __future__ import annotations

import os
import time

from measured import measured
from prefect import flow, task


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
os._exit(0)  # without waiting for the peer's threads and servers
