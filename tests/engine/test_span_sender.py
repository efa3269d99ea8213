"""The process that sends spans: it takes no time from a task, outlives a killed run, and may die without a run noticing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.engine.conftest import FakeClock, Program
from tests.engine.test_counts import CASES, FEW, MANY, WHAT_TO_DO, measured, run, still
from tests.engine.test_tracing import named, traced
from tests.otlp import Receiver
from wfengine.listeners import add_listener
from wfengine.listeners.spans import Notes
from wfengine.listeners.tracing import Tracer, stop_tracing
from wfengine_journal.store import Journal

__all__ = ["still"]

#: How many Python functions a traced task enters more than one that is not: one at each of its commits, and for an outcome the
#: clock's, which is the test's own here. What it takes to wake the thread is shared by all tasks of the case.
MORE_CALLS = {"a task": 4.5, "an async task": 4.5, "a task that fails once": 9.5}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


class Nowhere:
    """Takes what ended, and makes nothing of it; not before it may, so that its thread is woken once and not again."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.may = threading.Event()

    def send(self, notes: Notes) -> None:
        assert self.may.wait(60)
        self.ended += [note[1] for note in notes[1] if note[4]]

    def close(self) -> None: ...

    def kill(self) -> None: ...


@pytest.mark.parametrize("what", MORE_CALLS)
def test_a_traced_task_costs_a_few_calls_more_and_neither_a_statement_nor_a_commit(
    still: Journal, clock: FakeClock, what: str
) -> None:
    work = run(CASES[what].work, "process")
    bare, _ = measured(still, work, FEW, MANY)
    nowhere = Nowhere()
    tracer = Tracer(still, nowhere)
    add_listener(tracer, of_tasks=False)
    try:
        traced_one, _ = measured(still, work, FEW, MANY)
    finally:
        nowhere.may.set()
        stop_tracing(tracer)
    after, _ = measured(still, work, FEW, MANY)
    assert traced_one.calls - bare.calls <= MORE_CALLS[what], WHAT_TO_DO
    assert traced_one.statements == bare.statements
    assert (traced_one.commits, traced_one.threads) == (bare.commits, bare.threads)
    assert after.calls <= bare.calls + 0.5, "what was switched off still costs something"
    assert len(set(nowhere.ended)) >= FEW + MANY


TOLD = """
    import os, signal
    from wfengine import flow, task
    from wfengine.listeners import OF_FLOW_RUNS
    from threading import Event

    @task
    def step(name): ...

    def wait_until(condition):
        for _ in range(6000):
            if condition():
                return
            Event().wait(0.01)
        raise SystemExit("it never came")

    def tracer():
        return OF_FLOW_RUNS[0]
"""


def test_what_a_process_had_told_of_is_sent_though_it_is_killed(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write(f"""{TOLD}
    @flow
    def etl():
        for name in ("first", "second"):
            step.with_options(name=name)(name)
            wait_until(lambda: not tracer()._tasks)  # with the second, the first was answered
        os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        etl()
    """)
    program.environment["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    program.run_and_be_killed()
    assert receiver.wait_for("task first").end_time_unix_nano > 0


def test_the_death_of_the_process_that_sends_spans_stops_no_run_and_another_takes_its_place(
    program: Program, receiver: Receiver
) -> None:
    traced(program, receiver).write(f"""{TOLD}
    def tick():
        step("tick")
        return True

    @flow
    def etl():
        step("first")
        wait_until(lambda: tracer()._outlet._process is not None)
        tracer()._outlet._process.kill()
        wait_until(lambda: tick() and tracer()._outlet._starts == 2)
        return 7

    if __name__ == "__main__":
        print(etl())
    """)
    done = program.run()
    assert (done.code, done.out.strip()) == (0, "7"), done
    assert "The process that sends spans ended with -9; another one takes its place." in done.err
    assert len(named(receiver, "flow etl")) == 1
    ids = [span.span_id for span in receiver.spans]
    assert len(set(ids)) == len(ids)


def test_tasks_out_of_the_cache_and_in_a_transaction_have_their_spans_too(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow, task
        from wfengine.cache_policies import INPUTS
        from wfengine.sql import Connection

        @task(cache_policy=INPUTS)
        def cached(number):
            return number

        @task(transaction=True)
        def stored(*, connection: Connection) -> None:
            connection.execute("CREATE TABLE IF NOT EXISTS user_seen (number INTEGER)")

        @flow
        def etl():
            return [cached(1), cached(1), stored()]

        if __name__ == "__main__":
            etl()
    """)
    done = program.run()
    assert done.code == 0, done
    assert len(named(receiver, "task cached")) == 2
    assert len(named(receiver, "attempt 1 of cached")) == 1
    assert len(named(receiver, "task stored")) == len(named(receiver, "attempt 1 of stored")) == 1
    assert len(named(receiver, "commit")) == 2


def test_nothing_is_started_where_no_run_is_executed(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import use_journal
        from wfengine.listeners import OF_FLOW_RUNS

        use_journal("journal.db")
        print(len(OF_FLOW_RUNS), OF_FLOW_RUNS[0]._outlet._process)
    """)
    assert program.run().out.strip() == "1 None"
