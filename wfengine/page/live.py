"""Server-sent events: that something changed, and the lines that a run logs, as they come."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wfengine.page.api import error_response
from wfengine.page.rendering import text
from wfengine.page.serving import STREAMS, Serving
from wfengine.page.value_readings import EVENTS_AT_ONCE, events_after, newest_event_id
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.queries import MAX_ID, get_run_head, list_logs

#: Lines of one event.
LINES = 500


def _stream(request: Request, events: AsyncIterator[str]) -> Response:
    if request.method == "HEAD":  # it has no body, so that it would not end
        return Response(media_type="text/event-stream")
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def stream_changes(serving: Serving, request: Request) -> Response:
    """Answer with an event `changed` whenever something was committed.

    What was committed after a page was read and before its stream was there is not lost: the page brings with it what it saw,
    and so does a browser that was cut off.
    """
    if serving.streams >= STREAMS:
        return _too_many()
    seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")

    async def events() -> AsyncIterator[str]:
        yield "retry: 3000\n\n"
        first = True
        async for is_changed in serving.changes():
            now = serving.version_text()
            if is_changed and (not first or seen not in ("", now)):
                yield f"id: {now}\nevent: changed\ndata: {{}}\n\n"
            else:
                yield ": alive\n\n"
            first = False

    return _stream(request, events())


async def stream_logs(serving: Serving, request: Request) -> Response:
    """Answer with an event `log` for each line of a run after `after`, as it comes."""
    run_id = min(int(request.path_params["run_id"]), MAX_ID - 1)
    if serving.streams >= STREAMS:
        return _too_many()
    try:
        await serving.read(lambda connection: get_run_head(connection, run_id))
    except WfengineError as error:
        return error_response(error)

    def lines_after(last_id: int, connection: sqlite3.Connection) -> list[dict[str, Any]]:
        found = list_logs(connection, run_id, after_id=last_id, limit=LINES)
        return [{**asdict(line), "message": text(line.message), "task": text(line.task)} for line in found]

    return _stream(request, _as_they_come(serving, "log", lines_after, _after(request) or 0, LINES))


async def stream_events(serving: Serving, request: Request) -> Response:
    """Answer with an event `event` for each event of the journal after `after`, as it comes; without it, for those to come."""
    name, resource = request.query_params.get("name"), request.query_params.get("resource")
    if serving.streams >= STREAMS:
        return _too_many()
    after = _after(request)
    try:
        last_id = await serving.read(newest_event_id) if after is None else after
    except WfengineError as error:
        return error_response(error)

    def found_after(last_id: int, connection: sqlite3.Connection) -> list[dict[str, Any]]:
        return events_after(connection, last_id, name=name, resource=resource)

    return _stream(request, _as_they_come(serving, "event", found_after, last_id, EVENTS_AT_ONCE))


def _too_many() -> Response:
    return error_response(UsageError(f"{STREAMS} streams are open already. Close some pages."))


def _after(request: Request) -> int | None:
    """Return the id after which a stream begins: where the browser was cut off, or what the query says."""
    given = request.headers.get("last-event-id") or request.query_params.get("after", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else None


async def _as_they_come(
    serving: Serving, kind: str, read_after: Callable[[int, sqlite3.Connection], list[dict[str, Any]]], last_id: int, most: int
) -> AsyncIterator[str]:  # fmt: skip
    """Give an event for each row after an id, each time that something was committed. `most`: what one read gives at most."""
    yield "retry: 3000\n\n"
    async for _ in serving.changes():
        yield ": alive\n\n"
        while True:
            found = await serving.read(partial(read_after, last_id))
            for each in found:
                last_id = each["id"]
                yield f"id: {last_id}\nevent: {kind}\ndata: {json.dumps(each)}\n\n"
            if len(found) < most:
                break
