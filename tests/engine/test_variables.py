"""Variables: named JSON values in the journal."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task, use_journal
from wfengine.variables import VALUE_LIMIT, Variable
from wfengine_journal.errors import InvalidValueError, UsageError
from wfengine_journal.store import Journal


def test_a_variable_is_read_as_it_was_set(rows: Rows) -> None:
    made = Variable.set("my_limit-2", {"a": [1, 2.5, None, True, "ä"]}, tags=["b", "a"])
    assert (made.name, made.value, made.tags) == ("my_limit-2", {"a": [1, 2.5, None, True, "ä"]}, ["a", "b"])
    assert Variable.get("my_limit-2") == made.value
    assert rows("SELECT name, value, tags FROM variables") == [
        ("my_limit-2", '{"a":[1,2.5,null,true,"ä"]}', '["a", "b"]'),
    ]


@pytest.mark.parametrize("value", ["text", 5, 1.5, True, None, [], {}, [1, "two"], {"a": {"b": None}}])
def test_every_json_value_can_be_stored(value: object) -> None:
    Variable.set("v", value)
    assert Variable.get("v", default="other") == value


def test_a_missing_variable_gives_the_default() -> None:
    assert Variable.get("missing") is None
    assert Variable.get("missing", default=5) == 5
    assert Variable.get("Not a Name", 5) == 5
    assert Variable[int].get("missing", 5) == 5


def test_an_existing_variable_is_changed_only_when_asked(clock: FakeClock, rows: Rows) -> None:
    Variable.set("limit", 5)
    with pytest.raises(ValueError, match=r"Variable 'limit' exists already.*overwrite=True"):
        Variable.set("limit", 6)
    assert Variable.get("limit") == 5
    clock.sleep(60)
    assert Variable.set("limit", 6, tags=["new"], overwrite=True).value == 6
    assert Variable.get("limit") == 6
    ((created, updated, tags),) = rows("SELECT created_at, updated_at, tags FROM variables")
    assert str(created) < str(updated)
    assert tags == '["new"]'


def test_a_variable_can_be_unset() -> None:
    Variable.set("limit", 5)
    assert Variable.unset("limit") is True
    assert Variable.unset("limit") is False
    assert Variable.get("limit") is None


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a.b", "x" * 256, 5, "a\n"])
def test_a_name_that_is_not_allowed_is_refused(rows: Rows, name: object) -> None:
    with pytest.raises(InvalidValueError, match="cannot name a variable"):
        Variable.set(name, 1)  # type: ignore[arg-type]
    assert rows("SELECT * FROM variables") == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, object()]}, r"variable 'v'\['a'\]\[1\] is a builtins.object, which JSON does not have"),
        (float("nan"), "is nan, which JSON does not have"),
        ({1: 2}, "has the key 1, and keys have to be text"),
        ("x" * VALUE_LIMIT, "the limit is 1000000"),
        (b"bytes", "is a builtins.bytes"),
    ],
)
def test_a_value_that_is_no_json_is_refused_and_the_place_named(rows: Rows, value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Variable.set("v", value)
    assert rows("SELECT * FROM variables") == []


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidValueError, match="nested more than 100 levels"):
        Variable.set("v", endless)


def test_flows_and_tasks_share_variables_in_the_journal_of_their_run(journal: Journal, tmp_path: object) -> None:
    @task
    def write() -> None:
        Variable.set("from-the-task", 7)

    @flow
    def etl() -> object:
        use_journal(journal.path.with_name("other.db"))  # of runs that are started from now on
        write()
        return Variable.get("from-the-task")

    assert etl() == 7
    assert Variable.get("from-the-task") is None
    use_journal(journal.path)
    assert Variable.get("from-the-task") == 7


def test_in_async_code_the_calls_are_awaited(rows: Rows) -> None:
    @task
    async def read() -> object:
        return await Variable.get("limit")  # type: ignore[misc]

    @task
    def read_sync() -> object:
        return Variable.get("limit")

    @flow
    async def etl() -> list[object]:
        await Variable.set("limit", 5)  # type: ignore[misc]
        return [await read(), read_sync(), await Variable.aget("limit"), Variable.get("limit", _sync=True)]  # type: ignore[call-arg]

    assert asyncio.run(etl()) == [5, 5, 5, 5]

    async def outside() -> list[object]:
        together = await asyncio.gather(Variable.aset("a", 1), Variable.get("missing"))  # type: ignore[call-overload]
        return [*together, await asyncio.create_task(Variable.get("limit"))]  # type: ignore[arg-type]

    assert asyncio.run(outside()) == [Variable("a", 1, []), None, 5]
    assert asyncio.run(Variable.aunset("a"))


def test_what_is_not_awaited_is_done_all_the_same(recwarn: pytest.WarningsRecorder) -> None:
    @flow
    async def etl() -> str:
        Variable.set("limit", 5)
        return repr(Variable.get("limit"))

    assert asyncio.run(etl()) == "<await this: 5>"
    assert Variable.get("limit") == 5
    assert not recwarn.list


def test_hooks_and_what_names_a_run_await_only_where_they_are_async_themselves(rows: Rows) -> None:
    seen: list[object] = []

    def hook(flow: object, flow_run: object, state: object) -> None:
        seen.append(Variable.get("limit"))

    async def async_hook(flow: object, flow_run: object, state: object) -> None:
        seen.append(await Variable.get("limit"))  # type: ignore[misc]

    @flow(flow_run_name=lambda: f"limit {Variable.get('limit')}", on_completion=[hook, async_hook])
    async def etl() -> None: ...

    Variable.set("limit", 5)
    asyncio.run(etl())
    assert seen == [5, 5]
    assert rows.value("SELECT name FROM runs") == "limit 5"


def test_the_a_names_are_coroutine_functions() -> None:
    assert all(inspect.iscoroutinefunction(fn) for fn in (Variable.aset, Variable.aget, Variable.aunset))


def test_a_body_that_is_executed_again_may_find_the_variable_it_had_set(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.variables import Variable

        @task(retries=1)
        def step():
            Variable.set("of-the-task", 1)
            if first_time("failed"):
                raise ValueError

        @flow
        def etl():
            Variable.set("of-the-body", {"batch": 7})
            step()
            if first_time():
                kill()
            return Variable.get("of-the-body")

        if __name__ == "__main__":
            etl()
    """)
    program.run_and_be_killed()
    assert program.resume() == {"state": "COMPLETED", "result": "{'batch': 7}", "type": "dict"}
    assert rows("SELECT name, value FROM variables ORDER BY name") == [("of-the-body", '{"batch":7}'), ("of-the-task", "1")]


def test_what_a_script_sets_at_module_level_is_left_alone_when_a_resume_loads_it(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.artifacts import create_markdown_artifact
        from wfengine.variables import Variable

        Variable.set("once", 1)
        Variable.set("start", 1, overwrite=True)
        create_markdown_artifact("a start")

        @flow
        def etl():
            if first_time():
                Variable.set("start", 2, overwrite=True)
                kill()
            return Variable.get("start")

        etl()
        Variable.unset("once")
    """)
    program.run_and_be_killed()
    assert program.resume()["result"] == "2"
    assert rows("SELECT name, value FROM variables ORDER BY name") == [("once", "1"), ("start", "2")]
    assert rows("SELECT data FROM artifacts") == [("a start",)]


def test_what_was_set_survives_a_kill_at_once(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.variables import Variable

        @flow
        def etl():
            Variable.set("limit", 5)
            kill()

        if __name__ == "__main__":
            Variable.set("outside", 1)
            etl()
    """)
    program.run_and_be_killed()
    assert rows("SELECT name FROM variables ORDER BY name") == [("limit",), ("outside",)]
