"""Runs in processes of their own: real processes that crash in every way there is, and what is journaled of that."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Rows
from tests.engine.isolated import RUN_SECONDS, Bench, assert_dies, open_descriptors
from wfengine.cancellation import cancel_run
from wfengine.executor import Executor
from wfengine.isolation import Children
from wfengine.loading import load_tasks
from wfengine.ownership import sweep
from wfengine.task_worker import TaskWorker
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")

MB = 1 << 20
#: Runs that go through four processes; the longer programme sets 200.
LAUNCHES = int(os.environ.get("WFENGINE_TEST_LAUNCHES", "50"))


@pytest.fixture
def bench(journal: Journal, tmp_path: Path) -> Iterator[Bench]:
    children = Children(journal)
    yield Bench(journal, tmp_path, children)
    children.close(30)


def test_a_run_lives_in_a_process_of_its_own_whose_end_is_journaled(
    bench: Bench, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write("""
        @flow
        def main(number: int = 1):
            print("the number is", number)
            print("and this is an error", file=sys.stderr)
            os.write(1, b"without an end of line")
            return step(number) + os.getpid()
    """)
    ballast = bytearray(120 * MB)  # what this process has is not counted as the other one's
    ballast[::4096] = b"x" * len(ballast[::4096])
    with caplog.at_level(logging.INFO, "wfengine.isolation"):
        assert bench.live(bench.queue(number=7)) == ("COMPLETED", None)
    pid = rows.value("SELECT o.pid FROM execution e JOIN owner o ON o.id = e.owner_id")
    assert pid != os.getpid()
    assert rows.value("SELECT result FROM flow_run") == str(7 + int(str(pid)))
    code, peak, output = bench.end(1)
    assert (code, output) == (0, "the number is 7\nand this is an error\nwithout an end of line")
    assert isinstance(peak, int)
    assert 5 * MB < peak < 100 * MB
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "flow run 1: the number is 7", "flow run 1: and this is an error", "flow run 1: without an end of line",
    ]  # fmt: skip
    report = bench.children.report()
    assert (report["running"], report["launched"], report["ended"], report["crashed"]) == ([], 1, 1, 0)


@pytest.mark.parametrize(
    ("crash", "code", "message"),
    [
        ("ctypes.string_at(0)", -signal.SIGSEGV, "its process was ended by SIGSEGV"),
        ("os.abort()", -signal.SIGABRT, "its process was ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "its process was ended by SIGKILL"),
        ("os._exit(3)", 3, "its process ended with exit code 3"),
        ("os._exit(0)", 0, "its process ended with exit code 0"),
        ("os.kill(os.getpid(), 40)", -40, "its process was ended by signal 40"),
    ],
)
def test_a_crash_costs_one_attempt_and_the_next_goes_on_from_what_is_recorded(
    bench: Bench, rows: Rows, crash: str, code: int, message: str
) -> None:
    bench.write(f"""
        @task
        def fatal():
            print("about to crash", flush=True)
            if first_time():
                {crash}
            return 2

        @flow
        def main():
            return step(1) + fatal() + step(3)
    """)
    run_id = bench.queue()
    assert bench.live(run_id) == ("CRASHED", message)
    found, _, output = bench.end(run_id)
    assert found == code
    assert str(output).startswith("about to crash\n")
    assert rows(
        "SELECT crashes, interruptions FROM flow_run r JOIN task_run t ON t.flow_run_id = r.id WHERE t.state = 'CRASHED'"
    )
    assert bench.live(run_id) == ("COMPLETED", None)
    assert rows.value("SELECT result FROM flow_run") == "6"
    assert bench.effects == ["step1", "step3"]
    assert rows("SELECT reason, exit_code FROM execution ORDER BY epoch") == [("start", code), ("recovery", 0)]
    assert rows.value("SELECT crashes FROM flow_run") == 1


def test_what_runs_beside_a_run_that_crashes_does_not_notice(bench: Bench) -> None:
    bench.write("""
        @flow
        def main():
            return step(1)

        @flow
        def crashing():
            ctypes.string_at(0)

        @flow
        def waiting():
            os.mkfifo(HERE / "go")
            note("waits")
            (HERE / "go").read_text()  # until somebody writes into it
            return step(2)
    """)
    waits = bench.queue("waiting")
    over = bench.launch(waits)
    bench.wait_for("waits")
    assert bench.live(bench.queue("crashing"))[0] == "CRASHED"
    assert bench.live(bench.queue("main")) == ("COMPLETED", None)
    (bench.folder / "go").write_text("")
    assert over.wait(RUN_SECONDS)
    assert bench.state(waits) == ("COMPLETED", None)


def test_a_crash_in_a_subflow_crashes_it_and_the_run_around_it(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def inner():
            step(2)
            if first_time():
                os._exit(9)
            return 2

        @flow
        def main():
            return step(1) + inner()
    """)
    assert bench.live(bench.queue()) == ("CRASHED", "its process ended with exit code 9")
    assert rows("SELECT state FROM flow_run") == [("CRASHED",), ("CRASHED",)]
    assert rows("SELECT flow_run_id, exit_code FROM execution") == [(1, 9), (2, None)]
    assert bench.live(1) == ("COMPLETED", None)
    assert bench.effects == ["step1", "step2"]


