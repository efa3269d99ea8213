"""Makes the spans of what a journal recorded: of each execution of a flow run, each task run, its attempts and their commits.

Needs the packages of `pip install 'wfengine[otel]'`. Nothing here knows of the process that executes the runs: `Notes` say
what ended, the journal when and how. Used on one thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from wfengine._version import __version__
from wfengine.listeners.trace_ids import attempt_span_id, commit_span_id, run_span_id, task_span_id, trace_id_of
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.spans import RunSpan, TaskSpan, find_caller, find_last_epoch, find_run_span, find_task_spans

#: Runs whose trace is remembered, and commits whose times are kept until the end they belong to is told of.
RUNS_LIMIT = COMMITS_LIMIT = 10_000
#: States in which an execution is over.
_OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED"})
_BAD = frozenset({"FAILED", "CRASHED", "INTERRUPTED"})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

Attributes = dict[str, str | int]
#: A state that a flow run entered: its id, the state, the state's name, and the number of the execution where that is known.
RunNote = tuple[int, str, str | None, int | None]
#: An attempt whose outcome was committed: flow run, task run, attempt, when it was, in seconds since 1970, and whether the task
#: run ended by it.
TaskNote = tuple[int, int, int, float, bool]
#: What is told at a time.
Notes = tuple[list[RunNote], list[TaskNote]]


class SpanMaker:
    """Makes spans of one journal."""

    def __init__(self, journal_id: str) -> None:
        provider = TracerProvider(shutdown_on_exit=False)  # reads resource and sampler from the environment
        self._sampler, self._resource = provider.sampler, provider.resource
        self._journal_id = journal_id
        self._instrumentation = InstrumentationScope("wfengine", __version__)
        self._commits: dict[tuple[int, int], float] = {}
        self._traces: dict[int, tuple[int, bool]] = {}

    def make(self, connection: sqlite3.Connection, notes: Notes) -> Iterator[ReadableSpan]:
        """Yield the spans of what ended."""
        runs, tasks = notes
        self._keep_commits(tasks)
        ended = {(note[0], note[1]): None for note in tasks if note[4] and self._trace(connection, note[0])[1]}
        for task in find_task_spans(connection, json.dumps([*ended])):
            yield from self._of_task(connection, task)
        for flow_run_id, state, state_name, known_epoch in runs:
            epoch = find_last_epoch(connection, flow_run_id) if known_epoch is None else known_epoch
            if epoch is None or not self._trace(connection, flow_run_id)[1]:
                continue
            if state == "RUNNING" and epoch > 1:  # what the process that died could not say
                before = find_run_span(connection, flow_run_id, epoch - 1)
                if before is not None and _died(before):
                    yield self._of_run(connection, before)
            elif state in _OVER or state_name == "AwaitingRetry":
                run = find_run_span(connection, flow_run_id, epoch)
                if run is not None and run.ended_at is not None:
                    yield self._of_run(connection, run)

    def _keep_commits(self, tasks: Iterable[TaskNote]) -> None:
        for _, task_run_id, attempt, committed_at, _ in tasks:
            self._commits[task_run_id, attempt] = committed_at
        for oldest in [*self._commits][: max(0, len(self._commits) - COMMITS_LIMIT)]:
            del self._commits[oldest]  # of a call that makes no span, or whose end was left out

    def _trace(self, connection: sqlite3.Connection, flow_run_id: int) -> tuple[int, bool]:
        """Return the id of the trace of a run, and whether the sampler takes it."""
        known = self._traces.get(flow_run_id)
        if known is None:
            root = flow_run_id
            while (caller := find_caller(connection, root)) is not None:
                root = caller[0]
            trace_id = trace_id_of(self._journal_id, root)
            found = self._sampler.should_sample(None, trace_id, "flow run")
            if len(self._traces) >= RUNS_LIMIT:
                self._traces.clear()
            known = self._traces[flow_run_id] = trace_id, found.decision is Decision.RECORD_AND_SAMPLE
        return known

    def _of_run(self, connection: sqlite3.Connection, run: RunSpan) -> ReadableSpan:
        own, trace_id = self._journal_id, self._trace(connection, run.flow_run_id)[0]
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
        own, trace_id = self._journal_id, self._trace(connection, task.flow_run_id)[0]
        span_id = task_span_id(own, task.task_run_id, task.epoch)
        parent = task_span_id(own, task.scope, task.epoch) if task.scope else run_span_id(own, task.flow_run_id, task.epoch)
        common: Attributes = {
            "wfengine.flow_run.id": task.flow_run_id, "wfengine.task_run.id": task.task_run_id, "wfengine.task.name": task.task,
            "wfengine.task_run.name": task.name,
        }  # fmt: skip
        for each in task.attempts:
            attempt_id = attempt_span_id(own, task.task_run_id, each.attempt)
            committed_at = self._commits.pop((task.task_run_id, each.attempt), None)
            if committed_at is not None:
                times = (each.ended_at, committed_at)
                commit_id = commit_span_id(own, task.task_run_id, each.attempt)
                yield self._span("commit", trace_id, commit_id, attempt_id, dict(common), times, "COMPLETED")
            attributes = {**common, "wfengine.attempt": each.attempt, "wfengine.state": each.outcome}
            if each.error_type is not None:
                attributes["error.type"] = each.error_type
            until = each.ended_at if committed_at is None else committed_at
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
