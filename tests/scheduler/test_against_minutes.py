"""Random expressions, zones and starts near changes of the clock, held against the rule walked minute by minute.

The long form goes on until it is stopped, or for so many rounds: python tests/scheduler/test_against_minutes.py [ROUNDS]
"""

from __future__ import annotations

import os
import random
import sys
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from minutes import WATCHED, Expression, fixed_ticks, text, walk

from wfengine_scheduler.rules import make_rule
from wfengine_scheduler.zones import find_zone

#: Zones whose clocks do all there is: hours, half hours, midnights, days, for ever, the wrong way round, with odd offsets.
ZONES = (
    "America/New_York", "Europe/Berlin", "Europe/London", "Europe/Dublin", "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia",
    "America/Santiago", "America/Havana", "Africa/Casablanca", "Africa/Cairo", "Asia/Tehran", "Asia/Gaza", "Asia/Pyongyang",
    "America/Caracas", "Europe/Moscow", "Europe/Istanbul", "America/Sao_Paulo", "Antarctica/Troll", "Antarctica/Casey",
    "Pacific/Chatham", "Pacific/Fakaofo", "America/Nuuk", "America/Scoresbysund", "Asia/Kathmandu", "Asia/Amman", "UTC",
)  # fmt: skip
#: Rounds in the gate; in each a window of a few days, some expressions in it, and some starts for each of those.
ROUNDS = 60
EXPRESSIONS = 12
STARTS = 6
WINDOW = timedelta(hours=75)


def windows(chosen: random.Random) -> Iterator[tuple[str, datetime | None, list[tuple[datetime, datetime]]]]:
    """Yield a zone, an instant at which its clock changes, and the minutes around it; in quiet years, any minutes."""
    while True:
        zone = chosen.choice(ZONES)
        changes = find_zone(zone).changes(chosen.randrange(2000, 2038))
        change = chosen.choice(changes) if changes else None
        middle = change or datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=chosen.randrange(37 * 365 * 1440))
        yield zone, change, list(walk(zone, middle - WINDOW, middle + WINDOW))


def starts(chosen: random.Random, change: datetime | None, minutes: list[tuple[datetime, datetime]]) -> list[datetime]:
    """Return instants to start from: in the change itself, a little beside it, and anywhere."""
    first, last = minutes[0][0] + WATCHED, minutes[-1][0] - timedelta(hours=1)
    any_one = first + (last - first) * chosen.random()
    if change is None:
        return [any_one]
    near = [change + timedelta(minutes=chosen.randrange(-150, 150)) for _ in range(STARTS - 3)]
    exact = change + chosen.choice([timedelta(0), timedelta(seconds=-1), timedelta(microseconds=1), timedelta(seconds=59)])
    return [any_one, exact, any_one.replace(second=0, microsecond=0), *near]


def random_expression(chosen: random.Random, change: datetime | None, zone: str) -> str:
    """Return an expression that is often due near a change, and often on its day."""
    wall = find_zone(zone).wall_of(change) if change else datetime(2026, 1, 1)  # noqa: DTZ001
    hours = [str((wall.hour + shift) % 24) for shift in (-2, -1, 0, 0, 1)]
    minute = chosen.choice(
        ["*", "*/5", "*/7", "*/15", "*/30", "5/15", "0-29/10", "h", "h/20", "*/60", "0", "30", "59", *["15,45"] * 3]
    )
    minute = chosen.choice([minute, str(chosen.randrange(60)), f"{chosen.randrange(30)}-{chosen.randrange(30, 60)}"])
    hour = chosen.choice(["*", "*/2", "*/3", "*/12", "h", "0-3", "22,23", *hours, *hours, ",".join(sorted({*hours}, key=int))])
    day = chosen.choice([*["*"] * 8, "*/2", "*/7", str(wall.day), "l", "1-15", "h", "13,l", f"{wall.day}"])
    month = chosen.choice([*["*"] * 8, str(wall.month), "mar-nov", "*/2", "jan,oct"])
    weekday = chosen.choice(
        [*["*"] * 8, "mon-fri", "sat,sun", "fri-sun", "7", "0", "*/2", "1/2", "l5", "sun#2", "sun#5,sat#1", "l0,l7", "h", "0-7"]
    )
    return " ".join([minute, hour, day, month, weekday])


def check_round(chosen: random.Random) -> int:
    """Compare in one window; return how many answers were compared."""
    zone, change, minutes = next(windows(chosen))
    compared = 0
    for _ in range(EXPRESSIONS):
        expression = random_expression(chosen, change, zone)
        day_or = chosen.random() < 0.8
        hash_id = f"deployment-{chosen.randrange(50)}"
        ticks = list(Expression(expression, day_or=day_or, hash_id=hash_id).ticks(minutes))
        rule = make_rule("cron", expression, timezone=zone, day_or=day_or, hash_id=hash_id)
        for start in starts(chosen, change, minutes):
            _assert_same(f"{expression!r} in {zone}, day_or={day_or}, {hash_id}", rule.next_after(start), ticks, start, minutes)
            compared += 1
    return compared


def _assert_same(
    what: str, found: datetime | None, ticks: list[datetime], start: datetime, minutes: list[tuple[datetime, datetime]]
) -> None:
    at = bisect_right(ticks, start)
    if at < len(ticks):
        assert found == ticks[at], f"{what}: after {start} {found}, but walked {ticks[at]}"
    else:
        assert found is None or found > minutes[-1][0], f"{what}: after {start} {found}, where nothing is due"


def seed() -> int:
    """Return the seed of this run, and print it."""
    chosen = int(os.environ.get("WFENGINE_SCHEDULE_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"WFENGINE_SCHEDULE_SEED={chosen}")
    return chosen


def test_random_expressions_are_due_when_the_wall_says_so() -> None:
    chosen = random.Random(seed())
    assert sum(check_round(chosen) for _ in range(ROUNDS)) > ROUNDS * EXPRESSIONS


@pytest.mark.parametrize("days", [1, 2, 7])
def test_intervals_of_days_are_due_when_the_wall_says_so(days: int) -> None:
    chosen = random.Random(seed())
    for _ in range(40):
        zone, change, minutes = next(windows(chosen))
        before = minutes[0][0] - timedelta(days=chosen.randrange(400), minutes=chosen.randrange(1440))
        anchor = chosen.choice([before, (change or before) - timedelta(days=days), before.replace(minute=0)])
        first = find_zone(zone).wall_of(anchor)
        assert find_zone(zone).first_instant(first) == anchor or change is not None

        def named(wall: datetime, first: datetime = first) -> bool:
            return wall >= first and (wall - first) % timedelta(days=days) == timedelta(0)

        ticks = [tick for tick in fixed_ticks(minutes, named) if tick >= anchor]
        rule = make_rule("interval", str(days * 86400), timezone=zone, anchor_at=anchor)
        for start in starts(chosen, change, minutes):
            if start > anchor:
                _assert_same(f"{days} days from {text(anchor)} in {zone}", rule.next_after(start), ticks, start, minutes)


def _long_form(rounds: int) -> None:
    chosen, compared, done = random.Random(seed()), 0, 0
    while not rounds or done < rounds:
        compared += check_round(chosen)
        done += 1
        if done % 500 == 0:
            print(f"{done} windows, {compared} answers compared", flush=True)
    print(f"{done} windows, {compared} answers compared: all the same")


if __name__ == "__main__":
    _long_form(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
