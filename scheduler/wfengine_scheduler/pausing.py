"""Let schedules start nothing for a while, and then go on.

What is due while a schedule is paused is recorded as skipped: by a daemon when it is due, or, where none was there, when the
schedule goes on. So nothing of the pause is caught up - nor what was due before it and nobody had decided: who pauses wants
nothing to start, least of all because of that.

What goes on is settled in the same transaction. `deployment_change` and `schedules_change` make what is to be committed, also
for those who commit it along with something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from wfengine_journal.errors import InternalError, NotFoundError
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.ticks import Decision, ScheduleRow, SwitchSchedules, list_schedule_rows
from wfengine_scheduler.ticks import decide, text_of

#: Times it looks again because a scheduler was quicker.
LOOKS = 100


def pause_deployment(journal: Journal, deployment_id: int) -> None:
    """Let no schedule of a deployment start runs. Committed at once. Raises NotFoundError."""
    _write(journal, lambda: deployment_change(journal, deployment_id, paused=True))


def unpause_deployment(journal: Journal, deployment_id: int) -> None:
    """Let the schedules of a deployment start runs again, from now on. Committed at once. Raises NotFoundError."""
    _write(journal, lambda: deployment_change(journal, deployment_id, paused=False))


def pause_schedule(journal: Journal, schedule_id: int) -> None:
    """Let a schedule start no runs. Committed at once. Raises NotFoundError."""
    _write(journal, lambda: schedules_change(journal, _the_schedule(journal, schedule_id), paused=True))


def unpause_schedule(journal: Journal, schedule_id: int) -> None:
    """Let a schedule start runs again, from now on. Committed at once. Raises NotFoundError."""
    _write(journal, lambda: schedules_change(journal, _the_schedule(journal, schedule_id), paused=False))


def deployment_change(journal: Journal, deployment_id: int, *, paused: bool) -> SwitchSchedules:
    """Return what pauses a deployment, or lets it go on and settles what was due meanwhile; by what is recorded now."""
    now = _now(journal)
    schedules = [] if paused else _schedules(journal, deployment_id=deployment_id)
    decisions = [_settled(schedule, now, bool(schedule.deployment_paused), None) for schedule in schedules]
    return SwitchSchedules(deployment_id, decisions, paused=paused, at=text_of(now))


def schedules_change(journal: Journal, schedules: Sequence[ScheduleRow], *, paused: bool) -> SwitchSchedules:
    """Return what pauses schedules of one deployment, or lets them go on and settles what was due meanwhile."""
    now = _now(journal)
    decisions = [_settled(schedule, now, schedule.is_paused, int(not paused)) for schedule in schedules]
    return SwitchSchedules(schedules[0].deployment_id, decisions, paused=None, at=text_of(now))


def list_schedules_with_slug(journal: Journal, deployment_id: int, slug: str) -> list[ScheduleRow]:
    """Return the schedules of a deployment that have a slug, as `schedules_change` takes them."""
    return _schedules(journal, deployment_id=deployment_id, slug=slug)


def _settled(schedule: ScheduleRow, now: datetime, was_paused: bool, active: int | None) -> Decision:
    """Return the record of what was due while a schedule was paused; it starts nothing, so needs neither runs nor names."""
    as_it_is = Decision(schedule, (), schedule.decided_to, schedule.next_at, schedule.due_at)
    return replace(decide(schedule, now, list, str) if was_paused else as_it_is, active=active)


def _now(journal: Journal) -> datetime:
    return datetime.fromtimestamp(journal.clock.wall_seconds(), UTC)


def _the_schedule(journal: Journal, schedule_id: int) -> list[ScheduleRow]:
    found = _schedules(journal, schedule_id=schedule_id)
    if not found:
        raise NotFoundError(f"There is no schedule {schedule_id} in {journal.path}. See them with: wfengine schedules ls")
    return found


def _schedules(
    journal: Journal, *, schedule_id: int | None = None, deployment_id: int | None = None, slug: str | None = None
) -> list[ScheduleRow]:
    found: list[ScheduleRow] = []
    journal.read(
        lambda connection: found.extend(
            list_schedule_rows(connection, schedule_id=schedule_id, deployment_id=deployment_id, slug=slug)
        )
    )
    return found


def _write(journal: Journal, make: Callable[[], SwitchSchedules]) -> None:
    """Commit a change that is made anew as often as something else changes a schedule of it first."""
    for _ in range(LOOKS):
        change = make()
        try:
            journal.write(change, synced=True)
        except WriteRefused as refusal:
            if change.is_outdated:
                continue
            raise NotFoundError(
                f"There is no deployment {change.deployment_id} in {journal.path}. See them with: wfengine deployments ls"
            ) from refusal
        return
    raise InternalError(f"The schedules of deployment {change.deployment_id} change at every look. Please report this.")
