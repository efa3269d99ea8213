"""The rule of gaps and overlaps once more, without any cleverness: minute by minute, looking at the clock on the wall.

It stands beside `wfengine_scheduler` and shares nothing with it: expressions are read in another way (a value is asked of each
field), and nothing is searched, only walked past. It is what the golden table was made with and what random rules are held
against. It is slow, and knows the five fields of cron and anything else that can say of a wall minute whether it is named.
"""

from __future__ import annotations

import calendar
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
#: How long before a start the wall is watched, so that what it showed by then is known. No overlap is longer than a day.
WATCHED = timedelta(hours=50)

Named = Callable[[datetime], bool]
Walk = Iterable[tuple[datetime, datetime]]

NAMES = ("jan feb mar apr may jun jul aug sep oct nov dec", "sun mon tue wed thu fri sat")
MACROS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip


def walk(zone: str, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield each minute from `start` up to `end` with what the wall shows."""
    info = ZoneInfo(zone)
    at = start.replace(second=0, microsecond=0)
    while at < end:
        yield at, at.astimezone(info).replace(tzinfo=None)
        at += MINUTE


def elapsed_ticks(minutes: Walk, named: Named) -> Iterator[datetime]:
    """Yield each real minute whose wall time is named."""
    return (at for at, wall in minutes if named(wall))


def fixed_ticks(minutes: Walk, named: Named) -> Iterator[datetime]:
    """Yield each real minute at which the wall reaches or passes, for the first time, a named time of a day that there is."""
    latest: datetime | None = None
    for at, wall in minutes:
        if latest is None:
            latest = wall
        elif wall > latest:
            if any(named(passed) for passed in _passed(latest, wall)):
                yield at
            latest = wall


def _passed(latest: datetime, wall: datetime) -> Iterator[datetime]:
    passed = latest
    while passed < wall:
        passed += MINUTE
        if latest.date() < passed.date() < wall.date():
            continue  # the wall never shows that day
        yield passed


# ------------------------------------------------------------------------------------------- cron


class Expression:
    """The five fields of cron, each as the set of values it names."""

    def __init__(self, expression: str, *, day_or: bool = True, hash_id: str = "") -> None:
        fields = MACROS.get(expression.strip().lower(), expression).lower().split()
        self.minute, self.hour, self.day, self.month, self.weekday = fields
        self.is_fixed = not any(mark in self.minute + self.hour for mark in "*/")
        either = not self.day.startswith("*") and not self.weekday.startswith("*") and day_or
        self._either = either
        self._hash = zlib.crc32(hash_id.encode())
        self._minutes = self._set(0, self.minute, 0, 59)
        self._hours = self._set(1, self.hour, 0, 23)
        self._days = self._set(2, self.day, 1, 31)
        self._months = self._set(3, self.month, 1, 12)
        self._weekdays = {value % 7 for value in self._set(4, self.weekday, 0, 7)}
        self._dates: dict[date, bool] = {}

    def names(self, wall: datetime) -> bool:
        """Return whether a wall minute is named."""
        return wall.minute in self._minutes and wall.hour in self._hours and self.names_day(wall.date())

    def names_day(self, day: date) -> bool:
        known = self._dates.get(day)
        if known is None:
            known = self._dates[day] = self._names_day(day)
        return known

    def ticks(self, minutes: Walk) -> Iterator[datetime]:
        return fixed_ticks(minutes, self.names) if self.is_fixed else elapsed_ticks(minutes, self.names)

    def _names_day(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        last = calendar.monthrange(day.year, day.month)[1]
        by_day = day.day in self._days or ("l" in self.day.split(",") and day.day == last)
        by_weekday = day.isoweekday() % 7 in self._weekdays or any(
            self._is_nth(part, day, last) for part in self.weekday.split(",")
        )
        return (by_day or by_weekday) if self._either else (by_day and by_weekday)

    def _is_nth(self, part: str, day: date, last: int) -> bool:
        weekday = day.isoweekday() % 7
        if "#" in part:
            named, nth = part.split("#")
            return self._value(named, 4) % 7 == weekday and [7 * int(nth) - 6 <= day.day <= 7 * int(nth)] == [True]
        return part.startswith("l") and int(part[1:]) % 7 == weekday and day.day > last - 7

    def _set(self, index: int, field: str, low: int, high: int) -> set[int]:
        return {
            value for value in range(low, high + 1) for part in field.split(",") if self._has(index, part, value, low, high)
        }

    def _has(self, index: int, part: str, value: int, low: int, high: int) -> bool:
        if "#" in part or (part.startswith("l") and index in (2, 4)):
            return False
        if part.startswith("h"):
            part = self._hashed(part, index, low, {2: 28, 4: 6}.get(index, high))
        whole, slash, step = part.partition("/")
        first, dash, last = whole.partition("-")
        begin = low if first == "*" else self._value(first, index)
        end = self._value(last, index) if dash else high if slash or first == "*" else begin
        if index == 4 and dash and last == "sun" and begin > 0:
            end = 7
        if index == 4 and not dash and slash:
            end = 6
        return begin <= value <= end and (value - begin) % int(step or 1) == 0

    def _hashed(self, part: str, index: int, low: int, high: int) -> str:
        whole, slash, step = part.partition("/")
        if "(" in whole:
            low, high = map(int, whole[2:-1].split("-"))
        if not slash:
            return str((self._hash >> index) % (high - low + 1) + low)
        width = min(int(step), high - low + 1)
        if index == 2 and "(" not in whole:
            high = 28
        return f"{(self._hash >> index) % width + low}-{high}/{step}"

    def _value(self, text: str, index: int) -> int:
        if text.isdigit():
            return int(text)
        return NAMES[0].split().index(text) + 1 if index == 3 else NAMES[1].split().index(text)


def next_five(zone: str, start: datetime, ticks: Callable[[Walk], Iterator[datetime]], until: datetime) -> list[datetime]:
    """Return the first five ticks strictly after a start, walking from some time before it."""
    found: list[datetime] = []
    for tick in ticks(walk(zone, start - WATCHED, until)):
        if tick > start:
            found.append(tick)
            if len(found) == 5:
                break
    return found


def utc(text: str) -> datetime:
    """Return the instant of a text such as 2026-03-29T01:00Z."""
    return datetime.fromisoformat(text).astimezone(UTC)


def text(instant: datetime) -> str:
    """Return an instant as the golden table has it."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ" if instant.second else "%Y-%m-%dT%H:%MZ")
