"""Schedules are data that is checked where it is made; the older names and places make the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from wfengine.schedules import (
    Cron,
    CronSchedule,
    Interval,
    IntervalSchedule,
    Once,
    RRule,
    RRuleSchedule,
    Schedule,
    construct_schedule,
)
from wfengine_journal.errors import ScheduleError


@pytest.mark.parametrize(
    ("schedule", "kind", "rule"),
    [
        (Interval(timedelta(hours=1)), "interval", "3600"),
        (Interval(90), "interval", "90"),
        (Interval(0.25), "interval", "0.25"),
        (Cron(" 0  7 * * MON-fri "), "cron", "0 7 * * MON-fri"),
        (Cron("@Daily"), "cron", "@daily"),
        (RRule("FREQ=MONTHLY;BYDAY=-1FR"), "rrule", "FREQ=MONTHLY;BYDAY=-1FR"),
        (RRule("DTSTART:20260101T090000\nRRULE:FREQ=DAILY;UNTIL=20300101T000000Z"), "rrule", None),
        (IntervalSchedule(interval=timedelta(hours=1)), "interval", "3600"),
        (CronSchedule(cron="0 3 * * *"), "cron", "0 3 * * *"),
        (RRuleSchedule(rrule="FREQ=DAILY"), "rrule", "FREQ=DAILY"),
        (construct_schedule(interval=60), "interval", "60"),
        (construct_schedule(cron="*/5 * * * *"), "cron", "*/5 * * * *"),
    ],
)
def test_a_schedule_knows_its_kind_and_its_rule(schedule: Schedule, kind: str, rule: str | None) -> None:
    assert schedule.kind == kind
    assert rule is None or schedule.rule == rule
    assert schedule.timezone == "UTC"
    assert schedule.active


@pytest.mark.parametrize(
    "expression",
    ["* * * * MON", "0 0 * * 7", "1-5,10-20 * * * *", "5/15 * * * *", "0 0 L * *", "0 0 * * 5#2", "H 3 * * *", "*/7 * * * *"],
)
def test_what_cron_allows_is_accepted(expression: str) -> None:
    assert Cron(expression, timezone="Europe/Berlin", day_or=False).cron == expression


BAD: list[tuple[str, Callable[[], object], str]] = [
    ("nothing", lambda: Schedule(), "exactly one of interval, cron, rrule and once; none"),
    ("two", lambda: Schedule(interval=timedelta(1), cron="@daily"), "interval and cron"),
    ("zero", lambda: Interval(0), "longer than 0 s"),
    ("negative", lambda: Interval(timedelta(seconds=-1)), "longer than 0 s"),
    ("not a number", lambda: Interval(float("nan")), "cannot be nan"),
    ("endless", lambda: Interval(1e30), "longer than any calendar"),
    ("text as interval", lambda: Interval("1h"), "timedelta or a number"),  # type: ignore[arg-type]
    ("boolean", lambda: Interval(True), "timedelta or a number"),
    ("unknown zone", lambda: Interval(60, timezone="Europe/Berln"), "Did you mean 'Europe/Berlin'"),
    ("half a zone", lambda: Cron("@daily", timezone="America"), "no time zone 'America'"),
    ("path as zone", lambda: Cron("@daily", timezone="../zone"), "no time zone"),
    ("number as zone", lambda: Cron("@daily", timezone=1), "IANA name"),  # type: ignore[arg-type]
    ("four fields", lambda: Cron("0 7 * *"), "has 4"),
    ("six fields", lambda: Cron("0 0 7 * * *"), "For seconds use an interval"),
    ("empty", lambda: Cron(""), "has 0"),
    ("number", lambda: Cron(5), "is text"),  # type: ignore[arg-type]
    ("too long", lambda: Cron("0 " * 200), "at most 256"),
    ("out of range", lambda: Cron("61 * * * *"), "no cron expression"),
    ("never", lambda: Cron("0 0 31 2 *"), "ever due"),
    ("unknown name", lambda: Cron("@reboot"), "There are: @annually"),
    ("no rule", lambda: RRule("every day"), "RFC 5545"),
    ("unknown frequency", lambda: RRule("FREQ=NOW"), "RFC 5545"),
    ("anchor of cron", lambda: Schedule(cron="@daily", anchor_date=datetime.now(UTC)), "counted from by an interval"),
    ("no instant", lambda: IntervalSchedule(60, anchor_date="tomorrow"), "ISO-8601"),
    ("no datetime", lambda: Interval(60, anchor_date=5), "is a datetime"),  # type: ignore[arg-type]
    ("no parameters", lambda: Interval(60, parameters=[1]), "dict by name"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "text"), [(make, text) for _, make, text in BAD], ids=[name for name, _, _ in BAD])
def test_nonsense_is_refused_with_the_reason(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ScheduleError, match=text) as refused:
        make()
    assert isinstance(refused.value, ValueError)  # as Prefect's own


def test_an_anchor_without_a_zone_is_meant_in_that_of_the_schedule() -> None:
    schedule = IntervalSchedule(3600, anchor_date="2026-01-01T00:00:00", timezone="Europe/Berlin")
    assert schedule.anchor_at == datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))


def test_the_zone_of_the_anchor_is_that_of_the_schedule_unless_it_says_so() -> None:
    berlin = datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert Interval(60, anchor_date=berlin).timezone == "Europe/Berlin"
    assert Interval(60, anchor_date=berlin, timezone="Asia/Tokyo").timezone == "Asia/Tokyo"
    assert Interval(60, anchor_date=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))).timezone == "UTC"


@pytest.mark.parametrize(
    "place", ["wfengine.client.schemas.schedules", "wfengine.orion.schemas.schedules", "wfengine.server.schemas.schedules"]
)
def test_the_older_places_have_the_older_names(place: str) -> None:
    module = importlib.import_module(place)
    assert module.IntervalSchedule is IntervalSchedule
    assert module.CronSchedule is CronSchedule
    assert module.RRuleSchedule is RRuleSchedule


def test_making_an_interval_loads_no_cron() -> None:
    program = "import sys; from wfengine.schedules import Interval; Interval(60); print('croniter' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"


def test_a_schedule_says_what_becomes_of_its_ticks() -> None:
    schedule = Cron(
        "0 7 * * *", timezone="Europe/Berlin", jitter=30, start=datetime(2026, 1, 1), end=datetime(2027, 1, 1, tzinfo=UTC),  # noqa: DTZ001
        misfire_grace=timedelta(minutes=5), catch_up="all", catch_up_limit=8, overlap="skip",
    )  # fmt: skip
    assert (schedule.jitter_seconds, schedule.misfire_grace_seconds) == (30.0, 300.0)
    assert schedule.starts_at == datetime(2025, 12, 31, 23, tzinfo=UTC)  # midnight in Berlin
    assert schedule.ends_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert (schedule.catch_up, schedule.catch_up_limit, schedule.overlap) == ("all", 8, "skip")


@pytest.mark.parametrize(
    "schedule", [Interval(60), Cron("@daily"), RRule("FREQ=DAILY"), Once("2026-12-24T18:00Z"), Schedule(cron="@daily")]
)
def test_every_kind_has_the_same_defaults(schedule: Schedule) -> None:
    assert (schedule.jitter_seconds, schedule.misfire_grace_seconds) == (0.0, 60.0)
    assert (schedule.start, schedule.end, schedule.starts_at, schedule.ends_at) == (None, None, None, None)
    assert (schedule.catch_up, schedule.catch_up_limit, schedule.overlap) == ("last", 100, "queue")


def test_once_is_an_instant() -> None:
    schedule = Once(datetime(2026, 12, 24, 18), timezone="Europe/Berlin", overlap="allow")  # noqa: DTZ001
    assert (schedule.kind, schedule.rule) == ("once", "2026-12-24T17:00:00Z")
    assert Once(datetime(2026, 12, 24, 18, tzinfo=ZoneInfo("Europe/Berlin"))).timezone == "Europe/Berlin"
    assert Once("2026-12-24T18:00+01:00").rule == schedule.rule


def test_a_rule_that_names_its_zone_is_in_it() -> None:
    assert RRule("DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY").timezone == "Europe/Berlin"
    assert RRuleSchedule("DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY").timezone == "Europe/Berlin"
    with pytest.raises(ScheduleError, match="make them one"):
        RRule("DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY", timezone="Asia/Tokyo")


OPTIONS: list[tuple[Callable[[], object], str]] = [
    (lambda: Interval(60, jiter=5), "Did you mean 'jitter'?"),  # type: ignore[call-arg]
    (lambda: Cron("@daily", catchup="all"), "Did you mean 'catch_up'?"),  # type: ignore[call-arg]
    (lambda: RRule("FREQ=DAILY", day_or=True), "There are: active, catch_up"),  # type: ignore[call-arg]
    (lambda: Once("2026-12-24T18:00Z", overlap="queu"), "Did you mean 'queue'?"),  # type: ignore[arg-type]
    (lambda: Cron("@daily", catch_up="latest"), "Did you mean 'last'?"),  # type: ignore[arg-type]
    (lambda: Cron("@daily", catch_up=None), "There are: 'none', 'last', 'all'"),  # type: ignore[arg-type]
    (lambda: Cron("@daily", catch_up_limit=0), "write catch_up='none'"),
    (lambda: Cron("@daily", catch_up_limit=True), "not True"),
    (lambda: Cron("@daily", misfire_grace=-1), "cannot be negative"),
    (lambda: Cron("@daily", misfire_grace=float("inf")), "cannot be inf"),
    (lambda: Cron("@daily", jitter="5"), "timedelta or a number"),  # type: ignore[arg-type]
    (lambda: Cron("@daily", start="2026-01-01"), "start is a datetime"),  # type: ignore[arg-type]
    (lambda: Cron("@daily", start=datetime(2026, 1, 2), end=datetime(2026, 1, 1)), "cannot end"),  # noqa: DTZ001
    (lambda: Once(None), "is given the datetime"),  # type: ignore[arg-type]
    (lambda: Once("soon"), "ISO-8601"),
    (lambda: Once("9999-12-31T23:59", timezone="America/New_York"), "outside of the calendar"),
    (lambda: Schedule(once=datetime(2026, 1, 1), cron="@daily"), "cron and once"),  # noqa: DTZ001
]


@pytest.mark.parametrize(("make", "says"), OPTIONS, ids=[says for _, says in OPTIONS])
def test_an_option_that_makes_no_sense_is_refused_with_what_was_meant(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        make()
    assert says in str(refused.value)


def test_the_next_ticks_of_a_schedule_can_be_looked_at_in_its_zone() -> None:
    schedule = Cron("30 2 * * *", timezone="Europe/Berlin")
    found = schedule.next_ticks(2, after=datetime(2026, 3, 28, 12))  # noqa: DTZ001  # wall time
    assert [str(tick) for tick in found] == ["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"]
    assert len(schedule.next_ticks()) == 5
    assert Cron("H H * * *").next_ticks(1, name="a") != Cron("H H * * *").next_ticks(1, name="b")
