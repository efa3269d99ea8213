"""Background tasks over several processes: workers, and those who put tasks into the queue, are killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.engine.conftest import PROGRAM_SECONDS, Program, Rows
from wfengine import use_journal
from wfengine.distributed_futures import PrefectDistributedFuture
from wfengine_journal.errors import RecordedError, WfengineError


class Worker:
    """A process that serves the tasks of a program."""

    def __init__(self, program: Program, *options: str) -> None:
        self.program = program
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wfengine", "task", "serve", str(program.path), *options],
            cwd=program.folder,
            env=program.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.end()

    def end(self) -> tuple[int, str]:
        """Wait for the end of the process; return its exit code and what it said."""
        _, said = self.process.communicate(timeout=PROGRAM_SECONDS)
        return self.process.returncode, said or ""


def future_of(program: Program, task_run_id: int) -> PrefectDistributedFuture[object]:
    """Return the future of a task run that another process put into the queue."""
    use_journal(program.folder / "journal.db")
    return PrefectDistributedFuture(task_run_id)


def results(program: Program, rows: Rows, flow: str) -> list[object]:
    """Wait for every background run of a task, and return the results."""
    ids = [int(str(row[0])) for row in rows("SELECT id FROM tasks WHERE task = ? ORDER BY id", flow)]
    return [future_of(program, task_run_id).result(PROGRAM_SECONDS) for task_run_id in ids]


WORK = """
@task
def work(number):
    note(f"{number}:{os.getpid()}")
    return number * 2

if __name__ == "__main__":
    for number in range(COUNT):
        work.delay(number)
    kill()
"""


def test_what_was_put_into_the_queue_by_a_process_that_was_killed_at_once_is_run(program: Program, rows: Rows) -> None:
    program.write(WORK.replace("COUNT", "3"))
    program.run_and_be_killed()
    with Worker(program):
        assert results(program, rows, "work") == [0, 2, 4]


def test_a_child_that_a_task_of_a_worker_forked_can_be_terminated(program: Program, rows: Rows) -> None:
    program.write("""
import signal

@task
def work():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"x")  # Python drops signals that come while it forks
        while True:
            signal.pause()
    os.read(reading, 1)
    os.kill(child, 15)
    return os.waitpid(child, 0)[1]

if __name__ == "__main__":
    work.delay()
    kill()
""")
    program.run_and_be_killed()
    with Worker(program):
        assert results(program, rows, "work") == [15]


def test_two_workers_on_one_file_run_each_call_once(program: Program, rows: Rows) -> None:
    program.write(WORK.replace("COUNT", "100"))
    program.run_and_be_killed()
    with Worker(program, "--limit", "3"), Worker(program, "--limit", "3"):
        assert results(program, rows, "work") == [number * 2 for number in range(100)]
    assert Counter(effect.split(":")[0] for effect in program.effects) == {str(number): 1 for number in range(100)}
    assert rows.value("SELECT max(attempt) FROM runs") == 1


def test_worker_killed_in_the_middle_loses_nothing_and_runs_nothing_finished_again(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def work(number):
            note(f"begin-{number}")
            if number == 3 and first_time():
                kill()
            note(f"end-{number}")
            return number

        if __name__ == "__main__":
            for number in range(6):
                work.delay(number)
        """
    )
    assert program.run().code == 0
    with Worker(program, "--limit", "1") as killed:
        assert killed.end()[0] == -signal.SIGKILL
    assert program.effects[-1] == "begin-3"
    with Worker(program, "--limit", "1"):
        assert results(program, rows, "work") == [0, 1, 2, 3, 4, 5]
    assert Counter(program.effects) == Counter({"begin-3": 1}) + Counter(
        f"{what}-{number}" for what in ("begin", "end") for number in range(6)
    )
    assert rows("SELECT interruptions, attempts FROM tasks WHERE id = 4") == [(1, 2)]
    assert rows("SELECT reason FROM execution WHERE flow_run_id = 4 ORDER BY epoch") == [("start",), ("recovery",)]


def test_run_of_a_killed_worker_is_taken_over_by_one_that_lives(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def die():
            note("die")
            if first_time():
                kill()
            return "done"

        if __name__ == "__main__":
            die.delay()
        """
    )
    assert program.run().code == 0
    with Worker(program), Worker(program):
        assert results(program, rows, "die") == ["done"]
    assert program.effects == ["die", "die"]


def test_task_that_keeps_killing_its_workers_is_given_up(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task(max_interruptions=2)
        def die():
            note("die")
            kill()

        if __name__ == "__main__":
            die.delay()
        """
    )
    assert program.run().code == 0
    for _ in range(2):
        with Worker(program) as killed:
            assert killed.end()[0] == -signal.SIGKILL
    with Worker(program), pytest.raises((WfengineError, RecordedError), match="2 times when its process died"):
        results(program, rows, "die")
    assert program.effects == ["die", "die"]


