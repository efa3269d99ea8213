"""Metrics of a journal for Prometheus: made when they are asked for, out of a tally that is brought up to date.

Needs the package prometheus-client (`pip install 'wfengine[metrics]'`). Names follow its conventions: seconds, bytes, `_total`.
How many flows and tasks are told apart is bounded; the rest counts as 'other'.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wfengine._version import __version__
from wfengine_journal.clock import Clock
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.tallies import FLOWS_LIMIT, OTHER, Present, Spread, Tally, get_present

try:
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
except ImportError as missing:
    raise UsageError(
        "Metrics need the package prometheus-client, which is not installed. Type: pip install 'wfengine[metrics]'"
    ) from missing

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change

#: Upper bounds of how long a commit takes, in seconds: from one that waits for no disk to a disk that is busy.
COMMIT_SECONDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_logger = logging.getLogger("wfengine.daemon")


class JournalCollector:
    """What Prometheus is told of one journal, whichever processes work on it. May be asked on any thread."""

    def __init__(self, path: Path, clock: Clock, *, flows_limit: int = FLOWS_LIMIT) -> None:
        self._path = path
        self._clock = clock
        self._tally = Tally(flows_limit=flows_limit)
        self._flows_limit = flows_limit
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Say nothing beforehand: the registry would ask for everything when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. Raises JournalError."""
        with self._lock:
            self._tally.update(self._path)
            present = get_present(self._path, self._clock.wall_seconds())
            found = [*_counted(self._tally), *self._present(present)]
        yield from found

    def _present(self, present: Present) -> Iterator[Metric]:
        yield InfoMetricFamily("wfengine_build", "The version of wfengine.", {"version": __version__})
        runs = GaugeMetricFamily("wfengine_flow_runs_open", "Flow runs that have not ended.", labels=["flow", "state"])
        for (flow, state), number in _bounded(present.open_runs, self._flows_limit).items():
            runs.add_metric([flow, state], number)
        yield runs
        waiting = GaugeMetricFamily("wfengine_queue_waiting_runs", "Flow runs that wait in a queue.", labels=["queue"])
        running = GaugeMetricFamily("wfengine_queue_running_runs", "Flow runs out of a queue that run.", labels=["queue"])
        paused = GaugeMetricFamily("wfengine_queue_paused", "Whether a queue is paused.", labels=["queue"])
        for name, wait, run, is_paused in present.queues[: self._flows_limit]:
            waiting.add_metric([name], wait)
            running.add_metric([name], run)
            paused.add_metric([name], is_paused)
        yield from (waiting, running, paused)
        yield GaugeMetricFamily(
            "wfengine_scheduler_lag_seconds", "How long the schedule that waits longest has been due.", present.scheduler_lag
        )
        if present.daemon_age is not None:
            yield GaugeMetricFamily(
                "wfengine_daemon_silence_seconds", "How long ago a daemon said how it is.", present.daemon_age
            )
        yield GaugeMetricFamily("wfengine_journal_size_bytes", "Size of the journal's file.", present.file_bytes)
        yield GaugeMetricFamily("wfengine_journal_wal_size_bytes", "Size of the write-ahead log beside it.", present.wal_bytes)
        yield GaugeMetricFamily("wfengine_journal_free_bytes", "Room inside the file for new rows.", present.free_bytes)


def _counted(tally: Tally) -> Iterator[Metric]:
    states = CounterMetricFamily(
        "wfengine_flow_run_states", "How often runs of a flow entered a state, by its name.", labels=["flow", "state"]
    )
    for (flow, state), number in tally.run_states.items():
        states.add_metric([flow, state], number)
    yield states
    run_seconds = HistogramMetricFamily(
        "wfengine_flow_run_duration_seconds", "From the first start of a flow run to its end.", labels=["flow", "state"]
    )
    for labels, spread in tally.run_seconds.items():
        run_seconds.add_metric(list(labels), *_histogram(spread))
    yield run_seconds
    tasks = CounterMetricFamily("wfengine_task_runs", "Task runs that ended.", labels=["flow", "task", "state"])
    for ended, number in tally.task_ends.items():
        tasks.add_metric(list(ended), number)
    yield tasks
    task_seconds = HistogramMetricFamily(
        "wfengine_task_run_duration_seconds", "From the first start of a task run to its end.", labels=["flow", "task"]
    )
    for labels, spread in tally.task_seconds.items():
        task_seconds.add_metric(list(labels), *_histogram(spread))
    yield task_seconds
    ticks = CounterMetricFamily("wfengine_ticks", "Due instants of schedules, by what became of them.", labels=["outcome"])
    for outcome in ("started", "skipped", "coalesced", "missed"):
        ticks.add_metric([outcome], tally.ticks[outcome])
    yield ticks
    lateness = HistogramMetricFamily("wfengine_tick_lateness_seconds", "From a due instant to the start of its run.")
    lateness.add_metric([], *_histogram(tally.tick_lateness))
    yield lateness


