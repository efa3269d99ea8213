"""Webhooks and programs that automations start: real servers and processes, retries, limits, and where a URL may not lead."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import FakeClock, Rows
from wfengine.automations import Automation, CallWebhook, DoNothing, EventTrigger, RunCommand
from wfengine.automations.outgoing import ActionFailed, Delivery, is_public, post, run_program
from wfengine.automations.service import Automations
from wfengine.automations.signatures import is_recent, is_signed, sign
from wfengine.events import emit_event
from wfengine.journals import default_journal
from wfengine_journal import store


class Server(http.server.ThreadingHTTPServer):
    """A server that answers as it is told, and remembers what it was sent."""

    answers: list[int]
    got: list[tuple[dict[str, str], bytes]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://169.254.169.254/")
        self.end_headers()
        self.wfile.write(b"thanks")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.answers, found.got = [], []
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/hook?key=1"


def settle() -> None:
    service = Automations(default_journal())
    while service.step():
        pass


def result(rows: Rows) -> dict[str, Any]:
    ((text,),) = rows("SELECT results FROM firings")
    found: dict[str, Any] = json.loads(str(text))[0]
    return found


def test_a_webhook_is_posted_signed_and_with_one_delivery_id_over_retries(
    rows: Rows, clock: FakeClock, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    server.answers += [500, 503]
    Automation(
        name="a",
        trigger=EventTrigger(expect={"e"}),
        actions=[
            CallWebhook(
                url=url(server), secret="HOOK_SECRET", allow_private=True, payload={"n": "{{ event.payload.n }}"},
                headers={"X-Of": "{{ event.resource }}"},
            )
        ],
    ).create()  # fmt: skip
    emit_event("e", "r", payload={"n": [1, 2]})
    settle()
    assert len(server.got) == 1
    assert rows("SELECT state, attempts, next_attempt_at FROM firings") == [("pending", 1, "2025-06-15T15:06:42.000000Z")]
    clock.now += 1.9
    settle()
    assert len(server.got) == 1
    clock.now += 0.1
    settle()
    clock.now += 8
    settle()
    settle()
    assert [body for _, body in server.got] == [b'{"n":[1,2]}'] * 3
    assert len({headers["X-Wfengine-Delivery"] for headers, _ in server.got}) == 1
    headers, body = server.got[-1]
    assert headers["X-Of"] == "r"
    signed = (headers["X-Wfengine-Delivery"], headers["X-Wfengine-Timestamp"])
    assert is_signed(b"s3cret", *signed, body, headers["X-Wfengine-Signature"])
    assert not is_signed(b"s3cret", *signed, body + b" ", headers["X-Wfengine-Signature"])
    assert (result(rows)["outcome"], result(rows)["status"], result(rows)["attempts"]) == ("done", 200, 3)


@pytest.mark.parametrize(
    ("status", "said"), [(404, "answered 404"), (302, "redirects are not followed"), (400, "answered 400")]
)
def test_an_answer_after_which_no_retry_makes_sense_fails_at_once(
    rows: Rows, clock: FakeClock, server: Server, status: int, said: str
) -> None:
    server.answers.append(status)
    Automation(
        name="a", trigger=EventTrigger(), actions=[CallWebhook(url=url(server), allow_private=True), DoNothing()]
    ).create()
    emit_event("e", "r")
    settle()
    assert len(server.got) == 1
    assert said in result(rows)["reason"]
    assert "key=1" not in result(rows)["reason"]
    assert rows("SELECT state, actions_done FROM firings") == [("failed", 2)]


def test_what_never_answers_is_given_up_after_the_last_retry(rows: Rows, clock: FakeClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        hook = CallWebhook(url=target, allow_private=True, timeout_seconds=0.2, retries=1)
        Automation(name="a", trigger=EventTrigger(), actions=[hook]).create()
        emit_event("e", "r")
        settle()
        clock.now += 10
        settle()
    assert result(rows)["outcome"] == "failed"
    assert result(rows)["attempts"] == 2


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "10.1.2.3", "169.254.169.254", "192.168.0.1",
        "0.0.0.0", "[::ffff:10.0.0.1]", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "100.64.0.1",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_of_private_networks_are_refused(server: Server, host: str) -> None:
    with pytest.raises(ActionFailed) as refused:
        post(delivery(f"http://{host}:{server.server_address[1]}/"))
    assert "private network" in str(refused.value) or "leads nowhere" in str(refused.value)
    assert server.got == []


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_not(address: str) -> None:
    assert is_public(address)


def test_a_name_is_resolved_once_and_the_connection_goes_to_that_address(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers otherwise the second time: what was looked at is what is connected to."""
    asked = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        if host == "rebind.example":
            address = "127.0.0.1" if len(asked) == 1 else "10.9.9.9"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return real(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert post(delivery(f"http://rebind.example:{server.server_address[1]}/", allow_private=True))["status"] == 200
    assert asked.count("rebind.example") == 1
    assert server.got[0][0]["Host"].startswith("rebind.example")


@pytest.mark.parametrize(
    "target",
    ["ftp://a/", "file:///etc/passwd", "http://", "http://u:p@example.com/", "http://a b/", "http://[::1", "//x", "http://a:99999/",
     "http://example.com/\r\nX: y", "gopher://a/"],
)  # fmt: skip
def test_urls_that_lead_nowhere_good_are_refused(target: str) -> None:
    with pytest.raises(ActionFailed):
        post(delivery(target))


def test_a_header_that_an_event_fills_in_cannot_add_another(server: Server) -> None:
    with pytest.raises(ActionFailed, match="control characters"):
        post(delivery(url(server), allow_private=True, headers={"X-A": "b\r\nX-Evil: c"}))
    assert server.got == []


def delivery(target: str, *, allow_private: bool = False, headers: dict[str, str] | None = None) -> Delivery:
    return Delivery(target, b"{}", "id", 1, headers or {}, None, allow_private, 5.0)


def test_signatures_and_times() -> None:
    assert sign(b"k", "d", "1", b"x").startswith("sha256=")
    assert not is_signed(b"k", "d", "1", b"x", "sha256=é")
    assert is_recent("1000", 1299.0)
    assert not is_recent("1000", 1301.0)
    assert not is_recent("1000", 699.0)
    assert not any(is_recent(text, 1.0) for text in ("", "x", "-1", "1.0", "٣", "9" * 500))


# ------------------------------------------------------------------------------------------- programs


def test_a_program_is_given_the_event_and_the_last_of_its_output_is_kept(rows: Rows, clock: FakeClock, tmp_path: Path) -> None:
    code = "import json,sys; e=json.load(sys.stdin); print(e['event']['payload'], sys.argv[1:]); print('x' * 10000)"
    command = [sys.executable, "-c", code, "{{ event.payload }}", "a {{ event.resource }}", "$(touch evil)"]
    Automation(name="a", trigger=EventTrigger(), actions=[RunCommand(command=command, cwd=str(tmp_path))]).create()
    emit_event("e", "r", payload="; rm -rf / `id` $HOME \"'")
    settle()
    found = result(rows)
    assert (found["outcome"], found["code"], len(found["output"])) == ("done", 0, 4000)
    assert list(tmp_path.glob("evil")) == []


def test_words_reach_the_program_as_they_are(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "; rm -rf /", "a b", "é'\""]
    found = run_program(words, given=b"", cwd=None, timeout_seconds=30)
    assert found["output"] == str(words[3:]) + "\n"


def test_a_program_that_fails_is_tried_again_as_often_as_wanted(rows: Rows, clock: FakeClock) -> None:
    command = [sys.executable, "-c", "import sys; print('no'); sys.exit(3)"]
    Automation(name="a", trigger=EventTrigger(), actions=[RunCommand(command=command, retries=1)]).create()
    emit_event("e", "r")
    settle()
    clock.now += 100
    settle()
    found = result(rows)
    assert (found["outcome"], found["code"], found["attempts"], found["output"]) == ("failed", 3, 2, "no\n")


def test_a_program_that_does_not_end_is_ended_with_what_it_started() -> None:
    code = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(1000)'])"
    )
    with pytest.raises(ActionFailed, match="ran longer than"):
        run_program([sys.executable, "-c", code], given=b"", cwd=None, timeout_seconds=0.5)


