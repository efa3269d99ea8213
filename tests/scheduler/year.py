"""Simulated time: a hundred schedules in ten zones, two schedulers, restarts, a clock that is set, a machine that sleeps.

    python -m tests.scheduler.year --days 365 --seed 7

Every tick is held against a model that knows nothing of the code under test: the instants come from a walk over the minutes
(`minutes`), the outcomes from the sentences on late ticks. The seed is printed; the gate runs some weeks around a change of
the clocks.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import tempfile
import time
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.conftest import VirtualClock
from tests.scheduler.minutes import Expression, walk
from wfengine_journal import store
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_scheduler.loop import Scheduler
from wfengine_scheduler.pausing import pause_schedule, unpause_schedule

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Asia/Kolkata", "America/St_Johns",
    "Africa/Casablanca", "Pacific/Chatham", "America/Santiago",
)  # fmt: skip
RULES = (
    "0 * * * *", "30 2 * * *", "30 1 * * *", "0 0 * * *", "0 7 * * mon-fri", "15 */3 * * *", "45 0 1 * *", "0 0 * * sun",
    "10,50 4 * * *", "5 2,14 */2 * *",
)  # fmt: skip
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One schedule of the simulation."""

    zone: str
    rule: str
    catch_up: str
    limit: int
    grace: float

    def columns(self) -> ScheduleColumns:
        return ScheduleColumns(
            "cron", self.rule, None, self.zone, True, "{}", "", True, misfire_grace_seconds=self.grace, catch_up=self.catch_up,
            catch_up_limit=self.limit, overlap="allow",
        )  # fmt: skip


@dataclass(slots=True)
class Moment:
    """A look at everything by a scheduler: what its clock showed, and which schedules were paused then."""

    at: float
    paused: frozenset[int]


