"""Runs that are cancelled and paused from outside: what stops, what is cleaned up, what is recorded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import wfengine
from tests.engine.conftest import PROGRAM_SECONDS, Program, Rows
from wfengine import State, check_cancelled, flow, task, use_journal
from wfengine.recovery import resumable_runs
from wfengine.transactions import transaction
from wfengine_journal.errors import CancelledRun, PausedRun, UsageError
from wfengine_journal.store import Journal

LIMIT = 30  # seconds after which a test counts as hanging


def elsewhere(fn: Callable[[], object]) -> threading.Thread:
    """Run a function on a thread that belongs to no flow run."""
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


def cancel_when(event: threading.Event, run: int | str = 1) -> threading.Thread:
    """Cancel a run from another thread as soon as the event is set."""

    def ask() -> None:
        assert event.wait(LIMIT)
        wfengine.cancel(run, reason="enough")

    return elsewhere(ask)


def cancel_when_found(rows: Rows, sql: str) -> threading.Thread:
    """Cancel the first run from another thread as soon as a question to the journal has an answer."""

    def ask() -> None:
        woken = threading.Event()
        while not (rows.path.exists() and rows(sql)):
            woken.wait(0.01)
        wfengine.cancel(1)

    return elsewhere(ask)


def busy(started: threading.Event) -> None:
    """Be busy until cancelled."""
    started.set()
    woken = threading.Event()
    while True:
        check_cancelled()
        woken.wait(0.001)


# ------------------------------------------------------------------------------------------- in one process


def test_a_busy_sync_task_is_cancelled_where_it_asks_and_the_caller_gets_cancelled_run(rows: Rows) -> None:
    started, cleaned = threading.Event(), []

    @task
    def work() -> None:
        try:
            busy(started)
        finally:
            cleaned.append("task")

    @flow
    def etl() -> None:
        try:
            work()
        except Exception:
            cleaned.append("never")
        finally:
            cleaned.append("flow")

    thread = cancel_when(started)
    with pytest.raises(CancelledRun, match=r"was cancelled by .*: enough"):
        etl()
    thread.join()

    assert cleaned == ["task", "flow"]
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert rows("SELECT state, state_name FROM tasks") == [("CANCELLED", "Cancelled")]
    assert rows("SELECT state FROM transition WHERE task_run_id = 0 ORDER BY seq") == [
        ("RUNNING",),
        ("CANCELLING",),
        ("CANCELLED",),
    ]
    assert rows("SELECT * FROM in_doubt") == []


def test_with_return_state_the_caller_gets_the_cancelled_state() -> None:
    started = threading.Event()

    @flow
    def etl() -> None:
        busy(started)

    thread = cancel_when(started)
    state = etl(return_state=True)
    thread.join()

    assert isinstance(state, State)
    assert state.is_cancelled()
    assert "enough" in str(state.message)


def test_async_tasks_get_cancelled_error_and_may_await_in_their_cleanup(rows: Rows) -> None:
    started, seen = threading.Event(), []

    @task
    async def work(number: int) -> None:
        try:
            if number == 2:
                started.set()
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(number)
            raise

    @flow
    async def etl() -> None:
        try:
            await asyncio.gather(work(0), work(1), work(2))
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("flow")
            raise

    async def caller() -> object:
        state = await etl(return_state=True)
        task_here = asyncio.current_task()
        assert task_here is not None
        assert task_here.cancelling() == 0
        async with asyncio.timeout(LIMIT):
            await asyncio.sleep(0)
        return state

    thread = cancel_when(started)
    state = asyncio.run(caller())
    thread.join()

    assert isinstance(state, State)
    assert state.is_cancelled()
    assert sorted(map(str, seen)) == ["0", "1", "2", "flow"]
    assert rows("SELECT DISTINCT state FROM tasks") == [("CANCELLED",)]


def test_async_tasks_in_a_task_group_and_submitted_ones_are_cancelled(rows: Rows) -> None:
    started, cleaned = threading.Event(), []
    count = threading.Barrier(2, action=started.set)

    @task
    async def work(number: int) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, count.wait, LIMIT)
            await asyncio.sleep(LIMIT)
        finally:
            cleaned.append(number)

    @flow
    async def etl() -> None:
        work.submit(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(work(2))  # type: ignore[arg-type]

    thread = cancel_when(started)
    with pytest.raises(CancelledRun):
        asyncio.run(etl())
    thread.join()

    assert sorted(cleaned) == [1, 2]
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert rows("SELECT state FROM tasks") == [("CANCELLED",), ("CANCELLED",)]


def test_an_asyncio_cancellation_that_comes_from_elsewhere_is_recorded_as_before(rows: Rows) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        @flow
        async def etl() -> None:
            begun.set()
            await asyncio.sleep(LIMIT)

        running = asyncio.ensure_future(etl())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert rows.state() == ("CRASHED", "Crashed")


def test_queued_tasks_of_a_map_never_start(rows: Rows, tmp_path: Path) -> None:
    started, mapped, begun = threading.Event(), threading.Event(), tmp_path / "begun"

    @task
    def work(number: int) -> None:
        with begun.open("a") as file:
            file.write(f"{number}\n")
        if number < 2:
            busy(started)

    @flow(task_runner=wfengine.ThreadTaskRunner(max_workers=2))
    def etl() -> None:
        futures = work.map(range(100))
        mapped.set()
        futures.result()

    thread = cancel_when(mapped)
    with pytest.raises(CancelledRun):
        etl()
    thread.join()

    assert set(begun.read_text().split() if begun.exists() else []) <= {"0", "1"}
    assert rows("SELECT state, count(*) FROM tasks GROUP BY state") == [("CANCELLED", 100)]


def test_a_task_that_runs_to_its_end_is_recorded_and_then_the_flow_is_cancelled(rows: Rows) -> None:
    started, asked = threading.Event(), threading.Event()

    @task
    def work() -> int:
        started.set()
        assert asked.wait(LIMIT)
        return 7

    @task
    def after() -> None:
        raise AssertionError

    @flow
    def etl() -> None:
        work()
        after()

    def ask() -> None:
        started.wait(LIMIT)
        wfengine.cancel(1)
        asked.set()

    thread = elsewhere(ask)
    with pytest.raises(CancelledRun):
        etl()
    thread.join()
    assert rows("SELECT task, state FROM tasks") == [("work", "COMPLETED")]


def test_a_cancel_after_the_last_task_still_cancels(rows: Rows) -> None:
    called = []

    def hook(flow_: object, run: object, state: State[object]) -> None:
        called.append(state.name)

    @task
    def last() -> None:
        wfengine.cancel("@last")

    @flow(on_cancellation=[hook], on_completion=[hook])
    def etl() -> str:
        last()
        return "done"

    state = etl(return_state=True)
    assert state.is_cancelled()
    assert called == ["Cancelled"]
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert rows("SELECT state FROM tasks") == [("COMPLETED",)]


def test_a_cancel_that_only_the_journal_knows_refuses_the_completion(rows: Rows, journal: Journal) -> None:
    """As from another process between two looks of the watcher: nobody in this process was told."""
    from wfengine_journal.requests import RequestCancel

    @flow
    def etl() -> str:
        journal.write(RequestCancel(1, message="cancelled by hand", at=journal.clock.now_text()), synced=False)
        return "done"

    with pytest.raises(CancelledRun, match="by hand"):
        etl()
    assert rows.state() == ("CANCELLED", "Cancelled")


def test_a_new_task_is_refused_by_the_journal_itself(rows: Rows, journal: Journal) -> None:
    from wfengine_journal.requests import RequestCancel

    ran = []

    @task
    def work() -> None:
        ran.append(1)

    @flow
    def etl() -> None:
        journal.write(RequestCancel(1, message="cancelled by hand", at=journal.clock.now_text()), synced=False)
        work()

    with pytest.raises(CancelledRun):
        etl()
    assert ran == []
    assert rows("SELECT * FROM tasks") == []


def test_nested_subflows_are_cancelled_with_the_run_around_them(rows: Rows) -> None:
    started, called = threading.Event(), []

    def hook(flow_: wfengine.Flow[..., object], run: object, state: object) -> None:
        called.append(flow_.name)

    @flow(on_cancellation=[hook])
    def inner() -> None:
        busy(started)

    @flow(on_cancellation=[hook])
    def middle() -> None:
        inner()

    @flow(on_cancellation=[hook])
    def outer() -> None:
        middle()

    thread = cancel_when(started)
    with pytest.raises(CancelledRun):
        outer()
    thread.join()
    assert called == ["inner", "middle", "outer"]
    assert rows("SELECT state FROM runs") == [("CANCELLED",)] * 3
    assert rows("SELECT DISTINCT state FROM task_run") == [("CANCELLED",)]


def test_async_subflows_are_cancelled_once_in_the_asyncio_task_they_share(rows: Rows) -> None:
    started, cleaned = threading.Event(), []

    @flow
    async def inner() -> None:
        try:
            started.set()
            await asyncio.sleep(LIMIT)
        finally:
            await asyncio.sleep(0.02)  # a second cancellation would strike here
            cleaned.append("inner")

    @flow
    async def outer() -> None:
        try:
            await inner()
        finally:
            await asyncio.sleep(0.02)
            cleaned.append("outer")

    thread = cancel_when(started)
    with pytest.raises(CancelledRun):
        asyncio.run(outer())
    thread.join()
    assert cleaned == ["inner", "outer"]
    assert rows("SELECT state FROM runs") == [("CANCELLED",)] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_subflow_cancelled_alone_is_a_failure_that_its_caller_can_handle(rows: Rows, is_async: bool) -> None:
    started = threading.Event()

    @flow
    def inner() -> None:
        busy(started)

    @flow
    async def inner_async() -> None:
        started.set()
        await asyncio.sleep(LIMIT)

    @flow
    def outer() -> str:
        try:
            inner()
        except CancelledRun:
            return "went on"
        return "not cancelled"

    @flow
    async def outer_async() -> str:
        try:
            await inner_async()
        except CancelledRun:
            await asyncio.sleep(0)
            return "went on"
        return "not cancelled"

    thread = cancel_when(started, 2)
    assert (asyncio.run(outer_async()) if is_async else outer()) == "went on"
    thread.join()
    assert rows("SELECT state FROM runs ORDER BY id") == [("COMPLETED",), ("CANCELLED",)]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_retry_that_waits_for_its_instant_wakes_up_and_stops(rows: Rows, is_async: bool) -> None:
    @task(retries=1, retry_delay_seconds=3600)
    def work() -> None:
        raise ValueError

    @task(retries=1, retry_delay_seconds=3600)
    async def work_async() -> None:
        raise ValueError

    @flow
    def etl() -> None:
        work()

    @flow
    async def etl_async() -> None:
        await work_async()

    thread = cancel_when_found(rows, "SELECT 1 FROM tasks WHERE state_name = 'AwaitingRetry'")
    with pytest.raises(CancelledRun):
        asyncio.run(etl_async()) if is_async else etl()
    thread.join()
    assert rows("SELECT state FROM tasks") == [("CANCELLED",)]
    assert rows("SELECT next_attempt_at, error_id FROM task_run") == [(None, None)]


def test_a_flow_that_waits_for_its_own_retry_is_cancelled(rows: Rows) -> None:
    @flow(retries=1, retry_delay_seconds=3600)
    def etl() -> None:
        raise ValueError

    thread = cancel_when_found(rows, "SELECT 1 FROM runs WHERE state_name = 'AwaitingRetry'")
    with pytest.raises(CancelledRun):
        etl()
    thread.join()
    assert rows.state() == ("CANCELLED", "Cancelled")


def test_a_flow_that_waits_for_its_own_retry_is_paused_at_once_and_goes_on_when_unpaused(rows: Rows) -> None:
    tries = []

    @flow(retries=1, retry_delay_seconds=3600)
    def etl() -> None:
        tries.append(1)
        raise ValueError

    def ask() -> None:
        woken = threading.Event()
        while not (rows.path.exists() and rows("SELECT 1 FROM runs WHERE state_name = 'AwaitingRetry'")):
            woken.wait(0.01)
        assert wfengine.pause(1).is_paused()

    thread = elsewhere(ask)
    with pytest.raises(PausedRun, match="wfengine unpause"):
        etl()
    thread.join()
    assert rows.state() == ("PAUSED", "Paused")
    assert rows.value("SELECT next_attempt_at IS NOT NULL FROM flow_run") == 1
    assert wfengine.cancel(1).is_cancelled()
    assert tries == [1]


def test_asking_twice_is_no_error_and_calls_the_hooks_once(rows: Rows) -> None:
    started, called = threading.Event(), []

    @flow(on_cancellation=[lambda flow, run, state: called.append(1)])
    def etl() -> None:
        started.set()
        wfengine.cancel(1, reason="first")
        wfengine.cancel(1, reason="second")
        check_cancelled()

    with pytest.raises(CancelledRun, match="first"):
        etl()
    assert called == [1]
    assert rows.value("SELECT count(*) FROM transition WHERE state = 'CANCELLING'") == 1


def test_a_run_that_has_ended_cannot_be_cancelled() -> None:
    @flow
    def etl() -> None: ...

    etl()
    with pytest.raises(UsageError, match="it has ended"):
        wfengine.cancel("@last")


def test_a_hook_that_raises_changes_nothing_and_the_next_one_is_called(rows: Rows) -> None:
    called = []

    def raises(flow_: object, run: object, state: object) -> None:
        raise ValueError("in the hook")

    def is_called(flow_: object, run: object, state: object) -> None:
        called.append(1)

    @flow(on_cancellation=[raises, is_called])
    def etl() -> None:
        wfengine.cancel(1)
        check_cancelled()

    assert etl(return_state=True).is_cancelled()
    assert called == [1]
    assert rows("SELECT error IS NULL FROM hook_run ORDER BY 1") == [(0,), (1,)]


def test_an_async_hook_is_awaited_to_its_end() -> None:
    started, called = threading.Event(), []

    async def hook(flow_: object, run: object, state: object) -> None:
        await asyncio.sleep(0.01)
        called.append(1)

    @flow(on_cancellation=[hook])
    async def etl() -> None:
        started.set()
        await asyncio.sleep(LIMIT)

    thread = cancel_when(started)
    with pytest.raises(CancelledRun):
        asyncio.run(etl())
    thread.join()
    assert called == [1]


def test_the_rollback_hooks_of_a_transaction_run(rows: Rows) -> None:
    started, undone = threading.Event(), []

    @task
    def pay() -> int:
        return 1

    @pay.on_rollback
    def refund(txn: object) -> None:
        undone.append("pay")

    @flow
    def etl() -> None:
        with transaction():
            pay()
            busy(started)

    thread = cancel_when(started)
    with pytest.raises(CancelledRun):
        etl()
    thread.join()
    assert undone == ["pay"]
    assert rows("SELECT state, state_name FROM tasks") == [("COMPLETED", "RolledBack")]


def test_check_cancelled_does_nothing_outside_of_a_run() -> None:
    check_cancelled()


def test_a_cancelled_run_that_is_resumed_runs_what_was_cut_off_and_replays_the_rest(program: Program, rows: Rows) -> None:
    program.write("""
    import wfengine

    @task
    def first():
        note("first")

    @task
    def second():
        note("second")
        if first_time():
            wfengine.cancel(1)
            wfengine.check_cancelled()

    @flow
    def inner():
        second()

    @flow
    def etl():
        first()
        inner()

    if __name__ == "__main__":
        assert etl(return_state=True).is_cancelled()
    """)
    done = program.run()
    assert done.code == 0, done
    assert rows("SELECT state FROM runs ORDER BY id") == [("CANCELLED",), ("CANCELLED",)]
    assert program.resume(1)["state"] == "COMPLETED"
    assert program.effects == ["first", "second", "second"]
    assert rows("SELECT state FROM runs ORDER BY id") == [("COMPLETED",), ("COMPLETED",)]


def test_a_guarded_call_that_was_cut_off_by_a_cancel_is_in_doubt_for_a_later_resume(program: Program, rows: Rows) -> None:
    program.write("""
    import wfengine

    @task(on_interrupt="ask")
    def pay():
        note("pay")
        wfengine.cancel(1)
        wfengine.check_cancelled()

    @flow
    def etl():
        pay()

    if __name__ == "__main__":
        etl(return_state=True)
    """)
    assert program.run().code == 0
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert rows("SELECT * FROM in_doubt") == []
    assert program.resume(1)["error"] == "InDoubtError"
    assert program.effects == ["pay"]


# ------------------------------------------------------------------------------------------- runs that nobody executes


def test_a_run_in_a_queue_is_cancelled_at_once_and_never_taken_up(rows: Rows) -> None:
    from wfengine.task_worker import TaskWorker

    ran = []

    @task
    def work(number: int) -> None:
        ran.append(number)

    futures = [work.delay(number) for number in range(3)]
    assert wfengine.cancel(2).is_cancelled()
    TaskWorker(work).run_once()

    assert sorted(ran) == [0, 2]
    assert futures[1].state.is_cancelled()
    with pytest.raises(CancelledRun):
        futures[1].result(LIMIT)
    assert rows("SELECT state FROM runs ORDER BY id") == [("COMPLETED",), ("CANCELLED",), ("COMPLETED",)]
    assert rows("SELECT state FROM tasks ORDER BY id") == [("COMPLETED",), ("CANCELLED",), ("COMPLETED",)]


def test_a_run_in_a_queue_that_is_paused_waits_until_it_is_unpaused(rows: Rows) -> None:
    from wfengine.task_worker import TaskWorker

    ran = []

    @task
    def work() -> None:
        ran.append(1)

    work.delay()
    assert wfengine.pause(1, reason="not now").is_paused()
    TaskWorker(work).run_once()
    assert ran == []
    assert wfengine.unpause(1).is_scheduled()
    TaskWorker(work).run_once()
    assert ran == [1]
    assert rows.state() == ("COMPLETED", "Completed")


CRASHES = """
def told(flow, run, state):
    note(f"hook:{state.name}")

