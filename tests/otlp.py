"""A receiver of traces for tests: speaks OTLP over HTTP on loopback, and reads what comes by the protocol's own messages."""

from __future__ import annotations

import gzip
import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """Takes spans at `endpoint`. What does not speak the protocol is noted in `refused`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.refused: list[str] = []
        self.raw: list[bytes] = []  # what came, headers and all
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 200 if receiver.take(self.path, self.headers, body) else 400
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def take(self, path: str, headers: Message, body: bytes) -> bool:
        if path != "/v1/traces" or headers.get("Content-Type") != "application/x-protobuf":
            self.refused.append(f"{path} {headers.get('Content-Type')}")
            return False
        request = ExportTraceServiceRequest()
        content = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        self.raw += [str(headers).encode(), content]
        request.ParseFromString(content)
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(names.get("service.name", ""))
            with self._came:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
                self._came.notify_all()
        return True

    def wait_for(self, name: str) -> Span:
        """Return a span of that name, once it has come."""
        with self._came:
            assert self._came.wait_for(lambda: any(span.name == name for span in self.spans), 60), f"{name} never came"
            return next(span for span in self.spans if span.name == name)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
