"""Tasks in a transaction are undone together, also when the process dies in the middle of undoing them."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.transactions import CommitMode, IsolationLevel, Transaction, atransaction, get_transaction, transaction


class Books:
    """Tasks that note what is done, undone and committed."""

    def __init__(self) -> None:
        self.log: list[str] = []

        @task
        def add(name: str) -> str:
            self.log.append(f"add {name}")
            own = get_transaction()
            assert own is not None
            own.set("name", name)
            return name

        @add.on_rollback
        def undo(txn: Transaction) -> None:
            self.log.append(f"undo {txn.get('name')}")

        @add.on_commit
        def confirm(txn: Transaction) -> None:
            self.log.append(f"confirm {txn.get('name')}")

        @task
        def fail() -> None:
            self.log.append("fail")
            raise ValueError("no")

        self.add = add
        self.fail = fail


@pytest.fixture
def books() -> Books:
    return Books()


def test_on_commit_hooks_are_called_in_order_when_the_block_ends(books: Books, rows: Rows) -> None:
    @flow
    def work() -> None:
        with transaction() as txn:
            books.add("a")
            books.add("b")
            books.log.append("end of block")
            assert txn.is_active()
        assert txn.is_committed()

    work()
    assert books.log == ["add a", "add b", "end of block", "confirm a", "confirm b"]
    assert rows("SELECT state_name FROM tasks") == [("Completed",)] * 2


def test_a_failure_undoes_what_was_done_last_one_first(books: Books, rows: Rows) -> None:
    @flow
    def work() -> None:
        with transaction():
            books.add("a")
            books.add("b")
            books.fail()

    with pytest.raises(ValueError, match="no"):
        work()
    assert books.log == ["add a", "add b", "fail", "undo b", "undo a"]
    assert rows("SELECT state, state_name FROM tasks ORDER BY id") == [
        ("COMPLETED", "RolledBack"), ("COMPLETED", "RolledBack"), ("FAILED", "Failed"),
    ]  # fmt: skip
    assert rows("SELECT state_name FROM history WHERE task_id = 1 ORDER BY seq") == [
        ("Running",), ("Completed",), ("RolledBack",),
    ]  # fmt: skip


def test_a_failure_of_the_body_itself_rolls_back_too(books: Books) -> None:
    @flow
    def work() -> None:
        with transaction() as txn:
            books.add("a")
            raise KeyError("mine")
        assert txn.is_rolled_back()

    with pytest.raises(KeyError):
        work()
    assert books.log == ["add a", "undo a"]


def test_a_failed_task_rolls_back_though_the_flow_caught_its_error(books: Books) -> None:
    @flow
    def work() -> str:
        with transaction() as txn:
            books.add("a")
            books.fail(return_state=True)
        return txn.state.value

    assert work() == "ROLLED_BACK"
    assert books.log == ["add a", "fail", "undo a"]


def test_submitted_tasks_are_waited_for_and_undone(books: Books) -> None:
    @flow
    def work() -> None:
        with transaction():
            books.add.map(["a", "b", "c"])
            books.fail.submit()

    work()  # nobody asked for the result of the failed task
    assert sorted(books.log) == sorted(["add a", "add b", "add c", "fail", "undo a", "undo b", "undo c"])


def test_a_task_without_a_rollback_hook_is_not_undone(books: Books, rows: Rows) -> None:
    @task
    def plain() -> int:
        return 1

    @flow
    def work() -> None:
        with transaction():
            plain()
            books.fail()

    with pytest.raises(ValueError, match="no"):
        work()
    assert rows("SELECT state_name FROM tasks WHERE task = 'plain'") == [("Completed",)]


@pytest.mark.parametrize("mode", list(CommitMode))
def test_commit_modes(books: Books, mode: CommitMode) -> None:
    @flow
    def work() -> None:
        with transaction(commit_mode=mode):
            with transaction(commit_mode=mode):
                books.add("inner")
            books.log.append("between")
        books.log.append("after")

    work()
    assert (
        books.log
        == {
            CommitMode.EAGER: ["add inner", "confirm inner", "between", "after"],
            CommitMode.LAZY: ["add inner", "between", "confirm inner", "after"],
            CommitMode.OFF: ["add inner", "between", "undo inner", "after"],
        }[mode]
    )


def test_nested_transactions_are_undone_with_the_outer_one(books: Books) -> None:
    @flow
    def work() -> None:
        with transaction():
            books.add("a")
            with transaction():
                books.add("b")
            books.fail()

    with pytest.raises(ValueError, match="no"):
        work()
    assert books.log[-2:] == ["undo b", "undo a"]


def test_an_inner_failure_that_is_caught_undoes_the_outer_one_too(books: Books) -> None:
    @flow
    def work() -> None:
        with transaction():
            books.add("a")
            try:
                with transaction():
                    books.add("b")
                    books.fail()
            except ValueError:
                books.log.append("caught")

    work()
    assert books.log == ["add a", "add b", "fail", "undo b", "caught", "undo a"]


def test_values_are_found_in_the_transactions_around(books: Books) -> None:
    @task
    def ask() -> object:
        own = get_transaction()
        assert own is not None
        return own.get("shared"), own.get("missing", "default")

    @flow
    def work() -> object:
        with transaction() as outer:
            outer.set("shared", [1])
            with transaction() as inner:
                got = inner.get("shared")
                got.append(2)  # type: ignore[attr-defined]  # a list
                with pytest.raises(ValueError, match="missing"):
                    inner.get("missing")
                return ask()

    assert work() == ([1], "default")
    assert get_transaction() is None


def test_hooks_of_the_block_and_async_blocks(books: Books) -> None:
    async def undo(txn: Transaction) -> None:
        await asyncio.sleep(0)
        books.log.append("undo block")

    @task
    async def add_async(name: str) -> str:
        return name

    @add_async.on_rollback
    async def undo_async(txn: Transaction) -> None:
        await asyncio.sleep(0)
        books.log.append("undo async")

    @flow
    async def work() -> None:
        async with atransaction() as txn:
            txn.stage(1, on_rollback_hooks=[undo])
            await asyncio.gather(add_async("a"), add_async("b"))
            books.add("c")
            books.fail()

    with pytest.raises(ValueError, match="no"):
        asyncio.run(work())
    assert books.log == ["add c", "fail", "undo block", "undo c", "undo async", "undo async"]


def test_tasks_of_subflows_are_undone_and_run_again_on_resume(books: Books, rows: Rows) -> None:
    @flow
    def inner(name: str) -> str:
        return books.add(name)

    broken = True

    @task
    def check() -> None:
        if broken:
            raise ValueError("not yet")

    @flow
    def work() -> str:
        with transaction():
            name = inner("a")
            check()
        return name

    with pytest.raises(ValueError, match="not yet"):
        work()
    assert books.log == ["add a", "undo a"]
    assert rows("SELECT flow, state, state_name FROM runs WHERE id = 2") == [("inner", "COMPLETED", "RolledBack")]
    broken = False
    assert work.resume("@last") == "a"
    assert books.log == ["add a", "undo a", "add a", "confirm a"]
    assert rows("SELECT state, state_name FROM runs") == [("COMPLETED", "Completed")] * 2


def test_a_failing_rollback_hook_is_logged_and_the_rest_is_undone(books: Books, rows: Rows) -> None:
    @task
    def stubborn() -> None:
        books.log.append("stubborn")

    @stubborn.on_rollback
    def cannot(txn: Transaction) -> None:
        raise OSError("disk gone")

    @flow
    def work() -> None:
        with transaction():
            books.add("a")
            stubborn()
            books.fail()

    with pytest.raises(ValueError, match="no"):
        work()
    assert books.log[-1] == "undo a"
    assert rows("SELECT state_name FROM tasks WHERE task = 'stubborn'") == [("Completed",)]
    assert rows("SELECT error FROM hook_run WHERE error IS NOT NULL") == [("OSError: disk gone",)]


def test_a_failing_commit_hook_rolls_back(books: Books) -> None:
    @task
    def picky() -> None:
        books.log.append("picky")

    @picky.on_commit
    def refuse(txn: Transaction) -> None:
        raise OSError("no")

    @flow
    def work() -> str:
        with transaction() as txn:
            books.add("a")
            picky()
        return txn.state.value

    assert work() == "ROLLED_BACK"
    assert books.log == ["add a", "picky", "confirm a", "undo a"]


def test_a_task_outside_of_a_block_commits_by_itself_once(books: Books) -> None:
    @flow
    def work() -> None:
        books.add("a")
        books.log.append("next")
        books.fail()

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            work() if _ == 0 else work.resume("@last")
    assert books.log == ["add a", "confirm a", "next", "fail", "next", "fail"]


def test_a_transaction_outside_of_any_flow_holds_lone_tasks_together(books: Books) -> None:
    def work() -> None:
        with transaction():
            books.add("a")
            books.fail()

    with pytest.raises(ValueError, match="no"):
        work()
    assert books.log == ["add a", "fail", "undo a"]


SAGA = """
from wfengine.transactions import transaction, get_transaction

