"""Limits: never more inside than may be, over threads, event loops and processes; whoever waits goes on at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import State, ThreadTaskRunner, cancel, flow, task
from wfengine.cache_policies import INPUTS
from wfengine.concurrency import Limit, find_limit, list_limits, remove_limit, set_limit
from wfengine.concurrency import asyncio as in_loop
from wfengine.concurrency.limits import put_change
from wfengine.concurrency.sync import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
    rate_limit,
)
from wfengine.tag_limits import BELIEVED_SECONDS
from wfengine_journal import store
from wfengine_journal.errors import TaskTimeoutError, UsageError

CHILD = Path(__file__).with_name("limits_child.py")
#: Seconds after which a wait that should end counts as hanging.
LONG = 60.0


class Inside:
    """Counts who is inside at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.entered: list[object] = []

    def enter(self, who: object = None) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.entered.append(who)

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


class Children:
    """Processes that use the test's journal, and the lines that they write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(self._folder / "journal.db"), str(self._folder), *map(str, arguments)],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(child)
        return child

    @property
    def lines(self) -> list[list[str]]:
        file = self._folder / "lines"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def await_line(self, journal: store.Journal, word: str) -> None:
        for _ in range(int(LONG / 0.02)):
            if any(line[0] == word for line in self.lines):
                return
            journal.changes.wait(journal.changes.mark(), 0.02)
        raise AssertionError(f"nobody wrote {word!r}")

    def end(self, child: subprocess.Popen[str]) -> None:
        _, errors = child.communicate(timeout=LONG)
        assert child.returncode == 0, errors


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    found = Children(tmp_path)
    yield found
    for child in found.started:
        child.kill()
        child.communicate()


def most_inside(lines: list[list[str]]) -> int:
    """Return how many were inside at a time, by the order in which they wrote."""
    now = most = 0
    for word, _ in lines:
        now += {"enter": 1, "leave": -1}[word]
        most = max(most, now)
    return most


# ---------------------------------------------------------------------------------------------------- at a time


def test_never_more_threads_inside_than_there_are_places_and_all_come_in(rows: Rows) -> None:
    set_limit("tool", slots=3)
    inside = Inside()

    @task
    def use(number: int) -> None:
        with concurrency("tool"):
            inside.enter(number)
            threading.Event().wait(0.002)
            inside.leave()

    @flow(task_runner=ThreadTaskRunner(max_workers=8))
    def main() -> None:
        use.map(range(40)).result()

    main()
    assert inside.most <= 3
    assert sorted(map(str, inside.entered)) == sorted(map(str, range(40)))
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_never_more_coroutines_inside_than_there_are_places_and_they_come_in_their_order() -> None:
    set_limit("tool", slots=2)
    inside = Inside()

    async def use(number: int) -> None:
        async with in_loop.concurrency("tool"):
            inside.enter(number)
            await asyncio.sleep(0.001)
            inside.leave()

    @flow
    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(30)))

    asyncio.run(main())
    assert inside.most == 2
    assert inside.entered == list(range(30))


def test_places_are_held_by_a_process_outside_of_any_run(rows: Rows) -> None:
    set_limit("tool", slots=2)
    inside = Inside()

    def use(_: int) -> None:
        with concurrency("tool"):
            inside.enter()
            assert rows("SELECT count(*) FROM slot WHERE flow_run_id = 0 AND occupies = 1") in [[(1,)], [(2,)]]
            inside.leave()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(30)))
    assert inside.most <= 2
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_a_name_without_a_limit_lets_everybody_in_unless_it_is_asked_to_be_strict(rows: Rows) -> None:
    with concurrency("nothing"), concurrency(["nothing", "less"]):
        rate_limit("nothing")
    with pytest.raises(ConcurrencySlotAcquisitionError, match="wfengine limits set nothing --slots"):
        concurrency("nothing", strict=True).__enter__()
    with pytest.raises(ConcurrencySlotAcquisitionError, match="--rate 10/s"):
        rate_limit("nothing", strict=True)
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_a_wait_that_is_too_long_ends_with_an_error_that_is_a_timeout_error() -> None:
    set_limit("tool", slots=1)
    caught: list[BaseException] = []

    @task
    def use() -> None:
        with concurrency("tool", timeout_seconds=0):
            pass

    @flow
    def main() -> None:
        with concurrency("tool"):
            caught.extend(future.result(raise_on_failure=False) for future in (use.submit(), use.submit()))

    main()
    assert [type(error) for error in caught] == [AcquireConcurrencySlotTimeoutError] * 2
    assert isinstance(caught[0], TimeoutError)
    assert "wfengine limits show tool" in str(caught[0])


def test_a_wait_in_line_ends_when_its_time_is_over_and_lets_the_others_pass(rows: Rows) -> None:
    set_limit("tool", slots=1)

    async def late() -> str:
        try:
            async with in_loop.concurrency("tool", timeout_seconds=0.05):
                return "inside"
        except AcquireConcurrencySlotTimeoutError:
            return "late"

    async def patient(go: asyncio.Event) -> str:
        async with in_loop.concurrency("tool"):
            return "inside"

    @flow
    async def main() -> list[str]:
        go = asyncio.Event()
        async with in_loop.concurrency("tool"):
            waiting = [asyncio.create_task(one) for one in (late(), late(), patient(go))]
            found = [await waiting[0], await waiting[1]]
        return [*found, await waiting[2]]

    assert asyncio.run(main()) == ["late", "late", "inside"]
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_several_names_are_taken_together_or_not_at_all(rows: Rows) -> None:
    set_limit("a", slots=1)
    set_limit("b", slots=1)
    order = [["a", "b"], ["b", "a"]]

    @task
    def use(number: int) -> None:
        with concurrency(order[number % 2]):
            pass

    @flow(task_runner=ThreadTaskRunner(max_workers=6))
    def main() -> None:
        use.map(range(30)).result()

    main()
    with concurrency("a"), pytest.raises(AcquireConcurrencySlotTimeoutError):
        _in_thread(lambda: concurrency(["b", "a"], timeout_seconds=0).__enter__())
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def _in_thread(work: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()  # type: ignore[arg-type]


def test_a_holder_may_take_several_places_and_more_than_there_are_is_refused() -> None:
    set_limit("tool", slots=3)
    with concurrency("tool", occupy=2):
        with pytest.raises(AcquireConcurrencySlotTimeoutError):
            _in_thread(lambda: concurrency("tool", occupy=2, timeout_seconds=0).__enter__())
        _in_thread(lambda: _through("tool"))
    with pytest.raises(ConcurrencySlotAcquisitionError, match="which has 3"):
        concurrency("tool", occupy=4).__enter__()


def _through(name: str) -> None:
    with concurrency(name, timeout_seconds=LONG):
        pass


def test_one_who_needs_many_places_is_not_passed_by_those_who_need_few() -> None:
    set_limit("tool", slots=2)
    entered: list[str] = []

    async def use(who: str, occupy: int) -> None:
        async with in_loop.concurrency("tool", occupy=occupy):
            entered.append(who)
            await asyncio.sleep(0.001)

    @flow
    async def main() -> None:
        async with in_loop.concurrency("tool"):
            many = asyncio.create_task(use("many", 2))
            few = [asyncio.create_task(use("few", 1)) for _ in range(5)]
            await asyncio.sleep(0.02)
        await asyncio.gather(many, *few)

    asyncio.run(main())
    assert entered[0] == "many"


def test_a_block_inside_a_block_of_the_same_name_takes_no_second_place() -> None:
    set_limit("tool", slots=1)

    @task
    def use() -> str:
        with concurrency("tool", timeout_seconds=0):
            return "inside"

    @flow
    def main() -> list[str]:
        with concurrency("tool"), concurrency("tool", timeout_seconds=0):
            first = use()
        return [first, use()]

    assert main() == ["inside", "inside"]


def test_a_limit_that_is_raised_lets_in_who_waits_and_one_that_is_removed_everybody() -> None:
    set_limit("tool", slots=0)

    async def use() -> str:
        async with in_loop.concurrency("tool", timeout_seconds=LONG):
            await asyncio.sleep(0)
            return "inside"

    @flow
    async def main() -> list[str]:
        waiting = [asyncio.create_task(use()) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert not any(one.done() for one in waiting)
        set_limit("tool", slots=1)
        found = [await one for one in waiting]
        set_limit("tool", slots=0)
        last = asyncio.create_task(use())
        await asyncio.sleep(0.02)
        remove_limit("tool")
        return [*found, await last]

    assert asyncio.run(main()) == ["inside"] * 4


def test_a_run_that_waits_for_a_place_can_be_cancelled_and_keeps_nobody_waiting(rows: Rows) -> None:
    set_limit("tool", slots=1)
    state: list[object] = []

    @flow
    def waiting() -> None:
        with concurrency("tool"):
            raise AssertionError("it came in")

    def start() -> None:
        state.append(waiting(return_state=True))

    with concurrency("tool"):
        thread = threading.Thread(target=start)
        thread.start()
        for _ in range(int(LONG / 0.01)):
            if rows("SELECT 1 FROM slot WHERE occupies = 0"):
                break
            threading.Event().wait(0.01)
        cancel(1)
        thread.join(LONG)
    assert not thread.is_alive()
    assert isinstance(state[0], State)
    assert state[0].is_cancelled()
    _through("tool")
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_a_task_that_waits_longer_than_its_own_time_limit_times_out_and_leaves_the_line(rows: Rows) -> None:
    set_limit("tool", slots=1)

    @task(timeout_seconds=0.1)
    def use() -> None:
        with concurrency("tool"):
            raise AssertionError("it came in")

    @flow
    def main() -> str:
        with concurrency("tool"):
            error = use.submit().result(raise_on_failure=False)
        with concurrency("tool", timeout_seconds=LONG):
            return type(error).__name__

    assert main() == TaskTimeoutError.__name__


def test_what_a_timed_out_attempt_holds_does_not_keep_its_next_attempt_out() -> None:
    set_limit("tool", slots=1)
    attempts: list[int] = []
    never = threading.Event()

    @task(timeout_seconds=1.0, retries=1)
    def use() -> str:
        with concurrency("tool"):
            attempts.append(1)
            if len(attempts) == 1:
                never.wait(LONG)
            return "done"

    @flow
    def main() -> str:
        return use()

    assert main() == "done"
    never.set()


def test_a_body_that_runs_again_takes_its_places_again_and_counts_its_starts_once(clock: FakeClock, rows: Rows) -> None:
    set_limit("tool", slots=1)
    set_limit("api", rate="1/h")
    fails = [False, True]

    @flow(retries=1)
    def main() -> str:
        rate_limit("api", timeout_seconds=0)
        with concurrency("tool", timeout_seconds=0):
            if fails.pop():
                raise ValueError("cut")
            return "done"

    assert main() == "done"
    assert rows("SELECT rate_level FROM quota WHERE name = 'api'") == [(1.0,)]
    assert sum(clock.slept) < 60


def test_a_run_that_was_killed_inside_takes_its_place_again_and_counts_its_start_once(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.concurrency import set_limit
        from wfengine.concurrency.sync import concurrency, rate_limit

        @task
        def use():
            note("used")

        @flow
        def main():
            rate_limit("api", timeout_seconds=0)
            with concurrency("tool", timeout_seconds=0):
                use()
                if first_time():
                    kill()
            return "done"

        if __name__ == "__main__":
            set_limit("tool", slots=1)
            set_limit("api", rate="1/h")
            main()
    """)
    program.run_and_be_killed()
    assert program.resume()["result"] == "'done'"
    assert program.effects == ["used"]
    assert rows("SELECT rate_level FROM quota WHERE name = 'api'") == [(1.0,)]
    assert rows("SELECT count(*) FROM slot") == [(0,)]


