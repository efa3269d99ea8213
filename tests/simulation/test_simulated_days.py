"""A day of a daemon that is killed again and again, under clocks that are set; and what the simulation is there to find."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash import effects
from tests.crash.effects import Effect
from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from tests.simulation.program import DAY, LIFE, Simulation, all_violations, limits_kept, order_of_queues, simulate

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(LIFE, environment())
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Simulation:
    """A fourth of a day, without a violation."""
    folder = tmp_path_factory.mktemp("simulated") / "6"
    folder.mkdir()
    simulation = Simulation(folder, 6)
    assert simulation.run(0.25, nursery).violations == []
    return simulation


@pytest.mark.timeout(600)
def test_a_day_of_deaths_and_clocks_that_are_set_loses_and_doubles_nothing(tmp_path: Path, nursery: Nursery) -> None:
    """WFENGINE_SIMULATION_SEED repeats a run of this test."""
    seed = int(os.environ.get("WFENGINE_SIMULATION_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"WFENGINE_SIMULATION_SEED={seed}")
    result = simulate(tmp_path / str(seed), seed, 1.0, nursery)
    print(result)
    assert result.violations == [], f"seed {seed}"
    assert result.kills
    assert result.runs


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("every-tick-once", "DELETE FROM tick WHERE nominal_at = (SELECT min(nominal_at) FROM tick)"),
        ("every-tick-once", "UPDATE tick SET nominal_at = '2026-01-01T00:00:01.000000Z'"
         " WHERE (schedule_id, nominal_at) = (SELECT schedule_id, nominal_at FROM tick LIMIT 1)"),
        ("runs-as-ticks-say", "UPDATE tick SET flow_run_id = (SELECT min(flow_run_id) FROM tick)"
         " WHERE flow_run_id = (SELECT max(flow_run_id) FROM tick)"),
        ("right-endings", "UPDATE flow_run SET result = 3 WHERE id = (SELECT min(id) FROM flow_run WHERE state = 'COMPLETED'"
         " AND parent_task_run_id IS NULL)"),
        ("right-endings", "UPDATE flow_run SET state = 'CANCELLED' WHERE id = 1"),
        ("nothing-left-running", "UPDATE flow_run SET state = 'SCHEDULED', ended_at = NULL WHERE id = 1"),
        ("messages-once", "UPDATE message SET received_by = (SELECT min(received_by) FROM message)"),
        ("messages-once", "UPDATE message SET received_by = NULL"),
    ],
)  # fmt: skip
def test_every_invariant_of_the_simulation_can_fail(tmp_path: Path, morning: Simulation, check: str, damage: str) -> None:
    path = tmp_path / "journal.db"
    shutil.copy(morning.path, path)  # no process has it open
    seen = effects.read(morning.folder / "effects.txt")
    until = morning.start.timestamp() + DAY / 4
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(damage)
        assert connection.total_changes
    found = all_violations(path, morning.plans, morning.start.timestamp(), until, seen)
    assert check in {text.partition(":")[0] for text in found}


def test_crowds_queue_jumpers_and_repeated_calls_are_found(morning: Simulation) -> None:
    seen = effects.read(morning.folder / "effects.txt")
    until = morning.start.timestamp() + DAY / 4

    def found(effects_seen: list[Effect]) -> set[str]:
        texts = all_violations(morning.path, morning.plans, morning.start.timestamp(), until, effects_seen)
        return {text.partition(":")[0] for text in texts}

    assert found(seen) == set()
    first_ack = next(effect for effect in seen if effect.kind == "ack" and not effect.call.endswith("/input"))
    assert "acknowledged-never-again" in found([*seen, Effect("run", first_ack.call)])
    last = next(effect for effect in reversed(seen) if effect.kind == "run")
    assert "calls-done" in found([*seen, Effect("run", last.call), Effect("run", last.call)])
    assert "calls-done" in found([effect for effect in seen if effect.kind != "run"])
    assert limits_kept([Effect("crowd", "quick")])
    plan = next(plan for plan in (*morning.plans,))
    alone = type(plan)(plan.flow, plan.zone, plan.rule, plan.queue, 1, plan.catch_up, plan.overlap, plan.priority)
    assert order_of_queues(morning.path, [alone], [Effect("begin", f"{plan.flow}/2"), Effect("begin", f"{plan.flow}/1")])
