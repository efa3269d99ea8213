"""The ASGI application: pages with their `.json` twins, buttons, streams, the API, files of its own - all behind the guard."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from wfengine.page import actions, api, live
from wfengine.page.asked import Asked
from wfengine.page.guard import TOKEN_CHARACTERS, Guard, Receive, Scope, Send
from wfengine.page.pages import PAGES
from wfengine.page.pages.page import Page
from wfengine.page.rendering import environment, render
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.location import find_path

_STATIC = Path(__file__).parent / "static"
#: The files of its own, each named: nothing else is ever read from the disk for a request.
FILES = {"page.css": "text/css", "page.js": "text/javascript", "htmx.min.js": "text/javascript", "icon.svg": "image/svg+xml"}

_SAID = {404: "There is no such page.", 405: "This address does not take that method."}
_TOKEN = re.compile(f"[A-Za-z0-9_.~-]{{{TOKEN_CHARACTERS},200}}", re.ASCII)

_logger = logging.getLogger("wfengine.page")


class PageApplication:
    """The application. `token` is what whoever asks has to bring."""

    def __init__(
        self, journal: str | os.PathLike[str] | None, *, token: str | None, hosts: Iterable[str], read_only: bool,
        base_path: str, open_to_all: bool,
    ) -> None:  # fmt: skip
        if token is not None and not _TOKEN.fullmatch(token):
            raise UsageError(
                f"A token is made of at least {TOKEN_CHARACTERS} letters, digits, - and _. "
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if base_path and (not base_path.startswith("/") or base_path.endswith("/") or not base_path.isascii()):
            raise UsageError(f"The base path begins with / and does not end with one: /flows, and not {base_path!r}.")
        self.token = None if open_to_all else (token or secrets.token_urlsafe(24))
        self.base_path = base_path
        self.serving = Serving(find_path(journal), named=None if journal is None else str(journal), read_only=read_only)
        self._templates = environment()
        self._files = {name: (_STATIC / name).read_bytes() for name in FILES}
        self.starlette = Starlette(
            routes=self._routes(), exception_handlers={HTTPException: self._http_error, Exception: self._fault}
        )
        self._guard = Guard(self.starlette, token=self.token, hosts=hosts, read_only=read_only, base_path=base_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._guard(scope, receive, send)

    def stop_streams(self) -> None:
        """Let streams end soon: the server is about to."""
        self.serving.is_stopping = True

    # ---- routes

    def _routes(self) -> list[BaseRoute]:
        found: list[BaseRoute] = [Route("/static/{name}", self._file, methods=["GET"])]
        for page in PAGES:
            twin = "/overview.json" if page.path == "/" else f"{page.path}.json"
            found += [Route(twin, self._twin(page), methods=["GET"]), Route(page.path, self._page(page), methods=["GET"])]
        found += [
            Route("/events", self._changes, methods=["GET"]),
            Route("/runs/{run_id:int}/logs/stream", self._logs, methods=["GET"]),
            Route("/events/stream", self._events, methods=["GET"]),
            Route("/do/{operation}", self._perform, methods=["POST"]),
        ]
        return [*found, *api.routes(self.serving)]

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        return Response(self._files[name], media_type=FILES[name])

    async def _changes(self, request: Request) -> Response:
        return await live.stream_changes(self.serving, request)

    async def _logs(self, request: Request) -> Response:
        return await live.stream_logs(self.serving, request)

    async def _events(self, request: Request) -> Response:
        return await live.stream_events(self.serving, request)

    async def _perform(self, request: Request) -> Response:
        return await actions.perform(self.serving, self._show, request)

    def _page(self, page: Page) -> Any:
        async def answer(request: Request) -> Response:
            seen = self.serving.version_text()  # before anything is read: see `live.stream_changes`
            try:
                data = await self._load(page, request)
                # Rendering takes time too, and belongs on a thread.
                return await self.serving.call(
                    lambda: self._show(request, page.template, 200, seen=seen, **data, **page.view(data)), changes=False
                )
            except (WfengineError, sqlite3.Error) as error:
                return self._trouble(request, error)

        return answer

    def _twin(self, page: Page) -> Any:
        async def answer(request: Request) -> Response:
            try:
                return api.json_response(await self._load(page, request))
            except WfengineError as error:
                return api.error_response(error)
            except sqlite3.Error as error:
                return api.json_response({"error": {"code": "WF400", "message": f"SQLite reported: {error}"}}, 503)

        return answer

    async def _load(self, page: Page, request: Request) -> dict[str, Any]:
        asked = Asked(request.path_params, request.query_params)
        return await self.serving.read(lambda connection: page.load(connection, self.serving, asked))

    # ---- answers

    def _show(self, request: Request, template: str, status: int, *, seen: str = "", **values: Any) -> Response:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        query = request.scope["query_string"].decode("latin-1")
        html = render(
            self._templates, template, root=request.scope.get("root_path", ""), pages=PAGES, path=path,
            here=path + (f"?{query}" if query else ""), query=query, is_read_only=self.serving.read_only,
            journal_name=self.serving.path.name, seen=seen, **values,
        )  # fmt: skip
        return Response(html.encode("utf-8", "replace"), status, media_type="text/html")

    def _trouble(self, request: Request, error: WfengineError | sqlite3.Error) -> Response:
        status = api.status_of(error) if isinstance(error, WfengineError) else 503
        message = str(error) if isinstance(error, WfengineError) else f"SQLite reported: {error}"
        return self._show(request, "message.html", status, title="That is not to be seen", message=message, command=None)

    async def _http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = _SAID.get(status, "That did not work.")
        headers = getattr(error, "headers", None) or {}
        if "/api/" in request.scope["path"] or request.scope["path"].endswith(".json"):
            answer = api.json_response({"error": {"code": f"HTTP{status}", "message": said}}, status)
        else:
            answer = self._show(request, "message.html", status, title=f"{status}", message=said, command=None)
        answer.headers.update(headers)
        return answer

    async def _fault(self, request: Request, error: Exception) -> Response:
        _logger.error("%s %s", request.method, request.scope["path"], exc_info=error)
        message = f"{type(error).__name__}. This is a fault in wfengine: please report it, with what its log says."
        if "/api/" in request.scope["path"] or request.scope["path"].endswith(".json"):
            return api.json_response({"error": {"code": "WF900", "message": message}}, 500)
        return self._show(request, "message.html", 500, title="A fault", message=message, command=None)


def app(
    journal: str | os.PathLike[str] | None = None, *, token: str | None = None, hosts: Iterable[str] = (),
    read_only: bool = False, base_path: str = "", open_to_all: bool = False,
) -> PageApplication:  # fmt: skip
    """Return the page and the API of a journal as an ASGI application.

    `token`: what has to be brought, as `Authorization: Bearer`, or once in a link as ?token=...; default: a new one, see its
    attribute `token`. `hosts`: names, beside those of this machine, under which it is served. `base_path`: the path below which
    a proxy serves it; an application that mounts it says so itself. `read_only`: nothing can be changed. `open_to_all`: no
    token is asked for, because the application around it has looked already who asks.
    """
    if open_to_all and token is not None:
        raise UsageError("open_to_all=True asks for no token, so that none can be given.")
    return PageApplication(
        journal, token=token, hosts=hosts, read_only=read_only, base_path=base_path, open_to_all=open_to_all
    )  # fmt: skip
