"""huey on SQLite: a pipeline of tasks, a map, many short pipelines; one consumer thread in this process."""

from __future__ import annotations

import os
import threading
import time

from huey import SqliteHuey
from measured import measured

huey = SqliteHuey(filename="huey.db", fsync=True)


@huey.task()
def step(number: int) -> int:
    return number + 1


def chain(tasks: int) -> float:
    began = time.perf_counter()
    pipeline = step.s(0)
    for _ in range(tasks - 1):
        pipeline = pipeline.then(step)
    result = huey.enqueue(pipeline)
    result.get(blocking=True, backoff=1, max_delay=0.005)
    return time.perf_counter() - began


def fan_out(tasks: int) -> float:
    began = time.perf_counter()
    step.map(range(tasks)).get(blocking=True, backoff=1, max_delay=0.005)
    return time.perf_counter() - began


def flows(count: int) -> float:
    return sum(chain(3) for _ in range(count))


consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.001, max_delay=0.001, backoff=1)
consumer._set_signal_handlers = lambda: None  # noqa: SLF001 - it wants the main thread
threading.Thread(target=consumer.run, daemon=True).start()
measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
