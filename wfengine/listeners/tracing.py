"""Traces for OpenTelemetry: the listener that notes what ends, and hands it on to where spans are made of it.

Needs the packages of `pip install 'wfengine[otel]'`. A run pays for a few tuples: what ended, and when its commit began and
ended. Everything else - reading the journal, making spans, sending them by OTLP as the standard variables say
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER ...) - is done in a process of its own (`span_sender`):
no thread of this one could do it without taking the time from the runs. With a processor of OpenTelemetry's that the user
gave, spans are made here, on a thread.

Ids are made of the journal's id and the numbers of run, execution, task run and attempt (`trace_ids`). So code in a task knows
the span it belongs to before that is sent, on any thread and in any worker, and all executions of a run are one trace: each has
a span of its own, linked with the one before. What a killed process had not told of is missing; nothing is sent twice.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import logging
import marshal
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from wfengine.listeners import OF_FLOW_RUNS, Event, add_listener, remove_listener
from wfengine.listeners.trace_ids import (
    attempt_span_id,
    current_context,
    current_ids,
    run_span_id,
    task_span_id,
    trace_id_of,
    traceparent,
)
from wfengine.scopes import ACTIVE
from wfengine_journal.cache import ServeCached
from wfengine_journal.errors import JournalError, UsageError
from wfengine_journal.riders import WithRiders
from wfengine_journal.threads import start_thread
from wfengine_journal.transitions import CompleteCall, FailAttempt, SettleCall

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from wfengine.listeners.spans import Notes, RunNote, SpanMaker, TaskNote
    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change

T = TypeVar("T")

__all__ = [
    "Tracer", "attempt_span_id", "current_context", "current_ids", "run_span_id", "start_tracing", "stop_tracing",
    "task_span_id", "trace_id_of", "traceparent",
]  # fmt: skip

#: Ends that wait to be told of; beyond that they are left out, and the log says so.
WAITING_LIMIT = 10_000
#: How many ends are told of at a time.
AT_ONCE = 1000
#: How long ends are gathered, in seconds: each time takes the interpreter away from the runs.
GATHER_SECONDS = 0.05
#: How long the end of the process waits for the last spans, in seconds, and beyond it by default for the receiver.
LAST_SECONDS = 10.0
RECEIVER_VARIABLE, RECEIVER_SECONDS = "OTEL_EXPORTER_OTLP_TIMEOUT", 10.0
#: So often a process that sends spans is started anew after it has died.
STARTS_LIMIT = 3
_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from wfengine.listeners.span_sender import main; main()"
#: Changes that are the outcome of an attempt, or of a call that had none.
_OUTCOMES = frozenset({CompleteCall, FailAttempt, ServeCached, SettleCall})
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_logger = logging.getLogger("wfengine.listeners")


# ------------------------------------------------------------------------------------------- where spans are made


class Outlet(Protocol):
    """Where spans are made of what ended. Used on one thread."""

    def send(self, notes: Notes) -> None:
        """Make spans and hand them on."""

    def close(self) -> None:
        """Hand on what is left."""

    def kill(self) -> None:
        """Give up, on any thread: the time for the last spans is over."""


class _Here:
    """Makes spans in this process, for a processor that the user gave."""

    def __init__(self, journal: Journal, maker: SpanMaker, processor: SpanProcessor) -> None:
        self._journal = journal
        self._maker = maker
        self._processor = processor

    def send(self, notes: Notes) -> None:
        try:
            spans = self._journal.read(lambda connection: [*self._maker.make(connection, notes)])
        except JournalError:
            return  # closed, or broken: who writes next meets it, and says so
        except Exception:
            _logger.exception("Spans could not be made; the runs go on.")
            return
        for span in spans:
            self._processor.on_end(span)

    def close(self) -> None:
        self._processor.shutdown()

    def kill(self) -> None:
        """Leave it alone: OpenTelemetry's own limits hold."""


