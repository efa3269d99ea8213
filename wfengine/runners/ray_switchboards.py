"""Switchboards for the runs of flows on Ray, one for each run at a time; see `ray_worker.Switchboard`.

Each is an actor, for which Ray starts a process: about a second of a processor. So that of a run that is over is kept for
the next run, where this process stays connected to Ray between the two. Ray ends it when this process disconnects.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import uuid
from typing import Any, NamedTuple

#: How often a switchboard is started again when it died.
RESTARTS = 5
#: Questions that may wait at a switchboard, and so threads of workers that wait; Ray wants a number.
CALLS = 100_000
#: How long one that was kept may take to answer, in seconds.
RENEW_SECONDS = 10.0

#: Numbers orders; no two of this process are the same, so that an order of a former run is told by its number.
numbers = itertools.count()


class Connected(NamedTuple):
    """One that the workers of a run find by its name."""

    name: str
    actor: Any


def take(*, keeps: bool) -> Connected:
    """Return one for a run: that which was kept, if any may be, else a new one."""
    kept = _take_kept() if keeps else None
    if kept is not None:
        return kept
    import ray

    from wfengine.runners.ray_worker import Switchboard

    name = f"wfengine-{uuid.uuid4().hex}"
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": RESTARTS, "max_task_retries": 0, "max_concurrency": CALLS}
    return Connected(name, ray.remote(Switchboard).options(name=name, **options).remote())


def put_back(connected: Connected, *, keeps: bool) -> None:
    """End one that was hung up, or keep it for the next run; one is enough."""
    import ray

    if keeps:
        connection = _connection(ray)
        with _lock:
            if connection is not None and _Kept.of != connection:
                _Kept.of, _Kept.present = connection, connected
                return
    ray.kill(connected.actor)


class _Kept:
    """The one that no run uses now, and the connection to Ray that it belongs to."""

    of: tuple[str, str] | None = None
    present: Connected | None = None


_lock = threading.Lock()


def _connection(ray: Any) -> tuple[str, str] | None:
    """Return what tells this process's connection to Ray from others that it had; None: it cannot be told."""
    with contextlib.suppress(Exception):
        context = ray.get_runtime_context()
        return str(context.get_node_id()), str(context.get_job_id())
    return None


def _take_kept() -> Connected | None:
    import ray

    with _lock:
        of, present = _Kept.of, _Kept.present
        _Kept.of = _Kept.present = None
    if present is None or of != _connection(ray):
        return None
    try:
        ray.get(present.actor.renew.remote(next(numbers)), timeout=RENEW_SECONDS)
    except Exception:  # whatever became of it
        with contextlib.suppress(Exception):
            ray.kill(present.actor)
        return None
    return present