@task
def book(name):
    note(f"book:{name}")
    get_transaction().set("name", name)
    return name

@book.on_rollback
def cancel(txn):
    note(f"cancel:{txn.get('name')}")
    if KILL == "in hook" and txn.get("name") == "car" and first_time():
        kill()

@book.on_commit
def confirm(txn):
    note(f"confirm:{txn.get('name')}")
    if KILL == "in commit" and txn.get("name") == "car" and first_time():
        kill()

@task
def pay():
    note("pay")
    if not (HERE / "mended").exists():
        raise ValueError("no money")

@flow
def trip():
    with transaction():
        book("hotel")
        book("car")
        book("flight")
        pay()
    return "booked"

if __name__ == "__main__":
    trip()
"""


def test_a_rollback_that_was_cut_off_goes_on_where_it_stopped(program: Program, rows: Rows) -> None:
    program.write('KILL = "in hook"\n' + SAGA)
    program.run_and_be_killed()
    assert program.resume(recovery=True)["state"] == "FAILED"
    assert program.effects == [
        "book:hotel", "book:car", "book:flight", "pay", "cancel:flight", "cancel:car", "cancel:car", "cancel:hotel",
    ]  # fmt: skip
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("RolledBack",)] * 3 + [("Failed",)]


def test_what_was_undone_runs_again_when_the_failure_does(program: Program, rows: Rows) -> None:
    program.write('KILL = ""\n' + SAGA)
    assert program.run().code == 1
    (program.folder / "mended").touch()
    assert program.resume()["result"] == "'booked'"
    assert program.effects[4:] == [
        "cancel:flight", "cancel:car", "cancel:hotel", "book:hotel", "book:car", "book:flight", "pay",
        "confirm:hotel", "confirm:car", "confirm:flight",
    ]  # fmt: skip
    assert rows("SELECT state_name, attempts FROM tasks ORDER BY id") == [("Completed", 2)] * 4


def test_a_commit_that_was_cut_off_goes_on_where_it_stopped(program: Program) -> None:
    program.write('KILL = "in commit"\n' + SAGA)
    (program.folder / "mended").touch()
    program.run_and_be_killed()
    assert program.resume()["result"] == "'booked'"
    assert program.effects[4:] == ["confirm:hotel", "confirm:car", "confirm:car", "confirm:flight"]


HANDLED = """
from wfengine.transactions import transaction

