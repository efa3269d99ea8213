"""What a task on Dask costs beside a bare task of Dask: `python -m benchmarks.runner_dask [TASKS] [ROUNDS]`.

Both run the same no-op on one cluster of two workers with a thread each, with as many in flight, each result taken one by one,
as it is there. Besides the time, which other work lengthens, it shows the processor time of all processes together.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IN_FLIGHT = 4
WORKERS = 2


def no_op(number: int) -> int:
    return number


def bare(client: Any, tasks: int) -> None:
    """Run tasks of Dask from as many threads as may be in flight."""
    numbers, lock = iter(range(tasks)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            future = client.submit(no_op, number, pure=False)
            assert future.result() == number
            future.release()

    threads = [threading.Thread(target=work) for _ in range(IN_FLIGHT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measured(what: Callable[[], object], tasks: int) -> tuple[float, float]:
    """Return microseconds, and microseconds of processors, for each task."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    began, before = time.perf_counter(), used()
    what()
    return (time.perf_counter() - began) / tasks * 1e6, (used() - before) / tasks * 1e6


def main(tasks: int = 500, rounds: int = 5) -> None:
    from distributed import Client, LocalCluster

    import wfengine
    from wfengine.runners.dask import DaskTaskRunner

    unseen = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, scheduler_kwargs=unseen) as cluster,
        Client(cluster) as client,
    ):
        wfengine.use_journal(Path(folder) / "journal.db")
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        task = wfengine.task(no_op)

        @wfengine.flow(task_runner=DaskTaskRunner(cluster=cluster, max_workers=IN_FLIGHT))
        def ours_once() -> None:
            task.map(range(20)).result()
            ours.append(measured(lambda: task.map(range(tasks)).result(), tasks))

        bare(client, 20)
        for _ in range(rounds):
            theirs.append(measured(lambda: bare(client, tasks), tasks))
            ours_once()
    for number, name in enumerate(("time", "processors")):
        left, right = (statistics.median(each[number] for each in found) for found in (theirs, ours))
        print(f"{name:12} bare Dask {left:7.0f} us   wfengine {right:7.0f} us   {right / left:.2f} x")


if __name__ == "__main__":
    main(*[int(text) for text in sys.argv[1:3]])
