"""Servers of Google's and Azure's protocols on loopback for tests, each behind a gate where a test can put faults.

Google's is the package gcp-storage-emulator, Azure's is Azurite, a program of npm: see `AZURITE`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from gcp_storage_emulator.server import create_server
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from tests.engine.bucket_server import BucketServer, Environ, Fault, _Quiet

#: Where `./wf azurite` puts the program, out of the checkout; WFENGINE_AZURITE names another one.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
AZURITE = CACHE / "wfengine" / "azurite-3.37.0" / "node_modules" / ".bin" / "azurite-blob"
NO_AZURITE = "Azurite, the server of Azure's protocol, is not installed, so that nothing was tested against it: ./wf azurite"
#: The account and key that every Azurite has.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


class _Handler(_Quiet):
    def make_environ(self) -> Environ:
        """Keep the headers as they came: of those with an underscore, which Azure signs, no other trace is left."""
        return {**super().make_environ(), "test.headers": self.headers.items()}


class Gate:
    """Passes requests on to a server behind it; `fault` may answer in its place."""

    def __init__(self, port: int) -> None:
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self._behind = port
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        answer = self.fault(environ) if self.fault is not None else None
        return (self._passed_on(environ) if answer is None else answer)(environ, start_response)

    def _passed_on(self, environ: Environ) -> Response:
        headers = {name: value for name, value in environ["test.headers"] if name.lower() not in _HOP}
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._behind, timeout=60)) as behind:
            behind.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body or None, headers)
            answer = behind.getresponse()
            content = answer.read()
        passed = Response(content, answer.status)
        passed.headers.clear()
        passed.headers.extend((name, value) for name, value in answer.getheaders() if name.lower() not in _HOP)
        return passed


def resetting(times: int, is_meant: Callable[[Environ], bool]) -> Fault:
    """Reset the connection of so many requests."""
    left = [times]

    def fault(environ: Environ) -> Response | None:
        if not is_meant(environ) or left[0] == 0:
            return None
        left[0] -= 1
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return Response("", 503)

    return fault


class Service:
    """One kind of bucket: its server, what leads a client there, and a new bucket for each test."""

    scheme = ""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.gate: Gate | BucketServer

    def address(self, bucket: str) -> str:
        """Return the address of a prefix in a bucket, which is made."""
        fsspec.filesystem(self.scheme).mkdir(bucket)
        return f"{self.scheme}://{bucket}/results"

    def stop(self) -> None:
        self.gate.stop()


class Google(Service):
    """The protocol of Google Cloud Storage."""

    scheme = "gs"

    def __init__(self) -> None:
        super().__init__()
        self._emulator = create_server("127.0.0.1", 0, in_memory=True)
        self._emulator.start()
        self.gate = Gate(self._emulator._api._httpd.server_address[1])
        self.environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self.gate.port}"}

    def stop(self) -> None:
        super().stop()
        self._emulator.stop()


class Azure(Service):
    """The protocol of Azure's blobs."""

    scheme = "abfs"

    def __init__(self) -> None:
        super().__init__()
        program = find_azurite()
        assert program is not None
        self._process = subprocess.Popen(
            [program, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._output = self._process.stdout
        line = next(line for line in self._output if "successfully listens on" in line)
        self._reader = threading.Thread(target=self._output.read, daemon=True)
        self._reader.start()
        self.gate = Gate(int(line.strip().rsplit(":", 1)[1]))
        self.environment = {
            "AZURE_STORAGE_CONNECTION_STRING": (
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
                f"BlobEndpoint=http://127.0.0.1:{self.gate.port}/{ACCOUNT};"
            )
        }

    def address(self, bucket: str) -> str:
        super().address(bucket)
        return f"abfs://{bucket}@{ACCOUNT}.dfs.core.windows.net/results"

    def stop(self) -> None:
        super().stop()
        self._process.kill()
        self._process.wait()
        self._reader.join(30)
        self._output.close()


class Amazon(Service):
    """The protocol of S3."""

    scheme = "s3"

    def __init__(self) -> None:
        super().__init__()
        self.gate = BucketServer()
        self.environment = self.gate.environment


def find_azurite() -> str | None:
    """Return the program, None where it is not installed."""
    named = os.environ.get("WFENGINE_AZURITE")
    return named or (str(AZURITE) if AZURITE.exists() and shutil.which("node") else None)


SERVICES: dict[str, type[Service]] = {"s3": Amazon, "gs": Google, "abfs": Azure}


@contextlib.contextmanager
def serving(name: str) -> Iterator[Service]:
    """Have a server of a kind."""
    service = SERVICES[name]()
    fsspec.get_filesystem_class(name).clear_instance_cache()  # those know the address of an earlier server
    try:
        yield service
    finally:
        service.stop()
