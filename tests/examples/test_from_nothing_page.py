"""The page from nothing to production is a test: a bucket, an alert, a daemon; only systemd is not there."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest
from pages import assert_page_is_true
from programs import environment, query

from tests.daemons import DaemonProcess
from tests.engine.bucket_server import BucketServer, make_empty_bucket
from wfengine_journal import store

PAGE = Path(__file__).parents[2] / "docs" / "from-nothing-to-production.md"
ALERT_SECONDS = 60


class Receiver:
    """A server on loopback that takes webhooks."""

    def __init__(self) -> None:
        self.bodies: Queue[object] = Queue()
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


def _wait_until_recorded(folder: Path) -> None:
    """Wait until the journal says that the webhook went out; the time limit of the test is the bound."""
    journal = store.open_journal(folder / ".wfengine" / "journal.db")
    while True:
        mark = journal.changes.mark()
        if query(folder / ".wfengine" / "journal.db", "SELECT 1 FROM firings WHERE state = 'done'"):
            break
        journal.changes.wait(mark, 1.0)
    store.close_all()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    server = BucketServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    make_empty_bucket("my-bucket")
    yield server
    server.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.mark.crash
def test_the_page_leads_to_a_scheduled_flow_whose_results_are_in_a_bucket_and_whose_failure_is_told(
    tmp_path: Path, bucket: BucketServer, receiver: Receiver
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    url = 'url = "https://hooks.example.com/alerts"'
    assert url in text
    before, middle, after = text.replace(url, f'url = "{receiver.url}"\nallow_private = true').partition("\nA moment later:\n")
    for name, part in (("before.md", before), ("after.md", middle + after)):
        (tmp_path / name).write_text(part, encoding="utf-8")

    assert assert_page_is_true(tmp_path / "before.md", tmp_path) == 6
    assert any(line.startswith("PUT /my-bucket/reports/") for line in bucket.requests)
    with DaemonProcess(tmp_path, "-m", "wfengine", "serve", environment=environment()) as daemon:
        daemon.wait_until_ready()
        told = receiver.bodies.get(timeout=ALERT_SECONDS)
        assert isinstance(told, dict)
        assert told["text"].startswith("report: run ")
        _wait_until_recorded(tmp_path)
        assert assert_page_is_true(tmp_path / "after.md", tmp_path) == 8
        assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert receiver.bodies.empty()
