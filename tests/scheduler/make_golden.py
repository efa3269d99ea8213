"""Writes golden.txt, the table of rules and the next five instants of each, by walking the minutes: never by our own rules.

    python tests/scheduler/make_golden.py > tests/scheduler/golden.txt

It is run by hand when rows are added, takes some minutes, and what changes in the table is then looked at line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr
from minutes import Expression, Walk, fixed_ticks, next_five, text, utc

#: (zone, a start shortly before a change of its clock, an hour of the wall in the change, the day of the month there).
CHANGES = [
    ("America/New_York", "2026-03-07T12:00Z", 2, 8), ("America/New_York", "2026-10-31T12:00Z", 1, 1),
    ("America/New_York", "2006-04-01T12:00Z", 2, 2), ("America/New_York", "2037-10-31T12:00Z", 1, 1),
    ("Europe/Berlin", "2026-03-28T00:30Z", 2, 29), ("Europe/Berlin", "2026-10-24T00:30Z", 2, 25),
    ("Europe/Berlin", "2000-03-25T00:30Z", 2, 26), ("Europe/Berlin", "2037-10-24T06:30Z", 2, 25),
    ("Europe/London", "2026-03-28T00:30Z", 1, 29), ("Europe/London", "2026-10-24T00:30Z", 1, 25),
    ("Europe/Dublin", "2024-03-30T12:00Z", 1, 31), ("Europe/Dublin", "2024-10-26T12:00Z", 1, 27),
    ("Australia/Lord_Howe", "2026-10-03T00:00Z", 2, 4), ("Australia/Lord_Howe", "2026-04-03T20:00Z", 1, 5),
    ("Asia/Beirut", "2023-03-29T12:00Z", 0, 30), ("Asia/Beirut", "2022-10-29T12:00Z", 23, 29),
    ("Asia/Beirut", "2019-03-30T06:00Z", 0, 31), ("America/Havana", "2024-11-02T12:00Z", 0, 3),
    ("America/Santiago", "2024-09-07T12:00Z", 0, 8), ("America/Santiago", "2024-04-06T12:00Z", 23, 6),
    ("Pacific/Apia", "2011-12-29T04:00Z", 2, 30), ("Pacific/Fakaofo", "2011-12-29T04:00Z", 0, 30),
    ("America/Sao_Paulo", "2018-11-03T12:00Z", 0, 4), ("Africa/Casablanca", "2024-03-09T12:00Z", 2, 10),
    ("Africa/Casablanca", "2024-04-13T12:00Z", 2, 14), ("Asia/Tehran", "2021-03-21T06:00Z", 0, 22),
    ("Asia/Pyongyang", "2018-05-04T03:00Z", 23, 4), ("Asia/Pyongyang", "2015-08-14T03:00Z", 23, 14),
    ("America/Caracas", "2016-04-30T12:00Z", 2, 1), ("America/Caracas", "2007-12-08T12:00Z", 2, 9),
    ("Europe/Moscow", "2011-03-26T12:00Z", 2, 27), ("Europe/Moscow", "2014-10-25T12:00Z", 1, 26),
    ("Antarctica/Troll", "2024-03-30T12:00Z", 1, 31), ("Antarctica/Troll", "2024-10-26T12:00Z", 2, 27),
    ("Pacific/Chatham", "2024-09-28T06:00Z", 2, 29), ("Africa/Cairo", "2023-04-27T12:00Z", 0, 28),
    ("America/Scoresbysund", "2024-03-30T12:00Z", 23, 30),
]  # fmt: skip

#: Held against each change. HH is the hour in it, DD the day.
AT_CHANGES = ["30 HH * * *", "0 HH * * *", "*/15 HH * * *", "0,30 HH,3 DD * *", "0 */2 * * *", "15,45 * DD * *"]

#: Rules of one kind after another, in zones that have much or little to do with them.
CRON = [
    ("* * * * *", "UTC", ""), ("*/5 * * * *", "Asia/Kathmandu", ""), ("*/7 * * * *", "UTC", ""), ("5/15 * * * *", "UTC", ""),
    ("59/15 * * * *", "UTC", ""), ("*/60 * * * *", "UTC", ""), ("0 */24 * * *", "Asia/Tokyo", ""), ("0 6/1 * * *", "UTC", ""),
    ("10-50/20 * * * *", "UTC", ""), ("1-5,10-20 7 * * *", "UTC", ""), ("1,2,3 1,2 * * *", "UTC", ""), ("@hourly", "UTC", ""),
    ("@daily", "Europe/Berlin", ""), ("@midnight", "Asia/Tokyo", ""), ("@weekly", "America/New_York", ""),
    ("@monthly", "Europe/London", ""), ("@yearly", "UTC", ""), ("@annually", "Asia/Kolkata", ""), ("@DAILY", "UTC", ""),
    ("0 0 * * 0", "UTC", ""), ("0 0 * * 7", "UTC", ""), ("0 0 * * SUN", "UTC", ""), ("0 0 * * Fri-Sun", "UTC", ""),
    ("0 0 * * 5-7", "UTC", ""), ("0 0 * * 0-7", "UTC", ""), ("0 7 * * mon-fri", "Europe/Berlin", ""),
    ("0 0 * * mon,wed,fri", "UTC", ""), ("0 0 * * 1/2", "UTC", ""), ("0 0 * * */2", "UTC", ""), ("0 0 * * 6-7", "UTC", ""),
    ("0 0 L * *", "UTC", ""), ("30 23 L * *", "Europe/Berlin", ""), ("0 0 15,L * *", "UTC", ""), ("0 0 L 2 *", "UTC", ""),
    ("0 0 l,1 * *", "UTC", ""), ("0 0 L * 5", "UTC", ""), ("0 0 L * 5", "UTC", "and"), ("0 9 * * fri#2", "Europe/Berlin", ""),
    ("0 9 * * 5#5", "UTC", ""), ("0 9 * * 1#1,3#3", "UTC", ""), ("0 9 * * 7#1", "UTC", ""), ("0 9 * * sun#4", "UTC", ""),
    ("0 17 * * L5", "Europe/Berlin", ""), ("0 17 * * L0", "UTC", ""), ("0 17 * * L7", "UTC", ""), ("0 17 * * L1,L3", "UTC", ""),
    ("0 0 13 * 5", "UTC", ""), ("0 0 13 * 5", "UTC", "and"), ("0 0 */7 * 1", "UTC", ""), ("0 0 1-7 * 1", "UTC", ""),
    ("0 0 1-7 * 1", "UTC", "and"), ("0 0 1-31 * 1", "UTC", ""), ("0 0 * * */3", "UTC", ""), ("0 0 1,15 * */2", "UTC", ""),
    ("0 0 13 * fri#2", "UTC", ""), ("0 0 13 * fri#2", "UTC", "and"), ("0 0 31 * *", "UTC", ""), ("0 0 30 * *", "UTC", ""),
    ("0 0 31 4,6,12 *", "UTC", ""), ("0 0 29 2 *", "UTC", ""), ("0 0 1 jan-mar *", "UTC", ""), ("0 0 1 */3 *", "UTC", ""),
    ("0 0 1 feb/4 *", "UTC", ""), ("0 0 1 JAN,jul *", "Europe/Berlin", ""), ("15 10 1 1,6-8 *", "UTC", ""),
    ("H H * * *", "UTC", "id=nightly"), ("H H * * *", "UTC", "id=weekly"), ("H/15 * * * *", "UTC", "id=nightly"),
    ("H(0-29)/10 * * * *", "UTC", "id=nightly"), ("H(10-20) 3 * * *", "UTC", "id=report"), ("H H H * *", "UTC", "id=nightly"),
    ("H H H * *", "UTC", "id=z9"), ("0 3 * * H", "UTC", "id=nightly"), ("H H H H *", "UTC", "id=nightly"),
    ("H 2 * * *", "Europe/Berlin", "id=etl"), ("0 H/6 * * *", "UTC", "id=nightly"), ("0 0 H/10 * *", "UTC", "id=nightly"),
    ("23 0-20/2 * * *", "UTC", ""), ("5 4 * * sun", "America/New_York", ""), ("0 22 * * 1-5", "Asia/Tokyo", ""),
    ("0 0,12 1 */2 *", "UTC", ""), ("0 4 8-14 * *", "Europe/London", ""), ("* 2 * * *", "Europe/Berlin", ""),
]  # fmt: skip
CRON_STARTS = ["2026-03-28T22:59:30Z", "2027-12-30T23:59Z"]

#: (seconds, zone, anchor, start)
INTERVALS = [
    ("3600", "Europe/Berlin", "2026-01-01T00:17Z", "2026-03-28T22:30Z"),
    ("86400", "Europe/Berlin", "2026-01-01T01:30Z", "2026-03-28T00:00Z"),
    ("86400", "Europe/Berlin", "2026-01-01T01:30Z", "2026-10-23T00:00Z"),
    ("172800", "America/New_York", "2026-03-04T07:30Z", "2026-03-05T00:00Z"),
    ("604800", "Europe/London", "2026-01-04T01:30Z", "2026-03-20T00:00Z"),
    ("90000", "Europe/Berlin", "2026-03-01T00:00Z", "2026-03-28T00:00Z"),
    ("43200", "Australia/Lord_Howe", "2026-10-01T00:00Z", "2026-10-03T00:00Z"),
    ("86400", "Australia/Lord_Howe", "2026-10-01T15:40Z", "2026-10-02T00:00Z"),
    ("86400", "Pacific/Apia", "2011-12-01T12:00Z", "2011-12-28T00:00Z"),
    ("172800", "Pacific/Apia", "2011-12-02T12:00Z", "2011-12-25T00:00Z"),
    ("86400", "Asia/Beirut", "2019-03-01T22:30Z", "2019-03-29T00:00Z"),
    ("5400", "UTC", "2026-01-01T00:00Z", "2027-02-03T04:05Z"),
    ("259200", "Europe/Berlin", "2026-03-26T01:15Z", "2026-03-27T00:00Z"),
    ("60", "UTC", "2020-01-01T00:00Z", "2037-01-01T00:00Z"),
]

#: (rule, zone, start); each has its DTSTART.
RRULES = [
    ("DTSTART:20260101T023000\nRRULE:FREQ=DAILY", "Europe/Berlin", "2026-03-27T12:00Z"),
    ("DTSTART:20260101T023000\nRRULE:FREQ=DAILY", "Europe/Berlin", "2026-10-23T12:00Z"),
    ("DTSTART:20260101T013000\nRRULE:FREQ=DAILY;INTERVAL=2", "America/New_York", "2026-10-29T12:00Z"),
    ("DTSTART:20260101T000000\nRRULE:FREQ=DAILY;BYHOUR=0,12;BYMINUTE=15,45", "Asia/Beirut", "2019-03-29T12:00Z"),
    ("DTSTART:20111201T120000\nRRULE:FREQ=DAILY", "Pacific/Apia", "2011-12-28T00:00Z"),
    ("DTSTART:20200101T170000\nRRULE:FREQ=MONTHLY;BYDAY=-1FR", "Europe/Berlin", "2026-03-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "America/New_York", "2026-02-01T00:00Z"),
    ("DTSTART:20200131T090000\nRRULE:FREQ=MONTHLY", "UTC", "2026-01-31T09:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=MONTHLY;BYMONTHDAY=-1,15", "UTC", "2027-01-31T09:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=MONTHLY;INTERVAL=5;BYMONTHDAY=13;BYDAY=FR", "UTC", "2020-01-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;WKST=SU", "UTC", "2026-01-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;WKST=MO", "UTC", "2026-01-01T00:00Z"),
    ("DTSTART:20200102T013000\nRRULE:FREQ=WEEKLY;BYDAY=SU", "Europe/London", "2026-03-20T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", "America/New_York", "2026-01-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=YEARLY;BYWEEKNO=1,53;BYDAY=MO", "UTC", "2026-01-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=YEARLY;BYYEARDAY=1,100,-1", "UTC", "2026-01-01T00:00Z"),
    ("DTSTART:20200101T090000\nRRULE:FREQ=YEARLY;BYDAY=20MO,-1SU", "UTC", "2026-01-01T00:00Z"),
    ("DTSTART:20260101T000000\nRRULE:FREQ=DAILY;BYMONTH=3;BYHOUR=2;BYMINUTE=30", "Europe/Berlin", "2026-03-28T12:00Z"),
]  # fmt: skip

#: How far the minutes are walked: further where five were not met.
REACHES = [timedelta(days=days) for days in (9, 70, 420, 366 * 6, 366 * 25)]


def main() -> None:
    print("# kind | rule | zone | options | start | the next five instants. Written by make_golden.py; not edited by hand.")
    for kind, rule, zone, options, start, ticks in rows():
        for reach in REACHES:
            found = next_five(zone, start, ticks, start + reach)
            if len(found) == 5:
                break
        assert len(found) == 5, (rule, zone, start)
        print(" | ".join([kind, rule.replace("\n", " "), zone, options, text(start), " ".join(map(text, found))]), flush=True)


Row = tuple[str, str, str, str, datetime, Callable[[Walk], Iterator[datetime]]]


def rows() -> Iterator[Row]:
    for zone, start, hour, day in CHANGES:
        for pattern in AT_CHANGES:
            rule = pattern.replace("HH", str(hour)).replace("DD", str(day))
            yield "cron", rule, zone, "", utc(start), Expression(rule).ticks
    for start in CRON_STARTS:
        for rule, zone, options in CRON:
            hash_id = options.removeprefix("id=") if options.startswith("id=") else ""
            yield "cron", rule, zone, options, utc(start), Expression(rule, day_or=options != "and", hash_id=hash_id).ticks
    for seconds, zone, anchor, start in INTERVALS:
        yield "interval", seconds, zone, f"anchor={anchor}", utc(start), interval_ticks(int(seconds), zone, utc(anchor))
    for rule, zone, start in RRULES:
        yield "rrule", rule, zone, "", utc(start), recurrence_ticks(rule)


def interval_ticks(seconds: int, zone: str, anchor: datetime) -> Callable[[Walk], Iterator[datetime]]:
    step = timedelta(seconds=seconds)
    first = anchor.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if seconds % 86400 == 0:
        return lambda minutes: fixed_ticks(minutes, lambda wall: wall >= first and (wall - first) % step == timedelta(0))
    return lambda minutes: (at for at, _ in minutes if at >= anchor and (at - anchor) % step == timedelta(0))


def recurrence_ticks(rule: str) -> Callable[[Walk], Iterator[datetime]]:
    """A daily or longer rule names wall times, and which ones says a library that knows no zones."""
    begin, end = datetime(2000, 1, 1), datetime(2060, 1, 1)  # noqa: DTZ001
    named = set(rrulestr(rule).between(begin, end, inc=True))
    return lambda minutes: fixed_ticks(minutes, named.__contains__)


if __name__ == "__main__":
    main()
