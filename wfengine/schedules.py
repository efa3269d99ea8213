"""When a deployment is due: every so often, by a cron expression, by a rule of RFC 5545, or once.

A schedule is data. It is checked when it is made, so that nonsense is refused where it stands: what it means is decided in
`wfengine_scheduler`, and what makes runs of it is not here either. `Interval`, `Cron`, `RRule` and `Once` make one;
`IntervalSchedule`, `CronSchedule` and `RRuleSchedule` are the older names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, TypedDict, Unpack
from zoneinfo import ZoneInfo

from wfengine_journal.clock import utc_now
from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.intervals import check_interval, interval_text
from wfengine_scheduler.recurrence_text import zone_named_in
from wfengine_scheduler.rules import check_rule, make_rule, next_ticks
from wfengine_scheduler.zones import find_zone

__all__ = [
    "Cron", "CronSchedule", "Interval", "IntervalSchedule", "Once", "RRule", "RRuleSchedule", "Schedule", "construct_schedule",
]  # fmt: skip

Kind = Literal["interval", "cron", "rrule", "once"]
CatchUp = Literal["none", "last", "all"]
Overlap = Literal["skip", "queue", "cancel", "allow"]

CATCH_UPS: tuple[CatchUp, ...] = ("none", "last", "all")
OVERLAPS: tuple[Overlap, ...] = ("skip", "queue", "cancel", "allow")
_KINDS: tuple[Kind, ...] = ("interval", "cron", "rrule", "once")

#: Late ticks that `catch_up="all"` runs at the most, and what may be asked for at the most.
CATCH_UP_LIMIT = 100
LARGEST_CATCH_UP_LIMIT = 100_000


class ScheduleOptions(TypedDict, total=False):
    """The options that every kind of schedule has; `Schedule` says what they mean."""

    jitter: timedelta | float
    start: datetime | None
    end: datetime | None
    misfire_grace: timedelta | float
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap


@dataclass(frozen=True)
class Schedule:
    """When a deployment is due. Exactly one of `interval`, `cron`, `rrule` and `once` is given.

    - `interval`: a timedelta or a number of seconds, counted from `anchor_date` (default: when it is first applied).
    - `once`: a datetime. One without a time zone is meant in the schedule's; so are `anchor_date`, `start` and `end`.
    - `timezone`: an IANA name; the default is that of the datetime, else the one the rule names, else UTC.
    - `day_or`: whether day of month and day of week, both restricted in `cron`, mean either (True) or both.
    - `active`: False to keep it without its being due. `parameters` go before those of the deployment. `slug`: a name of
      one's own.
    - `jitter`: a run starts so much after its instant at the most, each by another part of it. `start`, `end`: nothing is due
      before, or after.
    - `misfire_grace`: a run that could not be started so long after its instant is late (default 60 s). `catch_up`: of late
      ones 'none', the 'last' (default), or 'all' are run, and of all no more than `catch_up_limit`.
    - `overlap`: what becomes of a run that is due while one of the same schedule has not ended: 'skip' it, 'queue' it (the
      default), 'cancel' the older one, or 'allow' both.

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
    once: datetime | None = field(default=None, kw_only=True)
    jitter: timedelta | float = field(default=timedelta(0), kw_only=True)
    start: datetime | None = field(default=None, kw_only=True)
    end: datetime | None = field(default=None, kw_only=True)
    misfire_grace: timedelta | float = field(default=timedelta(seconds=60), kw_only=True)
    catch_up: CatchUp = field(default="last", kw_only=True)
    catch_up_limit: int = field(default=CATCH_UP_LIMIT, kw_only=True)
    overlap: Overlap = field(default="queue", kw_only=True)

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ScheduleError(
                f"A schedule has exactly one of interval, cron, rrule and once; {' and '.join(given) or 'none of them'} was "
                "given. Make it with Interval(...), Cron(...), RRule(...) or Once(...)."
            )
        put = object.__setattr__
        if self.interval is not None:
            put(self, "interval", _checked_interval(self.interval))
        for name in ("anchor_date", "once", "start", "end"):
            _check_datetime(name, getattr(self, name))
        if self.anchor_date is not None and self.interval is None:
            raise ScheduleError(
                "anchor_date is counted from by an interval; only an interval has one. Give interval=, or leave it out."
            )
        put(self, "timezone", find_zone(self.timezone if self.timezone is not None else self._own_zone()).name)
        put(self, "jitter", _checked_duration("jitter", self.jitter))
        put(self, "misfire_grace", _checked_duration("misfire_grace", self.misfire_grace))
        _check_choice("catch_up", self.catch_up, CATCH_UPS)
        _check_choice("overlap", self.overlap, OVERLAPS)
        _check_limit(self.catch_up_limit)
        if not isinstance(self.parameters, Mapping):
            raise ScheduleError(f"The parameters of a schedule are a dict by name, not {self.parameters!r}.")
        text = check_rule(
            self.kind, self.rule, timezone=self.timezone or "UTC", day_or=self.day_or, anchor_at=self.anchor_at,
            starts_at=self.starts_at, ends_at=self.ends_at,
        )  # fmt: skip
        if self.kind in ("cron", "rrule"):
            put(self, self.kind, text)

    def _own_zone(self) -> str:
        """Return the zone that the datetime or the rule names; UTC where it has only an offset, or none."""
        named = zone_named_in(self.rrule) if isinstance(self.rrule, str) else None
        moment = self.anchor_date if self.anchor_date is not None else self.once
        zone: tzinfo | None = None if moment is None else moment.tzinfo
        key = getattr(zone, "key", None)
        return named or (key if isinstance(key, str) else "UTC")

    @property
    def kind(self) -> Kind:
        """Which of the four it is."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @property
    def rule(self) -> str:
        """The rule as text: seconds, the cron expression, the rule, or the instant."""
        if self.interval is not None:
            return interval_text(self.interval)
        if self.once is not None:
            return self._instant(self.once).isoformat().replace("+00:00", "Z")
        return self.cron if self.cron is not None else self.rrule or ""

    @property
    def anchor_at(self) -> datetime | None:
        """The anchor with a time zone; None where none was given."""
        return None if self.anchor_date is None else self._instant(self.anchor_date)

    @property
    def starts_at(self) -> datetime | None:
        """The instant before which nothing is due; None: there is none."""
        return None if self.start is None else self._instant(self.start)

    @property
    def ends_at(self) -> datetime | None:
        """The instant after which nothing is due; None: there is none."""
        return None if self.end is None else self._instant(self.end)

    @property
    def jitter_seconds(self) -> float:
        """The jitter in seconds."""
        return _timedelta("jitter", self.jitter).total_seconds()

    @property
    def misfire_grace_seconds(self) -> float:
        """The misfire grace in seconds."""
        return _timedelta("misfire_grace", self.misfire_grace).total_seconds()

    def next_ticks(self, count: int = 5, after: datetime | None = None, *, name: str = "") -> list[datetime]:
        """Return the next instants at which it is due, in its time zone, after one (default: now). Nothing is started.

        `name`: of the deployment, which fixes the `H` of a cron expression.
        """
        zone = find_zone(self.timezone)
        rule = make_rule(
            self.kind, self.rule, timezone=zone.name, anchor_at=self.anchor_at, day_or=self.day_or,
            starts_at=self.starts_at, ends_at=self.ends_at, hash_id=name,
        )  # fmt: skip
        ticks = next_ticks(rule, utc_now() if after is None else self._instant(after), count)
        return [tick.astimezone(ZoneInfo(zone.name)) for tick in ticks]

    def _instant(self, moment: datetime) -> datetime:
        """Return a datetime in UTC; one without a time zone is wall time of the schedule's."""
        try:
            if moment.utcoffset() is None:
                return find_zone(self.timezone or "UTC").first_instant(moment.replace(tzinfo=None))
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ScheduleError(f"{moment!r} lies outside of the calendar.") from error