@task
def book(name):
    note(f"book:{name}")

@book.on_rollback
def cancel(txn):
    note("cancel")

@task
def pay():
    raise ValueError("no money")

@task
def late():
    if first_time():
        raise ValueError("a bug")

@flow
def trip():
    try:
        with transaction():
            book("hotel")
            pay()
    except ValueError:
        note("handled")
    late()

if __name__ == "__main__":
    trip()
"""


def test_what_a_handled_failure_undid_is_replayed_as_it_was(program: Program) -> None:
    program.write(HANDLED)
    assert program.run().code == 1
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == ["book:hotel", "cancel", "handled", "handled"]


KEYED = """
from wfengine.transactions import transaction

@task
def load():
    note("load")

@flow
def work():
    with transaction(key="import") as txn:
        if not txn.is_committed():
            load()
            txn.stage([1, 2])
    note(f"found:{txn.read() is not None}")
    if first_time():
        kill()

if __name__ == "__main__":
    work()
"""


def test_a_resumed_block_takes_the_path_it_took_though_its_key_is_committed_by_now(program: Program, rows: Rows) -> None:
    program.write(KEYED)
    program.run_and_be_killed()
    assert rows("SELECT key FROM cache") == [("import",)]
    assert program.resume()["state"] == "COMPLETED"
    assert program.run().code == 0
    assert program.effects == ["load", "found:True", "found:True", "found:True"]
    assert rows("SELECT state, tasks_total FROM flow_run ORDER BY id") == [("COMPLETED", 1), ("COMPLETED", 0)]


SERIAL = """
from wfengine.transactions import IsolationLevel, transaction

@flow
def work():
    with transaction(key="import", isolation_level=IsolationLevel.SERIALIZABLE) as txn:
        note("in" if not txn.is_committed() else "committed")
        if first_time():
            kill()
        txn.stage("done")
        note("out")

if __name__ == "__main__":
    work()
"""


def test_a_serializable_block_whose_process_was_killed_lets_the_next_one_in(program: Program) -> None:
    program.write(SERIAL)
    program.run_and_be_killed()
    assert program.run().code == 0
    assert program.resume("1")["state"] == "COMPLETED"
    # The first run had found nothing committed when it began, and goes on with that.
    assert program.effects == ["in", "in", "out", "in", "out"]


def test_serializable_blocks_with_one_key_run_one_at_a_time_in_one_flow_too(rows: Rows) -> None:
    inside: list[int] = []
    most: list[int] = []

    @task
    def use(n: int) -> bool:
        with transaction(key="one", isolation_level=IsolationLevel.SERIALIZABLE, overwrite=True) as txn:
            inside.append(n)
            most.append(len(inside))
            txn.stage(n)
            inside.remove(n)
            return txn.is_committed()

    @flow
    def work() -> None:
        use.map(range(8)).result()

    work()
    assert max(most) == 1
    assert rows.value("SELECT count(*) FROM slot") == 0


def test_concurrent_blocks_of_one_body_with_one_key_take_turns() -> None:
    inside: list[int] = []

    @flow
    async def work() -> int:
        async def one(n: int) -> None:
            async with atransaction(key="one", isolation_level=IsolationLevel.SERIALIZABLE, overwrite=True):
                inside.append(n)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.remove(n)

        await asyncio.gather(*[one(n) for n in range(5)])
        return len(inside)

    assert asyncio.run(work()) == 0


def test_a_keyed_transaction_outside_of_a_flow_keeps_its_value(rows: Rows) -> None:
    for expected in (False, True):
        with transaction(key="lone") as txn:
            assert txn.is_committed() is expected
            txn.stage({"n": 1})
    record = txn.read()
    assert record is not None
    assert record.result == {"n": 1}
