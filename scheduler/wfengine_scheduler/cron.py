"""Cron expressions: what is accepted, and when one is due next.

croniter reads an expression (names, ranges, steps, `L`, `#`, `H`); this module says beforehand, with the reason, what it
would read in a way that surprises, and searches what was read for its next time. The search is not left to croniter, because
a time that is in no zone's calendar, or is there twice, is decided by one rule for every kind of schedule (`zones`), and
because a search over months has a bound that can be named.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.zones import Zone, first_elapsed, first_fixed

#: Characters of an expression at the most.
CRON_CHARACTERS = 256

#: What may stand in the place of the five fields.
CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

#: Months searched for the next time: 41 years, see `zones.HORIZON`.
HORIZON_MONTHS = 41 * 12

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}


class _Field(NamedTuple):
    name: str
    low: int
    high: int  # of weekdays 7, which is Sunday as 0 is
    size: int
    names: dict[str, int]


_FIELDS = (
    _Field("minute", 0, 59, 60, {}),
    _Field("hour", 0, 23, 24, {}),
    _Field("day of month", 1, 31, 31, {}),
    _Field("month", 1, 12, 12, _MONTHS),
    _Field("weekday", 0, 7, 7, _WEEKDAYS),
)
_DAY, _WEEKDAY = 2, 4

_PART = re.compile(r"(?P<first>\*|[a-z0-9]+)(?:-(?P<last>[a-z0-9]+))?(?:/(?P<step>[0-9]+))?", re.ASCII)
_HASHED = re.compile(r"h(?:\((?P<first>[0-9]+)-(?P<last>[0-9]+)\))?(?:/(?P<step>[0-9]+))?", re.ASCII)
_NTH = re.compile(r"(?P<day>[a-z0-9]+)#(?P<nth>[0-9]+)", re.ASCII)
_LAST = re.compile(r"l(?P<day>[a-z0-9]+)", re.ASCII)


class CronRule:
    """One expression in one zone. It never changes, so any thread may ask it."""

    def __init__(self, expression: str, zone: Zone, *, day_or: bool = True, hash_id: str = "") -> None:
        text = check_cron(expression)
        fields = CRON_NAMES.get(text, text.lower()).split()
        read = _read(text, fields, hash_id)
        self.text = text
        self._zone = zone
        self._minutes, self._hours = read.minutes, read.hours
        self._months = frozenset(read.months)
        self._days = _Days(read, either=day_or and not any(fields[index].startswith("*") for index in (_DAY, _WEEKDAY)))
        #: Whether it names times of the day, as against a rhythm, which goes by elapsed time.
        self.is_fixed = not any("*" in field or "/" in field for field in fields[:2])

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after another at which the expression is due; None: never again."""
        if self.is_fixed:
            return first_fixed(self._zone, instant, lambda wall: self._first(_minute_after(wall), None))
        return first_elapsed(self._zone, instant, lambda start, end, _: self._first(_up_to_minute(start), end))

    def check(self) -> None:
        """Raise ScheduleError if no year has such a day. Months differ in length and first weekday, and each pair comes."""
        for month in self._months:
            for length in {monthrange(2000, month)[1], monthrange(2001, month)[1]}:
                if any(self._days.of(weekday, length) for weekday in range(7)):
                    return
        raise ScheduleError(f"{self.text!r} is never due: no month has such a day. Name another day, or L for the last one.")

    def _first(self, start: datetime, end: datetime | None) -> datetime | None:
        """Return the first wall time of the expression that is not before `start`, and before `end` where there is one."""
        for month in _months_from(start):
            if end is not None and month >= end:
                return None
            if month.month not in self._months:
                continue
            for day in self._days.of(*monthrange(month.year, month.month)):
                midnight = month.replace(day=day)
                if midnight.date() < start.date():
                    continue
                is_same_day = midnight.date() == start.date()
                found = self._time_from(start.hour, start.minute) if is_same_day else (self._hours[0], self._minutes[0])
                if found is not None:
                    wall = midnight.replace(hour=found[0], minute=found[1])
                    return wall if end is None or wall < end else None
        return None

    def _time_from(self, hour: int, minute: int) -> tuple[int, int] | None:
        """Return the first time of a day that is not before another."""
        at = bisect_left(self._hours, hour)
        if at < len(self._hours) and self._hours[at] == hour:
            within = bisect_left(self._minutes, minute)
            if within < len(self._minutes):
                return hour, self._minutes[within]
            at += 1
        return (self._hours[at], self._minutes[0]) if at < len(self._hours) else None


