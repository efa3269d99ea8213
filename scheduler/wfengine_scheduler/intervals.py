"""Every so often, counted from an anchor: by arithmetic, however long ago the anchor was.

An interval of whole days keeps its wall time, as a person means who says "every day"; any other is elapsed time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.zones import Zone, first_fixed

#: What an interval is counted from that was given no anchor: midnight of a day in the zone, so that hours and days are whole.
DEFAULT_ANCHOR = datetime(2000, 1, 1)  # noqa: DTZ001  # a wall time

#: The shortest interval. Each tick is a row of the journal, which takes no more than so many of them in the long run.
SHORTEST = timedelta(milliseconds=10)

DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


class IntervalRule:
    """One interval with its anchor, which is the first instant at which it is due."""

    def __init__(self, seconds: str, zone: Zone, anchor_at: datetime | None = None) -> None:
        self.step = interval_of(seconds)
        self.text = interval_text(self.step)
        self._zone = zone
        self._anchor = zone.first_instant(DEFAULT_ANCHOR) if anchor_at is None else anchor_at.astimezone(UTC)
        self._wall = zone.wall_of(self._anchor)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first instant strictly after another at which the interval is due; None: the calendar ends before."""
        if instant < self._anchor:
            return self._anchor
        try:
            if self.step % DAY:
                return self._anchor + ((instant - self._anchor) // self.step + 1) * self.step
            return first_fixed(self._zone, instant, self._next_wall)
        except OverflowError:
            return None

    def check(self) -> None:
        """Do nothing: an interval is due at its anchor."""

    def _next_wall(self, wall: datetime) -> datetime | None:
        # The anchor itself is no wall time to look for: where it is the second pass of an overlap, the first one is before it.
        count = max(1, (wall - self._wall) // self.step + 1)
        return self._wall + count * self.step


def interval_of(text: object) -> timedelta:
    """Return the interval of a decimal number of seconds. Raises ScheduleError."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", text.strip(), re.ASCII):
        raise ScheduleError(f"An interval is written as a decimal number of seconds, such as '3600' or '0.5', not {text!r}.")
    whole, _, part = text.strip().partition(".")
    try:
        return check_interval(timedelta(seconds=int(whole), microseconds=int(part[:6].ljust(6, "0"))))
    except OverflowError as error:
        raise ScheduleError(f"An interval of {text} seconds is longer than any calendar.") from error


def check_interval(interval: timedelta) -> timedelta:
    """Return an interval that is neither backwards nor too short. Raises ScheduleError."""
    if interval <= timedelta(0):
        raise ScheduleError(f"An interval has to be longer than 0 s, and this one is {interval.total_seconds()} s.")
    if interval < SHORTEST:
        raise ScheduleError(
            f"An interval has to be {SHORTEST.total_seconds()} s or longer, and this one is {interval.total_seconds()} s. "
            "What is due all the time is a flow with a loop."
        )
    return interval


def interval_text(interval: timedelta) -> str:
    """Return the decimal number of seconds that `interval_of` reads."""
    whole, part = divmod(interval // _MICROSECOND, 1_000_000)
    return f"{whole}.{part:06d}".rstrip("0") if part else str(whole)
