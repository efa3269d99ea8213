"""Random recurrence rules held against dateutil, which knows RFC 5545 well and no time zones.

The long form: python tests/scheduler/test_against_dateutil.py [ROUNDS]
"""

from __future__ import annotations

import os
import random
import sys
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from dateutil.rrule import rrulestr
from minutes import fixed_ticks, walk

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.rules import make_rule, next_ticks
from wfengine_scheduler.zones import find_zone

#: Rules in the gate.
ROUNDS = 400
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def some(chosen: random.Random, values: range | tuple[int, ...], most: int = 3) -> str:
    return ",".join(str(value) for value in sorted(chosen.sample(list(values), chosen.randint(1, most))))


def random_rule(chosen: random.Random) -> str:
    """Return a rule with its DTSTART, of the parts that mean the same to both."""
    freq = chosen.choice(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"])
    start = datetime(chosen.randrange(2000, 2030), 1, 1) + timedelta(minutes=chosen.randrange(365 * 1440))  # noqa: DTZ001
    parts = [f"FREQ={freq}"]
    if chosen.random() < 0.5:
        parts.append(f"INTERVAL={chosen.choice([2, 3, 4, 5, 7, 12])}")
    if chosen.random() < 0.2:
        parts.append(f"WKST={chosen.choice(WEEKDAYS)}")
    if chosen.random() < 0.3:
        parts.append(f"BYMONTH={some(chosen, range(1, 13))}")
    if chosen.random() < 0.3:
        parts.append(f"BYMONTHDAY={some(chosen, (*range(1, 32), *range(-31, 0)), 6)}")
    if chosen.random() < 0.1:
        parts.append(f"BYYEARDAY={some(chosen, (*range(1, 367), *range(-366, 0)), 40)}")
    if freq == "YEARLY" and chosen.random() < 0.2:
        parts.append(f"BYWEEKNO={some(chosen, (*range(2, 52), *range(-51, -2)), 4)}")
    if chosen.random() < 0.4:
        days = chosen.sample(WEEKDAYS, chosen.randint(1, 3))
        if freq in ("YEARLY", "MONTHLY") and "BYWEEKNO" not in parts[-1] and chosen.random() < 0.6:
            days = [f"{chosen.choice([1, 2, 3, 4, 5, -1, -2])}{day}" for day in days]
        parts.append(f"BYDAY={','.join(days)}")
    if chosen.random() < 0.3:
        parts.append(f"BYHOUR={some(chosen, range(24))}")
    if chosen.random() < 0.3:
        parts.append(f"BYMINUTE={some(chosen, range(60))}")
    if chosen.random() < 0.2:
        parts.append(f"BYSECOND={some(chosen, range(60))}")
    if len(parts) > 2 and freq in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY") and chosen.random() < 0.2:
        parts.append(f"BYSETPOS={some(chosen, (1, 2, 3, -1, -2), 2)}")
    if chosen.random() < 0.15:
        parts.append(f"COUNT={chosen.randint(1, 40)}")
    elif chosen.random() < 0.15:
        until = start + timedelta(days=chosen.randrange(2000), seconds=chosen.randrange(86400))
        parts.append(f"UNTIL={until:%Y%m%dT%H%M%S}")
    return f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:{';'.join(parts)}"


def check_rule_of_round(chosen: random.Random) -> bool:
    """Compare one rule; return whether it was. What is due hardly ever is not: dateutil would search the years up to 9999."""
    rule = random_rule(chosen)
    begin = datetime.strptime(rule[8:23], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    reach = {"HOURLY": 90_000, "MINUTELY": 3_000, "SECONDLY": 90}.get(rule.partition("FREQ=")[2].partition(";")[0], 3_000_000)
    start = begin + timedelta(minutes=chosen.randrange(-1000, reach))
    try:
        made = rrulestr(rule)
        found = next_ticks(make_rule("rrule", rule, timezone="UTC"), start, 5)
    except ValueError as error:  # an INTERVAL that never meets its BY parts: each of the two has its way to say so
        if isinstance(error, ScheduleError) and "steps" not in str(error):
            raise
        return False
    ends = "COUNT" in rule or "UNTIL" in rule
    if not found or found[-1] > start + timedelta(days=3000) or (len(found) < 5 and not ends):
        return False
    wanted = [tick.replace(tzinfo=UTC) for tick in islice(made.xafter(start.replace(tzinfo=None)), 5)]
    assert found == wanted, f"{rule} from {start}: {found}, and dateutil {wanted}"
    return True


def seed() -> int:
    chosen = int(os.environ.get("WFENGINE_SCHEDULE_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"WFENGINE_SCHEDULE_SEED={chosen}")
    return chosen


def test_random_rules_are_due_as_dateutil_says_where_there_are_no_zones() -> None:
    chosen = random.Random(seed())
    assert sum(check_rule_of_round(chosen) for _ in range(ROUNDS)) > ROUNDS / 2


@pytest.mark.parametrize("number", [1, 2, 51, 52, 53, -1, -52, -53])
def test_weeks_at_the_turn_of_the_year_are_those_of_the_calendar(number: int) -> None:
    # dateutil takes the length of one year for that of another here: 1 January 2039 is in week 52, and not in week 53.
    made = make_rule("rrule", f"DTSTART:20000103T000000\nRRULE:FREQ=YEARLY;BYWEEKNO={number}")
    days = [datetime(2000, 1, 3, tzinfo=UTC) + timedelta(days=count) for count in range(42 * 365)]
    weeks = {day.year: day.isocalendar().week for day in days if (day.month, day.day) == (12, 28)}
    named = [
        day
        for day, (year, week, _) in ((day, day.isocalendar()) for day in days)
        if year in weeks and number in (week, week - weeks[year] - 1)
    ]
    assert next_ticks(made, days[0] - timedelta(seconds=1), len(named)) == named


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia", "Africa/Casablanca"]
)
def test_daily_and_longer_rules_are_due_at_those_wall_times(zone: str) -> None:
    chosen = random.Random(seed())
    for year in (2010, 2011, 2019, 2022, 2024):
        for change in find_zone(zone).changes(year):
            minutes = list(walk(zone, change - timedelta(days=4), change + timedelta(days=4)))
            wall = find_zone(zone).wall_of(change)
            hours = ",".join(sorted({str((wall.hour + shift) % 24) for shift in (-1, 0, chosen.randrange(24))}))
            rule = f"DTSTART:20000101T000000\nRRULE:FREQ=DAILY;BYHOUR={hours};BYMINUTE={some(chosen, range(60))}"
            named = set(rrulestr(rule).between(wall - timedelta(days=6), wall + timedelta(days=6)))
            ticks = list(fixed_ticks(minutes, named.__contains__))
            made = make_rule("rrule", rule, timezone=zone)
            for start in [
                ticks[0],
                change,
                change - timedelta(seconds=1),
                change + timedelta(minutes=chosen.randrange(-99, 99)),
            ]:
                after = ticks[bisect_right(ticks, start) :]
                assert next_ticks(made, start, len(after)) == after, f"{rule} in {zone} after {start}"


if __name__ == "__main__":
    generator, done = random.Random(seed()), 0
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000):
        done += check_rule_of_round(generator)
        if number % 5000 == 4999:
            print(f"{number + 1} rules, {done} compared", flush=True)
