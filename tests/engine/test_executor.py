"""Runs of deployments, taken out of their queues in one process: order, limits, collisions, refusals, stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.conftest import FakeClock, Rows
from tests.engine.deployed import deploy, put, set_queue
from wfengine import continue_as_new, flow, task
from wfengine.executor import Executor
from wfengine.run_worker import Place
from wfengine.runners.threads import ThreadTaskRunner
from wfengine.steps import Outcome
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal

#: Seconds after which something counts as hanging.
LONG = 60

DONE: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@task
def note(what: object) -> object:
    DONE.append(what)
    return what


@flow
def noting(what: object = None) -> object:
    return note(what)


@flow
async def noting_async(what: object) -> object:
    await asyncio.sleep(0)
    DONE.append(what)
    return what


@flow
def needs_number(number: int) -> int:
    DONE.append(number)
    return number


class Gate:
    """What a flow waits at until the test lets it go on."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.arrived.release()
        assert self.opened.wait(LONG)

    def await_arrivals(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=LONG)


GATES: dict[str, Gate] = {}


@flow
def waits_at(gate: str, what: object = None) -> object:
    GATES[gate].pass_through()
    DONE.append(what)
    return what


@flow
def goes_on_as_new(gate: str, turn: int = 0) -> int:
    if turn < 2:
        continue_as_new(turn=turn + 1)
    GATES[gate].pass_through()
    return turn


@pytest.fixture
def gate() -> Iterator[Gate]:
    GATES["gate"] = gate = Gate()
    yield gate
    gate.opened.set()


@contextmanager
def executing(journal: Journal, **options: object) -> Iterator[Executor]:
    """Have an executor work while the block runs."""
    executor = Executor(journal, **options)  # type: ignore[arg-type]  # as the test says
    executor.start()
    try:
        yield executor
    finally:
        for gate in GATES.values():
            gate.opened.set()
        executor.stop(LONG)
        assert not executor.started
    if executor.fault is not None:
        raise executor.fault


def await_state(journal: Journal, rows: Rows, run_id: int, *states: str) -> None:
    """Wait until a run is in one of these states, told by each commit."""
    for _ in range(1000):
        mark = journal.changes.mark()
        if rows.value("SELECT state FROM flow_run WHERE id = ?", run_id) in states:
            return
        journal.changes.wait(mark, LONG)
    raise AssertionError(f"run {run_id} is {rows.state(run_id)}")


def test_queued_runs_of_sync_and_async_flows_run_with_their_parameters(journal: Journal, rows: Rows) -> None:
    first, second = deploy(journal, noting, parameters={"what": "default"}), deploy(journal, noting_async)
    put(journal, first)
    put(journal, first, what="given")
    put(journal, second, what="async")

    Executor(journal).run_once()

    assert sorted(map(str, DONE)) == ["async", "default", "given"]
    assert rows("SELECT state, epoch FROM flow_run") == [("COMPLETED", 1)] * 3


def test_a_run_that_comes_while_the_executor_sleeps_is_run(journal: Journal, rows: Rows) -> None:
    with executing(journal):
        run_id = put(journal, deploy(journal, noting), what=1)
        await_state(journal, rows, run_id, "COMPLETED")

    assert DONE == [1]


def test_larger_priorities_go_first_and_equal_ones_in_their_order(journal: Journal) -> None:
    deployment = deploy(journal, noting, priority=1)
    for priority, what in ((None, "b"), (0, "c"), (5, "a"), (None, "b2")):
        put(journal, deployment, what=what, priority=priority)

    Executor(journal, limit=1).run_once()

    assert DONE == ["a", "b", "b2", "c"]


