"""Transactions: what belongs together is committed together, or rolled back in the reverse order."""

from __future__ import annotations

from pathlib import Path

import pytest

from wfengine import flow, task
from wfengine.transactions import CommitMode, IsolationLevel, Transaction, get_transaction, transaction


def test_a_failure_rolls_back_what_the_transaction_s_tasks_did(tmp_path: Path) -> None:
    @task
    def write_file(contents: str) -> None:
        Path("report.txt").write_text(contents, encoding="utf-8")

    @write_file.on_rollback
    def delete_file(_: Transaction) -> None:
        Path("report.txt").unlink()

    @task
    def check() -> None:
        contents = Path("report.txt").read_text(encoding="utf-8")
        if len(contents) < 5:
            raise ValueError("too short")

    @flow
    def pipeline(contents: str) -> None:
        with transaction():
            write_file(contents)
            check()

    pipeline("long enough")
    assert Path("report.txt").exists()
    with pytest.raises(ValueError, match="too short"):
        pipeline("no")
    assert not Path("report.txt").exists()


def test_rollback_hooks_run_in_reverse_and_commit_hooks_in_order() -> None:
    order: list[str] = []

    @task
    def step(name: str, fail: bool = False) -> str:
        if fail:
            raise RuntimeError(name)
        return name

    @step.on_rollback
    def undo(txn: Transaction) -> None:
        order.append("undo")

    @step.on_commit
    def confirm(txn: Transaction) -> None:
        order.append("confirm")

    @task
    def other() -> None: ...

    @other.on_rollback
    def undo_other(txn: Transaction) -> None:
        order.append("undo other")

    @other.on_commit
    def confirm_other(txn: Transaction) -> None:
        order.append("confirm other")

    @flow
    def program(fail: bool) -> None:
        with transaction():
            step("a")
            other()
            step("b", fail)

    program(False)
    assert order == ["confirm", "confirm other", "confirm"]
    order.clear()
    with pytest.raises(RuntimeError):
        program(True)
    assert order == ["undo other", "undo"]


def test_hooks_and_tasks_share_values_through_the_transaction() -> None:
    seen: list[object] = []

    @task
    def load(table: str) -> None:
        get_transaction().set("table", table)  # type: ignore[union-attr]

    @load.on_rollback
    def drop(txn: Transaction) -> None:
        seen.append((txn.get("table"), txn.get("other", "none")))

    @flow
    def program() -> None:
        with transaction() as txn:
            txn.set("run", 7)
            load("sales")
            seen.append(txn.get("run"))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        program()
    assert seen[0] == 7
    assert seen[1:] == [("sales", "none")]


def test_a_value_that_was_not_set_is_an_error_without_a_default() -> None:
    @flow
    def program() -> object:
        with transaction() as txn:
            assert txn.get("absent", None) is None
            return txn.get("absent")

    with pytest.raises(ValueError, match="absent"):
        program()


def test_a_task_that_fails_for_good_rolls_the_block_back_though_the_flow_handled_it() -> None:
    undone: list[str] = []

    @task
    def write() -> None: ...

    @write.on_rollback
    def undo(_: Transaction) -> None:
        undone.append("write")

    @task
    def optional() -> None:
        raise OSError("not there")

    @flow
    def program() -> None:
        with transaction():
            write()
            assert optional(return_state=True).is_failed()

    program()
    assert undone == ["write"]


def test_a_nested_transaction_is_undone_with_the_one_around_it() -> None:
    undone: list[str] = []

    @task
    def write(name: str) -> str:
        get_transaction().set("name", name)  # type: ignore[union-attr]
        return name

    @write.on_rollback
    def undo(txn: Transaction) -> None:
        undone.append(txn.get("name"))

    @flow
    def program() -> None:
        with transaction():
            write("outer")
            with transaction():
                write("inner")
            raise RuntimeError("late")

    with pytest.raises(RuntimeError):
        program()
    assert undone == ["inner", "outer"]


def test_the_work_of_a_committed_key_is_not_done_again() -> None:
    done: list[str] = []

    @task
    def import_file(name: str) -> str:
        done.append(name)
        return name

    @flow
    def program(name: str) -> bool:
        with transaction(key=f"import-{name}") as txn:
            if txn.is_committed():
                return False
            txn.stage({"file": name})
            import_file(name)
            return True

    assert [program("a.csv"), program("a.csv"), program("b.csv")] == [True, False, True]
    assert done == ["a.csv", "b.csv"]


def test_a_key_that_was_rolled_back_is_free_again() -> None:
    attempts: list[int] = []

    @flow
    def program() -> bool:
        with transaction(key="import") as txn:
            if txn.is_committed():
                return False
            txn.stage("done")
            attempts.append(1)
            if len(attempts) == 1:
                raise RuntimeError("broken")
            return True

    with pytest.raises(RuntimeError):
        program()
    assert [program(), program()] == [True, False]


def test_overwrite_does_the_work_of_a_key_again() -> None:
    done: list[int] = []

    @flow
    def program(overwrite: bool) -> None:
        with transaction(key="import", overwrite=overwrite) as txn:
            if not txn.is_committed():
                done.append(1)
                txn.stage("done")

    program(False)
    program(False)
    program(True)
    assert len(done) == 2


def test_commit_mode_off_rolls_back_without_a_failure() -> None:
    undone: list[str] = []

    @task
    def write() -> None: ...

    @write.on_rollback
    def undo(_: Transaction) -> None:
        undone.append("write")

    @flow
    def rehearsal() -> None:
        with transaction(commit_mode=CommitMode.OFF):
            write()

    rehearsal()
    assert undone == ["write"]


def test_a_serializable_transaction_has_its_key_to_itself() -> None:
    @flow
    def program() -> object:
        with transaction(key="one", isolation_level=IsolationLevel.SERIALIZABLE) as txn:
            txn.stage(5)
        with transaction(key="one", isolation_level=IsolationLevel.SERIALIZABLE) as txn:
            record = txn.read()
            return txn.is_committed(), record and record.result

    assert program() == (True, 5)


def test_outside_of_a_transaction_there_is_none() -> None:
    @flow
    def program() -> object:
        return get_transaction()

    assert program() is None
