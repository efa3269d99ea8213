"""Defects of the engine that were found once and must not come back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import Flow, ThreadTaskRunner, flow, task, use_journal
from wfengine.listeners import Event, add_listener, remove_listener
from wfengine.ownership import sweep
from wfengine_journal import store
from wfengine_journal.errors import OwnershipLostError, ParameterError, UsageError

#: Seconds after which a thread counts as hanging.
PATIENCE = 60.0
#: A text that cannot be written as UTF-8.
LONE_SURROGATE = "\udcff"


class Trouble:
    """What fails as long as it is on."""

    def __init__(self) -> None:
        self.on = True

    def once(self) -> None:
        if self.on:
            self.on = False
            raise ValueError("the net is down")


def within_patience(work: Callable[[], object]) -> object:
    """Do work that once hung on a thread of its own; return what it gave."""
    given: list[object] = []
    thread = threading.Thread(target=lambda: given.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert given, "it hangs"
    return given[0]


# ---------------------------------------------------------------------------------------------------- runners, futures


def test_a_runner_with_one_worker_goes_on_after_a_task_that_waited_for_another() -> None:
    @task
    def inner(x: int) -> int:
        return x

    @task
    def outer(x: int) -> int:
        return inner.submit(x).result()

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def waiting() -> int:
        total = 0
        for number in range(30):
            total += outer.submit(number).result()
            total += inner.submit(-number).result()
        return total

    assert within_patience(waiting) == 0


def test_a_task_with_a_time_limit_may_wait_for_another_on_the_only_worker() -> None:
    @task
    def inner(x: int) -> int:
        return x

    @task(timeout_seconds=PATIENCE / 2)
    def outer() -> int:
        return inner.submit(1).result()

    @flow(task_runner=ThreadTaskRunner(max_workers=1))
    def waiting() -> int:
        return outer.submit().result()

    assert within_patience(waiting) == 1


def test_a_submission_whose_name_cannot_be_made_raises_and_leaves_nothing_to_wait_for() -> None:
    def faulty_name(**_: object) -> str:
        raise LookupError("no name")

    @task(task_run_name=faulty_name)
    def named(x: int) -> int:
        return x

    @flow
    def submitting() -> str:
        with pytest.raises(LookupError):
            named.submit(1)
        return "went on"

    assert within_patience(submitting) == "went on"


def test_a_chain_of_thousands_of_futures_fails_with_its_first_link() -> None:
    fail = threading.Event()

    @task
    def step(x: int) -> int:
        if x < 0:
            assert fail.wait(PATIENCE)
            raise ValueError("root")
        return x + 1

    @flow
    def chain() -> str:
        future = step.submit(-1)
        for _ in range(3000):
            future = step.submit(future)
        fail.set()
        with pytest.raises(ValueError, match="root"):
            future.result()
        return "told"

    assert within_patience(chain) == "told"


# ---------------------------------------------------------------------------------------------------- retries, replay


def failing_report(trouble: Trouble) -> Callable[[], str]:
    """Return a body that tells another story after its failure than after its success."""

    @task
    def work() -> int:
        trouble.once()
        return 1

    @task
    def notify(text: str) -> str:
        return text

    def body() -> str:
        try:
            work()
        except ValueError as error:
            notify(f"failed: {error}")
            raise
        notify("ok")
        return "done"

    return body


def test_a_retried_flow_may_call_what_its_failed_attempt_did_not() -> None:
    assert flow(retries=1, name="reporting")(failing_report(Trouble()))() == "done"


def test_a_resumed_flow_may_call_what_its_failed_attempt_did_not() -> None:
    reporting = flow(name="reporting")(failing_report(Trouble()))
    with pytest.raises(ValueError, match="net is down"):
        reporting()
    assert reporting.resume("@last") == "done"


def test_a_retried_task_may_call_what_its_failed_attempt_did_not() -> None:
    outer = task(retries=1, name="outer")(failing_report(Trouble()))

    @flow
    def reporting() -> str:
        return outer()

    assert reporting() == "done"


def test_a_resume_refused_for_its_parameters_leaves_the_run_resumable(rows: Rows) -> None:
    trouble = Trouble()

    @task
    def work() -> int:
        trouble.once()
        return 1

    @flow(name="changing")
    def before(x: int) -> int:
        return work()

    @flow(name="changing")
    def after(x: int, y: int) -> int:
        return work()

    with pytest.raises(ValueError, match="net is down"):
        before(3)
    with pytest.raises(ParameterError):
        after.resume("@last")
    assert rows.state()[0] == "FAILED"
    assert before.resume("@last") == 1


class LateClock(FakeClock):
    """A clock on which, while somebody sleeps, something late is done first."""

    def __init__(self) -> None:
        super().__init__()
        self.late: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.late()
        super().sleep(seconds)


@pytest.fixture
def late_clock(tmp_path: Path, journal: store.Journal) -> LateClock:
    journal.close()
    made = LateClock()
    store.open_journal(tmp_path / "journal.db", made)
    use_journal(tmp_path / "journal.db")
    return made


@pytest.mark.parametrize("submitted", [False, True])
def test_an_outcome_that_comes_while_the_flow_waits_for_its_retry_does_not_end_the_run(
    late_clock: LateClock, rows: Rows, submitted: bool
) -> None:
    threads: list[threading.Thread] = []
    go_on = threading.Event()

    @task
    def slow() -> int:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            assert go_on.wait(PATIENCE)
        return len(threads)

    def come_late() -> None:
        go_on.set()
        if not submitted:
            threads[0].join(PATIENCE)

    late_clock.late = come_late

    @flow(timeout_seconds=1.0, retries=1, retry_delay_seconds=2)
    def limited() -> int:
        return slow.submit().result() if submitted else slow()

    assert limited() == 2
    assert rows.state() == ("COMPLETED", "Completed")


def test_a_thread_of_an_attempt_that_was_given_up_starts_no_further_task() -> None:
    started: list[str] = []
    refused: list[BaseException] = []
    again, stale_over = threading.Event(), threading.Event()

    @task
    def deep(who: str) -> str:
        started.append(who)
        return who

    def stale() -> None:
        assert again.wait(PATIENCE)
        try:
            deep("stale")
        except BaseException as error:
            refused.append(error)
            raise
        finally:
            stale_over.set()

    attempts: list[int] = []

    @task
    def outer() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            stale()
        again.set()
        assert stale_over.wait(PATIENCE)
        return deep("present")

    @flow(timeout_seconds=1.0, retries=1)
    def limited() -> str:
        return outer.submit().result()

    assert limited() == "present"
    assert started == ["present"]
    assert len(refused) == 1


def test_a_task_run_left_by_a_given_up_attempt_does_not_stay_running_after_its_flow(rows: Rows) -> None:
    go_on = threading.Event()

    @task
    def inner() -> None:
        assert go_on.wait(PATIENCE)

    @task(timeout_seconds=1.0)
    def outer() -> None:
        inner()

    @flow
    def tolerant() -> str:
        with pytest.raises(TimeoutError):
            outer()
        return "fine"

    assert tolerant() == "fine"
    found = rows("SELECT state FROM task_run ORDER BY id")
    go_on.set()
    assert found == [("FAILED",), ("CRASHED",)]


# ---------------------------------------------------------------------------------------------------- owners, signals


def test_a_run_this_process_lost_and_took_up_again_is_not_swept(journal: store.Journal, rows: Rows) -> None:
    lost, started, go_on = [False], threading.Event(), threading.Event()

    @task
    def number() -> int:
        return 1

    @flow
    def taken() -> str:
        number()
        if not lost[0]:  # somebody else takes the run over, and crashes
            lost[0] = True
            (run,) = journal.list_open_runs()
            journal.crash(run.id, run.version, run.epoch, "taken over from a process that did not answer")
            number.with_options(key="second")()
        started.set()
        assert go_on.wait(PATIENCE)
        number.with_options(key="third")()
        return "ok"

    with pytest.raises(OwnershipLostError):
        taken()
    ended: list[object] = []
    resuming = threading.Thread(target=lambda: ended.append(taken.resume(1)))
    resuming.start()
    assert started.wait(PATIENCE)
    assert sweep(journal) == []
    go_on.set()
    resuming.join(PATIENCE)
    assert ended == ["ok"]
    assert rows.state() == ("COMPLETED", "Completed")


def test_the_runs_of_a_journal_that_was_closed_are_swept_when_it_is_opened_again(
    journal: store.Journal, rows: Rows, tmp_path: Path
) -> None:
    running, go_on = threading.Event(), threading.Event()

    @task
    def waiting() -> None:
        running.set()
        assert go_on.wait(PATIENCE)

    @flow
    def left() -> None:
        waiting()

    def run() -> None:
        with pytest.raises(Exception, match="closed"):
            left()

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(PATIENCE)
    journal.close()
    assert rows("SELECT ended_at IS NOT NULL FROM owner") == [(1,)]
    assert sweep(use_journal(tmp_path / "journal.db")) == [1]
    go_on.set()
    thread.join(PATIENCE)
    assert rows.state()[0] == "CRASHED"


@pytest.fixture
def interrupting_listener() -> Iterator[None]:
    """A listener that is struck by Ctrl-C at the first event."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            raise KeyboardInterrupt

    add_listener(listen)
    yield
    remove_listener(listen)


