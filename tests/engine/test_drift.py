"""A new call where the journal has another one: what was edited, who resumes, and what the task says, row by row."""

from __future__ import annotations

import datetime
import threading
import uuid

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import Flow, carry, flow, task
from wfengine.recovery import resume_run
from wfengine_journal.errors import DriftError, UsageError
from wfengine_journal.store import Journal


def crash(own_flow: Flow[..., object], *arguments: object) -> None:
    """Run a flow that cuts itself off."""
    with pytest.raises(KeyboardInterrupt):
        own_flow(*arguments)


class World:
    """What a flow reads although it should not: it differs between two executions of unchanged code."""

    def __init__(self) -> None:
        self.crashes = 1
        self.ran: list[object] = []
        self.number = 1

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def test_unchanged_code_with_a_clock_as_argument_is_parked_with_the_difference_and_nothing_runs(rows: Rows) -> None:
    world = World()

    @task
    def fetch(day: str, at: datetime.datetime) -> str:
        world.ran.append(at)
        return f"{day} {len(world.ran)}"

    @flow
    def clocked() -> str:
        fetched = fetch("monday", at=datetime.datetime.now(tz=datetime.UTC))
        world.crash_once()
        return fetched

    crash(clocked)
    with pytest.raises(DriftError) as caught:
        clocked.resume(1)
    text = str(caught.value)
    assert len(world.ran) == 1
    assert rows.state() == ("PAUSED", "Drifted")
    assert "task 'fetch'" in text
    assert "at: recorded" in text
    assert "day: recorded" not in text
    assert "clock" in text
    assert "--on-drift rerun" in text
    assert caught.value.flow_run_id == 1
    assert rows.value("SELECT error FROM runs") == text


def test_run_parked_by_drift_goes_on_with_on_drift_rerun(rows: Rows) -> None:
    world = World()

    @task
    def fetch(at: datetime.datetime) -> int:
        world.ran.append(at)
        return len(world.ran)

    @flow
    def clocked() -> int:
        fetched = fetch(datetime.datetime.now(tz=datetime.UTC))
        world.crash_once()
        return fetched

    crash(clocked)
    for _ in range(2):
        with pytest.raises(DriftError):
            clocked.resume(1)
    assert clocked.resume(1, on_drift="rerun") == 2
    assert rows("SELECT task, result FROM orphans") == [("fetch", "1")]
    assert rows.state() == ("COMPLETED", "Completed")


def test_drift_that_a_person_accepted_is_not_brought_up_again_by_a_later_resume() -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def drifting() -> list[int]:
        fetched = [fetch(world.number)]
        world.crash_once()
        return [*fetched, fetch(100)]

    crash(drifting)
    world.number = 2
    world.crashes = 1
    with pytest.raises(KeyboardInterrupt):
        drifting.resume(1, on_drift="rerun")
    assert drifting.resume(1) == [2, 100]
    assert world.ran == [1, 2, 100]


def test_cause_of_drift_is_named_for_a_uuid(rows: Rows) -> None:
    world = World()

    @task
    def save(name: str) -> None:
        world.ran.append(name)

    @flow
    def named() -> None:
        save(str(uuid.uuid4()))
        world.crash_once()

    crash(named)
    with pytest.raises(DriftError, match="UUID"):
        named.resume(1)
    assert len(world.ran) == 1
    assert rows.state() == ("PAUSED", "Drifted")


def test_drift_in_unchanged_code_is_not_caught_by_except_exception() -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def careless() -> int:
        try:
            fetched = fetch(world.number)
        except Exception:  # what a careless author writes
            fetched = -1
        world.crash_once()
        return fetched

    crash(careless)
    world.number = 2
    with pytest.raises(DriftError):
        careless.resume(1)
    assert world.ran == [1]


def test_drift_of_a_submitted_call_parks_the_run_too(rows: Rows) -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def submitting() -> list[int]:
        fetched = fetch.map([world.number, world.number + 1]).result()
        world.crash_once()
        return fetched

    crash(submitting)
    world.number = 5
    with pytest.raises(DriftError):
        submitting.resume(1)
    assert sorted(world.ran) == [1, 2]  # type: ignore[type-var]  # these are numbers
    assert rows.state() == ("PAUSED", "Drifted")


def test_direct_call_that_takes_a_future_is_on_the_main_lane_and_its_drift_is_seen() -> None:
    world = World()

    @task
    def make() -> int:
        return 1

    @task
    def use(made: int, number: int) -> int:
        world.ran.append(number)
        return made + number

    @flow
    def with_future() -> int:
        used = use(make.submit(), world.number)  # type: ignore[arg-type]  # a future stands for its value
        world.crash_once()
        return used

    crash(with_future)
    world.number = 2
    with pytest.raises(DriftError):
        with_future.resume(1)
    assert world.ran == [1]


