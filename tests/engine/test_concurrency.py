"""Many threads and processes on one file, and the promises of the thread runner."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wfengine import TaskFuture, ThreadTaskRunner, as_completed, carry, flow, task, wait

if TYPE_CHECKING:
    from conftest import Program, Rows

#: Seconds after which a thread counts as hanging.
PATIENCE = 60.0


@task
def add(x: int, y: int = 1) -> int:
    return x + y


def test_ten_thousand_task_runs_from_64_threads_are_all_there(rows: Rows) -> None:
    @flow
    def submitting(thread: int, count: int) -> int:
        return sum(future.result() for future in [add.submit(thread, number) for number in range(count)])

    @flow
    def carrying(count: int, threads: int) -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(carry(lambda number: add(number, -1)), range(count)))

    problems: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            if thread % 2:
                submitting(thread, 156)
            else:
                carrying(156, 2)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not problems
    assert not any(thread.is_alive() for thread in threads)
    assert rows.value("SELECT count(*) FROM runs WHERE state = 'COMPLETED'") == 64
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 64 * 156
    # Each has its whole history: begun, or issued and begun, and completed.
    assert rows.value("SELECT count(*) FROM history WHERE task_id IS NOT NULL") == 32 * 156 * 2 + 32 * 156 * 3


@pytest.mark.crash
def test_ten_thousand_task_runs_from_8_processes_are_all_there(program: Program, rows: Rows) -> None:
    program.write(
        """
        import threading

        @task
        def add(x, y):
            return x + y

        @flow
        def work(count):
            return sum(add.map(range(count), range(count)).result())

        if __name__ == "__main__":
            problems = []
            def one():
                try:
                    assert work(157) == 156 * 157
                except BaseException as error:
                    problems.append(error)
            threads = [threading.Thread(target=one) for _ in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            sys.exit(repr(problems) if problems else 0)
        """
    )
    children = [
        subprocess.Popen(
            [sys.executable, str(program.path)], cwd=program.folder, env=program.environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    ends = [(child.communicate(timeout=150)[1], child.returncode) for child in children]
    assert ends == [("", 0)] * 8
    assert rows.value("SELECT count(*) FROM runs WHERE state = 'COMPLETED'") == 64
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 64 * 157
    assert rows.value("SELECT count(DISTINCT run_id) FROM tasks") == 64


def test_reading_every_task_in_another_process_during_a_run_disturbs_nothing(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def add(x):
            return x + 1

        @flow
        def many(n):
            add(0)
            print("running", flush=True)
            for number in range(1, n):
                add(number)
            total = sum(add.map(range(n)).result())
            print(total, flush=True)
            sys.stdin.readline()  # the file is in use until the reader says so

        if __name__ == "__main__":
            many(1000)
        """
    )
    with subprocess.Popen(
        [sys.executable, str(program.path)],
        cwd=program.folder,
        env=program.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        counts: list[int] = []
        while not counts or counts[-1] < 2000:
            shown = subprocess.run(
                ["sqlite3", "-readonly", str(rows.path), "select * from tasks"], capture_output=True, text=True, check=False
            )
            assert (shown.returncode, shown.stderr) == (0, "")
            counts.append(len(shown.stdout.splitlines()))
        assert child.stdout.readline() == f"{sum(range(1, 1001))}\n"
        child.stdin.write("\n")
    assert child.returncode == 0
    assert counts == sorted(counts)
    assert len(counts) > 2
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 2000


def test_a_chain_of_50_tasks_that_wait_for_tasks_works_with_one_worker(rows: Rows) -> None:
    @task
    def nested(depth: int) -> int:
        return 0 if depth == 0 else 1 + nested.submit(depth - 1).result()

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def deep() -> int:
        return nested.submit(50).result()

    assert deep() == 50
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 51
    assert rows.value("SELECT count(DISTINCT parent_task_id) FROM tasks") == 50


def test_never_more_tasks_run_at_once_than_there_are_workers() -> None:
    lock = threading.Lock()
    running: list[int] = [0, 0]
    gate = threading.Barrier(3)

    @task
    def counted(number: int) -> int:
        with lock:
            running[0] += 1
            running[1] = max(running)
        gate.wait(PATIENCE)  # three at a time go on together: so three do run at once
        with lock:
            running[0] -= 1
        return number

    @flow(task_runner=ThreadTaskRunner(max_workers=3))
    def limited() -> list[int]:
        return counted.map(range(12)).result()

    assert limited() == list(range(12))
    assert running[1] == 3


def test_futures_given_to_tasks_arrive_as_values_also_inside_containers() -> None:
    @task
    def total(numbers: list[int], more: dict[str, int]) -> int:
        return sum(numbers) + sum(more.values())

    @flow
    def passing() -> int:
        one, two = add.submit(0), add.submit(1)
        three = add.submit(one, two)  # 1 + 2
        return total([one, two, three], {"x": three}) + total.submit([three], {}).result()

    assert passing() == 12


def test_a_task_whose_input_failed_does_not_run_and_gives_its_error(rows: Rows) -> None:
    @task
    def fails() -> int:
        raise LookupError("nothing there")

    @flow
    def passing() -> str:
        dependent = add.submit(fails.submit())
        with pytest.raises(LookupError, match="nothing there"):
            dependent.result()
        return "caught"

    assert passing() == "caught"
    assert rows("SELECT task, state_name FROM tasks") == [("fails", "Failed"), ("add", "NotReady")]


def test_as_completed_gives_futures_in_the_order_in_which_they_finish() -> None:
    gates = [threading.Event() for _ in range(4)]
    order = list(range(4))
    seed = random.randrange(10**6)
    print("seed", seed)
    random.Random(seed).shuffle(order)

    @task
    def gated(number: int) -> int:
        assert gates[number].wait(PATIENCE)
        return number

    @flow
    def ordered() -> list[int]:
        futures = [gated.submit(number) for number in range(4)]
        found: list[int] = []
        gates[order[0]].set()
        for future in as_completed(futures):
            found.append(future.result())
            if len(found) < 4:
                gates[order[len(found)]].set()
        return found

    assert ordered() == order


def test_wait_tells_what_is_done_and_what_is_not_after_its_time() -> None:
    gate = threading.Event()

    @task
    def gated() -> int:
        assert gate.wait(PATIENCE)
        return 1

    @flow
    def waiting() -> None:
        slow, fast = gated.submit(), add.submit(1)
        fast.wait()
        done, not_done = wait([slow, fast], timeout=0.01)
        assert (done, not_done) == ({fast}, {slow})
        with pytest.raises(TimeoutError):
            slow.result(timeout=0.01)
        gate.set()
        assert wait([slow, fast]).not_done == set()

    waiting()


def test_what_was_submitted_and_not_asked_for_is_finished_before_the_flow_ends(rows: Rows) -> None:
    finished: list[int] = []
    pause = threading.Event()

    @task
    def slow(number: int) -> None:
        pause.wait(0.05)
        finished.append(number)

    @flow
    def forgetful() -> str:
        for number in range(5):
            slow.submit(number)
        return "done"

    assert forgetful() == "done"
    assert sorted(finished) == [0, 1, 2, 3, 4]
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 5
    assert rows.value("SELECT max(ended_at) FROM tasks") <= rows.value("SELECT ended_at FROM runs")  # type: ignore[operator]


def test_a_submitted_task_submits_further_ones_and_all_are_finished(rows: Rows) -> None:
    @task
    def spawning(depth: int) -> None:
        if depth:
            spawning.submit(depth - 1)

    @flow
    def tree() -> None:
        spawning.submit(5)

    tree()
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 6


def test_the_threads_of_a_runner_end_with_their_run() -> None:
    @task
    async def asynchronous(number: int) -> int:
        return number

    @flow
    def fan() -> int:
        return sum(add.map(range(100)).result()) + sum(asynchronous.map(range(10)).result())

    def runner_threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(("wfengine-worker", "wfengine-loop"))]

    fan()
    until(lambda: not runner_threads())
    for _ in range(20):
        fan()
    until(lambda: not runner_threads())


def test_a_foreign_thread_without_its_scope_is_refused_with_the_line_that_helps() -> None:
    from wfengine_journal.errors import MissingContextError

    ends: list[BaseException | int] = []

    @flow
    def lost() -> None:
        def work() -> None:
            try:
                ends.append(add(1))
            except BaseException as error:
                ends.append(error)

        for target in (work, carry(work)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(PATIENCE)

    lost()
    assert isinstance(ends[0], MissingContextError)
    assert "carry(" in str(ends[0])
    assert ends[1] == 2


def test_a_future_can_be_asked_by_many_threads() -> None:
    gate = threading.Event()

    @task
    def gated() -> int:
        assert gate.wait(PATIENCE)
        return 7

    @flow
    def shared() -> list[int]:
        future: TaskFuture[int] = gated.submit()
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(future.result) for _ in range(16)]
            gate.set()
            return [answer.result(PATIENCE) for answer in asked]

    assert shared() == [7] * 16


def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    pause = threading.Event()
    for _ in range(12_000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")


def test_the_number_of_open_files_does_not_grow_with_runs() -> None:
    @flow
    def small() -> int:
        return add.submit(1).result()

    small()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        small()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