@pytest.mark.usefixtures("interrupting_listener")
def test_a_run_interrupted_while_its_start_was_told_can_be_resumed_by_the_same_process() -> None:
    @flow
    def small() -> int:
        return 1

    with pytest.raises(KeyboardInterrupt):
        small()
    assert small.resume("@last") == 1


def test_any_number_of_interrupts_by_a_person_leaves_a_submitted_task_resumable() -> None:
    turns: list[threading.Event] = []
    workers: list[threading.Thread] = []

    @task
    def long() -> str:
        turns.append(threading.Event())
        workers.append(threading.current_thread())
        if len(turns) < 5:
            os.kill(os.getpid(), signal.SIGINT)
            assert turns[-1].wait(PATIENCE)
        return "done"

    @flow
    def patient() -> str:
        return long.submit().result()

    def interrupted(start: Callable[[], object]) -> None:
        with pytest.raises(KeyboardInterrupt):
            start()
        turns[-1].set()
        workers[-1].join(PATIENCE)

    interrupted(patient)
    for _ in range(3):
        interrupted(lambda: patient.resume(1))
    assert patient.resume(1) == "done"


# ---------------------------------------------------------------------------------------------------- texts, keys


def test_the_same_idempotency_key_with_other_large_parameters_is_refused() -> None:
    @flow(idempotency_key="day-1")
    def summing(data: list[int]) -> int:
        return sum(data)

    numbers = list(range(3000))
    others = [*numbers[:2500], 10**6, *numbers[2501:]]
    assert summing(numbers) == sum(numbers)
    with pytest.raises(UsageError):
        summing(others)


