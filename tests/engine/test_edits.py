"""Fix the bug, resume: what an edit of the flow after a crash changes, and what it leaves alone.

Each flow is a real file, killed by SIGKILL, edited, and resumed by another process. The side-effect file says what ran.
A task's value is random, so that a value of another call, or of a second execution, cannot pass for the right one.
"""

from __future__ import annotations

import ast

import pytest

from tests.engine.conftest import Program, Rows

HEAD = """
    @task
    def fetch(name):
        value = f"{name}:{uuid.uuid4().hex}"
        note(f"fetch={value}")
        return value

    @task
    def check(name):
        value = f"{name}:{uuid.uuid4().hex}"
        note(f"check={value}")
        return value

"""
ASYNC_HEAD = HEAD.replace("def ", "async def ").replace("async def main", "def main")


class Edit:
    """A flow before and after an edit."""

    def __init__(self, program: Program, is_async: bool) -> None:
        self.program = program
        self.is_async = is_async
        self.first: list[str] = []

    def write(self, body: str) -> None:
        text = HEAD + "    @flow(name='edited')\n    def main():\n" + body.replace("\n    ", "\n        ") + "\n"
        if self.is_async:
            text = (
                text.replace("    def ", "    async def ").replace("fetch(", "await fetch(").replace("check(", "await check(")
            )
            text = text.replace("def await ", "def ")
            text += "\n    asyncio.run(main())\n"
        else:
            text += "\n    main()\n"
        self.program.write(text)

    def run(self, body: str) -> None:
        self.write(body)
        self.program.run_and_be_killed()
        self.first = list(self.program.effects)

    def resume(self, body: str) -> list[str]:
        """Resume with an edited body; return the names of the values that the flow returned, as it saw them."""
        self.write(body)
        answer = self.program.resume()
        assert answer["state"] == "COMPLETED", answer
        values = ast.literal_eval(str(answer["result"]))
        made = dict(effect.split("=")[1].split(":") for effect in self.program.effects)
        for value in values:
            name, number = value.split(":")
            assert made[name] == number, f"{value} is not the value that the call of {name!r} returned"
        return [value.split(":")[0] for value in values]

    @property
    def later(self) -> list[str]:
        """What ran after the crash."""
        return [effect.split(":")[0] for effect in self.program.effects[len(self.first) :]]


@pytest.fixture(params=["sync", "async"])
def edit(program: Program, request: pytest.FixtureRequest) -> Edit:
    return Edit(program, request.param == "async")


TWO_CALLS = """
    a = fetch("a")
    b = fetch("b")
    kill()
"""


