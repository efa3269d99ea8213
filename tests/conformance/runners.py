"""The runners that the suite is run over. A new one is one more line in `CANDIDATES`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wfengine.runners import TaskRunner

ROOT = Path(__file__).parents[2]

#: What a runner may lack, and what the table says then.
SAME_PROCESS = {"process": "its tasks run in the flow's own process"}
IN_TURN = {"queue": "a submitted task has ended when it is submitted"}
OTHER_MACHINE = {"stopping": "what runs there cannot be stopped from here", "own workers": "its workers are not this process's"}


@contextmanager
def _nothing() -> Iterator[dict[str, object]]:
    yield {}


@contextmanager
def dask_cluster() -> Iterator[dict[str, object]]:
    """Start a scheduler and two worker processes."""
    import dask
    from distributed import LocalCluster

    unseen = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # else it wants one certain port, which may be taken
    patience = {"distributed.deploy.lost-worker-timeout": "10000 days"}  # as in a cluster of the runner's own
    with (
        dask.config.set(patience),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, scheduler_kwargs=unseen
        ) as cluster,
    ):
        yield {"address": cluster.scheduler_address}


@contextmanager
def ray_cluster() -> Iterator[dict[str, object]]:
    """Start Ray on this machine, with two processors."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield {"address": ray.get_runtime_context().gcs_address}
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Candidate:
    """A runner, and what the suite has to know of it."""

    name: str
    module: str
    code: str  # what makes one, in a test or a script; {workers}: how many tasks at a time; {address}: of its cluster
    lacks: Mapping[str, str] = field(default_factory=dict)  # what it cannot do, and why
    cluster: Callable[[], AbstractContextManager[dict[str, object]]] = _nothing
    workers: int = 2
    package: str = "wfengine"  # the extra that it is installed with brings this

    @property
    def is_there(self) -> bool:
        """Tell whether what it needs is installed."""
        return importlib.util.find_spec(self.package) is not None


_R = "wfengine.runners"
CANDIDATES = [
    Candidate("inline", f"{_R}.inline", "InlineTaskRunner()", {**SAME_PROCESS, **IN_TURN}, workers=1),
    Candidate("threads", f"{_R}.threads", "ThreadTaskRunner()", SAME_PROCESS, workers=32),
    Candidate("one thread", f"{_R}.threads", "ThreadTaskRunner(1)", SAME_PROCESS, workers=1),
    Candidate("processes", f"{_R}.processes", "ProcessTaskRunner({workers})"),
    Candidate(
        "dask",
        f"{_R}.dask",
        "DaskTaskRunner(address={address!r}, max_workers={workers})",
        OTHER_MACHINE,
        dask_cluster,
        package="distributed",
    ),
    Candidate(
        "ray",
        f"{_R}.ray",
        "RayTaskRunner(address={address!r}, max_workers={workers})",
        OTHER_MACHINE,
        ray_cluster,
        package="ray",
    ),
]


class Place:
    """One runner under test, with its cluster if it has one."""

    def __init__(self, candidate: Candidate, of_cluster: Mapping[str, object]) -> None:
        self.candidate = candidate
        self._of_cluster = of_cluster
        self.workers = candidate.workers

    def code(self, workers: int | None = None) -> str:
        """Return the expression that makes the runner."""
        return self.candidate.code.format(workers=workers or self.workers, **self._of_cluster)

    def new(self, workers: int | None = None) -> TaskRunner:
        """Return a new runner."""
        made: TaskRunner = eval(self.code(workers), vars(importlib.import_module(self.candidate.module)))
        return made

    @property
    def is_away(self) -> bool:
        """Tell whether its tasks run in other processes."""
        return "process" not in self.candidate.lacks

    def needs(self, *what: str) -> None:
        """Leave the case out, and say so in the table, if the runner lacks something."""
        for name in what:
            if name in self.candidate.lacks:
                pytest.skip(self.candidate.lacks[name])


@contextlib.contextmanager
def importable_for_workers() -> Iterator[None]:
    """Let the workers of clusters that are started in the block import the modules of the tests."""
    before = os.environ.get("PYTHONPATH")
    roots = [str(ROOT), str(ROOT / "journal"), str(ROOT / "scheduler")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*roots, *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
