"""Webhooks that come in: POST /hooks/NAME, signed, makes an event webhook.NAME. On loopback, unless told otherwise.

Three headers are needed, see `wfengine.automations.signatures`. The secret comes only out of an environment variable.
The delivery id is the event's idempotency key, and is signed: what is sent again, by its sender or by somebody who caught it,
makes no second event. Needs the packages starlette and uvicorn.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wfengine.automations.signatures import DELIVERY, SIGNATURE, TIMESTAMP, TOLERANCE_SECONDS, is_recent, is_signed
from wfengine.event_values import event_columns
from wfengine_journal.errors import InternalError, InvalidValueError, JournalError, UsageError, WfengineError
from wfengine_journal.events import PutEvent
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from wfengine_journal.store import Journal

#: Bytes of one delivery, seconds in which it has to have come, characters of its id, and of a secret at least.
BODY_LIMIT = 1_000_000
BODY_SECONDS = 10.0
DELIVERY_CHARACTERS = 200
SECRET_CHARACTERS = 16
#: Connections at a time.
CONNECTIONS_LIMIT = 100
PORT = 4280

_logger = logging.getLogger("wfengine.webhooks")


@dataclass(frozen=True)
class Hook:
    """One webhook: its name in the path, and the environment variable that holds its secret. `event`: name of its events."""

    name: str
    secret: str
    event: str | None = None
    tolerance_seconds: float = TOLERANCE_SECONDS

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").replace("_", "").isalnum() or not self.name.isascii() or len(self.name) > 100:
            raise UsageError(f"The name of a webhook is made of letters, digits, - and _, and is not {self.name!r}.")
        event_columns(self.event_name, "webhook", at="")

    @property
    def event_name(self) -> str:
        """The name of its events."""
        return self.event or f"webhook.{self.name}"

    def key(self) -> bytes:
        """Return its secret. Raises UsageError where the environment does not hold one that is long enough."""
        secret = os.environ.get(self.secret, "")
        if len(secret) < SECRET_CHARACTERS:
            raise UsageError(
                f"The webhook '{self.name}' needs a secret of at least {SECRET_CHARACTERS} characters in the environment "
                f"variable {self.secret}. Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        return secret.encode()


class WebhookReceiver:
    """Receives webhooks. See `wfengine_scheduler.services.Service`."""

    name = "webhooks"

    def __init__(self, journal: Journal, hooks: Iterable[Hook], *, host: str = "127.0.0.1", port: int = PORT) -> None:
        """Raises UsageError for a hook without a secret. Port 0: any that is free, see `port` after `start`."""
        self._journal = journal
        self._hooks = {hook.name: (hook, hook.key()) for hook in hooks}
        self._host = host
        self.port = port
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._fault: WfengineError | None = None
        self.accepted = 0
        self.refused = 0

    # ---- as the daemon sees it

    @property
    def fault(self) -> WfengineError | None:
        """Why it cannot go on; None while it can."""
        return self._fault

    def start(self) -> None:
        """Listen, on a thread of its own. Raises UsageError where the port is taken, or without the packages."""
        uvicorn = _uvicorn()
        application = self.application()
        try:
            listening = socket.create_server((self._host, self.port))
        except OSError as error:
            raise UsageError(
                f"Webhooks cannot be received at {self._host}:{self.port}: {error.strerror or error}. Take another port."
            ) from error
        self.port = int(listening.getsockname()[1])
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_LIMIT,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=5,
                lifespan="off",
            )
        )
        self._thread = start_thread("wfengine-webhooks", lambda: self._serve(listening))

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._server.run(sockets=[listening])
        except (Exception, SystemExit) as error:
            self._fault = self._fault or InternalError(
                f"Webhooks cannot be received any more: {type(error).__name__}: {error}."
            )
        finally:
            listening.close()

    def stop_taking(self) -> None:
        """Take no more deliveries: their senders try again."""
        if self._server is not None:
            self._server.should_exit = True

    def stop(self, timeout_seconds: float) -> None:
        """Let end what is under way, and end."""
        self.stop_taking()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def report(self) -> dict[str, object]:
        """Return how it is."""
        return {"host": self._host, "port": self.port, "accepted": self.accepted, "refused": self.refused}

    # ---- deliveries

    def application(self) -> Starlette:
        """Return the ASGI application, to be served by another server too."""
        _uvicorn()
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(routes=[Route("/hooks/{name}", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> JSONResponse:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        try:
            body = await asyncio.wait_for(_body(request), BODY_SECONDS)
            headers = {name: request.headers.get(name, "") for name in (DELIVERY, TIMESTAMP, SIGNATURE)}
            put = self._checked(request.path_params["name"], headers, body)
            await run_in_threadpool(self._journal.write, put, synced=True)
        except Refused as refusal:
            self.refused += 1
            return JSONResponse({"error": refusal.reason}, refusal.status)
        except TimeoutError:
            self.refused += 1
            return JSONResponse({"error": "the body did not come in time"}, 408)
        except JournalError as error:
            self._fault = error
            return JSONResponse({"error": "the event could not be written; send it again later"}, 503)
        self.accepted += 1
        return JSONResponse({"event": put.event_id, "is_new": put.is_new}, 202)

    def _checked(self, name: str, headers: dict[str, str], body: bytes) -> PutEvent:
        """Return the event of a delivery. Raises Refused; of a bad signature and an unknown name it says the same."""
        hook, secret = self._hooks.get(name, (None, b""))
        delivery, timestamp = headers[DELIVERY], headers[TIMESTAMP]
        right = is_signed(secret, delivery, timestamp, body, headers[SIGNATURE])
        now = self._journal.clock.wall_seconds()
        if hook is None or not right or not is_recent(timestamp, now, hook.tolerance_seconds):
            raise Refused(401, "there is no such webhook, or the signature or time is wrong")
        if not 1 <= len(delivery) <= DELIVERY_CHARACTERS or not delivery.isprintable():
            raise Refused(400, f"{DELIVERY} is an id of 1 to {DELIVERY_CHARACTERS} printable characters")
        try:
            columns = event_columns(
                hook.event_name, f"webhook.{name}", payload=_payload(body), key=f"webhook:{name}:{delivery}",
                at=self._journal.clock.now_text(),
            )  # fmt: skip
        except InvalidValueError as error:
            raise Refused(400, str(error)) from error
        return PutEvent(columns)


class Refused(Exception):
    """A delivery that is not taken."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise Refused(413, f"a delivery has at most {BODY_LIMIT} bytes")
        parts.append(part)
    return b"".join(parts)


def _payload(body: bytes) -> object:
    """Return what a body is as JSON, else its text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Refused(400, "the body is no UTF-8 text") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401 - both are needed
        import uvicorn
    except ImportError as error:
        raise UsageError(
            "Receiving webhooks needs the packages starlette and uvicorn: pip install 'wfengine[webhooks]'"
        ) from error
    return uvicorn
