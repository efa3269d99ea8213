"""A day of a machine that serves: schedules, runs, limits, retries, sleeps, questions - and deaths, and clocks that are set.

    python -m tests.simulation.program --days 1 --seeds 100 --seed 7

Real processes execute real flows on a real file, under a virtual clock; each life of the daemon ends by SIGKILL around a commit
that the seed draws, most of them. At the end of the days what is left comes to its end, and every promise is held against the
file and against what the tasks left beside it. No wall time decides anything; the seed is printed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.crash import effects, invariants
from tests.crash.effects import Effect
from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from tests.scheduler.minutes import Expression, walk
from tests.simulation.clock import MachineClock
from tests.simulation.flows import ENDINGS
from wfengine_journal import store
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.codec import json_text
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_journal.quotas import PutQuota

LIFE = Path(__file__).with_name("life.py")
HOUR, DAY = 3600.0, 86400.0
#: The nights in which clocks change somewhere, and days like any other.
STARTS = (
    datetime(2026, 3, 28, 14, tzinfo=UTC), datetime(2026, 10, 24, 14, tzinfo=UTC), datetime(2026, 3, 7, 20, tzinfo=UTC),
    datetime(2026, 4, 4, 9, tzinfo=UTC), datetime(2026, 7, 1, 0, tzinfo=UTC), datetime(2026, 12, 31, 6, tzinfo=UTC),
)  # fmt: skip
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC")
RULES = ("0 * * * *", "30 2 * * *", "*/20 * * * *", "15 */2 * * *", "10,50 1-4 * * *")
#: Commits that a life has before it is killed, at the most.
LONGEST_LIFE_COMMITS = 90
#: Lives that one simulation has, at the most.
MOST_LIVES = 5000


@dataclass(frozen=True, slots=True)
class Plan:
    """One deployment of the simulation."""

    flow: str
    zone: str
    rule: str
    queue: str
    limit: int | None
    catch_up: str
    overlap: str
    priority: int

    @property
    def name(self) -> str:
        return self.flow


@dataclass(slots=True)
class Result:
    """What came of a simulation."""

    seed: int
    ticks: int = 0
    runs: int = 0
    kills: int = 0
    lives: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.ticks} ticks {dict(self.outcomes)}, {self.runs} runs, {self.kills} kills in {self.lives}"
            f" lives, {dict(self.disturbances)}; {len(self.violations)} violations"
        )


class Simulation:
    """One machine, from the first life of its daemon to the end of the last run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.path = folder / "journal.db"
        self.dice = random.Random(seed)
        self.result = Result(seed)
        self.start = self.dice.choice(STARTS)
        self.plans = [self._plan(flow) for flow in ENDINGS]

    def _plan(self, flow: str) -> Plan:
        dice = self.dice
        queue = dice.choice(("default", "narrow"))
        return Plan(
            flow, dice.choice(ZONES), dice.choice(RULES), queue, dice.choice((None, 1, 2)),
            dice.choice(("none", "last", "all")), dice.choice(("skip", "queue", "allow")), dice.choice((0, 0, 5)),
        )  # fmt: skip

    def prepare(self) -> None:
        """Write the deployments."""
        journal = store.open_journal(self.path, MachineClock(self.folder / "clock", self.start.timestamp()))
        try:
            for plan in self.plans:
                flow_id, at = journal.flow_id(plan.flow, None), journal.clock.now_text()
                columns = DeploymentColumns(
                    plan.name, None, None, None, json_text({"deployment": plan.name, "limit": plan.limit or 0}), None,
                    queue=plan.queue, priority=plan.priority, concurrency_limit=plan.limit, max_recoveries=1_000_000,
                )  # fmt: skip
                schedule = ScheduleColumns(
                    "cron", plan.rule, None, plan.zone, True, "{}", "", True, misfire_grace_seconds=600.0,
                    catch_up=plan.catch_up, catch_up_limit=5, overlap=plan.overlap,
                )  # fmt: skip
                journal.write(PutDeployment(flow_id, columns, [schedule], paused=None, at=at), synced=False)
            journal.write(PutQuota("queue:narrow", at=journal.clock.now_text(), slots=2), synced=False)
        finally:
            journal.close()

    def run(self, days: float, nursery: Nursery) -> Result:
        """Let the days pass, and what is left come to its end; hold everything against the promises."""
        self.prepare()
        until = self.start.timestamp() + days * DAY
        clock = MachineClock(self.folder / "clock", 0.0)
        while MachineClock(self.folder / "clock", 0.0).wall_seconds() < until and self.result.lives < MOST_LIVES:
            kill = self.dice.randint(1, LONGEST_LIFE_COMMITS) if self.dice.random() < 0.9 else 0
            # A life that is not killed stops by itself after some hours, as when the machine is restarted.
            end = until if kill else min(until, MachineClock(self.folder / "clock", 0.0).wall_seconds() + 3 * HOUR)
            self._live(nursery, end, kill)
        while self._live(nursery, 0.0, self.dice.randint(1, LONGEST_LIFE_COMMITS)) == -9:
            pass
        said = (self.folder / "stdout.txt").read_text(encoding="utf-8").split()
        if said[-1:] != ["ended"]:
            self.result.violations.append("nothing-stuck: not everything came to its end")
        del clock
        self._check(until)
        return self.result

    def _live(self, nursery: Nursery, until: float, kill: int) -> int:
        self.result.lives += 1
        variables = {effects.VARIABLE: str(self.folder / "effects.txt")}
        effects_file = self.folder / "effects.txt"
        with effects_file.open("a", encoding="utf-8") as file:
            file.write("start 0\n")
        arguments = [str(self.folder), str(self.result.seed), str(self.result.lives), str(until), str(kill)]
        code = nursery.run(self.folder, arguments, variables)
        self.result.kills += code == -9
        if code not in (0, -9):
            stderr = (self.folder / "stderr.txt").read_text(encoding="utf-8")[-3000:]
            self.result.violations.append(f"life {self.result.lives} ended with {code}: {stderr}")
            raise AssertionError(str(self.result) + "\n" + stderr)
        return code

    def _check(self, until: float) -> None:
        seen = effects.read(self.folder / "effects.txt")
        self.result.violations += all_violations(self.path, self.plans, self.start.timestamp(), until, seen)
        ticks = invariants.query(self.path, "SELECT outcome, count(*) FROM tick GROUP BY outcome")
        self.result.outcomes = Counter({str(outcome): int(str(number)) for outcome, number in ticks})
        self.result.ticks = self.result.outcomes.total()
        ((runs,),) = invariants.query(self.path, "SELECT count(*) FROM flow_run WHERE parent_task_run_id IS NULL")
        self.result.runs = int(str(runs))
        noted = self.folder / "disturbances.txt"
        if noted.exists():
            self.result.disturbances = Counter(noted.read_text(encoding="utf-8").splitlines())