def test_new_call_is_no_drift_when_all_completed_ones_were_asked_for() -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def growing() -> list[int]:
        fetched = [fetch(number) for number in range(world.number)]
        world.crash_once()
        return fetched

    crash(growing)
    world.number = 3
    assert growing.resume(1) == [0, 1, 2]
    assert world.ran == [0, 1, 2]


def test_new_call_of_another_task_is_no_drift() -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(f"fetch {number}")
        return number

    @task
    def check(number: int) -> int:
        world.ran.append(f"check {number}")
        return number

    @flow
    def checked() -> int:
        if world.number == 2:
            check(1)
        fetched = fetch(1)
        world.crash_once()
        return fetched

    crash(checked)
    world.number = 2
    assert checked.resume(1) == 1
    assert world.ran == ["fetch 1", "check 1"]


def test_calls_of_other_threads_are_never_accused(rows: Rows) -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def threaded() -> None:
        thread = threading.Thread(target=carry(fetch), args=(world.number,))
        thread.start()
        thread.join()
        world.crash_once()

    crash(threaded)
    world.number = 2
    threaded.resume(1)
    assert world.ran == [1, 2]
    assert rows("SELECT task, inputs FROM orphans") == [("fetch", '{"number":1}')]


def test_drift_inside_a_task_that_calls_tasks_is_seen_in_its_own_scope(rows: Rows) -> None:
    world = World()

    @task
    def leaf(number: int) -> int:
        world.ran.append(number)
        return number

    @task
    def parent() -> int:
        found = leaf(world.number)
        world.crash_once()
        return found

    @flow
    def nested() -> int:
        return parent()

    crash(nested)
    world.number = 2
    with pytest.raises(DriftError, match="task 'leaf'"):
        nested.resume(1)
    assert world.ran == [1]
    assert rows.state() == ("PAUSED", "Drifted")
    assert nested.resume(1, on_drift="rerun") == 2
    assert world.ran == [1, 2]


def test_flow_retry_of_unchanged_code_parks_on_drift_as_well(rows: Rows) -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(number)
        return number

    @flow(retries=1)
    def retried() -> int:
        fetch(world.number)
        world.number += 1
        raise ValueError("first")

    with pytest.raises(DriftError):
        retried()
    assert world.ran == [1]
    assert rows.state() == ("PAUSED", "Drifted")


@pytest.mark.parametrize("on_drift", [None, "rerun"])
def test_once_task_parks_the_run_whatever_was_asked(rows: Rows, on_drift: str | None) -> None:
    world = World()

    @task(once=True)
    def send(number: int) -> int:
        world.ran.append(number)
        return number

    @flow(name="mailing")
    def mailing() -> int:
        sent = send(world.number)
        world.crash_once()
        return sent

    @flow(name="mailing")
    def edited() -> int:
        return send(7)

    crash(mailing)
    world.number = 2
    for resumed in (mailing, edited):
        with pytest.raises(DriftError):
            resumed.resume(1, on_drift=on_drift)
    assert world.ran == [1]
    assert rows.state() == ("PAUSED", "Drifted")


