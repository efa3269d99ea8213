"""What makes a task the same task: its key; and what happens when two functions claim one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from wfengine import flow, task
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from conftest import Program, Rows


def make(kind: str) -> Callable[[int], str]:
    @task(name=f"get_{kind}")
    def get(number: int) -> str:
        return f"{kind}:{number}"

    return get


def test_tasks_made_in_one_place_are_told_apart_by_the_names_they_were_given(rows: Rows) -> None:
    users, orders = make("users"), make("orders")
    fails = [True]

    @flow(name="report")
    def main() -> tuple[str, str]:
        pair = users(1), orders(1)
        if fails:
            raise ValueError("cut off")
        return pair

    @flow(name="report")
    def swapped() -> tuple[str, str]:
        second = orders(1)
        return users(1), second

    with pytest.raises(ValueError, match="cut off"):
        main()
    assert swapped.resume(1) == ("users:1", "orders:1")
    assert rows("SELECT task, attempts FROM tasks ORDER BY task") == [("get_orders", 1), ("get_users", 1)]


def test_two_functions_with_one_key_are_refused_before_the_second_is_called(rows: Rows) -> None:
    def first() -> Callable[[int], str]:
        @task(key="load")
        def load(number: int) -> str:
            return f"first:{number}"

        return load

    def second() -> Callable[[int], str]:
        @task(key="load")
        def load(number: int) -> str:
            return f"second:{number}"

        return load

    @flow
    def main() -> None:
        first()(1)
        second()(1)

    with pytest.raises(UsageError, match=re.escape("Two tasks have the key 'load'")):
        main()
    assert rows("SELECT count(*) FROM tasks") == [(1,)]


def test_a_task_that_was_given_a_name_later_keeps_its_completed_calls(program: Program) -> None:
    text = """
        @task
        def load(number):
            note(f"load-{number}")
            return number

        @flow
        def main():
            value = load(1)
            kill()

        main()
    """
    program.write(text)
    program.run_and_be_killed()
    program.write(text.replace("@task", "@task(name='Load a number')").replace("kill()", "return value"))
    assert program.resume()["result"] == "1"
    assert program.effects == ["load-1"]


def test_with_options_leaves_a_task_the_same_task() -> None:
    @task
    def load(number: int) -> int:
        return number

    assert load.with_options(name="another name").key == load.key
    assert load.with_options(key="other").key == "other"


def test_script_that_goes_on_with_the_result_of_its_flow_can_be_resumed(program: Program) -> None:
    text = """
        @task
        def load(number):
            note(f"load-{number}")
            return number

        @flow
        def main():
            first = load(1)
            kill()
            return [first, load(2)]

        for row in main():
            print(row)
    """
    program.write(text)
    program.run_and_be_killed()
    program.write(text.replace("kill()", ""))
    assert program.resume()["result"] == "[1, 2]"
    assert program.effects == ["load-1", "load-2"]