# ------------------------------------------------------------------------------------------- what must hold


def all_violations(path: Path, plans: Sequence[Plan], start: float, until: float, seen: Sequence[Effect]) -> list[str]:
    """Return everything that is wrong at the end of a simulation."""
    return (
        invariants.file_sound(path)
        + invariants.history_gapless(path)
        + invariants.nothing_left_running(path)
        + invariants.acknowledged_never_again(seen)
        + every_tick_once(path, plans, start, until)
        + runs_as_ticks_say(path)
        + right_endings(path)
        + calls_done(path, seen)
        + limits_kept(seen)
        + order_of_queues(path, plans, seen)
        + messages_once(path)
    )


def every_tick_once(path: Path, plans: Sequence[Plan], start: float, until: float) -> list[str]:
    """G6: each instant that the rule names, by a walk over the minutes, has one outcome, and nothing else has one."""
    violations = []
    begin = datetime.fromtimestamp(start, UTC)
    last = max((seconds_from_text(str(at)) for (at,) in invariants.query(path, "SELECT nominal_at FROM tick")), default=until)
    end = datetime.fromtimestamp(max(until, last), UTC) + timedelta(hours=1)
    walks = {zone: list(walk(zone, begin - timedelta(hours=50), end)) for zone in ZONES}
    for number, plan in enumerate(plans):
        instants = {at.timestamp() for at in Expression(plan.rule).ticks(walks[plan.zone]) if at.timestamp() > start}
        ((decided,),) = invariants.query(path, f"SELECT decided_to FROM schedule WHERE deployment_id = {number + 1}")
        decided_to = start if decided is None else seconds_from_text(str(decided))
        rows = invariants.query(
            path,
            f"SELECT t.nominal_at FROM tick t JOIN schedule s ON s.id = t.schedule_id WHERE s.deployment_id = {number + 1}",
        )
        recorded = Counter(seconds_from_text(str(at)) for (at,) in rows)
        expected = {at for at in instants if at <= decided_to}
        # Decided up to the newest tick at least, and to the end of the days: the last look was after that.
        expected |= {at for at in instants if at < until - HOUR}
        for at in sorted(expected ^ recorded.keys()):
            when = datetime.fromtimestamp(at, UTC).isoformat()
            violations.append(f"every-tick-once: {plan.name}: {when} has {recorded[at]} outcomes")
        violations += [f"every-tick-once: {plan.name}: {at} has {n} outcomes" for at, n in recorded.items() if n != 1]
    return violations