class LooksLong(Executor):
    """One whose look for runs lasts until all that it began have ended."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.all_ended = threading.Event()

    def begin_what_waits(self, journal: Journal, runner: ThreadTaskRunner) -> bool:
        self.all_ended.set()
        has_room = super().begin_what_waits(journal, runner)
        assert self.all_ended.wait(LONG)
        return has_room

    def occupy(self, runner: object, run_id: int) -> Place:
        self.all_ended.clear()
        return super().occupy(runner, run_id)

    def run_ended(self, run_id: int, outcome: Outcome | None, error: BaseException | None) -> None:
        super().run_ended(run_id, outcome, error)
        self.all_ended.set()


def test_runs_that_end_before_the_look_that_found_them_let_others_begin(journal: Journal) -> None:
    deployment = deploy(journal, noting)
    set_queue(journal, "default", slots=1)
    for number in range(3):
        put(journal, deployment, what=number)
    LooksLong(journal).run_once()
    assert DONE == [0, 1, 2]


def test_a_run_is_not_begun_before_it_is_due(journal: Journal, rows: Rows, clock: FakeClock) -> None:
    journal = _reopened()
    run_id = put(journal, deploy(journal, noting), what=1, due_at=text_from_seconds(clock.now + 10))

    Executor(journal).run_once()
    assert rows.state(run_id) == ("SCHEDULED", "Scheduled")

    clock.now += 10
    Executor(journal).run_once()
    assert rows.value("SELECT state FROM flow_run") == "COMPLETED"


def _reopened() -> Journal:
    from wfengine.journals import default_journal

    return default_journal()


def test_a_run_waits_for_the_end_of_those_before_it(journal: Journal, gate: Gate, rows: Rows) -> None:
    first = put(journal, deploy(journal, waits_at), gate="gate", what="first")
    put(journal, deploy(journal, noting, priority=9), [first], what="second")

    with executing(journal):
        gate.await_arrivals()
        assert DONE == []
        gate.opened.set()
        await_state(journal, rows, 2, "COMPLETED")

    assert DONE == ["first", "second"]


def test_no_queue_starves_another_one(journal: Journal) -> None:
    a, b, c = (deploy(journal, noting, name, queue=name) for name in "abc")
    for number in range(20):
        put(journal, a, what=f"a{number}")
    for number in range(3):
        put(journal, b, what=f"b{number}")
    put(journal, c, what="c0")

    Executor(journal, limit=1).run_once()

    assert DONE[:7] == ["a0", "b0", "c0", "a1", "b1", "a2", "b2"]
    assert len(DONE) == 24


def test_an_executor_of_some_queues_leaves_the_others_alone(journal: Journal, rows: Rows) -> None:
    put(journal, deploy(journal, noting, "a", queue="a"), what="a")
    put(journal, deploy(journal, noting, "b", queue="b"), what="b")

    Executor(journal, queues=["b"]).run_once()

    assert DONE == ["b"]
    assert rows("SELECT queue, state FROM flow_run ORDER BY queue") == [("a", "SCHEDULED"), ("b", "COMPLETED")]


def test_background_tasks_are_left_to_their_workers(journal: Journal, rows: Rows) -> None:
    note.delay("task")

    Executor(journal, recover="all").run_once()

    assert rows.state() == ("SCHEDULED", "Scheduled")
    with pytest.raises(UsageError, match="wfengine task serve"):
        Executor(journal, queues=["task:note"])


# ------------------------------------------------------------------------------------------- limits


def test_a_paused_queue_lets_nothing_in(journal: Journal, rows: Rows) -> None:
    put(journal, deploy(journal, noting), what=1)
    set_queue(journal, "default", paused=True)
    Executor(journal).run_once()
    assert rows.state() == ("SCHEDULED", "Scheduled")

    with executing(journal):
        set_queue(journal, "default", paused=False)
        await_state(journal, rows, 1, "COMPLETED")


def test_a_queue_runs_no_more_at_a_time_than_it_has_places(journal: Journal, gate: Gate, rows: Rows) -> None:
    set_queue(journal, "default", slots=2)
    deployment = deploy(journal, waits_at, parameters={"gate": "gate"})
    runs = [put(journal, deployment, what=number) for number in range(5)]

    with executing(journal):
        gate.await_arrivals(2)
        other = put(journal, deploy(journal, noting, queue="other"), what="other")
        await_state(journal, rows, other, "COMPLETED")  # a full queue holds up no other one
        assert rows.value("SELECT count(*) FROM flow_run WHERE state = 'RUNNING'") == 2
        gate.opened.set()
        await_state(journal, rows, runs[-1], "COMPLETED")

    assert sorted(map(str, DONE)) == ["0", "1", "2", "3", "4", "other"]
    assert _most_at_a_time(rows, "default") == 2


def _most_at_a_time(rows: Rows, queue: str, column: str = "queue") -> int:
    """Return how many runs of a queue were RUNNING at the same moment, at the most."""
    running: set[object] = set()
    most = 0
    for run_id, name in rows(
        f"SELECT e.flow_run_id, e.name FROM event e JOIN flow_run r ON r.id = e.flow_run_id WHERE r.{column} = ? ORDER BY e.id",
        queue,
    ):
        running.discard(run_id)
        if name == "wfengine.flow-run.Running":
            running.add(run_id)
        most = max(most, len(running))
    return most


def test_each_partition_has_places_of_its_own(journal: Journal, gate: Gate, rows: Rows) -> None:
    set_queue(journal, "default", partition_slots=1)
    deployment = deploy(journal, waits_at, parameters={"gate": "gate"})
    for key in ("a", "a", "a", "b", "b", None, None):
        put(journal, deployment, what=key, partition_key=key)

    with executing(journal):
        gate.await_arrivals(4)  # one of a, one of b, both without a key
        running = rows("SELECT partition_key, count(*) FROM flow_run WHERE state = 'RUNNING' GROUP BY 1 ORDER BY 1")
        assert running == [(None, 2), ("a", 1), ("b", 1)]
        gate.opened.set()
        await_state(journal, rows, 3, "COMPLETED")

    assert _most_at_a_time(rows, "a", "partition_key") == 1


def test_a_rate_lets_so_many_begin_in_a_time(clock: FakeClock, rows: Rows) -> None:
    journal = _reopened()
    set_queue(journal, "default", rate=(2, 60))
    deployment = deploy(journal, noting)
    for number in range(5):
        put(journal, deployment, what=number)

    Executor(journal).run_once()
    assert sorted(DONE) == [0, 1]  # type: ignore[type-var]  # numbers
    clock.now += 30
    Executor(journal).run_once()
    assert sorted(DONE) == [0, 1, 2]  # type: ignore[type-var]  # numbers
    clock.now += 600
    Executor(journal).run_once()
    assert sorted(DONE) == [0, 1, 2, 3, 4]  # type: ignore[type-var]  # numbers


def test_a_rate_goes_on_when_the_clock_was_set_back(clock: FakeClock, rows: Rows) -> None:
    journal = _reopened()
    set_queue(journal, "default", rate=(1, 60))
    deployment = deploy(journal, noting)
    for number in range(3):
        put(journal, deployment, what=number)
    Executor(journal).run_once()
    clock.now -= 86400
    Executor(journal).run_once()
    assert DONE == [0]
    clock.now += 61
    Executor(journal).run_once()
    assert DONE == [0, 1]


def test_a_run_beyond_its_deployments_limit_waits_and_is_told_so_once(journal: Journal, gate: Gate, rows: Rows) -> None:
    deployment = deploy(journal, waits_at, concurrency_limit=1, parameters={"gate": "gate"})
    first, second = put(journal, deployment, what=1), put(journal, deployment, what=2)

    with executing(journal):
        gate.await_arrivals()
        await_state(journal, rows, first, "RUNNING")
        other = put(journal, deploy(journal, noting, "other"), what="other")
        await_state(journal, rows, other, "COMPLETED")
        assert rows.state(second) == ("SCHEDULED", "AwaitingConcurrencySlot")
        message = rows.value("SELECT state_message FROM flow_run WHERE id = ?", second)
        assert message == "waits for the running run of deployment 'waits-at/main', which may have one at a time"
        gate.opened.set()
        await_state(journal, rows, second, "COMPLETED")

    history = rows("SELECT state, state_name FROM transition WHERE flow_run_id = ? AND task_run_id = 0 ORDER BY seq", second)
    assert history == [
        ("SCHEDULED", None), ("SCHEDULED", "AwaitingConcurrencySlot"), ("RUNNING", None), ("COMPLETED", None),
    ]  # fmt: skip


def test_a_deployment_may_cancel_what_comes_beyond_its_limit(journal: Journal, gate: Gate, rows: Rows) -> None:
    deployment = deploy(journal, waits_at, concurrency_limit=1, collision="cancel_new", parameters={"gate": "gate"})
    first = put(journal, deployment, what=1)

    with executing(journal):
        gate.await_arrivals()
        second = put(journal, deployment, what=2)
        await_state(journal, rows, second, "CANCELLED")
        gate.opened.set()
        await_state(journal, rows, first, "COMPLETED")
        third = put(journal, deployment, what=3)
        await_state(journal, rows, third, "COMPLETED")

    message = str(rows.value("SELECT state_message FROM flow_run WHERE id = ?", second))
    assert message == "deployment 'waits-at/main' has 1 running, which is its limit, and cancels what comes beyond that"
    assert DONE == [1, 3]


# ------------------------------------------------------------------------------------------- refusals


def test_parameters_that_do_not_fit_fail_the_run_and_nothing_else(journal: Journal, rows: Rows) -> None:
    deployment = deploy(journal, needs_number)
    wrong = put(journal, deployment, number="many")
    put(journal, deployment, number=3)

    Executor(journal).run_once()

    assert DONE == [3]
    assert rows.state(wrong) == ("FAILED", "Failed")
    assert "cannot begin with" in str(rows.value("SELECT message FROM error"))


def test_a_run_whose_code_is_gone_waits_until_the_executor_is_restarted(
    journal: Journal, rows: Rows, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "gone.py"
    gone = put(journal, deploy(journal, "lost", entrypoint=f"file:{file}:lost"))
    executor = Executor(journal)
    executor.run_once()
    put(journal, deploy(journal, noting), what=1)
    executor.run_once()

    assert rows.state(gone) == ("SCHEDULED", "Scheduled")
    assert DONE == [1]
    assert [record.message for record in caplog.records if "could not be loaded" in record.message] != []
    assert sum("could not be loaded" in record.message for record in caplog.records) == 1

    file.write_text("from wfengine import flow\n\n@flow\ndef lost():\n    return 1\n")
    Executor(journal).run_once()
    assert rows.state(gone) == ("COMPLETED", "Completed")


# ------------------------------------------------------------------------------------------- stopping


def test_what_does_not_end_in_time_is_left_to_the_next_executor(journal: Journal, gate: Gate, rows: Rows) -> None:
    deployment = deploy(journal, waits_at, parameters={"gate": "gate"}, max_recoveries=0)
    run_id = put(journal, deployment, what=1)
    executor = Executor(journal)
    executor.start()
    gate.await_arrivals()
    executor.stop(0)

    assert executor.left == [run_id]
    assert rows.state(run_id) == ("CRASHED", "Crashed")
    gate.opened.set()
    Executor(journal).run_once()  # it was no crash, so it does not count as one
    assert rows.state(run_id) == ("COMPLETED", "Completed")


def test_a_run_that_was_continued_as_new_is_left_to_the_next_executor_as_the_run_in_which_it_goes_on(
    journal: Journal, gate: Gate, rows: Rows
) -> None:
    run_id = put(journal, deploy(journal, goes_on_as_new, parameters={"gate": "gate"}, max_recoveries=0))
    executor = Executor(journal)
    executor.start()
    gate.await_arrivals()
    executor.stop(0)

    assert executor.left == [run_id + 2]
    assert rows.state(run_id + 2) == ("CRASHED", "Crashed")
    gate.opened.set()
    Executor(journal).run_once()  # it was no crash, so it does not count as one
    assert rows.state(run_id + 2) == ("COMPLETED", "Completed")


def test_stop_taking_lets_go_on_what_runs_and_takes_nothing_more(journal: Journal, gate: Gate, rows: Rows) -> None:
    deployment = deploy(journal, waits_at, parameters={"gate": "gate"})
    first = put(journal, deployment, what=1)
    executor = Executor(journal)
    executor.start()
    gate.await_arrivals()
    executor.stop_taking()
    second = put(journal, deployment, what=2)
    gate.opened.set()
    await_state(journal, rows, first, "COMPLETED")
    executor.stop(LONG)

    assert rows.state(second) == ("SCHEDULED", "Scheduled")
    assert executor.report() == {
        "running": [], "limit": 10, "finished": 1, "refused": [], "left": [], "queues": None,
    }  # fmt: skip
