"""One run, one process: two that resume at once, and one that was stopped, replaced, and wakes (G5)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.harness import Case

pytestmark = pytest.mark.crash


def killed_while_holding(case: Case) -> None:
    """Leave the run behind with its process killed in the middle of a task."""
    child = case.start()
    child.wait_for("holding")
    child.kill_after(0)
    assert child.end().was_killed


@pytest.mark.parametrize("pair", range(10))
def test_of_two_resumes_started_together_one_works_and_the_other_names_it(tmp_path: Path, pair: int) -> None:
    killed_while_holding(Case(tmp_path, "held"))
    case = Case(tmp_path, "held", ("--claim", "--wait-for-go"))
    one, other = case.start(), case.start()
    one.wait_for("ready")
    other.wait_for("ready")
    for child in (one, other) if pair % 2 else (other, one):
        child.tell("go")
    # The one that executes the run is now in a task that lasts until it is told; the other has ended.
    said = {child: child.line() for child in (one, other)}
    worker, refused = sorted((one, other), key=lambda child: said[child].startswith("error"))
    error = refused.end().error
    assert error.startswith("RunOwnedError: ")
    assert f"process {worker.pid} " in error
    worker.tell("late")
    assert worker.end().result == ["before", "late", "after"]
    assert invariants.after_end(case.journal, case.effects(), 1, is_ordered=True) == []
    assert case.query("SELECT count(*) FROM execution") == [(2,)]


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_stopped_owner_that_was_replaced_cannot_write_when_it_wakes(tmp_path: Path, durability: str) -> None:
    case = Case(tmp_path, "held", ("--durability", durability))
    old = case.start()
    old.wait_for("holding")
    old.send(signal.SIGSTOP)
    new = case.start("--takeover")
    new.wait_for("holding")
    new.tell("from the new owner")
    assert new.end().result == ["before", "from the new owner", "after"]
    rows = case.query("SELECT * FROM transition")
    tasks = case.query("SELECT * FROM task_run")
    old.tell("from the old owner")
    old.send(signal.SIGCONT)
    assert old.end().error.startswith("OwnershipLostError: ")
    assert case.query("SELECT * FROM transition") == rows
    assert case.query("SELECT * FROM task_run") == tasks
    assert case.query("SELECT state, result FROM runs") == [("COMPLETED", '["before","from the new owner","after"]')]
    assert invariants.history_gapless(case.journal) + invariants.file_sound(case.journal) == []


def test_a_stopped_owner_that_wakes_while_the_new_one_works_cannot_write(tmp_path: Path) -> None:
    case = Case(tmp_path, "held")
    old = case.start()
    old.wait_for("holding")
    old.send(signal.SIGSTOP)
    new = case.start("--takeover")
    new.wait_for("holding")
    old.tell("from the old owner")
    old.send(signal.SIGCONT)
    assert old.end().error.startswith("OwnershipLostError: ")
    new.tell("from the new owner")
    assert new.end().result == ["before", "from the new owner", "after"]
    assert invariants.history_gapless(case.journal) + invariants.nothing_left_running(case.journal) == []


def test_a_resume_without_takeover_is_refused_while_the_stopped_owner_lives(tmp_path: Path) -> None:
    case = Case(tmp_path, "held")
    owner = case.start()
    owner.wait_for("holding")
    owner.send(signal.SIGSTOP)
    error = case.run("--claim").error
    assert error.startswith("RunOwnedError: ")
    assert f"process {owner.pid} " in error
    owner.send(signal.SIGCONT)
    owner.tell("still mine")
    assert owner.end().result == ["before", "still mine", "after"]
