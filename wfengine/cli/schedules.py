"""`wfengine schedules`: when deployments are due, what became of it, and what a person does about it."""

from __future__ import annotations

import heapq
import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.deployment_actions import instant_of, open_for
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, instant_text, json_value, say, table_lines, write, write_json
from wfengine.ids import typed
from wfengine_journal.clock import utc_now
from wfengine_journal.deployments import (
    ShownSchedule,
    find_deployments,
    list_shown_schedules,
    list_ticks,
)
from wfengine_journal.errors import NotFoundError, ScheduleError, UsageError
from wfengine_journal.names import new_run_name
from wfengine_journal.queries import reading
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.ticks import list_schedule_rows
from wfengine_scheduler import backfill as backfilling
from wfengine_scheduler.pausing import pause_schedule, unpause_schedule
from wfengine_scheduler.rules import BoundedRule
from wfengine_scheduler.ticks import recorded_instant, recorded_parameters, rule_of, text_of, words_of

SCHEDULE = click.argument("schedule", metavar="SCHEDULE")
#: Schedules whose next instants are merged at the most, and instants that are shown.
MOST = 10_000


@click.group(
    cls=Group,
    name="schedules",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.schedules:ls", "List schedules, by deployment."),
        "show": ("wfengine.cli.schedules:show", "Show one: its rule in words, next and last instants."),
        "next": ("wfengine.cli.schedules:next_", "What is due next."),
        "calendar": ("wfengine.cli.schedules:calendar", "What is due on the days to come."),
        "pause": ("wfengine.cli.schedules:pause", "Let one start nothing."),
        "resume": ("wfengine.cli.schedules:resume", "Let one start runs again."),
        "trigger": ("wfengine.cli.schedules:trigger", "Start a run now, with the schedule's parameters."),
        "backfill": ("wfengine.cli.schedules:backfill", "Start runs for instants of the past that started none."),
    },
    epilog=epilog(
        "SCHEDULE is its id, or its deployment's name where that has one schedule only, or NAME:SLUG.",
        "Example:\n  wfengine schedules next -n 20",
    ),
)
def schedules() -> None:
    """When deployments are due. A daemon (wfengine serve) starts their runs."""


# ------------------------------------------------------------------------------------------- which one


def _found(connection: sqlite3.Connection, text: str) -> ShownSchedule:
    """Return the schedule that an id or a deployment's name means. Raises NotFoundError."""
    if text.isdecimal() and text.isascii():
        for row in list_shown_schedules(connection):
            if str(row.id) == text.lstrip("0"):
                return row
        raise NotFoundError(f"There is no schedule {text}. See them with: wfengine schedules ls")
    name, colon, slug = text.rpartition(":")
    if not colon or find_deployments(connection, text):
        name, slug = text, ""
    deployments = find_deployments(connection, name)
    if len(deployments) != 1:
        what = "is no deployment" if not deployments else "are several deployments"
        raise NotFoundError(f"There {what} {name!r}. See schedules and their ids with: wfengine schedules ls")
    rows = [row for row in list_shown_schedules(connection, deployments[0].id) if not slug or row.slug == slug]
    if len(rows) != 1:
        number = "no schedule" if not rows else f"{len(rows)} schedules"
        raise NotFoundError(
            f"Deployment '{deployments[0].full_name}' has {number}{f' named {slug!r}' if slug else ''}. Name one by its id: "
            "wfengine schedules ls"
        )
    return rows[0]


def _local(instant: datetime, zone: str) -> str:
    return f"{instant.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def _json(row: ShownSchedule) -> dict[str, object]:
    return {
        **row._asdict(), "active": bool(row.active), "day_or": bool(row.day_or), "parameters": json_value(row.parameters),
        "words": words_of(row),
    }  # fmt: skip


_JSON_OF_ONE = (
    '{"id", "deployment", "kind", "rule", "timezone", "slug", "active", "next_at", "due_at", "last_at", "last_outcome", '
    '"catch_up",\n   "overlap", "misfire_grace_seconds", "jitter_seconds", "starts_at", "ends_at", "parameters", "words" ...}'
)


# ------------------------------------------------------------------------------------------- looking


