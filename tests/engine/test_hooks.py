"""Hooks are called after the commit of the state they are for, in both forms, and cannot break a run."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import Flow, State, Task, current_flow_run, flow, get_run_logger, task
from wfengine.run_objects import FlowRun, TaskRun
from wfengine_journal.errors import UsageError

Seen = list[tuple[object, ...]]


def test_task_hooks_get_task_run_and_state_after_the_commit(rows: Rows) -> None:
    seen: Seen = []

    def note(called: Task[..., object], run: TaskRun, state: State[object]) -> None:
        in_file = rows.value("SELECT state FROM tasks WHERE id = ?", run.id)
        seen.append((called.name, run.run_count, state.name, state.is_failed(), in_file))

    @task(on_running=[note], on_completion=[note], on_failure=[note])
    def divide(a: int, b: int) -> float:
        return a / b

    @flow
    def work() -> float:
        divide(1, 0, return_state=True)
        return divide(1, 2)

    assert work() == 0.5
    assert seen == [
        ("divide", 1, "Running", False, "RUNNING"),
        ("divide", 1, "Failed", True, "FAILED"),
        ("divide", 1, "Running", False, "RUNNING"),
        ("divide", 1, "Completed", False, "COMPLETED"),
    ]


def test_a_hook_with_old_and_new_state_gets_these(rows: Rows) -> None:
    seen: Seen = []

    def alert(failed: Task[..., object], old_state: State[object], new_state: State[object]) -> State[object]:
        seen.append((failed.name, old_state.name, new_state.name, new_state.message))
        return new_state

    @task(on_failure=[alert], retries=1)
    def break_down() -> None:
        raise ValueError("no data")

    @flow
    def work() -> str:
        return break_down(return_state=True).name

    assert work() == "Failed"
    assert len(seen) == 1  # after the last attempt, once
    assert seen[0][:3] == ("break_down", "Running", "Failed")
    assert "no data" in str(seen[0][3])


def test_flow_hooks_are_called_for_each_end_and_each_start(rows: Rows) -> None:
    seen: Seen = []

    def note(called: Flow[..., object], run: FlowRun, state: State[object]) -> None:
        seen.append((called.name, run.name, run.parameters, run.run_count, state.name))

    @flow(on_running=[note], on_completion=[note], on_failure=[note], retries=1, flow_run_name="n{n}")
    def work(n: int) -> int:
        if n == 0 or (n == 1 and current_flow_run().attempt == 1):
            raise ValueError(n)
        return n

    assert work(1) == 1
    with pytest.raises(ValueError, match="0"):
        work(0)
    assert seen == [
        ("work", "n1", {"n": 1}, 1, "Running"),
        ("work", "n1", {"n": 1}, 2, "Running"),
        ("work", "n1", {"n": 1}, 2, "Completed"),
        ("work", "n0", {"n": 0}, 1, "Running"),
        ("work", "n0", {"n": 0}, 2, "Running"),
        ("work", "n0", {"n": 0}, 2, "Failed"),
    ]


def test_decorators_add_hooks_and_options_keep_them(rows: Rows) -> None:
    seen: list[str] = []

    @task
    def one() -> int:
        return 1

    @one.on_completion
    def after_task(called: object, run: TaskRun, state: State[object]) -> None:
        seen.append("task")

    @flow
    def work() -> int:
        return one() + one.with_options(name="other")()

    @work.on_completion
    def after_flow(called: object, run: FlowRun, state: State[object]) -> None:
        seen.append("flow")

    work()
    assert seen == ["task", "task", "flow"]
    work.with_options(name="renamed")()
    assert seen == ["task", "task", "flow"] * 2


@pytest.mark.parametrize("kind", ["task", "flow"])
def test_a_failing_hook_never_breaks_a_run_and_is_recorded(rows: Rows, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    after: list[int] = []

    def bad(*_: object) -> None:
        raise RuntimeError("the pager is down")

    def good(*_: object) -> None:
        after.append(1)

    @task(on_completion=[bad, good] if kind == "task" else None)
    def one() -> int:
        return 1

    @flow(on_completion=[bad, good] if kind == "flow" else None)
    def work() -> int:
        return one()

    assert work() == 1
    assert after == [1]
    assert "the pager is down" in caplog.text
    recorded = rows("SELECT hook, error FROM hook_run ORDER BY name")
    assert recorded == [("on_completion", "RuntimeError: the pager is down"), ("on_completion", None)]


def test_async_hooks_run_to_their_end_in_sync_and_async_code(rows: Rows) -> None:
    import asyncio

    seen: list[str] = []

    async def note(called: object, run: TaskRun | FlowRun, state: State[object]) -> None:
        await asyncio.sleep(0)
        seen.append(state.name)

    @task(on_completion=[note])
    def one() -> int:
        return 1

    @task(on_completion=[note])
    async def one_async() -> int:
        return 1

    @flow(on_completion=[note])
    def work() -> int:
        return one() + one.submit().result()

    @flow(on_completion=[note])
    async def work_async() -> int:
        return one() + await one_async()

    assert work() == 2
    assert asyncio.run(work_async()) == 2
    assert seen == ["Completed"] * 6


def test_hooks_of_submitted_and_mapped_tasks_are_called_once_each(rows: Rows) -> None:
    lock, seen = threading.Lock(), []

    def note(called: object, run: TaskRun, state: State[object]) -> None:
        with lock:
            seen.append(run.id)

    @task(on_completion=[note])
    def double(n: int) -> int:
        return 2 * n

    @flow
    def work() -> int:
        return sum(double.map(range(50)).result())

    assert work() == 2450
    assert sorted(seen) == [row[0] for row in rows("SELECT id FROM tasks ORDER BY id")]


def test_a_hook_may_log_and_what_it_calls_is_a_run_of_its_own(rows: Rows) -> None:
    @task
    def notify(text: str) -> str:
        return text

    def report(called: object, run: TaskRun | FlowRun, state: State[object]) -> None:
        get_run_logger().info("ended as %s", state.name)
        notify(f"{run.name} ended")

    @task(on_completion=[report])
    def one() -> int:
        return 1

    @flow(on_completion=[report])
    def work() -> int:
        return one()

    assert work() == 1
    assert rows("SELECT flow, state FROM runs ORDER BY id") == [("work", "COMPLETED"), *[("notify", "COMPLETED")] * 2]
    assert rows("SELECT run_id, message FROM logs ORDER BY id") == [(1, "ended as Completed")] * 2
    assert rows.value("SELECT count(*) FROM tasks WHERE run_id = 1") == 1


@pytest.mark.parametrize("decorate", [task, flow])
@pytest.mark.parametrize("wrong", [print, "print", [1]])
def test_what_is_no_list_of_functions_is_refused_at_decoration(decorate: Callable[..., object], wrong: object) -> None:
    with pytest.raises(UsageError, match=r"on_failure takes a list of functions"):
        decorate(on_failure=wrong)(lambda: None)  # type: ignore[operator]


CRASHING = """
def tell(called, run, state):
    note(f"{called.name}:{run.id}:{state.name}")

