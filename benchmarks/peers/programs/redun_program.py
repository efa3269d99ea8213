"""redun: nested expressions on its local scheduler; every result in its SQLite file."""

from __future__ import annotations

import os
import time

from measured import measured
from redun import Scheduler, task
from redun.config import Config

redun_namespace = "bench"
scheduler = Scheduler(config=Config({"backend": {"db_uri": "sqlite:///redun.db"}, "executors.default": {"type": "local"}}))
scheduler.load()
seed = iter(range(1_000_000))


@task()
def step(number: int, salt: int) -> int:
    return number + 1


@task()
def mapped(tasks: int, salt: int) -> list[int]:
    return [step(number, salt) for number in range(tasks)]


def timed(expression: object) -> float:
    began = time.perf_counter()
    scheduler.run(expression)
    return time.perf_counter() - began


def chain(tasks: int) -> float:
    salt = next(seed)
    expression = step(0, salt)
    for _ in range(tasks - 1):
        expression = step(expression, salt)
    return timed(expression)


def fan_out(tasks: int) -> float:
    return timed(mapped(tasks, next(seed)))


def flows(count: int) -> float:
    return sum(chain(3) for _ in range(count))


measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
