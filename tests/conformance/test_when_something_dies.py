"""Deaths on each runner, of the worker and of the flow's process, in the middle of whatever they do: nothing is lost."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import wfengine
from tests.conformance.runners import Place
from tests.conformance.work import double, length, touch, wait_for_file
from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine_journal.errors import CancelledRun, InDoubtError, TaskInterrupted, UnsendableError, WorkerDiedError

LIMIT = 45

#: Cases with one map over many tasks: 100 times when asked for, as long as the table of the release needs.
TIMES = int(os.environ.get("WFENGINE_KILLS", "1"))


def die(how: str) -> None:
    """End the process that runs this."""
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


def die_unless_in(pid: int) -> None:
    """End the process that runs this, unless it is that one."""
    if os.getpid() != pid:
        die("kill")


def test_the_death_of_a_worker_costs_its_task_and_no_other(place: Place) -> None:
    place.needs("process")

    @task
    def work(how: str) -> str:
        if how != "lives":
            die(how)
        return how

    @flow(task_runner=place.new())
    def main() -> None:
        hows = ["lives", "exit", "lives", "segfault", "lives", "kill", "lives", "lives"]
        futures = work.map(hows)
        for how, future in zip(hows, futures, strict=True):
            result = future.result(raise_on_failure=False)
            assert result == "lives" if how == "lives" else isinstance(result, WorkerDiedError), (how, result)
        assert double.map(range(10)).result() == list(range(0, 20, 2))  # the pool has healed

    main()


def test_a_task_with_retries_is_tried_again_on_another_worker(place: Place, tmp_path: Path, rows: Rows) -> None:
    place.needs("process")

    @task(retries=2)
    def once(folder: str) -> int:
        if not (Path(folder) / "died").exists():
            touch(folder, "died")
            die("kill")
        return 1

    @flow(task_runner=place.new())
    def main() -> int:
        return once.submit(str(tmp_path)).result()

    assert main() == 1
    assert rows("SELECT attempt, failures, state FROM task_run") == [(2, 1, "COMPLETED")]


def test_a_task_that_must_not_run_again_unasked_fails_or_is_in_doubt_when_its_worker_dies(place: Place, rows: Rows) -> None:
    place.needs("process")

    @task(on_interrupt="fail", retries=3)
    def interrupted() -> None:
        die("kill")

    @task(once=True)
    def at_most_once() -> None:
        die("exit")

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(TaskInterrupted):
            interrupted.submit().result()
        at_most_once.submit().result()

    with pytest.raises(InDoubtError):
        main()
    assert rows("SELECT attempt FROM task_run ORDER BY id") == [(1,), (1,)]
    assert rows.state() == ("PAUSED", "InDoubt")


def test_a_worker_may_die_while_it_asks(place: Place, tmp_path: Path) -> None:
    place.needs("process")

    @task
    def asks(folder: str, how: str) -> int:
        if how == "later":
            threading.Thread(target=lambda: (wait_for_file(folder, "asked"), die("kill")), daemon=True).start()
            touch(folder, "asked")
        for number in range(10_000):
            double(number)
            if how == "between" and number == 3:
                die("kill")
        return 1

    @flow(task_runner=place.new())
    def main() -> None:
        for how in ("later", "between"):
            with pytest.raises(WorkerDiedError):
                asks.submit(str(tmp_path), how).result()
        assert double.submit(2).result() == 4

    main()


def test_exit_of_a_nested_task_s_process_is_the_death_of_both(place: Place) -> None:
    place.needs("process")

    @task
    def inner() -> None:
        die("exit")

    @task
    def outer() -> None:
        inner()

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(WorkerDiedError):
            outer.submit().result()
        assert double.submit(2).result() == 4

    main()


def test_what_a_task_does_to_its_process_harms_nobody(place: Place) -> None:
    place.needs("process", "own workers")

    @task
    def misbehave(what: str) -> str:
        if what == "fork":
            if not os.fork():
                os._exit(0)
        elif what == "forked child comes back":
            if os.fork():
                os.wait()
        elif what == "stdout closed":
            sys.stdout.close()
        elif what == "descriptors closed":
            os.closerange(0, 256)
        elif what == "thread stays":
            threading.Thread(target=lambda: threading.Event().wait(100), daemon=False).start()
        elif what == "signals ignored":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif what == "folder left":
            os.chdir("/")
        elif what == "modules gone":
            sys.modules.clear()
        return what

    whats = [
        "fork", "forked child comes back", "stdout closed", "descriptors closed", "thread stays", "signals ignored",
        "folder left", "modules gone",
    ]  # fmt: skip

    @flow(task_runner=place.new())
    def main() -> None:
        for what in whats:
            result = misbehave.submit(what).result(raise_on_failure=False)
            assert result == what or isinstance(result, WorkerDiedError), (what, result)
            assert double.map(range(6)).result() == list(range(0, 12, 2)), what

    main()


def test_a_thread_that_outlives_its_task_is_not_heard(place: Place, tmp_path: Path, rows: Rows) -> None:
    place.needs("process", "staying workers")

    @task
    def leave_behind(folder: str) -> int:
        def later() -> None:
            wait_for_file(folder, "over")
            try:
                double(77)
            except BaseException as error:
                (Path(folder) / "refused").write_text(type(error).__name__)

        threading.Thread(target=wfengine.carry(later)).start()
        return 1

    @flow(task_runner=place.new(workers=1))
    def main() -> None:
        assert leave_behind.submit(str(tmp_path)).result() == 1
        touch(str(tmp_path), "over")
        assert double.map(range(5)).result() == [0, 2, 4, 6, 8]
        wait_for_file(str(tmp_path), "refused", LIMIT)

    main()
    assert rows("SELECT count(*) FROM task_run") == [(6,)]


def test_a_worker_that_is_stopped_by_a_signal_does_not_hold_up_a_cancellation(place: Place, tmp_path: Path) -> None:
    place.needs("process", "stopping")

    @task
    def freeze(folder: str) -> None:
        touch(folder, "began")
        os.kill(os.getpid(), signal.SIGSTOP)

    @flow(task_runner=place.new())
    def main() -> None:
        freeze.submit(str(tmp_path)).result()

    def ask() -> None:
        wait_for_file(str(tmp_path), "began")
        wfengine.cancel(1)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(CancelledRun):
        main()
    thread.join()


def test_an_argument_of_a_size_that_fills_every_pipe_goes_to_a_worker_that_dies(place: Place) -> None:
    place.needs("process")

    @task
    def dies(value: bytes) -> None:
        die("kill")

    class Heavy:
        def __reduce__(self) -> tuple[object, tuple[int]]:
            return die_unless_in, (os.getpid(),)  # when it is unpickled

    @task
    def unpickles(value: bytes, heavy: object) -> None:
        pass

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(WorkerDiedError):
            dies.submit(bytes(24 << 20)).result()
        with pytest.raises((WorkerDiedError, UnsendableError)):
            unpickles.submit(bytes(24 << 20), Heavy()).result()
        assert length.submit(bytes(100)).result() == 100

    main()


# ------------------------------------------------------------------------------------------- the flow's process

SCRIPT = """
from {module} import *

