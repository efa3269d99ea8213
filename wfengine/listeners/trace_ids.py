"""The ids of traces and spans: made of the journal's id and the numbers of run, execution, task run and attempt.

So code knows its span before that is made, on any thread and in any worker, and whoever makes a span finds its parent's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine_journal.errors import MissingContextError

if TYPE_CHECKING:
    from opentelemetry.context import Context


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


def commit_span_id(journal_id: str, task_run_id: int, attempt: int) -> int:
    """Return the id of the span of the commit of an attempt's outcome."""
    return _digest64(f"{journal_id}/commit/{task_run_id}/{attempt}")


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


def current_context() -> Context:
    """Return the context for spans of your own: `tracer.start_as_current_span("query", context=current_context())`."""
    from opentelemetry import trace  # an extra, and not needed by a run

    trace_id, span_id = current_ids()
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.set_span_in_context(trace.NonRecordingSpan(trace.SpanContext(trace_id, span_id, True, sampled)))


def traceparent() -> str:
    """Return the header `traceparent` for a request to another service, as W3C Trace Context has it."""
    trace_id, span_id = current_ids()
    return f"00-{trace_id:032x}-{span_id:016x}-01"
