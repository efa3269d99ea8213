"""What goes on as a new run, and what a deadline ends, where other things are under way."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import continue_as_new, flow, task
from wfengine.transactions import transaction
from wfengine_journal.errors import UsageError


def test_a_run_that_continues_waits_for_what_it_submitted(rows: Rows) -> None:
    @task
    def work(x: int) -> int:
        return x

    @flow
    def loop(n: int = 0) -> int:
        work.submit(n)
        if n < 3:
            continue_as_new(n=n + 1)
        return n

    assert loop() == 3
    assert rows("SELECT run_id, state FROM tasks ORDER BY run_id") == [(run, "COMPLETED") for run in range(1, 5)]
    assert rows("SELECT state_name, origin_run_id FROM runs ORDER BY id") == [
        ("ContinuedAsNew", None), ("ContinuedAsNew", 1), ("ContinuedAsNew", 2), ("Completed", 3),
    ]  # fmt: skip


def test_a_resume_of_an_earlier_run_of_a_chain_gives_the_last_one_or_names_it(program: Program) -> None:
    program.write(
        """
        from wfengine import continue_as_new

        @task
        def work(x):
            note(f"work={x}")
            if x == 2 and first_time():
                kill()
            return x

        @flow
        def loop(n=0):
            work(n)
            if n < 3:
                continue_as_new(n=n + 1)
            return n

        if __name__ == "__main__":
            loop()
        """
    )
    program.run_and_be_killed()
    refused = program.resume(run=1)
    assert "wfengine resume" in str(refused["text"])
    assert program.resume(run=3)["result"] == "3"
    assert program.resume(run=1)["result"] == "3"
    assert program.effects == ["work=0", "work=1", "work=2", "work=2", "work=3"]


def test_a_run_does_not_continue_out_of_a_transaction(rows: Rows) -> None:
    undone: list[int] = []

    @task
    def work(x: int) -> int:
        return x

    @work.on_rollback
    def undo(_: object) -> None:
        undone.append(1)

    @flow
    def loop(n: int = 0) -> int:
        with transaction():
            work(n)
            if n < 1:
                continue_as_new(n=n + 1)
        return n

    with pytest.raises(UsageError, match="transaction"):
        loop()
    assert undone == [1]
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_a_recovery_past_the_deadline_fails_the_run_and_a_persons_resume_grants_it_anew(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def work(x):
            note(f"work={x}")
            if x == 1 and first_time():
                kill()
            return x

        @flow(deadline_seconds=0.001)
        def late():
            return [work(x) for x in range(3)]

        if __name__ == "__main__":
            late()
        """
    )
    assert program.run().code != 0
    if rows.state()[0] == "RUNNING":  # it was quicker than its deadline, and killed
        assert program.resume(recovery=True)["state"] == "FAILED"
    assert rows.state() == ("FAILED", "TimedOut")
    text = program.path.read_text(encoding="utf-8")
    program.path.write_text(text.replace("0.001", "1000"), encoding="utf-8")
    (program.folder / "crashed").touch()
    assert program.resume()["result"] == "[0, 1, 2]"