def Interval(
    interval: timedelta | float,
    /,
    anchor_date: datetime | None = None,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
    **options: Unpack[ScheduleOptions],
) -> Schedule:
    """Return a schedule that is due every so often: `Interval(timedelta(hours=1))`, `Interval(90)` (seconds).

    A whole number of days keeps its wall time in the zone. The options are those of `Schedule`.
    """
    _check_options(Interval, options)
    return Schedule(
        interval=_checked_interval(interval), anchor_date=anchor_date, timezone=timezone, active=active,
        parameters=parameters or {}, slug=slug, **options,
    )  # fmt: skip


def Cron(
    cron: str,
    /,
    timezone: str | None = None,
    day_or: bool = True,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
    **options: Unpack[ScheduleOptions],
) -> Schedule:
    """Return a schedule by a cron expression: `Cron("0 7 * * mon-fri", timezone="Europe/Berlin", overlap="skip")`."""
    _check_options(Cron, options)
    return Schedule(
        cron=cron, timezone=timezone, day_or=day_or, active=active, parameters=parameters or {}, slug=slug, **options
    )


def RRule(
    rrule: str,
    /,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
    **options: Unpack[ScheduleOptions],
) -> Schedule:
    """Return a schedule by a rule of RFC 5545: `RRule("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17")`."""
    _check_options(RRule, options)
    return Schedule(rrule=rrule, timezone=timezone, active=active, parameters=parameters or {}, slug=slug, **options)


