"""crashtest finds what a crash changes, in real processes that are killed around each commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing_tools.crash_flows import (
    Order,
    careful,
    careful_async,
    careless,
    careless_async,
    counts_lines,
    fails,
    random_result,
)
from wfengine import flow, task
from wfengine.testing import crashtest
from wfengine_journal.errors import UsageError

pytestmark = pytest.mark.crash


def test_a_flow_that_is_safe_to_repeat_ends_the_same_after_a_kill_around_each_commit() -> None:
    report = crashtest(careful, Order("book", 2), witness=lambda folder: sorted(file.name for file in folder.iterdir()))
    assert report.failures == []
    assert len(report.kills) == 2 * report.commits
    assert all(kill.struck for kill in report.kills)
    commits = [kill.commit for kill in report.kills if kill.point.startswith("before")]
    assert "the flow run begins" in commits[0]
    assert "the flow run ends: COMPLETED" in commits[-1]
    assert any("'charge_once' (task run 2) completes" in commit for commit in commits)
    assert any("'price' (task run 1) fails and waits for a retry" in commit for commit in commits)
    assert "each time as undisturbed" in str(report)


def test_a_side_effect_that_is_doubled_is_found_with_its_boundary_and_a_command_that_repeats_it() -> None:
    with pytest.raises(AssertionError) as caught:
        crashtest(careless_async, 5, witness="ledger.txt")
    text = str(caught.value)
    assert "1 times otherwise than undisturbed" in text
    assert "(task 'charge' (task run 1) completes)" in text
    assert r"'charged 5\ncharged 5\n'" in text
    command = next(line for line in text.splitlines() if "again:" in line).partition("again: ")[2]
    assert "-p amount=5 --witness ledger.txt --at before:" in command
    again = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert again.returncode == 1, again
    assert "killed 1 times around them, it ended 1 times otherwise" in again.stderr


def test_only_chosen_points_are_tried_and_a_call_repeats_what_cannot_be_typed() -> None:
    with pytest.raises(AssertionError) as caught:
        crashtest(careless, Order("ab", 1), at=["before:9", "after:9", "before:99"], witness="ledger.txt")
    text = str(caught.value)
    assert "killed 2 times around them, it ended 1 times otherwise" in text
    assert "crashtest(careless, ..., at=['before:9'])" in text


def test_kills_are_spread_evenly_over_the_run() -> None:
    report = crashtest(careful_async, 1, kills=4)
    numbers = [int(kill.point.partition(":")[2]) for kill in report.kills]
    assert len(numbers) == 4
    assert numbers[0] == 1
    assert numbers[-1] > report.commits / 2


def test_a_result_that_a_crash_changes_is_found_without_a_witness() -> None:
    with pytest.raises(AssertionError, match=r"the result is 2, undisturbed 1"):
        crashtest(counts_lines)


def test_a_flow_that_fails_has_to_fail_the_same_way() -> None:
    report = crashtest(fails, Order("book", 1), kills=6)
    assert report.ending.state == "Failed"
    assert report.ending.shown == "LookupError: book"
    assert report.failures == []


def test_a_flow_that_cannot_be_imported_is_handed_over_as_it_is() -> None:
    bonus = 3

    @task
    def add(number: int) -> int:
        return number + bonus

    @flow
    def nested(number: int) -> int:
        return add(add(number))

    report = crashtest(nested, number=1, kills=5)
    assert report.ending.shown == "7"
    assert report.failures == []


def test_files_that_the_flow_needs_are_put_into_each_working_directory(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("1\n2\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "input.txt").write_text("3\n")
    script = tmp_path / "sums.py"
    script.write_text(
        "from pathlib import Path\n"
        "from wfengine import flow, task\n"
        "@task\ndef total(name):\n    return sum(map(int, Path(name).read_text().split()))\n"
        "@flow\ndef sums():\n    return total('input.txt') + total('more/input.txt')\n"
    )
    report = crashtest(f"{script}:sums", kills=3, prepare=[tmp_path / "input.txt", tmp_path / "more"])
    assert report.ending.shown == "6"

    def prepare(folder: Path) -> None:
        (folder / "more").mkdir()
        (folder / "input.txt").write_text("4")
        (folder / "more" / "input.txt").write_text("5")

    assert crashtest(str(script), kills=1, prepare=prepare).ending.shown == "9"


def test_what_cannot_be_compared_or_does_not_end_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Two undisturbed runs of the flow differ already"):
        crashtest(random_result, kills=1)
    with pytest.raises(UsageError, match="A point is 'before:N' or 'after:N', not 'between:3'"):
        crashtest(careless_async, 1, at=["between:3"])
    script = tmp_path / "bad.py"
    script.write_text("import os\nfrom wfengine import flow\n@flow\ndef leaves():\n    print('bye')\n    os._exit(4)\n")
    with pytest.raises(UsageError, match=r"its process ended with code 4. It said:\nbye"):
        crashtest(f"{script}:leaves")


def test_a_script_that_calls_crashtest_needs_a_main_guard_only_to_be_found_out(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from wfengine import flow\nfrom wfengine.testing import crashtest\n"
        "@flow\ndef plain():\n    return 1\n"
        "print(crashtest(plain, kills=2))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done
    assert "killed 2 times" in done.stdout
    assert not (tmp_path / ".wfengine").exists()
