"""Kill real flows at random moments, several times each, during recovery too."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.program import Torture

pytestmark = pytest.mark.crash


@pytest.mark.timeout(900)
def test_random_kills_lose_nothing_and_repeat_nothing_acknowledged(tmp_path: Path) -> None:
    """WFENGINE_CRASH_SEED repeats a run of this test, WFENGINE_CRASH_KILLS makes it longer."""
    seed = int(os.environ.get("WFENGINE_CRASH_SEED") or random.SystemRandom().randrange(1_000_000))
    kills = int(os.environ.get("WFENGINE_CRASH_KILLS") or 80)
    print(f"WFENGINE_CRASH_SEED={seed}")
    tally = Torture(tmp_path, kills, seed).run()
    print(tally)
    assert tally.violations == []
    assert tally.kills >= kills
    assert tally.most_kills_of_a_run > 1
