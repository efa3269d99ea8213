"""What a person takes back or sets before a resume: it runs again, and only what its result changes runs after it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows

ROOT = Path(__file__).parents[2]

CHAIN = """
    @task
    def price(item):
        note(f"price={item}")
        return PRICES[item]

    @task(call_key="order-{item}")
    def order(item, amount):
        note(f"order={item},{amount}")
        return amount + 1

    @task
    def report(total):
        note(f"report={total}")
        return total

    @flow
    def shop(items):
        return report(sum(order(item, price(item)) for item in items))

    PRICES = {"a": 1, "b": 2, "c": 3}

    if __name__ == "__main__":
        shop(["a", "b", "c"])
"""


@pytest.fixture
def shop(program: Program) -> Program:
    program.write(CHAIN)
    assert program.run().code == 0
    assert len(program.effects) == 7
    return program


def since(program: Program, number: int) -> list[str]:
    return program.effects[number:]


def test_a_call_that_runs_again_and_gives_an_equal_value_lets_everything_after_it_replay(shop: Program) -> None:
    assert shop.resume(rerun=["price[b]"])["result"] == "9"
    assert since(shop, 7) == ["price=b"]


def test_what_a_changed_result_changes_runs_again_and_nothing_else(shop: Program, rows: Rows) -> None:
    shop.write(CHAIN.replace('"b": 2', '"b": 20'))
    assert shop.resume(rerun=["price[item=b]"])["result"] == "9"  # order's call_key does not count the amount
    assert shop.resume(rerun=["price[b]", "order[order-b]"])["result"] == "27"
    assert since(shop, 7) == ["price=b", "price=b", "order=b,20", "report=27"]
    assert rows("SELECT inputs FROM orphans") == [('{"total":9}',)]


def test_from_a_task_on_everything_runs_again(shop: Program) -> None:
    assert shop.resume(rerun=["from:order"])["result"] == "9"
    assert since(shop, 7) == ["order=a,1", "price=b", "order=b,2", "price=c", "order=c,3", "report=9"]


def test_a_value_set_by_hand_is_what_the_flow_is_given(shop: Program, rows: Rows) -> None:
    assert shop.resume(values={"order[order-a]": 100})["result"] == "107"
    assert since(shop, 7) == ["report=107"]
    assert rows(
        "SELECT state_name, message, result FROM tasks WHERE task = 'order' AND json_extract(inputs, '$.item') = 'a'"
    ) == [("Set", "set by a person: order[order-a]", "100")]
    assert shop.resume()["result"] == "107"
    assert len(since(shop, 7)) == 1


def test_the_outcome_that_was_taken_back_stays_in_the_history_with_its_value(shop: Program, rows: Rows) -> None:
    shop.resume(rerun=["price[a]"])
    assert rows("SELECT state_name, message FROM history WHERE task = 'price' AND state_name = 'Rerun'") == [
        ("Rerun", "to run again: price[a]")
    ]
    connection = sqlite3.connect(rows.path)
    kept = connection.execute(
        "SELECT v.data FROM transition h JOIN value v ON v.hash = h.result_hash WHERE h.state_name = 'Rerun'"
    ).fetchall()
    connection.close()
    assert kept == [("1",)]


@pytest.mark.long
def test_a_rerun_killed_before_any_of_its_statements_is_chosen_whole_or_not_at_all(shop: Program) -> None:
    """Every second statement of a resume that takes two calls back and runs them, until one resume ends unkilled."""
    folder = shop.folder
    whole = (folder / "journal.db").read_bytes()
    shop.write(CHAIN.replace('"b": 2', '"b": 20'))
    for statement in range(1, 200, 2):
        for left in ("journal.db-wal", "journal.db-shm"):
            (folder / left).unlink(missing_ok=True)
        (folder / "journal.db").write_bytes(whole)
        done = len(shop.effects)
        ended = shop.python("-c", KILLED, str(statement))
        if not ended.was_killed:
            assert ended.code == 0, ended
            assert statement > 20
            return
        answer = shop.resume(recovery=True)
        again = since(shop, done)
        assert answer["result"] in ("27", "9"), (statement, ended)  # what was chosen was committed before the kill, or was not
        assert set(again) == ({"price=b", "order=b,20", "report=27"} if answer["result"] == "27" else set()), statement
        assert len(again) <= 4, statement  # one was cut off
    pytest.fail("no resume ended unkilled")


#: Dies before the n-th statement that the resume executes.
KILLED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.crash.plan import StatementPlan
StatementPlan(int(sys.argv[1]), Path("killed-before.sql")).install()
from wfengine import use_journal
from wfengine.recovery import resume_run
resume_run(use_journal(None), 1, rerun=["price[b]", "order[order-b]"])
"""


