"""Some weeks of simulated time around changes of the clocks, held against the model of `year`; a whole year by its command."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.scheduler.year import simulate


@pytest.mark.parametrize("start", [datetime(2026, 3, 20, 0, 0, 30, tzinfo=UTC), datetime(2026, 10, 20, 0, 0, 30, tzinfo=UTC)])
def test_no_tick_is_missed_or_doubled_whatever_the_clock_and_the_daemons_do(tmp_path: Path, start: datetime) -> None:
    seed = int(os.environ.get("WFENGINE_SIMULATION_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"seed {seed}")
    simulation, total, problems = simulate(tmp_path, seed, start, 16)
    assert problems == [], f"seed {seed}"
    assert total > 3000
    assert len(simulation.disturbances) > 2
