"""Which task runs' failures ended a flow: exceptions remember the task runs they ended, and a flow's error has causes.

A person's resume runs these again; failures that the flow had handled replay as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

_logger = logging.getLogger("wfengine.engine")

#: Set on exceptions: the ids of the task runs that they ended.
_ATTRIBUTE = "_wfengine_task_runs"


def note_task_run(error: BaseException, task_run_id: int) -> BaseException:
    """Note on an exception which task run it ended, to find the fatal ones when a flow fails; return it."""
    try:
        known: frozenset[int] = getattr(error, _ATTRIBUTE, frozenset())
        setattr(error, _ATTRIBUTE, known | {task_run_id})
    except (AttributeError, TypeError):
        _logger.debug("A %s takes no attributes; whether it was fatal cannot be told.", type(error).__name__)
    return error


def task_runs_of(error: BaseException) -> Collection[int]:
    """Return the task runs that an exception ended."""
    found: Collection[int] = getattr(error, _ATTRIBUTE, frozenset())
    return found


def fatal_task_runs(error: BaseException) -> set[int]:
    """Return the task runs whose failures are in the cause chain of the error that ended a flow."""
    found: set[int] = set()
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        link = pending.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        found.update(task_runs_of(link))
        pending.extend(_causes(link))
    return found


def _causes(error: BaseException) -> Iterable[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    if error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