@click.command(
    "ls", cls=Command, epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "schedules": [{_JSON_OF_ONE}]}}')
)
@pass_settings
def ls(settings: Settings) -> int:
    """List schedules, by deployment."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_shown_schedules(connection)
    if settings.as_json:
        write_json("schedules ls", {"journal": str(path), "schedules": [_json(row) for row in found]})
    elif found:
        for line in table_lines(("ID", "DEPLOYMENT", "ACTIVE", "NEXT", "LAST", "DUE"), [_cells(row) for row in found]):
            write(line)
    elif not settings.quiet:
        say(f"no schedules in {shown_path(path)}")
    return ExitCode.OK


def _cells(row: ShownSchedule) -> list[str]:
    last = "" if row.last_at is None else f"{row.last_outcome} {instant_text(row.last_at)}"
    name = f"{row.deployment}:{row.slug}" if row.slug else row.deployment
    upcoming = _upcoming(row, utc_now()) if row.active else None
    return [
        str(row.id), clean(name), "yes" if row.active else "no",
        "" if upcoming is None else instant_text(text_of(upcoming)), last, clean(words_of(row)),
    ]  # fmt: skip


def _upcoming(row: ShownSchedule, now: datetime) -> datetime | None:
    """Return what is due next: what the scheduler wrote down, else, before it has looked, what the rule says."""
    try:
        if row.next_at is not None:
            return recorded_instant(row.next_at)
        return rule_of(row).next_after(now)
    except ScheduleError:
        return None


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine schedules show etl/nightly",
        f'JSON:\n  {{"schema_version", "command", "schedule": {_JSON_OF_ONE},\n'
        '   "next": [instant], "ticks": [{"nominal_at", "outcome", "reason", "run_id"}]}',
    ),
)
@SCHEDULE
@pass_settings
def show(settings: Settings, schedule: str) -> int:
    """Show one schedule: its rule in words, what is due next, and what became of the last instants."""
    with reading(journal_path(settings)) as connection:
        row = _found(connection, schedule)
        ticks = list_ticks(connection, row.id, 10)
    upcoming = [instant for instant, _ in _merged([row], 5)]
    if settings.as_json:
        fields = {"schedule": _json(row), "next": list(map(text_of, upcoming)), "ticks": [tick._asdict() for tick in ticks]}
        write_json("schedules show", fields)
        return ExitCode.OK
    write(click.style(f"schedule {row.id} of {clean(row.deployment)}", bold=True))
    lines = [
        ("due", words_of(row)),
        ("rule", f"{row.kind} {row.rule}"),
        ("named", row.slug),
        ("active", "yes" if row.active else "no: what is due is recorded as skipped"),
        ("parameters", "" if row.parameters == "{}" else row.parameters),
        ("late ones", f"later than {row.misfire_grace_seconds:g} s: run {row.catch_up}"),
        ("overlap", row.overlap),
        ("jitter", f"{row.jitter_seconds:g} s" if row.jitter_seconds else ""),
        *(("next", _local(instant, row.timezone)) for instant in upcoming),
        *(("was due", _tick_text(tick.nominal_at, tick.outcome, tick.run_id, tick.reason)) for tick in ticks),
    ]
    for title, text in lines:
        if text:
            write(f"  {title:<11} {clean(text)}")
    return ExitCode.OK


def _tick_text(nominal_at: str, outcome: str, run_id: int | None, reason: str | None) -> str:
    run = "" if run_id is None else f" run {run_id}"
    return f"{instant_text(nominal_at)} {outcome}{run}{'' if reason is None else f': {reason}'}"


def _merged(rows: list[ShownSchedule], count: int, until: datetime | None = None) -> list[tuple[datetime, ShownSchedule]]:
    """Return the next instants of several schedules, so many at the most."""
    heap: list[tuple[datetime, int]] = []
    rules: dict[int, BoundedRule] = {}
    now = utc_now()
    for place, row in enumerate(rows):
        try:
            rules[place] = rule_of(row)
        except ScheduleError:
            continue  # another version wrote it and this one refuses it: `ls` says so
        if (first := rules[place].next_after(now)) is not None:
            heapq.heappush(heap, (first, place))
    found: list[tuple[datetime, ShownSchedule]] = []
    while heap and len(found) < count:
        instant, place = heapq.heappop(heap)
        if until is not None and instant > until:
            break
        found.append((instant, rows[place]))
        if (following := rules[place].next_after(instant)) is not None:
            heapq.heappush(heap, (following, place))
    return found


def _chosen(settings: Settings, schedule: str | None) -> list[ShownSchedule]:
    with reading(journal_path(settings)) as connection:
        if schedule is not None:
            return [_found(connection, schedule)]
        return [row for row in list_shown_schedules(connection) if row.active]


def _instant_json(instant: datetime, row: ShownSchedule) -> dict[str, object]:
    return {"at": text_of(instant), "schedule_id": row.id, "deployment": row.deployment, "timezone": row.timezone}


@click.command(
    "next", cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine schedules next\n  wfengine schedules next etl/nightly -n 20",
        'JSON:\n  {"schema_version", "command", "next": [{"at", "schedule_id", "deployment", "timezone"}]}',
    ),
)  # fmt: skip
@click.argument("schedule", metavar="[SCHEDULE]", required=False)
@click.option("-n", "--count", type=click.IntRange(1, MOST), default=10, show_default=True, help="So many.")
@pass_settings
def next_(settings: Settings, schedule: str | None, count: int) -> int:
    """Show what is due next, of one schedule or of all that are active. Nothing is started."""
    found = _merged(_chosen(settings, schedule), count)
    if settings.as_json:
        write_json("schedules next", {"next": [_instant_json(*each) for each in found]})
        return ExitCode.OK
    for instant, row in found:
        write(f"{instant_text(text_of(instant))}  {_local(instant, row.timezone)}  {clean(row.deployment)}")
    if not found and not settings.quiet:
        say("nothing is due")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine schedules calendar --days 3 --timezone Europe/Berlin",
        'JSON:\n  {"schema_version", "command", "timezone", "days": [{"date", "instants": [{"at", "schedule_id", ...}]}]}',
    ),
)
@click.argument("schedule", metavar="[SCHEDULE]", required=False)
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="So many days from now on.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose days and hours are shown: an IANA name.")
@pass_settings
def calendar(settings: Settings, schedule: str | None, days: int, timezone: str) -> int:
    """Show what is due on the days to come, day by day; often-due schedules once a day, with their number."""
    try:
        zone = ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(f"There is no time zone {timezone!r}. Use a name such as 'UTC' or 'Europe/Berlin'.") from error
    found = _merged(_chosen(settings, schedule), MOST, utc_now() + timedelta(days=days))
    by_day = [(day, list(each)) for day, each in groupby(found, key=lambda pair: pair[0].astimezone(zone).date())]
    if settings.as_json:
        shown = [{"date": day.isoformat(), "instants": [_instant_json(*pair) for pair in pairs]} for day, pairs in by_day]
        write_json("schedules calendar", {"timezone": timezone, "days": shown})
        return ExitCode.OK
    for day, pairs in by_day:
        write(click.style(f"{day:%a %Y-%m-%d}", bold=True))
        times: dict[int, list[datetime]] = {}
        rows = {row.id: row for _, row in pairs}
        for instant, row in pairs:
            times.setdefault(row.id, []).append(instant.astimezone(zone))
        for schedule_id, instants in times.items():
            more = f" and {len(instants) - 4} more, the last at {instants[-1]:%H:%M}" if len(instants) > 4 else ""
            write(f"  {', '.join(f'{each:%H:%M}' for each in instants[:4])}{more}  {clean(rows[schedule_id].deployment)}")
    if len(found) == MOST and not settings.quiet:
        say(f"only the first {MOST} instants are shown; ask for fewer days")
    if not found and not settings.quiet:
        say("nothing is due")
    return ExitCode.OK


# ------------------------------------------------------------------------------------------- doing


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine schedules pause 3"))
@SCHEDULE
@pass_settings
def pause(settings: Settings, schedule: str) -> int:
    """Let a schedule start nothing. What is due meanwhile is recorded as skipped."""
    return _switch(settings, schedule, paused=True)


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine schedules resume 3"))
@SCHEDULE
@pass_settings
def resume(settings: Settings, schedule: str) -> int:
    """Let a schedule start runs again, from now on."""
    return _switch(settings, schedule, paused=False)


def _switch(settings: Settings, schedule: str, *, paused: bool) -> int:
    journal = open_for(settings)
    row = journal.records.read(lambda connection: _found(connection, schedule))
    (pause_schedule if paused else unpause_schedule)(journal, row.id)
    if settings.as_json:
        verb = "pause" if paused else "resume"
        write_json(f"schedules {verb}", {"schedule": {"id": row.id, "deployment": row.deployment, "paused": paused}})
    elif not settings.quiet:
        say(f"schedule {row.id} of '{clean(row.deployment)}' is {'paused' if paused else 'resumed'}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine schedules trigger etl/nightly",
        'JSON:\n  {"schema_version", "command", "run": {"id", "name", "deployment"}}',
    ),
)
@SCHEDULE
@pass_settings
def trigger(settings: Settings, schedule: str) -> int:
    """Put a run into the queue now, with the schedule's own parameters. When it is due itself does not change."""
    journal = open_for(settings)
    row = journal.records.read(lambda connection: _found(connection, schedule))
    (known,) = journal.records.read(lambda connection: list_schedule_rows(connection, schedule_id=row.id))
    request = RunRequest(
        known.deployment_id,
        new_run_name(journal.records.is_run_name_taken),
        journal.clock.now_text(),
        parameters=recorded_parameters(row.parameters),
    )
    change = QueueRun(request)
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        raise NotFoundError(f"Deployment '{row.deployment}' was removed meanwhile.") from None
    if settings.as_json:
        fields = {"id": change.flow_run_id, "name": request.name, "deployment": row.deployment}
        write_json("schedules trigger", {"run": fields})
        return ExitCode.OK
    write(f"{change.flow_run_id} {request.name}")
    if not settings.quiet:
        say(f"it waits in its queue; follow it with: wfengine watch {typed(change.flow_run_id, request.name)}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine schedules backfill etl/nightly --from 2026-11-01 --to 2026-11-08 --dry-run\n"
        "  wfengine schedules backfill etl/nightly --from 2026-11-01 --to 2026-11-08",
        'JSON:\n  {"schema_version", "command", "dry_run", "instants": [{"nominal_at", "was", "run_id"}]}',
    ),
)
@SCHEDULE
@click.option("--from", "start", required=True, metavar="INSTANT", help="The first instant; without an offset it is UTC.")
@click.option("--to", "end", required=True, metavar="INSTANT", help="The last one; both are included.")
@click.option("--dry-run", is_flag=True, help="Only show which instants would be run.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=backfilling.BACKFILL_LIMIT, show_default=True, help="At most so many."
)
@pass_settings
def backfill(settings: Settings, schedule: str, start: str, end: str, dry_run: bool, limit: int) -> int:
    """Start a run for each past instant that started none: missed, skipped, or from before the schedule was there.

    The runs wait for each other, oldest first. Called again with the same range it does what is left, and nothing twice.
    """
    first, last = instant_of(start, "--from").astimezone(UTC), instant_of(end, "--to").astimezone(UTC)
    journal = open_for(settings)
    row = journal.records.read(lambda connection: _found(connection, schedule))
    planned = backfilling.plan_backfill(journal, row.id, first, last, limit=limit)
    started = {} if dry_run or not planned else backfilling.backfill(journal, row.id, first, last, limit=limit)
    if settings.as_json:
        instants = [
            {"nominal_at": each.nominal_at, "was": each.outcome, "run_id": started.get(each.nominal_at)} for each in planned
        ]
        write_json("schedules backfill", {"dry_run": dry_run, "instants": instants})
        return ExitCode.OK
    for each in planned:
        run = f"  run {started[each.nominal_at]}" if each.nominal_at in started else ""
        write(f"{instant_text(each.nominal_at)}  {each.outcome or 'was not due'}{run}")
    if not settings.quiet:
        say(f"{len(planned)} instants {'would be run' if dry_run else 'are put into the queue'}")
    return ExitCode.OK
