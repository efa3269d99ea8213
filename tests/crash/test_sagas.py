"""A saga of four tasks, killed before each SQL statement of its life and of its rollback, and gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.crash.effects import Effect
from tests.crash.feeds import STEPS
from tests.crash.harness import Case, environment
from tests.crash.nursery import Nursery

pytestmark = pytest.mark.crash

PROGRAM = Path(__file__).with_name("feeds.py")


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(PROGRAM, environment())
    yield nursery
    nursery.close()


def recorded_hooks(case: Case) -> list[object]:
    """Return the steps whose rollback hook was called and recorded so far."""
    return [
        step
        for (step,) in case.query(
            "SELECT json_extract(t.inputs, '$.step') FROM hook_run h JOIN task_run t ON t.id = h.task_run_id"
            " WHERE h.hook = 'on_rollback' AND h.error IS NULL"
        )
    ]


def undone(case: Case) -> list[str]:
    return [effect.call for effect in case.effects() if effect.kind == "undo"]


#: Statements between two kills before the rollback begins; the other tests of this folder look there more closely.
COARSE = 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("flow", "go_on", "step"), [("saga", (), 1), ("saga", ("--by-person",), 5), ("saga_async", (), 5)]
)  # fmt: skip
def test_a_saga_killed_at_any_statement_is_undone_once_in_reverse_order(
    nursery: Nursery, tmp_path: Path, flow: str, go_on: tuple[str, ...], step: int
) -> None:
    in_the_middle, number, is_rolling_back = 0, 1, False
    while True:
        case = Case(tmp_path / f"{number}-{is_rolling_back}", flow, program=PROGRAM).with_schema()
        if not case.run("--kill-before", str(number), nursery=nursery).was_killed:
            break
        if not is_rolling_back and Effect("run", "pay") in case.effects():
            is_rolling_back, number = True, number - COARSE  # from here on each statement
        in_the_middle += go_on_and_check(case, nursery, go_on, kills=1)
        number += step if is_rolling_back else COARSE
    print(f"{flow}: {in_the_middle} kills in the middle of the rollback")
    assert in_the_middle * step >= len(STEPS)


def go_on_and_check(case: Case, nursery: Nursery, go_on: tuple[str, ...], *, kills: int) -> bool:
    """Go on with a saga that was killed so often; tell whether it was in the middle of its rollback."""
    recorded, before = recorded_hooks(case), undone(case)
    ended = case.run(*go_on, nursery=nursery)
    assert ended.result == "undone", f"{case.folder}: {ended}"
    calls = undone(case)
    assert [step for step, _ in groupby(calls)] == list(reversed(STEPS)), f"{case.folder}: {calls}"
    assert not set(recorded) & set(calls[len(before) :]), f"{case.folder}: called again though recorded: {calls}"
    assert len(calls) <= len(STEPS) + kills
    states = case.query("SELECT state_name, count(*) FROM tasks WHERE task LIKE 'book%' GROUP BY state_name")
    assert states == [("RolledBack", len(STEPS))], f"{case.folder}: {states}"
    return 0 < len(recorded) < len(STEPS)


def test_a_rollback_that_is_killed_while_it_is_recovered_goes_on_where_it_stopped(nursery: Nursery, tmp_path: Path) -> None:
    base = Case(tmp_path / "base", "saga", program=PROGRAM)
    for number in range(30, 10_000, 5):  # until one dies after its first recorded hook
        base = Case(tmp_path / f"base{number}", "saga", program=PROGRAM).with_schema()
        assert base.run("--kill-before", str(number), nursery=nursery).was_killed
        if recorded_hooks(base):
            break
    kills = 0
    for number in range(1, 10_000, 4):
        shutil.copytree(base.folder, tmp_path / str(number))
        case = Case(tmp_path / str(number), "saga", program=PROGRAM)
        if not case.run("--kill-before", str(number), nursery=nursery).was_killed:
            break
        go_on_and_check(case, nursery, (), kills=2)
        kills += 1
    assert kills > 10