@task(on_completion=[tell])
def one(n):
    note(f"ran:{n}")
    return n

@flow(on_crashed=[tell], on_running=[tell], on_completion=[tell])
def work():
    one(1)
    if first_time():
        kill()
    one(2)

if __name__ == "__main__":
    work()
"""


def test_on_crashed_is_called_once_when_a_resume_finds_the_dead_run(program: Program) -> None:
    program.write(CRASHING)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == [
        "work:1:Running", "ran:1", "one:1:Completed",
        "work:1:Crashed", "work:1:Running", "ran:2", "one:2:Completed", "work:1:Completed",
    ]  # fmt: skip


def test_on_crashed_is_called_once_when_other_runs_of_the_flow_start(program: Program) -> None:
    program.write(CRASHING)
    program.run_and_be_killed()
    assert program.run().code == 0
    assert program.run().code == 0
    assert program.effects.count("work:1:Crashed") == 1


HOOK_DIES = """
def tell(called, run, state):
    note(f"hook:{state.name}")
    if first_time():
        kill()

@task(on_completion=[tell])
def one():
    note("ran")
    return 1

@flow
def work():
    return one()

if __name__ == "__main__":
    work()
"""


def test_a_hook_that_was_cut_off_is_called_again_and_its_task_is_not(program: Program, rows: Rows) -> None:
    program.write(HOOK_DIES)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == ["ran", "hook:Completed", "hook:Completed"]
    assert program.resume()["state"] == "COMPLETED"
    assert len(program.effects) == 3
    assert rows.value("SELECT count(*) FROM hook_run") == 1


def test_ctrl_c_calls_on_crashed_hooks(rows: Rows) -> None:
    seen: list[str] = []

    @flow(on_crashed=[lambda _flow, _run, state: seen.append(state.name)])
    def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == ["Crashed"]
    assert rows.state() == ("CRASHED", "Crashed")
