"""When a recurrence rule of RFC 5545 is due next, from any instant, however long ago it began.

Daily and longer rules are wall times, found period by period: the days of a year, month, week or day that pass every BY
part, times the times of day. Hourly and shorter ones are elapsed time: hours, minutes or seconds are counted from DTSTART on
a clock that is never changed, and BY parts are held against the wall. A library for it exists and is what this is tested
against; it goes through every instant since DTSTART, knows no zones, and searches a rule that is never due to the year 9999.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.recurrence_text import Recurrence, read_recurrence, text_of
from wfengine_scheduler.zones import Zone, first_elapsed, first_fixed

#: Periods searched for the next time. Years and months: a whole cycle of the calendar, 400 years, so that what is not found
#: is not there; weeks and days: 41 years, see `zones.HORIZON`.
SEARCHED_PERIODS = {"YEARLY": 400, "MONTHLY": 4800, "WEEKLY": 41 * 53, "DAILY": 41 * 366}

#: Steps of a search in elapsed time at the most; each passes over a month, day, hour, minute or interval that does not match.
SEARCHED_STEPS = 20_000

UNITS = {"HOURLY": timedelta(hours=1), "MINUTELY": timedelta(minutes=1), "SECONDLY": timedelta(seconds=1)}
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


class RecurrenceRule:
    """One text in one zone."""

    def __init__(self, rule: str, zone: Zone, anchor_at: datetime | None = None) -> None:
        self.text = text_of(rule)
        read = read_recurrence(self.text, zone, anchor_at)
        self._read = read
        self._begins_at = zone.first_instant(read.dtstart)
        made = _Elapsed(read, zone, self._begins_at) if read.freq in UNITS else _Periods(read, zone)
        self._next = made.next_after
        self._last_at = read.until
        self._is_counted = read.limit is None

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after another at which the rule is due; None: nothing more."""
        found = self._next_of_rule(instant)
        while found is not None and found in self._read.exdates:
            found = self._next_of_rule(found)
        added = next((one for one in self._read.rdates if one > instant and one not in self._read.exdates), None)
        return added if found is None or (added is not None and added < found) else found

    def check(self) -> None:
        """Raise ScheduleError if the rule is never due, whatever instants are added to it."""
        if self._next_of_rule(datetime(1900, 1, 1, tzinfo=UTC)) is None:
            raise ScheduleError(
                f"{self.text!r} is never due: no day and time is allowed by all its parts. Leave one of them out."
            )

    def _next_of_rule(self, instant: datetime) -> datetime | None:
        if not self._is_counted:
            self._last_at = self._find_last()
            self._is_counted = True
        if self._last_at is not None and instant >= self._last_at:
            return None
        found = self._next(max(instant, self._begins_at - timedelta(microseconds=1)))
        return found if found is None or self._last_at is None or found <= self._last_at else None

    def _find_last(self) -> datetime | None:
        """Return the last instant of a rule with COUNT, which is counted once, when it is first asked."""
        last, found = None, self._next(self._begins_at - timedelta(microseconds=1))
        for _ in range(self._read.limit or 0):
            if found is None:
                break
            last, found = found, self._next(found)
        return last


class _Days:
    """Which days the BY parts of a rule allow."""

    def __init__(self, read: Recurrence) -> None:
        numbers = dict(read.numbers)
        weekdays = read.weekdays
        # What a rule leaves open is as in its DTSTART.
        if not (weekdays or read.nth_weekdays or numbers.keys() & {"BYMONTHDAY", "BYYEARDAY", "BYWEEKNO"}):
            if read.freq in ("YEARLY", "MONTHLY"):
                numbers["BYMONTHDAY"] = (read.dtstart.day,)
            if read.freq == "YEARLY":
                numbers.setdefault("BYMONTH", (read.dtstart.month,))
            if read.freq == "WEEKLY":
                weekdays = frozenset((read.dtstart.weekday(),))
        self.months = frozenset(numbers.get("BYMONTH", range(1, 13)))
        self._month_days = frozenset(numbers.get("BYMONTHDAY", ()))
        self._year_days = frozenset(numbers.get("BYYEARDAY", ()))
        self._weeks = frozenset(numbers.get("BYWEEKNO", ()))
        self._weekdays = weekdays
        self._nth_weekdays = read.nth_weekdays
        self._nth_in_month = read.freq == "MONTHLY" or "BYMONTH" in numbers
        self._wkst = read.wkst

    def allow(self, day: date) -> bool:
        """Return whether every part that is given allows a day."""
        if day.month not in self.months:
            return False
        if self._weekdays or self._nth_weekdays:
            weekday = day.weekday()
            if weekday not in self._weekdays and not (self._nth_weekdays and self._is_nth(day, weekday)):
                return False
        if self._month_days:
            length = monthrange(day.year, day.month)[1]
            if day.day not in self._month_days and day.day - length - 1 not in self._month_days:
                return False
        if self._year_days:
            number, length = _day_of_year(day)
            if number not in self._year_days and number - length - 1 not in self._year_days:
                return False
        return not self._weeks or self._is_in_weeks(day)

    def _is_nth(self, day: date, weekday: int) -> bool:
        number, length = (day.day, monthrange(day.year, day.month)[1]) if self._nth_in_month else _day_of_year(day)
        nth, from_end = (number + 6) // 7, -((length - number) // 7 + 1)
        return (weekday, nth) in self._nth_weekdays or (weekday, from_end) in self._nth_weekdays

    def _is_in_weeks(self, day: date) -> bool:
        number, year = _week(day, self._wkst)
        count, _ = _week(date(year, 12, 28), self._wkst)
        return number in self._weeks or number - count - 1 in self._weeks