def test_what_is_no_program_says_so(tmp_path: Path) -> None:
    for words, cwd in ((["/no/such/program"], None), ([str(tmp_path)], None), ([sys.executable], "/no/such/folder")):
        with pytest.raises(ActionFailed, match="could not be started"):
            run_program(words, given=b"", cwd=cwd, timeout_seconds=5)
    with pytest.raises(ActionFailed, match="zero character"):
        run_program([sys.executable, "a\0b"], given=b"", cwd=None, timeout_seconds=5)


def test_the_service_does_slow_actions_beside_quick_ones_and_stops_in_time(
    rows: Rows, journal: store.Journal, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    slow = f"import pathlib, time; pathlib.Path({str(tmp_path / 'began')!r}).touch(); time.sleep(1000)"
    quick = f"import pathlib; pathlib.Path({str(done)!r}).touch()"
    Automation(
        name="slow",
        trigger=EventTrigger(expect={"slow"}),
        actions=[RunCommand(command=[sys.executable, "-c", slow], retries=3)],
    ).create()
    Automation(
        name="quick", trigger=EventTrigger(expect={"quick"}), actions=[RunCommand(command=[sys.executable, "-c", quick])]
    ).create()
    service = Automations(default_journal())
    service.start()
    emit_event("slow", "r")
    emit_event("quick", "r")
    mark = journal.changes.mark()
    while not done.exists() or not (tmp_path / "began").exists():
        journal.changes.wait(mark, 0.05)
    service.stop_taking()
    service.stop(0.1)
    assert service.fault is None
    assert service.report()["busy"] == 0
    assert dict(rows("SELECT automation, state FROM firings"))["slow"] == "pending"  # the next daemon goes on with it
