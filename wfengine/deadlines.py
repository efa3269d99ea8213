"""The deadline of a flow run: an instant, fixed when the run is created, at which it fails if it has not ended.

It goes on counting while nobody executes the run, over restarts and over the flow's own retries. A person who resumes the
run gives it a full deadline anew; a recovery does not. A subflow is bound by the deadlines of the runs around it too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from wfengine.ids import typed
from wfengine.steps import Delay, Outcome, Steps
from wfengine_journal.clock import Clock, seconds_from_text, text_from_seconds
from wfengine_journal.errors import TaskTimeoutError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.scopes import LiveRun


def new_deadline(flow: AnyFlow, clock: Clock) -> str | None:
    """Return the deadline of a run of this flow that begins now, as the journal writes it; None for none."""
    return None if flow.deadline_seconds is None else text_from_seconds(clock.wall_seconds() + flow.deadline_seconds)


def binding_deadline(recorded: str | None, parent: LiveRun | None) -> float | None:
    """Return the instant at which a run has to end: by its own deadline, or that of the runs around it if it is earlier."""
    known = [None if recorded is None else seconds_from_text(recorded), None if parent is None else parent.deadline]
    return min((deadline for deadline in known if deadline is not None), default=None)


def limit_seconds(run: LiveRun) -> float | None:
    """Return how long the body may run from now on; None for ever."""
    own = run.flow.timeout_seconds
    if run.deadline is None:
        return own
    left = max(0.0, run.deadline - run.journal.clock.wall_seconds())
    return left if own is None else min(left, own)


def is_past(run: LiveRun, instant: float | None = None) -> bool:
    """Tell whether an instant, default now, is at or after the run's deadline."""
    if run.deadline is None:
        return False
    return (run.journal.clock.wall_seconds() if instant is None else instant) >= run.deadline


def at_deadline(run: LiveRun, outcome: Outcome, *, struck: bool) -> Steps[Outcome]:
    """Return how the body ended, where its deadline has come: whatever it failed with then is told as that.

    `struck`: the body was stopped by the limit that `limit_seconds` gave it, which ended at the deadline.
    """
    if run.deadline is None or outcome.error is None:
        return outcome
    if struck:
        yield Delay(run, run.deadline)  # two clocks: the limit may have ended some microseconds early
        return Outcome(None, deadline_error(run))
    if not is_past(run) or not _may_be_told_so(outcome.error):
        return outcome
    error = deadline_error(run)
    if not isinstance(outcome.error, TaskTimeoutError) or outcome.error.flow_run_id != run.id:
        error.__cause__ = outcome.error
    return Outcome(None, error)


def _may_be_told_so(error: BaseException) -> bool:
    """Tell whether an error is a failure of the body, or the cancellation by which the deadline of a run around it ended it."""
    asyncio = sys.modules.get("asyncio")
    return isinstance(error, Exception) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


def deadline_error(run: LiveRun) -> TaskTimeoutError:
    """Return the error of a run that did not end in time."""
    assert run.deadline is not None
    bound, top = run, run
    while top.parent is not None:
        top = top.parent
        if top.deadline == run.deadline:
            bound = top  # the outermost run that has this deadline is the one that gave it
    whose = "its deadline" if bound is run else f"the deadline of {bound}, to which it belongs"
    seconds = "" if bound.flow.deadline_seconds is None else f" (deadline_seconds={bound.flow.deadline_seconds:g})"
    return TaskTimeoutError(
        f"{run} did not end by {whose}, {text_from_seconds(run.deadline)}{seconds}, which goes on counting over "
        "restarts and retries. To go on with it, with a full deadline from then on, type: "
        f"wfengine resume {typed(top.id, top.name)}",
        flow_run_id=run.id,
    )
