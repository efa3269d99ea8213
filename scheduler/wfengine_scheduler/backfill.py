"""Start runs for instants of the past that started none: missed, skipped, or from before the schedule was there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from wfengine_journal.clock import instant_from_text
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import RunRequest
from wfengine_journal.store import Journal
from wfengine_journal.ticks import BackfillTicks, ScheduleRow, find_started, list_schedule_rows
from wfengine_scheduler.ticks import recorded_parameters, rule_of, text_of

#: Instants of one backfill at the most, unless it is told otherwise; and those written in one transaction.
BACKFILL_LIMIT = 1000
INSTANTS_AT_ONCE = 100


class PastInstant(NamedTuple):
    """An instant of the past, and its tick's outcome so far (None: it has no tick)."""

    nominal_at: str
    outcome: str | None


def plan_backfill(
    journal: Journal, schedule_id: int, start: datetime, end: datetime, *, limit: int = BACKFILL_LIMIT
) -> list[PastInstant]:
    """Return the instants from `start` to `end`, both included, that started no run, as far as a scheduler decided them.

    Writes nothing. Raises NotFoundError, UsageError for a range that is upside down or has more than `limit` instants.
    """
    return _planned(journal, _schedule(journal, schedule_id), start, end, limit)


def backfill(
    journal: Journal, schedule_id: int, start: datetime, end: datetime, *, limit: int = BACKFILL_LIMIT
) -> dict[str, int]:
    """Start a run for each instant of the plan, one after the other; return their ids by instant, oldest first.

    The runs of one call wait for each other, whatever the schedule's overlap says. Written in batches, each a transaction; a
    backfill that was cut off is called again with the same range, and does the rest.
    """
    schedule = _schedule(journal, schedule_id)
    planned = _planned(journal, schedule, start, end, limit)
    started: dict[str, int] = {}
    for place in range(0, len(planned), INSTANTS_AT_ONCE):
        batch = planned[place : place + INSTANTS_AT_ONCE]
        started |= _write(journal, schedule, batch, list(started.values())[-1:])
    return started


def _schedule(journal: Journal, schedule_id: int) -> ScheduleRow:
    found: list[ScheduleRow] = []
    journal.read(lambda connection: found.extend(list_schedule_rows(connection, schedule_id=schedule_id)))
    if not found:
        raise NotFoundError(f"There is no schedule {schedule_id} in {journal.path}. See them with: wfengine schedules ls")
    return found[0]


def _planned(journal: Journal, schedule: ScheduleRow, start: datetime, end: datetime, limit: int) -> list[PastInstant]:
    if end < start:
        raise UsageError(f"A backfill goes from an instant of the past to a later one, not from {start} to {end}.")
    if schedule.decided_to is None:
        return []  # no scheduler has looked at it yet
    # What is due and not decided yet is the scheduler's.
    start, end = start.astimezone(UTC), min(end.astimezone(UTC), instant_from_text(schedule.decided_to))
    known: dict[str, str] = {}
    journal.read(lambda connection: known.update(find_started(connection, schedule.id, text_of(start), text_of(end))))
    found: list[PastInstant] = []
    rule = rule_of(schedule)
    instant = rule.next_after(start - timedelta(microseconds=1))
    while instant is not None and instant <= end:
        outcome = known.get(text_of(instant))
        if outcome != "started":
            found.append(PastInstant(text_of(instant), outcome))
        if len(found) > limit:
            raise UsageError(
                f"Schedule {schedule.id} of '{schedule.deployment}' has more than {limit} instants from {start} to {end}. "
                "Name a smaller range, or a larger limit."
            )
        instant = rule.next_after(instant)
    return found


def _write(journal: Journal, schedule: ScheduleRow, batch: Sequence[PastInstant], after: list[int]) -> dict[str, int]:
    parameters = recorded_parameters(schedule.parameters)
    at = journal.clock.now_text()
    named = [(instant.nominal_at, new_run_name(journal.records.is_run_name_taken)) for instant in batch]
    runs = [
        RunRequest(
            schedule.deployment_id, name, at, parameters=parameters, nominal_at=nominal_at, after_runs=after, tags=("backfill",)
        )
        for nominal_at, name in named
    ]
    change = BackfillTicks(schedule.id, runs, at=at)
    journal.write(change, synced=True)
    return change.started