def test_nonsense_is_refused_in_words(rows: Rows) -> None:
    for names in ("", "tag:x", "queue:x", "cache:x", 5, ["a", None], "a" * 300, "a\nb"):
        with pytest.raises(UsageError, match="cannot name a limit"):
            concurrency(names).__enter__()  # type: ignore[arg-type]
    for occupy in (0, -1, True, 1.5, "2", 10**9):
        with pytest.raises(UsageError, match="occupy must be"):
            concurrency("a", occupy=occupy).__enter__()  # type: ignore[arg-type]
    for seconds in (-1, "2", True, float("nan")):
        with pytest.raises(UsageError, match="timeout_seconds must be"):
            rate_limit("a", timeout_seconds=seconds)  # type: ignore[arg-type]
    for rate in ("10", "x/s", "0/s", "1/0s", "1/lightyear", "1/9999999d", (1, 2), 5, ("1", timedelta(1))):
        with pytest.raises(UsageError, match="is no rate for 'a'"):
            set_limit("a", rate=rate)  # type: ignore[arg-type]
    for slots in (-1, True, 1.5, "3", 10**9):
        with pytest.raises(UsageError, match="slots of 'a' must be"):
            set_limit("a", slots=slots)  # type: ignore[arg-type]
    assert rows("SELECT count(*) FROM quota") == [(0,)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30) | st.from_regex(r"[0-9]{0,8} ?/ ?[0-9.]{0,8} ?[a-z]{0,7}", fullmatch=True))
