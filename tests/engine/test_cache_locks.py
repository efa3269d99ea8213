"""Isolation SERIALIZABLE: equal keys are computed one at a time, over threads and processes, and the later calls hit."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import ThreadTaskRunner, flow, task, use_journal
from wfengine.cache_policies import DEFAULT, INPUTS, CachePolicy
from wfengine.locking.filesystem import FileSystemLockManager
from wfengine.locking.memory import MemoryLockManager
from wfengine.transactions import IsolationLevel
from wfengine_journal import store
from wfengine_journal.errors import TaskTimeoutError, UsageError

ONE_AT_A_TIME = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE)

#: Seconds after which a wait that should end counts as hanging.
LONG = 60.0


def until(journal: store.Journal, holds: Callable[[], bool]) -> None:
    """Wait until something holds of a journal that other processes write."""
    for _ in range(int(LONG / 0.1)):
        mark = journal.changes.mark()
        if holds():
            return
        journal.changes.wait(mark, 0.1)
    raise AssertionError("it never held")


# ---------------------------------------------------------------------------------------------------- in one process


def test_of_many_equal_calls_one_runs_and_the_others_get_its_result(rows: Rows) -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME)
    def slow(x: int) -> int:
        ran.append(x)
        return x * 10

    @flow
    def main() -> list[int]:
        return slow.map([1, 2, 1, 2, 1, 2, 1, 2]).result()

    assert main() == [10, 20] * 4
    assert sorted(ran) == [1, 2]
    assert rows("SELECT state_name, count(*) FROM tasks GROUP BY 1") == [("Cached", 6), ("Completed", 2)]
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_equal_calls_that_are_not_isolated_run_at_the_same_time() -> None:
    both_run = threading.Barrier(2, timeout=LONG)

    @task(cache_policy=INPUTS)
    def slow(x: int) -> int:
        both_run.wait()
        return x

    @flow
    def main() -> list[int]:
        return slow.map([1, 1]).result()

    assert main() == [1, 1]


def test_other_keys_are_computed_meanwhile() -> None:
    both_run = threading.Barrier(2, timeout=LONG)

    @task(cache_policy=ONE_AT_A_TIME)
    def slow(x: int) -> int:
        both_run.wait()
        return x

    @flow
    def main() -> list[int]:
        return slow.map([1, 2]).result()

    assert main() == [1, 2]


@pytest.mark.parametrize("how", ["gathered", "submitted"])
def test_async_calls_wait_without_stopping_the_loop(how: str, rows: Rows) -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME)
    async def slow(x: int) -> int:
        ran.append(x)
        for _ in range(20):
            await asyncio.sleep(0)
        return x * 10

    @flow
    async def main() -> list[int]:
        if how == "gathered":
            return list(await asyncio.gather(*(slow(x) for x in [1, 1, 2, 1])))
        return [await future for future in [slow.submit(x) for x in [1, 1, 2, 1]]]

    assert asyncio.run(main()) == [10, 10, 20, 10]
    assert sorted(ran) == [1, 2]
    assert rows("SELECT count(*) FROM tasks WHERE state_name = 'Cached'") == [(2,)]


def test_after_a_failure_the_next_one_computes(rows: Rows) -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME)
    def flaky(x: int) -> int:
        ran.append(x)
        if len(ran) == 1:
            raise ValueError("the first fails")
        return x

    @flow
    def main() -> list[str]:
        states = flaky.map([1, 1, 1], return_state=True)
        names.extend(sorted(state.name for state in states))
        return names

    names: list[str] = []
    assert main() == ["Cached", "Completed", "Failed"]
    assert ran == [1, 1]
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_a_retry_gives_the_key_free_while_it_waits(rows: Rows, clock: object) -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME, retries=1, retry_delay_seconds=3600)
    def flaky(x: int) -> int:
        ran.append(x)
        if len(ran) == 1:
            raise ValueError("the first fails")
        return x

    @flow
    def main() -> list[int]:
        return flaky.map([1, 1]).result()

    assert main() == [1, 1]
    assert len(ran) == 2


def test_a_task_that_timed_out_gives_the_key_free(rows: Rows) -> None:
    ran: list[int] = []
    go_on = threading.Event()

    @task(cache_policy=ONE_AT_A_TIME, timeout_seconds=1.0)
    def slow(x: int) -> int:
        ran.append(x)
        if len(ran) == 1:
            go_on.wait(LONG)
        return x

    @flow
    def main() -> int:
        with pytest.raises(TaskTimeoutError):
            slow(1)
        return slow(1)

    assert main() == 1
    go_on.set()
    assert ran == [1, 1]


def test_waiting_calls_leave_their_worker_to_others(rows: Rows) -> None:
    @task
    def part(x: int) -> int:
        return x

    @task(cache_policy=ONE_AT_A_TIME)
    def whole(x: int) -> int:
        return sum(part.map([x, x, x]).result())

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def main() -> list[int]:
        return whole.map([1, 1, 2, 2, 1]).result()

    assert main() == [3, 3, 6, 6, 3]
    assert rows("SELECT count(*) FROM tasks WHERE task = 'whole' AND state_name = 'Completed'") == [(2,)]


def test_a_task_that_calls_itself_with_the_same_key_does_not_wait_for_itself() -> None:
    everywhere = CachePolicy.from_cache_key_fn(lambda context, parameters: "one key")

    @task(cache_policy=everywhere.configure(isolation_level="SERIALIZABLE"))
    def countdown(n: int) -> int:
        return inner(n - 1) + 1 if n else 0

    @flow
    def inner(n: int) -> int:
        return countdown(n)

    assert inner(3) == 3


def test_a_cancelled_call_gives_the_key_free() -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME)
    async def slow(x: int) -> int:
        ran.append(x)
        if len(ran) == 1:
            await asyncio.Event().wait()
        return x

    @flow
    async def main() -> int:
        first = asyncio.create_task(slow(1))
        while not ran:
            await asyncio.sleep(0)
        second = asyncio.create_task(slow(1))
        first.cancel()
        return await second

    assert asyncio.run(main()) == 1
    assert ran == [1, 1]


def test_a_call_that_is_cancelled_while_it_waits_is_not_run(rows: Rows) -> None:
    ran: list[int] = []

    @task(cache_policy=ONE_AT_A_TIME)
    async def slow(x: int) -> int:
        ran.append(x)
        await asyncio.sleep(0)
        return x

    @flow
    async def main() -> int:
        first = asyncio.create_task(slow(1))
        second = asyncio.create_task(slow(1))
        while not ran:
            await asyncio.sleep(0)
        second.cancel()
        return await first

    assert asyncio.run(main()) == 1
    assert ran == [1]
    assert rows("SELECT state, state_name, attempts FROM tasks WHERE id = 2") == [("CRASHED", "Interrupted", 0)]
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_refreshing_runs_one_at_a_time_too(rows: Rows) -> None:
    ran: list[int] = []
    alone = threading.Lock()

    @task(cache_policy=ONE_AT_A_TIME, refresh_cache=True, cache_expiration=timedelta(hours=1))
    def slow(x: int) -> int:
        assert alone.acquire(blocking=False)
        ran.append(x)
        alone.release()
        return x

    @flow
    def main() -> list[int]:
        return slow.map([1] * 5).result()

    assert main() == [1] * 5
    assert len(ran) == 5


@pytest.mark.parametrize("manager", [MemoryLockManager(), FileSystemLockManager(lock_files_directory="somewhere"), None])
@pytest.mark.parametrize("level", [IsolationLevel.SERIALIZABLE, "SERIALIZABLE"])
def test_every_lock_manager_means_the_journal_s_lock(manager: object, level: IsolationLevel, tmp_path: Path) -> None:
    ran: list[int] = []

    @task(cache_policy=DEFAULT.configure(isolation_level=level, lock_manager=manager))
    def slow(x: int) -> int:
        ran.append(x)
        return x

    @flow
    def main() -> list[int]:
        return slow.map([1] * 8).result()

    assert main() == [1] * 8
    assert ran == [1]


def test_an_isolation_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="must be READ_COMMITTED or SERIALIZABLE"):
        INPUTS.configure(isolation_level="SNAPSHOT")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- two processes

BOTH = """
    from wfengine.cache_policies import INPUTS

    @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
    def slow(x):
        note(f"slow-{os.environ['ME']}")
        if os.environ["ME"] == "first":
            print("computing", flush=True)
            sys.stdin.readline()
        return os.environ["ME"]

    @flow
    def main(x):
        return slow(x)

    print(main(1), flush=True)
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(program: Program) -> Iterator[Start]:
    """Return a function that starts the program as a process of that name."""
    program.write(BOTH)
    started = []

    def begin(name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(program.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=program.folder, env={**program.environment, "ME": name},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def waiting(start: Start, tmp_path: Path, rows: Rows) -> tuple[subprocess.Popen[str], subprocess.Popen[str], store.Journal]:
    """Two processes, of which the first computes and the second waits for it."""
    first = start("first")
    assert line(first) == "computing"
    second = start("second")
    journal = use_journal(tmp_path / "journal.db")
    until(journal, lambda: rows("SELECT state FROM tasks ORDER BY id") == [("RUNNING",), ("PENDING",)])
    return first, second, journal


Waiting = tuple["subprocess.Popen[str]", "subprocess.Popen[str]", store.Journal]


def test_a_process_waits_for_another_one_s_result(waiting: Waiting, program: Program, rows: Rows) -> None:
    first, second, _ = waiting
    assert first.communicate("\n", timeout=LONG)[0] == "first\n"
    assert second.communicate(timeout=LONG)[0] == "first\n"
    assert program.effects == ["slow-first"]
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("Completed",), ("Cached",)]


def test_the_key_is_free_as_soon_as_its_holder_is_killed(waiting: Waiting, program: Program, rows: Rows) -> None:
    first, second, _ = waiting
    first.kill()
    assert second.communicate(timeout=LONG)[0] == "second\n"
    assert program.effects == ["slow-first", "slow-second"]
    answer = program.resume(1, recovery=True)
    assert answer["result"] == "'second'"
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("Cached",), ("Completed",)]