def test_once_task_of_a_killed_worker_waits_for_a_person_and_the_others_go_on(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task(once=True)
        def pay():
            note("pay")
            kill()

        @task
        def other():
            note("other")
            return "other"

        if __name__ == "__main__":
            pay.delay()
        """
    )
    assert program.run().code == 0
    with Worker(program) as killed:
        assert killed.end()[0] == -signal.SIGKILL
    program.path.write_text(program.path.read_text().replace("pay.delay()", "other.delay()"))
    assert program.run().code == 0
    with Worker(program, "--limit", "1"):
        assert results(program, rows, "other") == ["other"]
    assert rows.state(1) == ("PAUSED", "InDoubt")
    resolved = program.python("-m", "wfengine", "resolve", "1", "1", "--done", '"paid"')
    assert resolved.code == 0, resolved
    resumed = program.python("-m", "wfengine", "resume", "1")
    assert resumed.code == 0, resumed
    assert future_of(program, 1).result(PROGRAM_SECONDS) == "paid"
    assert program.effects == ["pay", "other"]


FLOW = """
@task
def send(number):
    note(f"send-{number}")
    return number

@flow
def order():
    futures = [send.delay(number) for number in range(4)]
    if first_time():
        kill()
    return [future.task_run_id for future in futures]

if __name__ == "__main__":
    order()
"""


def test_flow_that_was_killed_after_delay_puts_nothing_twice_into_the_queue(program: Program, rows: Rows) -> None:
    program.write(FLOW)
    program.run_and_be_killed()
    before = rows("SELECT id FROM tasks WHERE task = 'send' ORDER BY id")
    assert len(before) == 4
    assert program.resume(recovery=True)["result"] == str([row[0] for row in before])
    with Worker(program):
        assert results(program, rows, "send") == [0, 1, 2, 3]
    assert sorted(program.effects) == [f"send-{number}" for number in range(4)]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 9))
def test_worker_killed_at_any_commit_loses_nothing_and_repeats_no_result(
    program: Program, rows: Rows, commit: int, before: bool
) -> None:
    program.write(
        f"""
        from wfengine_journal.writer import Writer
        plain, number = Writer._commit, [0]

        def commit(self, changes):
            number[0] += 1
            if number[0] == {commit} and {before} and first_time():
                kill()
            plain(self, changes)
            if number[0] == {commit} and first_time():
                kill()

        @task
        def work(name):
            note(name)
            return name

        if __name__ == "__main__":
            work.delay("a"), work.delay("b")
        else:
            Writer._commit = commit  # in the worker
        """
    )
    assert program.run().code == 0
    with Worker(program, "--limit", "1") as killed:
        assert killed.end()[0] == -signal.SIGKILL
    ended = [row[0] for row in rows("SELECT json_extract(inputs, '$.name') FROM tasks WHERE state = 'COMPLETED'")]
    before_that = program.effects
    with Worker(program):
        assert results(program, rows, "work") == ["a", "b"]
    again = program.effects[len(before_that) :]
    assert not set(ended) & set(again)
    assert set(program.effects) == {"a", "b"}
    assert len(program.effects) <= 3
    assert rows("SELECT state, tasks_done, tasks_total FROM runs") == [("COMPLETED", 1, 1)] * 2


@pytest.mark.parametrize("commit", range(1, 9))
def test_flow_killed_at_any_commit_puts_each_call_once_into_the_queue(program: Program, rows: Rows, commit: int) -> None:
    """Kill the flow just before and just after each of its commits; resumed, it has put all four there once."""
    program.write(
        FLOW.replace(
            "if first_time():\n        kill()",
            "pass",
        ).replace(
            'if __name__ == "__main__":',
            f"""
from wfengine_journal.writer import Writer
plain, number = Writer._commit, [0]

def commit(self, changes):
    number[0] += 1
    if number[0] == {(commit + 1) // 2 + 3} and {commit % 2 == 0} and first_time():
        kill()
    plain(self, changes)
    if number[0] == {(commit + 1) // 2 + 3} and first_time():
        kill()

Writer._commit = commit
if __name__ == "__main__":""",
        )
    )
    program.run_and_be_killed()
    if rows.value("SELECT count(*) FROM runs WHERE flow = 'order'"):
        assert "error" not in program.resume(1, recovery=True)
    else:
        assert program.run().code == 0
    assert rows("SELECT parameters FROM runs WHERE flow = 'send' ORDER BY id") == [(f'{{"number":{n}}}',) for n in range(4)]
    assert rows.value("SELECT count(*) FROM tasks WHERE task = 'send.delay'") == 4


# ------------------------------------------------------------------------------------------- stopping


GATED = """
@task
def work(name):
    note(f"begin-{name}")
    with open(HERE / "gate") as gate:  # a pipe: opens when somebody writes into it
        gate.read()
    note(f"end-{name}")
    return name

if __name__ == "__main__":
    work.delay("only")
"""


def begun(program: Program) -> PrefectDistributedFuture[object]:
    """Put the gated task into the queue, and return its future; its worker has begun it when the gate opens."""
    os.mkfifo(program.folder / "gate")
    program.write(GATED)
    assert program.run().code == 0
    return future_of(program, 1)


def open_gate(program: Program) -> int:
    """Wait until the task stands before the gate, and open it; it goes on when what is returned is closed."""
    return os.open(program.folder / "gate", os.O_WRONLY)


def test_worker_that_is_terminated_lets_finish_what_runs(program: Program, rows: Rows) -> None:
    future = begun(program)
    with Worker(program) as worker:
        gate = open_gate(program)
        worker.process.terminate()
        os.close(gate)
        code, said = worker.end()
    assert code == 0
    assert "nothing was left undone" in said
    assert future.result() == "only"
    assert program.effects == ["begin-only", "end-only"]


@pytest.mark.parametrize("is_async", [False, True])
def test_worker_that_is_terminated_twice_leaves_its_run_to_the_next_one(program: Program, rows: Rows, is_async: bool) -> None:
    future = begun(program)
    if is_async:
        text = program.path.read_text().replace("def work", "async def work")
        text = text.replace('with open(HERE / "gate") as gate:', 'with await asyncio.to_thread(open, HERE / "gate") as gate:')
        program.path.write_text(text.replace("gate.read()", "await asyncio.to_thread(gate.read)"))
    with Worker(program) as worker:
        gate = open_gate(program)
        assert worker.process.stderr is not None
        for line in worker.process.stderr:
            if "serving" in line:
                worker.process.send_signal(signal.SIGINT)
            if "stopping" in line:
                worker.process.send_signal(signal.SIGTERM)
                break
        _, said = worker.end()
    assert "left to the next worker: flow run 1" in said
    assert "Traceback" not in said
    assert rows.state() == ("CRASHED", "Crashed")
    os.close(gate)
    with Worker(program):
        os.close(open_gate(program))
        assert future.result(PROGRAM_SECONDS) == "only"
    assert program.effects == ["begin-only", "begin-only", "end-only"]
    assert rows("SELECT interruptions FROM tasks") == [(0,)]


# ------------------------------------------------------------------------------------------- finding the code


def test_loading_a_script_that_serves_and_delays_at_module_level_does_neither(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def work(number):
            note(f"work-{number}")
            return number

        future = work.delay(1)
        print(future.flow_run_id)
        if not (HERE / "no-serve").exists():
            work.serve(timeout=0.01)
        """
    )
    (program.folder / "no-serve").touch()
    assert program.run().code == 0
    (program.folder / "no-serve").unlink()
    with Worker(program):
        assert results(program, rows, "work") == [1]
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_background_run_that_failed_is_resumed_by_a_person_from_its_file(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def work(number):
            if not (HERE / "mended").exists():
                raise ValueError("broken")
            return number

        if __name__ == "__main__":
            work.delay(7)
        """
    )
    assert program.run().code == 0
    with Worker(program), pytest.raises(ValueError, match="broken"):
        future_of(program, 1).result(PROGRAM_SECONDS)
    (program.folder / "mended").touch()
    done = program.python("-m", "wfengine", "resume", "1")
    assert done.code == 0, done
    assert future_of(program, 1).result() == 7


def test_run_whose_arguments_cannot_be_read_here_is_left_to_a_worker_that_can(program: Program, rows: Rows) -> None:
    helper = program.folder / "shapes.py"
    text = "from dataclasses import dataclass\n@dataclass\nclass Box:\n    size: int\n"
    helper.write_text(text)
    program.write(
        """
        @task
        def work(box):
            return getattr(box, "size", box)

        if __name__ == "__main__":
            from shapes import Box
            work.delay(Box(1))
            work.delay(2)
        """
    )
    assert program.run().code == 0
    helper.unlink()
    with Worker(program, "--limit", "1") as worker:
        assert future_of(program, 2).result(PROGRAM_SECONDS) == 2
        worker.process.terminate()
        code, said = worker.end()
    assert "flow run 1 could not be run here and is left to another worker" in said
    assert code == 0
    assert rows.state(1) == ("SCHEDULED", "Scheduled")
    helper.write_text(text)
    with Worker(program):
        assert future_of(program, 1).result(PROGRAM_SECONDS) == 1


def test_classes_of_a_script_are_the_same_in_its_worker(program: Program, rows: Rows) -> None:
    program.write(
        """
        from dataclasses import dataclass

        @dataclass
        class Box:
            size: int

        class Lost(Exception):
            pass

        @task
        def work(box):
            if box.size == 0:
                raise Lost(box.size)
            return type(box) is Box, Box(box.size + 1)

        if __name__ == "__main__":
            future, lost = work.delay(Box(1)), work.delay(Box(0))
            same, box = future.result(60)
            print(same, type(box) is Box, box.size)
            try:
                lost.result(60)
            except Lost as error:
                print("lost", error)
        """
    )
    with Worker(program):
        assert program.run().out.splitlines() == ["True True 2", "lost 0"]


def test_worker_says_what_it_serves_and_from_where(program: Program, tmp_path: Path) -> None:
    program.write(WORK)
    with Worker(program, "--timeout", "0.01") as worker:
        code, said = worker.end()
    assert code == 0
    assert f"serving 'work' from {tmp_path / 'journal.db'}, at most 10 at a time" in said
