"""Let schedules start nothing for a while, and then go on.

What is due while a schedule is paused is recorded as skipped: by a daemon when it is due, or, where none was there, when the
schedule goes on. So nothing of the pause is caught up - nor what was due before it and nobody had decided: who pauses wants
nothing to start, least of all because of that.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from wfengine_journal.errors import InternalError, NotFoundError
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.ticks import DecideTicks, Decision, PauseDeployment, ScheduleRow, list_schedule_rows
from wfengine_scheduler.ticks import decide, text_of

#: Times it looks again because a scheduler was quicker.
LOOKS = 100


def pause_deployment(journal: Journal, deployment_id: int) -> None:
    """Let no schedule of a deployment start runs. Committed at once. Raises NotFoundError."""
    _put_paused(journal, deployment_id, paused=True)


def unpause_deployment(journal: Journal, deployment_id: int) -> None:
    """Let the schedules of a deployment start runs again, from now on. Committed at once. Raises NotFoundError."""
    for schedule in _schedules(journal, deployment_id=deployment_id):
        if schedule.deployment_paused:
            _settle(journal, schedule.id, active=None)
    _put_paused(journal, deployment_id, paused=False)


def pause_schedule(journal: Journal, schedule_id: int) -> None:
    """Let a schedule start no runs. Committed at once. Raises NotFoundError."""
    _settle(journal, schedule_id, active=0)


def unpause_schedule(journal: Journal, schedule_id: int) -> None:
    """Let a schedule start runs again, from now on. Committed at once. Raises NotFoundError."""
    _settle(journal, schedule_id, active=1)


def _put_paused(journal: Journal, deployment_id: int, *, paused: bool) -> None:
    try:
        journal.write(PauseDeployment(deployment_id, paused=paused, at=journal.clock.now_text()), synced=True)
    except WriteRefused as refusal:
        raise NotFoundError(
            f"There is no deployment {deployment_id} in {journal.path}. See them with: wfengine deployments ls"
        ) from refusal


def _schedules(journal: Journal, *, schedule_id: int | None = None, deployment_id: int | None = None) -> list[ScheduleRow]:
    found: list[ScheduleRow] = []
    journal.read(
        lambda connection: found.extend(list_schedule_rows(connection, schedule_id=schedule_id, deployment_id=deployment_id))
    )
    return found


def _settle(journal: Journal, schedule_id: int, *, active: int | None) -> None:
    """Record what was due while a schedule was paused, and make it active or not, in one transaction."""
    for _ in range(LOOKS):
        found = _schedules(journal, schedule_id=schedule_id)
        if not found:
            raise NotFoundError(f"There is no schedule {schedule_id} in {journal.path}. See them with: wfengine schedules ls")
        (schedule,) = found
        now = datetime.fromtimestamp(journal.clock.wall_seconds(), UTC)
        decision = Decision(schedule, (), schedule.decided_to, schedule.next_at, schedule.due_at)
        if schedule.is_paused:
            decision = decide(schedule, now, list, str)  # it starts nothing, so needs neither runs nor names
        decision = replace(decision, active=active)
        journal.write(DecideTicks([decision], at=text_of(now)), synced=True)
        if decision.is_written:
            return
    raise InternalError(f"Schedule {schedule_id} changes at every look. Please report this.")
