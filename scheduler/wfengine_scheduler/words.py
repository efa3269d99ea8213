"""A rule in words for people: 'every hour', 'at 02:30 every day (Europe/Berlin)'.

Words are only used where they say all there is to say; anything else is shown as it was written. What is given here was
checked by `rules`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from wfengine_scheduler.cron import CRON_NAMES
from wfengine_scheduler.intervals import DAY, interval_of
from wfengine_scheduler.zones import Zone

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_SHORT_DAYS = {day[:3].lower(): number for number, day in enumerate(_DAYS)}
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_SHORT_MONTHS = {month[:3].lower(): number for number, month in enumerate(_MONTHS, 1)}

#: Times of a day that are named one by one; more are left as they were written.
NAMED_TIMES = 4


def words_for(kind: str, text: str, zone: Zone, anchor_at: datetime | None, day_or: bool) -> str:
    """Return a checked rule in words, with its time zone where it has a time of day."""
    if kind == "cron":
        return _cron_words(text, zone, day_or)
    if kind == "interval":
        return _interval_words(interval_of(text), zone, anchor_at)
    if kind == "once":
        return f"once, on {wall_words(datetime.fromisoformat(text), zone)} ({zone.name})"
    return f"by the rule {' '.join(text.split())} ({zone.name})"


def wall_words(instant: datetime, zone: Zone) -> str:
    """Return what the wall shows at an instant, as people write it."""
    wall = zone.wall_of(instant)
    return wall.isoformat(" ", "minutes" if wall.second == wall.microsecond == 0 else "auto")


def _interval_words(interval: timedelta, zone: Zone, anchor_at: datetime | None) -> str:
    if interval % DAY:
        return f"every {_amount(interval)}"
    at = f" at {wall_words(anchor_at, zone)[11:]}" if anchor_at is not None else ""
    return f"every {_amount(interval)}{at} ({zone.name})"


def _amount(interval: timedelta) -> str:
    for unit, length in (("day", DAY), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if not interval % length:
            count = interval // length
            return unit if count == 1 else f"{count} {unit}s"
    seconds = interval.total_seconds()
    return "second" if seconds == 1 else f"{seconds:.15g} seconds"


# ------------------------------------------------------------------------------------------- cron


def _cron_words(text: str, zone: Zone, day_or: bool) -> str:
    minute, hour, day, month, weekday = CRON_NAMES.get(text, text.lower()).split()
    times = _rhythm(minute, hour) or _times(minute, hour)
    days = _day_words(day, month, weekday)
    if not times or days is None:
        both = "" if day_or or "*" in (day, weekday) else ", both days"
        return f"by cron {text}{both} ({zone.name})"
    is_rhythm = times.startswith("every")
    if days == "every day":
        return times if is_rhythm and hour == "*" else f"{times}{'' if is_rhythm else ' every day'} ({zone.name})"
    return f"{times} {days} ({zone.name})"


def _rhythm(minute: str, hour: str) -> str:
    """Return words for what goes round the clock evenly; '' for anything else."""
    step = int(minute[2:]) if minute.startswith("*/") and minute[2:].isdigit() else 1 if minute == "*" else 0
    if hour == "*" and step and 60 % step == 0 and step < 60:
        return "every minute" if step == 1 else f"every {step} minutes"
    if hour == "*" and (minute in ("0", "00") or step == 60):
        return "every hour"
    if hour == "*" and minute.isdigit():
        return f"every hour at minute {int(minute)}"
    hours = int(hour[2:]) if hour.startswith("*/") and hour[2:].isdigit() else 0
    if hours > 1 and 24 % hours == 0 and hours < 24 and minute.isdigit():
        return f"every {hours} hours from 00:{int(minute):02} on"
    return ""


def _times(minute: str, hour: str) -> str:
    """Return 'at 07:00 and 19:00' for a few times of the day; '' for anything else."""
    minutes, hours = minute.split(","), hour.split(",")
    if not all(part.isdigit() for part in minutes + hours) or len(minutes) * len(hours) > NAMED_TIMES:
        return ""
    times = sorted({(int(one), int(other)) for one in hours for other in minutes})
    return "at " + _and([f"{one:02}:{other:02}" for one, other in times])


def _day_words(day: str, month: str, weekday: str) -> str | None:
    """Return words for the three day fields; None where they would take too many."""
    if (day, month, weekday) == ("*", "*", "*"):
        return "every day"
    if day == "*" and month == "*":
        return _weekday_words(weekday)
    if weekday != "*":
        return None
    if month == "*":
        if day == "l":
            return "on the last day of every month"
        return f"on day {int(day)} of every month" if day.isdigit() else None
    number = _number(month, _SHORT_MONTHS)
    if number is None:
        return None
    if day == "*":
        return f"every day in {_MONTHS[number - 1]}"
    if day == "l":
        return f"on the last day of {_MONTHS[number - 1]}"
    return f"on {int(day)} {_MONTHS[number - 1]}" if day.isdigit() else None


def _weekday_words(weekday: str) -> str | None:
    parts = []
    for part in weekday.split(","):
        ends = [_number(one, _SHORT_DAYS) for one in part.split("-")]
        if len(ends) > 2 or any(number is None for number in ends):
            return None
        parts.append(" to ".join(_DAYS[(number or 0) % 7] for number in ends))
    return "on " + _and(parts)


def _number(text: str, names: dict[str, int]) -> int | None:
    return names[text] if text in names else int(text) if text.isdigit() else None


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