@task
def same(x: object) -> object:
    return x


@task
def failing() -> None:
    raise ValueError(LONE_SURROGATE)


def caught() -> int:
    with pytest.raises(ValueError, match=LONE_SURROGATE):
        failing()
    return 1


SURROGATES: dict[str, Flow[[], object]] = {
    "error message": flow(name="a")(caught),
    "task run name": flow(name="b")(lambda: same.with_options(task_run_name="n" + LONE_SURROGATE)(1)),
    "flow run name": flow(name="c", flow_run_name="n" + LONE_SURROGATE)(lambda: 1),
    "tags": flow(name="d", tags=["t" + LONE_SURROGATE])(lambda: same(1)),
    "idempotency key": flow(name="e", idempotency_key="k" + LONE_SURROGATE)(lambda: 1),
    "call key": flow(name="f")(lambda: same.with_options(call_key="k" + LONE_SURROGATE)(1)),
}


@pytest.mark.parametrize("where", SURROGATES)
def test_a_text_that_is_not_utf_8_harms_no_run(rows: Rows, where: str) -> None:
    assert SURROGATES[where]() == 1
    assert rows.state() == ("COMPLETED", "Completed")


def test_a_value_that_is_not_utf_8_goes_in_and_comes_out_as_it_is() -> None:
    @flow
    def through(x: str) -> object:
        return same(x)

    assert through(LONE_SURROGATE) == LONE_SURROGATE


