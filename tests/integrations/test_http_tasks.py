"""Tasks for HTTP requests, against a real server that counts what it is asked, and keeps each idempotency key once."""

from __future__ import annotations

import gzip
import json
import os
import secrets as randomness
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from tests.integrations.conftest import Written
from wfengine import flow
from wfengine.integrations.http import RetryAfter, get, post, request
from wfengine.secrets import Secret
from wfengine_journal.errors import RequestFailedError, UsageError


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass
class Answer:
    """What the server says to one request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Server:
    """A server whose answers are listed; the last of them is given for ever. `before` is called when a request has come."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers = [Answer()]
        self.before: Callable[[Asked], object] = lambda _: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, self.headers, body)
                outer.asked.append(asked)
                outer.before(asked)
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that is killed is meant to be
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> list[str | None]:
        return [asked.headers["Idempotency-Key"] for asked in self.asked]

    def speak_tls(self, context: ssl.SSLContext) -> None:
        # The handshake is left to the thread of each connection: one that fails must not stop the others.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@flow
def asking(method: str, url: str, options: dict[str, object]) -> dict[str, object]:
    return request(method, url, allow_private=True, **options)  # type: ignore[arg-type]


def ask(method: str, url: str, **options: object) -> dict[str, object]:
    return asking(method, url, options)


# ------------------------------------------------------------------------------------------------- requests and answers


def test_what_is_sent_and_what_comes_back(server: Server) -> None:
    server.answers = [
        Answer(201, b'{"number": 7}', {"Content-Type": "application/json; charset=utf-8", "Set-Cookie": "a=b", "X-A": "b"})
    ]
    done = ask("post", server.url + "/orders?x=1", json={"item": "tea"}, params={"day": "a b"}, headers={"X-B": "c"})
    assert (done["status"], done["body"]) == (201, {"number": 7})
    assert done["headers"]["x-a"] == "b"  # type: ignore[index]
    assert "set-cookie" not in done["headers"]  # type: ignore[operator]
    (asked,) = server.asked
    assert (asked.method, json.loads(asked.body), asked.headers["X-B"]) == ("POST", {"item": "tea"}, "c")
    assert "day=a+b" in asked.path or "day=a%20b" in asked.path
    assert asked.headers["Host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("kind", "raw", "body"),
    [
        ("application/problem+json", b"[1]", [1]),
        ("application/json", b"no json", "no json"),
        ("text/plain; charset=latin-1", "ä".encode("latin-1"), "ä"),
        ("text/plain; charset=nonsense", b"a", "a"),
        ("application/octet-stream", b"\x00\xff", b"\x00\xff"),
    ],
)
def test_a_body_is_json_text_or_bytes_as_the_answer_says(server: Server, kind: str, raw: bytes, body: object) -> None:
    server.answers = [Answer(200, raw, {"Content-Type": kind})]
    assert ask("GET", server.url)["body"] == body


def test_a_request_that_changes_nothing_has_no_key_and_others_have_one_of_their_own(server: Server) -> None:
    @flow
    def several() -> None:
        get(server.url, allow_private=True)
        for _ in range(2):
            post(server.url, json={}, allow_private=True)
        post(server.url, json={}, allow_private=True, headers={"idempotency-key": "mine"})
        post(server.url, json={}, allow_private=True, idempotency_header="")

    several()
    first, second = server.keys[1:3]
    assert server.keys == [None, first, second, "mine", None]
    assert first is not None
    assert second is not None
    assert first != second


# ---------------------------------------------------------------------------------------------------------------- tries


def test_temporary_answers_are_tried_again_with_one_key_and_as_late_as_the_server_asks(
    server: Server, clock: FakeClock, rows: Rows
) -> None:
    later = format_datetime(datetime.fromtimestamp(clock.now + 100, UTC), usegmt=True)
    server.answers = [
        Answer(503, headers={"Retry-After": "17"}),
        Answer(429),
        Answer(500, headers={"Retry-After": "nonsense"}),
        Answer(),
    ]
    assert ask("POST", server.url, json={})["status"] == 200
    assert len(server.asked) == 4
    assert len(set(server.keys)) == 1
    assert clock.slept == pytest.approx([17, 2, 4], abs=0.5)
    assert rows.value("SELECT attempts FROM tasks WHERE task = 'request'") == 4
    assert later.endswith("GMT")