def test_once_task_replays_and_goes_on_where_it_stopped() -> None:
    world = World()

    @task(once=True)
    def send(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def mailing() -> list[int]:
        sent = [send(1)]
        world.crash_once()
        return [*sent, send(2)]

    crash(mailing)
    assert mailing.resume(1) == [1, 2]
    assert world.ran == [1, 2]


def test_once_call_off_the_main_lane_without_call_key_is_refused_before_it_runs(rows: Rows) -> None:
    world = World()

    @task(once=True)
    def send(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def mailing() -> None:
        errors: list[BaseException] = []

        def body() -> None:
            try:
                send(1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=carry(body))
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    with pytest.raises(UsageError, match="call_key"):
        mailing()
    assert world.ran == []
    assert rows.value("SELECT count(*) FROM tasks") == 0


def test_once_call_off_the_main_lane_with_call_key_runs_and_replays() -> None:
    world = World()

    @task(once=True, call_key="{number}")
    def send(number: int) -> int:
        world.ran.append(number)
        return number

    @flow
    def mailing() -> None:
        for number in (1, 2):
            thread = threading.Thread(target=carry(send), args=(number,))
            thread.start()
            thread.join()
            world.crash_once()

    crash(mailing)
    mailing.resume(1)
    assert world.ran == [1, 2]


def test_on_drift_takes_only_what_it_knows(journal: Journal) -> None:
    @flow
    def idle() -> None:
        raise KeyboardInterrupt

    crash(idle)
    with pytest.raises(UsageError, match="on_drift"):
        idle.resume(1, on_drift="ignore")
    with pytest.raises(UsageError, match="on_drift"):
        resume_run(journal, 1, on_drift="ignore")
    with pytest.raises(UsageError, match="on_drift"):
        flow(on_drift="ignore")(lambda: None)  # type: ignore[call-overload]  # no such value


# ---- edited code, in a file


BEFORE = """
    @task
    def fetch(number):
        note(f"fetch-{number}")
        return number * 10

    @task
    def check(number):
        note(f"check-{number}")

    @flow
    def etl():
        value = fetch(1)
        kill()

    etl()
"""
CORRECTED = BEFORE.replace("fetch(1)", "fetch(2)").replace("kill()", "return value")


def test_edited_argument_runs_as_a_new_call_when_a_person_resumes(program: Program, rows: Rows) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(CORRECTED)
    assert program.resume() == {"state": "COMPLETED", "result": "20", "type": "int"}
    assert program.effects == ["fetch-1", "fetch-2"]
    assert rows("SELECT task, inputs, result FROM orphans") == [("fetch", '{"number":1}', "10")]
    assert "1 recorded call" in str(rows.value("SELECT message FROM runs"))


def test_edited_argument_parks_an_automatic_recovery_until_a_person_resumes(program: Program, rows: Rows) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(CORRECTED)
    parked = program.resume(recovery=True)
    assert parked["error"] == "DriftError"
    assert "number: recorded 1, now 2" in str(parked["text"])
    assert program.effects == ["fetch-1"]
    assert rows.state() == ("PAUSED", "Drifted")
    assert program.resume()["result"] == "20"
    assert program.effects == ["fetch-1", "fetch-2"]


def test_edited_argument_parks_when_the_person_asked_for_errors(program: Program) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(CORRECTED)
    assert program.resume(on_drift="error")["error"] == "DriftError"
    assert program.effects == ["fetch-1"]


@pytest.mark.parametrize("recovery", [False, True])
def test_the_author_of_a_flow_says_what_drift_does(program: Program, recovery: bool) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(CORRECTED.replace("@flow", '@flow(on_drift="error")'))
    assert program.resume(recovery=recovery)["error"] == "DriftError"
    program.write(CORRECTED.replace("@flow", '@flow(on_drift="rerun")'))
    assert program.resume(recovery=recovery)["result"] == "20"
    assert program.effects == ["fetch-1", "fetch-2"]


def test_what_a_person_types_goes_before_what_the_author_of_a_flow_said(program: Program) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(CORRECTED.replace("@flow", '@flow(on_drift="rerun")'))
    assert program.resume(on_drift="error")["error"] == "DriftError"
    program.write(CORRECTED.replace("@flow", '@flow(on_drift="error")'))
    assert program.resume(on_drift="rerun")["result"] == "20"


def test_automatic_recovery_goes_on_with_edits_that_only_add(program: Program) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    program.write(BEFORE.replace("value = fetch(1)", "check(5); value = fetch(1)").replace("kill()", "return value"))
    assert program.resume(recovery=True)["result"] == "10"
    assert program.effects == ["fetch-1", "check-5"]


def test_drift_accepted_by_a_person_is_accepted_by_later_recoveries_of_that_code(program: Program) -> None:
    program.write(BEFORE)
    program.run_and_be_killed()
    edited = CORRECTED.replace("return value", "kill() if first_time() else None; return value + fetch(3)")
    program.write(edited)
    done = program.python(
        "-c", "from wfengine.recovery import *; from wfengine import use_journal; resume_run(use_journal(None), 1)"
    )
    assert done.was_killed, done
    assert program.resume(recovery=True)["result"] == "50"
    assert program.effects == ["fetch-1", "fetch-2", "fetch-3"]


def test_recovery_that_was_killed_before_the_edited_call_is_no_persons_word_for_the_next_recovery(program: Program) -> None:
    text = BEFORE.replace("value = fetch(1)", "check(0); value = fetch(1)")
    program.write(text)
    program.run_and_be_killed()
    edited = "kill() if first_time() else None; value = fetch(2)"
    program.write(text.replace("value = fetch(1)", edited).replace("\n        kill()", "\n        return value"))
    assert program.python("-m", "wfengine", "resume", "--all").was_killed
    assert program.resume(recovery=True)["error"] == "DriftError"
    assert program.effects == ["check-0", "fetch-1"]
    assert program.resume()["result"] == "20"


def test_edit_in_a_function_that_the_flow_calls_counts_as_edited_code(program: Program) -> None:
    text = BEFORE.replace("@flow", "def chosen():\n        return 1\n\n    @flow").replace("fetch(1)", "fetch(chosen())")
    program.write(text.replace("kill()", "kill() if first_time() else None; return value"))
    program.run_and_be_killed()
    program.write(text.replace("kill()", "kill() if first_time() else None; return value").replace("return 1\n", "return 2\n"))
    assert program.resume()["result"] == "20"


def test_edit_of_a_task_body_neither_runs_completed_calls_again_nor_counts_as_edited(program: Program) -> None:
    text = BEFORE.replace("kill()", "kill() if first_time() else None; return value")
    program.write(text)
    program.run_and_be_killed()
    program.write(text.replace("number * 10", "number * 77"))
    assert program.resume()["result"] == "10"
    assert program.effects == ["fetch-1"]
