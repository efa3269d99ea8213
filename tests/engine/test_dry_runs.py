"""A plan says what a resume would do, and nothing is executed or written for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows

PLAN = """
import json, sys
from pathlib import Path
from wfengine.dry_runs import plan_run
options = json.loads(sys.argv[1])
plan = plan_run(Path("journal.db"), options.pop("run", 1), **options)
print(json.dumps({
    "counts": plan.counts, "ended": plan.ended, "error": plan.error and type(plan.error).__name__,
    "value": repr(plan.outcome and plan.outcome.value),
    "calls": [[c.decision, c.task, json.loads(c.inputs), c.why, c.differences] for c in plan.calls],
}))
"""


def plan(program: Program, **options: object) -> dict[str, object]:
    done = program.python("-c", PLAN, json.dumps(options))
    assert done.code == 0, done
    return done.answer


def live(found: dict[str, object]) -> list[object]:
    """Return the planned calls that are not simply replayed."""
    calls = found["calls"]
    assert isinstance(calls, list)
    return [call for call in calls if call[0] != "REPLAY"]


ETL = """
    @task
    def extract(day):
        note(f"extract={day}")
        return day * 10

    @task
    def load(rows):
        note(f"load={rows}")
        if rows == 20:
            raise ValueError("twenty")
        return rows

    @flow(on_failure=[lambda *_: note("hook")], on_completion=[lambda *_: note("hook")])
    def etl(days):
        print("body")
        total = 0
        for day in range(days):
            total += load(extract(day))
        return total

    if __name__ == "__main__":
        etl(4)
"""


@pytest.fixture
def failed(program: Program) -> Program:
    program.write(ETL)
    assert program.run().code == 1
    return program


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_plan_executes_nothing_and_leaves_the_journal_as_it_was(failed: Program, rows: Rows) -> None:
    before, effects = digest(rows.path), failed.effects
    found = plan(failed)
    assert found["counts"] == {"REPLAY": 5, "RERUN": 1}
    assert live(found) == [["RERUN", "load", {"rows": 20}, "its failure ended the run", []]]
    assert (found["ended"], found["error"]) == (False, None)
    assert failed.effects == effects
    assert digest(rows.path) == before


def test_a_plan_shows_the_arguments_that_an_edit_changed(failed: Program) -> None:
    failed.write(ETL.replace("extract(day))", "extract(day + 1))"))
    found = plan(failed)
    assert found["counts"] == {"REPLAY": 3, "RERUN": 1}  # extract(1), load(10), extract(2) are recorded; load(20) failed
    failed.write(ETL.replace("load(extract(day))", "load(extract(day) + 1)"))
    found = plan(failed)
    assert live(found) == [
        ["NEW", "load", {"rows": 1}, "its inputs changed", [["rows", "0", "1"]]],
        ["ORPHAN", "load", {"rows": 0}, "a call with other inputs takes its place", []],
    ]


def test_a_plan_for_the_recovery_after_a_crash_replays_failures_and_tells_how_the_flow_ends(failed: Program) -> None:
    found = plan(failed, as_recorded=True)
    assert (found["ended"], found["counts"]) == (True, {"REPLAY": 6})


def test_what_would_park_the_run_is_said(failed: Program) -> None:
    failed.write(ETL.replace("load(extract(day))", "load(extract(day) + 1)"))
    found = plan(failed, on_drift="error")
    assert (found["ended"], found["error"]) == (False, "DriftError")


def test_a_plan_lists_submitted_calls_up_to_where_a_result_is_asked_for(program: Program) -> None:
    program.write(
        """
        @task
        def work(x):
            note(f"work={x}")
            if x == 2 and first_time():
                kill()
            return x

        @flow
        def fan():
            futures = [work.submit(x) for x in range(6)]
            return sum(future.result() for future in futures)

        if __name__ == "__main__":
            from wfengine.task_runners import ThreadPoolTaskRunner
            fan.with_options(task_runner=ThreadPoolTaskRunner(max_workers=1))()
        """
    )
    program.run_and_be_killed()
    before = program.effects
    found = plan(program)
    calls = found["calls"]
    assert isinstance(calls, list)
    assert [(call[0], call[2]["x"]) for call in calls][:3] == [("REPLAY", 0), ("REPLAY", 1), ("RERUN", 2)]
    assert found["counts"]["REPLAY"] == 2  # type: ignore[index]  # JSON
    assert len(calls) == 6
    assert program.effects == before


def test_a_plan_enters_a_subflow_that_was_begun(program: Program) -> None:
    program.write(
        """
        @task
        def work(x):
            note(f"work={x}")
            if x == 3 and first_time():
                kill()
            return x

        @flow
        def child(x):
            return work(x) + work(x + 1)

        @flow
        async def parent():
            return child(0) + child(2)

        if __name__ == "__main__":
            asyncio.run(parent())
        """
    )
    program.run_and_be_killed()
    found = plan(program)
    assert [(call[0], call[1]) for call in found["calls"]] == [  # type: ignore[union-attr]  # JSON
        ("REPLAY", "child"), ("RERUN", "child"), ("REPLAY", "work"), ("RERUN", "work"),
    ]  # fmt: skip


def test_a_plan_of_a_run_that_is_being_executed_looks_at_what_is_there_and_disturbs_nothing(
    program: Program, rows: Rows
) -> None:
    program.write(
        """
        import subprocess

        @task
        def look(x):
            plan = subprocess.run([sys.executable, "-c", PLAN, "{}"], capture_output=True, text=True, check=True).stdout
            note(plan.replace(" ", ""))
            return x

        @flow
        def main():
            return look(1) + look(2)

        PLAN = sys.argv[1] if len(sys.argv) > 1 else ""

        if __name__ == "__main__":
            main()
        """
    )
    done = program.python(str(program.path), PLAN)
    assert done.code == 0, done
    first, second = (json.loads(line) for line in program.effects)
    assert first["counts"] == {"RERUN": 1}
    assert second["counts"] == {"REPLAY": 1, "RERUN": 1}
    assert rows.state() == ("COMPLETED", "Completed")
    assert rows.value("SELECT max(interruptions) FROM tasks") == 0


@pytest.mark.parametrize(
    "edit",
    [
        ("range(days)", "range(days - 1)"), ("range(days)", "reversed(range(days))"), ("total = 0", "total = extract(9)"),
        ("rows == 20", "rows == 21"), ("load(extract(day))", "load(extract(day * 2))"),
    ],
)  # fmt: skip
def test_the_plan_is_what_then_happens(failed: Program, rows: Rows, edit: tuple[str, str]) -> None:
    failed.write(ETL.replace(*edit))
    found = plan(failed)
    before, epoch = len(failed.effects), rows.value("SELECT attempt FROM runs")
    failed.resume()
    ran = [effect for effect in failed.effects[before:] if effect != "hook"]
    calls = found["calls"]
    assert isinstance(calls, list)
    planned = [call for call in calls if call[0] in ("RERUN", "NEW")]
    if planned:
        ((_, task, inputs, *_),) = planned
        assert ran[0] == f"{task}={next(iter(inputs.values()))}"
    else:
        assert ran == []
    replayed = [(call[1], call[2]) for call in calls if call[0] == "REPLAY"]
    recorded = rows("SELECT task, inputs FROM tasks WHERE run_attempt <= ? AND orphan = 0 ORDER BY id", epoch)
    assert all((task, inputs) in [(name, json.loads(str(text))) for name, text in recorded] for task, inputs in replayed)
