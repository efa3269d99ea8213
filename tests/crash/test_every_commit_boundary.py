"""Kill a flow before each SQL statement it executes, and its recovery too; go on; nothing is lost or done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.crash.harness import SCHEMA_STATEMENTS, Case, Checks, KilledAt, all_violations, chosen, kill_at_every_statement
from tests.crash.zoo import ZOO

pytestmark = pytest.mark.crash

#: The statements before this one make the schema, the same for every flow; every few of them are covered once.
AFTER_SCHEMA = SCHEMA_STATEMENTS


def checks_of(flow: str) -> Checks:
    animal = ZOO[flow]
    return Checks(in_flight=animal.in_flight, is_ordered=animal.is_ordered)


def enumerate_kills(
    folder: Path,
    flow: str,
    *options: str,
    first: int = 1,
    last: int = 100_000,
    step: int = 1,
    numbers: list[int] | None = None,
) -> list[KilledAt]:
    expected = Case(folder / "uninterrupted", flow, options).run().result
    kills = kill_at_every_statement(
        lambda number: Case(folder / str(number), flow, options), expected, checks_of(flow), first=first, last=last, step=step,
        numbers=numbers,
    )  # fmt: skip
    print(f"{flow}: {len(kills)} kills")
    return kills


def subflow_ended_untold(case: Case) -> bool:
    """Tell whether a subflow's run ended a life before the call that stands for it did."""
    rows = case.query(
        "SELECT 1 FROM flow_run c JOIN task_run t ON t.id = c.parent_task_run_id"
        " JOIN transition h ON h.flow_run_id = c.id AND h.task_run_id = 0 AND h.state = 'COMPLETED'"
        " WHERE c.epoch = 1 AND t.interruptions > 0"
    )
    return bool(rows)


@pytest.mark.timeout(600)
def test_a_flow_killed_before_each_of_its_statements_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kills = enumerate_kills(tmp_path / "schema", "mixed", last=AFTER_SCHEMA, step=7)
    numbers = chosen(Case(tmp_path / "listed", "mixed").with_schema())
    kills += enumerate_kills(tmp_path / "flow", "mixed", numbers=numbers)
    assert all_violations(kills) == []
    assert len(kills) > 80
    statements = {kill.statement.split(" ")[0] for kill in kills}
    assert {"BEGIN", "INSERT", "UPDATE", "COMMIT", "SELECT", "CREATE"} <= statements
    # Between the end of the child run and the outcome of the parent's call: the child is not executed again.
    assert [kill.number for kill in kills if subflow_ended_untold(kill.case)]


@pytest.mark.timeout(600)
def test_a_recovery_killed_before_each_of_its_statements_is_recovered(tmp_path: Path) -> None:
    expected = Case(tmp_path / "uninterrupted", "with_subflows").run().result
    base = Case(tmp_path / "base", "with_subflows")
    assert base.run("--kill-before", str(AFTER_SCHEMA + 56)).was_killed  # in the middle of the first subflow
    assert len(base.effects()) > 1

    def copy(number: int) -> Case:
        shutil.copytree(base.folder, tmp_path / str(number))  # no process has the journal open
        return Case(tmp_path / str(number), "with_subflows")

    kills = kill_at_every_statement(copy, expected, checks_of("with_subflows"), step=2)
    print(f"{len(kills)} kills of the recovery")
    assert all_violations(kills) == []
    assert len(kills) > 50


def test_a_resume_by_a_person_answers_as_a_recovery_does_wherever_the_kill_came(tmp_path: Path) -> None:
    for flow in ("caught", "nested_retried"):
        kills = enumerate_kills(tmp_path / flow, flow, "--by-person", first=AFTER_SCHEMA, step=13)
        assert all_violations(kills) == []


@pytest.mark.parametrize("flow", ["nested", "gathered", "caught", "told", "raced", "fan_out", "paced", "retried", "logged"])
def test_other_kinds_of_flows_survive_a_kill_at_every_few_statements(tmp_path: Path, flow: str) -> None:
    kills = enumerate_kills(tmp_path, flow, first=AFTER_SCHEMA, step=13)
    assert all_violations(kills) == []


def test_cached_calls_killed_at_every_few_statements_are_computed_once_for_each_key(tmp_path: Path) -> None:
    kills = enumerate_kills(tmp_path, "cached", first=AFTER_SCHEMA, step=5)
    assert all_violations(kills) == []
    for kill in kills:
        entries = kill.case.query("SELECT key FROM cache_entries ORDER BY key")
        assert entries == [("size 1",), ("size 2",), ("size 5000",), ("size 6000",)]
        assert kill.case.query("SELECT count(*) FROM tasks WHERE state_name = 'Cached'") == [(4,)]
        assert kill.case.query("SELECT count(*) FROM slot") == [(0,)]


@pytest.mark.parametrize("flow", ["flow_retried", "nested_retried", "subflow_retried"])
def test_a_crash_uses_up_no_retry_of_a_flow_or_of_a_task_that_calls_tasks(tmp_path: Path, flow: str) -> None:
    kills = enumerate_kills(tmp_path, flow, first=AFTER_SCHEMA, step=7)
    assert all_violations(kills) == []


@pytest.mark.parametrize("durability", ["power", "process"])
def test_kills_spare_nothing_acknowledged_in_either_durability(tmp_path: Path, durability: str) -> None:
    kills = enumerate_kills(tmp_path, "chain", "--durability", durability, first=AFTER_SCHEMA, step=13)
    assert all_violations(kills) == []
    assert kills[-1].case.query("SELECT DISTINCT durability FROM runs") == [(durability,)]


def test_tasks_in_processes_are_cut_off_with_their_flow(tmp_path: Path) -> None:
    kills = enumerate_kills(tmp_path, "in_processes", first=AFTER_SCHEMA, step=29)
    assert all_violations(kills) == []
    assert kills


def test_transactions_that_queue_messages_and_nested_tasks_cross_without_waiting_for_each_other(tmp_path: Path) -> None:
    kills = enumerate_kills(tmp_path, "long_crossing", first=AFTER_SCHEMA, step=79)
    assert all_violations(kills) == []
    for kill in kills:
        booked = kill.case.query("SELECT call, amount FROM user_booked ORDER BY call")
        assert booked == [(f"book/{turn}/{number}", turn) for turn in range(6) for number in range(2)]
        assert kill.case.query("SELECT count(*) FROM flow_run WHERE substr(queue, 1, 5) = 'task:'") == [(12,)]
        assert kill.case.query("SELECT count(*), count(received_by) FROM message") == [(6, 6)]
