"""The life of a task run on each runner: retries, limits, cancellation, what it may ask about itself, what is left behind."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import wfengine
from tests.conformance.runners import Place
from tests.conformance.work import PlainError, double, double_async, talk, touch, wait_for_file, where
from tests.engine.conftest import Rows
from wfengine import check_cancelled, current_flow_run, current_task_run, flow, get_run_context, runtime, task
from wfengine.cache_policies import INPUTS
from wfengine.context import FlowRunContext, TagsContext, TaskRunContext
from wfengine_journal.errors import CancelledRun, TaskTimeoutError

#: Seconds after which a wait counts as one without end.
LIMIT = 45


# ------------------------------------------------------------------------------------------- what a task may ask


def test_a_task_knows_its_run_and_its_attempt(place: Place, rows: Rows) -> None:
    @task(tags=["own"], task_run_name="named-{number}", retries=1)
    def ask(number: int) -> dict[str, object]:
        current, context = current_task_run(), get_run_context()
        assert isinstance(context, TaskRunContext)
        if runtime.task_run.run_count == 1:
            raise PlainError(current.idempotency_key)
        return {
            "id": runtime.task_run.id, "name": runtime.task_run.name, "tags": runtime.task_run.tags,
            "count": runtime.task_run.run_count, "parameters": runtime.task_run.parameters,
            "flow": runtime.flow_run.name, "flow id": runtime.flow_run.id, "flow parameters": runtime.flow_run.parameters,
            "current": (current.id, current.attempt, current.task_name), "key": current.idempotency_key,
            "current flow": current_flow_run().id, "context": context.task_run.id, "task": context.task.name,
            "around": TagsContext.get().current_tags,
        }  # fmt: skip

    @flow(task_runner=place.new(), flow_run_name="all")
    def main(size: int) -> dict[str, object]:
        with wfengine.tags("around"):
            found = ask.submit(4).result()
        assert found["key"] != ask.submit(5).result()["key"]
        return found

    assert main(3) == {
        "id": 1, "name": "named-4", "tags": ["around", "own"], "count": 2, "parameters": {"number": 4}, "flow": "all",
        "flow id": 1,
        "flow parameters": {"size": 3}, "current": (1, 2, "ask"), "key": main_key(rows), "current flow": 1, "context": 1,
        "task": "ask", "around": frozenset({"around"}),
    }  # fmt: skip


def main_key(rows: Rows) -> object:
    """Return the key that the first attempt gave its service."""
    return rows.value("SELECT e.message FROM error e JOIN transition t ON t.error_id = e.id WHERE t.task_run_id = 1")


def test_logs_and_prints_of_a_task_are_lines_of_its_run_in_the_journal(place: Place, rows: Rows) -> None:
    @flow(task_runner=place.new())
    def main() -> None:
        talk.submit("something").result()

    main()
    found = rows("SELECT task_run_id, level, logger, message FROM log WHERE task_run_id IS NOT NULL ORDER BY id")
    assert [line[:3] for line in found] == [(1, level, "wfengine.task_runs") for level in (20, 30, 40)]
    assert [str(line[3]).splitlines()[0] for line in found] == ["said something", "warning something", "caught"]
    assert "PlainError: in the log" in str(found[2][3])


def test_hooks_are_called_in_the_process_of_the_flow(place: Place) -> None:
    called: list[tuple[str, int]] = []

    def hook(name: str) -> Callable[..., None]:
        return lambda *_: called.append((name, os.getpid()))

    @task(on_running=[hook("running")], on_completion=[hook("completion")], on_failure=[hook("failure")])
    def work(fails: bool) -> int:
        if fails:
            raise PlainError("no")
        return os.getpid()

    @flow(task_runner=place.new())
    def main() -> int:
        work.submit(True).result(raise_on_failure=False)
        return work.submit(False).result()

    assert (main() != os.getpid()) == place.is_away
    assert called == [(name, os.getpid()) for name in ("running", "failure", "running", "completion")]


# ------------------------------------------------------------------------------------------- retries and limits


def test_a_failed_task_is_tried_again_and_the_condition_is_asked_in_the_flow(place: Place, tmp_path: Path, rows: Rows) -> None:
    asked: list[int] = []

    def condition(_task: object, _run: object, _state: object) -> bool:
        asked.append(os.getpid())
        return True

    @task(retries=3, retry_delay_seconds=0.01, retry_condition_fn=condition)
    def flaky() -> int:
        count = len(list(tmp_path.glob("try*")))
        (tmp_path / f"try{count}").touch()
        if count < 2:
            raise PlainError(count)
        return count

    @flow(task_runner=place.new())
    def main() -> int:
        return flaky.submit().result()

    assert main() == 2
    assert asked == [os.getpid()] * 2
    assert rows("SELECT attempt, failures, state FROM task_run") == [(3, 2, "COMPLETED")]


def test_a_task_beyond_its_limit_fails_and_may_be_tried_again(place: Place, tmp_path: Path) -> None:
    @task(timeout_seconds=0.4)
    def nap(folder: str) -> None:
        wait_for_file(folder, "over")

    @task(timeout_seconds=0.4)
    async def nap_async() -> None:
        import asyncio

        await asyncio.sleep(30)

    @task(timeout_seconds=8, retries=1)
    def slow_once() -> int:
        if runtime.task_run.run_count == 1:
            raise PlainError("once")
        return 1

    @flow(task_runner=place.new())
    def main() -> None:
        for nap_one in (lambda: nap.submit(str(tmp_path)), nap_async.submit):
            began = time.monotonic()
            with pytest.raises(TaskTimeoutError):
                nap_one().result()
            assert time.monotonic() - began < LIMIT / 2
        assert slow_once.submit().result() == 1
        assert double.submit(2).result() == 4

    main()
    touch(str(tmp_path), "over")


def test_the_limit_of_a_task_holds_for_what_it_waits_for_on_the_flow_s_side(place: Place, tmp_path: Path) -> None:
    place.needs("queue")

    @task
    def nap(folder: str) -> None:
        wait_for_file(folder, "over")

    @task(timeout_seconds=1.5)
    def waits() -> None:
        nap.submit(str(tmp_path)).result()

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(TaskTimeoutError):
            waits.submit().result()
        touch(str(tmp_path), "over")

    main()


def test_the_limit_of_a_task_holds_where_a_task_calls_it(place: Place, tmp_path: Path) -> None:
    @task(timeout_seconds=1)
    def nap(folder: str, depth: int) -> int:
        if depth:
            double(1)
            wait_for_file(folder, "over")
        return double(depth)

    @task
    def catches() -> tuple[str, int]:
        try:
            nap(str(tmp_path), 1)
        except TaskTimeoutError as error:
            return type(error).__name__, nap(str(tmp_path), 0) + double(4)
        return "", 0

    @flow(task_runner=place.new())
    def main() -> tuple[str, int]:
        return catches.submit().result()

    assert main() == ("TaskTimeoutError", 8)
    touch(str(tmp_path), "over")


# ------------------------------------------------------------------------------------------- cancellation


def cancel_when_there(folder: Path, name: str) -> threading.Thread:
    """Cancel the first run as soon as a file is there."""

    def ask() -> None:
        wait_for_file(str(folder), name, LIMIT)
        wfengine.cancel(1, reason="enough")

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_cancelled_run_stops_tasks_that_wait_and_drops_those_in_the_queue(place: Place, tmp_path: Path, rows: Rows) -> None:
    @task
    def busy(folder: str, number: int) -> None:
        touch(folder, f"began{number}")
        try:
            turns, woken = 0, threading.Event()
            while turns < LIMIT * 100:
                check_cancelled()
                woken.wait(0.01)
                turns += 1
        finally:
            touch(folder, f"unwound{number}")

    @flow(task_runner=place.new())
    def main() -> None:
        busy.map(str(tmp_path), range(40)).result()

    thread = cancel_when_there(tmp_path, "began0")
    with pytest.raises(CancelledRun):
        main()
    thread.join()
    assert rows.state() == ("CANCELLED", "Cancelled")
    began = len(list(tmp_path.glob("began*")))
    assert began <= max(place.workers, 1)
    if "stopping" not in place.candidate.lacks:
        for path in tmp_path.glob("began*"):
            wait_for_file(str(tmp_path), path.name.replace("began", "unwound"), LIMIT)


def test_a_cancelled_run_stops_a_task_that_asks_nobody(place: Place, tmp_path: Path, rows: Rows) -> None:
    place.needs("process", "stopping")

    @task
    def spin(folder: str) -> None:
        touch(folder, "began")
        try:
            while True:
                pass
        finally:
            touch(folder, "unwound")

    @task
    def waits(folder: str) -> None:
        spin.submit(folder).result()

    @flow(task_runner=place.new())
    def main() -> None:
        waits.submit(str(tmp_path)).result()

    thread = cancel_when_there(tmp_path, "began")
    with pytest.raises(CancelledRun):
        main()
    thread.join()
    wait_for_file(str(tmp_path), "unwound", LIMIT)
    assert rows.state() == ("CANCELLED", "Cancelled")


# ------------------------------------------------------------------------------------------- how many, and what is left


def test_no_more_tasks_run_at_a_time_than_there_are_workers(place: Place, tmp_path: Path) -> None:
    @task
    def count(folder: str, number: int) -> int:
        mine = Path(folder) / f"run{number}"
        mine.touch()
        at_once = len(list(Path(folder).glob("run*")))
        mine.unlink()
        return at_once

    @flow(task_runner=place.new())
    def main() -> list[int]:
        return count.map(str(tmp_path), range(150)).result()

    assert max(main()) <= place.workers


def test_a_runner_leaves_no_thread_process_or_descriptor_behind(place: Place) -> None:
    @flow(task_runner=place.new())
    def main() -> list[int]:
        return double.map(range(10)).result() + double_async.map(range(10)).result()

    main()
    before, children = _descriptors(), _children()
    for _ in range(2):
        main()
    deadline = time.monotonic() + LIMIT
    while _leftover_threads() or _children() - children or _descriptors() > before:
        assert time.monotonic() < deadline, (_leftover_threads(), _children() - children, _descriptors(), before)
        threading.Event().wait(0.02)


def _leftover_threads() -> list[str]:
    names = ("wfengine-worker", "wfengine-loop", "wfengine-line", "wfengine-ask")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the folder itself is open meanwhile, both times


def _children() -> set[str]:
    found: set[str] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found.update((thread / "children").read_text().split())
    return found


# ------------------------------------------------------------------------------------------- tasks of other kinds


def test_transactional_tasks_run_in_the_process_of_the_flow(place: Place, rows: Rows) -> None:
    @task(transaction=True)
    def write(connection: object, number: int) -> int:
        return os.getpid() + number

    @flow(task_runner=place.new())
    def main() -> int:
        return write.submit(1).result()

    assert main() == os.getpid() + 1
    assert rows("SELECT state FROM task_run") == [("COMPLETED",)]


def test_a_cached_result_is_found_whatever_ran_it(place: Place, tmp_path: Path) -> None:
    @task(cache_policy=INPUTS, cache_expiration=datetime.timedelta(hours=1))
    def costly(folder: str, number: int) -> int:
        touch(folder, f"cost{len(list(Path(folder).glob('cost*')))}")
        return number + 1

    @flow(task_runner=place.new())
    def main() -> list[int]:
        first = costly.submit(str(tmp_path), 1).result()
        return [first, costly.submit(str(tmp_path), 1).result(), costly(str(tmp_path), 1)]

    assert main() == [2, 2, 2]
    assert main() == [2, 2, 2]
    assert len(list(tmp_path.glob("cost*"))) == 1


def test_the_flow_s_own_context_is_not_that_of_its_tasks(place: Place) -> None:
    @flow(task_runner=place.new())
    def main() -> bool:
        where.submit().result()
        return isinstance(get_run_context(), FlowRunContext)

    assert main()