def test_of_a_run_that_goes_on_as_a_new_one_the_last_says_how_its_process_ended(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main(number: int = 0):
            if number < 2:
                continue_as_new(number=number + 1)
            os._exit(4)
    """)
    bench.live(bench.queue())
    assert rows("SELECT state, state_name, exit_code FROM flow_run r JOIN execution e ON e.flow_run_id = r.id") == [
        ("COMPLETED", "ContinuedAsNew", None), ("COMPLETED", "ContinuedAsNew", None), ("CRASHED", None, 4),
    ]  # fmt: skip
    assert bench.live(1)[0] == "COMPLETED"  # goes on with the last one
    assert rows("SELECT reason, exit_code FROM execution WHERE flow_run_id = 3") == [("start", 4), ("recovery", 4)]


# ------------------------------------------------------------------------------------------- limits


def test_a_task_that_asks_for_more_memory_than_the_limit_fails_where_it_asks(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @task
        def greedy():
            return len(bytearray(600 << 20))

        @flow
        def main():
            step(1)
            return greedy()
    """)
    run_id = bench.queue()
    assert bench.live(run_id, memory=256 * MB)[0] == "FAILED"
    assert rows("SELECT type, task FROM failures WHERE task IS NOT NULL") == [("MemoryError", "greedy")]
    assert bench.end(run_id)[0] == 0
    assert bench.live(bench.queue(), memory=1024 * MB) == ("COMPLETED", None)


def test_memory_taken_in_small_pieces_leaves_none_for_the_engine_and_the_run_says_so_and_can_go_on(bench: Bench) -> None:
    bench.write("""
        HELD = []

        @flow
        def main():
            step(1)
            while first_time():
                while True:
                    HELD.append(bytes(100))
            return step(2)
    """)
    run_id = bench.queue()
    state, message = bench.live(run_id, memory=128 * MB)
    assert (state, message) in (("CRASHED", "used more than 134 MB"), ("FAILED", "MemoryError: "))
    if state == "CRASHED":
        assert bench.live(run_id, memory=128 * MB) == ("COMPLETED", None)
        assert bench.effects == ["step1", "step2"]


def test_a_process_that_dies_of_its_memory_limit_says_so(bench: Bench) -> None:
    # Of a process that a signal ended it can only be said if it had more than its supervisor, which is this one.
    held = max(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 64 * MB, 1200 * MB)
    limit = held + held // 11
    bench.write(f"""
        @flow
        def main():
            held = bytearray({held})
            held[::4096] = b"x" * len(held[::4096])
            os.abort()  # as a library does that was refused memory

        @flow
        def tight():
            return 1
    """)
    state, message = bench.live(bench.queue(), memory=limit)
    assert state == "CRASHED"
    assert message is not None
    found = re.fullmatch(r"its process was ended by SIGABRT, having used (\d+) MB of at most (\d+) MB", message)
    assert found, message
    assert held <= int(found[1]) * 1_000_000 + 1_000_000 <= limit
    assert int(found[2]) == round(limit / 1e6)
    # Which part of it is refused memory first depends on the version of Python: its own start, or the flow's code.
    state, message = bench.live(bench.queue("tight"), memory=1 * MB)
    assert state in ("CRASHED", "FAILED"), (state, message)
    assert "before the run began" in str(message) or "cannot be loaded" in str(message)


