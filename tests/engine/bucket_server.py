"""An S3 server on loopback for tests: moto's own, with faults that a test puts before it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from wfengine.bucket_storage import BucketStorage

Environ = dict[str, Any]
Fault = Callable[[Environ], "Response | None"]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing of requests."""


class BucketServer:
    """The server; `requests` are the lines of what came, `fault` may answer in the place of moto."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.fault: Fault | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # those know the address of an earlier server

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        answer = self.fault(environ) if self.fault is not None else None
        if answer is not None:
            return answer(environ, start_response)
        return self._moto(environ, start_response)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def running() -> Iterator[BucketServer]:
    """A server for all tests of a module. A module that wants it imports this and `server`."""
    started = BucketServer()
    yield started
    started.stop()


@pytest.fixture
def server(running: BucketServer, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The running server without a fault, and an environment that leads to it."""
    running.fault = None
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def failing(status: int, times: int, method: str) -> Fault:
    """Answer so many requests of a method with an error."""
    left = [times]

    def fault(environ: Environ) -> Response | None:
        if environ["REQUEST_METHOD"] != method or left[0] == 0:
            return None
        left[0] -= 1
        code = {403: "AccessDenied", 503: "SlowDown"}[status]
        return Response(f"<Error><Code>{code}</Code><Message>as the test says</Message></Error>", status, mimetype="text/xml")

    return fault


def killing(pid_file: Path) -> Fault:
    """Kill the process whose id is in the file once an object comes, before it is kept."""

    def fault(environ: Environ) -> Response | None:
        if environ["REQUEST_METHOD"] != "PUT" or not pid_file.exists():
            return None
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        pid_file.unlink()
        return Response("", 503)

    return fault


def make_empty_bucket(name: str) -> None:
    """Make a bucket on the server that the environment names; what servers of this process kept before is forgotten."""
    system = BucketStorage(f"s3://{name}")._file_system()
    if system.exists(name):
        system.rm(name, recursive=True)
    system.mkdir(name)
