"""Server-sent events: that something changed, and the lines that a run logs, as they come."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wfengine.page.api import error_response
from wfengine.page.rendering import text
from wfengine.page.serving import STREAMS, Serving
from wfengine.page.value_readings import EVENTS_AT_ONCE, events_after, newest_event_id
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.queries import MAX_ID, get_run_head, list_logs
from wfengine_journal.rows import LogLine

#: Lines of one event.
LINES = 500


def _stream(request: Request, events: AsyncIterator[str]) -> Response:
    if request.method == "HEAD":  # it has no body, so that it would not end
        return Response(media_type="text/event-stream")
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def stream_changes(serving: Serving, request: Request) -> Response:
    """Answer with an event `changed` now, and whenever something was committed."""
    if serving.streams >= STREAMS:
        return error_response(UsageError(f"{STREAMS} streams are open already. Close some pages."))

    async def events() -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        first = True
        async for is_changed in serving.changes():
            yield "event: changed\ndata: {}\n\n" if is_changed and not first else ": alive\n\n"
            first = False

    return _stream(request, events())


def _lines_after(run_id: int, last_id: int) -> Callable[[sqlite3.Connection], list[LogLine]]:
    return lambda connection: list_logs(connection, run_id, after_id=last_id, limit=LINES)


async def stream_logs(serving: Serving, request: Request) -> Response:
    """Answer with an event `log` for each line of a run after `after`, as it comes."""
    run_id = min(int(request.path_params["run_id"]), MAX_ID - 1)
    given = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    after = int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else 0
    if serving.streams >= STREAMS:
        return error_response(UsageError(f"{STREAMS} streams are open already. Close some pages."))
    try:
        await serving.read(lambda connection: get_run_head(connection, run_id))
    except WfengineError as error:
        return error_response(error)

    async def events() -> AsyncIterator[str]:
        last = after
        yield "retry: 3000\n\n"
        async for _ in serving.changes():
            yield ": alive\n\n"
            while True:
                lines = await serving.read(_lines_after(run_id, last))
                for line in lines:
                    last = line.id
                    fields = {**asdict(line), "message": text(line.message), "task": text(line.task)}
                    yield f"id: {line.id}\nevent: log\ndata: {json.dumps(fields)}\n\n"
                if len(lines) < LINES:
                    break

    return _stream(request, events())


async def stream_events(serving: Serving, request: Request) -> Response:
    """Answer with an event `event` for each event of the journal after `after`, as it comes; without it, for those to come."""
    given = request.headers.get("last-event-id") or request.query_params.get("after", "")
    name, resource = request.query_params.get("name"), request.query_params.get("resource")
    if serving.streams >= STREAMS:
        return error_response(UsageError(f"{STREAMS} streams are open already. Close some pages."))
    try:
        if given.isascii() and given.isdigit() and len(given) <= 18:
            after = int(given)
        else:
            after = await serving.read(newest_event_id)
    except WfengineError as error:
        return error_response(error)

    async def events() -> AsyncIterator[str]:
        last = after
        yield "retry: 3000\n\n"
        async for _ in serving.changes():
            yield ": alive\n\n"
            while True:
                read = _events_after(last, name, resource)
                found = await serving.read(read)
                for each in found:
                    last = each["id"]
                    yield f"id: {last}\nevent: event\ndata: {json.dumps(each)}\n\n"
                if len(found) < EVENTS_AT_ONCE:
                    break

    return _stream(request, events())


def _events_after(last_id: int, name: str | None, resource: str | None) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    return lambda connection: events_after(connection, last_id, name=name, resource=resource)