@pytest.mark.parametrize(
    "endless", ["while True: pass", "ctypes.PyDLL(None).sleep(600)"], ids=["in Python", "in code that lets nothing else run"]
)
def test_a_run_beyond_its_time_limit_is_killed_with_all_that_it_started(bench: Bench, endless: str) -> None:
    bench.write(f"""
        @flow
        def main():
            step(1)
            if first_time():
                note(f"started{{subprocess.Popen(['sleep', '600']).pid}}")
                {endless}
            return step(2)
    """)
    run_id = bench.queue()
    over = bench.launch(run_id, seconds=5)
    started = int(bench.wait_for("started"))
    assert over.wait(RUN_SECONDS)
    assert bench.state(run_id) == ("CRASHED", "ran longer than 5 s: killed")
    code, peak, _ = bench.end(run_id)
    assert code == -signal.SIGKILL
    assert isinstance(peak, int)
    assert_dies(started)
    assert bench.live(run_id, seconds=60) == ("COMPLETED", None)
    assert [effect for effect in bench.effects if effect.startswith("step")] == ["step1", "step2"]


def test_of_what_a_run_prints_the_last_is_kept_and_the_log_gets_no_more_than_it_can_bear(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write("""
        @flow
        def main():
            for number in range(40_000):
                print(f"{number:06d} é " + "x" * 50)
    """)
    run_id = bench.queue()
    with caplog.at_level(logging.INFO, "wfengine.isolation"):
        assert bench.live(run_id) == ("COMPLETED", None)
    output = str(bench.end(run_id)[2])
    assert 8000 < len(output.encode()) <= 8192
    assert output.endswith("039999 é " + "x" * 50 + "\n")
    assert sum(len(record.getMessage()) for record in caplog.records) < 3 * MB
    assert "is not shown here" in caplog.records[-1].getMessage()


def test_what_a_run_leaves_behind_in_a_session_of_its_own_does_not_hold_its_end_up(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main():
            note(f"left{subprocess.Popen(['sleep', '600'], start_new_session=True).pid}")  # has the pipe of the output
            print("printed")
            return 1
    """)
    assert bench.live(bench.queue()) == ("COMPLETED", None)
    assert rows("SELECT exit_code, output FROM execution") == [(0, "printed\n")]
    bench.children.close(30)
    os.kill(int(bench.wait_for("left")), signal.SIGKILL)


# ------------------------------------------------------------------------------------------- before it begins


def test_the_code_is_that_on_disk_when_the_run_is_launched(bench: Bench, rows: Rows) -> None:
    text = """
        @flow
        def main():
            return {answer}
    """
    bench.write(text.format(answer=1))
    bench.children.prepare()
    bench.live(bench.queue())
    bench.write(text.format(answer=2))
    bench.live(bench.queue())
    assert rows("SELECT result FROM flow_run") == [("1",), ("2",)]


def test_modules_to_load_beforehand_are_there_and_one_that_is_missing_stops_nothing(journal: Journal, tmp_path: Path) -> None:
    children = Children(journal, preload=["decimal", "no_such_module"])
    bench = Bench(journal, tmp_path, children)
    bench.write("""
        @flow
        def main():
            return "decimal" in sys.modules
    """)
    assert bench.live(bench.queue()) == ("COMPLETED", None)
    assert "module no_such_module could not be loaded beforehand: ModuleNotFoundError" in str(bench.end(1)[2])
    assert journal.records.rows("SELECT result FROM flow_run") == [("true",)]
    children.close(30)


def test_a_run_that_cannot_begin_fails_with_the_reason(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main(number: int):
            return number
    """)
    state, message = bench.live(bench.queue(number="many"))
    assert state == "FAILED"
    assert message is not None
    assert "many" in message
    assert bench.live(bench.queue("no_such_flow"))[0] == "FAILED"
    assert rows("SELECT count(*) FROM execution") == [(0,)]


def test_a_file_that_kills_whoever_loads_it_counts_as_a_crash_each_time(bench: Bench, rows: Rows) -> None:
    bench.write("""
        print("loaded")
        os._exit(5)
    """)
    run_id = bench.queue()
    expected = ("CRASHED", "its process ended with exit code 5, before the run began")
    assert bench.live(run_id) == expected
    assert bench.live(run_id) == expected
    assert rows("SELECT state, epoch, crashes FROM flow_run") == [("CRASHED", 0, 2)]
    assert rows.value("SELECT count(*) FROM transition WHERE state = 'CRASHED'") == 1
    assert "It said: loaded\n" in str(rows("SELECT message FROM log")[0][0])
    bench.write("""
        @flow
        def main():
            return step(1)
    """)
    assert bench.live(run_id) == ("COMPLETED", None)


def test_a_run_that_another_process_has_or_that_has_ended_is_left_alone(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main():
            os.mkfifo(HERE / "go")
            note("waits")
            (HERE / "go").read_text()  # until somebody writes into it
            return step(1)
    """)
    run_id = bench.queue()
    over = bench.launch(run_id)
    bench.wait_for("waits")
    with pytest.raises(UsageError, match="was launched already"):
        bench.launch(run_id)
    other = Bench(bench.journal, bench.folder, Children(bench.journal))
    assert other.live(run_id)[0] == "RUNNING"
    (bench.folder / "go").write_text("")
    assert over.wait(RUN_SECONDS)
    assert other.live(run_id) == ("COMPLETED", None)
    assert bench.effects == ["waits", "step1"]
    assert rows("SELECT epoch, exit_code FROM execution") == [(1, 0)]
    other.children.close(30)


def test_where_no_process_can_be_started_the_run_waits_and_the_next_launch_is_as_good_as_any(bench: Bench) -> None:
    bench.write("""
        @flow
        def main():
            return step(1)
    """)
    run_id = bench.queue()
    before = bench.state(run_id)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() - 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            bench.launch(run_id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bench.state(run_id) == before
    assert bench.children.report()["running"] == []
    assert bench.live(run_id) == ("COMPLETED", None)


WATCHED = """
import os, signal, subprocess, sys
from wfengine import child_process
from wfengine_journal.threads import start_thread

print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
if sys.argv[1] == "by the kernel":
    child_process.die_with_the_supervisor(0)
else:
    start_thread("watch", lambda: child_process._watch(0))
print("watched", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", ["by the kernel", "by a thread"])
def test_a_process_dies_with_all_that_it_started_when_its_pipe_is_closed(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    started = int(process.stdout.readline())
    assert process.stdout.readline() == "watched\n"
    process.stdin.close()
    assert process.wait(RUN_SECONDS) == -signal.SIGKILL
    assert_dies(started)
    process.stdout.close()


# ------------------------------------------------------------------------------------------- stopping


SLEEPERS = """
    @flow
    def main():
        step(1)
        try:
            if first_time():
                note("sleeps")
                time.sleep(600)
        finally:
            note("cleanup")
        return step(2)

    @flow
    async def waits():
        step(1)
        try:
            if first_time():
                note("sleeps")
                await asyncio.sleep(600)
        finally:
            note("cleanup")
        return step(2)

    @flow
    def deaf():
        step(1)
        if first_time():
            note(f"started{subprocess.Popen(['sleep', '600']).pid}")
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            note("sleeps")
            time.sleep(600)
        note("cleanup")
        return step(2)
"""


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ("main", "interrupted by Sigterm"),
        ("waits", "interrupted by CancelledError"),
        ("deaf", "its process was told to stop, did not, and was killed"),
    ],
)
def test_closing_stops_what_runs_within_the_bound_and_it_can_be_resumed(
    bench: Bench, rows: Rows, flow: str, message: str
) -> None:
    bench.write(SLEEPERS)
    run_id = bench.queue(flow)
    over = bench.launch(run_id)
    bench.wait_for("sleeps")
    bench.children.close(1.0 if flow == "deaf" else 30.0)
    assert over.is_set()
    assert bench.state(run_id) == ("CRASHED", message)
    if flow == "deaf":
        assert_dies(int(bench.wait_for("started")))
    assert rows("SELECT crashes FROM flow_run") == [(0,)]  # nobody's fault
    assert rows("SELECT exit_code FROM execution") == [(-signal.SIGKILL if flow == "deaf" else -signal.SIGTERM,)]
    with pytest.raises(UsageError, match="closed"):
        bench.launch(run_id)
    bench.children = Children(bench.journal)
    assert bench.live(run_id) == ("COMPLETED", None)
    assert bench.effects.count("step1") == bench.effects.count("step2") == 1
    bench.children.close(30)


def test_one_run_can_be_stopped_or_cancelled(bench: Bench) -> None:
    bench.write(SLEEPERS)
    run_id = bench.queue()
    over = bench.launch(run_id)
    bench.wait_for("sleeps")
    bench.children.stop(run_id)
    assert over.wait(RUN_SECONDS)
    assert bench.state(run_id) == ("CRASHED", "interrupted by Sigterm")
    bench.children.stop(run_id)  # nothing to stop any more
    (bench.folder / "effects.txt").unlink()
    (bench.folder / "crashed").unlink()
    cancelled = bench.queue("waits")
    over = bench.launch(cancelled)
    bench.wait_for("sleeps")
    cancel_run(bench.journal, cancelled, "not needed")
    assert over.wait(RUN_SECONDS)
    assert bench.state(cancelled)[0] == "CANCELLED"
    assert bench.end(cancelled)[0] == 0


def test_a_process_whose_end_is_about_to_be_recorded_is_not_taken_for_dead_by_this_one(bench: Bench) -> None:
    bench.write("""
        @flow
        def main():
            note(os.getpid())
            time.sleep(600)
    """)
    run_id = bench.queue()
    over = bench.launch(run_id)
    pid = int(bench.wait_for(""))
    with bench.children._changed:  # its end cannot be recorded now
        os.kill(pid, signal.SIGKILL)
        assert_dies(pid)
        assert sweep(bench.journal) == []
    assert over.wait(RUN_SECONDS)
    assert bench.state(run_id) == ("CRASHED", "its process was ended by SIGKILL")
    assert sweep(bench.journal) == []


def test_a_process_that_is_stopped_at_once_leaves_its_run_as_if_nothing_had_been(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main():
            return step(1)
    """)
    for prepared in (False, True):
        if prepared:
            bench.children.prepare()
        run_id = bench.queue()
        over = bench.launch(run_id)
        bench.children.stop(run_id)
        assert over.wait(RUN_SECONDS)
        if bench.state(run_id)[0] != "COMPLETED":
            bench.live(run_id)
    assert rows("SELECT state, crashes FROM flow_run") == [("COMPLETED", 0), ("COMPLETED", 0)]


# ------------------------------------------------------------------------------------------- the executor


def test_an_executor_gives_runs_of_isolated_deployments_processes_and_takes_up_what_crashes(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main(number: int):
            step(number)
            if number % 2 and first_time(f"crashed{number}"):
                ctypes.string_at(0)
            return os.getpid()

        @flow
        def hopeless():
            os._exit(7)

        @flow
        def slow():
            while first_time():
                time.sleep(600)

        @flow
        def greedy():
            return len(bytearray(600 << 20))

        @flow
        def here():
            return os.getpid()
    """)
    bench.deploy("main", isolate=1, concurrency_limit=2)
    bench.deploy("hopeless", isolate=1, max_recoveries=2)
    bench.deploy("slow", isolate=1, time_limit_seconds=5.0)
    bench.deploy("greedy", isolate=1, memory_limit_bytes=256 * MB)
    runs = [bench.queue("main", number=number) for number in range(6)]
    others = [bench.queue(flow) for flow in ("hopeless", "slow", "greedy", "here")]
    executor = Executor(bench.journal, limit=4, isolate=Children)
    executor.run_once()
    assert [bench.state(run_id)[0] for run_id in runs] == ["COMPLETED"] * 6
    assert sorted(bench.effects) == [f"step{number}" for number in range(6)]
    assert len(set(rows("SELECT result FROM flow_run WHERE id <= 6"))) == 6
    assert [bench.state(run_id) for run_id in others[:2]] == [
        ("CRASHED", "its process ended with exit code 7"), ("COMPLETED", None),
    ]  # fmt: skip
    assert rows("SELECT crashes FROM flow_run WHERE id = ?", others[0]) == [(3,)]
    assert rows("SELECT exit_code FROM execution WHERE flow_run_id = ? ORDER BY epoch", others[1]) == [(-9,), (0,)]
    assert bench.state(others[2])[0] == "FAILED"
    assert rows.value("SELECT result FROM flow_run WHERE id = ?", others[3]) == str(os.getpid())


@pytest.mark.parametrize(("flow", "seconds", "code"), [("main", 600.0, -signal.SIGTERM), ("deaf", 1.0, -signal.SIGKILL)])
def test_a_stopped_executor_tells_its_processes_at_once_and_kills_at_the_bound_what_does_not_listen(
    bench: Bench, rows: Rows, flow: str, seconds: float, code: int
) -> None:
    bench.write(SLEEPERS)
    bench.deploy(flow, isolate=1)
    run_id = bench.queue(flow)
    executor = Executor(bench.journal, isolate=Children)
    executor.start()
    bench.wait_for("sleeps")
    executor.stop(seconds)  # long before ten minutes are over, or the test is out of time
    assert executor.left == [run_id]
    assert bench.state(run_id)[0] == "CRASHED"
    assert rows("SELECT exit_code FROM execution") == [(code,)]
    assert rows("SELECT crashes FROM flow_run") == [(0,)]
    Executor(bench.journal, isolate=Children).run_once()
    assert bench.state(run_id) == ("COMPLETED", None)


def test_a_run_that_waits_for_another_one_leaves_its_place_to_the_next(bench: Bench) -> None:
    bench.write("""
        @task
        def work():
            note("worked")
            return 1

        @flow
        def main():
            future = work.delay()
            note("waits")
            return future.result()

        @flow
        def other():
            return step(2)
    """)
    for flow in ("main", "other"):
        bench.deploy(flow, isolate=1)
    waits, other = bench.queue("main"), bench.queue("other")
    executor = Executor(bench.journal, limit=1, isolate=Children)
    executor.start()
    assert bench.wait_for("step") == "2"  # though the first run has not ended, and there is one place
    assert bench.state(waits)[0] == "RUNNING"
    assert "worked" not in bench.effects
    TaskWorker(*load_tasks(f"{bench.folder / 'program.py'}:work")).run_once()
    while not bench.is_over(waits) or not bench.is_over(other):
        bench.journal.changes.wait(bench.journal.changes.mark(), 0.05)
    executor.stop(30)
    assert [bench.state(run_id)[0] for run_id in (waits, other)] == ["COMPLETED", "COMPLETED"]


def test_a_run_in_a_process_of_its_own_lends_its_place_to_the_run_that_it_waits_for(bench: Bench, rows: Rows) -> None:
    bench.write("""
        from wfengine.deployments import run_deployment

        @flow
        def main(left: int = 2):
            return run_deployment("main/main", {"left": left - 1}).state.result() if left else os.getpid()
    """)
    bench.deploy("main", isolate=1, concurrency_limit=1)
    run_id = bench.queue("main")
    executor = Executor(bench.journal, limit=1, isolate=Children)
    executor.start()
    while not bench.is_over(run_id):
        bench.journal.changes.wait(bench.journal.changes.mark(), 0.05)
    executor.stop(30)
    assert rows("SELECT state, count(*) FROM flow_run GROUP BY 1") == [("COMPLETED", 3)]


# ------------------------------------------------------------------------------------------- many


@pytest.mark.crash
def test_killed_at_random_moments_runs_end_and_what_is_recorded_did_not_run_again(bench: Bench, rows: Rows) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source = random.Random(seed)
    bench.write("""
        @task(max_interruptions=100)
        def noted(number):
            note(f"noted{number}")
            return number

        @flow
        def main():
            return sum(noted(number) for number in range(20))
    """)
    run_id, over = bench.queue(), threading.Event()
    bench.children.prepare()
    for _ in range(12):
        ended = bench.launch(run_id)
        over.wait(source.random() * 0.08)
        (child,) = bench.children.report()["running"] or [None]  # type: ignore[misc]  # a list
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child["pid"], signal.SIGKILL)
        assert ended.wait(RUN_SECONDS)
        over.wait(0.2)  # a spare process gets ready, so that the next one is killed in its work too
    assert bench.live(run_id) == ("COMPLETED", None)
    assert rows.value("SELECT result FROM flow_run") == "190"
    interruptions = dict(rows("SELECT json_extract(inputs, '$.number'), interruptions FROM task_run"))
    for number in range(20):
        assert 1 <= bench.effects.count(f"noted{number}") <= 1 + int(str(interruptions[number]))
    assert rows.value("SELECT count(*) FROM execution WHERE exit_code IS NULL") == 0


def _children() -> set[str]:
    threads = Path("/proc/self/task").iterdir()
    return {child for thread in threads for child in (thread / "children").read_text(encoding="ascii").split()}


@pytest.mark.crash
def test_many_runs_through_four_processes_all_end_and_leave_no_process_and_no_descriptor(bench: Bench, rows: Rows) -> None:
    bench.write("""
        @flow
        def main(number: int):
            step(number)
            if number % 25 == 0 and first_time(f"crashed{number}"):
                os._exit(1)
            print(number)
            return number
    """)
    others = _children()  # such as a cluster that other tests use
    bench.live(bench.queue(number=0))
    before = open_descriptors()
    waiting = [bench.queue(number=number) for number in range(1, LAUNCHES + 1)]
    lock, over = threading.Lock(), threading.Event()
    places = threading.Semaphore(4)

    def ended(run_id: int) -> None:
        if bench.state(run_id)[0] == "CRASHED":
            waiting.append(run_id)
        places.release()

    def work() -> None:  # as threads of a daemon do
        while not over.is_set():
            places.acquire()
            with lock:
                if not waiting:
                    places.release()
                    return
                run_id = waiting.pop(0)
            bench.children.launch(
                run_id, memory_limit_bytes=None, time_limit_seconds=None, ended=lambda run_id=run_id: ended(run_id)
            )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    for _ in range(4):
        assert places.acquire(timeout=RUN_SECONDS)
    while waiting:
        bench.live(waiting.pop())
    assert rows("SELECT state, count(*) FROM flow_run WHERE id > 1 GROUP BY state") == [("COMPLETED", LAUNCHES)]
    assert rows.value("SELECT count(*) FROM execution WHERE flow_run_id > 1 AND exit_code = 0") == LAUNCHES
    assert rows.value("SELECT count(*) FROM execution WHERE flow_run_id > 1 AND exit_code = 1") == LAUNCHES // 25
    assert len(bench.effects) == len(set(bench.effects)) == LAUNCHES + 1
    bench.children.close(30)
    assert open_descriptors() <= before
    assert _children() <= others
    attending = [thread for thread in threading.enumerate() if thread.name.startswith("wfengine-child")]
    for thread in attending:  # one may be about to end
        thread.join(RUN_SECONDS)
    assert not [thread for thread in attending if thread.is_alive()]
    assert bench.journal.attended == set()