class _Read(NamedTuple):
    """What croniter read: numbers in order."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    is_last_day: bool
    months: tuple[int, ...]
    weekdays: frozenset[int]  # 0 is Sunday
    nth_weekdays: frozenset[tuple[int, int]]  # (weekday, which of the month), -1: the last; then weekdays is empty


class _Days:
    """The days of a month on which an expression is due."""

    def __init__(self, read: _Read, *, either: bool) -> None:
        self._read = read
        self._either = either
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, first: int, length: int) -> tuple[int, ...]:
        """Return the days of a month that begins on a weekday (0 is Monday, as in `calendar`) and has so many days."""
        known = self._known.get((first, length))
        if known is None:
            known = self._known[first, length] = tuple(
                day for day in range(1, length + 1) if self._matches(day, length, (first + day) % 7)
            )
        return known

    def _matches(self, day: int, length: int, weekday: int) -> bool:
        read = self._read
        by_day = day in read.days or (read.is_last_day and day == length)
        by_weekday = weekday in read.weekdays or (weekday, (day + 6) // 7) in read.nth_weekdays
        by_weekday = by_weekday or (day + 7 > length and (weekday, -1) in read.nth_weekdays)
        return by_day or by_weekday if self._either else by_day and by_weekday


def _months_from(wall: datetime) -> Iterator[datetime]:
    """Return the beginning of the month of a wall time, and of the months after it."""
    for number in range(wall.year * 12 + wall.month - 1, wall.year * 12 + wall.month + HORIZON_MONTHS):
        yield datetime(number // 12, number % 12 + 1, 1)  # noqa: DTZ001  # a wall time


def _minute_after(wall: datetime) -> datetime:
    return wall.replace(second=0, microsecond=0) + timedelta(minutes=1)


def _up_to_minute(wall: datetime) -> datetime:
    return wall if wall.second == wall.microsecond == 0 else _minute_after(wall)


# ------------------------------------------------------------------------------------------- reading


def _read(text: str, fields: list[str], hash_id: str) -> _Read:
    from croniter import croniter  # slow to import

    # A hashed day is one that every month has: croniter itself would leave out months without a 29th, 30th or 31st.
    fields = [*fields[:_DAY], re.sub(r"\bh(?!\()", "h(1-28)", fields[_DAY]), *fields[_DAY + 1 :]]
    try:
        expanded, nth = croniter.expand(" ".join(fields), hash_id=hash_id.encode("utf-8", "surrogatepass"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScheduleError(f"{text!r} is no cron expression: {str(error).strip().rpartition(chr(10))[2]}") from error
    values = [_values(field, read) for field, read in zip(_FIELDS, expanded, strict=True)]
    return _Read(
        values[0],
        values[1],
        frozenset(values[_DAY]),
        "l" in expanded[_DAY],
        values[3],
        frozenset() if nth else frozenset(values[_WEEKDAY]),
        frozenset((day % 7, -1 if which == "l" else int(which)) for day, several in nth.items() for which in several),
    )


def _values(field: _Field, read: list[int | str]) -> tuple[int, ...]:
    if "*" in read:
        return tuple(range(field.low, field.low + field.size))
    return tuple(sorted({value for value in read if isinstance(value, int)}))


# ------------------------------------------------------------------------------------------- checking


def check_cron(expression: object) -> str:
    """Return an expression with one blank between its fields. Raises ScheduleError with the reason and what to write."""
    if not isinstance(expression, str):
        raise ScheduleError(f"A cron expression is text, such as '0 7 * * *', not {expression!r}.")
    text = " ".join(expression.split())
    if len(text) > CRON_CHARACTERS:
        raise ScheduleError(f"A cron expression has at most {CRON_CHARACTERS} characters, and this one {len(text)}.")
    if text.startswith("@"):
        if text.lower() not in CRON_NAMES:
            raise ScheduleError(f"There is no {text!r} in cron. There are: {', '.join(sorted(CRON_NAMES))}.")
        return text.lower()
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        finer = " For seconds use an interval." if len(fields) > len(_FIELDS) else ""
        raise ScheduleError(
            f"A cron expression has five fields (minute, hour, day, month, weekday); {expression!r} has {len(fields)}.{finer}"
        )
    for index, (field, given) in enumerate(zip(_FIELDS, fields, strict=True)):
        parts = given.split(",")
        for part in parts:
            _check_part(_Refusal(text, field, part), index)
        special = [part for part in parts if index == _WEEKDAY and ("#" in part or part.startswith("l"))]
        if special and len(special) != len(parts):
            raise _Refusal(text, field, given).because(
                "weekdays of the month (# and L) and weekdays of every week do not go together; make two schedules of it"
            )
    return text


class _Refusal(NamedTuple):
    """One part of a field, and how to say what is wrong with it."""

    text: str
    field: _Field
    part: str

    def because(self, reason: str) -> ScheduleError:
        return ScheduleError(f"{self.text!r} is no cron expression: in the {self.field.name}, {self.part!r}: {reason}.")

    def number(self, written: str) -> int:
        """Return the number that is written or named; raises ScheduleError."""
        field = self.field
        if written in field.names:
            return field.names[written]
        if not written.isascii() or not written.isdigit():
            names = f", or a name such as '{next(iter(field.names))}'" if field.names else ""
            raise self.because(f"{written!r} is no number from {field.low} to {field.high}{names}")
        if not field.low <= int(written) <= field.high:
            raise self.because(f"{written} is not from {field.low} to {field.high}")
        return int(written)


def _check_part(refusal: _Refusal, index: int) -> None:
    """Raise ScheduleError if one part of the field with that index (0 is the minute) is not one that is accepted."""
    part = refusal.part
    if not part:
        raise refusal.because("a list has something between its commas, as in 1,2,3")
    if part.startswith("h") and (matched := _HASHED.fullmatch(part)):
        _check_range(refusal, matched["first"], matched["last"])
        _check_step(refusal, matched["step"])
        return
    if _is_refused_letter(part, refusal):
        return
    if index == _DAY and part == "l":
        return
    if index == _WEEKDAY and _check_weekday_of_month(refusal):
        return
    matched = _PART.fullmatch(part)
    if matched is None or (matched["first"] == "*" and matched["last"]):
        raise refusal.because("use *, numbers, lists (1,2), ranges (1-5) and steps (*/5, 1-30/5, 5/15)")
    if matched["first"] != "*":
        first = refusal.number(matched["first"])
        if matched["last"] is None and matched["step"] and index == _WEEKDAY and first == 7:
            raise refusal.because(f"a step from Sunday begins at 0; write 0/{matched['step']}")
        _check_range(refusal, matched["first"], matched["last"])
    _check_step(refusal, matched["step"])


def _is_refused_letter(part: str, refusal: _Refusal) -> bool:
    """Raise ScheduleError for what other programs' cron has; returns False."""
    if re.fullmatch(r"r(\(.*\))?(/.*)?", part):
        raise refusal.because("R would be another time after each start; write H, which is fixed by the deployment's name")
    if part == "?":
        raise refusal.because("? is of another kind of cron; write *")
    if re.fullmatch(r"[0-9l]*w[0-9]*", part):
        raise refusal.because("W (the nearest working day) is not there; name the days, or use an RRULE with BYSETPOS")
    if re.fullmatch(r"l-[0-9]+", part):
        raise refusal.because(f"only the last day, L, can be named; use an RRULE with BYMONTHDAY=-{int(part[2:]) + 1}"[:160])
    return False


