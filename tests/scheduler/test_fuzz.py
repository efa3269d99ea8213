"""Whatever is written as a schedule: it is refused with our own error, or it is due at instants that only go on.

The long form, with the time each call takes: python tests/scheduler/test_fuzz.py [EXAMPLES of each kind, default 100000]
"""

from __future__ import annotations

import gc
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.rules import check_rule, describe, make_rule, next_ticks, ticks_between

GATE = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)

NUMBERS = st.one_of(
    st.integers(-1, 70).map(str), st.sampled_from(["0", "5", "7", "15", "31", "00", "1_0", "٣", "1e3", "99999999999"])
)
WORDS = st.sampled_from(["mon", "SUN", "fri", "jan", "Dec", "l", "L5", "5L", "w", "15w", "lw", "h", "H(1-9)",
                         "h(9-1)", "h(0-99)",
                         "r", "R(1-2)", "?", "*", "#", "fri#2", "2#6", "0#0", "l-3", "-", "/", "",
                         "*-5", "@", "\u00a0", "\x00"])  # fmt: skip
ATOMS = st.one_of(NUMBERS, WORDS)
RANGES = st.tuples(ATOMS, ATOMS).map("-".join)
PARTS = st.one_of(ATOMS, ATOMS, RANGES, st.tuples(st.one_of(ATOMS, RANGES, st.just("*")), NUMBERS).map("/".join))
FIELDS = st.one_of(st.just("*"), PARTS, st.lists(PARTS, min_size=1, max_size=4).map(",".join))
PLAUSIBLE = st.tuples(
    *[
        st.one_of(st.just("*"), st.integers(low, high).map(str), st.integers(1, size).map(lambda step: f"*/{step}"),
                  st.lists(st.integers(low, high), min_size=1, max_size=3).map(lambda values: ",".join(map(str, values))),
                  st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: f"{min(ends)}-{max(ends)}"))
        for low, high, size in ((0, 59, 60), (0, 23, 24), (1, 31, 31), (1, 12, 12), (0, 7, 7))
    ]
).map(" ".join)  # fmt: skip
CRON = st.one_of(
    PLAUSIBLE,
    st.lists(FIELDS, min_size=4, max_size=7).map(" ".join),
    st.tuples(FIELDS, FIELDS, FIELDS, FIELDS, FIELDS).map(" ".join),
    st.text(max_size=300),
    st.sampled_from(["@hourly", "@reboot", "@", " @Daily ", "", "* * * * *\n", "0 0 31 2 *", "0 0 30 2 1#5"]),
)
NAMES = ["FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYHOUR",
         "BYMINUTE",
         "BYSECOND", "BYSETPOS", "BYEASTER", "BYHOURS"]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY", "MO", "1FR,-1SU", "TU,9WE",
                     "0", "-1", "29",
                     "1,2,3", "20300101T000000Z", "20300101", "99999999", "20000230", "", "a", "1000000", "٣"]),
    st.lists(st.integers(-60, 370), min_size=1, max_size=5).map(lambda values: ",".join(map(str, values))),
)  # fmt: skip
FREQ = st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]).map(
    lambda freq: [("FREQ", freq)]
)
PAIRS = st.tuples(st.sampled_from(NAMES[1:]), VALUES)
RULES = st.tuples(FREQ, st.lists(PAIRS, max_size=5, unique_by=lambda pair: pair[0])).map(
    lambda parts: ";".join("=".join(pair) for pair in [*parts[0], *parts[1]])
)
STARTS = st.sampled_from(["", "DTSTART:20200229T233000\n", "DTSTART;TZID=Europe/Berlin:20260329T023000\nRRULE:",
                          "DTSTART:20260101T000000Z\n",
                          "DTSTART:2026\n", "EXDATE:20260101T000000\nRRULE:",
                          "RDATE:20990101T000000,20000101T000000\n"])  # fmt: skip
