"""Background tasks in one process: what `delay` stores, what a worker makes of it, what a future tells."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Rows
from wfengine import Task, allow_failure, as_completed, flow, tags, task, unmapped, use_journal, wait
from wfengine.cache_policies import INPUTS
from wfengine.futures import PrefectDistributedFuture, TaskFutureList
from wfengine.task_worker import TaskWorker, aserve, serve
from wfengine_journal.errors import DriftError, NotFoundError, ParameterError, UsageError
from wfengine_journal.store import Journal

#: Seconds after which something counts as hanging.
LONG = 60


@contextmanager
def serving(*tasks: Task[..., Any], limit: int | None = 10) -> Iterator[TaskWorker]:
    """Serve tasks on a thread of this process while the block runs."""
    worker = TaskWorker(*tasks, limit=limit)
    problems: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(LONG)
        assert not thread.is_alive()
    if problems:
        raise problems[0]


@dataclass(frozen=True)
class Order:
    number: int
    due: datetime


@dataclass
class Shop:
    name: str

    @task
    def sell(self, number: int) -> str:
        return f"{number} from {self.name}"


@task
def double(number: int) -> int:
    return number * 2


@task
def echo(value: object) -> object:
    return value


# ------------------------------------------------------------------------------------------- what is stored


def test_delay_commits_a_scheduled_run_with_its_task_run_before_it_returns(rows: Rows) -> None:
    with tags("nightly"):
        future = double.delay(4)
    assert rows("SELECT id, flow, state, state_name, parameters, attempt, started_at, tags FROM runs") == [
        (future.flow_run_id, "double", "SCHEDULED", "Scheduled", '{"number":4}', 0, None, '["nightly"]')
    ]
    assert rows("SELECT id, task, state, inputs FROM tasks") == [(future.task_run_id, "double", "PENDING", '{"number":4}')]
    assert future.state.is_scheduled()
    assert not future.done()
    assert not future.wait(0.01)


@pytest.mark.parametrize(
    "value",
    [(1, [2.5, None]), {"a": {1, 2}}, Order(7, datetime(2026, 11, 22, tzinfo=UTC)), "x" * 10_000, b"\x00", timedelta(days=1)],
    ids=["tuple", "dict", "dataclass", "long", "bytes", "timedelta"],
)
def test_arguments_and_results_keep_their_types(value: object) -> None:
    future = echo.delay(value)
    with serving(echo):
        result = future.result(LONG)
    assert result == value
    assert type(result) is type(value)


def test_argument_that_cannot_be_stored_is_refused_and_nothing_is_written(rows: Rows) -> None:
    with pytest.raises(ParameterError, match=r"Task 'echo' was not started: parameter 'value' \(lock\)"):
        echo.delay(threading.Lock())
    assert rows.value("SELECT count(*) FROM runs") == 0


def test_deferred_map_puts_each_item_into_the_queue() -> None:
    @task
    def add(number: int, to: int) -> int:
        return number + to

    futures = add.map([1, 2, 3], unmapped(10), deferred=True)
    assert isinstance(futures, TaskFutureList)
    with serving(add):
        assert futures.result(LONG) == [11, 12, 13]


def test_method_is_put_into_the_queue_with_its_instance() -> None:
    with serving(Shop.sell):
        assert Shop("north").sell.delay(2).result(LONG) == "2 from north"


def test_argument_that_does_not_fit_is_refused_at_once(rows: Rows) -> None:
    with pytest.raises(ParameterError, match="number"):
        double.delay(nummer=3)  # type: ignore[call-arg]
    assert rows.value("SELECT count(*) FROM runs") == 0


def test_apply_async_takes_arguments_as_a_tuple_and_a_dict() -> None:
    futures = [double.apply_async((1,)), double.apply_async(kwargs={"number": 2}), double.apply_async([3], {})]
    with serving(double):
        assert [future.result(LONG) for future in futures] == [2, 4, 6]


# ------------------------------------------------------------------------------------------- what a worker makes of it


def test_worker_runs_sync_and_async_tasks_and_generators() -> None:
    @task
    async def triple(number: int) -> int:
        await asyncio.sleep(0)
        return number * 3

    @task
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    with serving(double, triple, numbers):
        assert (double.delay(1).result(LONG), triple.delay(1).result(LONG), numbers.delay(3).result(LONG)) == (2, 3, [0, 1, 2])


def test_failure_is_raised_as_itself_or_returned(rows: Rows) -> None:
    @task
    def fail() -> None:
        raise LookupError("nothing there")

    future = fail.delay()
    with serving(fail), pytest.raises(LookupError, match="nothing there"):
        future.result(LONG)
    error = future.result(raise_on_failure=False)
    assert type(error) is LookupError
    assert future.state.is_failed()
    assert rows.state() == ("FAILED", "Failed")


def test_worker_never_has_more_runs_than_its_limit() -> None:
    pairs, active, most = threading.Barrier(2), [0], [0]
    lock = threading.Lock()

    @task
    def meet(number: int) -> int:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        pairs.wait(LONG)  # two have to be there
        with lock:
            active[0] -= 1
        return number

    futures = [meet.delay(number) for number in range(6)]
    with serving(meet, limit=2):
        assert [future.result(LONG) for future in futures] == list(range(6))
    assert most == [2]


def test_runs_are_taken_oldest_first_over_all_tasks() -> None:
    order: list[str] = []

    @task
    def first(name: str) -> None:
        order.append(name)

    @task
    def second(name: str) -> None:
        order.append(name)

    futures = [(first if name in "adef" else second).delay(name) for name in "abcdefg"]
    with serving(second, first, limit=1):
        for future in futures:
            future.result(LONG)
    assert order == list("abcdefg")


@pytest.mark.parametrize("depth", [1, 5])
def test_run_that_waits_for_runs_does_not_keep_them_from_being_run(depth: int) -> None:
    @task
    def nest(left: int) -> int:
        return 0 if left == 0 else 1 + nest.delay(left - 1).result(LONG)

    @task
    async def nest_async(left: int) -> int:
        return 0 if left == 0 else 1 + await nest_async.delay(left - 1)

    with serving(nest, nest_async, limit=1):
        assert nest.delay(depth).result(LONG) == depth
        assert nest_async.delay(depth).result(LONG) == depth


def test_async_task_that_would_stop_the_loop_of_the_worker_is_told_what_to_write() -> None:
    @task
    async def blocking() -> int:
        return double.delay(1).result()

    with serving(blocking), pytest.raises(UsageError, match="await future"):
        blocking.delay().result(LONG)


def test_retries_time_limits_hooks_and_the_cache_hold_in_background(rows: Rows) -> None:
    calls: list[str] = []

    @task(retries=2, on_completion=[lambda *_: calls.append("hook")])
    def flaky() -> str:
        calls.append("flaky")
        if calls.count("flaky") < 3:
            raise ValueError("not yet")
        return "done"

    @task(timeout_seconds=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    @task(cache_policy=INPUTS)
    def cached(number: int) -> int:
        calls.append("cached")
        return number

    with serving(flaky, slow, cached):
        assert flaky.delay().result(LONG) == "done"
        assert cached.delay(1).result(LONG) == cached.delay(1).result(LONG) == 1
        with pytest.raises(TimeoutError):
            slow.delay().result(LONG)
    assert calls == ["flaky", "flaky", "flaky", "hook", "cached"]
    assert rows("SELECT state, state_name FROM runs ORDER BY id")[-1] == ("FAILED", "TimedOut")


def test_task_under_a_new_key_still_takes_what_was_put_under_the_old_one() -> None:
    @task(key="old")
    def before(number: int) -> int:
        raise AssertionError("not served")

    @task(key="new", aliases=["old"])
    def after(number: int) -> int:
        return number + 1

    future = before.delay(1)
    with serving(after):
        assert future.result(LONG) == 2


def test_task_that_leaves_by_sys_exit_is_not_begun_again_by_the_same_worker(rows: Rows) -> None:
    ran: list[int] = []

    @task
    def leave() -> None:
        ran.append(1)
        raise SystemExit(3)

    leave.delay()
    with serving(leave, double):
        for number in range(20):
            double.delay(number).result(LONG)
    assert ran == [1]
    assert rows.state(1) == ("CRASHED", "Crashed")


# ------------------------------------------------------------------------------------------- runs that need other runs


def test_results_of_background_runs_are_put_in_the_place_of_their_futures() -> None:
    first = double.delay(1)
    whole = echo.delay({"list": [first, 5], "tuple": (first,), "plain": "text"})
    last = echo.delay([whole])
    with serving(double, echo, limit=1):
        assert last.result(LONG) == [{"list": [2, 5], "tuple": (2,), "plain": "text"}]


def test_run_fails_with_what_it_needs_and_its_task_is_not_run(rows: Rows) -> None:
    ran: list[object] = []

    @task
    def fail() -> int:
        raise LookupError("no")

    @task
    def use(value: object = None) -> None:
        ran.append(value)

    failed = fail.delay()
    by_argument, by_order = use.delay([failed]), use.apply_async(wait_for=[failed])
    with serving(fail, use):
        for future in (by_argument, by_order):
            with pytest.raises(LookupError, match="no"):
                future.result(LONG)
    assert ran == []


def test_run_is_not_taken_up_before_what_it_waits_for_has_ended() -> None:
    order: list[str] = []

    @task
    def early() -> None:
        order.append("early")

    @task
    def late() -> None:
        order.append("late")

    first = early.delay()
    second = late.apply_async(wait_for=[first])
    third = late.apply_async(dependencies={"first": [first]})
    with serving(late):
        echo.delay(1)
        assert not second.wait(0.05)  # nobody serves what it waits for
        with serving(early):
            second.result(LONG)
            third.result(LONG)
    assert order == ["early", "late", "late"]


def test_queued_run_cannot_be_resumed_before_what_it_waits_for(journal: Journal) -> None:
    from wfengine.recovery import resume_run

    second = double.delay(double.delay(1))
    with pytest.raises(UsageError, match="waits for flow run 1"):
        resume_run(journal, second.flow_run_id)
    assert resume_run(journal, 1).result() == 2
    assert resume_run(journal, second.flow_run_id).result() == 4


def test_failure_that_is_allowed_is_given_to_the_task_in_the_place_of_the_result() -> None:
    @task
    def fail() -> int:
        raise LookupError("no")

    failed, good = fail.delay(), double.delay(1)
    allowed = echo.delay(allow_failure([failed, good]))
    waits = double.apply_async((4,), wait_for=[allow_failure(failed), good])
    with serving(fail, double, echo):
        error, two = allowed.result(LONG)  # type: ignore[misc]
        assert waits.result(LONG) == 8
    assert (type(error), two) == (LookupError, 2)


def test_future_inside_a_dataclass_is_waited_for_where_the_task_is_put_into_its_queue(rows: Rows) -> None:
    with serving(double, echo):
        future = echo.delay(Order(double.delay(4), datetime(2026, 1, 1, tzinfo=UTC)))  # type: ignore[arg-type]
        assert rows.value("SELECT count(*) FROM dependency") == 0
        assert future.result(LONG) == Order(8, datetime(2026, 1, 1, tzinfo=UTC))


def test_run_of_another_journal_is_refused_as_an_argument(tmp_path: Path) -> None:
    future = double.delay(1)
    use_journal(tmp_path / "other.db")
    with pytest.raises(UsageError, match="whose workers cannot see it"):
        double.delay(future)


def test_text_that_looks_like_a_stored_future_is_refused_beside_futures_only() -> None:
    assert echo.delay("$background_run:1").flow_run_id == 1
    with pytest.raises(ParameterError, match="stored in that form"):
        echo.delay(["$background_run:1", double.delay(1)])


# ------------------------------------------------------------------------------------------- in a flow


def test_delay_in_a_flow_is_given_the_same_run_when_the_flow_is_resumed(rows: Rows) -> None:
    seen: list[list[int]] = []

    @flow
    def order() -> list[int]:
        futures = [double.delay(1), double.delay(1), double.delay(2)]
        seen.append([future.task_run_id for future in futures])
        if len(seen) == 1:
            raise KeyboardInterrupt
        return seen[-1]

    with pytest.raises(KeyboardInterrupt):
        order()
    assert order.resume(1) == seen[0] == seen[1]
    assert len(set(seen[0])) == 3
    assert rows.value("SELECT count(*) FROM runs WHERE flow = 'double'") == 3
    assert rows("SELECT task, inputs FROM tasks WHERE run_id = 1 ORDER BY id") == [
        ("double.delay", '{"number":1}'),
        ("double.delay", '{"number":1}'),
        ("double.delay", '{"number":2}'),
    ]


def test_delay_with_other_arguments_in_a_resumed_flow_is_drift_and_puts_nothing_into_the_queue(rows: Rows) -> None:
    numbers = iter([1, 2])

    @flow
    def order() -> None:
        double.delay(next(numbers))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        order()
    with pytest.raises(DriftError, match=r"double\.delay"):
        order.resume(1)
    assert rows.value("SELECT count(*) FROM runs WHERE flow = 'double'") == 1


def test_delay_in_a_task_and_in_an_async_flow_and_with_results_of_submitted_tasks(rows: Rows) -> None:
    @task
    def inner(number: int) -> int:
        return double.delay(number).result(LONG)

    @flow
    async def outer() -> list[object]:
        submitted = double.submit(10)
        background = echo.delay([submitted, double(3)])
        return [inner(1), await background, await double.delay(5)]

    with serving(double, echo):
        assert asyncio.run(outer()) == [2, [20, 6], 10]


def test_future_of_a_background_run_is_an_argument_and_a_result_like_any_other(rows: Rows) -> None:
    @flow
    def pipeline() -> object:
        background = double.delay(1)
        assert double(background) == 4
        assert double.submit(background).result() == 4
        assert double.map([background, 3]).result() == [4, 6]
        local = double.submit(5)
        assert set(as_completed([background, local])) == {background, local}
        assert wait([background, local]).not_done == set()
        return double.delay(background)

    with serving(double):
        assert pipeline() == 4


def test_flow_that_is_drawn_puts_nothing_into_the_queue(rows: Rows) -> None:
    @flow
    def order() -> None:
        echo.delay(double.delay(1))

    drawn = order.generate_mermaid_graph()
    assert "double" in drawn
    assert "-->" in drawn
    assert rows.value("SELECT count(*) FROM runs") == 0


def test_delay_in_a_thread_of_the_user_s_own_is_a_run_of_its_own(rows: Rows) -> None:
    futures: list[PrefectDistributedFuture[int]] = []

    @flow
    def threaded() -> None:
        thread = threading.Thread(target=lambda: futures.append(double.delay(1)))
        thread.start()
        thread.join()

    threaded()
    assert rows.value("SELECT count(*) FROM runs WHERE flow = 'double'") == 1
    assert rows.value("SELECT count(*) FROM tasks WHERE run_id = 1") == 0


# ------------------------------------------------------------------------------------------- the future


def test_future_is_made_anew_from_the_id_of_its_task_run_and_from_a_pickle() -> None:
    future = double.delay(4)
    anew: PrefectDistributedFuture[int] = PrefectDistributedFuture(future.task_run_id)
    copied = pickle.loads(pickle.dumps(future))
    assert future == anew == copied
    assert len({future, anew, copied}) == 1
    with serving(double):
        assert anew.result(LONG) == copied.result(LONG) == 8


def test_future_of_a_task_run_that_is_not_there_says_so() -> None:
    with pytest.raises(NotFoundError, match="There is no task run 99"):
        PrefectDistributedFuture(99).wait()


def test_wait_that_comes_to_its_end_says_what_the_run_is_doing_and_who_would_run_it() -> None:
    future = double.delay(1)
    with pytest.raises(TimeoutError, match=r"it is Scheduled\. Is a process serving its task"):
        future.result(timeout=0.01)

    async def ask() -> None:
        await future.wait_async(0.01)
        with pytest.raises(TimeoutError, match="Scheduled"):
            await future.result_async(timeout=0.01)

    asyncio.run(ask())


def test_callback_is_called_once_after_the_end_and_at_once_when_it_has_ended() -> None:
    told: list[object] = []
    called = threading.Event()

    def tell(future: object) -> None:
        told.append(future)
        called.set()

    future = double.delay(1)
    future.add_done_callback(tell)
    assert told == []
    with serving(double):
        assert called.wait(LONG)
    future.add_done_callback(tell)
    assert told == [future, future]


def test_who_waits_when_the_journal_is_closed_gets_an_error_and_does_not_hang(journal: Journal) -> None:
    future = double.delay(1)
    waiting, problems = threading.Event(), []

    def body() -> None:
        waiting.set()
        try:
            future.result()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    waiting.wait(LONG)
    journal.close()
    thread.join(LONG)
    assert "was closed" in str(problems[0])


def test_run_that_waits_for_its_own_end_is_told_so() -> None:
    @task
    def wait_for(task_run_id: int) -> object:
        return PrefectDistributedFuture(task_run_id).result()

    with serving(wait_for), pytest.raises(UsageError, match="waits for its own end"):
        wait_for.delay(1).result(LONG)


# ------------------------------------------------------------------------------------------- serve


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (lambda: serve(), "no tasks to serve"),
        (lambda: serve(len), "takes tasks"),
        (lambda: serve(double, double.with_options(name="other")), "have the key 'double'"),
        (lambda: serve(double, limit=0), "limit must be"),
        (lambda: serve(double, status_server_port=8080), "nothing of wfengine listens"),
    ],
    ids=["none", "a function", "two of one key", "limit", "status server"],
)
def test_serve_refuses_what_makes_no_sense(start: Callable[[], object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        start()


def test_serve_in_a_flow_is_refused() -> None:
    @flow
    def endless() -> None:
        double.serve()

    with pytest.raises(UsageError, match="process of its own"):
        endless()


def test_serve_with_a_timeout_ends_by_itself_and_runs_what_waits() -> None:
    future = double.delay(2)
    assert double.serve(timeout=2) is None
    assert future.result() == 4


def test_serve_in_an_event_loop_is_awaited_and_stops_when_it_is_cancelled() -> None:
    async def work() -> int:
        serving = asyncio.ensure_future(aserve(double))
        result = await double.delay(21)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        coroutine = serve(double, timeout=0.01)
        assert asyncio.iscoroutine(coroutine)
        await coroutine
        return result

    assert asyncio.run(work()) == 42


def test_every_run_is_executed_once_however_many_workers_there_are(rows: Rows) -> None:
    ran: list[int] = []

    @task
    def count(number: int) -> int:
        ran.append(number)
        return number

    futures = [count.delay(number) for number in range(60)]
    with serving(count, limit=3), serving(count, limit=3), serving(count, limit=3):
        assert [future.result(LONG) for future in futures] == list(range(60))
    assert sorted(ran) == list(range(60))
    assert rows.value("SELECT count(*) FROM runs WHERE state = 'COMPLETED' AND attempt = 1") == 60
