"""Dask clusters for tests: processes of their own, which outlive whoever uses them, and can be killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import dask, logging, sys
from distributed import LocalCluster

dask.config.set({"distributed.deploy.lost-worker-timeout": "10000 days"})  # as in a cluster of the runner's own

with LocalCluster(
    n_workers=int(sys.argv[1]), threads_per_worker=1, resources={"room": 1}, silence_logs=logging.CRITICAL,
    dashboard_address=None, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


class DaskCluster:
    """A scheduler and workers with one thread each. Its settings are Dask's own, as on a cluster that others made."""

    def __init__(self, workers: int) -> None:
        path = os.pathsep.join(map(str, [ROOT, ROOT / "journal", ROOT / "scheduler", Path(__file__).parent]))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(workers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    def kill(self) -> None:
        """Kill the scheduler, and the workers with it."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
