"""A sample of the calls of the daemon that a disk may fail. `python -m tests.faults.daemons` is the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import injector
from tests.faults.daemon_child import BUG_VARIABLE, SECONDS_VARIABLE
from tests.faults.daemons import Bench, Tally, drawn, strike_all
from tests.faults.injector import Fault

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not injector.is_possible(), reason="needs Linux and gcc"),
]


def test_a_daemon_loses_nothing_doubles_nothing_and_ends_plainly_when_the_disk_fails(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print("seed", seed)
    tally = strike_all(tmp_path, drawn(14, seed))
    assert tally.violations == []
    assert tally.struck > 4
    assert tally.told > 1


@pytest.mark.parametrize(
    ("bug", "word", "first"),
    [
        ("blames a task", "no-false-state", 200),
        ("doubles a run", "once: runs", 260),
        ("forgets an event", "once: events of firings", 100),
        ("claims to be done", "stuck", 260),
    ],
)
def test_the_harness_finds_a_daemon_with_a_planted_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str, word: str, first: int
) -> None:
    monkeypatch.setenv(BUG_VARIABLE, bug)
    monkeypatch.setenv(SECONDS_VARIABLE, "2")  # whether it hangs by the bug or is only slow: it is not done
    bench = Bench(tmp_path, injector.build(tmp_path))
    tally = Tally()
    try:
        for number in range(first, first + 200, 20):  # at some of these calls there is what the bug does its harm to
            bench.strike(Fault("eio", number), tally)
            if any(word in text for text in tally.violations):
                return
    finally:
        bench.close()
    raise AssertionError(f"{word} was not found in {tally.violations}")
