"""A process may fork whatever its other threads do just then: neither it nor the child waits for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.harness import environment

pytestmark = pytest.mark.crash

FORKS = 40


@pytest.mark.timeout(300)
def test_a_child_that_is_forked_beside_transactions_and_reads_does_not_hang(tmp_path: Path) -> None:
    """What is read beside a transaction of user code has a connection of its own, which the fork has to wait for too."""
    journal = tmp_path / "journal.db"
    said = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.crash.forks", str(journal), str(FORKS)],
        capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True,
    ).stdout  # fmt: skip
    assert said.split()[-1:] == [str(FORKS)], said
    assert invariants.file_sound(journal) == []
    assert invariants.history_gapless(journal) == []
