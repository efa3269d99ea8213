"""Kill flows with transactional tasks before each SQL statement, and several at once: each row is there exactly once."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.crash import invariants
from tests.crash.effects import Effect
from tests.crash.harness import SCHEMA_STATEMENTS, Case, Checks, all_violations, chosen, in_parallel, kill_at_every_statement

pytestmark = pytest.mark.crash

PROGRAM = Path(__file__).with_name("tables.py")
#: The statements before this one make the schema, the same for every flow.
AFTER_SCHEMA = SCHEMA_STATEMENTS


def both_or_neither(journal: Path, _effects: list[Effect]) -> list[str]:
    """Rows of the user's, runs in a queue, variables and recorded results: what one call wrote is there whole or not at all."""
    if not journal.exists() or invariants.is_unborn(journal):
        return []
    has_table = invariants.query(journal, "SELECT 1 FROM sqlite_schema WHERE name = 'user_orders'")
    rows = invariants.query(journal, "SELECT number, amount FROM user_orders ORDER BY number") if has_table else []
    recorded = invariants.query(
        journal,
        "SELECT CAST(result AS INTEGER), json_extract(inputs, '$.amount') FROM tasks"
        " WHERE task IN ('pay', 'flaky') AND state = 'COMPLETED' ORDER BY 1",
    )
    queued = invariants.query(
        journal, "SELECT json_extract(parameters, '$.amount') FROM runs WHERE flow = 'receipt' ORDER BY 1"
    )
    variables = invariants.query(journal, "SELECT value FROM variables WHERE name LIKE 'paid-%' ORDER BY 1")
    amounts = sorted(amount for _, amount in rows)  # type: ignore[type-var]  # integers
    violations = []
    if rows != recorded:
        violations.append(f"both-or-neither: rows {rows}, results {recorded}")
    if [amount for (amount,) in queued] != amounts:
        violations.append(f"both-or-neither: rows {rows}, in the queue {queued}")
    if sorted(int(str(value)) for (value,) in variables) != amounts:
        violations.append(f"both-or-neither: rows {rows}, variables {variables}")
    return violations


def after_kill(journal: Path, effects: list[Effect]) -> list[str]:
    if not journal.exists() or invariants.is_unborn(journal):
        return []
    return both_or_neither(journal, effects) + invariants.file_sound(journal) + invariants.history_gapless(journal)


def after_end(journal: Path, effects: list[Effect], _in_flight: int, _is_ordered: bool) -> list[str]:
    return after_kill(journal, effects)


CHECKS = Checks(after_kill=after_kill, after_end=after_end)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("flow", "step"), [("payments", 1), ("payments_async", 5), ("payments_mapped", 5), ("retried", 3)])
def test_rows_are_written_exactly_once_wherever_the_kill_comes(tmp_path: Path, flow: str, step: int) -> None:
    expected = Case(tmp_path / "uninterrupted", flow, program=PROGRAM).run().result
    kills = kill_at_every_statement(
        lambda number: Case(tmp_path / str(number), flow, program=PROGRAM), expected, CHECKS,
        first=AFTER_SCHEMA, step=step, program=PROGRAM,
        numbers=chosen(Case(tmp_path / "listed", flow, program=PROGRAM).with_schema()) if step == 1 else None,
    )  # fmt: skip
    print(f"{flow}: {len(kills)} kills")
    assert all_violations(kills) == []
    assert len(kills) > (80 if step == 1 else 100 / step)
    if step == 1:
        own = {kill.statement for kill in kills}
        assert any("INTO user_orders" in statement for statement in own)
        assert any("SAVEPOINT wfengine_change" in statement for statement in own)


@pytest.mark.timeout(600)
def test_four_processes_write_one_table_at_once_and_each_row_is_there_once(tmp_path: Path) -> None:
    Case(tmp_path, "prepare", program=PROGRAM).run()
    codes: list[int] = []
    numbers = iter(range(4))
    lock = threading.Lock()

    def work() -> None:
        import subprocess

        from tests.crash.harness import environment

        with lock:
            number = next(numbers)
        done = subprocess.run(
            [sys.executable, str(PROGRAM), "--write", str(tmp_path / "journal.db"), str(number)],
            env=environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        assert done.returncode == 0, done.stderr

    in_parallel(work, 4)
    assert codes == [0, 0, 0, 0]
    found = invariants.query(tmp_path / "journal.db", "SELECT amount FROM user_orders ORDER BY amount")
    assert found == [(amount,) for amount in range(100)]
    assert both_or_neither(tmp_path / "journal.db", []) == []
