"""The REST API: routes, requests and answers of the operations, and the OpenAPI 3.1 document of them."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from wfengine._version import __version__
from wfengine.page.commands import CommandError
from wfengine.page.downloads import Download
from wfengine.page.exact_paths import ExactRoute
from wfengine.page.operations import Operation
from wfengine.page.parameters import collect
from wfengine.page.serving import Serving
from wfengine.page.table import OPERATIONS
from wfengine_journal.errors import (
    JournalError,
    JournalNotFoundError,
    NotFoundError,
    NotPausedError,
    RunEndedError,
    RunOwnedError,
    UsageError,
    WfengineError,
)

PREFIX = "/api/v1"

_logger = logging.getLogger("wfengine.page")


def json_response(value: object, status: int = 200) -> Response:
    """Return an answer; what JSON lacks becomes text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=str)
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def status_of(error: WfengineError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, CommandError):
        if error.code in ("WF103",):
            return 404
        return 409 if error.code.startswith("WF2") or error.exit_code in (4, 5) else 400
    if isinstance(error, NotFoundError | JournalNotFoundError):
        return 404
    if isinstance(error, NotPausedError | RunEndedError | RunOwnedError):
        return 409
    if isinstance(error, UsageError):
        return 400
    return 503 if isinstance(error, JournalError) else 409


def error_response(error: WfengineError) -> Response:
    """Return an error as every route of the API answers it."""
    status = status_of(error)
    fields: dict[str, object] = {"code": error.code, "message": str(error)}
    return json_response({"error": fields}, status)


def route(serving: Serving, operation: Operation) -> Route:
    """Return the route of an operation."""

    async def answer(request: Request) -> Response:
        try:
            body = await _body(request) if operation.changes else {}
            values = collect(operation.parameters, request.path_params, request.query_params.multi_items(), body)
            done = await serving.call(lambda: operation.function(serving, values), changes=operation.changes)
        except WfengineError as error:
            return error_response(error)
        except sqlite3.Error as error:
            _logger.warning("%s: %s", operation.name, error)
            return json_response({"error": {"code": "WF400", "message": f"SQLite reported: {error}"}}, 503)
        except ClientDisconnect:
            return json_response({"error": {"code": "HTTP413", "message": "The body did not come, or is too large."}}, 413)
        return _file_response(request, done) if isinstance(done, Download) else json_response(done, operation.code)

    return ExactRoute(PREFIX + operation.path, answer, methods=[operation.method], name=operation.name)


def _file_response(request: Request, file: Download) -> Response:
    headers = {"content-disposition": f'attachment; filename="{file.name}"'}
    if request.method == "HEAD":
        file.close()
        return Response(media_type=file.media_type, headers=headers)
    return _FileResponse(file, headers)


class _FileResponse(StreamingResponse):
    """Sends a file, and closes it however that ends: who asked may be gone before the first piece."""

    def __init__(self, file: Download, headers: Mapping[str, str]) -> None:
        super().__init__(file.pieces, media_type=file.media_type, headers=headers)
        self._close = file.close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _body(request: Request) -> dict[str, object]:
    raw = await request.body()
    if not raw:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UsageError("The body of a request is JSON: send the header Content-Type: application/json")
    try:
        found = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UsageError("The body of a request is a JSON object.")
    return found


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def routes(serving: Serving) -> list[Route]:
    """Return the routes of the API."""
    document = openapi(serving.read_only)

    async def answer(request: Request) -> Response:
        return json_response({**document, "servers": [{"url": request.scope.get("root_path", "") or "/"}]})

    async def unknown(request: Request) -> Response:
        message = (
            f"There is no such operation. What there is stands in {request.scope.get('root_path', '')}{PREFIX}/openapi.json"
        )
        return json_response({"error": {"code": "HTTP404", "message": message}}, 404)

    # One route for each path: a method that it does not know is answered 405 with those it does.
    by_path: dict[str, list[Route]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, []).append(route(serving, operation))
    found = [Route(f"{PREFIX}/openapi.json", answer, methods=["GET"])]
    found += [_joined(PREFIX + path, by_path[path]) for path in sorted(by_path, key=lambda each: "{" in each)]
    return [*found, Route(PREFIX + "/{rest:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]


def _joined(path: str, alike: list[Route]) -> Route:
    if len(alike) == 1:
        return alike[0]
    endpoints: dict[str, Callable[[Request], Coroutine[Any, Any, Response]]] = {
        method: each.endpoint for each in alike for method in each.methods or ()
    }

    async def answer(request: Request) -> Response:
        return await endpoints[request.method](request)

    return ExactRoute(path, answer, methods=sorted(endpoints))


# ------------------------------------------------------------------------------------------- the document

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


def openapi(read_only: bool) -> dict[str, object]:
    """Return the OpenAPI 3.1 document of the operations; of a page that is read-only, those that read."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        if read_only and operation.changes:
            continue
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "wfengine", "version": __version__, "description": "Durable workflows in one SQLite file."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _described(operation: Operation) -> dict[str, object]:
    def error(text: str) -> dict[str, object]:
        return {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}

    fields = [each for each in operation.parameters if each.place == "body"]
    described: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "parameters": [
            {
                "name": each.name, "in": each.place, "required": each.required, "description": each.description,
                "schema": each.schema(),
            }
            for each in operation.parameters if each.place != "body"
        ],
        "responses": {
            str(operation.code): {
                "description": "Done.",
                "content": {
                    media_type: {"schema": {"type": "object"}} if media_type == "application/json" else {}
                    for media_type in operation.media_types
                },
            },
            "400": error("What was asked makes no sense; nothing was done."),
            "401": error("The token is missing or wrong."),
            "403": error("Not from here, or not on a page that is read-only."),
            "404": error("There is no such run, task run, deployment or journal."),
            "409": error("It cannot be done to a run in this state."),
            "413": error("The body is too large."),
            "414": error("The address is too long."),
            "421": error("The page is not served under this name."),
            "503": error("The journal cannot be read or written."),
        },
    }  # fmt: skip
    if fields:
        described["requestBody"] = {
            "required": any(each.required for each in fields),
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {each.name: {**each.schema(), "description": each.description} for each in fields},
                        "required": [each.name for each in fields if each.required],
                    }
                }
            },
        }
    return described