def test_any_text_is_a_rate_or_is_refused(journal: store.Journal, rate: str) -> None:
    try:
        found = put_change(journal, "a", "a", rate=rate).rate
    except UsageError as error:
        assert "is no rate" in str(error)  # noqa: PT017 - most texts are refused, some are not
    else:
        assert isinstance(found, tuple)
        assert found[0] >= 1
        assert 0 < found[1] <= 366 * 86400


def test_limits_are_set_read_listed_and_removed() -> None:
    assert set_limit("api", slots=2, rate="5/30s") == Limit("api", 2, (5, timedelta(seconds=30)), False, False, None)
    assert set_limit("api", slots=None, description="theirs").rate == (5, timedelta(seconds=30))
    assert set_limit("db", slots=1, tag=True).is_tag
    assert find_limit("db") is None
    assert [(limit.name, limit.is_tag, limit.slots) for limit in list_limits()] == [("api", False, None), ("db", True, 1)]
    assert (remove_limit("db", tag=True), remove_limit("db", tag=True), remove_limit("api")) == (True, False, True)
    assert list_limits() == []


def test_a_limit_of_the_other_kind_says_what_to_set() -> None:
    set_limit("places", slots=1)
    set_limit("rate", rate="1/s")
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"has no rate\. Set it: wfengine limits set places --rate"):
        rate_limit("places")
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"has no places\. Set it: wfengine limits set rate --slots"):
        concurrency("rate").__enter__()