class _Elsewhere:
    """Has spans made and sent by a process of its own, which is started when there is something to send."""

    def __init__(self, journal: Journal) -> None:
        self._first = (str(Path(journal.path).absolute()), journal.id)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def send(self, notes: Notes) -> None:
        if self._process is None and (self._starts == STARTS_LIMIT or not self._start()):
            return
        self._say(notes)

    def close(self) -> None:
        if self._process is not None:
            self._say(None)
        if self._process is not None:
            self._end(self._process)

    def kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _start(self) -> bool:
        self._starts += 1
        path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
        try:
            self._process = subprocess.Popen(
                # -P: a module beside the caller's working directory must not come before Python's own.
                [sys.executable, "-P", "-c", _BOOTSTRAP, path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            _logger.warning("No spans are sent: their process could not be started: %s", error)
            return False
        self._say(self._first)
        return self._process is not None

    def _say(self, what: tuple[str, str] | Notes | None) -> None:
        """Tell the process something, and log what it has to say."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        answer = b""
        with contextlib.suppress(OSError):
            process.stdin.write(marshal.dumps(what))
            process.stdin.flush()
            answer = process.stdout.readline()
        with contextlib.suppress(ValueError):  # something else printed
            for line in json.loads(answer):
                _logger.warning("Traces: %s", line)
        if not answer:
            self._end(process)
            again = "no more spans are sent" if self._starts == STARTS_LIMIT else "another one takes its place"
            _logger.warning("The process that sends spans ended with %s; %s.", process.returncode, again)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        process.wait()


# ------------------------------------------------------------------------------------------- the listener


class Tracer:
    """Notes what the runs of this process did, and hands it on in batches.

    It is told of the changes of each commit, which tell it of task runs, and of the states of flow runs as any listener is.
    """

    def __init__(self, journal: Journal, outlet: Outlet) -> None:
        self.journal = journal
        self._path = str(journal.path)
        self._pid = os.getpid()
        self._outlet = outlet
        self._runs: deque[RunNote] = deque()
        self._tasks: deque[TaskNote] = deque()
        self._now = journal.clock.wall_seconds
        self._gathers = False  # the thread was woken, and will take what is there
        self._left_out = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._is_closed = False
        self._thread = start_thread("wfengine-traces", self._work)
        journal.witness_commits(self._witness)

    def __call__(self, event: Event) -> None:
        """Take notice of a state of a flow run; see Listener."""
        run = ACTIVE.get((self._path, event.flow_run_id))
        if event.task_run_id is not None or self._is_closed or (run is not None and run.dry is not None):
            return
        if len(self._runs) >= WAITING_LIMIT:
            self._leave_out()
            return
        self._runs.append((event.flow_run_id, event.state, event.state_name, None if run is None else run.epoch))
        self._wake.set()

    def _witness(self, changes: Sequence[Change]) -> None:
        """Note the outcomes of attempts. Called by whoever commits: the time it takes is a task's."""
        for change in changes:
            outcome = change.carrier if type(change) is WithRiders else change
            kind = type(outcome)
            if kind in _OUTCOMES:
                if len(self._tasks) >= WAITING_LIMIT:
                    self._leave_out()
                    continue
                done = cast("CompleteCall | FailAttempt | ServeCached | SettleCall", outcome)
                is_end = kind is CompleteCall or _is_end(done)
                self._tasks.append((done.flow_run_id, done.task_run_id, done.attempt, self._now(), is_end))
                if not self._gathers:
                    self._gathers = True
                    self._wake.set()

    def _leave_out(self) -> None:
        self._left_out += 1
        if self._left_out & (self._left_out - 1) == 0:
            _logger.warning("%d spans were left out so far: more ended than could be made spans of", self._left_out)

    def close(self) -> None:
        """Send what is left, within a bound."""
        if self._is_closed or os.getpid() != self._pid:  # after a fork, the other process does it
            return
        self._is_closed = True
        self._closing.set()
        self._wake.set()
        self.journal.witness_commits(None)
        self._thread.join(LAST_SECONDS + _receiver_seconds())
        if self._thread.is_alive():
            _logger.warning("The last spans were given up: they took too long to be made or sent.")
            self._outlet.kill()

    # ---- on a thread of its own

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(GATHER_SECONDS)
            self._wake.clear()
            self._gathers = False
            while self._runs or self._tasks:
                self._outlet.send((_taken(self._runs), _taken(self._tasks)))
        self._outlet.close()


def _is_end(outcome: CompleteCall | FailAttempt | ServeCached | SettleCall) -> bool:
    """Tell whether the call ended by this outcome."""
    if isinstance(outcome, FailAttempt):
        return outcome.next_attempt_at is None
    return not isinstance(outcome, SettleCall) or outcome.state in _ENDED


def _taken(waiting: deque[T]) -> list[T]:
    return [waiting.popleft() for _ in range(min(AT_ONCE, len(waiting)))]


def _receiver_seconds() -> float:
    try:
        return float(os.environ.get(RECEIVER_VARIABLE) or RECEIVER_SECONDS)
    except ValueError:
        return RECEIVER_SECONDS  # the exporter says that it is no number


# ------------------------------------------------------------------------------------------- on and off


def start_tracing(journal: Journal, processor: SpanProcessor | None = None) -> Tracer:
    """Trace the runs of this process in a journal from now on, until `stop_tracing`, or the process ends.

    WFENGINE_TRACES=otlp does the same for every journal that is used. `processor`: of OpenTelemetry, for spans to go elsewhere.
    """
    for listener in OF_FLOW_RUNS:
        if isinstance(listener, Tracer) and listener.journal is journal:
            return listener
    _check_installed()
    tracer = Tracer(journal, _Elsewhere(journal) if processor is None else _here(journal, processor))
    add_listener(tracer, of_tasks=False)
    atexit.register(tracer.close)  # called before the journal is closed, which was registered earlier
    return tracer


def _here(journal: Journal, processor: SpanProcessor) -> _Here:
    from wfengine.listeners.spans import SpanMaker  # needs an extra

    return _Here(journal, SpanMaker(journal.id), processor)


def _check_installed() -> None:
    """Raise UsageError where the packages are missing; they are loaded where spans are made."""
    try:
        found = all(importlib.util.find_spec(name) is not None for name in _PACKAGES)
    except ImportError:
        found = False
    if not found:
        raise UsageError(
            "Traces need the packages of OpenTelemetry, which are not installed. Type: pip install 'wfengine[otel]'"
        )


def stop_tracing(tracer: Tracer) -> None:
    """Trace no more; what is left is sent."""
    if tracer in OF_FLOW_RUNS:
        remove_listener(tracer)
    atexit.unregister(tracer.close)
    tracer.close()
