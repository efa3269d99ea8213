"""The page on scheduling is a test: its programs are run, and its tables are what the rules say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pages import assert_page_is_true

from wfengine import schedules
from wfengine.schedules import Cron, RRule, Schedule
from wfengine_journal.errors import ScheduleError
from wfengine_scheduler.rules import make_rule, next_ticks, ticks_between
from wfengine_scheduler.zones import find_zone

PAGE = Path(__file__).parents[2] / "docs" / "scheduling.md"


def table(first_heading: str) -> list[list[str]]:
    """Return the rows of the table whose first column has that heading, without the marks of code."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text[text.index(f"| {first_heading} |") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def code(cell: str) -> str:
    return cell.strip("`")


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) >= 3


def test_the_table_of_changes_says_when_each_rule_is_due() -> None:
    rows = table("Rule")
    assert len(rows) > 15
    for rule, zone, night, due in rows:
        day = datetime.strptime(night.partition(",")[0], "%d %b %Y")  # noqa: DTZ007  # a day of the wall
        kind = "rrule" if rule.startswith("`FREQ") else "cron"
        made = make_rule(kind, code(rule) if kind == "cron" else f"DTSTART:20000101T000000\nRRULE:{code(rule)}", timezone=zone)
        walls = find_zone(zone)
        begin, end = walls.first_instant(day), walls.first_instant(day + timedelta(hours=5, minutes=59))
        found = [
            f"{walls.wall_of(tick):%H:%M}{walls.offset_at(tick) / timedelta(hours=1):+g}"
            for tick in ticks_between(made, begin - timedelta(microseconds=1), end, 100)
            if walls.wall_of(tick).date() == day.date()
        ]
        assert (", ".join(found) or "not at all") == due, (rule, zone, night)


def test_the_table_of_expressions_says_when_each_is_due_next() -> None:
    rows = table("Written")
    assert len(rows) > 12
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for written, _, due in rows:
        ticks = next_ticks(make_rule("cron", code(written), hash_id="nightly"), start, 3)
        shown = [f"{tick:%m-%d %H:%M}" if tick.year == 2026 else f"{tick:%Y-%m-%d %H:%M}" for tick in ticks]
        assert due == ("" if "H" in written else ", ".join(shown)), written


def test_what_the_page_calls_refused_is_refused_and_what_it_writes_instead_is_not() -> None:
    rows = table("Refused")
    assert len(rows) > 9
    for refused, _, write in rows:
        with pytest.raises(ScheduleError):
            Cron(code(refused))
        if match := re.fullmatch(r"`(Interval|RRule)\((.*)\)`", write):
            made: Schedule = getattr(schedules, match[1])(float(match[2]) if match[1] == "Interval" else match[2].strip('"'))
            assert made.next_ticks(1)
        elif write.startswith("`"):
            assert Cron(code(write)).next_ticks(1)


def test_the_table_of_options_has_those_that_there_are_with_their_defaults() -> None:
    rows = {name: default for names, default, _ in table("Option") for name in re.findall(r"`(\w+)`", names)}
    assert rows.keys() >= schedules.ScheduleOptions.__annotations__.keys()
    schedule = RRule("FREQ=DAILY")
    for name in ("catch_up", "overlap"):
        assert rows[name] == f'`"{getattr(schedule, name)}"`'
    for name in ("jitter", "misfire_grace"):
        assert rows[name] == f"`{getattr(schedule, name + '_seconds'):g}`"
    assert rows["catch_up_limit"] == f"`{schedule.catch_up_limit}`"
