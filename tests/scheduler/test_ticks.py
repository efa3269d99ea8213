"""What becomes of each due instant: by the sentences of "Late ticks", on a clock that stands still."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import VirtualClock
from wfengine_journal import store
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_journal.errors import InternalError, NotFoundError, UsageError
from wfengine_scheduler.backfill import backfill, plan_backfill
from wfengine_scheduler.loop import Scheduler
from wfengine_scheduler.pausing import pause_deployment, pause_schedule, unpause_deployment, unpause_schedule

HOUR = 3600.0
MIDNIGHT = datetime(2026, 3, 28, tzinfo=UTC)


class Desk:
    """A journal with one deployment, its schedules, and a clock that a test sets."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.clock = VirtualClock(MIDNIGHT.timestamp())
        self.journal = store.open_journal(self.path, self.clock)
        self.scheduler = Scheduler(self.journal)

    def deploy(self, *schedules: ScheduleColumns, paused: bool | None = None, name: str = "hourly") -> int:
        columns = DeploymentColumns(name, None, None, None, '{"size":1}', None)
        change = PutDeployment(
            self.journal.flow_id("etl", None), columns, schedules, paused=paused, at=self.journal.clock.now_text()
        )
        self.journal.write(change, synced=True)
        return change.id

    def at(self, text: str) -> None:
        """Set the clock: '05:30', or '+1d 05:30', after the midnight on which the test began."""
        day, _, time = text.rpartition(" ")
        hour, minute = map(int, time.split(":"))
        days = int(day.strip("+d") or 0)
        self.clock.now = (MIDNIGHT + timedelta(days=days, hours=hour, minutes=minute)).timestamp()

    def step_at(self, text: str) -> None:
        self.at(text)
        self.scheduler.step()

    def rows(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        self.journal.flush()
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def ticks(self) -> list[tuple[object, ...]]:
        return self.rows("SELECT substr(nominal_at, 12, 5), outcome FROM tick ORDER BY nominal_at")

    def reason(self, time: str) -> str:
        ((reason,),) = self.rows("SELECT reason FROM tick WHERE substr(nominal_at, 12, 5) = ?", time)
        return str(reason)

    def runs(self) -> list[object]:
        return [row[0] for row in self.rows("SELECT substr(nominal_at, 12, 5) FROM flow_run ORDER BY id")]

    def end(self, run_id: int, state: str = "COMPLETED") -> None:
        """Do to a run what an executor would have done in time."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE flow_run SET state = ?, ended_at = '' WHERE id = ?", (state, run_id))
            connection.commit()

    def sole_schedule(self) -> int:
        ((schedule_id,),) = self.rows("SELECT id FROM schedule WHERE removed_at IS NULL")
        return int(str(schedule_id))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store.close_all()
    yield Desk(tmp_path)
    store.close_all()


def cron(rule: str, timezone: str = "UTC", slug: str = "", parameters: str = "{}", **options: object) -> ScheduleColumns:
    return ScheduleColumns("cron", rule, None, timezone, True, parameters, slug, **{"active": True, **options})  # type: ignore[arg-type]


def test_an_instant_starts_one_run_with_the_parameters_of_both(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", parameters='{"kind":"full"}'))
    desk.step_at("00:30")
    assert desk.ticks() == []
    desk.step_at("01:00")
    desk.step_at("01:00")
    assert desk.ticks() == [("01:00", "started")]
    ((parameters, state, queue),) = desk.rows("SELECT parameters, state, queue FROM flow_run")
    assert (json.loads(str(parameters)), state, queue) == ({"size": 1, "kind": "full"}, "SCHEDULED", "default")
    assert desk.scheduler.step() == (MIDNIGHT + timedelta(hours=2)).timestamp()


@pytest.mark.parametrize(("catch_up", "runs"), [("none", 0), ("last", 1), ("all", 8)])
def test_a_night_without_a_daemon_gives_as_many_runs_of_an_hourly_job_as_was_asked_for(
    desk: Desk, catch_up: str, runs: int
) -> None:
    desk.deploy(cron("0 * * * *", catch_up=catch_up))
    desk.step_at("00:10")
    desk.step_at("08:30")
    assert len(desk.runs()) == runs
    assert [row[0] for row in desk.ticks()] == [f"0{hour}:00" for hour in range(1, 9)]
    assert desk.runs() == [f"0{hour}:00" for hour in range(9 - runs, 9)]
    others = {"none": {"missed"}, "last": {"coalesced"}, "all": set()}[catch_up]
    assert {row[1] for row in desk.ticks()} - {"started"} == others


def test_a_tick_within_its_grace_is_in_time_and_stands_for_the_late_ones(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", misfire_grace_seconds=120.0))
    desk.step_at("00:10")
    desk.step_at("03:02")
    assert desk.ticks() == [("01:00", "coalesced"), ("02:00", "coalesced"), ("03:00", "started")]
    assert desk.rows("SELECT reason FROM tick WHERE outcome = 'started'") == [(None,)]
    desk.step_at("04:03")
    assert desk.ticks()[-1] == ("04:00", "started")
    assert "late, caught up" in desk.reason("04:00")


def test_no_more_are_caught_up_than_the_limit_says_and_those_are_the_newest(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", catch_up="all", catch_up_limit=3))
    desk.step_at("00:10")
    desk.step_at("08:30")
    assert desk.runs() == ["06:00", "07:00", "08:00"]
    assert "only the newest 3 are caught up" in desk.reason("05:00")
    assert desk.ticks()[0] == ("01:00", "missed")


def test_runs_that_are_caught_up_wait_for_each_other(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", catch_up="all"))
    desk.step_at("00:10")
    desk.step_at("03:30")
    assert desk.rows("SELECT flow_run_id, needs_run_id, must_complete FROM dependency ORDER BY 1, 2") == [(2, 1, 0), (3, 2, 0)]
    desk.step_at("04:00")
    assert desk.rows("SELECT needs_run_id FROM dependency WHERE flow_run_id = 4 ORDER BY 1") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("overlap", "ticks", "needs", "states"),
    [
        ("skip", ["started", "skipped"], [], ["SCHEDULED"]),
        ("allow", ["started", "started"], [], ["SCHEDULED", "SCHEDULED"]),
        ("queue", ["started", "started"], [(2, 1)], ["SCHEDULED", "SCHEDULED"]),
        ("cancel", ["started", "started"], [(2, 1)], ["CANCELLED", "SCHEDULED"]),
    ],
)
def test_what_is_due_while_a_former_run_has_not_ended(
    desk: Desk, overlap: str, ticks: list[str], needs: list[tuple[int, int]], states: list[str]
) -> None:
    desk.deploy(cron("0 * * * *", overlap=overlap))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.step_at("02:00")
    assert [row[1] for row in desk.ticks()] == ticks
    assert desk.rows("SELECT flow_run_id, needs_run_id FROM dependency") == needs
    assert [row[0] for row in desk.rows("SELECT state FROM flow_run ORDER BY id")] == states
    desk.end(1)
    desk.end(2)
    desk.step_at("03:00")
    assert desk.ticks()[-1] == ("03:00", "started")
    assert desk.rows("SELECT * FROM dependency WHERE flow_run_id = 3") == []


def test_a_skipped_tick_says_which_run_was_in_its_way(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", overlap="skip"))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.step_at("02:00")
    ((name,),) = desk.rows("SELECT name FROM flow_run")
    assert desk.reason("02:00") == f"flow run 1 '{name}' is Scheduled (overlap='skip')"


def test_a_run_that_nobody_takes_up_any_more_is_in_nobodys_way(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", overlap="skip"))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.end(1, "CRASHED")
    desk.step_at("02:00")
    assert desk.ticks()[-1] == ("02:00", "skipped")
    with closing(sqlite3.connect(desk.path)) as connection:
        connection.execute("UPDATE flow_run SET crashes = 11")
        connection.commit()
    desk.step_at("03:00")
    assert desk.ticks()[-1] == ("03:00", "started")


def test_only_so_many_runs_wait_for_each_other(desk: Desk) -> None:
    desk.deploy(cron("* * * * *", misfire_grace_seconds=86400.0))
    desk.step_at("00:00")
    desk.step_at("01:42")
    assert [row[1] for row in desk.ticks()] == ["started"] * 100 + ["skipped"] * 2
    assert "100 runs of this schedule wait for each other already" in desk.reason("01:42")


def test_schedules_of_one_deployment_do_not_stand_in_each_others_way(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", overlap="skip"), cron("0 */2 * * *", slug="even", overlap="skip"))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.end(1)
    desk.step_at("02:00")
    assert sorted(desk.ticks()) == [("01:00", "started"), ("02:00", "started"), ("02:00", "started")]
    desk.end(2)
    desk.end(3)
    desk.step_at("03:00")
    assert ("03:00", "started") in desk.ticks()


def test_what_is_due_during_a_pause_is_skipped_and_never_caught_up(desk: Desk) -> None:
    deployment_id = desk.deploy(cron("0 * * * *", catch_up="all"))
    desk.step_at("00:10")
    pause_deployment(desk.journal, deployment_id)
    desk.step_at("01:00")
    assert (desk.ticks(), desk.reason("01:00")) == ([("01:00", "skipped")], "the deployment was paused")
    desk.at("04:30")  # no daemon meanwhile
    unpause_deployment(desk.journal, deployment_id)
    desk.step_at("04:40")
    desk.step_at("05:00")
    assert [row[1] for row in desk.ticks()] == ["skipped"] * 4 + ["started"]
    pause_schedule(desk.journal, desk.sole_schedule())
    desk.at("07:30")
    unpause_schedule(desk.journal, desk.sole_schedule())
    desk.step_at("08:00")
    assert [row[1] for row in desk.ticks()][5:] == ["skipped", "skipped", "started"]
    assert desk.reason("06:00") == "the schedule was paused"
    with pytest.raises(NotFoundError):
        pause_schedule(desk.journal, 99)
    with pytest.raises(NotFoundError):
        unpause_deployment(desk.journal, 99)


def test_a_deployment_goes_on_in_the_commit_that_settles_all_its_schedules(desk: Desk) -> None:
    deployment_id = desk.deploy(cron("0 * * * *", catch_up="all"), cron("30 * * * *", slug="half", catch_up="all"))
    desk.step_at("00:10")
    pause_deployment(desk.journal, deployment_id)
    desk.at("03:10")
    seen: list[tuple[object, ...]] = []

    def look(moment: str, number: int, changes: object) -> None:
        with closing(sqlite3.connect(desk.path)) as connection:
            seen.extend(connection.execute("SELECT paused, (SELECT count(*) FROM tick) FROM deployment"))

    desk.journal.probe_commits(look)
    unpause_deployment(desk.journal, deployment_id)
    assert seen == [(1, 0), (0, 6)]  # before and after the only commit


def test_a_pause_that_its_author_ends_is_not_caught_up(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", catch_up="all"), paused=True)
    desk.step_at("00:10")
    desk.at("04:30")
    desk.deploy(cron("0 * * * *", catch_up="all"), paused=False)
    desk.step_at("04:40")
    assert desk.ticks() == []
    desk.deploy(cron("0 * * * *", catch_up="all", active=False), paused=False)
    desk.at("07:30")
    desk.deploy(cron("0 * * * *", catch_up="all"), paused=False)
    desk.step_at("07:40")
    desk.step_at("08:00")
    assert desk.ticks() == [("08:00", "started")]


def test_a_clock_that_is_set_back_repeats_nothing(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *"))
    for time in ("00:10", "01:00", "02:00", "01:00", "01:30", "02:00", "02:30"):
        desk.step_at(time)
    assert desk.ticks() == [("01:00", "started"), ("02:00", "started")]
    desk.step_at("03:00")
    assert desk.ticks()[-1] == ("03:00", "started")


def test_an_instant_jumped_over_by_the_clock_is_a_late_one(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *"))
    desk.step_at("00:59")
    desk.step_at("03:30")
    assert [row[1] for row in desk.ticks()] == ["coalesced", "coalesced", "started"]


@pytest.mark.parametrize(("rule", "utc"), [("30 2 * * *", "01:00"), ("30 1 * * *", "00:30")])
def test_a_daily_job_in_the_gap_or_before_it_runs_once_that_day(desk: Desk, rule: str, utc: str) -> None:
    desk.deploy(cron(rule, "Europe/Berlin"))  # 2026-03-29: 02:00 becomes 03:00, which is 01:00 UTC
    desk.step_at("23:59")
    for minute in range(0, 24 * 60, 10):
        desk.step_at(f"+1d {minute // 60:02}:{minute % 60:02}")
    ticks = desk.rows("SELECT substr(nominal_at, 12, 5), outcome FROM tick WHERE nominal_at GLOB '2026-03-29T0*'")
    assert ticks == [(utc, "started")]


def test_a_daily_job_in_the_overlap_runs_once(desk: Desk) -> None:
    desk.clock.now = datetime(2026, 10, 24, 23, 59, tzinfo=UTC).timestamp()
    desk.deploy(cron("30 2 * * *", "Europe/Berlin"))  # 2026-10-25: from 03:00 back to 02:00
    for _ in range(24 * 6):
        desk.clock.now += 600
        desk.scheduler.step()
    assert desk.rows("SELECT substr(nominal_at, 12, 5), outcome FROM tick") == [("00:30", "started")]


def test_jitter_delays_a_tick_by_what_is_fixed_for_it_and_it_is_not_late_for_that(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", jitter_seconds=1800.0, misfire_grace_seconds=1.0))
    due = desk.scheduler.step()
    assert due is not None
    delays = []
    for hour in range(1, 9):
        nominal = (MIDNIGHT + timedelta(hours=hour)).timestamp()
        assert nominal <= due <= nominal + 1800
        delays.append(due - nominal)
        desk.clock.now = due - 0.001
        assert desk.scheduler.step() == pytest.approx(due, abs=1e-5)
        desk.clock.now = due + 0.001
        due = Scheduler(desk.journal).step()
        assert due is not None
    assert [row[1] for row in desk.ticks()] == ["started"] * 8
    assert len(set(delays)) == 8
    assert desk.rows("SELECT DISTINCT reason FROM tick") == [(None,)]


def test_of_a_long_absence_the_older_instants_share_one_row(desk: Desk) -> None:
    desk.deploy(cron("* * * * *", misfire_grace_seconds=30.0))
    desk.step_at("00:00")
    desk.step_at("+90d 00:30")
    ((rows, started),) = desk.rows("SELECT count(*), sum(outcome = 'started') FROM tick")
    assert isinstance(rows, int)
    assert 5_000 < rows <= 10_001
    assert started == 1
    (first, second) = desk.rows("SELECT nominal_at, reason FROM tick ORDER BY nominal_at LIMIT 2")
    assert first[0] == "2026-03-28T00:01:00.000000Z"
    last = datetime.fromisoformat(str(second[0])) - timedelta(minutes=1)
    assert f"all instants up to {last:%Y-%m-%dT%H:%M}" in str(first[1])


def test_a_schedule_that_has_ended_is_not_looked_at_again(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", ends_at="2026-03-28T02:00:00.000000Z"))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.at("05:00")
    assert desk.scheduler.step() is None
    assert [row[0] for row in desk.ticks()] == ["01:00", "02:00"]
    assert desk.rows("SELECT next_at, due_at FROM schedule") == [(None, None)]


def test_a_schedule_that_is_removed_starts_nothing_and_keeps_its_ticks(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *"))
    desk.step_at("01:00")
    desk.at("02:00")
    desk.deploy()
    desk.scheduler.step()
    assert desk.ticks() == [("01:00", "started")]
    desk.at("05:30")
    desk.deploy(cron("0 * * * *"))
    desk.step_at("06:00")
    assert desk.ticks() == [("01:00", "started"), ("06:00", "started")]


def test_a_rule_that_cannot_be_read_stops_nobody_else(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *"))
    with closing(sqlite3.connect(desk.path)) as connection:
        connection.execute("UPDATE schedule SET rule = '15-15 * * * *'")
        connection.commit()
    desk.deploy(cron("0 * * * *"), name="other")
    desk.step_at("01:00")
    desk.step_at("02:00")
    assert desk.ticks() == [("01:00", "started"), ("02:00", "started")]
    assert desk.scheduler.report()["unreadable_schedules"] == [1]


def test_a_backfill_starts_what_never_ran_and_nothing_twice(desk: Desk) -> None:
    desk.deploy(cron("0 * * * *", catch_up="none"))
    desk.step_at("00:10")
    desk.step_at("01:00")
    desk.step_at("05:30")
    start, end = MIDNIGHT - timedelta(hours=2), MIDNIGHT + timedelta(hours=9)
    planned = plan_backfill(desk.journal, 1, start, end)
    assert [(one.nominal_at[5:16], one.outcome) for one in planned] == [
        *((f"03-27T{hour}:00", None) for hour in (22, 23)), ("03-28T00:00", None),
        *((f"03-28T0{hour}:00", "missed") for hour in (2, 3, 4, 5)),
    ]  # fmt: skip
    assert len(desk.runs()) == 1
    assert len(backfill(desk.journal, 1, start, end)) == 7
    assert backfill(desk.journal, 1, start, end) == {}
    assert len(desk.runs()) == 8
    assert desk.reason("04:00") == "backfill (was missed)"
    assert desk.rows("SELECT count(*) FROM dependency") == [(6,)]
    with pytest.raises(UsageError, match="more than 2 instants"):
        plan_backfill(desk.journal, 1, start - timedelta(days=1), end, limit=2)
    with pytest.raises(UsageError, match="to a later one"):
        plan_backfill(desk.journal, 1, end, start)


def test_an_error_that_nobody_thought_of_is_a_fault_and_not_a_scheduler_that_starts_nothing_more(desk: Desk) -> None:
    launched = threading.Event()

    def launch(_: int) -> None:
        launched.set()
        raise LookupError("of the launch")

    desk.deploy(cron("0 * * * *"))
    desk.at("01:00")
    scheduler = Scheduler(desk.journal, launch=launch)
    scheduler.start()
    assert launched.wait(60)
    scheduler.stop(60)
    with pytest.raises(InternalError, match="scheduler of this daemon cannot go on: LookupError: of the launch"):
        raise scheduler.fault or AssertionError("it has no fault")