# ---------------------------------------------------------------------------------------------------- in a time


def test_starts_are_spread_exactly_by_the_rate(clock: FakeClock) -> None:
    set_limit("api", rate="10/s")
    starts: list[float] = []

    @task
    def call() -> None:
        rate_limit("api")
        starts.append(clock.now)

    @flow
    def main() -> None:
        for _ in range(30):
            call()

    begun = clock.now
    main()
    assert [start - begun for start in starts] == pytest.approx([0.0] * 10 + [n / 10 for n in range(1, 21)], abs=1e-4)


def test_starts_are_spread_in_an_event_loop_in_the_order_in_which_they_were_asked_for(clock: FakeClock) -> None:
    set_limit("api", rate="1/min")
    starts: list[tuple[int, float]] = []
    begun = clock.now

    async def call(number: int) -> None:
        await in_loop.rate_limit("api")
        starts.append((number, round(clock.now - begun, 3)))

    @flow
    async def main() -> None:
        await asyncio.gather(*(call(number) for number in range(4)))

    asyncio.run(main())
    assert starts == [(0, 0.0), (1, 60.0), (2, 120.0), (3, 180.0)]


def test_a_rate_that_does_not_let_in_within_the_time_counts_nothing(clock: FakeClock, rows: Rows) -> None:
    set_limit("api", rate="1/min")
    rate_limit("api")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("api", timeout_seconds=10)
    assert sum(clock.slept) == pytest.approx(10)
    rate_limit("api", timeout_seconds=50.001)
    assert sum(clock.slept) == pytest.approx(60, abs=0.001)