def _day_of_year(day: date) -> tuple[int, int]:
    """Return the number of a day in its year and the days of that year."""
    number = day.toordinal() - date(day.year, 1, 1).toordinal() + 1
    return number, 366 if monthrange(day.year, 2)[1] == 29 else 365


def _week(day: date, wkst: int) -> tuple[int, int]:
    """Return the number of the week of a day, and the year that week belongs to: that of its fourth day."""
    fourth = day - _DAY * ((day.weekday() - wkst) % 7) + _DAY * 3
    return (_day_of_year(fourth)[0] - 1) // 7 + 1, fourth.year


class _Periods:
    """A daily or longer rule: wall times, period by period."""

    def __init__(self, read: Recurrence, zone: Zone) -> None:
        self._read = read
        self._zone = zone
        self._days = _Days(read)
        start = read.dtstart
        hours = read.numbers.get("BYHOUR", (start.hour,))
        minutes = read.numbers.get("BYMINUTE", (start.minute,))
        seconds = read.numbers.get("BYSECOND", (start.second,))
        self._times = [time(hour, minute, second) for hour in hours for minute in minutes for second in seconds]
        self._positions = read.numbers.get("BYSETPOS")
        self._first_number = self._number_of(start.date())
        self._kept: tuple[int, list[date]] = (-1, [])

    def next_after(self, instant: datetime) -> datetime | None:
        return first_fixed(self._zone, instant, self._next_wall)

    def _next_wall(self, wall: datetime) -> datetime | None:
        """Return the first wall time of the rule strictly after another."""
        wall = max(wall, self._read.dtstart - timedelta(microseconds=1))
        for number in self._numbers_from(self._number_of(wall.date())):
            days = self._days_of(number)
            found = self._first_of(days, wall) if self._positions is None else self._first_position(days, wall)
            if found is not None:
                return found
        return None

    def _numbers_from(self, number: int) -> Iterator[int]:
        interval = self._read.interval
        number += (self._first_number - number) % interval
        for _ in range(SEARCHED_PERIODS[self._read.freq]):
            if self._read.freq == "DAILY" and number <= date.max.toordinal():
                number = self._in_allowed_month(number)
            if not self._is_in_calendar(number):
                return
            yield number
            number += interval

    def _in_allowed_month(self, number: int) -> int:
        """Return the number of a day, or of the first day of the rule in the next month that is allowed."""
        day = date.fromordinal(number)
        while day.month not in self._days.months and day.year < 9000:
            day = (day.replace(day=1) + _DAY * 32).replace(day=1)
        later = day.toordinal()
        return max(number, later + (self._first_number - later) % self._read.interval)

    def _is_in_calendar(self, number: int) -> bool:
        last = {"YEARLY": 9000, "MONTHLY": 9000 * 12, "WEEKLY": 9000 * 52, "DAILY": 9000 * 365}
        return number <= last[self._read.freq]

    def _number_of(self, day: date) -> int:
        """Return the number of the period that holds a day; periods that follow each other have numbers that do."""
        freq = self._read.freq
        if freq == "YEARLY":
            return day.year
        if freq == "MONTHLY":
            return day.year * 12 + day.month - 1
        if freq == "WEEKLY":
            return (day.toordinal() - 1 - self._read.wkst) // 7
        return day.toordinal()

    def _days_of(self, number: int) -> list[date]:
        kept = self._kept
        if kept[0] != number:
            kept = self._kept = (number, [day for day in self._candidates(number) if self._days.allow(day)])
        return kept[1]

    def _candidates(self, number: int) -> Iterator[date]:
        freq = self._read.freq
        if freq == "DAILY":
            yield date.fromordinal(number)
        elif freq == "WEEKLY":
            first = number * 7 + 1 + self._read.wkst
            yield from (date.fromordinal(first + index) for index in range(7))
        else:
            months = [number % 12 + 1] if freq == "MONTHLY" else range(1, 13)
            year = number // 12 if freq == "MONTHLY" else number
            for month in months:
                if month in self._days.months:
                    yield from (date(year, month, day + 1) for day in range(monthrange(year, month)[1]))

    def _first_of(self, days: list[date], wall: datetime) -> datetime | None:
        at = bisect_left(days, wall.date())
        if at < len(days) and days[at] == wall.date():
            within = bisect_right(self._times, wall.time())
            if within < len(self._times):
                return datetime.combine(days[at], self._times[within])
            at += 1
        return datetime.combine(days[at], self._times[0]) if at < len(days) else None

    def _first_position(self, days: list[date], wall: datetime) -> datetime | None:
        """Return the first time after another of those that BYSETPOS picks among the times of a period."""
        count = len(days) * len(self._times)
        indices = sorted({position - 1 if position > 0 else count + position for position in self._positions or ()})
        for index in indices:
            if 0 <= index < count:
                day, within = divmod(index, len(self._times))
                found = datetime.combine(days[day], self._times[within])
                if found > wall:
                    return found
        return None


