"""A sample of the system calls of a small flow, each of which goes wrong.

`python -m tests.faults.program --all` does all.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.harness import Case
from tests.faults import harness, injector
from tests.faults.injector import DISK_KINDS, HARMLESS_KINDS, KILL_KINDS
from tests.faults.program import SMALL_FLOW, series
from wfengine_journal.errors import JournalUnwritableError
from wfengine_journal.store import open_journal

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not injector.is_possible(), reason="needs Linux and gcc"),
]
SEED = 8


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return injector.build(tmp_path_factory.mktemp("injector"))


def test_whatever_call_of_the_disk_fails_the_run_ends_rightly_or_can_be_resumed(tmp_path: Path, library: Path) -> None:
    struck = harness.strike_all(SMALL_FLOW, tmp_path, library, series([*DISK_KINDS, *HARMLESS_KINDS], 71, SEED))
    assert harness.all_violations(struck) == []
    assert {one.fault.kind for one in struck} >= {"enospc", "eio", "read", "short", "eintr"}


def test_a_failing_sync_or_open_is_told_plainly(tmp_path: Path, library: Path) -> None:
    struck = harness.strike_all(SMALL_FLOW, tmp_path, library, series(["sync", "open"], 6, SEED))
    assert harness.all_violations(struck) == []
    assert {one.fault.kind for one in struck} == {"sync", "open"}
    assert [one for one in struck if one.ending.said.startswith("error JournalUnwritableError")]


def test_a_process_killed_at_any_system_call_loses_nothing(tmp_path: Path, library: Path) -> None:
    struck = harness.strike_all(SMALL_FLOW, tmp_path, library, series(KILL_KINDS, 31, SEED))
    assert harness.all_violations(struck) == []
    assert {one.fault.kind for one in struck} == set(KILL_KINDS)


def test_a_side_file_that_cannot_be_opened_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "journal.db-lock").mkdir()
    with pytest.raises(JournalUnwritableError, match=r"side file .* cannot be opened"):
        open_journal(tmp_path / "journal.db")


@pytest.mark.parametrize(
    ("flow", "kinds", "found"),
    [
        ("careful", ["enospc", "kill-before"], []),
        ("hasty", ["kill-before"], ["acknowledged-never-again"]),
        ("deaf", ["enospc"], ["acknowledged-is-recorded"]),
    ],
)
def test_the_harness_finds_a_planted_bug(tmp_path: Path, library: Path, flow: str, kinds: list[str], found: list[str]) -> None:
    def recorded(case: Case) -> list[str]:
        given = {effect.call for effect in case.effects() if effect.kind == "ack"}
        tables = case.journal.exists() and not invariants.is_unborn(case.journal)
        rows = _steps(case) if tables else 0
        return [f"acknowledged-is-recorded: {len(given)} were given, {rows} are there" for _ in range(rows < len(given))]

    def ended(case: Case) -> list[str]:
        return invariants.acknowledged_never_again(case.effects())

    program = harness.Program(Path(__file__).with_name("faulty_engine.py"), flow, "done", recorded, ended)
    struck = harness.strike_all(program, tmp_path, library, series(kinds, 2, SEED))
    assert len(struck) > 3
    violations = harness.all_violations(struck)
    assert [word for word in found if not any(word in text for text in violations)] == []
    assert bool(violations) == bool(found), violations


def _steps(case: Case) -> int:
    with closing(invariants.connect(case.journal)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'done'").fetchall():
            return 0
        return int(connection.execute("SELECT count(*) FROM done").fetchone()[0])
