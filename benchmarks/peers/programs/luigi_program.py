"""Luigi: a task for each step, whose output is a file; its local scheduler."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import luigi
from measured import measured

logging.disable(logging.CRITICAL)


class Step(luigi.Task):
    run_name = luigi.Parameter()
    number = luigi.IntParameter()
    is_chained = luigi.BoolParameter()

    def requires(self) -> list[luigi.Task]:
        return [Step(self.run_name, self.number - 1, True)] if self.is_chained and self.number else []

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(f"luigi/{self.run_name}-{self.number}")

    def run(self) -> None:
        before = int(Path(self.input()[0].path).read_text()) if self.is_chained and self.number else 0
        with self.output().open("w") as file:
            file.write(str(before + 1))


names = iter(range(1_000_000))


def build(tasks: list[luigi.Task]) -> float:
    began = time.perf_counter()
    assert luigi.build(tasks, local_scheduler=True, no_lock=True)
    return time.perf_counter() - began


def chain(tasks: int) -> float:
    return build([Step(str(next(names)), tasks - 1, True)])


def fan_out(tasks: int) -> float:
    name = str(next(names))
    return build([Step(name, number, False) for number in range(tasks)])


def flows(count: int) -> float:
    return sum(chain(3) for _ in range(count))


measured(chain, fan_out, flows)
os._exit(0)  # without waiting for the peer's threads and servers
