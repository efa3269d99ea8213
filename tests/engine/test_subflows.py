"""Flows called in flows: runs of their own that are resumed with their parent."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import Flow, State, current_flow_run, flow, task
from wfengine.recovery import resumable_runs, resume_run
from wfengine_journal.errors import DriftError, TaskInterrupted, UsageError
from wfengine_journal.store import Journal


class World:
    """What ran, what is broken, and how often the run still is to be cut off."""

    def __init__(self, crashes: int = 0) -> None:
        self.crashes = crashes
        self.ran: list[str] = []
        self.broken = True
        self.number = 1

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def crash(own_flow: Flow[..., object]) -> None:
    with pytest.raises(KeyboardInterrupt):
        own_flow()


def test_subflow_is_a_run_of_its_own_with_its_parent_named(rows: Rows) -> None:
    @task
    def leaf(number: int) -> int:
        return number

    @flow
    def child(number: int) -> int:
        assert current_flow_run().flow_name == "child"
        return leaf(number)

    @flow
    def parent() -> int:
        return child(1) + child(2)

    assert parent() == 3
    assert rows("SELECT id, flow, state, parent_run_id, parameters, result FROM runs ORDER BY id") == [
        (1, "parent", "COMPLETED", None, "{}", "3"),
        (2, "child", "COMPLETED", 1, '{"number":1}', "1"),
        (3, "child", "COMPLETED", 1, '{"number":2}', "2"),
    ]
    assert rows("SELECT run_id, task FROM tasks ORDER BY id") == [(2, "leaf"), (3, "leaf")]


def test_completed_subflow_replays_as_one_answer(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def leaf() -> int:
        world.ran.append("leaf")
        return 5

    @flow
    def child() -> int:
        world.ran.append("child")
        return leaf()

    @flow
    def parent() -> int:
        value = child()
        world.crash_once()
        return value

    crash(parent)
    assert parent.resume(1) == 5
    assert world.ran == ["child", "leaf"]
    assert rows("SELECT flow, attempt FROM runs ORDER BY id") == [("parent", 2), ("child", 1)]


def test_subflow_cut_off_in_the_middle_goes_on_in_its_own_run(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def leaf(number: int) -> int:
        world.ran.append(f"leaf {number}")
        return number

    @flow
    def child() -> int:
        world.ran.append("child")
        first = leaf(1)
        world.crash_once()
        return first + leaf(2)

    @flow
    def parent() -> int:
        return child()

    crash(parent)
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [("parent", "CRASHED"), ("child", "CRASHED")]
    assert parent.resume(1) == 3
    assert world.ran == ["child", "leaf 1", "child", "leaf 2"]
    assert rows("SELECT flow, state, attempt FROM runs ORDER BY id") == [("parent", "COMPLETED", 2), ("child", "COMPLETED", 2)]


def test_failed_subflow_runs_again_when_its_parent_is_resumed(rows: Rows) -> None:
    world = World()

    @task
    def leaf(name: str) -> str:
        world.ran.append(name)
        if name == "bad" and world.broken:
            raise ValueError("broken")
        return name

    @flow
    def child() -> str:
        try:
            caught = leaf("bad")
        except ValueError:
            caught = "caught"
        return caught + leaf("good") + leaf.with_options(key="leaf2")("bad")

    @flow
    def parent() -> str:
        return child()

    with pytest.raises(ValueError, match="broken"):
        parent()
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [("parent", "FAILED"), ("child", "FAILED")]
    world.broken = False
    assert parent.resume(1) == "caughtgoodbad"
    assert world.ran == ["bad", "good", "bad", "bad"]
    assert rows("SELECT flow, state, attempt FROM runs ORDER BY id") == [("parent", "COMPLETED", 2), ("child", "COMPLETED", 2)]


def test_failure_of_a_subflow_that_its_parent_caught_replays(rows: Rows) -> None:
    world = World(crashes=1)

    @flow
    def child() -> str:
        world.ran.append("child")
        raise ValueError("broken")

    @flow
    def parent() -> str:
        try:
            return child()
        except ValueError as error:
            told = f"caught {error}"
        world.crash_once()
        return told

    crash(parent)
    assert parent.resume(1) == "caught broken"
    assert world.ran == ["child"]
    assert rows("SELECT state FROM runs WHERE flow = 'child'") == [("FAILED",)]


def test_subflow_retries_by_its_own_policy(rows: Rows) -> None:
    world = World()

    @task
    def leaf() -> str:
        world.ran.append("leaf")
        return "leaf"

    @flow(retries=2)
    def child() -> str:
        world.ran.append("child")
        value = leaf()
        if world.ran.count("child") < 3:
            raise ValueError("flaky")
        return value

    @flow
    def parent() -> str:
        return child()

    assert parent() == "leaf"
    assert world.ran == ["child", "leaf", "child", "child"]
    assert rows("SELECT flow, attempt FROM runs ORDER BY id") == [("parent", 1), ("child", 3)]


def test_retry_of_the_parent_runs_its_failed_subflow_again_and_replays_the_rest() -> None:
    world = World()

    @task
    def leaf(name: str) -> str:
        world.ran.append(name)
        if name == "flaky" and world.ran.count("flaky") == 1:
            raise ValueError("flaky")
        return name

    @flow
    def child(name: str) -> str:
        return leaf("before") + leaf(name)

    @flow(retries=1)
    def parent() -> str:
        return child("sound") + child("flaky")

    assert parent() == "beforesoundbeforeflaky"
    assert world.ran == ["before", "sound", "before", "flaky", "flaky"]


def test_subflow_called_in_a_retried_task_runs_again_where_it_failed(rows: Rows) -> None:
    world = World()

    @task
    def leaf(name: str) -> str:
        world.ran.append(name)
        if name == "flaky" and world.ran.count("flaky") == 1:
            raise ValueError("flaky")
        return name

    @flow
    def child() -> str:
        return leaf("sound") + leaf("flaky")

    @task(retries=1)
    def calling() -> str:
        return child()

    @flow
    def parent() -> str:
        return calling()

    assert parent() == "soundflaky"
    assert world.ran == ["sound", "flaky", "flaky"]
    assert rows("SELECT flow, state, attempt FROM runs ORDER BY id") == [("parent", "COMPLETED", 1), ("child", "COMPLETED", 2)]


def test_drift_inside_a_subflow_parks_both_runs(rows: Rows) -> None:
    world = World(crashes=1)

    @task
    def leaf(number: int) -> int:
        world.ran.append(str(number))
        return number

    @flow
    def child() -> int:
        found = leaf(world.number)
        world.crash_once()
        return found

    @flow
    def parent() -> int:
        return child()

    crash(parent)
    world.number = 2
    with pytest.raises(DriftError, match="task 'leaf'"):
        parent.resume(1)
    assert world.ran == ["1"]
    assert rows.state(1) == ("PAUSED", "Drifted")
    assert rows.state(2) == ("PAUSED", "Drifted")
    assert parent.resume(1, on_drift="rerun") == 2


def test_subflow_with_drifted_parameters_is_drift_of_the_parent(rows: Rows) -> None:
    world = World(crashes=1)

    @flow
    def child(number: int) -> int:
        world.ran.append(str(number))
        return number

    @flow
    def parent() -> int:
        found = child(world.number)
        world.crash_once()
        return found

    crash(parent)
    world.number = 2
    with pytest.raises(DriftError, match="number: recorded 1, now 2"):
        parent.resume(1)
    assert world.ran == ["1"]
    assert rows.value("SELECT count(*) FROM runs") == 2


def test_subflow_is_not_resumed_by_itself(journal: Journal) -> None:
    world = World(crashes=1)

    @flow
    def child() -> None:
        world.crash_once()

    @flow
    def parent() -> None:
        child()

    crash(parent)
    assert resumable_runs(journal) == [1]
    with pytest.raises(UsageError, match="subflow"):
        child.resume(2)


def test_interrupted_task_in_a_subflow_raises_in_the_subflow() -> None:
    world = World(crashes=1)

    @task(on_interrupt="fail")
    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    def child() -> str:
        try:
            return send()
        except TaskInterrupted:
            return "unknown"

    @flow
    def parent() -> str:
        return child()

    crash(parent)
    assert parent.resume(1) == "unknown"
    assert world.ran == ["send"]


def test_return_state_of_a_subflow_lets_the_parent_decide() -> None:
    @flow
    def child() -> None:
        raise ValueError("broken")

    @flow
    def parent() -> str:
        state: State[None] = child(return_state=True)
        return state.type.value

    assert parent() == "FAILED"


def test_equal_subflow_calls_are_told_apart_by_their_order() -> None:
    world = World(crashes=1)

    @flow
    def child() -> int:
        world.ran.append("child")
        return len(world.ran)

    @flow
    def parent() -> list[int]:
        values = [child(), child()]
        world.crash_once()
        return [*values, child()]

    crash(parent)
    assert parent.resume(1) == [1, 2, 3]


def test_killed_in_a_subflow_of_a_subflow_resumes_from_another_process(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def leaf(number):
            note(f"leaf-{number}")
            return number

        @flow
        def inner():
            first = leaf(1)
            if first_time():
                kill()
            return first + leaf(2)

        @flow
        def outer():
            return leaf(0) + inner()

        @flow
        def main():
            return outer()

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume(1, recovery=True)["result"] == "3"
    assert program.effects == ["leaf-0", "leaf-1", "leaf-2"]
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [
        ("main", "COMPLETED"), ("outer", "COMPLETED"), ("inner", "COMPLETED"),
    ]  # fmt: skip


def test_recursive_subflow_resumes(journal: Journal) -> None:
    world = World(crashes=1)

    @flow
    def countdown(number: int) -> int:
        world.ran.append(str(number))
        if number == 0:
            world.crash_once()
            return 0
        return 1 + int(countdown(number - 1))

    with pytest.raises(KeyboardInterrupt):
        countdown(3)
    assert countdown.resume(1) == 3
    assert resume_run(journal, 1).result() == 3
    assert world.ran == ["3", "2", "1", "0"] * 2


HANDLED_INSIDE = """
    @task
    def refuse(what):
        note(f"refused-{what}")
        raise ValueError(what)

    @task
    def work():
        note("work")
        if first_time("killed"):
            kill()

    @flow
    def child():
        try:
            refuse("handled")
        except ValueError:
            pass
        if first_time("failed"):
            raise RuntimeError("a bug")
        work()

    @flow
    def parent():
        child()

    parent()
"""


def test_failure_that_a_subflow_handled_replays_though_a_resume_of_it_was_killed(program: Program) -> None:
    program.write(HANDLED_INSIDE)
    assert "RuntimeError: a bug" in program.run().err
    assert program.python("-m", "wfengine", "resume", "@last").was_killed
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == ["refused-handled", "work", "work"]
