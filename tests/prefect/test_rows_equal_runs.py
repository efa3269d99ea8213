"""After a flow ends, the journal has a row for each task run: no more, no less, whatever the flow looked like.

Prefect without a server kept 10 to 55 of 500. Here flows of random shapes - calls, submits, maps, failures, retries, subflows,
cached calls, nested in each other - count what they do, and the rows are compared with that.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tests.prefect.conftest import Rows
from wfengine import flow, task, use_journal
from wfengine.cache_policies import INPUTS
from wfengine_journal import store


@dataclass
class Counts:
    """What really happened, counted where it happened."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    bodies: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    flows: int = 0
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def called(self, number: int = 1) -> None:
        with self.lock:
            self.calls += number

    def ran(self, kind: str) -> None:
        with self.lock:
            self.bodies[kind] += 1


SHAPES = st.recursive(
    st.tuples(st.sampled_from(["call", "submit", "async", "fail", "retry", "cached"]), st.integers(1, 3))
    | st.tuples(st.just("map"), st.integers(0, 5)),
    lambda inner: st.tuples(st.sampled_from(["flow", "task", "submitted"]), st.lists(inner, max_size=4)),
    max_leaves=12,
)


class Program:
    """Performs a shape, and counts."""

    def __init__(self) -> None:
        counts = self.counts = Counts()

        @task
        def plain(number: int) -> int:
            counts.ran("plain")
            return number

        @task
        async def soon(number: int) -> int:
            counts.ran("soon")
            return number

        @task
        def fail(number: int) -> int:
            counts.ran("fail")
            raise ValueError(number)

        attempts: Counter[int] = Counter()

        @task(retries=2)
        def retry(number: int) -> int:
            counts.ran("retry")
            with counts.lock:
                attempts[number] += 1
                if attempts[number] < 3:
                    raise ValueError(number)
            return number

        @task(cache_policy=INPUTS)
        def cached(number: int) -> int:
            counts.ran("cached")
            return number

        @task
        def nested(shapes: list[object], number: int) -> None:
            counts.ran("nested")
            self.perform(shapes)

        @flow
        def child(shapes: list[object], number: int) -> None:
            with counts.lock:
                counts.flows += 1
            self.perform(shapes)

        self.plain, self.soon, self.fail, self.retry = plain, soon, fail, retry
        self.cached, self.nested, self.child = cached, nested, child

    def perform(self, shapes: list[object]) -> None:
        """Make the calls of a shape, in the present flow or task."""
        for kind, what in shapes:  # type: ignore[misc]
            if kind in ("flow", "task", "submitted"):
                self._nest(kind, what)
            else:
                self._call(kind, what)

    def _nest(self, kind: str, inner: list[object]) -> None:
        if kind == "flow":
            self.child(inner, next(self.counts.ids))
            return
        self.counts.called()
        if kind == "task":
            self.nested(inner, next(self.counts.ids))
        else:
            self.nested.submit(inner, next(self.counts.ids)).result()

    def _call(self, kind: str, count: int) -> None:
        self.counts.called(count)
        numbers = [next(self.counts.ids) for _ in range(count)]
        if kind == "map":
            self.plain.map(numbers)  # nobody waits for these but the flow's end
        for number in numbers if kind != "map" else ():
            if kind == "submit":
                self.plain.submit(number)
            elif kind == "async":
                self.soon.submit(number)
            elif kind == "fail":
                assert self.fail(number, return_state=True).is_failed()
            elif kind == "cached":
                self.cached(7)
            else:
                getattr(self, {"call": "plain"}.get(kind, kind))(number)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(shapes=st.lists(SHAPES, max_size=5), fails=st.booleans())
def test_rows_are_as_many_as_task_runs(rows: Rows, tmp_path: object, shapes: list[object], fails: bool) -> None:
    store.close_all()
    for file in tmp_path.glob("journal.db*"):  # type: ignore[attr-defined]
        file.unlink()
    use_journal(tmp_path / "journal.db")  # type: ignore[operator]
    program = Program()

    @flow
    def top() -> None:
        program.perform(shapes)
        if fails:
            raise RuntimeError("the end")

    state = top(return_state=True)

    counts = program.counts
    assert state.is_failed() == fails
    assert rows("SELECT count(*) FROM tasks") == [(counts.calls,)]
    assert rows("SELECT count(*) FROM runs") == [(counts.flows + 1,)]
    assert rows("SELECT count(*) FROM attempts WHERE task NOT IN ('child')") == [
        (sum(counts.bodies.values()) + _answered_from_the_cache(rows),)
    ]
    assert rows("SELECT count(*) FROM tasks WHERE state NOT IN ('COMPLETED', 'FAILED')") == [(0,)]


def _answered_from_the_cache(rows: Rows) -> int:
    """Return the attempts that ran no body."""
    sql = "SELECT count(*) FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE t.state_name = 'Cached'"
    return int(str(rows(sql)[0][0]))


@pytest.mark.parametrize("number", [1, 500])
def test_five_hundred_tasks_are_five_hundred_rows(rows: Rows, number: int) -> None:
    done: list[int] = []

    @task
    def work(item: int) -> int:
        done.append(item)
        return item

    @task
    async def work_async(item: int) -> int:
        done.append(item)
        return item

    @flow
    def mapped() -> None:
        work.map(range(number))

    @flow
    def one_by_one() -> None:
        for item in range(number):
            work(item)

    @flow
    async def gathered() -> None:
        await asyncio.gather(*(work_async(item) for item in range(number)))

    mapped()
    one_by_one()
    asyncio.run(gathered())

    assert len(done) == 3 * number
    assert rows("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == [(3 * number,)]
