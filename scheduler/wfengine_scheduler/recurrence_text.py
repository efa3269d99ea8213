"""Reads a recurrence rule of RFC 5545: DTSTART, RRULE, RDATE and EXDATE lines, or the rule alone.

    DTSTART;TZID=Europe/Berlin:20260101T090000
    RRULE:FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17

What is read is data, checked part by part, so that a mistake is answered with its own reason. When it is due is in
`recurrences`.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.zones import Zone

#: Characters of a text at the most.
RRULE_CHARACTERS = 6500

#: COUNT at the most: what is counted from DTSTART has to be counted anew by each process.
COUNT_LIMIT = 10_000

#: INTERVAL at the most: more than any calendar needs.
INTERVAL_LIMIT = 1_000_000

#: Where a rule without DTSTART begins: midnight, a Wednesday, as in Prefect.
DEFAULT_DTSTART = datetime(2020, 1, 1)  # noqa: DTZ001  # a wall time

FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

#: The numbers that a part takes, and whether they may count from the end.
_NUMBERS = {
    "BYMONTH": (1, 12, False), "BYMONTHDAY": (1, 31, True), "BYYEARDAY": (1, 366, True), "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False), "BYMINUTE": (0, 59, False), "BYSECOND": (0, 59, False), "BYSETPOS": (1, 366, True),
}  # fmt: skip
_PARTS = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_NUMBERS)
_LINES = ("DTSTART", "RRULE", "RDATE", "EXDATE")
_STAMP = re.compile(r"([0-9]{8})(?:T([0-9]{6})(Z?))?", re.ASCII)
_BYDAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)


class Recurrence(NamedTuple):
    """What a text says. Numbers are in order and each once; None, or empty, where a part was not given."""

    freq: str
    interval: int
    limit: int | None  # COUNT
    until: datetime | None  # an instant, included
    wkst: int  # 0 is Monday
    numbers: dict[str, tuple[int, ...]]
    weekdays: frozenset[int]  # 0 is Monday
    nth_weekdays: frozenset[tuple[int, int]]  # (weekday, which of the month or year)
    dtstart: datetime  # wall time of the zone
    rdates: tuple[datetime, ...]  # instants
    exdates: frozenset[datetime]  # instants


def text_of(rule: object) -> str:
    """Return the text without blanks around it and its lines. Raises ScheduleError for what is no text."""
    if not isinstance(rule, str):
        raise ScheduleError(f"A rule is text, such as 'FREQ=WEEKLY;BYDAY=MO', not {rule!r}.")
    if len(rule.strip()) > RRULE_CHARACTERS:
        raise ScheduleError(f"A rule has at most {RRULE_CHARACTERS} characters, and this one {len(rule.strip())}.")
    return "\n".join(line.strip() for line in rule.strip().splitlines() if line.strip())


def zone_named_in(rule: str) -> str | None:
    """Return the time zone that the DTSTART of a text names; None where it names none."""
    matched = re.search(r"^\s*DTSTART[^:\n]*;TZID=([^;:\n]+)", rule, re.IGNORECASE | re.MULTILINE)
    return matched[1].strip() if matched else None


def read_recurrence(rule: object, zone: Zone, anchor_at: datetime | None) -> Recurrence:
    """Return what a text says in a zone. `anchor_at`: where it begins if it has no DTSTART. Raises ScheduleError."""
    text = text_of(rule)
    return _Reader(text, zone).read(anchor_at)


class _Reader:
    def __init__(self, text: str, zone: Zone) -> None:
        self._text = text
        self._zone = zone

    def refuse(self, reason: str) -> ScheduleError:
        return ScheduleError(
            f"{self._text!r} is no rule of RFC 5545 that can be used: {reason}. One looks like: FREQ=WEEKLY;BYDAY=MO;BYHOUR=7"
        )

    def read(self, anchor_at: datetime | None) -> Recurrence:
        lines = self._lines()
        parts = self._parts(lines["RRULE"][0][1])
        starts = lines["DTSTART"]
        if not starts and "COUNT" in parts and anchor_at is None:
            raise self.refuse("COUNT counts from DTSTART, so begin with a line such as DTSTART:20260101T090000")
        dtstart = DEFAULT_DTSTART if anchor_at is None else self._zone.wall_of(anchor_at)
        for parameters, value in starts:
            dtstart = self._wall("DTSTART", parameters, value)
        freq = parts.get("FREQ", "")
        if freq not in FREQUENCIES:
            raise self.refuse(f"FREQ is one of {', '.join(FREQUENCIES)}, not {freq!r}" if freq else "it has no FREQ")
        weekdays, nth = self._weekdays(parts.get("BYDAY", ""), freq)
        wkst = parts.get("WKST", "MO")
        if wkst not in WEEKDAYS:
            raise self.refuse(f"WKST is one of {', '.join(WEEKDAYS)}, not {wkst!r}")
        numbers = {name: self._numbers(name, parts[name]) for name in _NUMBERS if name in parts}
        if "BYSETPOS" in numbers and freq in ("HOURLY", "MINUTELY", "SECONDLY"):
            raise self.refuse(
                f"BYSETPOS picks in a day, week, month or year, not with FREQ={freq}; name the minutes or seconds"
            )
        return Recurrence(
            freq,
            self._natural("INTERVAL", parts.get("INTERVAL", "1"), INTERVAL_LIMIT),
            self._natural("COUNT", parts["COUNT"], COUNT_LIMIT) if "COUNT" in parts else None,
            self._until(parts["UNTIL"]) if "UNTIL" in parts else None,
            WEEKDAYS.index(wkst),
            numbers,
            weekdays,
            nth,
            dtstart.replace(microsecond=0),
            tuple(sorted(self._instants("RDATE", lines["RDATE"]))),
            frozenset(self._instants("EXDATE", lines["EXDATE"])),
        )

    # --------------------------------------------------------------------------------------- lines and parts

    def _lines(self) -> dict[str, list[tuple[dict[str, str], str]]]:
        """Return (parameters, value) of the lines, by their names."""
        lines: dict[str, list[tuple[dict[str, str], str]]] = {name: [] for name in _LINES}
        for line in self._text.splitlines():
            head, colon, value = line.partition(":")
            if not colon:
                head, value = "RRULE", line
            name, *parameters = head.split(";")
            name = name.strip().upper()
            if name == "EXRULE":
                raise self.refuse("EXRULE is no longer part of it; name the instants to leave out with EXDATE")
            if name not in lines:
                raise self.refuse(f"there is no line {name[:40]!r}{_hint(name, _LINES)}; there are {', '.join(_LINES)}")
            pairs = [pair.partition("=") for pair in parameters]
            lines[name].append(({key.strip().upper(): one.strip() for key, _, one in pairs}, value.strip()))
        if len(lines["RRULE"]) != 1 or len(lines["DTSTART"]) > 1:
            raise self.refuse("it has exactly one RRULE and at most one DTSTART; give a deployment several schedules instead")
        return lines

    def _parts(self, value: str) -> dict[str, str]:
        parts: dict[str, str] = {}
        for part in value.upper().rstrip(";").split(";"):
            name, equals, given = (piece.strip() for piece in part.partition("="))
            name = "BYDAY" if name == "BYWEEKDAY" else name
            if not equals or not given:
                raise self.refuse(f"its parts are NAME=VALUE, and {part[:40]!r} is none")
            if name not in _PARTS:
                raise self.refuse(f"there is no part {name[:40]!r}{_hint(name, _PARTS)}")
            if name in parts:
                raise self.refuse(f"{name} is given twice")
            parts[name] = given
        if "COUNT" in parts and "UNTIL" in parts:
            raise self.refuse("COUNT and UNTIL do not go together; leave one of them out")
        return parts

    def _natural(self, name: str, text: str, limit: int) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= limit:
            instead = "; for more use UNTIL" if name == "COUNT" else ""
            raise self.refuse(f"{name} is a number from 1 to {limit}, not {text[:40]!r}{instead}")
        return int(text)

    def _numbers(self, name: str, text: str) -> tuple[int, ...]:
        low, high, from_end = _NUMBERS[name]
        found = set()
        for one in text.split(","):
            number = int(one) if re.fullmatch(r"\s*[+-]?[0-9]{1,4}\s*", one, re.ASCII) else None
            if number is None or not low <= (abs(number) if from_end else number) <= high:
                back = f", or -{high} to -{low} from the end" if from_end else ""
                raise self.refuse(f"{name} takes numbers from {low} to {high}{back}, not {one[:40]!r}")
            found.add(number)
        return tuple(sorted(found))

    def _weekdays(self, text: str, freq: str) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
        plain, nth = set(), set()
        for one in text.split(",") if text else ():
            matched = _BYDAY.fullmatch(one.strip())
            if matched is None or (matched[1] and not 1 <= abs(int(matched[1])) <= 53):
                raise self.refuse(f"BYDAY takes {', '.join(WEEKDAYS)}, or one with a number, as 1MO or -1FR, not {one[:40]!r}")
            if not matched[1]:
                plain.add(WEEKDAYS.index(matched[2]))
            elif freq in ("YEARLY", "MONTHLY"):
                nth.add((WEEKDAYS.index(matched[2]), int(matched[1])))
            else:
                raise self.refuse(f"{one.strip()} in BYDAY counts in a month or year, so it needs FREQ=MONTHLY or FREQ=YEARLY")
        return frozenset(plain), frozenset(nth)

    # --------------------------------------------------------------------------------------- times

    def _stamp(self, name: str, text: str) -> tuple[datetime, bool, bool]:
        """Return a stamp as written, whether it has a time of day, and whether it is in UTC."""
        matched = _STAMP.fullmatch(text.strip().upper())
        try:
            if matched is not None:
                written = datetime.strptime(matched[1] + (matched[2] or "000000"), "%Y%m%d%H%M%S")  # noqa: DTZ007
                if 1900 <= written.year <= 9000:
                    return written, matched[2] is not None, bool(matched[3])
        except ValueError:
            pass
        raise self.refuse(f"{name} is written as 20260101T090000, with Z for UTC, and not as {text[:40]!r}")

    def _wall(self, name: str, parameters: dict[str, str], text: str) -> datetime:
        self._check_parameters(name, parameters)
        written, _, is_utc = self._stamp(name, text)
        return self._zone.wall_of(written.replace(tzinfo=UTC)) if is_utc else written

    def _check_parameters(self, name: str, parameters: dict[str, str]) -> None:
        for key, value in parameters.items():
            if key == "TZID" and value != self._zone.name:
                raise self.refuse(
                    f"{name} is in time zone {value[:60]!r} and the schedule in {self._zone.name!r}; make them one"
                )
            if key not in ("TZID", "VALUE") or (key == "VALUE" and value.upper() not in ("DATE", "DATE-TIME")):
                raise self.refuse(f"{name} cannot have {key[:40]}={value[:40]}")

    def _instants(self, name: str, lines: list[tuple[dict[str, str], str]]) -> list[datetime]:
        found = []
        for parameters, value in lines:
            self._check_parameters(name, parameters)
            for one in value.split(","):
                written, has_time, is_utc = self._stamp(name, one)
                if not has_time:
                    raise self.refuse(f"{name} names instants, such as {one.strip()[:8]}T090000, and not whole days")
                found.append(written.replace(tzinfo=UTC) if is_utc else self._zone.first_instant(written))
        return found

    def _until(self, text: str) -> datetime:
        """Return the last instant that is included: of a date without a time, the end of that day."""
        written, has_time, is_utc = self._stamp("UNTIL", text)
        if is_utc:
            return written.replace(tzinfo=UTC)
        if has_time:
            return self._zone.first_instant(written)
        next_day = datetime.combine(written.date() + timedelta(days=1), time())
        return self._zone.first_instant(next_day) - timedelta(microseconds=1)


def _hint(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name[:40], known, 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""