def Once(
    at: datetime | str,
    /,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
    **options: Unpack[ScheduleOptions],
) -> Schedule:
    """Return a schedule that is due at one instant: `Once(datetime(2026, 12, 24, 18), timezone="Europe/Berlin")`."""
    _check_options(Once, options)
    moment = _from_text("at", at) if isinstance(at, str) else at
    if moment is None:
        raise ScheduleError("Once(...) is given the datetime at which it is due, and not None.")
    return Schedule(once=moment, timezone=timezone, active=active, parameters=parameters or {}, slug=slug, **options)


class IntervalSchedule(Schedule):
    """The older name of `Interval`."""

    def __init__(
        self, interval: timedelta | float, anchor_date: datetime | str | None = None, timezone: str | None = None
    ) -> None:
        anchor = _from_text("anchor_date", anchor_date) if isinstance(anchor_date, str) else anchor_date
        super().__init__(interval=_checked_interval(interval), anchor_date=anchor, timezone=timezone)


class CronSchedule(Schedule):
    """The older name of `Cron`."""

    def __init__(self, cron: str, timezone: str | None = None, day_or: bool = True) -> None:
        super().__init__(cron=cron, timezone=timezone, day_or=day_or)


class RRuleSchedule(Schedule):
    """The older name of `RRule`."""

    def __init__(self, rrule: str, timezone: str | None = None) -> None:
        super().__init__(rrule=rrule, timezone=timezone)


def construct_schedule(
    interval: timedelta | float | None = None,
    anchor_date: datetime | str | None = None,
    cron: str | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
) -> Schedule:
    """Return the schedule that one of `interval`, `cron` and `rrule` makes."""
    anchor = _from_text("anchor_date", anchor_date) if isinstance(anchor_date, str) else anchor_date
    seconds = None if interval is None else _checked_interval(interval)
    return Schedule(interval=seconds, anchor_date=anchor, cron=cron, rrule=rrule, timezone=timezone)


# ------------------------------------------------------------------------------------------- checks


def _check_options(maker: Callable[..., Schedule], options: Mapping[str, object]) -> None:
    """Raise ScheduleError for an option that there is not, with the one that was probably meant."""
    for name in options:
        if name not in ScheduleOptions.__annotations__:
            known = sorted({*maker.__annotations__, *ScheduleOptions.__annotations__} - {"options", "return"})
            raise ScheduleError(
                f"{maker.__name__}(...) has no option {name!r}.{_hint(name, known)} There are: {', '.join(known)}."
            )


def _hint(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given[:40].lower(), known, 1, 0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _check_choice(name: str, given: object, known: tuple[str, ...]) -> None:
    if not isinstance(given, str) or given not in known:
        hint = _hint(given, list(known)) if isinstance(given, str) else ""
        raise ScheduleError(f"{name} of a schedule cannot be {given!r}.{hint} There are: {', '.join(map(repr, known))}.")


def _check_limit(limit: object) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LARGEST_CATCH_UP_LIMIT:
        raise ScheduleError(
            f"catch_up_limit is a number of runs from 1 to {LARGEST_CATCH_UP_LIMIT}, not {limit!r}. For no late runs at all, "
            "write catch_up='none'."
        )


def _checked_duration(name: str, given: object) -> timedelta:
    """Return a timedelta that is not negative, of a timedelta or a number of seconds."""
    duration = _timedelta(name, given)
    if duration < timedelta(0):
        raise ScheduleError(f"{name} of a schedule cannot be negative, and this one is {duration.total_seconds()} s.")
    return duration


def _checked_interval(interval: object) -> timedelta:
    return check_interval(_timedelta("an interval", interval))


def _timedelta(name: str, given: object) -> timedelta:
    if isinstance(given, int | float) and not isinstance(given, bool):
        if not math.isfinite(given):
            raise ScheduleError(f"{name.capitalize()} cannot be {given} seconds.")
        try:
            return timedelta(seconds=given)
        except OverflowError as error:
            raise ScheduleError(f"{name.capitalize()} of {given} seconds is longer than any calendar.") from error
    if not isinstance(given, timedelta):
        raise ScheduleError(f"{name.capitalize()} is a timedelta or a number of seconds, not {given!r}.")
    return given


def _check_datetime(name: str, given: object) -> None:
    if given is not None and not isinstance(given, datetime):
        raise ScheduleError(f"{name} is a datetime, not {given!r}.")


def _from_text(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ScheduleError(f"{name} {text!r} is no ISO-8601 instant, such as 2026-11-22T07:00:00+01:00.") from error