# ---------------------------------------------------------------------------------------------------- tags


def test_never_more_task_runs_with_a_tag_are_running_than_its_limit(rows: Rows) -> None:
    set_limit("db", slots=2, tag=True)
    inside = Inside()

    @task(tags=["db", "other"])
    def use(number: int) -> int:
        inside.enter()
        threading.Event().wait(0.002)
        inside.leave()
        return number

    @flow(task_runner=ThreadTaskRunner(max_workers=6))
    def main() -> list[int]:
        return use.map(range(30)).result()

    assert main() == list(range(30))
    assert inside.most <= 2
    assert rows("SELECT DISTINCT state FROM task_run") == [("COMPLETED",)]
    waited = rows("SELECT message FROM transition WHERE state_name = 'AwaitingConcurrencySlot'")
    assert waited
    assert set(waited) == {("waits for a place of tag db",)}
    assert rows("SELECT taken FROM limits") == [(0,)]


def test_async_tasks_with_a_tag_wait_for_their_places_in_their_order() -> None:
    set_limit("db", slots=1, tag=True)
    order: list[int] = []

    @task(tags=["db"])
    async def use(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0.001)

    @flow
    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(20)))

    asyncio.run(main())
    assert order == list(range(20))


def test_a_task_that_calls_one_with_the_same_tag_does_not_wait_for_itself() -> None:
    set_limit("db", slots=1, tag=True)

    @task(tags=["db"])
    def inner(number: int) -> int:
        return number

    @task(tags=["db"])
    def outer(number: int) -> list[int]:
        return [inner(number), *inner.map([number, number]).result()]

    @flow(task_runner=ThreadTaskRunner(max_workers=4))
    def main() -> list[list[int]]:
        return outer.map([1, 2, 3]).result()

    assert main() == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_a_place_is_free_between_two_attempts_and_after_a_failure(rows: Rows) -> None:
    set_limit("db", slots=1, tag=True)
    attempts: list[int] = []

    @task(tags=["db"], retries=2)
    def flaky() -> None:
        attempts.append(1)
        raise ValueError("no")

    @task(tags=["db"])
    def other() -> str:
        return "done"

    @flow
    def main() -> str:
        flaky(return_state=True)
        return other()

    assert main() == "done"
    assert len(attempts) == 3
    assert rows("SELECT taken FROM limits") == [(0,)]


def test_cached_tasks_with_a_tag_take_their_place_too() -> None:
    set_limit("db", slots=1, tag=True)
    inside = Inside()

    @task(tags=["db"], cache_policy=INPUTS)
    def use(number: int) -> int:
        inside.enter()
        threading.Event().wait(0.002)
        inside.leave()
        return number

    @flow(task_runner=ThreadTaskRunner(max_workers=4))
    def main() -> list[int]:
        return [*use.map([1, 2, 3, 4]).result(), *use.map([1, 2, 3, 4]).result()]

    assert main() == [1, 2, 3, 4] * 2
    assert inside.most == 1
    assert len(inside.entered) == 4


