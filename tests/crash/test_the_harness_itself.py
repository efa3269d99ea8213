"""The harness finds what it is there to find: each invariant is broken once, on purpose."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.effects import Effect
from tests.crash.harness import Case, Checks, KilledAt, all_violations, kill_at_every_statement

pytestmark = pytest.mark.crash

TOY = Path(__file__).with_name("toy.py")


def torture_toy(folder: Path, flow: str) -> list[KilledAt]:
    checks = Checks(
        after_kill=lambda _journal, effects: invariants.acknowledged_never_again(effects),
        after_end=lambda _journal, effects, in_flight, _is_ordered: (
            invariants.acknowledged_never_again(effects) + invariants.repeats_in_flight_only(effects, in_flight)
        ),
    )
    return kill_at_every_statement(lambda number: Case(folder / str(number), flow, (), TOY), [0, 1, 4], checks, program=TOY)


def test_a_program_that_acknowledges_before_its_commit_is_found_out(tmp_path: Path) -> None:
    kills = torture_toy(tmp_path, "hasty")
    found = [kill for kill in kills if kill.violations]
    assert len(found) == 3
    assert {kill.statement for kill in found} == {"COMMIT"}
    assert all("acknowledged-never-again" in text for text in all_violations(kills))


def test_the_same_program_without_the_bug_is_not_accused(tmp_path: Path) -> None:
    kills = torture_toy(tmp_path, "careful")
    assert len(kills) >= 13
    assert all_violations(kills) == []


def test_a_program_that_commits_in_the_wrong_order_is_found_out(tmp_path: Path) -> None:
    kills = torture_toy(tmp_path, "reordered")
    found = [kill for kill in kills if kill.violations]
    assert {kill.statement.split(" ")[0] for kill in found} == {"UPDATE"}
    assert len(found) == 3
    assert all("result-equal" in text for text in all_violations(kills))


@pytest.mark.parametrize("flow", ["unlocked", "careful"])
def test_of_two_processes_without_a_lock_one_is_found_to_repeat_what_the_other_was_given(tmp_path: Path, flow: str) -> None:
    case = Case(tmp_path / "case", flow, (), TOY)
    first, second = case.start("--wait-for-go"), case.start("--wait-for-go")
    for child in (first, second):
        child.wait_for("looked 0")
    for child in (first, second):  # one after the other, each with what it saw before
        for _ in range(3):
            child.tell("go")
        assert child.end().result == [0, 1, 4]
    assert bool(invariants.acknowledged_never_again(case.effects())) == (flow == "unlocked")


def test_every_invariant_of_the_effect_file_can_fail() -> None:
    start = Effect("start", "1")
    again = [start, Effect("run", "a"), Effect("ack", "a"), start, Effect("run", "a")]
    assert invariants.acknowledged_never_again(again)
    two = [start, Effect("run", "a"), Effect("run", "b"), start, Effect("run", "a"), Effect("run", "b")]
    assert invariants.repeats_in_flight_only(two, 1)
    assert not invariants.repeats_in_flight_only(two, 2)
    assert invariants.repeats_in_flight_only([start, Effect("run", "a"), Effect("run", "a")], 2)
    swapped = [start, Effect("ack", "a"), Effect("ack", "b"), start, Effect("ack", "b"), Effect("ack", "a")]
    assert invariants.order_kept(swapped)


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("history-gapless", "UPDATE task_run SET version = version + 1 WHERE id = 1"),
        ("history-gapless", "UPDATE flow_run SET state = 'FAILED'"),
        ("history-gapless", "INSERT INTO transition SELECT flow_run_id, task_run_id, 9, state, state_name, message, epoch,"
         " attempt, error_id, result_hash, at FROM transition LIMIT 1"),
        ("nothing-left-running", "UPDATE task_run SET state = 'RUNNING' WHERE id = 2"),
        ("one-run", "INSERT INTO flow_run (name, flow_id, state, version, epoch, durability, parameters, created_at)"
         " VALUES ('x', 1, 'RUNNING', 1, 1, 'power', '{}', '')"),
        ("acknowledged-is-recorded", "UPDATE task_run SET state = 'RUNNING'"),
        ("file-sound", "UPDATE task_run SET task_id = 99"),
    ],
)  # fmt: skip
def test_every_invariant_of_the_journal_can_fail(tmp_path: Path, check: str, damage: str) -> None:
    case = Case(tmp_path / "case", "chain")
    case.run()
    assert invariants.after_end(case.journal, case.effects(), 1, is_ordered=True) == []
    with closing(sqlite3.connect(case.journal, isolation_level=None)) as connection:
        connection.execute(damage)
    found = invariants.after_end(case.journal, case.effects(), 1, is_ordered=True)
    assert check in {text.partition(":")[0] for text in found}


def test_a_torn_page_is_found(tmp_path: Path) -> None:
    case = Case(tmp_path / "case", "chain")
    case.run()
    torn = tmp_path / "torn.db"
    shutil.copy(case.journal, torn)
    data = bytearray(torn.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    torn.write_bytes(data)
    assert invariants.file_sound(torn)
