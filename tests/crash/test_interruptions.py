"""What becomes of a task that was cut off in the middle, of one that waits for its retry, and of the order of outcomes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.effects import Effect
from tests.crash.harness import SCHEMA_STATEMENTS, Case, Checks, all_violations, kill_at_every_statement

pytestmark = pytest.mark.crash


def count(case: Case, kind: str, call: str) -> int:
    return case.effects().count(Effect(kind, call))


def test_a_task_that_keeps_killing_its_process_is_stopped_after_three_times(tmp_path: Path) -> None:
    case = Case(tmp_path, "deadly_flow")
    for _ in range(3):
        assert case.run().was_killed
    assert case.run().result == "TooManyInterruptions"
    assert count(case, "run", "deadly") == 3
    assert count(case, "run", "before") == 1
    assert case.query("SELECT interruptions, state FROM tasks WHERE task = 'deadly'") == [(3, "FAILED")]
    assert invariants.history_gapless(case.journal) + invariants.nothing_left_running(case.journal) == []


def test_attempts_cut_off_by_a_crash_do_not_use_up_retries(tmp_path: Path) -> None:
    case = Case(tmp_path, "retried_through_deaths")  # its task has one retry, fails once and dies three times
    for _ in range(3):
        assert case.run().was_killed
    assert case.run().result == "patient"
    assert case.query("SELECT outcome FROM attempts ORDER BY attempt") == [
        ("FAILED",), ("INTERRUPTED",), ("INTERRUPTED",), ("INTERRUPTED",), ("COMPLETED",),
    ]  # fmt: skip


def kill_in_retry_delay(case: Case) -> datetime:
    """Kill the run while its task waits for the next attempt; return the journaled instant of that attempt."""
    child = case.start()
    child.wait_for("ready")
    for _ in range(12_000):
        if case.journal.exists() and case.query("SELECT 1 FROM tasks WHERE state_name = 'AwaitingRetry'"):
            break
        threading.Event().wait(0.005)
    child.kill_after(0)
    assert child.end().was_killed
    ((state, instant),) = case.query("SELECT state_name, next_attempt_at FROM tasks")
    assert state == "AwaitingRetry"
    return datetime.fromisoformat(str(instant))


def test_a_retry_whose_delay_passed_while_nothing_ran_begins_at_once(tmp_path: Path) -> None:
    case = Case(tmp_path, "waiting_for_retry")
    instant = kill_in_retry_delay(case)
    threading.Event().wait(max(0.0, (instant - datetime.now(UTC)).total_seconds()))
    assert case.run().result == "slow"
    ((claimed, began),) = case.query(
        "SELECT (SELECT started_at FROM execution WHERE epoch = 2), (SELECT started_at FROM attempts WHERE attempt = 2)"
    )
    waited = datetime.fromisoformat(str(began)) - datetime.fromisoformat(str(claimed))
    assert timedelta(0) <= waited < timedelta(seconds=0.9)  # a delay reckoned anew would be 1 s


def test_a_retry_does_not_begin_before_the_journaled_instant_however_often_it_is_killed(tmp_path: Path) -> None:
    case = Case(tmp_path, "waiting_for_retry")
    instant = kill_in_retry_delay(case)
    assert kill_in_retry_delay(case) == instant
    assert case.run().result == "slow"
    ((began,),) = case.query("SELECT started_at FROM attempts WHERE attempt = 2")
    assert datetime.fromisoformat(str(began)) >= instant
    assert case.query("SELECT attempts, interruptions FROM tasks") == [(2, 0)]


@pytest.mark.parametrize(("flow", "call"), [("asking", "asking"), ("only_once", "once")])
def test_a_task_that_may_not_run_again_unasked_parks_its_run(tmp_path: Path, flow: str, call: str) -> None:
    case = Case(tmp_path, flow)
    assert case.run().was_killed
    for _ in range(2):
        assert case.run("--claim").error.startswith("InDoubtError: ")
        assert case.query("SELECT state, state_name FROM runs") == [("PAUSED", "InDoubt")]
    assert count(case, "run", call) == 1
    assert len(case.query("SELECT * FROM in_doubt")) == 1
    assert invariants.history_gapless(case.journal) == []


def test_a_task_that_may_not_run_again_never_does_wherever_the_kill_comes(tmp_path: Path) -> None:
    def at_most_once(_journal: Path, effects: list[Effect]) -> list[str]:
        return ["at-most-once: the guarded task ran twice" for _ in range(effects.count(Effect("run", "guarded")) > 1)]

    def recorded_outcome(journal: Path, effects: list[Effect], in_flight: int, is_ordered: bool) -> list[str]:
        return at_most_once(journal, effects) + invariants.after_end(journal, effects, in_flight, is_ordered)

    kills = kill_at_every_statement(
        lambda number: Case(tmp_path / str(number), "guarded_flow"),
        "guarded",
        Checks(after_kill=at_most_once, after_end=recorded_outcome),
        first=SCHEMA_STATEMENTS,
        step=2,
    )
    other_results = [text for text in all_violations(kills) if "result-equal: 'interrupted' instead of 'guarded'" in text]
    assert all_violations(kills) == other_results
    assert len(other_results) >= 1  # cut off after its start was committed and before its outcome was


@pytest.mark.parametrize("flow", ["raced_then_killed", "looked_at_late", "stored_slowly"])
def test_outcomes_are_replayed_in_the_order_in_which_they_were_handed_out(tmp_path: Path, flow: str) -> None:
    case = Case(tmp_path, flow)
    assert case.run().was_killed
    assert isinstance(case.run().result, int)
    assert invariants.order_kept(case.effects()) == []
    assert invariants.acknowledged_never_again(case.effects()) == []
