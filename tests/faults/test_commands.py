"""A sample of commands under which the disk fails. `python -m tests.faults.commands` is the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import injector
from tests.faults.command_child import BUG_VARIABLE
from tests.faults.commands import Bench, Tally, drawn, strike_all
from tests.faults.injector import Fault

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not injector.is_possible(), reason="needs Linux and gcc"),
]


def test_no_command_shows_a_traceback_or_claims_what_it_did_not_do_when_the_disk_fails(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print("seed", seed)
    tally = strike_all(tmp_path, drawn(60, seed))
    assert tally.violations == []
    assert tally.struck > 10


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (("backup", "copy.db"), Fault("sync", 1)),  # it was said to be written
        (("extract", "1", "small.db"), Fault("sync", 1, sticky=True)),  # the same
        (("recover", "journal.db", "-o", "rescued.db", "--force"), Fault("open", 3)),  # it was called a fault in wfengine
    ],
)
def test_what_once_went_wrong_under_a_failing_disk_does_not_again(
    tmp_path: Path, command: tuple[str, ...], fault: Fault
) -> None:
    bench, tally = Bench(tmp_path, injector.build(tmp_path)), Tally()
    bench.strike(command, fault, tally)
    bench.close()
    assert tally.violations == []
    assert (tally.struck, tally.told) == (1, 1)


@pytest.mark.parametrize(
    ("bug", "found"), [("claims to be done", "claims to have done what it did not"), ("shows a traceback", "a defect")]
)
def test_a_command_with_a_planted_bug_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str, found: str
) -> None:
    monkeypatch.setenv(BUG_VARIABLE, bug)
    bench, tally = Bench(tmp_path, injector.build(tmp_path)), Tally()
    bench.strike(("variables", "set", "size", "7"), Fault("eio", 1, sticky=True), tally)
    bench.close()
    assert any(found in text for text in tally.violations), tally.violations
