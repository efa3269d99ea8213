"""`wfengine serve` as a process: it is stopped and killed while runs are under way, and the next one goes on with them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program, Rows
from wfengine import use_journal
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.store import close_all

#: What these tests are about begins or ends with a process: each of their programs is started anew.
FRESH_PROCESSES = True

#: A flow with a task that ends, one that hangs in its first process, and one after it.
FLOW = """
@task
def first():
    note("first")
    return 1

@task
def hang():
    note("hang")
    if first_time("hung"):
        (HERE / "go").read_text()  # a pipe: until somebody writes into it
        note("hung-on")
    return 2

@flow
def etl():
    return first() + hang()
"""


def serve(program: Program, *options: str) -> DaemonProcess:
    return DaemonProcess(
        program.folder, "-m", "wfengine", "serve", str(program.path), *options, environment=program.environment
    )


def put_run(program: Program, deployment_id: int = 1) -> None:
    """Put a run of a deployment into its queue, in this process."""
    journal = use_journal(program.folder / "journal.db")
    name = new_run_name(journal.records.is_run_name_taken)
    journal.write(QueueRun(RunRequest(deployment_id, name, journal.clock.now_text())), synced=True)
    close_all()


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.01)


def wait_for_state(rows: Rows, state: str, run_id: int = 1) -> None:
    until = time.monotonic() + 60
    while rows.state(run_id)[0] != state:
        assert time.monotonic() < until, rows.state(run_id)
        time.sleep(0.01)


@pytest.fixture
def waiting(program: Program) -> Program:
    """A program whose deployment has a run in its queue."""
    program.write(FLOW)
    os.mkfifo(program.folder / "go")
    with serve(program) as daemon:
        assert daemon.wait_until_ready().stop() == 0
    put_run(program)
    return program


def test_stopped_in_the_middle_it_ends_within_the_bound_and_the_next_daemon_goes_on(waiting: Program, rows: Rows) -> None:
    with serve(waiting, "--stop-timeout", "0.5") as daemon:
        wait_for(waiting.folder / "hung")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 50
        assert "left to the next daemon: flow run 1" in daemon.said
    assert rows.state()[0] == "CRASHED"
    with serve(waiting):
        wait_for_state(rows, "COMPLETED")
    assert waiting.effects == ["first", "hang", "hang"]
    assert rows("SELECT reason FROM execution ORDER BY epoch") == [("start",), ("recovery",)]


def test_what_is_under_way_may_end_when_it_is_stopped(waiting: Program, rows: Rows) -> None:
    with serve(waiting, "--log-format", "json") as daemon:
        wait_for(waiting.folder / "hung")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_until("STOPPING=1")
        (waiting.folder / "go").write_text("")
        assert daemon.wait() == 0
        assert rows.state()[0] == "COMPLETED"
        events = [(fact["event"], fact.get("run_id"), fact.get("deployment")) for fact in daemon.facts]
    assert ("run.running", 1, "etl/program") in events
    assert ("run.completed", 1, "etl/program") in events
    assert waiting.effects == ["first", "hang", "hung-on"]


def test_a_second_signal_ends_it_at_once(waiting: Program, rows: Rows) -> None:
    with serve(waiting, "--stop-timeout", "1000") as daemon:
        wait_for(waiting.folder / "hung")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_until("STATUS=stopping")
        assert daemon.stop() == 0
    assert rows.state()[0] == "CRASHED"


def test_killed_in_the_middle_the_next_daemon_goes_on(waiting: Program, rows: Rows) -> None:
    with serve(waiting) as daemon:
        wait_for(waiting.folder / "hung")
        daemon.kill()
    with serve(waiting):
        wait_for_state(rows, "COMPLETED")
    assert waiting.effects == ["first", "hang", "hang"]


def test_a_daemon_that_lives_takes_over_from_one_that_is_killed(waiting: Program, rows: Rows) -> None:
    with serve(waiting) as killed:
        wait_for(waiting.folder / "hung")
        with serve(waiting) as other:
            other.wait_until_ready()
            killed.kill()
            wait_for_state(rows, "COMPLETED")
    assert waiting.effects == ["first", "hang", "hang"]


def test_of_two_daemons_each_executes_runs_of_its_own_file_only(program: Program, rows: Rows) -> None:
    other = Program(program.folder)
    other.path = program.folder / "other.py"
    program.write("@flow\ndef etl():\n    note(f'etl-{os.getpid()}')\n")
    other.write("@flow\ndef report():\n    note(f'report-{os.getpid()}')\n")
    with serve(program) as one, serve(other) as two:
        one.wait_until_ready()
        two.wait_until_ready()
        names = {str(name): int(str(id_)) for id_, name in rows("SELECT id, flow FROM deployments")}
        for number, flow in enumerate(["etl", "report", "report", "etl"], 1):
            put_run(program, names[flow])
            wait_for_state(rows, "COMPLETED", number)
        expected = [f"etl-{one.process.pid}", *[f"report-{two.process.pid}"] * 2, f"etl-{one.process.pid}"]
    assert program.effects == expected


def test_a_run_of_a_deployment_that_another_process_served_is_served_by_a_daemon_without_files(
    waiting: Program, rows: Rows
) -> None:
    (waiting.folder / "hung").touch()  # it does not hang
    with DaemonProcess(waiting.folder, "-m", "wfengine", "serve", environment=waiting.environment):
        wait_for_state(rows, "COMPLETED")
    assert rows("SELECT count(*) FROM deployments") == [(1,)]


def test_a_file_with_an_error_is_refused_before_anything_is_written(program: Program, rows: Rows) -> None:
    program.write("def broken(:\n")
    done = program.python("-m", "wfengine", "serve", str(program.path))
    assert done.code == 2
    assert "SyntaxError" in done.err
    assert rows("SELECT count(*) FROM deployments") == [(0,)]


def test_a_stopped_process_is_shown_as_silent_or_living_and_its_runs_are_its_own(waiting: Program, rows: Rows) -> None:
    with serve(waiting) as daemon:
        wait_for(waiting.folder / "hung")
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            assert waiting.python("-m", "wfengine", "status", "-q").code == 0
            assert rows.state()[0] == "RUNNING"
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        (waiting.folder / "go").write_text("")
        wait_for_state(rows, "COMPLETED")


def test_a_run_in_a_process_of_its_own_that_dies_costs_that_run_only(program: Program, rows: Rows) -> None:
    program.write(
        """
        @flow
        def etl():
            note(f"etl-{os.getpid()}")
            if first_time():
                kill()

        @flow
        def other():
            note(f"other-{os.getpid()}")
        """
    )
    journal = use_journal(program.folder / "journal.db")
    for number, flow in enumerate(("etl", "other")):
        columns = DeploymentColumns("apart", f"file:{program.path}:{flow}", None, None, "{}", None, isolate=1 - number)
        journal.write(
            PutDeployment(journal.flow_id(flow, None), columns, [], paused=None, at=journal.clock.now_text()), synced=True
        )
    close_all()
    with DaemonProcess(program.folder, "-m", "wfengine", "serve", environment=program.environment) as daemon:
        daemon.wait_until_ready()
        put_run(program, 1)
        put_run(program, 2)
        wait_for_state(rows, "COMPLETED", 1)
        wait_for_state(rows, "COMPLETED", 2)
        assert daemon.stop() == 0, daemon.said
    pids = [int(effect.partition("-")[2]) for effect in program.effects if effect.startswith("etl")]
    assert len(set(pids)) == 2
    assert daemon.process.pid not in pids
    assert f"other-{daemon.process.pid}" in program.effects


def test_a_child_that_a_flow_forked_can_be_terminated(program: Program, rows: Rows) -> None:
    program.write(
        """
        import signal

        @flow
        def etl():
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(writing, b"x")  # Python drops signals that come while it forks
                while True:
                    signal.pause()
            os.read(reading, 1)
            os.kill(child, 15)
            note(f"status-{os.waitpid(child, 0)[1]}")
        """
    )
    with serve(program) as daemon:
        daemon.wait_until_ready()
        put_run(program)
        wait_for_state(rows, "COMPLETED")
        assert daemon.stop() == 0
    assert program.effects == ["status-15"]


def test_files_that_come_are_events_of_a_daemon_that_is_told_to_watch(program: Program, rows: Rows) -> None:
    program.write("@flow\ndef etl():\n    pass\n")
    (program.folder / "incoming").mkdir()
    (program.folder / "wfengine.toml").write_text('[[watch]]\npath = "incoming"\npattern = "*.csv"\n')
    with serve(program) as daemon:
        daemon.wait_until_ready()
        (program.folder / "incoming" / "a.csv").write_text("1,2")
        until = time.monotonic() + 60
        while not rows("SELECT 1 FROM events WHERE name = 'file.added'"):
            assert time.monotonic() < until, daemon.said
            time.sleep(0.05)
        assert daemon.stop() == 0