def test_a_delay_is_at_least_the_own_one_and_at_most_an_hour() -> None:
    from tenacity import Future, RetryCallState, Retrying

    def delay(attempt: int, asked: float | None) -> float:
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = attempt
        state.outcome = Future.construct(attempt, RequestFailedError("", retry_after_seconds=asked), True)
        return RetryAfter(2.0, 10.0)(state)

    assert [delay(number, None) for number in (1, 2, 3, 4, 5000)] == [2, 4, 8, 10, 10]
    assert [delay(1, asked) for asked in (0.0, 3.0, 1e12)] == [2, 3, 3600]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 501])
def test_an_answer_that_would_be_the_same_again_is_not_tried_again(server: Server, status: int) -> None:
    server.answers = [Answer(status, b"no such order")]
    with pytest.raises(RequestFailedError, match=f"answered with {status}. It said: no such order") as caught:
        ask("GET", server.url + "/orders?key=hidden")
    assert (caught.value.status, caught.value.body, len(server.asked)) == (status, "no such order", 1)
    assert "hidden" not in str(caught.value)


def test_no_answer_is_tried_again(server: Server, clock: FakeClock) -> None:
    server.close()
    with pytest.raises(RequestFailedError, match="had no answer: ConnectError") as caught:
        ask("GET", server.url)
    assert caught.value.status is None
    assert clock.slept == pytest.approx([1, 2, 4])
    server.__init__()  # type: ignore[misc]  # for the fixture, which closes it


def test_the_retries_are_options_as_those_of_any_task(server: Server, clock: FakeClock) -> None:
    server.answers = [Answer(503)]

    @flow
    def once() -> None:
        get.with_options(retries=1, retry_delay_seconds=RetryAfter(5))(server.url, allow_private=True)

    with pytest.raises(RequestFailedError):
        once()
    assert (len(server.asked), clock.slept) == (2, pytest.approx([5]))


# ---------------------------------------------------------------------------------------------------------------- kills

PROGRAM = """
from wfengine import current_task_run
from wfengine.integrations.http import get, post
URL = os.environ["SERVER_URL"]

@task
def checked():
    answer = post.fn(URL + "/checked", json={}, allow_private=True)
    if first_time():
        kill()
    return answer["body"]

@flow
def main():
    (HERE / "pid").write_text(str(os.getpid()))
    first = post(URL + "/orders", json={"item": "tea"}, allow_private=True)["body"]
    return first, checked(), get(URL + "/orders", allow_private=True)["status"]

if __name__ == "__main__":
    main()
"""


def test_a_request_whose_process_was_killed_is_sent_again_with_its_key(program: Program, server: Server) -> None:
    orders: dict[str, int] = {}

    def before(asked: Asked) -> None:
        if asked.path == "/orders" and asked.method == "POST":
            orders.setdefault(str(asked.headers["Idempotency-Key"]), len(orders) + 1)
            if len(server.asked) == 1:  # the order was taken, and the answer does not arrive
                os.kill(int((program.folder / "pid").read_text()), signal.SIGKILL)
        server.answers = [Answer(200, json.dumps(len(orders)).encode())]

    server.before = before
    program.environment["SERVER_URL"] = server.url
    program.write(PROGRAM)
    program.run_and_be_killed()
    resumed = program.python("-c", "import sys; from wfengine.cli import main; main(sys.argv[1:])", "resume", "@last")
    assert resumed.was_killed, resumed  # after the answer, before it was recorded
    answer = program.resume()
    assert answer.get("result") == "(1, 1, 200)", answer
    assert [asked.path for asked in server.asked] == ["/orders", "/orders", "/checked", "/checked", "/orders"]
    first, again, checked, checked_again, reading = server.keys
    assert first == again is not None
    assert checked == checked_again is not None
    assert first != checked
    assert reading is None
    assert list(orders.values()) == [1]


