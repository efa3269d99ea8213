"""Limits: how many may do something at a time, or how often in a time, over all processes that use the journal.

    from wfengine.concurrency.sync import concurrency, rate_limit          # in async code: from wfengine.concurrency.asyncio

    with concurrency("database"): ...         at most so many inside at a time
    rate_limit("api")                         returns when the next call may be made

Both do nothing for a name without a limit, unless they are told `strict=True`. A limit is set here, or by
`wfengine limits set`; it may be changed while others wait for it. The limit of a tag, `set_limit("db", slots=3, tag=True)`,
holds for task runs with that tag, which need no code for it. Queues of deployments have limits of the same kind.
"""

from __future__ import annotations

from wfengine.concurrency.limits import (
    Limit,
    find_limit,
    list_limits,
    pause_queue,
    remove_limit,
    remove_queue,
    resume_queue,
    set_limit,
    set_queue,
)

__all__ = [
    "Limit",
    "find_limit",
    "list_limits",
    "pause_queue",
    "remove_limit",
    "remove_queue",
    "resume_queue",
    "set_limit",
    "set_queue",
]
