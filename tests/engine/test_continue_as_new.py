"""continue_as_new: the end of one run and the beginning of the next are one transaction, lived on in a loop."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import continue_as_new, flow, task
from wfengine_journal.errors import ParameterError, UsageError


@flow
def counting(n: int = 0, last: int = 3, word: str = "a") -> str:
    if n < last:
        continue_as_new(n=n + 1)
    return f"{word}{n}"


def test_the_caller_is_given_the_last_runs_result(rows: Rows) -> None:
    assert counting(word="b") == "b3"
    assert rows("SELECT id, state_name, origin, origin_run_id FROM runs") == [
        (1, "ContinuedAsNew", None, None),
        (2, "ContinuedAsNew", "continued", 1),
        (3, "ContinuedAsNew", "continued", 2),
        (4, "Completed", "continued", 3),
    ]


def test_an_async_flow_and_a_subflow_continue(rows: Rows) -> None:
    @flow
    async def child(n: int = 0) -> int:
        if n < 2:
            continue_as_new(n=n + 1)
        return n

    @flow
    async def parent() -> int:
        return await child()

    assert asyncio.run(parent()) == 2
    assert rows("SELECT id FROM runs WHERE parent_run_id = 1") == [(4,)]


def test_hundreds_of_continuations_need_no_stack(rows: Rows) -> None:
    assert counting.with_options(durability="process")(last=1500) == "a1500"


def test_elsewhere_and_with_wrong_parameters_it_is_refused(rows: Rows) -> None:
    @task
    def inside() -> None:
        continue_as_new()

    @flow
    def wrong(n: int = 0) -> None:
        with pytest.raises(UsageError, match="outside of a flow's body"):
            inside()
        with pytest.raises(ParameterError):
            continue_as_new(m=1)

    wrong()
    with pytest.raises(UsageError, match="outside of a flow's body"):
        continue_as_new()
    assert rows.value("SELECT count(*) FROM runs") == 1


PROGRAM = """
import sys
sys.path.insert(0, ROOT)
from tests.crash.plan import StatementPlan
from wfengine import continue_as_new

@flow
def main(n=0):
    if n < 1:
        continue_as_new(n=n + 1)
    return n

if __name__ == "__main__":
    from wfengine.recovery import resumable_runs, resume_run
    number = int(sys.argv[1])
    if number:
        StatementPlan(number, HERE / "note.sql").install()
    journal = use_journal(HERE / "journal.db")
    if sys.argv[2] == "start":
        main()
    else:
        for run_id in resumable_runs(journal):
            resume_run(journal, run_id, recovery=True)
"""


@pytest.mark.long
def test_killed_at_each_statement_there_is_never_a_second_successor_and_never_none(program: Program, rows: Rows) -> None:
    from tests.crash.harness import ROOT

    program.write(PROGRAM.replace("ROOT", repr(str(ROOT)), 1))
    assert program.python("program.py", "0", "start").code == 0  # the schema is there from now on
    kills = 0
    for number in range(1, 100):
        before = rows.value("SELECT count(*) FROM runs")
        done = program.python("program.py", str(number), "start")
        assert program.python("program.py", "0", "resume").code == 0
        made = int(str(rows.value("SELECT count(*) FROM runs"))) - int(str(before))
        assert made in ((0, 2) if done.was_killed else (2,)), number
        if not done.was_killed:
            break
        kills += 1
    assert kills > 10
    assert rows("SELECT DISTINCT state FROM runs") == [("COMPLETED",)]
    assert rows("SELECT origin_run_id FROM runs WHERE origin = 'continued' GROUP BY 1 HAVING count(*) > 1") == []
