"""Cut the power of recorded runs. `python -m tests.power_loss.program` is the long form, and says how one image is repeated."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Sequence

import pytest

from tests.power_loss.disks import KINDS, Disk, write_out
from tests.power_loss.judging import Plan, Tally, judge_all, judge_journal, judge_upkeep
from tests.power_loss.program import SUBJECTS, WORKLOADS, Laboratory, Subject, calibrate
from tests.power_loss.recording import MARKS, Operation, acknowledged_early, synced_before_written, without_syncs

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or shutil.which("gcc") is None,
        reason="the recorder of writes needs Linux and gcc (Debian, Ubuntu: apt install gcc)",
    ),
]

FOLDED = Subject("folded", "power", WORKLOADS)
FALLS_QUIET = Subject("falls_quiet", "process", WORKLOADS)


@pytest.fixture
def seed() -> int:
    """WFENGINE_POWER_SEED repeats a test."""
    chosen = int(os.environ.get("WFENGINE_POWER_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"WFENGINE_POWER_SEED={chosen}")
    return chosen


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """One for all tests, so that each flow is recorded once."""
    return Laboratory(tmp_path_factory.mktemp("power"))


def judge(laboratory: Laboratory, operations: Sequence[Operation], seed: int) -> Tally:
    """Judge images of a flow, and go on from none."""
    return judge_all(operations, Plan(seed, range(60)), judge_journal, laboratory.folder / "images")


def test_everything_that_was_done_rebuilds_the_very_files(laboratory: Laboratory) -> None:
    operations = laboratory.flow(FOLDED)
    disk = Disk()
    for each in operations:
        disk.do(each)
    folder = laboratory.folder / FOLDED.name
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKS}
    assert disk.cut("all", random.Random(0)) == files
    assert bytes(disk.marks) == (folder / MARKS).read_bytes()
    folds = [each for each in operations if each.kind == "S" and each.name == "journal.db"]
    assert len(folds) > 5, "the log was not folded in the middle of the run"


def test_the_harness_tells_apart_what_sqlite_documents(laboratory: Laboratory, seed: int) -> None:
    tallies = calibrate(laboratory, seed, images=120)
    assert tallies["WAL+FULL"].violations == []
    assert tallies["WAL+NORMAL"].lost > 0
    assert tallies["WAL+NORMAL"].damaged == 0
    assert tallies["OFF+OFF"].damaged > 0


def test_skipped_syncs_are_caught(laboratory: Laboratory, seed: int) -> None:
    assert judge(laboratory, without_syncs(laboratory.flow(FOLDED)), seed).violations != []


def test_an_acknowledgement_before_its_commit_is_caught(laboratory: Laboratory, seed: int) -> None:
    assert judge(laboratory, acknowledged_early(laboratory.flow(FOLDED), by=12), seed).lost > 0


def test_a_sync_that_comes_before_its_writes_is_caught(laboratory: Laboratory, seed: int) -> None:
    assert judge(laboratory, synced_before_written(laboratory.flow(FOLDED)), seed).violations != []


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_no_disk_left_by_a_power_cut_breaks_what_the_durability_promises(
    laboratory: Laboratory, subject: Subject, seed: int
) -> None:
    tally = laboratory.judge(subject, Plan(seed, range(54), resume_each=9))
    print(f"{subject.name}: {tally}")
    print(
        f"repeat: python -m tests.power_loss.program --from {laboratory.folder} --seed {seed} --only {subject.name} --image N"
    )
    assert tally.violations == []
    assert tally.resumed > 0


def test_what_a_run_in_process_durability_wrote_last_is_synced_though_nothing_follows(laboratory: Laboratory) -> None:
    operations = laboratory.flow(FALLS_QUIET)
    quiet = next(place for place, each in enumerate(operations) if each.name == MARKS and each.data.startswith(b"quiet"))
    for kind in KINDS:
        assert found_after(laboratory, operations[:quiet], kind) == [], kind
    first = next(place for place, each in enumerate(operations) if each.name == MARKS and each.data.startswith(b"ack"))
    unsynced = operations[:first] + without_syncs(operations[first:quiet])
    assert "acknowledged-is-recorded" in str(found_after(laboratory, unsynced, "none")), (
        "the harness does not see a skipped sync"
    )


def found_after(laboratory: Laboratory, operations: Sequence[Operation], kind: str) -> list[str]:
    """Return what is wrong with what is found when the power is cut right after these."""
    disk = Disk()
    for each in operations:
        disk.do(each)
    image = laboratory.folder / "quiet"
    write_out(disk.cut(kind, random.Random(0)), bytes(disk.marks), image)
    try:
        return judge_journal(image)
    finally:
        shutil.rmtree(image)


def test_pruning_a_backup_and_an_extract_outlive_a_power_cut(laboratory: Laboratory, seed: int) -> None:
    tally = judge_all(laboratory.upkeep(), Plan(seed, range(60)), judge_upkeep, laboratory.folder / "images")
    assert tally.violations == []
    unsynced = judge_all(without_syncs(laboratory.upkeep()), Plan(seed, range(30)), judge_upkeep, laboratory.folder / "images")
    assert unsynced.violations != [], "the harness does not see skipped syncs"
