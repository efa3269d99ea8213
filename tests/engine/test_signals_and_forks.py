"""What unwinds or ends a process in the middle of a task or flow, and what a forked child may do. Real processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Program, Rows

#: What these tests are about begins or ends with a process: each of their programs is started anew.
FRESH_PROCESSES = True

SIGNALS = {
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    # What comes of one that reaches Python's Event.wait() just after it has let go of its lock.
    "KeyboardInterrupt in a wait": "with (lock := __import__('threading').Lock()): lock.release(); raise KeyboardInterrupt",
    "SystemExit": "sys.exit(3)",
    "GeneratorExit": "raise GeneratorExit",
    "CancelledError": "raise asyncio.CancelledError",
    "Own": "raise Own('out of the way')",
    "os._exit": "os._exit(3)",
}


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
    finally:
        connection.close()


def two_steps(statement: str, where: str) -> str:
    """Return a program whose first run is unwound by `statement`, in the second task or in the flow's body after it."""
    in_task, in_flow = (statement, "pass") if where == "task" else ("pass", statement)
    return f"""
        class Own(BaseException):
            pass

        @task
        def first():
            note("first")
            return 1

        @task(retries=2)
        def second(x):
            note("second")
            if first_time():
                {in_task}
            return x + 1

        @flow
        def chain():
            y = second(first())
            if first_time("body"):
                {in_flow}
            return y

        if __name__ == "__main__":
            chain()
    """


@pytest.mark.parametrize("where", ["task", "flow"])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_run_that_is_unwound_by_a_signal_is_resumable_and_repeats_no_finished_task(
    program: Program, rows: Rows, name: str, where: str
) -> None:
    program.write(two_steps(SIGNALS[name], where))
    done = program.run()
    assert done.code != 0, done
    if name != "os._exit":
        assert rows.state()[0] == "CRASHED", done
        expected = [("first", "COMPLETED", 1), ("second", "CRASHED" if where == "task" else "COMPLETED", 1)]
        assert rows("SELECT task, state, attempts FROM tasks ORDER BY id") == expected
    assert program.resume()["result"] == "2"
    # No retry was spent: the attempt was interrupted, which is no failure.
    assert program.effects == (["first", "second", "second"] if where == "task" else ["first", "second"])
    assert rows.state()[0] == "COMPLETED"
    assert is_sound(rows.path)


def test_the_exit_code_of_sys_exit_in_a_task_is_that_of_the_program(program: Program) -> None:
    program.write(two_steps("sys.exit(3)", "task"))
    assert program.run().code == 3


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "Own"])
def test_a_signal_in_a_submitted_task_ends_the_flow_that_waits_for_it(program: Program, rows: Rows, name: str) -> None:
    program.write(
        f"""
        class Own(BaseException):
            pass

        @task
        def work(x):
            note(f"work-{{x}}")
            if x == 1 and first_time():
                {SIGNALS[name]}
            return x

        @flow
        def fan():
            return sum(future.result() for future in [work.submit(x) for x in range(3)])

        if __name__ == "__main__":
            fan()
        """
    )
    assert program.run().code != 0
    assert rows.state()[0] == "CRASHED"
    assert program.resume()["result"] == "3"
    assert program.effects.count("work-1") == 2
    assert is_sound(rows.path)


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "CancelledError", "Own"])
def test_a_signal_in_an_async_task_leaves_a_resumable_run(program: Program, rows: Rows, name: str) -> None:
    program.write(
        f"""
        class Own(BaseException):
            pass

        @task
        async def work(x):
            note(f"work-{{x}}")
            if x == 1 and first_time():
                {SIGNALS[name]}
            return x

        @flow
        async def chain():
            return await work(0) + await work(1)

        if __name__ == "__main__":
            asyncio.run(chain())
        """
    )
    assert program.run().code != 0
    assert program.resume()["result"] == "1"
    assert program.effects == ["work-0", "work-1", "work-1"]
    assert rows.state()[0] == "COMPLETED"


FORKS = """
    from wfengine_journal.errors import ForkedProcessError

    @task
    def inner(x):
        return x

    @task
    def forking(x):
        child = os.fork()
        if child == 0:
            try:
                inner(x)
            except ForkedProcessError:
                note("refused")
            {leave}
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    @flow
    def fifty():
        return [forking(x) for x in range(50)]

    @flow
    def submitted():
        return forking.map(range(10)).result()

    if __name__ == "__main__":
        print({flow}())
"""


