"""Services that are told something, on loopback: they check what the real ones check, and answer as they are told to.

- `HttpService`: Slack's and Teams' webhooks, by their real names and over TLS - it is the proxy that the environment names,
  and it terminates what is tunnelled - and any other URL in the clear.
- `MailService`: a mail server that takes nothing which RFC 5321 and RFC 5322 do not allow.
"""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import http.server
import json
import re
import socket
import socketserver
import ssl
import struct
import threading
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
TEAMS = (
    "https://prod-161.westeurope.logic.azure.com:443/workflows/643e69f83c8944/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=KODuebWbDGYFr0z0eu"
)


def make_certificate(folder: Path) -> Path:
    """Write a certificate for the names of the services, and its key; return the path of the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name) for name in ("hooks.slack.com", "prod-161.westeurope.logic.azure.com")]
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wfengine tests")])
    made = (
        x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    return path


class HttpService(http.server.ThreadingHTTPServer):
    """Takes what is posted. `answers`: what the next ones are answered, each (status, headers), 'reset', 'hold': nothing, until
    the other end is gone, or 'wait': as ever, but only when `may_answer` is set."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.answers: list[tuple[int, dict[str, str]] | str] = []
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.refused: list[str] = []
        self.raw: list[bytes] = []  # what came, as it came
        self.held, self.let_go, self.may_answer = threading.Event(), threading.Event(), threading.Event()
        self.arrived = threading.Semaphore(0)  # once for each that was taken
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
        self.environment = {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.server_port}", "REQUESTS_CA_BUNDLE": str(certificate), "NO_PROXY": "",
        }  # fmt: skip
        self.url = f"json://127.0.0.1:{self.server_port}/hook"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client may have been killed."""

    def close(self) -> None:
        """End it."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    server: HttpService
    protocol_version = "HTTP/1.1"
    host = ""

    def do_CONNECT(self) -> None:
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.close_connection = False  # Python asks for a tunnel by HTTP/1.0
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.raw.append(raw)
        answer = self.server.answers.pop(0) if self.server.answers else None
        if answer == "reset":
            self.server.got.append((self.host, dict(self.headers), json.loads(raw)))
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if answer == "hold":
            self.server.held.set()
            self.close_connection = True
            if not self.connection.recv(1):
                self.server.let_go.set()
            return
        if answer == "wait":
            self.server.held.set()
            self.server.may_answer.wait(120)
        status, headers, text = 200, {}, "ok"
        if isinstance(answer, tuple):
            (status, headers), text = answer, f"no, {self.path}"
        elif problem := problem_of(self.host, self.path, dict(self.headers), raw):
            self.server.refused.append(problem)
            status, text = 400, problem
        elif self.host.endswith("logic.azure.com"):
            status, text = 202, ""
        if 200 <= status < 300:
            self.server.got.append((self.host, dict(self.headers), json.loads(raw)))
            self.server.arrived.release()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def problem_of(host: str, path: str, headers: dict[str, str], raw: bytes) -> str:
    """Return what the service of that name has against a request; '' for nothing."""
    if not headers.get("Content-Type", "").startswith("application/json"):
        return "invalid content type"
    try:
        payload = json.loads(raw)
    except ValueError:
        return "invalid_payload"
    if host == "hooks.slack.com":
        return _problem_of_slack(path, payload)
    if host.endswith("logic.azure.com"):
        return _problem_of_teams(path, payload, raw)
    return ""


def _problem_of_slack(path: str, payload: dict[str, Any]) -> str:
    if not re.fullmatch(r"/services/T\w+/[AB]\w+/\w+", path):
        return "invalid_token"
    attachments = payload.get("attachments", [])
    if not (payload.get("text") or payload.get("blocks") or attachments):
        return "no_text"
    if len(attachments) > 100:
        return "too_many_attachments"
    texts = [payload.get("text", ""), *(each.get("text", "") for each in attachments)]
    texts += [each.get("title", "") for each in attachments]
    if any(not isinstance(text, str) or len(text) > 40_000 for text in texts):
        return "msg_too_long"
    if any(re.search(r"<[!@#]", text) for text in texts):
        return "it calls somebody"  # the real one would do it
    return ""


