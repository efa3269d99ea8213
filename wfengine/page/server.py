"""The page behind a server of its own, as a part of the daemon or alone."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from wfengine.page.app import PageApplication
from wfengine_journal.errors import InternalError, UsageError, WfengineError
from wfengine_journal.threads import start_thread

PORT = 4200
#: Connections at a time, and seconds that streams may take to end.
CONNECTIONS_LIMIT = 200
STOP_SECONDS = 5

_logger = logging.getLogger("wfengine.page")


class _Server(uvicorn.Server):
    """A server that lets streams know that it ends, for it waits for them."""

    application: PageApplication

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self.application.stop_streams()
        await super().shutdown(sockets)


class PageServer:
    """Serves the page. See `wfengine_scheduler.services.Service`."""

    name = "page"

    def __init__(self, application: PageApplication, *, host: str = "127.0.0.1", port: int = PORT) -> None:
        """Port 0: any that is free, see `port` after `start`."""
        self.application = application
        self._host = host
        self.port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._fault: WfengineError | None = None
        self.on_start: Callable[[], object] = lambda: None

    @property
    def fault(self) -> WfengineError | None:
        """Why it cannot go on; None while it can."""
        return self._fault

    @property
    def address(self) -> str:
        """Where it is, without the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        host = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host  # what it listens on is no address to open
        return f"http://{host}:{self.port}{self.application.base_path}/"

    @property
    def link(self) -> str:
        """The link that opens it: with the token, which the browser then keeps."""
        return f"{self.address}?token={self.application.token}" if self.application.token else self.address

    def start(self) -> None:
        """Listen, on a thread of its own. Raises UsageError where the port is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listening = socket.create_server((self._host, self.port), family=family)
        except OSError as error:
            raise UsageError(
                f"The page cannot be served at {self._host}:{self.port}: {error.strerror or error}. "
                "Take another port: wfengine ui --port 0"
            ) from error
        # Its connections inherit this. asyncio sets it only where a socket names its protocol, and without it the second
        # part of an answer waits 40 ms for the first one's receipt.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(listening.getsockname()[1])
        config = uvicorn.Config(
            self.application,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS_LIMIT,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=STOP_SECONDS,
            lifespan="off",
            ws="none",
            h11_max_incomplete_event_size=131_072,
        )
        self._server = _Server(config)
        self._server.application = self.application
        self._thread = start_thread("wfengine-page", lambda: self._serve(listening))
        self.on_start()

    def _serve(self, listening: socket.socket) -> None:
        assert self._server is not None
        try:
            self._server.run(sockets=[listening])
        except (Exception, SystemExit) as error:
            self._fault = self._fault or InternalError(f"The page cannot be served any more: {type(error).__name__}: {error}.")
        finally:
            listening.close()

    def stop_taking(self) -> None:
        """Nothing that it does has to be waited for: it goes on showing how the rest ends."""

    def stop(self, timeout_seconds: float) -> None:
        """End."""
        if self._server is not None:
            self.application.stop_streams()
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(max(timeout_seconds, STOP_SECONDS + 1))

    def report(self) -> dict[str, object]:
        """Return how it is; not the token."""
        return {"address": self.address, "streams": self.application.serving.streams}
