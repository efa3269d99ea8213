"""Calls that were started and cut off: run again, raised, or parked for a person."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import Flow, flow, task
from wfengine.recovery import resume_run
from wfengine_journal.errors import InDoubtError, TaskInterrupted, TooManyInterruptions
from wfengine_journal.store import Journal


class World:
    """What ran, and how often a task still is to be cut off."""

    def __init__(self, crashes: int = 1) -> None:
        self.crashes = crashes
        self.ran: list[str] = []

    def crash_once(self) -> None:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt


def crash(own_flow: Flow[..., object]) -> None:
    with pytest.raises(KeyboardInterrupt):
        own_flow()


@pytest.mark.parametrize("submitted", [False, True])
def test_interrupted_task_runs_again_by_default(rows: Rows, submitted: bool) -> None:
    world = World()

    @task
    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    def mailing() -> str:
        return send.submit().result() if submitted else send()

    crash(mailing)
    assert mailing.resume(1) == "sent"
    assert world.ran == ["send", "send"]
    assert rows("SELECT outcome FROM attempts ORDER BY attempt") == [("INTERRUPTED",), ("COMPLETED",)]


def test_interrupted_task_with_fail_raises_a_catchable_error_and_does_not_run(rows: Rows) -> None:
    world = World()

    @task(on_interrupt="fail")
    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    def mailing() -> str:
        try:
            return send()
        except TaskInterrupted as error:
            return f"unknown {error.task_run_id}"

    crash(mailing)
    assert mailing.resume(1) == "unknown 1"
    assert world.ran == ["send"]
    assert rows("SELECT state, attempts FROM tasks") == [("FAILED", 1)]


def test_interrupted_task_with_fail_does_not_run_on_later_resumes_either() -> None:
    world = World()

    @task(on_interrupt="fail")
    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    def mailing() -> str:
        return send()

    crash(mailing)
    for _ in range(3):
        with pytest.raises(TaskInterrupted):
            mailing.resume(1)
    assert world.ran == ["send"]


def test_interrupted_task_with_fail_runs_again_once_its_author_allows_it() -> None:
    world = World()

    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow(name="mailing")
    def mailing() -> str:
        return task(on_interrupt="fail", key="send")(send)()

    @flow(name="mailing")
    def edited() -> str:
        return task(key="send")(send)()

    crash(mailing)
    with pytest.raises(TaskInterrupted):
        mailing.resume(1)
    assert edited.resume(1) == "sent"
    assert world.ran == ["send", "send"]


def test_failure_of_its_own_of_a_task_with_fail_runs_again_on_resume() -> None:
    world = World()

    @task(on_interrupt="fail")
    def send() -> str:
        world.ran.append("send")
        if len(world.ran) == 1:
            raise ValueError("refused")
        return "sent"

    @flow
    def mailing() -> str:
        return send()

    with pytest.raises(ValueError, match="refused"):
        mailing()
    assert mailing.resume(1) == "sent"


@pytest.mark.parametrize("once", [False, True])
def test_interrupted_task_with_ask_parks_the_run_until_a_person_resolves_it(rows: Rows, once: bool) -> None:
    world = World()

    @task(once=True) if once else task(on_interrupt="ask")  # type: ignore[untyped-decorator]  # one or the other
    def send() -> str:
        world.ran.append("send")
        world.crash_once()
        return "sent"

    @flow
    def mailing() -> str:
        try:
            return str(send())
        except Exception:
            return "swallowed"

    crash(mailing)
    for _ in range(2):
        with pytest.raises(InDoubtError, match="wfengine resolve") as caught:
            mailing.resume(1)
        assert caught.value.task_run_id == 1
    assert world.ran == ["send"]
    assert rows.state() == ("PAUSED", "InDoubt")
    assert rows("SELECT task, attempt FROM in_doubt") == [("send", 1)]


@pytest.mark.parametrize("on_interrupt", ["fail", "ask"])
def test_task_that_was_only_submitted_when_the_process_died_is_not_in_doubt(program: Program, on_interrupt: str) -> None:
    program.write(
        f"""
        from wfengine import ThreadTaskRunner

        @task
        def die():
            if first_time():
                kill()

        @task(on_interrupt={on_interrupt!r})
        def send():
            note("send")
            return "sent"

        @flow(task_runner=ThreadTaskRunner(max_workers=1))
        def mailing():
            died = die.submit()
            return send.submit().result()

        mailing()
        """
    )
    program.run_and_be_killed()
    assert program.resume()["result"] == "'sent'"
    assert program.effects == ["send"]


def test_task_that_keeps_killing_its_process_is_not_started_a_fourth_time(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def poison():
            note("poison")
            kill()

        @flow
        def main():
            poison()

        main()
        """
    )
    program.run_and_be_killed()
    for _ in range(2):
        done = program.python("-m", "wfengine", "resume", "--all")
        assert done.was_killed, done
    answer = program.resume(recovery=True)
    assert answer["type"] == "TooManyInterruptions"
    assert program.effects == ["poison"] * 3
    assert rows("SELECT state, attempts, interruptions FROM tasks") == [("FAILED", 3, 3)]
    assert rows.value("SELECT count(*) FROM attempts WHERE outcome = 'INTERRUPTED'") == 3
    assert "max_interruptions" in str(rows.value("SELECT error FROM tasks"))


