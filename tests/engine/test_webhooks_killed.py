"""Webhooks of automations whose process is killed while one is under way: the next process posts it again, under its id."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Program, Rows
from wfengine.automations import Automation, CallWebhook, EventTrigger
from wfengine.automations.service import Automations
from wfengine.events import emit_event
from wfengine.journals import default_journal
from wfengine_journal import store

SERVICE = """
from wfengine.automations.service import Automations
from wfengine.journals import default_journal

service = Automations(default_journal())
while service.step():
    pass
"""
#: Seconds that a process may take to come to its action, on a machine that is busy.
LIMIT_SECONDS = 120


class Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks; answers the first one only when the other end is gone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.held = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client was killed."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        if len(self.server.got) == 1:
            self.server.held.set()
            self.connection.recv(1)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def kill_while(program: Program, is_under_way: threading.Event) -> None:
    """Start the service in a process of its own, and kill it when its action is under way."""
    store.close_all()
    program.write(SERVICE)
    process = subprocess.Popen(
        [sys.executable, str(program.path)], cwd=program.folder, env=program.environment, stdout=subprocess.DEVNULL
    )
    try:
        assert is_under_way.wait(LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait()


def settle() -> None:
    service = Automations(default_journal())
    while service.step():
        pass


def test_a_webhook_whose_process_was_killed_is_posted_again_under_its_id(
    program: Program, journal: store.Journal, rows: Rows, receiver: Receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
    hook = CallWebhook(url=url, payload={"order": "{{ event.payload }}"}, allow_private=True)
    Automation(name="tell", trigger=EventTrigger(), actions=[hook]).create()
    emit_event("order.late", "order.7", payload=7)
    kill_while(program, receiver.held)
    settle()
    settle()
    (first, body), (second, again) = receiver.got
    assert json.loads(body) == json.loads(again) == {"order": 7}
    assert first["X-Wfengine-Delivery"] == second["X-Wfengine-Delivery"]
    assert [state for (state,) in rows("SELECT state FROM firings")] == ["done"]
