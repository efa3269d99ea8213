"""A client of the API that `wfengine ui` and `wfengine serve --ui` serve. It needs no package beside wfengine.

    from wfengine.api_client import ApiClient

    client = ApiClient("http://127.0.0.1:4200", token="...")
    started = client.deployments_run("etl", "nightly", parameters={"day": "2026-11-28"}, idempotency_key="2026-11-28")
    for line in client.log_lines(started["answer"]["run"]["id"]):
        print(line["message"])

There is a method for each operation of the API, and `call("deployments.run", ...)` for one that is named by a text. A file to
take away (`runs_log_file`, `runs_extract`) is given open, to be read and closed. What the API refuses is raised as the error
that the command line would end with. A connection may be used by one thread at a time.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from wfengine.api_calls import Answer
from wfengine.api_changes import Changes
from wfengine.api_reads import Reads
from wfengine_journal.errors import ApiError, UsageError, WfengineError

#: Seconds without a sign of life after which an answer, or a stream, is given up.
TIMEOUT_SECONDS = 120.0
#: Where the token is taken from when none is given: as the page takes it.
TOKEN_VARIABLE = "WFENGINE_UI_TOKEN"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: the token is for this address only."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Return no request."""


class ApiClient(Reads, Changes):
    """Asks the API at an address, which is that of the page; a path in it stays (`/flows` behind a proxy)."""

    def __init__(self, address: str, *, token: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise UsageError(f"The address of a page is as http://127.0.0.1:4200, and not {address!r}.")
        self._root = address.rstrip("/")
        self._token = token or os.environ.get(TOKEN_VARIABLE) or ""
        self._timeout_seconds = timeout_seconds
        # A proxy of the environment cannot reach what listens on this machine only.
        direct = [urllib.request.ProxyHandler({})] if parts.hostname in _LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *direct)

    def call(self, operation: str, **arguments: object) -> Answer:
        """Ask for an operation by its name, such as 'runs.list'. Raises UsageError for one that there is not."""
        names = (*self.READS, *self.CHANGES)
        if operation not in names:
            raise UsageError(f"There is no operation {operation!r}. There are: {', '.join(names)}.")
        method = getattr(self, operation.replace(".", "_"))
        try:
            found: Answer = method(**arguments)
        except TypeError as error:
            raise UsageError(f"{operation} is not asked like that: {error}.") from None
        return found

    def rows(self, operation: str, **arguments: object) -> Iterator[dict[str, Any]]:
        """Give the rows of a list, page after page: `rows("runs.list", search="state:failed")`."""
        while True:
            answer = self.call(operation, **arguments)
            yield from next((value for value in answer.values() if isinstance(value, list)), [])
            following = {
                "before": answer.get("next_before"), "after": answer.get("next_after"), **(answer.get("next") or {})
            }  # fmt: skip
            further = {name: value for name, value in following.items() if value is not None}
            if not further:
                return
            arguments |= further

    # ---- streams

    def changes(self) -> Iterator[None]:
        """Give None whenever something was committed to the journal, at most once a second; never ends by itself."""
        for kind, _ in self._stream("/events", {}):
            if kind == "changed":
                yield None

    def events(
        self, *, after: int | None = None, name: str | None = None, resource: str | None = None
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """Give events as they come, after the one with an id, else those to come; never ends by itself."""
        for kind, data in self._stream("/events/stream", {"after": after, "name": name, "resource": resource}):
            if kind == "event":
                yield json.loads(data)

    def log_lines(self, run_id: int, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Give the lines of a run as it logs them, after the one with an id; never ends by itself."""
        for kind, data in self._stream(f"/runs/{int(run_id)}/logs/stream", {"after": after}):
            if kind == "log":
                yield json.loads(data)

    def _stream(self, path: str, query: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        with closing(self._open("GET", path + _query(query), None)) as answer:
            kind, data = "", ""
            for raw in answer:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if not line:
                    if kind:
                        yield kind, data
                    kind, data = "", ""
                elif line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    data += line.removeprefix("data:").strip()

    # ---- requests

    def _ask(
        self, method: str, path: str, places: Mapping[str, object], query: Mapping[str, object], body: Mapping[str, object]
    ) -> Answer:
        path = _filled_in(path, places)
        given = {name: value for name, value in body.items() if value is not None}
        raw = json.dumps(given).encode() if given else None
        with closing(self._open(method, f"/api/v1{path}{_query(query)}", raw)) as answer:
            found: Answer = json.load(answer)
        return found

    def _fetch(self, path: str, places: Mapping[str, object], query: Mapping[str, object]) -> IO[bytes]:
        return self._open("GET", f"/api/v1{_filled_in(path, places)}{_query(query)}", None)

    def _open(self, method: str, path: str, body: bytes | None) -> IO[bytes]:
        request = urllib.request.Request(self._root + path, body, method=method)  # its scheme was looked at
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Accept", "application/json, text/event-stream")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            answer: IO[bytes] = self._opener.open(request, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            with closing(error):
                raise _error_of(error.code, error.read(1_000_000), method, path) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ApiError(
                f"The page at {self._root} cannot be reached: {reason}. Start it with: wfengine ui", status=0
            ) from error
        return answer


def _filled_in(path: str, places: Mapping[str, object]) -> str:
    for name, value in places.items():
        text = str(value)
        # . and .. would be taken for steps in the path.
        path = path.replace(f"{{{name}}}", text.replace(".", "%2E") if text in (".", "..") else quote(text, safe=""))
    return path


def _query(values: Mapping[str, object]) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items() if value is not None
    }  # fmt: skip
    return f"?{urlencode(given)}" if given else ""


def _error_of(status: int, raw: bytes, method: str, path: str) -> WfengineError:
    """Return the error that an answer tells of, as its own class where that can be made of its text."""
    try:
        told = json.loads(raw)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", raw.decode("utf-8", "replace").strip()[:2000] or "no text"
    error = _made(_classes().get(code), message)
    if error is None:
        error = ApiError(f"{method} {path.partition('?')[0]} was answered {status}: {message}", status=status)
    return error


def _made(kind: type[WfengineError] | None, message: str) -> WfengineError | None:
    """Return an error of a class, or of the nearest one above it that is made of a text alone."""
    while kind is not None and kind is not WfengineError:
        try:
            return kind(message)
        except TypeError:
            kind = kind.__base__ if kind.__base__ is not None and issubclass(kind.__base__, WfengineError) else None
    return None


def _classes() -> dict[str, type[WfengineError]]:
    """Return the classes of the tree by code; of several with one code, the one that is highest."""
    found: dict[str, type[WfengineError]] = {}
    waiting: list[type[WfengineError]] = [WfengineError]
    while waiting:
        kind = waiting.pop(0)
        found.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return found