def test_a_program_started_with_an_argument_that_is_not_utf_8_runs(program: Program, rows: Rows) -> None:
    program.write(
        """
        @flow
        def small():
            return 1

        if __name__ == "__main__":
            print(small())
        """
    )
    done = program.python(str(program.path), LONE_SURROGATE)
    assert (done.code, done.out.strip()) == (0, "1"), done
    assert rows.state() == ("COMPLETED", "Completed")


# ---------------------------------------------------------------------------------------------------- processes


def test_a_once_task_that_drifted_inside_runs_no_more_often_than_a_person_allowed(program: Program) -> None:
    program.write(
        """
        @task
        def inner(x):
            return x

        @task(once=True)
        def pay():
            note("paid")
            inner(1)
            inner(os.getpid())
            kill()

        @flow
        def paying():
            pay()

        if __name__ == "__main__":
            paying()
        """
    )
    program.run_and_be_killed()
    program.python("-m", "wfengine", "resume", "1")
    assert program.effects == ["paid"]
    resolved = program.python("-m", "wfengine", "resolve", "1", "1", "--not-done")
    assert resolved.code == 0, resolved
    for _ in range(3):
        program.python("-m", "wfengine", "resume", "1")
    assert program.effects == ["paid", "paid"]


def test_a_flow_cannot_go_on_over_a_damaged_result_of_a_subflow(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.listeners import add_listener

        def kill_after_child(event):
            if event.name == "child" and event.state == "COMPLETED" and first_time():
                kill()

        add_listener(kill_after_child)

        @flow
        def child():
            return "x" * 5000

        @flow
        def parent():
            try:
                return len(child())
            except Exception as error:
                note("went-on-" + type(error).__name__)

        if __name__ == "__main__":
            parent()
        """
    )
    program.run_and_be_killed()
    damage = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    damage += "c.execute(\"UPDATE value SET data = replace(data, 'xxx', 'yyy')\"); c.commit(); c.close()"
    assert program.python("-c", damage, str(program.folder / "journal.db")).code == 0
    assert program.resume(1)["error"] == "JournalCorruptError"
    assert program.effects == []
    assert rows.state(1)[0] != "COMPLETED"


def test_a_retry_that_was_due_later_is_not_started_earlier_by_a_recovery(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine_journal.clock import text_from_seconds
        from wfengine_journal.store import open_journal

        class KillingClock:
            now = 1_750_000_000.0 + float(sys.argv[1])
            def now_text(self):
                return text_from_seconds(self.now)
            def wall_seconds(self):
                return self.now
            def monotonic_seconds(self):
                return self.now
            def sleep(self, seconds):
                note(f"sleep-{seconds:.0f}")
                kill()

        journal = open_journal(HERE / "journal.db", KillingClock())
        use_journal(HERE / "journal.db")

        @flow(retries=2, retry_delay_seconds=8)
        def retried():
            note("body")
            raise ValueError

        if __name__ == "__main__":
            if sys.argv[1] == "0":
                retried()
            else:
                from wfengine.recovery import resume_run
                resume_run(journal, 1, recovery=True)
        """
    )
    for seconds in ("0", "2", "3", "9"):
        done = program.python(str(program.path), seconds)
        assert done.was_killed, done
    assert program.effects == ["body", "sleep-8", "sleep-6", "sleep-5", "body", "sleep-8"]
    assert rows.value("SELECT failures FROM flow_run") == 2


def test_storing_a_nested_flow_leaves_the_local_classes_alone_that_it_uses() -> None:
    seen: list[str] = []

    class Counter:
        def count(self) -> None:
            seen.append("counted")

    counter = Counter()

    @flow
    def main() -> None:
        counter.count()

    main()
    assert seen == ["counted"]
