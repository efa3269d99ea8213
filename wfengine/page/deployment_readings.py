"""What the pages and the API show of deployments and schedules, as JSON values; the rules of schedules are asked here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from wfengine.page.paging import page_of
from wfengine.page.readings import UPCOMING, json_of, overview_json, run_json
from wfengine.page.serving import Serving
from wfengine_journal.clock import SystemClock, utc_now
from wfengine_journal.deployments import DeploymentRow, get_columns
from wfengine_journal.errors import ScheduleError, UsageError
from wfengine_journal.page_lists import (
    ScheduleOf,
    get_deployment,
    get_schedule,
    list_deployment_runs,
    list_fresh_schedules,
    list_tick_times,
    page_deployments,
    page_schedules,
    page_ticks,
)
from wfengine_journal.queries import MAX_ID
from wfengine_scheduler.ticks import recorded_instant, rule_of, text_of, words_of

#: Schedules of a deployment, and of a calendar of all, that are shown.
SCHEDULES = 50
#: Instants to come that are shown of one schedule.
NEXT = 5
#: Instants to come that one calendar asks rules for, and past ticks that it reads: bounded, however often something is due.
CALENDAR_INSTANTS = 600
CALENDAR_TICKS = 10_000
#: Schedules whose rules the overview asks, because no daemon has looked at them yet.
FRESH = 20
#: Later than any tick.
LAST = "9999"
OUTCOMES = ("started", "skipped", "coalesced", "missed")


def deployment_json(row: DeploymentRow) -> dict[str, Any]:
    """Return a deployment with parameters and tags as JSON."""
    return {
        **row._asdict(), "active": bool(row.active), "paused": bool(row.paused), "isolate": bool(row.isolate),
        "parameters": json_of(row.parameters), "tags": json_of(row.tags),
    }  # fmt: skip


def deployments_json(
    connection: sqlite3.Connection, *, text: str | None, after: str, limit: int
) -> dict[str, Any]:  # fmt: skip
    """Return a page of deployments; `after` is the full name of one."""
    flow, _, name = after.rpartition("/")
    found = page_deployments(connection, text=text, after=(flow, name), limit=limit + 1)
    rows, following = page_of(found, limit, lambda row: row.full_name)
    return {"deployments": [deployment_json(row) for row in rows], "next_after": following}


def deployment_detail_json(connection: sqlite3.Connection, name: str | int) -> dict[str, Any]:
    """Return one deployment with its schedules and the schema of its parameters."""
    row = get_deployment(connection, name)
    columns = get_columns(connection, row.id)
    found = page_schedules(connection, deployment_id=row.id, limit=SCHEDULES)
    return {
        "deployment": {
            **deployment_json(row), "memory_limit_bytes": columns.memory_limit_bytes,
            "time_limit_seconds": columns.time_limit_seconds, "source": columns.source,
            "parameter_schema": json_of(columns.parameter_schema),
        },
        "schedules": [schedule_json(each) for each in found],
    }  # fmt: skip


def deployment_runs_json(
    connection: sqlite3.Connection, deployment_id: int, *, before: int | None, limit: int
) -> dict[str, Any]:
    """Return a page of the runs of a deployment, newest first."""
    found = list_deployment_runs(connection, deployment_id, before_id=MAX_ID if before is None else before, limit=limit + 1)
    rows, following = page_of(found, limit, lambda row: row.id)
    return {"runs": [run_json(run) for run in rows], "next_before": following}


# ------------------------------------------------------------------------------------------- schedules


def schedule_json(found: ScheduleOf) -> dict[str, Any]:
    """Return a schedule with its rule in words."""
    row = found.schedule
    return {
        **row._asdict(), "active": bool(row.active), "day_or": bool(row.day_or), "parameters": json_of(row.parameters),
        "deployment_id": found.deployment_id, "words": words_of(row), "upcoming_at": _upcoming(found),
    }  # fmt: skip


def _upcoming(found: ScheduleOf) -> str | None:
    """Return what is due next: what the scheduler wrote down, else, before it has looked, what the rule says."""
    row = found.schedule
    if not row.active or row.next_at is not None:
        return row.next_at if row.active else None
    instants = _next(found, 1)
    return text_of(instants[0]) if instants else None


def overview_and_due_json(connection: sqlite3.Connection, serving: Serving, since: str) -> dict[str, Any]:
    """Return how things are since an instant, with what is due next of schedules that no daemon has looked at yet too."""
    found = overview_json(connection, serving, since)
    fresh = [
        {"at": at, "deployment": each.schedule.deployment, "what": "schedule", "run_id": None}
        for each in list_fresh_schedules(connection, FRESH) if (at := _upcoming(each)) is not None
    ]  # fmt: skip
    due = sorted([*found["upcoming"], *fresh], key=lambda each: str(each["at"]))
    return {**found, "upcoming": due[:UPCOMING]}


def schedules_json(
    connection: sqlite3.Connection, *, text: str | None, after: tuple[str, int], limit: int
) -> dict[str, Any]:  # fmt: skip
    """Return a page of schedules, by deployment."""
    found = page_schedules(connection, text=text, after=after, limit=limit + 1)
    rows, last = page_of(found, limit, lambda row: row.schedule)
    return {
        "schedules": [schedule_json(each) for each in rows],
        "next": None if last is None else {"after": last.deployment, "after_id": last.id},
    }


def schedule_detail_json(connection: sqlite3.Connection, schedule_id: int, count: int = NEXT) -> dict[str, Any]:
    """Return one schedule, with the instants to come: in UTC, and as its own zone's wall shows them."""
    found = get_schedule(connection, schedule_id)
    return {
        "schedule": schedule_json(found),
        "next": [{"at": text_of(each), "local": local_text(each, found.schedule.timezone)} for each in _next(found, count)],
    }