@task
def step(number):
    note(f"step:{number}")
    if number == 1 and first_time():
        kill()

@flow(on_cancellation=[told])
def etl():
    step(0)
    step(1)

if __name__ == "__main__":
    etl()
"""

VERB = """
import sys, wfengine
state = getattr(wfengine, sys.argv[1])(int(sys.argv[2]))
print(state.type.value, state.name)
"""


def verb(program: Program, name: str, run: int = 1) -> str:
    """Ask in a process of its own; return the state after that, or the error."""
    done = program.python("-c", VERB, name, str(run))
    return (done.out.strip() or done.err.strip()).splitlines()[-1]


def test_a_crashed_run_is_cancelled_at_once_and_its_hooks_are_called_by_the_canceller(program: Program, rows: Rows) -> None:
    program.write(CRASHES)
    program.run_and_be_killed()

    assert verb(program, "cancel") == "CANCELLED Cancelled"
    assert program.effects == ["step:0", "step:1", "hook:Cancelled"]
    assert rows("SELECT state FROM tasks ORDER BY id") == [("COMPLETED",), ("CANCELLED",)]
    assert program.run().code == 0  # a new run, which does not call the hooks again
    assert program.effects.count("hook:Cancelled") == 1


def test_a_crashed_run_whose_code_is_gone_is_cancelled_all_the_same(program: Program, rows: Rows) -> None:
    program.write(CRASHES)
    program.run_and_be_killed()
    program.path.unlink()

    done = program.python("-c", VERB, "cancel", "1")
    assert done.code == 0
    assert "hooks were not called" in done.err
    assert rows.state() == ("CANCELLED", "Cancelled")


def test_a_crashed_run_that_is_paused_is_not_recovered_until_it_is_unpaused(program: Program, rows: Rows) -> None:
    program.write(CRASHES)
    program.run_and_be_killed()

    assert verb(program, "pause") == "PAUSED Paused"
    assert resumable_runs(use_journal(rows.path)) == []
    assert "is paused already" in verb(program, "pause")
    assert verb(program, "unpause") == "CRASHED Crashed"
    assert resumable_runs(use_journal(rows.path)) == [1]
    assert program.resume(1)["state"] == "COMPLETED"
    assert program.effects == ["step:0", "step:1", "step:1"]


def test_a_paused_flow_can_be_cancelled(rows: Rows) -> None:
    from wfengine.states import Paused

    called = []

    @flow(on_cancellation=[lambda flow, run, state: called.append(1)])
    def etl() -> object:
        return Paused()

    etl(return_state=True)
    assert wfengine.cancel(1).is_cancelled()
    assert rows.state() == ("CANCELLED", "Cancelled")


# ------------------------------------------------------------------------------------------- several processes


LONG = """
import threading, wfengine

