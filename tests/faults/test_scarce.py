"""What really runs out: room on a small disk, open files, the size of a file, pages; and a disk that became read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.harness import Case, Ending, environment
from tests.faults import harness
from tests.faults.program import SMALL_FLOW

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300), pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")]


def run(case: Case, **variables: str) -> Ending:
    """Run the small flow in a fresh process, or go on with its run."""
    case.folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(case.program), *case.arguments()], cwd=case.folder, text=True, check=False,
        capture_output=True, env=environment() | case.variables() | variables, timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return Ending(done.returncode, lines[-1] if lines else "", done.stderr)


def ended_plainly(ending: Ending) -> bool:
    kind = ending.said.removeprefix("error ").partition(":")[0]
    return ending.said.startswith("result ") or (ending.returncode == 0 and kind in harness.PLAIN_ERRORS)


@pytest.mark.parametrize("scarce", ["pages:3", "pages:20", "size:1000", "size:200000"])
def test_what_runs_out_is_told_plainly_and_the_run_goes_on_when_there_is_more(tmp_path: Path, scarce: str) -> None:
    case = Case(tmp_path / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    ending = run(case, SCARCE=scarce)
    assert ended_plainly(ending), ending
    assert harness.after_fault(case) == []
    assert run(case).result == SMALL_FLOW.expected
    assert harness.after_end(case) == []


@pytest.mark.parametrize("number", [1, 4, 7])
def test_too_many_open_files_leave_a_sound_journal(tmp_path: Path, number: int) -> None:
    case = Case(tmp_path / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    ending = run(case, SCARCE=f"files:{number}")
    by_the_task = "Too many open files" in ending.stderr and "effects" in ending.stderr  # what the flow's own code opens
    assert ended_plainly(ending) or by_the_task, ending
    assert invariants.after_kill(case.journal, case.effects()) == []
    if not by_the_task:
        assert run(case).result == SMALL_FLOW.expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of its own, which this test may fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("to mount a small disk needs root on Linux")
    if not remounted(folder, "size=64k", first=True):
        pytest.skip("this system lets nobody mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def remounted(folder: Path, options: str, *, first: bool = False) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options if first else f"remount,{options}", "tmpfs", str(folder)]
    return subprocess.run(words, check=False, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("kilobytes", [64, 700])
def test_a_disk_that_is_really_full_loses_nothing_and_is_read_when_it_is_read_only(small_disk: Path, kilobytes: int) -> None:
    case = Case(small_disk / "case", SMALL_FLOW.flow, program=SMALL_FLOW.path)
    effects = {"WFENGINE_CRASH_EFFECTS": str(small_disk.parent / "effects.txt")}
    assert case.variables().keys() == effects.keys(), "the witness stands on a disk that has room"
    assert remounted(small_disk, f"size={kilobytes}k")
    ending = run(case, SCARCE="nothing:0", **effects)
    assert ended_plainly(ending), ending
    assert ending.said.startswith("error ") or kilobytes > 64
    assert remounted(small_disk, "size=32m")
    assert run(case, **effects).result == SMALL_FLOW.expected
    assert invariants.file_sound(case.journal) == []
    assert remounted(small_disk, "ro")
    listed = command(case.journal, "runs", "ls")
    assert (listed.returncode, listed.stdout.count("Completed")) == (0, 1), listed
    refused = command(case.journal, "variables", "set", "size", "7")
    assert refused.returncode == 5
    assert "read-only file system" in refused.stderr.lower()
    assert "Traceback" not in refused.stderr


def command(journal: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wfengine", *words, "--journal", str(journal)], cwd=journal.parents[2], text=True, check=False,
        capture_output=True, env=environment(), timeout=120,
    )  # fmt: skip