def test_swapping_two_calls_of_one_task_runs_nothing_and_gives_each_its_own_value(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    b = fetch("b")\n    a = fetch("a")\n    return [a, b]') == ["a", "b"]
    assert edit.later == []


def test_inserting_a_call_of_the_same_task_first_runs_only_that(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    z = fetch("z")\n    a = fetch("a")\n    b = fetch("b")\n    return [z, a, b]') == ["z", "a", "b"]
    assert edit.later == ["fetch=z"]


def test_inserting_a_call_of_another_task_first_runs_only_that(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    z = check("z")\n    a = fetch("a")\n    b = fetch("b")\n    return [z, a, b]') == ["z", "a", "b"]
    assert edit.later == ["check=z"]


def test_inserting_a_call_between_finished_ones_runs_only_that(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    a = fetch("a")\n    m = fetch("m")\n    b = fetch("b")\n    return [a, m, b]') == ["a", "m", "b"]
    assert edit.later == ["fetch=m"]


def test_correcting_one_argument_runs_only_that_call_and_lists_the_old_one(edit: Edit, rows: Rows) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    a = fetch("x")\n    b = fetch("b")\n    return [a, b]') == ["x", "b"]
    assert edit.later == ["fetch=x"]
    assert rows("SELECT inputs FROM orphans") == [('{"name":"a"}',)]


def test_removing_a_call_runs_nothing_and_lists_it_as_orphan(edit: Edit, rows: Rows) -> None:
    edit.run(TWO_CALLS)
    assert edit.resume('\n    b = fetch("b")\n    return [b]') == ["b"]
    assert edit.later == []
    assert rows("SELECT inputs FROM orphans") == [('{"name":"a"}',)]
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 2


LOOP = """
    values = []
    for number in range(3):
        values.append(fetch(f"n{number}"))
    kill()
"""


@pytest.mark.parametrize(("bound", "ran"), [(5, ["fetch=n3", "fetch=n4"]), (2, []), (3, [])])
def test_changing_the_bound_of_a_loop_runs_only_what_is_new(edit: Edit, bound: int, ran: list[str]) -> None:
    edit.run(LOOP)
    edited = LOOP.replace("range(3)", f"range({bound})").replace("kill()", "return values")
    assert edit.resume(edited) == [f"n{number}" for number in range(bound)]
    assert edit.later == ran


def test_renaming_a_variable_and_adding_comments_changes_nothing(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    edited = '\n    # the first\n    left = fetch("a")  # one\n\n    right = fetch("b")\n    return [left, right]'
    assert edit.resume(edited) == ["a", "b"]
    assert edit.later == []


def test_moving_a_call_into_another_branch_keeps_its_value(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    edited = '\n    b = fetch("b")\n    if b:\n        a = fetch("a")\n    return [a, b]'
    assert edit.resume(edited) == ["a", "b"]
    assert edit.later == []


def test_edits_of_several_crashes_add_up(edit: Edit) -> None:
    edit.run(TWO_CALLS)
    edit.write('\n    b = fetch("b")\n    c = check("c")\n    kill()')
    done = edit.program.python("-m", "wfengine", "resume", "@last")
    assert done.was_killed, done
    assert edit.resume('\n    c = check("c")\n    a = fetch("a")\n    b = fetch("b")\n    return [a, b, c]') == ["a", "b", "c"]
    assert edit.later == ["check=c"]


PIPELINE = """
    @task
    def load(path):
        note(f"load-{path}")
        return [3, 1, 2]

    @task
    def clean(values, drop=None):
        note("clean")
        return sorted(value for value in values if value != drop)

    @task
    def report(values):
        note("report")
        return f"report of {values}"

    @flow
    def etl():
        values = load("raw.csv")
        cleaned = clean(values)
        text = report(cleaned)
        kill()
        return text

    etl()
"""


def test_unchanged_result_of_a_call_that_ran_again_lets_what_follows_replay(program: Program) -> None:
    program.write(PIPELINE)
    program.run_and_be_killed()
    program.write(PIPELINE.replace('"raw.csv"', '"fixed.csv"').replace("kill()", ""))
    assert program.resume()["result"] == "'report of [1, 2, 3]'"
    assert program.effects == ["load-raw.csv", "clean", "report", "load-fixed.csv"]


def test_changed_result_of_a_call_that_ran_again_runs_what_follows_too(program: Program) -> None:
    program.write(PIPELINE)
    program.run_and_be_killed()
    program.write(PIPELINE.replace("clean(values)", "clean(values, drop=2)").replace("kill()", ""))
    assert program.resume()["result"] == "'report of [1, 3]'"
    assert program.effects == ["load-raw.csv", "clean", "report", "clean", "report"]


MAPPED = """
    @task
    def double(number):
        note(f"double-{number}")
        return number * 2

    @flow
    def main():
        doubled = double.map([1, 2, 3]).result()
        kill()

    main()
"""


def test_items_added_to_and_removed_from_a_map_leave_the_others_alone(program: Program, rows: Rows) -> None:
    program.write(MAPPED)
    program.run_and_be_killed()
    program.write(MAPPED.replace("[1, 2, 3]", "[4, 3, 1]").replace("kill()", "return doubled"))
    assert program.resume()["result"] == "[8, 6, 2]"
    assert sorted(program.effects) == ["double-1", "double-2", "double-3", "double-4"]
    assert rows("SELECT inputs FROM orphans") == [('{"number":2}',)]


def test_bug_in_a_task_fixed_after_the_failure_runs_only_that_task_again(program: Program) -> None:
    text = """
        @task
        def load():
            note("load")
            return [1, 0]

        @task
        def divide(values):
            note("divide")
            return values[0] / values[1]

        @flow
        def main():
            return divide(load())

        main()
    """
    program.write(text)
    assert "ZeroDivisionError" in program.run().err
    program.write(text.replace("values[0] / values[1]", "values[0] / (values[1] or 1)"))
    assert program.resume()["result"] == "1.0"
    assert program.effects == ["load", "divide", "divide"]
