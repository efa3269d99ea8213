"""The front of the package's rules: text in, instants out.

    rule = make_rule("cron", "30 2 * * *", timezone="Europe/Berlin")
    rule.next_after(instant)     # aware, in UTC, strictly later; None: nothing more is due

A rule is a value: it asks no clock, keeps no place, and answers the same for the same instant from any thread. Each answer
is checked to be later than what was asked about, whatever a library says. The rule of gaps and overlaps is in `zones`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypedDict, Unpack

from wfengine_journal.errors import InternalError, ScheduleError
from wfengine_scheduler.cron import CronRule
from wfengine_scheduler.intervals import IntervalRule
from wfengine_scheduler.recurrences import RecurrenceRule
from wfengine_scheduler.words import wall_words, words_for
from wfengine_scheduler.zones import Zone, find_zone

KINDS = ("cron", "interval", "rrule", "once")

#: Nothing is due outside of these years, in which every sum of the rules stays within the calendar of Python.
FIRST_INSTANT = datetime(1900, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(9000, 1, 1, tzinfo=UTC)


class Rule(Protocol):
    """When something is due."""

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after another at which it is due; None: nothing more. Aware, in UTC."""


class WrittenRule(Rule, Protocol):
    """A rule that a text of one kind writes down."""

    text: str  # as it is kept

    def check(self) -> None:
        """Raise ScheduleError if it is never due."""


class OnceRule:
    """One instant."""

    def __init__(self, text: str, zone: Zone) -> None:
        self.at = _instant_of(text, zone)
        self.text = self.at.isoformat().replace("+00:00", "Z")

    def check(self) -> None:
        """Do nothing: an instant comes."""

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant, where it is later than another; else None."""
        return self.at if self.at > instant else None


class BoundedRule:
    """A rule between two instants, both included, of which each answer is checked."""

    def __init__(self, rule: WrittenRule, description: str, starts_at: datetime | None, ends_at: datetime | None) -> None:
        self.rule = rule
        self._description = description
        self._before_start = None if starts_at is None else starts_at - timedelta(microseconds=1)
        self._ends_at = ends_at

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after another at which it is due; None: nothing more."""
        after = _in_utc(instant, "The instant that is asked about")
        if self._before_start is not None and self._before_start > after:
            after = self._before_start
        if after >= LAST_INSTANT:
            return None
        found = self.rule.next_after(max(after, FIRST_INSTANT))
        if found is None or found > LAST_INSTANT or (self._ends_at is not None and found > self._ends_at):
            return None
        if found <= after:
            raise InternalError(f"{self._description} is due after {after} at {found}, which is not later. Please report it.")
        return found


class RuleOptions(TypedDict, total=False):
    """What may be said of a rule beside its text and time zone.

    - `anchor_at`: what an interval is counted from.
    - `day_or`: whether day of month and weekday, both restricted in a cron expression, mean either (True) or both.
    - `starts_at`, `ends_at`: nothing before, nothing after. `hash_id`: what fixes the `H` of a cron expression.
    """

    anchor_at: datetime | None
    day_or: bool
    starts_at: datetime | None
    ends_at: datetime | None
    hash_id: str


def make_rule(
    kind: str,
    rule: str,
    *,
    timezone: str = "UTC",
    anchor_at: datetime | None = None,
    day_or: bool = True,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    hash_id: str = "",
) -> BoundedRule:
    """Return the rule that a text of a kind ('cron', 'interval', 'rrule', 'once') writes down. Raises ScheduleError.

    `timezone`: an IANA name. The others are said in RuleOptions.
    """
    zone = find_zone(timezone)
    if anchor_at is not None:
        anchor_at = _in_utc(anchor_at, "anchor_at")
        if not FIRST_INSTANT < anchor_at < LAST_INSTANT:
            raise ScheduleError(f"An interval cannot be counted from {anchor_at}, which is too far away.")
    starts_at = None if starts_at is None else max(_in_utc(starts_at, "starts_at"), FIRST_INSTANT)
    ends_at = None if ends_at is None else min(_in_utc(ends_at, "ends_at"), LAST_INSTANT)
    if starts_at is not None and ends_at is not None and ends_at < starts_at:
        raise ScheduleError(f"A schedule cannot end ({ends_at}) before it starts ({starts_at}). Exchange the two.")
    made = _made(kind, rule, zone, anchor_at, day_or, hash_id)
    return BoundedRule(made, f"The {kind} schedule {rule!r} ({zone.name})", starts_at, ends_at)