def _check_weekday_of_month(refusal: _Refusal) -> bool:
    """Return whether a weekday is one of those of a month: fri#2, l5. Raises ScheduleError for one that comes never."""
    part = refusal.part
    if matched := _NTH.fullmatch(part):
        refusal.number(matched["day"])
        if not 1 <= int(matched["nth"]) <= 5:
            raise refusal.because("after # comes which of the month it is, from 1 to 5")
        return True
    if part == "l":
        raise refusal.because(
            "L needs a day here: L5 is the last Friday; for the last day of the month, put L into the third field"
        )
    if matched := _LAST.fullmatch(part):
        number = refusal.number(matched["day"])
        if not matched["day"].isdigit():
            raise refusal.because(f"after L comes the weekday's number; write L{number}")
        return True
    if re.fullmatch(r"[a-z0-9]+l", part) and (part[:-1] in refusal.field.names or part[:-1].isdigit()):
        raise refusal.because(f"the L comes first; write L{refusal.number(part[:-1])}")
    return False


def _check_range(refusal: _Refusal, first: str | None, last: str | None) -> None:
    if first is None or last is None:
        return
    field = refusal.field
    low, high = refusal.number(first), refusal.number(last)
    if field.names is _WEEKDAYS and high == 0 and low > 0:
        high = 7 if last == "sun" else 0  # Friday to Sunday, as people write it
    if low == high:
        raise refusal.because(f"a range from {first} to itself; write {first}")
    if low > high:
        names = {number: name for name, number in field.names.items()} if last in field.names else {}
        bottom, top = field.low, field.low + field.size - 1
        over = first if low == top else f"{first}-{names.get(top, top)}"
        under = last if high == bottom else f"{names.get(bottom, bottom)}-{last}"
        raise refusal.because(f"a range goes from the smaller to the larger; write {over},{under}")


def _check_step(refusal: _Refusal, step: str | None) -> None:
    if step is not None and not 1 <= int(step) <= refusal.field.size:
        raise refusal.because(
            f"a step is from 1 to {refusal.field.size}, as many as there are values; for longer ones use an interval"
        )
