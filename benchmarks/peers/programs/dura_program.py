"""dura: checkpoints of one task; a task for each item; many tasks with three checkpoints. Synced at each checkpoint."""

from __future__ import annotations

import os
import time

from dura import DurableEngine, process_task
from measured import measured

engine = DurableEngine("dura.db")
took: list[float] = []


def work(tasks: int) -> None:
    while tasks and (claimed := engine.claim_task(worker_id="bench")) is not None:
        process_task(engine, handlers=HANDLERS, task=claimed)
        tasks -= 1


def chained(engine: DurableEngine, task: object) -> int:
    number = 0
    began = time.perf_counter()
    for index in range(task.params["steps"]):
        number = engine.checkpoint(task_id=task.task_id, step_name=str(index), fn=lambda number=number: number + 1)
    took.append(time.perf_counter() - began)
    return number


def one(engine: DurableEngine, task: object) -> int:
    return task.params["number"] + 1


HANDLERS = {"chained": chained, "one": one}


def chain(tasks: int) -> float:
    engine.spawn_task(name="chained", params={"steps": tasks})
    work(1)
    return took[-1]


def fan_out(tasks: int) -> float:
    began = time.perf_counter()
    for number in range(tasks):
        engine.spawn_task(name="one", params={"number": number})
    work(tasks)
    return time.perf_counter() - began


def flows(count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        chain(3)
    return time.perf_counter() - began


measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
