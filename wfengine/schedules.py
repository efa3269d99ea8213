"""When a deployment is due: every so often, by a cron expression, or by a rule of RFC 5545.

A schedule is data. It is checked when it is made, so that nonsense is refused where it stands; what makes runs of it is not
here. `Interval`, `Cron` and `RRule` make one; `IntervalSchedule`, `CronSchedule` and `RRuleSchedule` are the older names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from wfengine_journal.errors import ScheduleError

__all__ = [
    "Cron", "CronSchedule", "Interval", "IntervalSchedule", "RRule", "RRuleSchedule", "Schedule", "construct_schedule",
]  # fmt: skip

#: Characters of a cron expression and of an RFC 5545 rule at the most.
CRON_CHARACTERS = 256
RRULE_CHARACTERS = 6500
#: What may stand in the place of a cron expression's five fields.
CRON_NAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})

Kind = Literal["interval", "cron", "rrule"]


@dataclass(frozen=True)
class Schedule:
    """When a deployment is due. Exactly one of `interval`, `cron` and `rrule` is given.

    - `interval`: a timedelta or a number of seconds, counted from `anchor_date` (default: when it is first applied). An
      anchor without a time zone is meant in the schedule's.
    - `timezone`: an IANA name; the default is that of the anchor, else UTC.
    - `day_or`: whether day of month and day of week, both restricted in `cron`, mean either (True) or both.
    - `active`: False to keep it without its being due. `parameters` go before those of the deployment. `slug`: a name of
      one's own.

    Raises ScheduleError.
    """

    interval: timedelta | None = None
    cron: str | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: datetime | None = None
    day_or: bool = True
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)
    slug: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("interval", "cron", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ScheduleError(
                f"A schedule has exactly one of interval, cron and rrule; {' and '.join(given) or 'none of them'} was given. "
                "Make it with Interval(...), Cron(...) or RRule(...)."
            )
        put = object.__setattr__
        if self.interval is not None:
            put(self, "interval", _checked_interval(self.interval))
        if self.anchor_date is not None:
            if self.interval is None:
                raise ScheduleError("anchor_date is counted from by an interval; a cron expression and a rule have none.")
            put(self, "anchor_date", _checked_anchor(self.anchor_date))
        put(self, "timezone", _checked_zone(self.timezone if self.timezone is not None else _zone_of(self.anchor_date)))
        if self.cron is not None:
            put(self, "cron", _checked_cron(self.cron))
        if self.rrule is not None:
            put(self, "rrule", _checked_rrule(self.rrule))
        if not isinstance(self.parameters, Mapping):
            raise ScheduleError(f"The parameters of a schedule are a dict by name, not {self.parameters!r}.")

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        return "interval" if self.interval is not None else "cron" if self.cron is not None else "rrule"

    @property
    def rule(self) -> str:
        """The rule as text: seconds, the cron expression, or the rule."""
        if self.interval is None:
            return self.cron or self.rrule or ""
        seconds = self.interval.total_seconds()
        return str(int(seconds)) if seconds.is_integer() else f"{seconds:.6f}".rstrip("0")

    @property
    def anchor_at(self) -> datetime | None:
        """The anchor with a time zone; None where none was given."""
        if self.anchor_date is None or self.anchor_date.tzinfo is not None:
            return self.anchor_date
        from zoneinfo import ZoneInfo  # only schedules need zones

        return self.anchor_date.replace(tzinfo=ZoneInfo(self.timezone or "UTC"))


def Interval(
    interval: timedelta | float,
    /,
    anchor_date: datetime | None = None,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """Return a schedule that is due every so often: `Interval(timedelta(hours=1))`, `Interval(90)` (seconds)."""
    return Schedule(
        interval=_checked_interval(interval), anchor_date=anchor_date, timezone=timezone, active=active,
        parameters=parameters or {}, slug=slug,
    )  # fmt: skip


def Cron(
    cron: str,
    /,
    timezone: str | None = None,
    day_or: bool = True,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """Return a schedule by a cron expression: `Cron("0 7 * * mon-fri", timezone="Europe/Berlin")`."""
    return Schedule(cron=cron, timezone=timezone, day_or=day_or, active=active, parameters=parameters or {}, slug=slug)


def RRule(
    rrule: str,
    /,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """Return a schedule by a rule of RFC 5545: `RRule("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17")`."""
    return Schedule(rrule=rrule, timezone=timezone, active=active, parameters=parameters or {}, slug=slug)


class IntervalSchedule(Schedule):
    """The older name of `Interval`."""

    def __init__(
        self, interval: timedelta | float, anchor_date: datetime | str | None = None, timezone: str | None = None
    ) -> None:
        anchor = _from_text(anchor_date) if isinstance(anchor_date, str) else anchor_date
        super().__init__(interval=_checked_interval(interval), anchor_date=anchor, timezone=timezone)


class CronSchedule(Schedule):
    """The older name of `Cron`."""

    def __init__(self, cron: str, timezone: str | None = None, day_or: bool = True) -> None:
        super().__init__(cron=cron, timezone=timezone, day_or=day_or)


class RRuleSchedule(Schedule):
    """The older name of `RRule`."""

    def __init__(self, rrule: str, timezone: str | None = "UTC") -> None:
        super().__init__(rrule=rrule, timezone=timezone)


def construct_schedule(
    interval: timedelta | float | None = None,
    anchor_date: datetime | str | None = None,
    cron: str | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
) -> Schedule:
    """Return the schedule that one of `interval`, `cron` and `rrule` makes."""
    anchor = _from_text(anchor_date) if isinstance(anchor_date, str) else anchor_date
    seconds = None if interval is None else _checked_interval(interval)
    return Schedule(interval=seconds, anchor_date=anchor, cron=cron, rrule=rrule, timezone=timezone)


# ------------------------------------------------------------------------------------------- checks


def _checked_interval(interval: object) -> timedelta:
    if isinstance(interval, int | float) and not isinstance(interval, bool):
        if not math.isfinite(interval):
            raise ScheduleError(f"An interval cannot be {interval} seconds.")
        try:
            interval = timedelta(seconds=interval)
        except OverflowError as error:
            raise ScheduleError(f"An interval of {interval} seconds is longer than any calendar.") from error
    if not isinstance(interval, timedelta):
        raise ScheduleError(f"An interval is a timedelta or a number of seconds, not {interval!r}.")
    if interval <= timedelta(0):
        raise ScheduleError(f"An interval has to be longer than 0 s, and this one is {interval.total_seconds()} s.")
    return interval


def _checked_anchor(anchor: object) -> datetime:
    if not isinstance(anchor, datetime):
        raise ScheduleError(f"anchor_date is a datetime, not {anchor!r}.")
    return anchor


def _from_text(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ScheduleError(f"anchor_date {text!r} is no ISO-8601 instant, such as 2026-11-22T07:00:00+01:00.") from error


def _zone_of(anchor: datetime | None) -> str:
    """Return the name of an anchor's zone; UTC for one that has only an offset, and for none."""
    zone: tzinfo | None = None if anchor is None else anchor.tzinfo
    key = getattr(zone, "key", None)
    return key if isinstance(key, str) else "UTC"


