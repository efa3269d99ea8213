"""Traces for OpenTelemetry: a span for each execution of a flow run, each task run, its attempts and their commits.

Needs the packages of `pip install 'wfengine[otel]'`. Spans are made of what the journal recorded, on a thread of its own, after
the commit; the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER ...) say where they go.

Ids are made of the journal's id and the numbers of run, execution, task run and attempt. So code in a task knows the span it
belongs to before that is sent, on any thread and in any worker, and all executions of a run are one trace: each has a span of
its own, linked with the one before. What a killed process had not sent is missing; nothing is sent twice.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import xxhash

from wfengine._version import __version__
from wfengine.listeners import LISTENERS, Event, add_listener, remove_listener
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import ACTIVE, current_scope
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.errors import JournalError, MissingContextError, UsageError
from wfengine_journal.riders import WithRiders
from wfengine_journal.spans import (
    RunSpan,
    TaskSpan,
    find_caller,
    find_last_epoch,
    find_run_span,
    find_task_span,
)
from wfengine_journal.threads import start_thread
from wfengine_journal.transitions import CompleteCall, FailAttempt

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import Decision
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as missing:
    raise UsageError(
        "Traces need the packages of OpenTelemetry, which are not installed. Type: pip install 'wfengine[otel]'"
    ) from missing

if TYPE_CHECKING:
    import sqlite3

    from opentelemetry.sdk.trace import SpanProcessor

    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change

#: Ends that wait to be made spans of; beyond that they are left out, and the log says so.
WAITING_LIMIT = 10_000
#: Commits whose times are kept until the end they belong to is told of.
COMMITS_LIMIT = 10_000
#: How many ends are read from the journal at a time, and how long the end of the process waits for the last spans, in seconds.
AT_ONCE = 200
LAST_SECONDS = 10.0
#: States in which an execution is over.
_OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED"})
_BAD = frozenset({"FAILED", "CRASHED", "INTERRUPTED"})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_logger = logging.getLogger("wfengine.listeners")

Attributes = dict[str, str | int]


# ------------------------------------------------------------------------------------------- ids


def _digest128(text: str) -> int:
    return xxhash.xxh3_128_intdigest(text.encode()) or 1  # 0 is no id


def _digest64(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode()) or 1


def trace_id_of(journal_id: str, root_run_id: int) -> int:
    """Return the id of the trace of a run that no other run called."""
    return _digest128(f"{journal_id}/trace/{root_run_id}")


def run_span_id(journal_id: str, flow_run_id: int, epoch: int) -> int:
    """Return the id of the span of an execution."""
    return _digest64(f"{journal_id}/run/{flow_run_id}/{epoch}")


def task_span_id(journal_id: str, task_run_id: int, epoch: int) -> int:
    """Return the id of the span of a task run that ended in an execution."""
    return _digest64(f"{journal_id}/task/{task_run_id}/{epoch}")


def attempt_span_id(journal_id: str, task_run_id: int, attempt: int) -> int:
    """Return the id of the span of an attempt."""
    return _digest64(f"{journal_id}/attempt/{task_run_id}/{attempt}")


@asks_the_flow
def current_ids() -> tuple[int, int]:
    """Return trace and span of the code that calls: of its attempt, in a flow's body of the execution. MissingContextError."""
    scope = current_scope()
    if scope is None:
        raise MissingContextError("There is no trace outside of a flow run. Ask for it in a flow or task.")
    root, journal_id = scope.run, scope.run.journal.id
    while root.parent is not None:
        root = root.parent
    if scope.call is None:
        span_id = run_span_id(journal_id, scope.run.id, scope.run.epoch)
    else:
        span_id = attempt_span_id(journal_id, scope.call.task_run_id, scope.call.attempt)
    return trace_id_of(journal_id, root.id), span_id


def current_context() -> otel_context.Context:
    """Return the context for spans of your own: `tracer.start_as_current_span("query", context=current_context())`."""
    trace_id, span_id = current_ids()
    return trace.set_span_in_context(trace.NonRecordingSpan(SpanContext(trace_id, span_id, True, _SAMPLED)))


def traceparent() -> str:
    """Return the header `traceparent` for a request to another service, as W3C Trace Context has it."""
    trace_id, span_id = current_ids()
    return f"00-{trace_id:032x}-{span_id:016x}-01"


# ------------------------------------------------------------------------------------------- the listener