# --------------------------------------------------------------------------------------------------------------- guards


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/",
        "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://0x7f.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/",
    ],
)  # fmt: skip
def test_addresses_of_private_networks_are_refused_unless_allowed(server: Server, url: str) -> None:
    @flow
    def reading() -> None:
        get(url.format(port=server.port))

    with pytest.raises(UsageError, match="allow_private=True"):
        reading()
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/x", "http://", "http://u:canarypw@h/", "http://h:0/", "http://h/a b", "http://[x/"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="Nothing was sent"):
        ask("GET", url)


def certificate(name: str, folder: Path) -> Path:
    """Return a file with a certificate for a name, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder().subject_name(called).issuer_name(called).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / f"{name}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(("name", "fits"), [("localhost", True), ("other.example", False)])
def test_a_certificate_has_to_be_of_the_name_though_an_address_is_connected_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fits: bool
) -> None:
    file = certificate(name, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, asked, _context: names.append(asked)
    server.speak_tls(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    @flow
    def reading() -> object:
        return get.with_options(retries=0)(f"https://localhost:{server.port}/", allow_private=True)["status"]

    if fits:
        assert reading() == 200
        assert server.asked[0].headers["Host"] == f"localhost:{server.port}"
    else:
        with pytest.raises(RequestFailedError, match="certificate"):
            reading()
        assert server.asked == []
    assert names == ["localhost"]


def test_redirects_are_not_followed(server: Server) -> None:
    server.answers = [Answer(302, headers={"Location": server.url + "/else"})]
    with pytest.raises(RequestFailedError, match="Redirects are not followed"):
        ask("GET", server.url)
    assert len(server.asked) == 1


def test_an_answer_that_is_too_long_is_not_taken(server: Server) -> None:
    server.answers = [Answer(200, b"x" * 1001)]
    with pytest.raises(RequestFailedError, match="more than 1,000 bytes"):
        ask("GET", server.url, max_bytes=1000)
    bomb = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    server.answers = [Answer(200, gzip.compress(b"x" * 1_000_000), bomb)]
    with pytest.raises(RequestFailedError, match="more than 1,000 bytes"):
        ask("GET", server.url, max_bytes=1000)
    assert ask("GET", server.url)["body"] == "x" * 1_000_000


def test_a_server_that_does_not_answer_is_not_waited_for(server: Server) -> None:
    over = threading.Event()
    server.before = lambda _: over.wait(60)

    @flow
    def reading() -> None:
        try:
            get.with_options(retries=0)(server.url, allow_private=True, timeout_seconds=0.2)
        finally:
            over.set()

    with pytest.raises(RequestFailedError, match="ReadTimeout"):
        reading()


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X": "a\r\nEvil: b"}},
        {"headers": {"X\n": "a"}},
        {"headers": {"": "a"}},
        {"json": {1, 2}},
        {"headers": {"Ä": "a"}},
    ],
)
def test_what_cannot_be_sent_is_refused(server: Server, options: dict[str, object]) -> None:
    @flow
    def reading() -> None:
        request("POST", server.url, allow_private=True, **options)  # type: ignore[arg-type]

    with pytest.raises((UsageError, RequestFailedError)):
        reading()
    assert server.asked == []


def test_a_secret_is_sent_and_written_nowhere(server: Server, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = randomness.token_hex(16)
    monkeypatch.setenv("CANARY", canary)
    token = Secret[str]("env:CANARY")

    @flow
    def several() -> None:
        get(server.url, bearer=token, params={"key": token}, allow_private=True)
        post(server.url, headers={"X-Key": token}, auth=("me", token), json={}, allow_private=True)
        server.answers = [Answer(400, f"wrong key {canary}".encode())]
        get(server.url, bearer=token, allow_private=True)

    with pytest.raises(RequestFailedError, match=r"wrong key \*\*\*"):
        several()
    assert server.asked[0].headers["Authorization"] == f"Bearer {canary}"
    assert f"key={canary}" in server.asked[0].path
    assert server.asked[1].headers["X-Key"] == canary
    assert "Secret('env:CANARY')" in written
    assert canary not in written


def test_a_missing_package_is_named_with_its_pip_line() -> None:
    program = "import sys; sys.modules['httpx'] = None\nimport wfengine.integrations.http"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'wfengine[http]'" in done.stderr.splitlines()[-1]
