"""Starting a flow a second time: with an idempotency key, and without one."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine_journal.errors import RunOwnedError, UsageError


class World:
    """What ran, what is broken, and how often the run still is to be cut off."""

    def __init__(self, crashes: int = 0) -> None:
        self.crashes = crashes
        self.ran: list[str] = []
        self.broken = True

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def test_second_start_with_the_key_returns_the_recorded_result(rows: Rows) -> None:
    world = World()

    @flow(idempotency_key="{day}")
    def daily(day: str) -> str:
        world.ran.append(day)
        return f"report of {day}"

    assert daily("monday") == "report of monday"
    assert daily("monday") == "report of monday"
    assert daily("tuesday") == "report of tuesday"
    assert world.ran == ["monday", "tuesday"]
    assert rows("SELECT idempotency_key FROM runs ORDER BY id") == [("monday",), ("tuesday",)]


def test_second_start_of_a_crashed_run_resumes_it(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def fetch(day: str) -> str:
        world.ran.append(day)
        return day

    @flow(idempotency_key=lambda day: f"daily {day}")
    def daily(day: str) -> str:
        fetched = fetch(day)
        world.crash_once()
        return fetched

    with pytest.raises(KeyboardInterrupt):
        daily("monday")
    assert daily("monday") == "monday"
    assert world.ran == ["monday"]
    assert rows("SELECT attempt, state FROM runs") == [(2, "COMPLETED")]


def test_second_start_of_a_failed_run_runs_what_ended_it_again(rows: Rows) -> None:
    world = World()

    @task
    def fetch(day: str) -> str:
        world.ran.append(day)
        if world.broken:
            raise ValueError("broken")
        return day

    @flow(idempotency_key="{day}")
    def daily(day: str) -> str:
        return fetch(day)

    with pytest.raises(ValueError, match="broken"):
        daily("monday")
    world.broken = False
    assert daily("monday") == "monday"
    assert world.ran == ["monday", "monday"]
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_second_start_with_other_parameters_is_refused_and_writes_nothing(rows: Rows) -> None:
    @flow(idempotency_key="{day}")
    def daily(day: str, size: int = 1) -> int:
        return size

    daily("monday")
    before = rows("SELECT * FROM runs")
    with pytest.raises(UsageError, match=r"idempotency key 'monday'.*run 1.*other"):
        daily("monday", size=2)
    assert rows("SELECT * FROM runs") == before


def test_key_that_names_no_parameter_is_refused_before_anything_is_written(rows: Rows) -> None:
    @flow(idempotency_key="{dya}")
    def daily(day: str) -> None: ...

    with pytest.raises(UsageError, match="idempotency_key"):
        daily("monday")
    assert rows.value("SELECT count(*) FROM runs") == 0


def test_key_of_one_flow_is_not_the_key_of_another(rows: Rows) -> None:
    @flow(idempotency_key="k")
    def one() -> int:
        return 1

    @flow(idempotency_key="k")
    def two() -> int:
        return 2

    assert (one(), two()) == (1, 2)
    assert rows.value("SELECT count(*) FROM runs") == 2


def test_key_may_be_given_at_the_call(rows: Rows) -> None:
    @flow
    def daily(day: str) -> str:
        return day

    assert daily.with_options(idempotency_key="k1")("monday") == "monday"
    assert daily.with_options(idempotency_key="k1")("monday") == "monday"
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_start_with_the_key_of_a_run_that_is_being_executed_names_who_executes_it() -> None:
    @flow(idempotency_key="k")
    def daily() -> str:
        try:
            contextvars.Context().run(daily)  # as somebody else, not as a subflow
        except RunOwnedError as error:
            return str(error)
        return "started twice"

    assert "is being executed by process" in daily()


def test_async_flow_with_a_key_returns_the_recorded_result() -> None:
    world = World()

    @flow(idempotency_key="{day}")
    async def daily(day: str) -> str:
        world.ran.append(day)
        return day

    assert asyncio.run(daily("monday")) == "monday"
    assert asyncio.run(daily("monday")) == "monday"
    assert world.ran == ["monday"]


SCRIPT = """
    @task
    def fetch(number):
        note(f"fetch-{number}")
        return number

    @flow(name="nightly")
    def main():
        first = fetch(1)
        if first_time():
            kill()
        return first + fetch(2)

    print(main())
"""


def test_script_started_again_mentions_the_run_that_can_be_resumed_and_starts_a_new_one(program: Program, rows: Rows) -> None:
    program.write(SCRIPT)
    program.run_and_be_killed()
    again = program.run()
    name = str(rows.value("SELECT name FROM runs WHERE id = 1"))
    assert again.code == 0
    assert again.out == "3\n"
    assert "earlier run of flow 'nightly' was cut off" in again.err
    assert f"wfengine resume {name}" in again.err
    assert rows("SELECT id, state FROM runs ORDER BY id") == [(1, "CRASHED"), (2, "COMPLETED")]


def test_script_started_again_after_a_resume_mentions_nothing(program: Program) -> None:
    program.write(SCRIPT)
    program.run_and_be_killed()
    assert program.resume()["result"] == "3"
    again = program.run()
    assert (again.code, again.err) == (0, "")


def test_script_with_a_key_started_again_resumes(program: Program, rows: Rows) -> None:
    program.write(SCRIPT.replace('name="nightly"', 'name="nightly", idempotency_key="tonight"'))
    program.run_and_be_killed()
    again = program.run()
    assert (again.code, again.out) == (0, "3\n")
    assert program.effects == ["fetch-1", "fetch-2"]
    assert rows("SELECT state, attempt FROM runs") == [("COMPLETED", 2)]
    assert program.run().out == "3\n"
    assert program.effects == ["fetch-1", "fetch-2"]
