"""Where submitted tasks run, under the name Prefect gives this module. A runner is chosen by `@flow(task_runner=...)`."""

from __future__ import annotations

from wfengine.runners import TaskRunner
from wfengine.runners.threads import ThreadTaskRunner

ThreadPoolTaskRunner = ThreadTaskRunner
ConcurrentTaskRunner = ThreadTaskRunner

__all__ = ["ConcurrentTaskRunner", "TaskRunner", "ThreadPoolTaskRunner", "ThreadTaskRunner"]
