"""A fork begins with what another run recorded, and leaves that one as it was."""

from __future__ import annotations

import json

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.forks import fork_run
from wfengine.recovery import resume_run
from wfengine.runs import current_task_run
from wfengine_journal.errors import ParameterError, UsageError
from wfengine_journal.store import Journal

called: list[str] = []


@task
def prepare(x: int) -> int:
    called.append(f"prepare {x}")
    return x * 10


@task
def train(data: int, rate: float) -> float:
    called.append(f"train {data} {rate}")
    return data * rate


@flow
def half(x: int) -> int:
    return prepare(x)


@flow
def model(x: int, rate: float = 0.5) -> float:
    return train(half(x), rate) + prepare(x + 1)


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


def everything(rows: Rows, run_id: int) -> list[tuple[object, ...]]:
    return [
        *rows("SELECT * FROM runs WHERE id = ?", run_id),
        *rows("SELECT * FROM tasks WHERE run_id = ?", run_id),
        *rows("SELECT * FROM history WHERE run_id = ?", run_id),
    ]


def test_a_fork_replays_what_its_original_completed_and_leaves_it_as_it_was(journal: Journal, rows: Rows) -> None:
    assert model(4) == 70.0
    before = everything(rows, 1)
    fork = fork_run(journal, 1)
    assert fork.copied == 3
    assert rows("SELECT state, state_name, origin, origin_run_id FROM runs WHERE id = ?", fork.flow_run_id) == [
        ("PENDING", "Forked", "fork", 1)
    ]
    called.clear()
    assert resume_run(journal, fork.flow_run_id).result() == 70.0
    assert called == []
    assert everything(rows, 1) == before


def test_from_a_task_on_the_fork_runs_anew_with_other_parameters(journal: Journal) -> None:
    model(4)
    called.clear()
    fork = fork_run(journal, 1, before="train", parameters={"rate": 2})
    assert resume_run(journal, fork.flow_run_id).result() == 130.0
    assert called == ["train 40 2", "prepare 5"]


def test_parameters_that_do_not_fit_and_tasks_that_were_not_called_are_refused(journal: Journal, rows: Rows) -> None:
    model(4)
    with pytest.raises(ParameterError, match="no parameter speed"):
        fork_run(journal, 1, parameters={"speed": 2})
    with pytest.raises(ParameterError):
        fork_run(journal, 1, parameters={"rate": "fast"})
    with pytest.raises(UsageError, match=r"has no call of tune\. Its calls: half \(1\), prepare \(2\), train \(1\)"):
        fork_run(journal, 1, before="tune")
    assert rows.value("SELECT count(*) FROM runs") == 2


def test_a_call_of_the_fork_has_an_idempotency_key_of_its_own(journal: Journal) -> None:
    keys: list[str] = []

    @task
    def charge() -> int:
        keys.append(current_task_run().idempotency_key)
        return 1

    @flow
    def main() -> int:
        return charge()

    main()
    fork = fork_run(journal, 1, before="charge")
    main.resume(fork.flow_run_id)
    assert len(set(keys)) == 2


def test_a_fork_of_a_killed_run_goes_on_where_it_was_cut_off_in_its_subflows_too(program: Program, rows: Rows) -> None:
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
        def parent():
            return child(0) + child(2)

        if __name__ == "__main__":
            parent()
        """
    )
    program.run_and_be_killed()
    made = program.python(
        "-c",
        "import wfengine, wfengine.forks; print(wfengine.forks.fork_run(wfengine.use_journal(None), 1).flow_run_id)",
    )
    fork = int(made.out)
    assert program.resume(run=fork)["result"] == "6"
    assert program.effects == ["work=0", "work=1", "work=2", "work=3", "work=3"]
    assert rows("SELECT state FROM runs WHERE id IN (1, 3) ORDER BY id") == [("RUNNING",), ("RUNNING",)]  # nobody looked yet
    assert rows("SELECT state FROM runs WHERE id IN (?, ?) ORDER BY id", fork, fork + 1) == [("COMPLETED",), ("COMPLETED",)]
    assert program.resume(run=1)["result"] == "6"


def test_the_history_of_a_fork_is_whole(journal: Journal, rows: Rows) -> None:
    model(4)
    fork = fork_run(journal, 1)
    resume_run(journal, fork.flow_run_id)
    assert (
        rows(
            "SELECT t.id FROM task_run t WHERE t.version <>"
            " (SELECT max(h.seq) FROM transition h WHERE h.flow_run_id = t.flow_run_id AND h.task_run_id = t.id)"
        )
        == []
    )
    assert rows("SELECT count(*) FROM pragma_foreign_key_check") == [(0,)]


def test_what_one_run_noted_does_not_show_in_a_fork_that_begins_before(journal: Journal, rows: Rows) -> None:
    model(4)
    fork = fork_run(journal, 1, before="prepare")
    assert fork.copied == 1  # the subflow's own call is after that of the subflow
    assert json.loads(str(rows.value("SELECT parameters FROM runs WHERE id = ?", fork.flow_run_id))) == {"x": 4, "rate": 0.5}