def test_what_names_no_call_is_refused_with_the_calls_there_are_and_changes_nothing(shop: Program, rows: Rows) -> None:
    before = rows("SELECT * FROM history")
    for options in (
        {"rerun": ["prize"]},
        {"rerun": ["price[z]"]},
        {"values": {"order[order-z]": 1}},
        {"rerun": ["price", "x[1"]},
    ):
        answer = shop.resume(**options)
        assert answer["error"] == "UsageError"
    assert "Its calls: order (3), price (3), report (1)" in str(shop.resume(rerun=["prize"])["text"])
    assert rows("SELECT * FROM history") == before


def test_a_call_in_a_subflow_and_those_around_it_are_opened(program: Program) -> None:
    program.write(
        """
        @task
        def inner(x):
            note(f"inner={x}")
            return x + 1

        @task
        def outer(x):
            note(f"outer={x}")
            return inner(x)

        @flow
        def child(x):
            return outer(x) + inner(10 * x)

        @flow
        def parent():
            return [child(x) for x in range(2)]

        if __name__ == "__main__":
            parent()
        """
    )
    assert program.run().code == 0
    done = len(program.effects)
    assert program.resume(rerun=["inner[1]"], run=1)["result"] == "[2, 13]"
    assert since(program, done) == ["outer=1", "inner=1"]  # the task around it is entered, and what else it called replays
    done = len(program.effects)
    assert program.resume(rerun=["child[0]"], run=1)["result"] == "[2, 13]"
    assert since(program, done) == ["outer=0", "inner=0", "inner=0"]


def test_failed_runs_failures_again_that_the_flow_had_handled_and_a_plain_resume_does_not(program: Program) -> None:
    program.write(
        """
        @task
        def shaky(x):
            note(f"shaky={x}")
            if not (HERE / "mended").exists():
                raise ValueError(x)
            return x

        @flow
        def main():
            try:
                return shaky(1)
            except ValueError:
                pass
            return shaky(2)

        if __name__ == "__main__":
            main()
        """
    )
    assert program.run().code == 1
    (program.folder / "mended").touch()
    assert program.resume()["result"] == "2"
    assert program.effects == ["shaky=1", "shaky=2", "shaky=2"]
    assert program.resume(rerun=["failed"])["result"] == "1"
    assert program.effects[3:] == ["shaky=1"]


def test_changed_runs_the_calls_of_tasks_whose_code_changed_once(shop: Program) -> None:
    assert shop.resume(rerun=["changed"])["result"] == "9"
    assert since(shop, 7) == []
    shop.write(
        CHAIN.replace("return amount + 1", "return amount + 2  # mended").replace("def price", "# a comment\n    def price")
    )
    assert shop.resume(rerun=["changed"])["result"] == "12"
    assert since(shop, 7) == ["order=a,1", "order=b,2", "order=c,3", "report=12"]
    assert shop.resume(rerun=["changed"])["result"] == "12"
    assert len(since(shop, 7)) == 4


def test_reuse_lets_the_recorded_result_stand_for_other_inputs_now_and_later(program: Program, rows: Rows) -> None:
    text = """
        @task
        def draw(x):
            note(f"draw={x}")
            return f"drawn {x}"

        @flow
        def main():
            found = draw(random.random())
            if first_time():
                kill()
            return found

        main()
    """
    program.write(text)
    program.run_and_be_killed()
    assert program.resume()["error"] == "DriftError"
    drawn = program.effects[0].removeprefix("draw=")
    assert program.resume(on_drift="reuse")["result"] == repr(f"drawn {drawn}")
    assert program.effects == [f"draw={drawn}"]
    ((message, orphan),) = rows("SELECT message, orphan FROM tasks")
    assert orphan == 0
    assert str(message).startswith("reused, as a person asked; it was called with")


def test_a_run_that_somebody_executes_is_not_corrected(journal: object, tmp_path: Path) -> None:
    from wfengine import flow, task
    from wfengine.journals import default_journal
    from wfengine.recovery import resume_run
    from wfengine.runs import current_flow_run
    from wfengine_journal.errors import RunOwnedError

    @task
    def work(x: int) -> int:
        return x

    refused: list[BaseException] = []

    @flow
    def main() -> int:
        work(1)
        run_id = current_flow_run().id
        try:
            resume_run(default_journal(), run_id, rerun=["work"])
        except RunOwnedError as error:
            refused.append(error)
        return work(2)

    assert main() == 2
    assert len(refused) == 1
