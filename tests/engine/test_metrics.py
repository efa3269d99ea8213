"""Metrics for Prometheus: what they count of which runs, that a scrape costs only what is new, and who may ask."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program
from tests.journal.plans import large_walks
from wfengine import flow, serve, task, use_journal
from wfengine.listeners import metrics
from wfengine.recovery import resume_run
from wfengine_journal import store
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import UsageError
from wfengine_journal.tallies import Tally

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(path: Path) -> Samples:
    return samples_of(metrics.metrics_text(metrics.registry_of(path, SystemClock())))


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def journal(tmp_path: Path) -> store.Journal:
    return use_journal(tmp_path / "journal.db")


broken = {1, 2}


@task
def load(n: int) -> int:
    if n in broken:
        raise ValueError(n)
    return n


@flow
def etl(n: int) -> int:
    return load(n)


def test_runs_and_tasks_are_counted_by_flow_and_last_state_and_a_resume_as_a_recovery(journal: store.Journal) -> None:
    etl(0)
    with pytest.raises(ValueError, match="1"):
        etl(1)
    journal.flush()
    found = scrape(journal.path)
    assert value(found, "wfengine_flow_run_states_total", flow="etl", state="Completed") == 1
    assert value(found, "wfengine_flow_run_states_total", flow="etl", state="Failed") == 1
    assert value(found, "wfengine_task_runs_total", flow="etl", task="load", state="COMPLETED") == 1
    assert value(found, "wfengine_task_runs_total", flow="etl", task="load", state="FAILED") == 1
    assert value(found, "wfengine_task_run_duration_seconds_bucket", flow="etl", task="load", le="+Inf") == 2
    assert value(found, "wfengine_flow_run_duration_seconds_count", flow="etl", state="FAILED") == 1
    assert value(found, "wfengine_journal_size_bytes") == journal.path.stat().st_size


def test_a_task_run_that_failed_and_is_run_again_ends_twice_for_who_watches(journal: store.Journal) -> None:
    with pytest.raises(ValueError, match="2"):
        etl(2)
    journal.flush()
    tally = Tally()
    tally.update(journal.path)
    tally.update(journal.path)
    assert tally.task_ends == {("etl", "load", "FAILED"): 1}, "what did not change is not counted again"
    broken.discard(2)
    try:
        resume_run(journal, 1)
    finally:
        broken.add(2)
    journal.flush()
    tally.update(journal.path)
    assert tally.task_ends == {("etl", "load", "FAILED"): 1, ("etl", "load", "COMPLETED"): 1}
    assert tally.run_states["etl", "Resuming"] == 1


def test_counting_step_by_step_and_counting_at_once_come_to_the_same(journal: store.Journal) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stepwise = Tally()
    for number in range(40):
        if chance.random() < 0.3:
            with pytest.raises(ValueError, match=r"[12]"):
                etl(chance.choice([1, 2]))
        else:
            etl(3 + number)
        if chance.random() < 0.3:
            journal.flush()
            stepwise.update(journal.path)
    journal.flush()
    stepwise.update(journal.path)
    at_once = Tally(rows_at_once=chance.randint(1, 50))
    at_once.update(journal.path)
    assert (at_once.task_ends, at_once.run_states) == (stepwise.task_ends, stepwise.run_states)
    assert sum(at_once.task_ends.values()) == 40
    assert at_once.task_seconds["etl", "load"].counts == stepwise.task_seconds["etl", "load"].counts


def test_flows_and_tasks_beyond_the_limit_count_as_other(journal: store.Journal) -> None:
    for number in range(5):
        flow(name=f"flow-{number}")(lambda: load.with_options(name="one")(0))()
    journal.flush()
    tally = Tally(flows_limit=2, tasks_limit=2)
    tally.update(journal.path)
    assert {key[0] for key in tally.run_states} == {"flow-0", "flow-1", "other"}
    assert sum(count for key, count in tally.run_states.items() if key[0] == "other") == 6, "started and ended three times"
    assert tally.task_ends["other", "other", "COMPLETED"] == 3


def test_a_scrape_walks_through_nothing_that_grows_with_the_runs(journal: store.Journal) -> None:
    etl(0)
    with pytest.raises(ValueError, match="1"):
        etl(1)
    journal.flush()
    tally = Tally()
    tally.update(journal.path)
    statements: list[str] = []
    with closing(open_reader(journal.path)) as connection:
        connection.set_trace_callback(statements.append)
        tally._count_events(connection)
        tally._count_new_task_runs(connection)
        tally._count_ticks(connection)
        tally._count_watched(connection)
        connection.set_trace_callback(None)
        assert len(statements) >= 5
        for statement in statements:
            assert large_walks(connection, statement) == set(), statement


def test_a_run_whose_process_was_killed_is_counted_as_crashed_and_then_as_resumed(program: Program) -> None:
    program.write("""
        import os, signal, pathlib
        from wfengine import flow, task

        @task
        def one():
            if not pathlib.Path("killed").exists():
                pathlib.Path("killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        @flow
        def etl():
            one()

        if __name__ == "__main__":
            etl()
    """)
    program.run_and_be_killed()
    program.resume()
    found = scrape(program.folder / "journal.db")
    states = {
        dict(labels)["state"]: number for (name, labels), number in found.items() if name == "wfengine_flow_run_states_total"
    }
    assert states == {"Running": 1, "Crashed": 1, "Resuming": 1, "Completed": 1}
    assert value(found, "wfengine_task_runs_total", flow="etl", task="one", state="COMPLETED") == 1


# ------------------------------------------------------------------------------------------- who asks


def test_a_daemon_answers_on_a_port_of_its_own_with_how_long_its_commits_take(program: Program) -> None:
    program.write("""
        from wfengine import flow

        @flow
        def etl(): ...
    """)
    with DaemonProcess(
        program.folder, "-m", "wfengine", "serve", "program.py", "--metrics-port", "0", "--log-format", "json",
        environment=program.environment,
    ) as daemon:  # fmt: skip
        daemon.wait_until_ready()
        (fields,) = [fact["fields"] for fact in daemon.facts if fact.get("event") == "metrics.serving"]
        assert isinstance(fields, dict)
        with urllib.request.urlopen(f"http://127.0.0.1:{fields['port']}/metrics", timeout=60) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain")
        found = samples_of(text)
        assert value(found, "wfengine_journal_commit_seconds_count") > 0
        assert ("wfengine_daemon_silence_seconds", ()) in found
        check_by_promtool(text)
        assert daemon.stop() == 0, daemon.said


def check_by_promtool(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_port_that_is_taken_is_refused(journal: store.Journal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = metrics.MetricsServer(journal, port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"Metrics cannot be served at 127\.0\.0\.1:\d+: .* Take another port"):
            server.start()
        server.stop(1.0)


@pytest.mark.parametrize("port", [-1, 65536, "9464", True, 1.5])
def test_a_port_that_is_none_is_refused(port: object) -> None:
    with pytest.raises(UsageError, match="metrics_port is a number from 0"):
        serve(etl.to_deployment("nightly"), metrics_port=port)


def test_a_file_of_metrics_is_replaced_as_a_whole(journal: store.Journal) -> None:
    etl(0)
    journal.flush()
    file = journal.path.with_name("wfengine.prom")
    file.write_text("old")
    with file.open() as reader:
        metrics.write_textfile(metrics.registry_of(journal.path, SystemClock()), file)
        assert reader.read() == "old", "who reads it meanwhile has the one before"
    assert value(samples_of(file.read_text()), "wfengine_flow_run_states_total", flow="etl", state="Completed") == 1
    assert sorted(path.name for path in file.parent.glob("*.prom*")) == ["wfengine.prom"]
    with pytest.raises(UsageError, match=r"could not be written into .*nowhere"):
        metrics.write_textfile(metrics.registry_of(journal.path, SystemClock()), file.parent / "nowhere" / "x.prom")


def test_without_the_package_the_command_names_the_line_that_installs_it(program: Program) -> None:
    (program.folder / "prometheus_client.py").write_text("raise ImportError('no')")
    program.environment["PYTHONPATH"] = os.pathsep.join([str(program.folder), program.environment.get("PYTHONPATH", "")])
    program.write("""
        from wfengine import flow

        @flow
        def etl(): ...

        if __name__ == "__main__":
            etl()
    """)
    assert program.run().code == 0
    done = program.python("-m", "wfengine", "metrics")
    assert done.code == 2
    assert "pip install 'wfengine[metrics]'" in done.err


def test_a_damaged_row_of_a_state_is_no_end_of_the_metrics(journal: store.Journal) -> None:
    etl(0)
    journal.flush()
    with closing(sqlite3.connect(journal.path)) as connection, connection:
        connection.execute("UPDATE event SET name = 'wfengine.flow-run.' || cast(x'ff' AS TEXT) WHERE id = 1")
    assert value(scrape(journal.path), "wfengine_task_runs_total", flow="etl", task="load", state="COMPLETED") == 1