def local_text(instant: datetime, zone: str) -> str:
    """Return what the wall of a zone shows."""
    return f"{instant.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def _next(found: ScheduleOf, count: int) -> list[datetime]:
    try:
        rule, instant = rule_of(found.schedule), utc_now()
        instants: list[datetime] = []
        while len(instants) < count and (following := rule.next_after(instant)) is not None:
            instants.append(following)
            instant = following
    except ScheduleError:
        return []
    return instants


def ticks_json(
    connection: sqlite3.Connection, schedule_id: int, *, before: str | None, outcome: str | None, limit: int
) -> dict[str, Any]:  # fmt: skip
    """Return a page of what became of the due instants of a schedule, newest first."""
    found = page_ticks(connection, schedule_id, before=before or LAST, outcome=outcome, limit=limit + 1)
    rows, following = page_of(found, limit, lambda row: row.nominal_at)
    return {"ticks": [row._asdict() for row in rows], "next_before": following}


# ------------------------------------------------------------------------------------------- the calendar


def month_of(text: str, zone: ZoneInfo) -> date:
    """Return the first day of the month that '2026-11' means; '' is the present one. Raises UsageError."""
    if not text:
        return utc_now().astimezone(zone).date().replace(day=1)
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise UsageError(f"A month is written as 2026-11, and not {text[:40]!r}.") from None


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone. Raises UsageError."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UsageError(f"There is no time zone {name[:100]!r}. Use a name such as 'UTC' or 'Europe/Berlin'.") from None


def calendar_json(
    connection: sqlite3.Connection, schedule_id: int | None, *, month: str, timezone: str | None
) -> dict[str, Any]:  # fmt: skip
    """Return a month, day by day: ticks of the past by their outcome, and instants to come; of one schedule, or of all.

    How often something is due plays no part in how much is done: of each day so many instants are looked for at the most, and
    `is_cut` says of a day, and of the month's past, that there are more.
    """
    if schedule_id is None:
        found = page_schedules(connection, limit=SCHEDULES)
        zone_name = timezone or "UTC"
    else:
        found = [get_schedule(connection, schedule_id)]
        zone_name = timezone or found[0].schedule.timezone
    zone = zone_of(zone_name)
    first = month_of(month, zone)
    if not 1900 < first.year < 9000:
        raise UsageError(f"{first:%Y-%m} lies outside of the calendar. Ask for a month of the years 1901 to 8999.")
    last = (first + timedelta(days=32)).replace(day=1)
    start, end = _midnight(first, zone), _midnight(last, zone)
    days: dict[date, dict[str, Any]] = {}
    for number in range((last - first).days):
        day = first + timedelta(days=number)
        counts = dict.fromkeys(OUTCOMES, 0)
        days[day] = {"date": day.isoformat(), **counts, "due": 0, "first": None, "is_cut": False}
    ticks = list_tick_times(connection, schedule_id, text_of(start), text_of(end), CALENDAR_TICKS + 1)
    for _, at, outcome in ticks[:CALENDAR_TICKS]:
        instant = recorded_instant(at)
        if instant is not None and (day_of := days.get(instant.astimezone(zone).date())) is not None:
            day_of[outcome] = day_of.get(outcome, 0) + 1
    _add_due(days, [each for each in found if each.schedule.active], zone)
    return {
        "month": f"{first:%Y-%m}", "timezone": zone_name, "today": utc_now().astimezone(zone).date().isoformat(),
        "previous": f"{first - timedelta(days=1):%Y-%m}", "following": f"{last:%Y-%m}",
        "days": list(days.values()), "is_past_cut": len(ticks) > CALENDAR_TICKS,
    }  # fmt: skip


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _add_due(days: dict[date, dict[str, Any]], found: Sequence[ScheduleOf], zone: ZoneInfo) -> None:
    """Count the instants to come on each day, at most so many of each schedule and day."""
    now = datetime.fromtimestamp(SystemClock().wall_seconds(), UTC)
    ahead = [day for day in days if _midnight(day + timedelta(days=1), zone) > now]
    if not ahead or not found:
        return
    most = max(1, CALENDAR_INSTANTS // (len(ahead) * len(found)))
    for each in found:
        for day, count, first in _due_by_day(each, ahead, zone, now, most):
            entry = days[day]
            entry["due"] += min(count, most)
            entry["is_cut"] = entry["is_cut"] or count > most
            wall = f"{first.astimezone(zone):%H:%M}"
            entry["first"] = wall if entry["first"] is None else min(entry["first"], wall)


def _due_by_day(
    found: ScheduleOf, days: Sequence[date], zone: ZoneInfo, now: datetime, most: int
) -> Iterator[tuple[date, int, datetime]]:  # fmt: skip
    """Give the days on which something is due, how often (`most` and one: more often), and when first."""
    try:
        rule = rule_of(found.schedule)
        place = 0
        while place < len(days):
            day = days[place]
            instant = rule.next_after(max(now, _midnight(day, zone) - timedelta(microseconds=1)))
            if instant is None:
                return
            due_on = instant.astimezone(zone).date()
            if due_on != day:  # days on which nothing is due are passed over
                place = next((number for number in range(place + 1, len(days)) if days[number] >= due_on), len(days))
                continue
            first, count, end = instant, 0, _midnight(day + timedelta(days=1), zone)
            while instant is not None and instant < end and count <= most:
                count += 1
                instant = rule.next_after(instant)
            yield day, count, first
            place += 1
    except ScheduleError:
        return
