"""Some hundred rounds of a flow that does some of everything: the process holds no more after them than before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.harness import environment
from tests.soak.__main__ import LARGEST_LOG, Sample, Soak

#: Rounds before the first look, and between that and the last.
WARM_UP, ROUNDS = 30, 200
#: Threads that may stand idle at one look and not at the other: one more in each round would be two hundred.
IDLE_THREADS = 8
#: Kilobytes by which the allocator's own steps may differ.
STEPS = 8192


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is asked of /proc")
@pytest.mark.timeout(300)
def test_descriptors_threads_memory_and_log_are_the_same_after_two_hundred_rounds(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    variables = environment() | {"WFENGINE_SOAK_FOLDER": str(tmp_path), "WFENGINE_DURABILITY": "process"}
    command = [sys.executable, "-W", "error", "-m", "tests.soak.serving", str(journal), "1"]
    said = subprocess.run(
        command, input=f"{WARM_UP}\n{ROUNDS}\n", capture_output=True, text=True, env=variables, check=True
    ).stdout  # fmt: skip
    before, after = map(json.loads, said.splitlines())
    print(before, after)
    assert after["descriptors"] <= before["descriptors"] + IDLE_THREADS  # a thread that reads has one of its own
    assert after["threads"] <= before["threads"] + IDLE_THREADS
    assert after["resident"] <= before["resident"] + STEPS
    log = Path(f"{journal}-wal")
    assert not log.exists() or log.stat().st_size < LARGEST_LOG


def lives(descriptors: int = 0, threads: int = 0, resident: int = 0, log: int = 0) -> Soak:
    """Return a soak of an hour in which these grew so much from one look to the next."""
    return Soak([
        Sample(at * 60.0, 1, 20 + at * descriptors, 9 + at * threads, 50_000 + at * resident, 4_000 + at * log, at)
        for at in range(60)
    ])  # fmt: skip


@pytest.mark.parametrize("growth", [{"descriptors": 1}, {"threads": 1}, {"resident": 300}, {"log": 2_000_000}])
def test_a_soak_in_which_something_grows_is_judged_so(growth: dict[str, int]) -> None:
    found = lives(**growth)
    found.judge()
    assert len(found.violations) == 1


def test_a_soak_in_which_nothing_grows_is_judged_so() -> None:
    found = lives()
    found.judge()
    assert found.violations == []
