"""Wall time and real time in one IANA zone: which instant a wall time means, and where its gaps and overlaps are.

Every rule of this package finds wall times first and asks here what they mean, so the change to summer time and back is
reckoned with once. Wall times are naive datetimes, instants are aware ones in UTC. Nothing here asks what time it is.

One sentence carries the rest: the instant of a wall time is *the first one at which the clock on the wall shows that much
or more*. In a gap that is the end of the gap, in an overlap the first pass; and it never goes back as wall times go on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from wfengine_journal.errors import ScheduleError

#: How far ahead a rule is searched for its next instant. The longest wait of a calendar is 40 years: a 29 February that is
#: a given weekday, across a century that has no leap day.
HORIZON = timedelta(days=41 * 366)

#: How far apart the offset of a zone is looked at to find its changes. Of all zones since 1900, two never lay within a week.
SAMPLE_SECONDS = 24 * 3600

#: Zones kept in memory; IANA knows some 600 names.
KEPT_ZONES = 1024

#: Names that a machine may have files of, and which mean another thing on the next one, or count leap seconds.
NO_ZONES = ("localtime", "posixrules", "Factory", "posix/", "right/")

#: Finds a wall time: from the first one on, before the second one, with that offset of the wall from UTC.
Search = Callable[[datetime, datetime, timedelta], "datetime | None"]


class Zone:
    """One time zone. Safe to use from any thread: what it remembers of a year is what anyone would find."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._info = ZoneInfo(name)
        self._changes: dict[int, tuple[datetime, ...]] = {}

    def wall_of(self, instant: datetime) -> datetime:
        """Return what the clock on the wall shows at an instant."""
        return instant.astimezone(self._info).replace(tzinfo=None, fold=0)

    def offset_at(self, instant: datetime) -> timedelta:
        """Return by how much the wall is ahead of UTC at an instant."""
        offset = instant.astimezone(self._info).utcoffset()
        assert offset is not None
        return offset

    def first_instant(self, wall: datetime) -> datetime:
        """Return the first instant at which the wall shows that time or a later one."""
        before, after = self._offsets(wall)
        if before < after:
            return self._change_between((wall - after).replace(tzinfo=UTC), (wall - before).replace(tzinfo=UTC))
        return (wall - before).replace(tzinfo=UTC)

    def instant_of(self, wall: datetime) -> datetime | None:
        """Return when a job with that fixed time runs; None on a day that was left out of the zone's calendar."""
        before, after = self._offsets(wall)
        if before < after and self.is_lost_day(wall.date()):
            return None
        return self.first_instant(wall)

    def is_lost_day(self, day: date) -> bool:
        """Return whether the zone went from the day before straight to the day after."""
        first = self.first_instant(datetime.combine(day, time()))
        return self.wall_of(first).date() != day

    def segment_end(self, instant: datetime) -> datetime:
        """Return an instant up to which the offset stays what it is: the next change, or the end of the year in UTC."""
        for change in self.changes(instant.year):
            if change > instant:
                return change
        return datetime(instant.year + 1, 1, 1, tzinfo=UTC)

    def changes(self, year: int) -> tuple[datetime, ...]:
        """Return the instants of a year (in UTC) from which on the offset is another one."""
        known = self._changes.get(year)
        if known is None:
            known = self._changes[year] = tuple(self._find_changes(year))
        return known

    def _find_changes(self, year: int) -> list[datetime]:
        # From the last sample of the year before, so that a change at its very end is found by one of the two years.
        end = datetime(year + 1, 1, 1, tzinfo=UTC)
        at = datetime(year, 1, 1, tzinfo=UTC) - timedelta(seconds=1)
        offset, found = self.offset_at(at), []
        while at < end - timedelta(seconds=1):
            later = min(at + timedelta(seconds=SAMPLE_SECONDS), end - timedelta(seconds=1))
            if self.offset_at(later) != offset:
                found.append(self._change_between(at, later))
                offset = self.offset_at(later)
            at = later
        return found

    def _offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """Return the offsets before and after a change that a wall time lies in; the same twice where it lies in none."""
        local = wall.replace(tzinfo=self._info, fold=0)
        before, after = local.utcoffset(), local.replace(fold=1).utcoffset()
        assert before is not None
        assert after is not None
        return before, after

    def _change_between(self, low: datetime, high: datetime) -> datetime:
        """Return the first whole second after `low` with another offset than there, where `high` has another one."""
        low, high = low.replace(microsecond=0), _up_to_second(high)
        before = self.offset_at(low)
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
            if self.offset_at(middle) == before:
                low = middle
            else:
                high = middle
        return high


def _up_to_second(instant: datetime) -> datetime:
    return instant if instant.microsecond == 0 else instant.replace(microsecond=0) + timedelta(seconds=1)


@lru_cache(maxsize=KEPT_ZONES)
def _zone(name: str) -> Zone:
    return Zone(name)


def find_zone(name: object) -> Zone:
    """Return the zone of an IANA name. Raises ScheduleError."""
    try:
        if isinstance(name, str):
            if name.startswith(NO_ZONES):
                raise KeyError(name)
            return _zone(name)
    except (KeyError, ValueError, OSError):
        known = sorted(available_timezones())
        if not known:
            raise ScheduleError("This machine has no data of time zones. Install it with: pip install tzdata") from None
        near = difflib.get_close_matches(str(name)[:100], known, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ScheduleError(f"There is no time zone {name!r}.{hint} Use an IANA name, such as 'Europe/Berlin'.") from None
    raise ScheduleError(f"timezone is the IANA name of a time zone, such as 'Europe/Berlin', not {name!r}.")


def first_elapsed(zone: Zone, after: datetime, search: Search) -> datetime | None:
    """Return the first instant strictly after another whose wall time a search accepts; None: none within the horizon.

    Real time is walked through in stretches of one offset each. `search(first, end, offset)` looks among the wall times of
    one stretch, `first` included and `end` not. So both passes of an overlap are met, and what a gap left out is not.
    """
    start = after + timedelta(microseconds=1)
    horizon = after + HORIZON
    while start < horizon:
        end = zone.segment_end(start)
        offset = zone.offset_at(start)
        found = search((start + offset).replace(tzinfo=None), (end + offset).replace(tzinfo=None), offset)
        if found is not None:
            return (found - offset).replace(tzinfo=UTC)
        start = end
    return None


def first_fixed(zone: Zone, after: datetime, next_wall: Callable[[datetime], datetime | None]) -> datetime | None:
    """Return the first instant strictly after another at which a job with fixed wall times runs; None: nothing more.

    `next_wall(wall)` returns the first of those wall times strictly after a wall time. Such a time runs once: those of a gap
    together at its end, those of an overlap in its first pass, those of a day that never was not at all.
    """
    wall = next_wall(zone.wall_of(after))
    while wall is not None:
        instant = zone.instant_of(wall)
        if instant is not None and instant > after:
            return instant
        wall = next_wall(wall)  # it ran already, in the first pass or at the end of the gap; or its day never was
    return None