def test_a_run_whose_tasks_wait_for_a_tag_can_be_cancelled(rows: Rows) -> None:
    set_limit("db", slots=0, tag=True)
    state: list[object] = []

    @task(tags=["db"])
    def use() -> None:
        raise AssertionError("it began")

    @flow
    def main() -> None:
        use()

    thread = threading.Thread(target=lambda: state.append(main(return_state=True)))
    thread.start()
    for _ in range(int(LONG / 0.01)):
        if rows("SELECT 1 FROM task_run WHERE state_name = 'AwaitingConcurrencySlot'"):
            break
        threading.Event().wait(0.01)
    cancel(1)
    thread.join(LONG)
    assert isinstance(state[0], State)
    assert state[0].is_cancelled()
    assert rows("SELECT count(*) FROM slot") == [(0,)]
    set_limit("db", slots=1, tag=True)


def test_a_task_run_that_waited_for_a_tag_when_its_process_died_runs_when_the_run_is_resumed(
    program: Program, rows: Rows
) -> None:
    program.write("""
        import threading
        from wfengine.concurrency import set_limit

        @task(tags=["db"])
        def use(number):
            note(number)

        @flow
        def main():
            futures = [use.submit(number) for number in range(3)]
            [future.wait() for future in futures]

        if __name__ == "__main__":
            set_limit("db", slots=0, tag=True)

            def kill_when_all_wait():
                import sqlite3
                while True:
                    time.sleep(0.02)
                    found = sqlite3.connect(os.environ["WFENGINE_JOURNAL"]).execute(
                        "SELECT count(*) FROM task_run WHERE state_name = 'AwaitingConcurrencySlot'").fetchone()[0]
                    if found == 3:
                        kill()

            threading.Thread(target=kill_when_all_wait, daemon=True).start()
            main()
    """)
    program.run_and_be_killed()
    journal = store.open_journal(rows.path)
    set_limit("db", slots=1, tag=True)
    journal.close()
    assert program.resume()["state"] == "COMPLETED"
    assert sorted(program.effects) == ["0", "1", "2"]
    assert rows("SELECT DISTINCT state, state_name FROM task_run") == [("COMPLETED", None)]


def test_a_limit_that_another_process_sets_for_a_tag_counts_within_a_second(program: Program, journal: store.Journal) -> None:
    store.open_journal(journal.path)
    inside = Inside()

    @task(tags=["db"])
    def use(number: int) -> None:
        inside.enter()
        threading.Event().wait(0.002)
        inside.leave()

    @flow(task_runner=ThreadTaskRunner(max_workers=4))
    def main() -> int:
        use.map(range(8)).result()
        before = inside.most
        done = program.python("-c", "from wfengine.concurrency import set_limit; set_limit('db', slots=1, tag=True)")
        assert done.code == 0, done
        threading.Event().wait(BELIEVED_SECONDS)
        inside.most = 0
        use.map(range(20, 40)).result()
        return before

    assert main() > 1
    assert inside.most == 1


def test_a_generator_with_a_tag_holds_its_place_until_it_ends(rows: Rows) -> None:
    set_limit("db", slots=1, tag=True)

    @task(tags=["db"])
    def count() -> Iterator[int]:
        yield from range(3)

    @flow
    def main() -> list[int]:
        found = []
        for number in count():
            found.append(number)
            assert rows("SELECT taken FROM limits") == [(1,)]
        return [*found, *count()]

    assert main() == [0, 1, 2, 0, 1, 2]
    assert rows("SELECT taken FROM limits") == [(0,)]