def test_interruptions_do_not_use_up_retries(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task(retries=1)
        def flaky():
            note("flaky")
            if first_time("one") or first_time("two"):
                kill()
            if first_time("three"):
                raise ValueError("once")
            return "done"

        @flow
        def main():
            return flaky()

        main()
        """
    )
    program.run_and_be_killed()
    assert program.python("-m", "wfengine", "resume", "--all").was_killed
    assert program.resume(recovery=True)["result"] == "'done'"
    assert program.effects == ["flaky"] * 4
    assert rows("SELECT outcome FROM attempts ORDER BY attempt") == [
        ("INTERRUPTED",), ("INTERRUPTED",), ("FAILED",), ("COMPLETED",),
    ]  # fmt: skip


def test_ctrl_c_is_no_interruption_that_counts() -> None:
    world = World(crashes=5)

    @task
    def slow() -> str:
        world.crash_once()
        return "done"

    @flow
    def main() -> str:
        return slow()

    crash(main)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            main.resume(1)
    assert main.resume(1) == "done"


def test_person_who_resumes_after_too_many_interruptions_gets_another_try(program: Program, journal: Journal) -> None:
    program.write(
        """
        @task(max_interruptions=1)
        def poison():
            note("poison")
            if first_time():
                kill()
            return "survived"

        @flow
        def main():
            return poison()

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume(recovery=True)["type"] == TooManyInterruptions.__name__
    assert program.effects == ["poison"]
    assert program.resume()["result"] == "'survived'"
    assert journal.path.exists()


def test_system_exit_in_a_task_leaves_the_run_resumable(rows: Rows) -> None:
    left = [True]

    @task
    def leave() -> str:
        if left.pop() if left else False:
            raise SystemExit(3)
        return "stayed"

    @flow
    def main() -> str:
        return leave()

    with pytest.raises(SystemExit):
        main()
    assert rows.state() == ("CRASHED", "Crashed")
    assert main.resume(1) == "stayed"


def test_os_exit_in_a_task_leaves_the_run_resumable(program: Program) -> None:
    program.write(
        """
        @task
        def leave():
            if first_time():
                os._exit(4)
            return "stayed"

        @flow
        def main():
            return leave()

        main()
        """
    )
    assert program.run().code == 4
    assert program.resume(recovery=True) == {"state": "COMPLETED", "result": "'stayed'", "type": "str"}


def test_run_that_a_caught_interrupt_left_behind_stays_stopped(rows: Rows, journal: Journal) -> None:
    world = World()

    @task
    def fetch(number: int) -> int:
        world.ran.append(str(number))
        world.crash_once()
        return number

    @flow
    def swallowing() -> int:
        try:
            return fetch(1)
        except BaseException:
            return -1

    # A flow that swallows Ctrl-C in a task decided to go on; the task stays in doubt and the flow has its value.
    assert swallowing() == -1
    assert rows("SELECT state FROM tasks") == [("CRASHED",)]
    assert resume_run(journal, 1).result() == -1