@task
def work(number):
    note(f"{{number}}")
    if number == {victim} and first_time():
        {death}
    return number

@flow(task_runner={code})
def main():
    return sum(work.map(range({count})).result())

if __name__ == "__main__":
    (HERE / "driver").write_text(str(os.getpid()))
    print(main())
"""


def acknowledged(rows: Rows) -> set[int]:
    """Return the numbers whose results were in the journal."""
    return {int(str(value)) for (value,) in rows("SELECT result FROM task_run WHERE state = 'COMPLETED'")}


@pytest.mark.timeout(60 + 40 * TIMES, func_only=True)
@pytest.mark.parametrize("turn", range(TIMES))
def test_a_flow_whose_process_dies_goes_on_without_running_anything_acknowledged_again(
    place: Place, program: Program, rows: Rows, turn: int
) -> None:
    count = 200
    victim = 30 + (turn * 37) % 150
    program.write(
        SCRIPT.format(
            module=place.candidate.module,
            code=place.code(),
            victim=victim,
            count=count,
            death=f"os.kill({_driver(place)}, 9)",
        )
    )
    program.run_and_be_killed()
    before, ran = acknowledged(rows), program.effects
    assert len(before) >= 1
    answer = program.resume()
    assert answer["state"] == "COMPLETED", answer
    assert answer["result"] == str(sum(range(count)))
    again = {int(number) for number in program.effects[len(ran) :]}
    assert not again & before
    assert {int(number) for number in program.effects} == set(range(count))


def _driver(place: Place) -> str:
    """Return what gives a task the number of the flow's process."""
    return "int((HERE / 'driver').read_text())" if place.is_away else "os.getpid()"


@pytest.mark.timeout(60 + 40 * TIMES, func_only=True)
@pytest.mark.parametrize("turn", range(TIMES))
def test_the_others_of_a_map_finish_when_ten_workers_are_killed(place: Place, tmp_path: Path, rows: Rows, turn: int) -> None:
    place.needs("process")
    count = 200
    victims = {(turn * 41 + step * 19) % count for step in range(10)}

    @task
    def work(folder: str, number: int) -> int:
        with (Path(folder) / "effects").open("a") as file:
            file.write(f"{number}\n")
        if number in victims:
            die("kill")
        return number

    @flow(task_runner=place.new())
    def main() -> None:
        results = work.map(str(tmp_path), range(count)).result(raise_on_failure=False)
        assert [result for result in results if isinstance(result, int)] == [n for n in range(count) if n not in victims]
        assert all(isinstance(results[victim], WorkerDiedError) for victim in victims)

    main()
    assert sorted(map(int, (tmp_path / "effects").read_text().split())) == list(range(count))  # each once


@pytest.mark.parametrize("how", ["in Python", "in C"])
def test_workers_die_with_the_process_of_their_flow(place: Place, program: Program, how: str) -> None:
    place.needs("process", "own workers")
    busy = "while True: pass" if how == "in Python" else "import hashlib; hashlib.pbkdf2_hmac('sha512', b'a', b'b', 10**10)"
    program.write(
        f"""
        from {place.candidate.module} import *

        @task
        def busy():
            note(str(os.getpid()))
            {busy}

        @flow(task_runner={place.code()})
        def main():
            busy.submit()
            busy.submit().result()

        if __name__ == "__main__":
            main()
        """
    )
    with subprocess.Popen([sys.executable, str(program.path)], env=program.environment, cwd=program.folder) as driver:
        deadline = time.monotonic() + LIMIT
        while len(program.effects) < 2:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        driver.kill()
    while any(_lives(int(pid)) for pid in program.effects):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
