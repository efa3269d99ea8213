"""W9: the daemon. How late ticks are, what it costs when nothing is due, and how long work and words wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from benchmarks.table import Row
from benchmarks.workloads import scratch
from wfengine import flow, receive, send, use_journal
from wfengine.automations.service import Automations
from wfengine.executor import Executor
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.store import Journal
from wfengine_scheduler.loop import Scheduler
from wfengine_scheduler.services import Service

#: Schedules, deployments they are spread over, and seconds between two ticks of one: a hundred ticks a second.
SCHEDULES, DEPLOYMENTS, INTERVAL_SECONDS = 10_000, 100, 100
#: Seconds for which ticks are watched, and for which nothing is due.
WATCHED_SECONDS = 10.0
#: Runs, and messages, that are timed in a round.
TIMED = 50

_begun: list[float] = []
_heard: list[float] = []


@flow
def noop(number: int = 0) -> None:
    """Note when it began."""
    _begun.append(time.perf_counter())


@flow
def listener(messages: int) -> None:
    """Note when each message was received."""
    for _ in range(messages):
        receive("word")
        _heard.append(time.perf_counter())


def daemon(rounds: int, folder: Path | None) -> list[Row]:
    """Return the four rows of W9."""
    late, idle, begun, heard = [], [], [], []
    for _ in range(rounds):
        late.append(_lateness(folder))
        idle.append(_idle_share(folder))
        begun.append(_enqueue_to_start(folder))
        heard.append(_signal_to_receive(folder))
    return [
        Row("W9", "10,000 schedules, lateness p99", late, "ms", "50 ms", "10 ms", "the run and its tick, synced"),
        Row("W9", "the same, nothing due: CPU", idle, "% of a core", "1 %", "", ""),
        Row("W9", "enqueue to start, median", begun, "ms", "5 ms", "", "the queued run, synced"),
        Row("W9", "signal to receive, median", heard, "ms", "2 ms", "", "the message, synced"),
    ]


def _lateness(folder: Path | None) -> float:
    told: dict[int, float] = {}
    with scratch(folder) as place:
        journal = use_journal(place / "journal.db")
        _deploy(journal, first_due=time.time() + 2.0)
        scheduler = Scheduler(journal, launch=lambda run_id: told.setdefault(run_id, time.time()))
        scheduler.step()  # finds the first instants of all
        with _running([scheduler]):
            time.sleep(2.0 + WATCHED_SECONDS)
        rows = journal.records.rows("SELECT id, nominal_at FROM flow_run", ())
        late = [told[int(str(run))] - datetime.fromisoformat(str(nominal)).timestamp() for run, nominal in rows]
        store.close_all()
    return 1000 * _quantile(late, 0.99)


def _idle_share(folder: Path | None) -> float:
    with scratch(folder) as place:
        journal = use_journal(place / "journal.db")
        _deploy(journal, first_due=time.time() + 86_400.0)
        scheduler = Scheduler(journal)
        scheduler.step()
        with _running([scheduler, Automations(journal), Executor(journal)]):
            time.sleep(1.0)
            before = time.process_time()
            time.sleep(WATCHED_SECONDS)
            used = time.process_time() - before
        store.close_all()
    return 100 * used / WATCHED_SECONDS


def _enqueue_to_start(folder: Path | None) -> float:
    waits = []
    with scratch(folder) as place:
        journal = use_journal(place / "journal.db")
        deployment = noop.to_deployment("timed")
        deployment.apply()
        assert deployment.id is not None
        with _running([Executor(journal, flows={"noop": noop})]):
            for _ in range(TIMED):
                _begun.clear()
                name = new_run_name(journal.records.is_run_name_taken)
                start = time.perf_counter()
                journal.write(QueueRun(RunRequest(deployment.id, name, journal.clock.now_text())), synced=True)
                _wait_for(_begun)
                waits.append(_begun[0] - start)
        store.close_all()
    return 1000 * _quantile(waits, 0.5)


def _signal_to_receive(folder: Path | None) -> float:
    waits = []
    with scratch(folder) as place:
        journal = use_journal(place / "journal.db")
        thread = threading.Thread(target=listener, args=(TIMED,))
        thread.start()
        while not journal.records.rows("SELECT 1 FROM flow_run", ()):
            time.sleep(0.01)
        for _ in range(TIMED):
            time.sleep(0.005)  # until it waits
            _heard.clear()
            start = time.perf_counter()
            send(1, None, topic="word")
            _wait_for(_heard)
            waits.append(_heard[0] - start)
        thread.join()
        store.close_all()
    return 1000 * _quantile(waits, 0.5)


def _wait_for(found: list[float]) -> None:
    while not found:
        time.sleep(0.0002)


@contextmanager
def _running(services: Sequence[Service]) -> Iterator[None]:
    for service in services:
        service.start()
    try:
        yield
    finally:
        for service in services:
            service.stop(10.0)


def _deploy(journal: Journal, first_due: float) -> None:
    """Record the schedules: each is due once in the interval, one after the other."""
    flow_id, at = journal.flow_id("noop", None), journal.clock.now_text()
    each = SCHEDULES // DEPLOYMENTS
    for number in range(DEPLOYMENTS):
        schedules = [
            ScheduleColumns(
                "interval",
                str(INTERVAL_SECONDS),
                text_from_seconds(first_due + place * INTERVAL_SECONDS / SCHEDULES),
                "UTC",
                True,
                "{}",
                str(place),
                True,
                overlap="allow",
            )
            for place in range(number * each, (number + 1) * each)
        ]
        columns = DeploymentColumns(f"d{number}", None, None, None, "{}", None)
        journal.write(PutDeployment(flow_id, columns, schedules, paused=None, at=at), synced=False)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
