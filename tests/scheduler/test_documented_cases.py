"""Each case that the documentation names: when a schedule is due around a change of the clock, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from minutes import text, utc

from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.rules import check_rule, describe, make_rule, next_ticks, ticks_between
from wfengine_scheduler.zones import find_zone


def due(rule: str, zone: str, start: str, count: int = 3, *, kind: str = "cron", **options: object) -> list[str]:
    made = make_rule(kind, rule, timezone=zone, **options)  # type: ignore[arg-type]
    return [text(tick) for tick in next_ticks(made, utc(start), count)]


def on_the_wall(rule: str, zone: str, start: str, end: str, *, kind: str = "cron", **options: object) -> list[str]:
    """Return the wall times at which a rule is due, each with its offset in hours."""
    made = make_rule(kind, rule, timezone=zone, **options)  # type: ignore[arg-type]
    found = []
    for tick in ticks_between(made, utc(start), utc(end), 1000):
        hours = find_zone(zone).offset_at(tick) / timedelta(hours=1)
        found.append(f"{find_zone(zone).wall_of(tick):%d %H:%M}{hours:+g}")
    return found


# ------------------------------------------------------------------------------------------- gaps and overlaps


def test_a_fixed_time_in_a_gap_is_due_at_the_end_of_the_gap() -> None:
    assert on_the_wall("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", "2026-03-30T12:00Z") == [
        "28 02:30+1",
        "29 03:00+2",
        "30 02:30+2",
    ]


def test_a_fixed_time_in_an_overlap_is_due_in_its_first_pass_only() -> None:
    assert on_the_wall("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", "2026-11-02T12:00Z") == [
        "01 01:30-4",
        "02 01:30-5",
    ]


def test_several_fixed_times_in_one_gap_are_due_together_once() -> None:
    assert on_the_wall("0,15,30,45 2 * * *", "Europe/Berlin", "2026-03-29T00:00Z", "2026-03-29T12:00Z") == ["29 03:00+2"]


def test_a_fixed_time_at_the_end_of_a_gap_and_one_in_it_are_one_tick() -> None:
    assert on_the_wall("30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", "2026-03-29T12:00Z") == [
        "29 03:00+2",
        "29 03:30+2",
    ]
    assert on_the_wall("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", "2026-03-29T12:00Z") == ["29 03:00+2"]


def test_fixed_times_in_and_after_an_overlap_are_due_once_each() -> None:
    assert on_the_wall("30 1,2 * * *", "America/New_York", "2026-11-01T04:00Z", "2026-11-01T12:00Z") == [
        "01 01:30-4",
        "01 02:30-5",
    ]


def test_quarters_of_an_hour_are_due_in_both_passes_and_not_in_a_gap() -> None:
    night = on_the_wall("*/15 1-2 * * *", "Europe/London", "2026-10-25T00:00Z", "2026-10-25T01:30Z")
    assert night == ["25 01:15+1", "25 01:30+1", "25 01:45+1", "25 01:00+0", "25 01:15+0", "25 01:30+0"]
    ticks = next_ticks(make_rule("cron", "*/15 * * * *", timezone="Europe/Berlin"), utc("2026-03-28T12:00Z"), 200)
    assert {later - tick for tick, later in pairwise(ticks)} == {timedelta(minutes=15)}


def test_every_minute_of_an_hour_that_a_gap_left_out_is_not_due_at_all() -> None:
    day = on_the_wall("* 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T00:30Z")
    assert day[0] == "30 02:00+2"


def test_every_second_hour_goes_by_the_wall() -> None:
    assert on_the_wall("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30Z", "2026-03-29T05:00Z") == [
        "29 00:00+1",
        "29 04:00+2",
        "29 06:00+2",
    ]


def test_a_change_of_half_an_hour_is_one_too() -> None:
    lord_howe = "Australia/Lord_Howe"
    assert on_the_wall("15 2 * * *", lord_howe, "2026-10-03T00:00Z", "2026-10-05T00:00Z") == ["04 02:30+11", "05 02:15+11"]
    assert on_the_wall("45 1 * * *", lord_howe, "2026-04-04T00:00Z", "2026-04-06T00:00Z") == ["05 01:45+11", "06 01:45+10.5"]
    assert on_the_wall("*/15 1 * * *", lord_howe, "2026-04-04T13:50Z", "2026-04-04T16:00Z") == [
        "05 01:00+11", "05 01:15+11", "05 01:30+11", "05 01:45+11", "05 01:30+10.5", "05 01:45+10.5",
    ]  # fmt: skip


def test_a_gap_at_midnight_moves_a_daily_job_to_its_end_on_the_same_day() -> None:
    assert on_the_wall("0 0 * * *", "Asia/Beirut", "2019-03-30T12:00Z", "2019-04-01T12:00Z") == ["31 01:00+3", "01 00:00+3"]


def test_a_day_that_never_was_has_no_tick_and_the_days_beside_it_have_theirs() -> None:
    assert on_the_wall("30 12 * * *", "Pacific/Apia", "2011-12-29T00:00Z", "2011-12-31T12:00Z") == [
        "29 12:30-10",
        "31 12:30+14",
    ]
    assert on_the_wall("0 0 30 12 *", "Pacific/Apia", "2011-01-01T00:00Z", "2013-01-01T00:00Z") == [
        "30 00:00+14"
    ]  # that of 2012
    assert on_the_wall("86400", "Pacific/Apia", "2011-12-29T00:00Z", "2011-12-31T11:00Z", kind="interval",
                       anchor_at=utc("2011-12-01T12:00Z")) == ["29 02:00-10", "31 02:00+14"]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "start", "ticks"),
    [
        (
            "Asia/Pyongyang",
            "2018-05-03T12:00Z",
            ["2018-05-03T15:15Z", "2018-05-04T15:00Z", "2018-05-05T14:45Z"],
        ),  # 23:30 became 24:00
        (
            "Asia/Pyongyang",
            "2015-08-13T12:00Z",
            ["2015-08-13T14:45Z", "2015-08-14T14:45Z", "2015-08-15T15:15Z"],
        ),  # 24:00 became 23:30
    ],
)
def test_a_change_for_good_is_as_one_for_a_season(zone: str, start: str, ticks: list[str]) -> None:
    assert due("45 23 * * *", zone, start) == ticks


def test_a_start_inside_the_change_itself_repeats_nothing() -> None:
    gap_end = "2026-03-29T01:00Z"
    assert due("30 2 * * *", "Europe/Berlin", "2026-03-29T00:59:59Z", 1) == [gap_end]
    assert due("30 2 * * *", "Europe/Berlin", gap_end, 1) == ["2026-03-30T00:30Z"]
    for start in ("2026-11-01T05:30Z", "2026-11-01T05:59:59Z", "2026-11-01T06:00Z", "2026-11-01T06:29Z", "2026-11-01T06:30Z"):
        assert due("30 1 * * *", "America/New_York", start, 1) == ["2026-11-02T06:30Z"]


# ------------------------------------------------------------------------------------------- what an expression means


def test_day_and_weekday_mean_either_unless_one_of_them_begins_with_a_star() -> None:
    assert due("0 0 13 * 5", "UTC", "2026-03-01T00:00Z", 4) == [
        "2026-03-06T00:00Z",
        "2026-03-13T00:00Z",
        "2026-03-20T00:00Z",
        "2026-03-27T00:00Z",
    ]
    assert due("0 0 13 * 5", "UTC", "2026-03-01T00:00Z", 2, day_or=False) == ["2026-03-13T00:00Z", "2026-11-13T00:00Z"]
    # Days 1, 8, 15, 22, 29 that are Mondays, and not every Monday as well.
    assert due("0 0 */7 * 1", "UTC", "2026-01-01T00:00Z", 2) == ["2026-06-01T00:00Z", "2026-06-08T00:00Z"]
    assert due("0 0 1-31 * 1", "UTC", "2026-01-01T00:00Z", 2) == ["2026-01-02T00:00Z", "2026-01-03T00:00Z"]


@pytest.mark.parametrize("weekday", ["fri-sun", "FRI-SUN", "5-7", "5,6,7", "0,5,6"])
def test_sunday_is_0_and_7_and_ends_a_week(weekday: str) -> None:
    assert due(f"0 0 * * {weekday}", "UTC", "2026-03-01T12:00Z", 4) == [
        "2026-03-06T00:00Z", "2026-03-07T00:00Z", "2026-03-08T00:00Z", "2026-03-13T00:00Z",
    ]  # fmt: skip


def test_the_last_day_and_the_last_weekday_of_a_month_can_be_named() -> None:
    assert due("0 0 L * *", "UTC", "2028-01-31T00:00Z", 2) == ["2028-02-29T00:00Z", "2028-03-31T00:00Z"]
    assert due("0 0 * * L5", "UTC", "2026-01-01T00:00Z", 2) == ["2026-01-30T00:00Z", "2026-02-27T00:00Z"]


def test_a_weekday_of_the_month_can_be_counted() -> None:
    assert due("0 0 * * fri#2", "UTC", "2026-01-01T00:00Z", 2) == ["2026-01-09T00:00Z", "2026-02-13T00:00Z"]
    assert due("0 0 * * mon#5", "UTC", "2026-01-01T00:00Z", 2) == ["2026-03-30T00:00Z", "2026-06-29T00:00Z"]


def test_a_step_from_a_number_goes_to_the_end() -> None:
    assert due("5/15 * * * *", "UTC", "2026-01-01T00:00Z", 5) == [
        f"2026-01-01T00:{minute}Z" for minute in ("05", "20", "35", "50")
    ] + ["2026-01-01T01:05Z"]
    assert due("59/15 * * * *", "UTC", "2026-01-01T00:00Z", 2) == ["2026-01-01T00:59Z", "2026-01-01T01:59Z"]


def test_h_is_fixed_by_the_name_and_spreads_over_names() -> None:
    start = "2026-01-01T00:00Z"
    assert due("H H * * *", "UTC", start, hash_id="etl/nightly") == due("H H * * *", "UTC", start, hash_id="etl/nightly")
    assert len({due("H H * * *", "UTC", start, 1, hash_id=f"etl/{number}")[0] for number in range(100)}) > 60


def test_a_hashed_day_is_one_that_each_month_has() -> None:
    for number in range(60):
        days = {tick[5:10] for tick in due("0 0 H * *", "UTC", "2026-01-01T00:00Z", 12, hash_id=f"etl/{number}")}
        assert len({day[:2] for day in days}) == 12


def test_the_29th_of_february_is_waited_for_over_a_century_without_one() -> None:
    assert due("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", 2) == ["2104-02-29T00:00Z", "2108-02-29T00:00Z"]
    mondays = next_ticks(make_rule("cron", "0 0 29 2 mon", day_or=False), utc("2072-02-01T00:00Z"), 2)
    assert [tick.year for tick in mondays] == [2072, 2112]


# ------------------------------------------------------------------------------------------- intervals, once, bounds


def test_an_interval_of_hours_is_elapsed_time() -> None:
    anchor = utc("2026-03-28T23:00Z")
    night = on_the_wall("21600", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T12:00Z", kind="interval", anchor_at=anchor)
    assert night == [
        "29 07:00+2", "29 13:00+2",
    ]  # fmt: skip
    assert len(due("90000", "Europe/Berlin", "2026-03-28T00:00Z", 3, kind="interval", anchor_at=anchor)) == 3


def test_an_interval_of_days_keeps_its_wall_time_and_is_back_in_place_after_a_gap() -> None:
    anchor = utc("2026-03-01T01:30Z")
    days = on_the_wall("86400", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-30T12:00Z", kind="interval", anchor_at=anchor)
    assert days == [
        "28 02:30+1", "29 03:00+2", "30 02:30+2",
    ]  # fmt: skip


def test_an_interval_is_due_at_its_anchor_and_never_before() -> None:
    anchor = utc("2026-03-01T01:30Z")
    assert due("3600", "UTC", "2000-01-01T00:00Z", 2, kind="interval", anchor_at=anchor) == [
        "2026-03-01T01:30Z",
        "2026-03-01T02:30Z",
    ]
    second_pass = utc("2026-10-25T01:30Z")
    assert due("86400", "Europe/Berlin", "2026-10-25T00:00Z", 2, kind="interval", anchor_at=second_pass) == [
        "2026-10-25T01:30Z", "2026-10-26T01:30Z",
    ]  # fmt: skip


def test_an_interval_does_not_drift_however_long_ago_its_anchor_was() -> None:
    made = make_rule("interval", "0.1", anchor_at=utc("1970-01-01T00:00Z"))
    assert made.next_after(utc("2026-01-01T00:00Z")) == utc("2026-01-01T00:00Z") + timedelta(milliseconds=100)


def test_once_is_once() -> None:
    assert due("2026-12-24T18:00", "Europe/Berlin", "2026-01-01T00:00Z", kind="once") == ["2026-12-24T17:00Z"]
    assert due("2026-12-24T18:00+05:00", "Europe/Berlin", "2026-12-24T13:00Z", kind="once") == []
    assert due("2026-03-29T02:30", "Europe/Berlin", "2026-01-01T00:00Z", kind="once") == ["2026-03-29T01:00Z"]
    assert check_rule("once", "2026-10-25T02:30", timezone="Europe/Berlin") == "2026-10-25T00:30:00Z"


def test_the_bounds_of_a_schedule_are_included() -> None:
    bounds = {"starts_at": utc("2026-01-02T07:00Z"), "ends_at": utc("2026-01-03T07:00Z")}
    assert due("0 7 * * *", "UTC", "2025-01-01T00:00Z", 9, **bounds) == ["2026-01-02T07:00Z", "2026-01-03T07:00Z"]
    assert due("0 7 * * *", "UTC", "2026-01-02T07:00Z", 9, **bounds) == ["2026-01-03T07:00Z"]


# ------------------------------------------------------------------------------------------- recurrence rules


def test_a_daily_rule_follows_the_wall_as_cron_does() -> None:
    rule = "DTSTART:20260101T023000\nRRULE:FREQ=DAILY"
    assert on_the_wall(rule, "Europe/Berlin", "2026-03-28T00:00Z", "2026-03-30T12:00Z", kind="rrule") == [
        "28 02:30+1", "29 03:00+2", "30 02:30+2",
    ]  # fmt: skip
    assert on_the_wall(rule, "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-26T12:00Z", kind="rrule") == [
        "25 02:30+2",
        "26 02:30+1",
    ]


def test_an_hourly_rule_is_elapsed_time_and_the_same_as_an_interval() -> None:
    rule = "DTSTART:20260101T001700\nRRULE:FREQ=HOURLY;INTERVAL=5"
    for zone in ("Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"):
        anchor = find_zone(zone).first_instant(datetime(2026, 1, 1, 0, 17))  # noqa: DTZ001
        for start in ("2026-03-28T12:00Z", "2026-04-04T00:00Z", "2026-10-03T00:00Z", "2026-10-24T12:00Z"):
            assert due(rule, zone, start, 20, kind="rrule") == due("18000", zone, start, 20, kind="interval", anchor_at=anchor)


def test_hours_that_an_hourly_rule_names_are_met_in_both_passes() -> None:
    rule = "DTSTART:20260101T000000\nRRULE:FREQ=HOURLY;BYHOUR=2;BYMINUTE=0,30"
    assert on_the_wall(rule, "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T12:00Z", kind="rrule") == [
        "25 02:00+2", "25 02:30+2", "25 02:00+1", "25 02:30+1",
    ]  # fmt: skip
    assert on_the_wall(rule, "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z", kind="rrule") == []


def test_count_and_until_end_a_rule() -> None:
    rule = "DTSTART:20260328T023000\nRRULE:FREQ=DAILY;COUNT=3"
    assert due(rule, "Europe/Berlin", "2026-01-01T00:00Z", 9, kind="rrule") == [
        "2026-03-28T01:30Z",
        "2026-03-29T01:00Z",
        "2026-03-30T00:30Z",
    ]
    for until in ("20260330T003000Z", "20260330T023000", "20260330"):
        rule = f"DTSTART:20260328T023000\nRRULE:FREQ=DAILY;UNTIL={until}"
        assert len(due(rule, "Europe/Berlin", "2026-01-01T00:00Z", 9, kind="rrule")) == 3
    assert len(due(rule.replace("20260330", "20260330T002959Z"), "Europe/Berlin", "2026-01-01T00:00Z", 9, kind="rrule")) == 2


def test_instants_can_be_added_to_a_rule_and_left_out() -> None:
    rule = "DTSTART:20260101T090000\nRRULE:FREQ=DAILY\nEXDATE:20260102T090000\nRDATE:20260102T100000,20260103T080000Z"
    assert due(rule, "Europe/Berlin", "2026-01-01T00:00Z", 4, kind="rrule") == [
        "2026-01-01T08:00Z", "2026-01-02T09:00Z", "2026-01-03T08:00Z", "2026-01-04T08:00Z",
    ]  # fmt: skip


def test_an_old_rule_is_answered_without_going_through_what_was() -> None:
    rule = "DTSTART:19010101T000000\nRRULE:FREQ=SECONDLY;INTERVAL=7"
    found = make_rule("rrule", rule).next_after(utc("2036-01-01T00:00Z"))
    assert found is not None
    assert (found - utc("1901-01-01T00:00Z")) % timedelta(seconds=7) == timedelta(0)
    assert found - utc("2036-01-01T00:00Z") <= timedelta(seconds=7)


# ------------------------------------------------------------------------------------------- refusals

REFUSED = [
    ("cron", "22-2 * * * *", "22-59,0-2"),
    ("cron", "0 22-2 * * *", "22-23,0-2"),
    ("cron", "0 0 * * sat-mon", "sat,sun-mon"),
    ("cron", "0 4 * * 0-0", "from 0 to itself; write 0"),
    ("cron", "15-15/6 * * * *", "write 15"),
    ("cron", "*/99 * * * *", "from 1 to 60"),
    ("cron", "0 */25 * * *", "from 1 to 24"),
    ("cron", "*/0 * * * *", "from 1 to 60"),
    ("cron", "R * * * *", "write H"),
    ("cron", "R(1-5) R * * *", "write H"),
    ("cron", "0 0 ? * *", "write *"),
    ("cron", "0 0 15W * *", "RRULE with BYSETPOS"),
    ("cron", "0 0 LW * *", "RRULE with BYSETPOS"),
    ("cron", "0 0 L-3 * *", "BYMONTHDAY=-4"),
    ("cron", "0 0 * * L", "L5 is the last Friday"),
    ("cron", "0 0 * * 5L", "write L5"),
    ("cron", "0 0 * * Lfri", "write L5"),
    ("cron", "0 0 * * fri#6", "from 1 to 5"),
    ("cron", "0 0 * * mon,fri#2", "two schedules"),
    ("cron", "0 0 7 * * *", "For seconds use an interval"),
    ("cron", "0 0 7 * * * 2026", "has 7"),
    ("cron", "0 7 * *", "has 4"),
    ("cron", "", "has 0"),
    ("cron", "60 * * * *", "60 is not from 0 to 59"),
    ("cron", "* 24 * * *", "24 is not from 0 to 23"),
    ("cron", "0 0 0 * *", "0 is not from 1 to 31"),
    ("cron", "0 0 * 13 *", "from 1 to 12"),
    ("cron", "0 0 * * 8", "from 0 to 7"),
    ("cron", "0 0 * foo *", "a name such as 'jan'"),
    ("cron", "mon * * * *", "no number"),
    ("cron", "0 0 * * 7/2", "write 0/2"),
    ("cron", "1,,2 * * * *", "between its commas"),
    ("cron", "-5 * * * *", "use *, numbers"),
    ("cron", "*-5 * * * *", "use *, numbers"),
    ("cron", "0 0 31 2 *", "never due"),
    ("cron", "0 0 30 2 *", "L for the last one"),
    ("cron", "0 0 31 4,6,9,11 *", "never due"),
    ("cron", "@reboot", "There are: @annually"),
    ("cron", "0 " * 200, "at most 256"),
    ("cron", "H(9-3) * * * *", "smaller to the larger"),
    ("cron", "H(0-99) * * * *", "99 is not from 0 to 59"),
    ("interval", "0", "longer than 0 s"),
    ("interval", "0.001", "0.01 s or longer"),
    ("interval", "-5", "decimal number"),
    ("interval", "1e3", "decimal number"),
    ("interval", "9" * 20, "longer than any calendar"),
    ("once", "tomorrow", "ISO-8601"),
    ("rrule", "every day", "RFC 5545"),
    ("rrule", "FREQ=NOW", "FREQ is one of"),
    ("rrule", "INTERVAL=2", "has no FREQ"),
    ("rrule", "FREQ=DAILY;BYHOURS=3", "did you mean BYHOUR?"),
    ("rrule", "FREQ=DAILY;COUNT=3", "begin with a line such as DTSTART"),
    ("rrule", "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;COUNT=99999", "for more use UNTIL"),
    ("rrule", "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;COUNT=3;UNTIL=20270101", "leave one of them out"),
    ("rrule", "FREQ=DAILY;FREQ=DAILY", "given twice"),
    ("rrule", "FREQ=DAILY;BYHOUR=24", "from 0 to 23"),
    ("rrule", "FREQ=DAILY;BYMONTHDAY=0", "or -31 to -1 from the end"),
    ("rrule", "FREQ=WEEKLY;BYDAY=1MO", "FREQ=MONTHLY or FREQ=YEARLY"),
    ("rrule", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "never due"),
    ("rrule", "FREQ=DAILY;INTERVAL=7;BYDAY=TU", "never due"),
    ("rrule", "FREQ=YEARLY;BYEASTER=0", "no part 'BYEASTER'"),
    ("rrule", "FREQ=HOURLY;BYSETPOS=1", "name the minutes"),
    ("rrule", "DTSTART;TZID=Asia/Tokyo:20260101T000000\nRRULE:FREQ=DAILY", "make them one"),
    ("rrule", "FREQ=DAILY\nEXRULE:FREQ=DAILY", "EXDATE"),
    ("rrule", "DTSTART:yesterday\nRRULE:FREQ=DAILY", "written as 20260101T090000"),
    ("rrule", "FREQ=DAILY\nFREQ=HOURLY", "several schedules"),
    ("rrule", "FREQ=SECONDLY;INTERVAL=60;BYSECOND=30", "steps"),
    ("sometimes", "0 0 * * *", "There are: cron"),
]


@pytest.mark.parametrize(("kind", "rule", "says"), REFUSED, ids=[f"{kind} {rule[:40]}" for kind, rule, _ in REFUSED])
def test_it_is_refused_with_the_reason_and_what_to_write(kind: str, rule: str, says: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        check_rule(kind, rule)
    assert says in str(refused.value)


def test_an_expression_that_is_only_both_days_never_is_refused() -> None:
    assert check_rule("cron", "0 0 31 2 mon")  # each Monday of February
    with pytest.raises(ScheduleError, match="never due"):
        check_rule("cron", "0 0 31 2 mon", day_or=False)


def test_bounds_and_instants_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ScheduleError, match="cannot end"):
        make_rule("cron", "@daily", starts_at=utc("2026-01-02T00:00Z"), ends_at=utc("2026-01-01T00:00Z"))
    with pytest.raises(ScheduleError, match="not due at all from 2026-03-01"):
        check_rule("cron", "0 0 29 2 *", starts_at=utc("2026-03-01T00:00Z"), ends_at=utc("2028-02-28T00:00Z"))
    with pytest.raises(ScheduleError, match="not due at all from ever to 2026-01-01"):
        check_rule("once", "2026-12-24T18:00Z", ends_at=utc("2026-01-01T00:00Z"))
    with pytest.raises(ScheduleError, match="with a time zone"):
        make_rule("cron", "@daily").next_after(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ScheduleError, match="Did you mean 'Europe/Berlin'"):
        make_rule("cron", "@daily", timezone="Europe/Berln")
    for name in ("localtime", "right/UTC", "../UTC", "", "Europe"):
        with pytest.raises(ScheduleError, match="no time zone"):
            make_rule("cron", "@daily", timezone=name)


def test_nothing_is_due_outside_of_the_calendar() -> None:
    made = make_rule("cron", "@daily")
    assert made.next_after(datetime.min.replace(tzinfo=UTC)) == datetime(1900, 1, 1, tzinfo=UTC) + timedelta(days=1)
    assert made.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert make_rule("interval", "86400" + "0" * 8).next_after(utc("2026-01-01T00:00Z")) is None


# ------------------------------------------------------------------------------------------- in words

WORDS = [
    ("cron", "0 * * * *", "Europe/Berlin", "every hour"),
    ("cron", "@hourly", "UTC", "every hour"),
    ("cron", "* * * * *", "UTC", "every minute"),
    ("cron", "*/15 * * * *", "UTC", "every 15 minutes"),
    ("cron", "5 * * * *", "UTC", "every hour at minute 5"),
    ("cron", "30 2 * * *", "Europe/Berlin", "at 02:30 every day (Europe/Berlin)"),
    ("cron", "@daily", "UTC", "at 00:00 every day (UTC)"),
    ("cron", "0 7,19 * * *", "UTC", "at 07:00 and 19:00 every day (UTC)"),
    ("cron", "0 7 * * mon-fri", "Europe/Berlin", "at 07:00 on Monday to Friday (Europe/Berlin)"),
    ("cron", "0 7 * * 6,7", "UTC", "at 07:00 on Saturday and Sunday (UTC)"),
    ("cron", "@weekly", "UTC", "at 00:00 on Sunday (UTC)"),
    ("cron", "0 0 1 * *", "UTC", "at 00:00 on day 1 of every month (UTC)"),
    ("cron", "0 0 L * *", "UTC", "at 00:00 on the last day of every month (UTC)"),
    ("cron", "@yearly", "UTC", "at 00:00 on 1 January (UTC)"),
    ("cron", "0 */2 * * *", "UTC", "every 2 hours from 00:00 on (UTC)"),
    ("cron", "*/7 * * * *", "UTC", "by cron */7 * * * * (UTC)"),
    ("cron", "0 0 1 * mon", "UTC", "by cron 0 0 1 * mon (UTC)"),
    ("cron", "0 0 * * fri#2", "UTC", "by cron 0 0 * * fri#2 (UTC)"),
    ("cron", "H 3 * * *", "UTC", "by cron H 3 * * * (UTC)"),
    ("interval", "3600", "Europe/Berlin", "every hour"),
    ("interval", "90", "UTC", "every 90 seconds"),
    ("interval", "0.5", "UTC", "every 0.5 seconds"),
    ("interval", "172800", "UTC", "every 2 days (UTC)"),
    ("interval", "5400", "UTC", "every 90 minutes"),
    ("once", "2026-12-24T17:00:00Z", "Europe/Berlin", "once, on 2026-12-24 18:00 (Europe/Berlin)"),
    ("rrule", "FREQ=DAILY;BYHOUR=7", "UTC", "by the rule FREQ=DAILY;BYHOUR=7 (UTC)"),
]


@pytest.mark.parametrize(("kind", "rule", "zone", "words"), WORDS, ids=[rule for _, rule, _, _ in WORDS])
def test_a_rule_is_told_in_words_where_words_are_right(kind: str, rule: str, zone: str, words: str) -> None:
    assert describe(kind, rule, zone) == words


def test_the_words_tell_the_anchor_and_the_bounds() -> None:
    assert (
        describe("interval", "86400", "Europe/Berlin", anchor_at=utc("2026-01-01T06:00Z"))
        == "every day at 07:00 (Europe/Berlin)"
    )
    assert describe("cron", "@daily", starts_at=utc("2026-01-01T06:00Z"), ends_at=utc("2027-01-01T00:00Z")) == (
        "at 00:00 every day (UTC), from 2026-01-01 06:00 on, until 2027-01-01 00:00"
    )
    assert describe("cron", "0 0 13 * 5", day_or=False) == "by cron 0 0 13 * 5, both days (UTC)"
