"""Where submitted tasks run, under the name Prefect gives this module. A runner is chosen by `@flow(task_runner=...)`.

`ProcessTaskRunner` is loaded when it is asked for; those of clusters stand in `wfengine.runners.dask` and `.ray`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.runners import TaskRunner
from wfengine.runners.inline import InlineTaskRunner
from wfengine.runners.threads import ThreadTaskRunner

if TYPE_CHECKING:
    from wfengine.runners.processes import ProcessTaskRunner

    ProcessPoolTaskRunner = ProcessTaskRunner

ThreadPoolTaskRunner = ThreadTaskRunner
ConcurrentTaskRunner = ThreadTaskRunner
SequentialTaskRunner = InlineTaskRunner

__all__ = [
    "ConcurrentTaskRunner", "InlineTaskRunner", "ProcessPoolTaskRunner", "ProcessTaskRunner", "SequentialTaskRunner",
    "TaskRunner", "ThreadPoolTaskRunner", "ThreadTaskRunner",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in ("ProcessTaskRunner", "ProcessPoolTaskRunner"):
        from wfengine.runners.processes import ProcessTaskRunner  # many programs never need it

        return ProcessTaskRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