def _problem_of_teams(path: str, payload: dict[str, Any], raw: bytes) -> str:
    if "sig=KODuebWbDGYFr0z0eu" not in path or "api-version=" not in path:
        return "DirectApiAuthorizationRequired"
    if len(raw) > 28_000:
        return "RequestEntityTooLarge"
    if payload.get("type") != "message" or not payload.get("attachments"):
        return "TriggerInputSchemaMismatch"
    for each in payload["attachments"]:
        card = each.get("content", {})
        if each.get("contentType") != "application/vnd.microsoft.card.adaptive" or card.get("type") != "AdaptiveCard":
            return "TriggerInputSchemaMismatch"
        if not re.fullmatch(r"1\.[0-6]", card.get("version", "")) or not card.get("body"):
            return "no card"
        if any(block["type"] == "TextBlock" and not isinstance(block.get("text"), str) for block in card["body"]):
            return "no text"
        if "entities" in card.get("msteams", {}):
            return "it mentions somebody"
    return ""


class MailService(socketserver.ThreadingTCPServer):
    """A mail server. `answers`: what the next mails are answered after their text."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.got: list[EmailMessage] = []
        self.raw: list[bytes] = []  # the mails as they came
        self.answers: list[str] = []
        self.faults: list[str] = []
        self.password = "hunter2-of-the-mail-server"
        port = self.server_address[1]
        self.url = f"mailto://me:{self.password}@127.0.0.1:{port}?from=flows@example.com&to=ops@example.com&mode=insecure"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailService

    def handle(self) -> None:
        self.said, self.is_authenticated, self.state = "", False, "new"
        self._say("220 mail.example.com ready")
        while line := self.rfile.readline(4096):
            if not line.endswith(b"\r\n") or len(line) > 512:
                self.server.faults.append(f"a command of {len(line)} octets: {line[:60]!r}")
            verb, _, rest = line.decode("ascii").strip().partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._say(self._answer(verb.upper(), rest))

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _answer(self, verb: str, rest: str) -> str:
        if verb in ("EHLO", "HELO"):
            self.state = "greeted"
            return "250-mail.example.com\r\n250-AUTH PLAIN\r\n250 8BITMIME"
        if verb == "AUTH" and rest.upper().startswith("PLAIN "):
            words = base64.b64decode(rest.split(" ")[1]).split(b"\0")
            self.is_authenticated = words[2].decode() == self.server.password
            return "235 welcome" if self.is_authenticated else "535 5.7.8 wrong password"
        if not self.is_authenticated:
            return "530 5.7.0 authenticate first"
        if verb == "MAIL" and re.match(r"FROM:<[^<>\s]+@[^<>\s]+>", rest, re.IGNORECASE) and self.state == "greeted":
            self.state = "mail"
            return "250 ok"
        if verb == "RCPT" and re.match(r"TO:<[^<>\s]+@[^<>\s]+>$", rest, re.IGNORECASE) and self.state in ("mail", "to"):
            self.state = "to"
            return "250 ok"
        if verb == "DATA" and self.state == "to":
            self.state = "greeted"
            self._say("354 go on")
            return self._take_text()
        if verb == "RSET":
            self.state = "greeted"
            return "250 ok"
        return f"503 5.5.1 {verb} now makes no sense"

    def _take_text(self) -> str:
        lines = []
        while (line := self.rfile.readline(100_000)) != b".\r\n":
            if not line:
                return "451 cut off"
            if not line.endswith(b"\r\n") or len(line) > 1000 or b"\r" in line[:-2] or b"\0" in line:
                self.server.faults.append(f"a line of {len(line)} octets: {line[:60]!r}")
            lines.append(line[1:] if line.startswith(b"..") else line)
        answer = self.server.answers.pop(0) if self.server.answers else "250 taken"
        self.server.raw.append(b"".join(lines))
        mail = email.message_from_bytes(b"".join(lines), policy=email.policy.SMTP)
        self._check(mail, b"".join(lines))
        if answer.startswith("250") or answer == "silence":
            self.server.got.append(mail)
        if answer == "silence":
            self.connection.shutdown(socket.SHUT_RDWR)
        return answer

    def _check(self, mail: EmailMessage, raw: bytes) -> None:
        for name in ("From", "To", "Date", "Message-ID", "Subject"):
            if len(mail.get_all(name, [])) != 1:
                self.server.faults.append(f"{len(mail.get_all(name, []))} headers {name}")
        if not re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", str(mail["Message-ID"])):
            self.server.faults.append(f"Message-ID {mail['Message-ID']}")
        if not raw.partition(b"\r\n\r\n")[0].isascii():
            self.server.faults.append("headers that are not ASCII")
        if mail.defects or any(part.defects for part in mail.walk()):
            self.server.faults.append(f"defects: {mail.defects}")