def _checked_zone(name: object) -> str:
    from zoneinfo import ZoneInfo, available_timezones  # only schedules need zones

    try:
        if isinstance(name, str):
            return str(ZoneInfo(name).key)
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(str(name), sorted(available_timezones()), 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ScheduleError(f"There is no time zone {name!r}.{hint} Use an IANA name, such as 'Europe/Berlin'.") from None
    raise ScheduleError(f"timezone is the IANA name of a time zone, such as 'Europe/Berlin', not {name!r}.")


def _checked_cron(expression: object) -> str:
    from croniter import CroniterError, croniter  # slow to import

    if not isinstance(expression, str):
        raise ScheduleError(f"A cron expression is text, such as '0 7 * * *', not {expression!r}.")
    text = " ".join(expression.split())
    if len(text) > CRON_CHARACTERS:
        raise ScheduleError(f"A cron expression has at most {CRON_CHARACTERS} characters, and this one {len(text)}.")
    if text.startswith("@"):
        if text.lower() not in CRON_NAMES:
            raise ScheduleError(f"There is no {text!r} in cron. There are: {', '.join(sorted(CRON_NAMES))}.")
        return text.lower()
    fields = len(text.split())
    if fields != 5:
        finer = " For seconds use an interval." if fields > 5 else ""
        raise ScheduleError(
            f"A cron expression has five fields (minute, hour, day, month, weekday); {expression!r} has {fields}.{finer}"
        )
    try:
        croniter(text, datetime(2000, 1, 1, tzinfo=UTC), hash_id=b"wfengine").get_next()
    except (CroniterError, ValueError, TypeError, KeyError) as error:
        raise ScheduleError(f"{expression!r} is no cron expression that is ever due: {error}") from error
    return text


def _checked_rrule(rule: object) -> str:
    from dateutil.rrule import rrulestr  # slow to import

    if not isinstance(rule, str):
        raise ScheduleError(f"A rule is text, such as 'FREQ=WEEKLY;BYDAY=MO', not {rule!r}.")
    text = rule.strip()
    if len(text) > RRULE_CHARACTERS:
        raise ScheduleError(f"A rule has at most {RRULE_CHARACTERS} characters, and this one {len(text)}.")
    try:
        rrulestr(text, dtstart=datetime.fromisoformat("2000-01-01"), ignoretz=True)
    except Exception as error:  # dateutil raises what its parser happens to meet
        raise ScheduleError(
            f"{rule!r} is no rule of RFC 5545: {error}. One looks like: FREQ=WEEKLY;BYDAY=MO;BYHOUR=7"
        ) from error
    return text