def told(flow, run, state):
    note(f"hook:{state.name}")
    if (HERE / "kill_in_hook").exists() and first_time("hook"):
        kill()

@task
def work():
    note("work")
    print("started", flush=True)
    try:
        while not (HERE / "go_on").exists():
            wfengine.check_cancelled()
            threading.Event().wait(0.002)
    finally:
        note("cleanup")
        if (HERE / "kill_in_cleanup").exists():
            kill()

@task
def deaf():
    note("deaf")
    print("started", flush=True)
    threading.Event().wait(60)

@task
async def work_async():
    note("work")
    print("started", flush=True)
    try:
        while not (HERE / "go_on").exists():
            await asyncio.sleep(0.002)
    finally:
        note("cleanup")

@task
def after():
    note("after")

@flow(on_cancellation=[told])
def etl():
    FIRST()
    after()

@flow(on_cancellation=[told])
async def etl_async():
    await work_async()
    after()

if __name__ == "__main__":
    state = CALL
    print(state.type.value, state.name, flush=True)
"""


class Running:
    """The program, in a process of its own, until its first task has begun."""

    def __init__(self, program: Program, first: str = "work", call: str = "etl(return_state=True)") -> None:
        program.write(LONG.replace("FIRST", first).replace("CALL", call))
        self.process = subprocess.Popen(
            [sys.executable, str(program.path)], cwd=program.folder, env=program.environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started\n"

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:  # not by communicate(), which does not see what readline() read too much
            out = stdout.read()
        return self.process.wait(PROGRAM_SECONDS), out.strip()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.end()


@pytest.mark.parametrize("call", ["etl(return_state=True)", "asyncio.run(etl_async(return_state=True))"])
def test_a_run_of_another_process_is_cancelled(program: Program, rows: Rows, call: str) -> None:
    running = Running(program, call=call)
    assert verb(program, "cancel") == "CANCELLING Cancelling"
    assert running.end() == (0, "CANCELLED Cancelled")
    assert program.effects == ["work", "cleanup", "hook:Cancelled"]
    assert rows("SELECT state FROM tasks") == [("CANCELLED",)]


def test_an_owner_killed_while_it_is_asked_leaves_a_cancelled_run_and_its_hooks_to_the_next_start(
    program: Program, rows: Rows
) -> None:
    running = Running(program, first="deaf")
    assert verb(program, "cancel") == "CANCELLING Cancelling"
    running.kill()
    assert "it has ended (Cancelled)" in verb(program, "cancel")
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert rows("SELECT state FROM tasks") == [("CANCELLED",)]
    assert resumable_runs(use_journal(rows.path)) == []
    (program.folder / "go_on").touch()
    second = Running(program)
    assert second.end() == (0, "COMPLETED Completed")
    assert program.effects == ["deaf", "hook:Cancelled", "work", "cleanup", "after"]


def test_an_owner_killed_in_the_cleanup_leaves_a_cancelled_run(program: Program, rows: Rows) -> None:
    running = Running(program)
    (program.folder / "kill_in_cleanup").touch()
    assert verb(program, "cancel") == "CANCELLING Cancelling"
    assert running.end()[0] == -signal.SIGKILL
    journal = use_journal(rows.path)
    assert resumable_runs(journal) == []
    assert rows.state() == ("CANCELLED", "Cancelled")
    assert program.effects == ["work", "cleanup"]


def test_a_hook_whose_process_died_in_it_is_called_again_by_the_next_start_and_then_never(program: Program, rows: Rows) -> None:
    running = Running(program)
    (program.folder / "kill_in_hook").touch()
    verb(program, "cancel")
    assert running.end()[0] == -signal.SIGKILL
    assert rows.state() == ("CANCELLED", "Cancelled")
    (program.folder / "go_on").touch()
    for _ in range(2):
        assert Running(program).end() == (0, "COMPLETED Completed")
    assert program.effects.count("hook:Cancelled") == 2  # once cut off, once to its end


@pytest.mark.parametrize("call", ["etl(return_state=True)", "asyncio.run(etl_async(return_state=True))"])
def test_a_paused_run_finishes_what_runs_and_goes_on_when_it_is_unpaused(program: Program, rows: Rows, call: str) -> None:
    running = Running(program, call=call)
    assert verb(program, "pause") == "RUNNING Pausing"
    assert "still pausing" in verb(program, "unpause")
    (program.folder / "go_on").touch()
    assert running.end()[1] == "PAUSED Paused"
    assert rows.state() == ("PAUSED", "Paused")
    assert resumable_runs(use_journal(rows.path)) == []
    assert verb(program, "unpause") == "COMPLETED Completed"
    assert program.effects == ["work", "cleanup", "after"]


def test_an_owner_killed_while_it_pauses_leaves_a_paused_run(program: Program, rows: Rows) -> None:
    running = Running(program)
    assert verb(program, "pause") == "RUNNING Pausing"
    running.kill()
    assert resumable_runs(use_journal(rows.path)) == []
    assert rows.state() == ("PAUSED", "Paused")
    (program.folder / "go_on").touch()
    assert verb(program, "unpause") == "COMPLETED Completed"
    assert program.effects == ["work", "work", "cleanup", "after"]


def test_a_paused_run_can_be_cancelled_instead(program: Program, rows: Rows) -> None:
    running = Running(program)
    verb(program, "pause")
    (program.folder / "go_on").touch()
    running.end()
    assert verb(program, "cancel") == "CANCELLED Cancelled"
    assert program.effects == ["work", "cleanup", "hook:Cancelled"]