def test_a_plan_takes_no_place_and_counts_no_start(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.concurrency import set_limit
        from wfengine.concurrency.sync import concurrency, rate_limit

        @task
        def use():
            note("used")

        @flow
        def main():
            with concurrency("tool", timeout_seconds=0):
                use()
            rate_limit("api")
            if first_time():
                raise ValueError("no")

        if __name__ == "__main__":
            set_limit("tool", slots=1)
            set_limit("api", rate="1/s")
            main()
    """)
    assert program.run().code == 1
    before = rows("SELECT name, rate_level, rate_at FROM quota")
    planned = program.python("-m", "wfengine", "resume", "@last", "--plan")
    assert "REPLAY 1" in planned.err, planned
    assert rows("SELECT name, rate_level, rate_at FROM quota") == before
    assert program.effects == ["used"]


# ---------------------------------------------------------------------------------------------------- processes


@pytest.mark.long
@pytest.mark.parametrize("what", ["task", "tag"])
@pytest.mark.crash
def test_never_more_inside_over_eight_processes(what: str, children: Children, journal: store.Journal) -> None:
    set_limit("tool", slots=3, tag=what == "tag")
    started = [children.start("sections", 50, what) for _ in range(8)]
    for child in started:
        children.end(child)
    assert len(children.lines) == 800
    assert most_inside(children.lines) <= 3


def test_no_process_that_waits_is_passed_by_one_that_takes_the_place_again_and_again(
    children: Children, journal: store.Journal, rows: Rows
) -> None:
    # How soon a process comes to stand in line is the system's affair; a trigger notes who stands there, and who has the place.
    set_limit("tool", slots=1)
    with contextlib.closing(sqlite3.connect(journal.path)) as connection:
        connection.executescript("""
            CREATE TABLE seen (id INTEGER PRIMARY KEY, owner_id INTEGER, occupies INTEGER);
            CREATE TRIGGER see AFTER INSERT ON slot BEGIN
                INSERT INTO seen (owner_id, occupies) VALUES (NEW.owner_id, NEW.occupies);
            END;
        """)
    with concurrency("tool"):
        started = [children.start("outside", 60) for _ in range(3)]
        for _ in range(int(LONG / 0.02)):
            if rows.value("SELECT count(*) FROM slot WHERE occupies = 0") == len(started):
                break
            journal.changes.wait(journal.changes.mark(), 0.02)
    for child in started:
        children.end(child)
    line: list[object] = []
    taken = waited = 0
    for owner, occupies in rows("SELECT owner_id, occupies FROM seen ORDER BY id"):
        if not occupies:
            line.append(owner)
            continue
        taken += 1
        if line:
            assert line.pop(0) == owner, f"take {taken} passed who stood in line"
            waited += 1
    assert (taken, line) == (181, [])
    assert waited >= len(started)


@pytest.mark.parametrize("what", ["held", "held outside", "tag held"])
def test_the_place_of_a_killed_process_is_free_at_once(what: str, children: Children, journal: store.Journal) -> None:
    set_limit("tool", slots=1, tag=what == "tag held")
    child = children.start(what)
    children.await_line(journal, "inside")

    @task(tags=["tool"] if what == "tag held" else [])
    def use() -> str:
        if what == "tag held":
            return "inside"
        with concurrency("tool", timeout_seconds=LONG):
            return "inside"

    @flow
    def main() -> str:
        future = use.submit()
        threading.Event().wait(0.05)
        assert not future.done()
        child.send_signal(signal.SIGKILL)
        return future.result()

    assert main() == "inside"


@pytest.mark.parametrize("what", ["body", "tag"])
@pytest.mark.crash
def test_killed_at_any_commit_nothing_is_held_afterwards(what: str, children: Children) -> None:
    set_limit("tool", slots=1, tag=what == "tag")

    @task(tags=["tool"] if what == "tag" else [])
    def use() -> str:
        return "inside"

    @flow
    def main() -> str:
        if what == "tag":
            return use()
        with concurrency("tool", timeout_seconds=LONG):
            return "inside"

    for point in range(100):
        child = children.start("killed", point, what)
        child.communicate(timeout=LONG)
        assert main() == "inside"
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    assert point > 6


def test_a_rate_holds_over_processes(children: Children, rows: Rows) -> None:
    set_limit("api", rate="5/60s")
    started = [children.start("rate", 4) for _ in range(3)]  # twelve, where five may start in a minute
    for _ in range(int(LONG / 0.02)):
        if len(children.lines) == 5:
            break
        threading.Event().wait(0.02)
    set_limit("api", rate="5/0.1s")  # who waits counts by the new rate within a second
    for child in started:
        children.end(child)
    assert len(children.lines) == 12
    starts = [str(at) for (at,) in rows("SELECT at FROM item WHERE key LIKE 'rate%' ORDER BY at")]
    assert len(starts) == 12