class Tracer:
    """Makes spans of what the runs of this process did, and hands them to a processor of OpenTelemetry."""

    def __init__(self, journal: Journal, processor: SpanProcessor | None = None) -> None:
        """`processor`: default one that sends batches by OTLP over HTTP, as the environment says."""
        provider = TracerProvider(shutdown_on_exit=False)  # reads resource and sampler from the environment
        self._sampler, self._resource = provider.sampler, provider.resource
        self._processor = BatchSpanProcessor(OTLPSpanExporter()) if processor is None else processor
        self.journal = journal
        self._path = str(journal.path)
        self._instrumentation = InstrumentationScope("wfengine", __version__)
        self._waiting: deque[tuple[Event, int | None]] = deque()
        self._commits: dict[tuple[int, int], tuple[float, float]] = {}
        self._began = 0.0
        self._left_out = 0
        self._wake = threading.Event()
        self._is_closed = False
        self._roots: dict[int, int] = {}
        self._thread = start_thread("wfengine-traces", self._work)
        journal.also_probe_commits(self._probe)

    def __call__(self, event: Event) -> None:
        """Take notice of a state; see Listener."""
        run = ACTIVE.get((self._path, event.flow_run_id))
        if self._is_closed or (run is not None and run.dry is not None):
            return
        if len(self._waiting) >= WAITING_LIMIT:
            self._left_out += 1
            if self._left_out & (self._left_out - 1) == 0:
                _logger.warning("%d spans were left out so far: more ended than could be made spans of", self._left_out)
            return
        self._waiting.append((event, None if run is None else run.epoch))
        if not self._wake.is_set():
            self._wake.set()

    def _probe(self, moment: Literal["before", "after"], number: int, changes: Sequence[Change]) -> None:
        now = self.journal.clock.wall_seconds()
        if moment == "before":
            self._began = now
            return
        for change in changes:
            ended = change.carrier if isinstance(change, WithRiders) else change
            if isinstance(ended, CompleteCall | FailAttempt) and len(self._commits) < COMMITS_LIMIT:
                self._commits[ended.task_run_id, ended.attempt] = (self._began, now)

    def close(self) -> None:
        """Send what is left, within a bound."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wake.set()
        self._thread.join(LAST_SECONDS)
        self._processor.shutdown()

    # ---- on a thread of its own

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._make_some()
            if self._is_closed:
                return

    def _make_some(self) -> None:
        events = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        try:
            spans = self.journal.read(lambda connection: [*self._spans(connection, events)])
        except JournalError:
            return  # closed, or broken: who writes next meets it, and says so
        except Exception:
            _logger.exception("Spans could not be made; the runs go on.")
            return
        for span in spans:
            self._processor.on_end(span)

    def _spans(self, connection: sqlite3.Connection, events: list[tuple[Event, int | None]]) -> Iterator[ReadableSpan]:
        for event, known_epoch in events:
            if event.task_run_id is not None:
                task = find_task_span(connection, event.flow_run_id, event.task_run_id)
                if task is not None and self._is_sampled(connection, event.flow_run_id):
                    yield from self._of_task(connection, task)
                continue
            epoch = find_last_epoch(connection, event.flow_run_id) if known_epoch is None else known_epoch
            if epoch is None or not self._is_sampled(connection, event.flow_run_id):
                continue
            if event.state == "RUNNING" and epoch > 1:  # what the process that died could not say
                before = find_run_span(connection, event.flow_run_id, epoch - 1)
                if before is not None and _died(before):
                    yield self._of_run(connection, before)
            elif event.state in _OVER or event.state_name == "AwaitingRetry":
                run = find_run_span(connection, event.flow_run_id, epoch)
                if run is not None and run.ended_at is not None:
                    yield self._of_run(connection, run)

    def _root(self, connection: sqlite3.Connection, flow_run_id: int) -> int:
        root = self._roots.get(flow_run_id)
        if root is None:
            root = flow_run_id
            while (caller := find_caller(connection, root)) is not None:
                root = caller[0]
            if len(self._roots) >= WAITING_LIMIT:
                self._roots.clear()
            self._roots[flow_run_id] = root
        return root

    def _trace_id(self, connection: sqlite3.Connection, flow_run_id: int) -> int:
        return trace_id_of(self.journal.id, self._root(connection, flow_run_id))

    def _is_sampled(self, connection: sqlite3.Connection, flow_run_id: int) -> bool:
        found = self._sampler.should_sample(None, self._trace_id(connection, flow_run_id), "flow run")
        return found.decision is Decision.RECORD_AND_SAMPLE

    def _of_run(self, connection: sqlite3.Connection, run: RunSpan) -> ReadableSpan:
        own, trace_id = self.journal.id, self._trace_id(connection, run.flow_run_id)
        caller = find_caller(connection, run.flow_run_id)
        parent = None
        if caller is not None:
            outer, epoch, scope = caller
            parent = run_span_id(own, outer, epoch) if scope == 0 else task_span_id(own, scope, epoch)
        before = SpanContext(trace_id, run_span_id(own, run.flow_run_id, run.epoch - 1), True, _SAMPLED)
        attributes: Attributes = {
            "wfengine.flow_run.id": run.flow_run_id, "wfengine.flow_run.name": run.name, "wfengine.flow.name": run.flow,
            "wfengine.flow_run.attempt": run.epoch, "wfengine.flow_run.reason": run.reason, "wfengine.state": run.state,
        }  # fmt: skip
        if run.deployment is not None:
            attributes["wfengine.deployment.name"] = run.deployment
        return self._span(
            f"flow {run.flow}", trace_id, run_span_id(own, run.flow_run_id, run.epoch), parent, attributes,
            (run.started_at, run.ended_at or run.started_at), run.state, [Link(before)] if run.epoch > 1 else [],
        )  # fmt: skip

    def _of_task(self, connection: sqlite3.Connection, task: TaskSpan) -> Iterator[ReadableSpan]:
        own, trace_id = self.journal.id, self._trace_id(connection, task.flow_run_id)
        span_id = task_span_id(own, task.task_run_id, task.epoch)
        parent = task_span_id(own, task.scope, task.epoch) if task.scope else run_span_id(own, task.flow_run_id, task.epoch)
        common: Attributes = {
            "wfengine.flow_run.id": task.flow_run_id, "wfengine.task_run.id": task.task_run_id, "wfengine.task.name": task.task,
            "wfengine.task_run.name": task.name,
        }  # fmt: skip
        for each in task.attempts:
            attempt_id = attempt_span_id(own, task.task_run_id, each.attempt)
            times = self._commits.pop((task.task_run_id, each.attempt), None)
            if times is not None:
                commit_id = _digest64(f"{own}/commit/{task.task_run_id}/{each.attempt}")
                yield self._span("commit", trace_id, commit_id, attempt_id, dict(common), times, "COMPLETED")
            attributes = {**common, "wfengine.attempt": each.attempt, "wfengine.state": each.outcome}
            if each.error_type is not None:
                attributes["error.type"] = each.error_type
            until = each.ended_at if times is None else times[1]
            yield self._span(
                f"attempt {each.attempt} of {task.task}", trace_id, attempt_id, span_id, attributes,
                (each.started_at, until), each.outcome,
            )  # fmt: skip
        attributes = {**common, "wfengine.state": task.state}
        yield self._span(
            f"task {task.task}", trace_id, span_id, parent, attributes, (task.started_at, task.ended_at), task.state
        )

    def _span(
        self, name: str, trace_id: int, span_id: int, parent_id: int | None, attributes: Attributes,
        times: tuple[str | float, str | float], state: str, links: Sequence[Link] = (),
    ) -> ReadableSpan:  # fmt: skip
        started, ended = map(_nanoseconds, times)
        code = StatusCode.ERROR if state in _BAD else StatusCode.OK if state == "COMPLETED" else StatusCode.UNSET
        return ReadableSpan(
            name,
            SpanContext(trace_id, span_id, False, _SAMPLED),
            None if parent_id is None else SpanContext(trace_id, parent_id, False, _SAMPLED),
            self._resource,
            attributes,
            (),
            links,
            SpanKind.INTERNAL,
            status=Status(code, state if code is StatusCode.ERROR else None),
            start_time=started,
            end_time=max(started, ended),
            instrumentation_scope=self._instrumentation,
        )


def _nanoseconds(at: str | float) -> int:
    return round((seconds_from_text(at) if isinstance(at, str) else at) * 1e6) * 1000


def _died(run: RunSpan) -> bool:
    """Tell whether an execution ended with its process: one that could still say so sent its span itself."""
    return run.state == "CRASHED" and not (run.message or "").startswith("interrupted by ")


# ------------------------------------------------------------------------------------------- on and off


def start_tracing(journal: Journal, processor: SpanProcessor | None = None) -> Tracer:
    """Trace the runs of this process in a journal from now on, until `stop_tracing`, or the process ends.

    WFENGINE_TRACES=otlp does the same for every journal that is used. `processor`: of OpenTelemetry, for spans to go elsewhere.
    """
    for listener in LISTENERS:
        if isinstance(listener, Tracer) and listener.journal is journal:
            return listener
    tracer = Tracer(journal, processor)
    add_listener(tracer)
    atexit.register(tracer.close)  # called before the journal is closed, which was registered earlier
    return tracer


def stop_tracing(tracer: Tracer) -> None:
    """Trace no more; what is left is sent."""
    if tracer in LISTENERS:
        remove_listener(tracer)
    atexit.unregister(tracer.close)
    tracer.close()