class _Elapsed:
    """An hourly or shorter rule: units counted from DTSTART in elapsed time, BY parts held against the wall."""

    def __init__(self, read: Recurrence, zone: Zone, begins_at: datetime) -> None:
        self._zone = zone
        self._text = read
        self._days = _Days(read)
        self._hours = read.numbers.get("BYHOUR")
        self._minutes = read.numbers.get("BYMINUTE")
        self._seconds = read.numbers.get("BYSECOND")
        self._unit = UNITS[read.freq]
        self._step = self._unit * read.interval
        # The clock that is never changed shows at all times what the wall would, had it kept the offset of DTSTART.
        self._offset = zone.offset_at(begins_at)
        self._start = (begins_at + self._offset).replace(tzinfo=None)
        self._unit_start = _floor(self._start, self._unit)
        self._keeps_minute = read.freq == "HOURLY" and self._minutes is None
        self._keeps_second = read.freq != "SECONDLY" and self._seconds is None

    def next_after(self, instant: datetime) -> datetime | None:
        return first_elapsed(self._zone, instant, partial(self._search, iter(range(SEARCHED_STEPS))))

    def _search(self, steps: Iterator[int], first: datetime, end: datetime, offset: timedelta) -> datetime | None:
        wall = first if first.microsecond == 0 else first.replace(microsecond=0) + _SECOND
        while wall < end:
            later = self._first_allowed(wall, offset - self._offset)
            if later == wall:
                return wall
            if next(steps, None) is None:
                raise ScheduleError(
                    f"A rule with FREQ={self._text.freq};INTERVAL={self._text.interval} is not due within {SEARCHED_STEPS} "
                    f"steps from {first}. Its INTERVAL and its BY parts hardly ever meet: leave one of them out."
                )
            wall = later
        return None

    def _first_allowed(self, wall: datetime, ahead: timedelta) -> datetime:
        """Return the same wall time if the rule is due then, else a later one before which it is not.

        `ahead`: by how much the wall is ahead of the clock that is never changed.
        """
        if wall.month not in self._days.months:
            return (wall.replace(day=1) + _DAY * 32).replace(day=1, hour=0, minute=0, second=0)
        if not self._days.allow(wall.date()):
            return wall.replace(hour=0, minute=0, second=0) + _DAY
        if self._hours is not None and wall.hour not in self._hours:
            hour = _next_of(self._hours, wall.hour, 24)
            return wall.replace(hour=0, minute=0, second=0) + timedelta(hours=hour)
        if self._minutes is not None and wall.minute not in self._minutes:
            return wall.replace(minute=0, second=0) + timedelta(minutes=_next_of(self._minutes, wall.minute, 60))
        if self._seconds is not None and wall.second not in self._seconds:
            return wall.replace(second=0) + timedelta(seconds=_next_of(self._seconds, wall.second, 60))
        return self._first_counted(wall - ahead) + ahead

    def _first_counted(self, clock: datetime) -> datetime:
        """Return the same time of the unchanged clock if it is counted, else a later one before which none is."""
        past = (clock - self._unit_start) % self._step
        if past >= self._unit:
            return clock - past + self._step
        if self._keeps_minute and clock.minute != self._start.minute:
            return clock.replace(second=0) + timedelta(minutes=(self._start.minute - clock.minute) % 60)
        if self._keeps_second and clock.second != self._start.second:
            return clock + timedelta(seconds=(self._start.second - clock.second) % 60)
        return clock


def _floor(moment: datetime, unit: timedelta) -> datetime:
    midnight = datetime.combine(moment.date(), time())
    return midnight + (moment - midnight) // unit * unit


def _next_of(values: tuple[int, ...], value: int, end: int) -> int:
    """Return the first of the values after one; `end` where there is none."""
    at = bisect_right(values, value)
    return values[at] if at < len(values) else end