def test_a_process_that_is_killed_while_it_waits_can_be_resumed(waiting: Waiting, program: Program, rows: Rows) -> None:
    first, second, _ = waiting
    second.kill()
    second.wait()
    first.communicate("\n", timeout=LONG)
    assert program.resume(2, recovery=True)["result"] == "'first'"
    assert program.effects == ["slow-first"]


def test_ctrl_c_ends_the_waiting_and_leaves_the_run_resumable(waiting: Waiting, program: Program, rows: Rows) -> None:
    first, second, _ = waiting
    second.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in second.communicate(timeout=LONG)[1]
    assert rows.state(2) == ("CRASHED", "Crashed")
    first.communicate("\n", timeout=LONG)
    assert program.resume(2)["result"] == "'first'"


def test_a_holder_whose_run_was_taken_over_holds_nothing(waiting: Waiting, program: Program, rows: Rows) -> None:
    first, second, _ = waiting
    program.environment["ME"] = "third"
    first.send_signal(signal.SIGSTOP)
    try:
        answer = program.resume(1, takeover=True)
        assert answer["result"] in ("'second'", "'third'")
        assert second.communicate(timeout=LONG)[0].strip() == str(answer["result"]).strip("'")
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate("\n", timeout=LONG)
    assert rows("SELECT state FROM tasks ORDER BY id") == [("COMPLETED",), ("COMPLETED",)]
    assert len(program.effects) == 2
