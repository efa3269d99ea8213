"""Run submitted tasks at once, in the thread that submits them: no thread is started, and a debugger stops where one looks."""

from __future__ import annotations

import contextvars
from typing import cast

from wfengine.runners import Job
from wfengine.steps import drive
from wfengine_journal.store import Journal


class InlineTaskRunner:
    """A submitted task has ended when `submit` returns its future; one after the other, async ones too."""

    __wfengine_by_name__ = True  # an option of a flow, which may stand in a local class

    def __reduce__(self) -> tuple[type[InlineTaskRunner], tuple[()]]:
        return type(self), ()

    def start(self, journal: Journal) -> InlineTaskRunner:
        """See TaskRunner; it has nothing to start."""
        return self

    def submit(self, job: Job) -> None:
        """See TaskRunner."""
        context = cast(contextvars.Context, job.context).copy()  # the submitting code is in its context now
        try:
            outcome = context.run(drive, job.steps())
        except BaseException as error:
            job.settle(None, error)
        else:
            job.settle(outcome, None)

    def cancel_queued(self) -> None:
        """See TaskRunner; nothing waits."""

    def close(self) -> None:
        """See TaskRunner."""