RRULE = st.one_of(
    st.tuples(STARTS, RULES).map("".join), st.text(max_size=200), st.tuples(STARTS, st.text(max_size=30)).map("".join)
)
INTERVAL = st.one_of(
    st.integers(0, 10**10).map(str), st.decimals(0, 10**13, places=6).map(str), st.text(max_size=40), st.just("9" * 20)
)
ONCE = st.one_of(
    st.datetimes().map(datetime.isoformat), st.text(max_size=40), st.sampled_from(["2026-10-25T02:30", "9999-12-31T23:59Z"])
)
ZONES = (
    st.sampled_from(
        ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Beirut", "America/Santiago", "Africa/Monrovia"]
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Africa/Casablanca", "Pacific/Chatham", "Antarctica/Troll"]),
    st.text(max_size=40),
    st.sampled_from(
        ["../etc", "/etc/passwd", "Europe", "europe/berlin", "", "\x00", "localtime", "posixrules", "Factory", "Etc/GMT+12"]
    ),
)
ZONE = st.one_of(*[ZONES[0]] * 4, *[ZONES[1]] * 4, *ZONES[2:])
INSTANT = st.datetimes(timezones=st.just(UTC))
USUAL = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
WHEN = st.one_of(USUAL, USUAL, USUAL, INSTANT)
OPTIONS = st.one_of(
    st.fixed_dictionaries({}, optional={"day_or": st.booleans(), "hash_id": st.text(max_size=20), "anchor_at": WHEN}),
    st.fixed_dictionaries({}, optional={"anchor_at": WHEN, "starts_at": WHEN, "ends_at": WHEN}),
)


def check_one(kind: str, rule: object, zone: object, after: datetime, options: dict[str, object]) -> float:
    """Ask everything of one rule; return the processor seconds of the slowest. Raises whatever is not our own error."""
    slowest, began = 0.0, time.process_time()
    try:
        text = check_rule(kind, rule, timezone=zone, **options)  # type: ignore[arg-type]
        slowest = time.process_time() - began
        assert check_rule(kind, text, timezone=zone, **options) == text  # type: ignore[arg-type]
        assert describe(kind, text, zone, **options)  # type: ignore[arg-type]
        made = make_rule(kind, text, timezone=zone, **options)  # type: ignore[arg-type]
        began = time.process_time()
        ticks = next_ticks(made, after, 3)
        slowest = max(slowest, (time.process_time() - began) / 3)
        assert all(tick > before for before, tick in pairwise([after, *ticks]))
        assert all(tick.tzinfo is UTC for tick in ticks)
        later = after + timedelta(days=1) if after.year < 9999 else after
        assert ticks_between(made, after, later, 3) == [tick for tick in ticks if tick <= later]
        assert not ticks or made.next_after(ticks[0] - timedelta(microseconds=1)) == ticks[0]
    except ScheduleError:
        slowest = max(slowest, time.process_time() - began)
    return slowest


@GATE
@given(CRON, ZONE, WHEN, OPTIONS)
def test_any_text_as_a_cron_expression_is_refused_or_goes_on(
    rule: str, zone: str, after: datetime, options: dict[str, object]
) -> None:
    check_one("cron", rule, zone, after, options)


@GATE
@given(RRULE, ZONE, WHEN, OPTIONS)
def test_any_text_as_a_recurrence_rule_is_refused_or_goes_on(
    rule: str, zone: str, after: datetime, options: dict[str, object]
) -> None:
    check_one("rrule", rule, zone, after, options)


@GATE
@given(st.sampled_from(["interval", "once", "daily", ""]), st.one_of(INTERVAL, ONCE), ZONE, WHEN, OPTIONS)
def test_any_text_as_an_interval_or_instant_is_refused_or_goes_on(
    kind: str, rule: str, zone: str, after: datetime, options: dict[str, object]
) -> None:
    check_one(kind, rule, zone, after, options)


@settings(GATE, max_examples=150)
@given(
    st.sampled_from(["cron", "rrule", "interval", "once"]),
    st.one_of(st.none(), st.integers(), st.binary(), st.lists(st.text())),
)
def test_what_is_no_text_is_refused(kind: str, rule: object) -> None:
    check_one(kind, rule, rule, datetime(2026, 1, 1, tzinfo=UTC), {})
    check_one(kind, rule, "UTC", datetime(2026, 1, 1, tzinfo=UTC), {})


def _long_form(examples: int) -> None:
    for kind, strategy in (("cron", CRON), ("rrule", RRULE), ("interval", INTERVAL), ("once", ONCE)):
        times: list[tuple[float, str, str]] = []
        gc.disable()  # what the examples leave behind is collected between them, so that no rule is charged for it

        def ask(rule: str, zone: str, after: datetime, options: dict[str, object]) -> None:
            if len(times) % 500 == 0:  # noqa: B023  # called within the round
                gc.collect()
            times.append((check_one(kind, rule, zone, after, options), rule, zone))  # noqa: B023  # called within the round

        settings(GATE, max_examples=examples)(given(strategy, ZONE, WHEN, OPTIONS)(ask))()
        times.sort(reverse=True)
        slowest = "\n".join(f"  {1000 * took:.1f} ms {rule!r} {zone!r}" for took, rule, zone in times[:5])
        print(f"{kind}: {len(times)} examples, the slowest:\n{slowest}", flush=True)


if __name__ == "__main__":
    _long_form(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
