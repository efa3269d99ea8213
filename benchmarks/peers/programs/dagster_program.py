"""Dagster: a job of ops in this process, events in its SQLite files."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from dagster import DagsterInstance, In, Out, graph, op
from measured import measured

Path("dagster.yaml").write_text("telemetry:\n  enabled: false\n")
logging.disable(logging.CRITICAL)
instance = DagsterInstance.get()


@op(out=Out(int))
def start() -> int:
    return 0


@op(ins={"number": In(int)}, out=Out(int))
def step(number: int) -> int:
    return number + 1


def timed(compose: object) -> float:
    job = graph(name="bench")(compose).to_job()
    began = time.perf_counter()
    assert job.execute_in_process(instance=instance).success
    return time.perf_counter() - began


def chain(tasks: int) -> float:
    def compose() -> None:
        number = start()
        for index in range(tasks - 1):
            number = step.alias(f"step_{index}")(number)

    return timed(compose)


def fan_out(tasks: int) -> float:
    def compose() -> None:
        number = start()
        for index in range(tasks - 1):
            step.alias(f"step_{index}")(number)

    return timed(compose)


def flows(count: int) -> float:
    return sum(chain(3) for _ in range(count))


measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