def check_rule(
    kind: str,
    rule: str,
    *,
    timezone: str = "UTC",
    **options: Unpack[RuleOptions],
) -> str:
    """Return a rule's text as it is kept. Raises ScheduleError, also for one that is never due."""
    bounded = make_rule(kind, rule, timezone=timezone, **options)
    bounded.rule.check()
    starts_at, ends_at = options.get("starts_at"), options.get("ends_at")
    if (starts_at is not None or ends_at is not None) and bounded.next_after(FIRST_INSTANT) is None:
        raise ScheduleError(f"{bounded.rule.text!r} is not due at all from {starts_at or 'ever'} to {ends_at or 'ever'}.")
    return bounded.rule.text


def describe(kind: str, rule: str, timezone: str = "UTC", **options: Unpack[RuleOptions]) -> str:
    """Return a rule in words, such as 'at 02:30 every day (Europe/Berlin)'. Raises ScheduleError."""
    text = check_rule(kind, rule, timezone=timezone, **options)
    zone = find_zone(timezone)
    starts_at, ends_at = options.get("starts_at"), options.get("ends_at")
    words = words_for(kind, text, zone, options.get("anchor_at"), options.get("day_or", True))
    words += "" if starts_at is None else f", from {wall_words(starts_at, zone)} on"
    return words if ends_at is None else f"{words}, until {wall_words(ends_at, zone)}"


def next_ticks(rule: Rule, after: datetime, count: int) -> list[datetime]:
    """Return the next instants strictly after one, so many at the most."""
    return [tick for tick, _ in zip(_ticks(rule, after), range(count), strict=False)]


def ticks_between(rule: Rule, start: datetime, end: datetime, limit: int) -> list[datetime]:
    """Return the instants strictly after `start` and up to `end`, which is included; the first `limit` of them at the most."""
    found: list[datetime] = []
    if limit > 0:
        for tick in _ticks(rule, start):
            if tick > end:
                break
            found.append(tick)
            if len(found) == limit:
                break
    return found


def _ticks(rule: Rule, after: datetime) -> Iterator[datetime]:
    tick = rule.next_after(after)
    while tick is not None:
        if tick <= after:
            raise InternalError(f"A schedule is due after {after} at {tick}, which is not later. Please report it.")
        yield tick
        after, tick = tick, rule.next_after(tick)


def _made(kind: str, rule: str, zone: Zone, anchor_at: datetime | None, day_or: bool, hash_id: str) -> WrittenRule:
    if kind == "cron":
        return CronRule(rule, zone, day_or=day_or, hash_id=hash_id)
    if kind == "interval":
        return IntervalRule(rule, zone, anchor_at)
    if kind == "rrule":
        return RecurrenceRule(rule, zone, anchor_at)
    if kind == "once":
        return OnceRule(rule, zone)
    raise ScheduleError(f"There is no schedule of kind {kind!r}. There are: {', '.join(KINDS)}.")


def _in_utc(instant: object, what: str) -> datetime:
    """Return an aware datetime in UTC. Raises ScheduleError."""
    if not isinstance(instant, datetime) or instant.utcoffset() is None:
        raise ScheduleError(f"{what} is a datetime with a time zone, and not {instant!r}. datetime.now(UTC) makes one.")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ScheduleError(f"{what} lies outside of the calendar: {instant!r}.") from error


def _instant_of(text: object, zone: Zone) -> datetime:
    """Return the instant of an ISO-8601 text; one without an offset is a wall time of the zone."""
    try:
        if isinstance(text, str):
            written = datetime.fromisoformat(text.strip())
            instant = zone.first_instant(written) if written.tzinfo is None else written.astimezone(UTC)
            if FIRST_INSTANT < instant < LAST_INSTANT:
                return instant
    except (ValueError, OverflowError):
        pass
    raise ScheduleError(f"A single instant is ISO-8601 text, such as '2026-11-22T07:00:00+01:00', not {text!r}.")