def runs_as_ticks_say(path: Path) -> list[str]:
    """A tick that started a run has that one, and no run is there that no tick has started."""
    rows = invariants.query(
        path,
        "SELECT 'tick without run', t.nominal_at, t.outcome FROM tick t LEFT JOIN flow_run r ON r.id = t.flow_run_id"
        "  AND r.nominal_at = t.nominal_at WHERE (t.outcome = 'started') <> (r.id IS NOT NULL)"
        " UNION ALL SELECT 'run without tick', r.id, r.state FROM flow_run r WHERE r.parent_task_run_id IS NULL"
        "  AND (SELECT count(*) FROM tick t WHERE t.flow_run_id = r.id) <> 1",
    )
    return [f"runs-as-ticks-say: {row}" for row in rows]


def right_endings(path: Path) -> list[str]:
    """Each run has the state and the result that its flow has when nobody disturbs it."""
    rows = invariants.query(path, "SELECT flow, id, state, result FROM runs WHERE parent_run_id IS NULL")
    violations = []
    for flow, run_id, state, result in rows:
        wanted, value = ENDINGS[str(flow)]
        if state != wanted or (value is not None and str(result) != str(value)):
            violations.append(f"right-endings: run {run_id} of {flow} is {state} with {result!r}, not {wanted} with {value!r}")
    return violations


def calls_done(path: Path, seen: Sequence[Effect]) -> list[str]:
    """What a run was given was done, and as often as there was a life to do it in: once in each at the most."""
    violations = []
    done: set[str] = set()
    in_this_life: set[str] = set()
    for effect in seen:
        if effect.kind == "start":
            in_this_life = set()
        elif effect.kind == "run":
            if effect.call in in_this_life:
                violations.append(f"calls-done: {effect.call} ran twice in one life")
            in_this_life.add(effect.call)
            done.add(effect.call)
        elif effect.kind == "ack" and effect.call not in done and not effect.call.endswith("/input"):
            violations.append(f"calls-done: {effect.call} was given, and never ran")
    given = {effect.call.split("/")[0] for effect in seen if effect.kind == "ack"}
    runs = {str(run_id) for (run_id,) in invariants.query(path, "SELECT id FROM runs WHERE parent_run_id IS NULL")}
    return violations + [f"calls-done: run {run_id} did nothing" for run_id in sorted(runs - given)]


def limits_kept(seen: Sequence[Effect]) -> list[str]:
    """At no instant more runs of a deployment are in their body than its limit says."""
    return [f"limits-kept: too many runs of {effect.call} at once" for effect in seen if effect.kind == "crowd"]


def order_of_queues(path: Path, plans: Sequence[Plan], seen: Sequence[Effect]) -> list[str]:
    """Runs of a deployment that has one place begin in the order in which they were queued."""
    violations = []
    for plan in plans:
        if plan.limit != 1:
            continue
        begun = [int(effect.call.split("/")[1]) for effect in seen if effect.kind == "begin"
                 and effect.call.startswith(f"{plan.name}/")]  # fmt: skip
        first = list(dict.fromkeys(begun))
        if first != sorted(first):
            violations.append(f"order-of-queues: runs of {plan.name} began in the order {first}")
    return violations


def messages_once(path: Path) -> list[str]:
    """Each message was sent once and received once."""
    rows = invariants.query(
        path,
        "SELECT r.id, count(m.id), count(DISTINCT m.received_by) FROM runs r LEFT JOIN message m ON m.flow_run_id = r.id"
        " WHERE r.flow = 'talking' GROUP BY r.id HAVING count(m.id) <> 3 OR count(DISTINCT m.received_by) <> 3",
    )
    return [f"messages-once: (run, sent, received) = {row}" for row in rows]


# ------------------------------------------------------------------------------------------- by command


def simulate(folder: Path, seed: int, days: float, nursery: Nursery) -> Result:
    """Run one simulation in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Simulation(folder, seed).run(days, nursery)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run simulations of many seeds; exit code 1 if there were violations, whose folders are kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.program", description="Simulate days of a daemon.")
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=10, help="simulate so many, beginning with --seed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="wfengine-simulation-"))
    nursery = Nursery(LIFE, environment())
    total, kills, ticks, runs = 0, 0, 0, 0
    for seed in range(options.seed, options.seed + options.seeds):
        began = time.monotonic()
        result = simulate(root / str(seed), seed, options.days, nursery)
        print(f"{result} in {time.monotonic() - began:.1f} s", flush=True)
        for violation in result.violations[:20]:
            print(f"  {violation}")
        total, kills, ticks, runs = (
            total + len(result.violations), kills + result.kills, ticks + result.ticks, runs + result.runs
        )  # fmt: skip
        if not result.violations:
            shutil.rmtree(root / str(seed))
    nursery.close()
    print(
        f"{options.seeds} x {options.days:g} days from seed {options.seed}: {ticks} ticks, {runs} runs, {kills} kills;"
        f" {total} violations"
    )
    if not total:
        shutil.rmtree(root)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