def _histogram(spread: Spread) -> tuple[list[tuple[str, float]], float]:
    bounds = [*(repr(bound) for bound in spread.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(spread.counts)), strict=True)), spread.total


def _bounded(rows: Iterable[tuple[str, str, int]], limit: int) -> dict[tuple[str, str], int]:
    flows: dict[str, None] = {}
    found: dict[tuple[str, str], int] = {}
    for flow, state, number in rows:
        if flow in flows or len(flows) < limit:
            flows[flow] = None
        key = (flow if flow in flows else OTHER, state)
        found[key] = found.get(key, 0) + number
    return found


def registry_of(path: Path, clock: Clock) -> prometheus_client.CollectorRegistry:
    """Return a registry with the metrics of a journal."""
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(JournalCollector(path, clock))
    return registry


def metrics_text(registry: prometheus_client.CollectorRegistry) -> str:
    """Return the metrics as text. Raises JournalError."""
    return prometheus_client.generate_latest(registry).decode("utf-8")


def write_textfile(registry: prometheus_client.CollectorRegistry, file: Path) -> None:
    """Write the metrics into a file, by a rename: a reader sees all of it, or the one before.

    Raises UsageError, JournalError.
    """
    text = metrics_text(registry)
    beside = file.with_name(f".{file.name}.{os.getpid()}")  # node_exporter reads names that end in .prom
    try:
        beside.write_text(text, encoding="utf-8")
        beside.chmod(0o644)  # read by a program of another user
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"The metrics could not be written into {file}: {error.strerror or error}.") from error


class _CommitSeconds:
    """How long commits took. They are counted by whoever commits, one at a time, so that no lock is needed for it."""

    def __init__(self) -> None:
        self.spread = Spread(COMMIT_SECONDS)

    def describe(self) -> Iterable[Metric]:
        """Say nothing beforehand."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram."""
        found = HistogramMetricFamily("wfengine_journal_commit_seconds", "How long a commit of this daemon took.")
        found.add_metric([], *_histogram(self.spread))
        yield found


class MetricsServer:
    """A part of the daemon: answers GET /metrics on a port of its own."""

    name = "metrics"

    def __init__(self, journal: Journal, *, port: int, host: str = "127.0.0.1") -> None:
        """Port 0: any that is free, see `port` after `start`."""
        self._journal = journal
        self._host = host
        self.port = port
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._registry = registry_of(journal.path, journal.clock)
        self._commits = _CommitSeconds()
        self._registry.register(self._commits)
        self._began = 0.0

    @property
    def fault(self) -> WfengineError | None:
        """Why the daemon could not go on: never because of this."""
        return None

    def start(self) -> None:
        """Listen. Raises UsageError where that cannot be."""
        try:
            self._server, self._thread = prometheus_client.start_http_server(self.port, self._host, self._registry)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"Metrics cannot be served at {self._host}:{self.port}: {getattr(error, 'strerror', None) or error}. "
                "Take another port: --metrics-port 0"
            ) from error
        self.port = int(self._server.server_port)
        self._journal.also_probe_commits(self._probe)
        _logger.info(
            "metrics at http://%s:%d/metrics", self._host, self.port, extra={"event": "metrics.serving", "port": self.port}
        )

    def _probe(self, moment: Literal["before", "after"], number: int, changes: Sequence[Change]) -> None:
        """Take the time of a commit. Called by whoever commits, one at a time."""
        now = self._journal.clock.monotonic_seconds()
        if moment == "before":
            self._began = now
        else:
            self._commits.spread.add(max(0.0, now - self._began))

    def stop_taking(self) -> None:
        """Go on: what is asked while the daemon stops is answered."""

    def stop(self, timeout_seconds: float) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def report(self) -> dict[str, object]:
        """Return where it listens."""
        return {"host": self._host, "port": self.port}