class Simulation:
    """Two schedulers on one file, under a clock that a seed moves."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path = folder / "journal.db"
        self.clock = VirtualClock()
        self.plans = [
            Plan(zone, rule, self.random.choice(("none", "last", "all")), self.random.randint(1, 9),
                 self.random.choice((1.0, 300.0, 4000.0)))
            for zone in ZONES for rule in RULES
        ]  # fmt: skip
        self.moments: list[Moment] = []
        self.paused: set[int] = set()
        self.disturbances: dict[str, int] = {}

    def run(self, start: datetime, days: float) -> None:
        """Let so many days pass."""
        store.close_all()
        self.clock.now = start.timestamp()
        self._open()
        for number, plan in enumerate(self.plans):
            columns = DeploymentColumns(f"d{number}", None, None, None, "{}", None)
            flow_id, at = self.journal.flow_id("f", None), self.clock.now_text()
            change = PutDeployment(flow_id, columns, [plan.columns()], paused=None, at=at)
            self.journal.write(change, synced=False)
        end = start.timestamp() + days * DAY
        while self.clock.now < end:
            self._disturb()
            due = self._look()
            rest = self.random.uniform(60, 2 * HOUR)
            self.clock.now += max(0.0, min(rest, (due or end) - self.clock.now)) + self.random.uniform(0, 0.02)
        store.close_all()

    def _open(self) -> None:
        self.journal = store.open_journal(self.path, self.clock)
        self.schedulers = [Scheduler(self.journal), Scheduler(self.journal)]

    def _look(self) -> float | None:
        """Let one scheduler look, or both, one after the other."""
        due = None
        for scheduler in self.random.sample(self.schedulers, self.random.choice((1, 1, 2))):
            self.moments.append(Moment(self.clock.now, frozenset(self.paused)))
            due = scheduler.step()
        return due

    def _disturb(self) -> None:
        drawn = self.random.random()
        for share, name, seconds in (
            (0.004, "suspend", 8 * HOUR), (0.004, "back", -HOUR), (0.0005, "back a day", -DAY), (0.004, "forward", HOUR),
            (0.0005, "forward a day", DAY), (0.004, "restart", 0.0), (0.006, "pause", 0.0),
        ):  # fmt: skip
            drawn -= share
            if drawn < 0:
                self.disturbances[name] = self.disturbances.get(name, 0) + 1
                self.clock.now += seconds
                if name == "restart":
                    store.close_all()
                    self._open()
                elif name == "pause":
                    self._pause_or_not(self.random.randrange(len(self.plans)))
                return

    def _pause_or_not(self, number: int) -> None:
        if number in self.paused:
            self.moments.append(Moment(self.clock.now, frozenset(self.paused)))  # going on settles what was due, of this one
            unpause_schedule(self.journal, number + 1)
            self._settle_others()
            self.paused.discard(number)
        else:
            self._settle_others()
            pause_schedule(self.journal, number + 1)
            self.paused.add(number)

    def _settle_others(self) -> None:
        self.moments.append(Moment(self.clock.now, frozenset(self.paused)))
        self.schedulers[0].step()

    # ---- what was to be

    def expected(self, number: int, instants: list[float], first: float) -> dict[float, str]:
        """Return the outcome of each instant of a schedule that came up at one of the moments."""
        plan = self.plans[number]
        found: dict[float, str] = {}
        place = bisect_right(instants, first)
        for moment in self.moments:
            end = max(place, bisect_right(instants, moment.at))
            if end > place:
                found |= outcomes(plan, instants[place:end], moment.at, is_paused=number in moment.paused)
                place = end
        return found


def outcomes(plan: Plan, due: list[float], now: float, *, is_paused: bool) -> dict[float, str]:
    """Say what becomes of instants that come up together, by the sentences on late ticks."""
    if is_paused:
        return dict.fromkeys(due, "skipped")
    late = [instant for instant in due if now - instant > plan.grace]
    found = dict.fromkeys(due, "started")
    if plan.catch_up == "none":
        found |= dict.fromkeys(late, "missed")
    elif plan.catch_up == "last":
        newest = late[-1:] if late == due else []
        found |= {instant: "coalesced" for instant in late if instant not in newest}
    else:
        found |= dict.fromkeys(late[: max(0, len(late) - plan.limit)], "missed")
    return found


def compare(simulation: Simulation, start: datetime, until: datetime) -> tuple[int, list[str]]:
    """Hold the file against the model; return the number of ticks and what differs."""
    problems: list[str] = []
    total = 0
    with closing(sqlite3.connect(simulation.path)) as connection:
        for zone in ZONES:
            minutes = list(walk(zone, start - timedelta(hours=50), until))
            for number, plan in enumerate(simulation.plans):
                if plan.zone != zone:
                    continue
                instants = [at.timestamp() for at in Expression(plan.rule).ticks(minutes)]
                expected = simulation.expected(number, instants, start.timestamp())
                rows = connection.execute(
                    "SELECT t.nominal_at, t.outcome, r.nominal_at FROM tick t LEFT JOIN flow_run r ON r.id = t.flow_run_id"
                    " WHERE t.schedule_id = ?",
                    (number + 1,),
                ).fetchall()
                recorded = {datetime.fromisoformat(nominal).timestamp(): outcome for nominal, outcome, _ in rows}
                total += len(rows)
                for instant in sorted(expected.keys() | recorded.keys()):
                    if expected.get(instant) != recorded.get(instant):
                        when = datetime.fromtimestamp(instant, UTC).isoformat()
                        problems.append(f"{plan}: {when} was {recorded.get(instant)}, not {expected.get(instant)}")
                problems += [f"{plan}: {row}" for row in rows if (row[1] == "started") != (row[0] == row[2])]
        runs, started = connection.execute(
            "SELECT (SELECT count(*) FROM flow_run), (SELECT count(DISTINCT flow_run_id) FROM tick WHERE outcome = 'started')"
        ).fetchone()
        if runs != started:
            problems.append(f"{runs} runs for {started} ticks that started one")
    return total, problems


def simulate(folder: Path, seed: int, start: datetime, days: float) -> tuple[Simulation, int, list[str]]:
    """Let some days pass and compare."""
    simulation = Simulation(folder, seed)
    simulation.run(start, days)
    return simulation, *compare(simulation, start, start + timedelta(days=days + 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        simulation, total, problems = simulate(
            Path(folder), options.seed, datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC), options.days
        )
    print(
        f"seed {options.seed}: {options.days:g} days, {len(simulation.moments)} looks, {simulation.disturbances};"
        f" {total} ticks, {len(problems)} violations, in {time.monotonic() - began:.0f} s"
    )
    for problem in problems[:20]:
        print(problem)
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