@pytest.mark.parametrize("leave", ["os._exit(4)", "sys.exit(4)"])
def test_after_50_forks_in_tasks_the_parents_journal_is_sound(program: Program, rows: Rows, leave: str) -> None:
    program.write(FORKS.format(leave=leave, flow="fifty"))
    done = program.run()
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == str([4] * 50)
    assert program.effects == ["refused"] * 50
    assert rows.state() == ("COMPLETED", "Completed")
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 50
    assert is_sound(rows.path)


@pytest.mark.parametrize("leave", ["os._exit(4)", "sys.exit(4)"])
def test_forks_in_submitted_tasks_harm_nothing(program: Program, rows: Rows, leave: str) -> None:
    program.write(FORKS.format(leave=leave, flow="submitted"))
    done = program.run()
    assert done.out.splitlines()[-1] == str([4] * 10), done
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 10
    assert is_sound(rows.path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_task_may_use_multiprocessing(program: Program, rows: Rows, method: str) -> None:
    program.write(
        f"""
        import multiprocessing

        def square(x):
            return x * x

        @task
        def squares(n):
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                return pool.map(square, range(n))

        @flow
        def count():
            return squares(5) + squares(3)

        if __name__ == "__main__":
            print(count())
        """
    )
    done = program.run()
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == "[0, 1, 4, 9, 16, 0, 1, 4]"
    assert rows.state()[0] == "COMPLETED"
    assert is_sound(rows.path)


def test_a_forked_child_runs_flows_of_its_own_that_outlive_its_parents_use_of_the_file(program: Program, rows: Rows) -> None:
    # SQLite keeps its record of locks per process: a child that inherits it takes no locks, the parent's close then
    # deletes the log, and what the child commits afterwards - and has acknowledged - is gone.
    program.write(
        """
        @task
        def double(x):
            return 2 * x

        @flow
        def work(x):
            return double(x)

        if __name__ == "__main__":
            journal = use_journal(None)
            work(1)
            ready, go = os.pipe()
            child = os.fork()
            if child == 0:
                assert work(10) == 20
                os.read(ready, 1)
                assert work(100) == 200
                sys.exit(0)
            work(2)
            journal.close()
            os.write(go, b".")
            assert os.waitpid(child, 0)[1] == 0
        """
    )
    done = program.run()
    assert done.code == 0, done
    found = rows("SELECT parameters, state FROM runs")
    assert set(found) == {(f'{{"x":{x}}}', "COMPLETED") for x in (1, 2, 10, 100)}
    assert is_sound(rows.path)


@pytest.mark.parametrize("before", ["use_journal(None)", "pass"], ids=["open", "being-opened"])
def test_a_child_forked_while_another_thread_commits_is_not_stuck(program: Program, rows: Rows, before: str) -> None:
    program.write(
        f"""
        import threading

        @task
        def add(x):
            return x + 1

        @flow
        def busy(n):
            for number in range(n):
                add(number)

        @flow
        def child_flow(x):
            return add(x)

        if __name__ == "__main__":
            {before}
            threads = [threading.Thread(target=busy, args=(200,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for number in range(10):
                child = os.fork()
                if child == 0:
                    child_flow(number)
                    sys.exit(0)
                assert os.waitpid(child, 0)[1] == 0
            for thread in threads:
                thread.join()
        """
    )
    done = program.run()
    assert done.code == 0, done
    assert rows.value("SELECT count(*) FROM runs WHERE state = 'COMPLETED'") == 13
    assert rows.value("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == 610
    assert is_sound(rows.path)


def test_a_flow_called_in_a_child_that_was_forked_inside_a_task_is_refused(program: Program) -> None:
    program.write(
        """
        from wfengine_journal.errors import ForkedProcessError

        @flow
        def other():
            return 1

        @task
        def forking():
            child = os.fork()
            if child == 0:
                try:
                    other()
                except ForkedProcessError as error:
                    note("refused")
                os._exit(0)
            os.waitpid(child, 0)

        @flow
        def outer():
            forking()

        if __name__ == "__main__":
            outer()
        """
    )
    assert program.run().code == 0
    assert program.effects == ["refused"]
