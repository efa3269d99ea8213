"""What a task on Dask costs beside a bare one: `python -m benchmarks.runner_dask [--tasks 500] [--rounds 5]`.

Both run the same no-op on one cluster of two workers with a thread each, with as many in flight, each result taken one by one,
as it is there. See `runner_parts` for what is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.runner_parts import compare

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


def main() -> None:
    """Print one line for time, and one for processors."""
    from distributed import Client, LocalCluster

    import wfengine
    from wfengine.runners.dask import DaskTaskRunner
    from wfengine.task_runners import ThreadTaskRunner

    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_dask", description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tasks = options.tasks
    unseen = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, scheduler_kwargs=unseen) as cluster,
        Client(cluster) as client,
    ):
        wfengine.use_journal(Path(folder) / "journal.db", durability="process")

        @wfengine.task
        def by_hand(number: int) -> int:
            found: int = client.submit(no_op, number, pure=False).result()
            return found

        threads = ThreadTaskRunner(IN_FLIGHT)
        task, asks = wfengine.task(no_op), by_hand.with_options(runner=threads)
        here = task.with_options(runner=threads)

        @wfengine.flow(task_runner=DaskTaskRunner(cluster=cluster, max_workers=IN_FLIGHT))
        def fan_out() -> None:
            kinds = {
                "bare": lambda: bare(client, tasks),
                "ours": lambda: task.map(range(tasks)).result(),
                "journal": lambda: here.map(range(tasks)).result(),
                "by hand": lambda: asks.map(range(tasks)).result(),
            }
            compare(kinds, tasks, options.rounds, f"{IN_FLIGHT} in flight")

        fan_out()


if __name__ == "__main__":
    main()
