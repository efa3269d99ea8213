"""What automations do in the world outside: POST to a URL, and run a program. Each may happen twice, where a kill came between.

A URL comes out of a definition and may be filled in from an event, so where it leads is checked: the name is resolved once, the
connection goes to that very address, private ones are refused unless allowed, and no redirect is followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import SplitResult, urlsplit

from wfengine._version import __version__
from wfengine.automations.signatures import DELIVERY, SIGNATURE, TIMESTAMP, sign
from wfengine_journal.threads import start_thread

#: Bytes of an answer that are read, and characters of an answer and of a program's output that are kept.
ANSWER_BYTES = 65_536
KEPT_CHARACTERS = 4000
#: Answers after which another try makes sense: too early, too many, or the server's own trouble.
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
#: How long a program has between being asked to end and being killed, in seconds.
END_SECONDS = 2.0


class ActionFailed(Exception):
    """An action was not done. `again`: another try makes sense."""

    def __init__(self, reason: str, *, again: bool = False, **more: object) -> None:
        super().__init__(reason)
        self.again = again
        self.more = more


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent to a webhook."""

    url: str
    body: bytes
    delivery_id: str
    timestamp: int
    headers: Mapping[str, str]
    secret: str | None  # the name of the environment variable
    allow_private: bool
    timeout_seconds: float


def post(delivery: Delivery) -> dict[str, object]:
    """Send a delivery; return the answer's status and beginning. Raises ActionFailed for any answer but 2xx."""
    parts = _parts(delivery.url)
    headers = _headers(delivery)
    address = _address(parts, allow_private=delivery.allow_private)
    connection = _connection(parts, address, delivery.timeout_seconds)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # Every read has the time limit for itself, so a server that trickles is cut off by this.
    answered = threading.Event()
    start_thread("wfengine-webhook", lambda: _close_after(connection, answered, delivery.timeout_seconds))
    try:
        connection.request("POST", target, body=delivery.body, headers=headers)
        answer = connection.getresponse()
        text = answer.read(ANSWER_BYTES).decode("utf-8", "replace")[:KEPT_CHARACTERS]
        status = answer.status
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        raise ActionFailed(f"{shown(parts)} could not be reached: {type(error).__name__}: {error}", again=True) from error
    finally:
        answered.set()
        connection.close()
    if 200 <= status < 300:
        return {"status": status, "answer": text[:500]}
    follows = " (redirects are not followed)" if 300 <= status < 400 else ""
    raise ActionFailed(f"{shown(parts)} answered {status}{follows}", again=status in _AGAIN, status=status, answer=text[:500])


def _close_after(connection: http.client.HTTPConnection, answered: threading.Event, seconds: float) -> None:
    if answered.wait(seconds):
        return
    sock = connection.sock
    with contextlib.suppress(OSError):
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ActionFailed(f"the URL cannot be read: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise ActionFailed(f"the URL is of scheme '{parts.scheme[:20]}', and only http and https are called")
    if not parts.hostname or parts.username is not None or parts.password is not None or port == 0:
        raise ActionFailed("the URL needs a host, and takes no user or password")
    if any(ord(character) <= 32 or ord(character) == 127 for character in url) or not url.isascii():
        raise ActionFailed("the URL holds blanks, control characters or letters that have to be quoted")
    return parts


def _headers(delivery: Delivery) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json", "User-Agent": f"wfengine/{__version__}", **delivery.headers,
        DELIVERY: delivery.delivery_id, TIMESTAMP: str(delivery.timestamp),
    }  # fmt: skip
    if any("\r" in value or "\n" in value or not value.isprintable() for value in headers.values()):
        raise ActionFailed("a header holds control characters")
    if delivery.secret is not None:
        secret = os.environ.get(delivery.secret)
        if not secret:
            raise ActionFailed(
                f"the environment variable {delivery.secret} with the key of the signature is not set", again=True
            )
        headers[SIGNATURE] = sign(secret.encode(), delivery.delivery_id, str(delivery.timestamp), delivery.body)
    return headers


def checked_address(url: str, *, allow_private: bool) -> tuple[SplitResult, str]:
    """Return the parts of a URL and the one address that may be connected to for it. Raises ActionFailed."""
    parts = _parts(url)
    return parts, _address(parts, allow_private=allow_private)


def _address(parts: SplitResult, *, allow_private: bool) -> str:
    """Return the one address that is connected to. Raises ActionFailed where any of the name's addresses is private."""
    host = str(parts.hostname)
    try:
        found = socket.getaddrinfo(host, parts.port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ActionFailed(f"the name {host} leads nowhere: {error}", again=True) from error
    addresses = [str(entry[4][0]) for entry in found]
    private = [address for address in addresses if not is_public(address)]
    if private and not allow_private:
        raise ActionFailed(
            f"{host} is {private[0]}, an address of this machine or a private network. If that is meant: allow_private = true"
        )
    return addresses[0]


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open internet."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _connection(parts: SplitResult, address: str, timeout: float) -> http.client.HTTPConnection:
    host, port = str(parts.hostname), parts.port
    if parts.scheme == "https":
        return _PinnedHTTPS(host, port, address, timeout)
    return _PinnedHTTP(host, port, address, timeout)


class _PinnedHTTP(http.client.HTTPConnection):
    """A connection to an address that was looked at, whatever its name leads to by now."""

    def __init__(self, host: str, port: int | None, address: str, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)


class _PinnedHTTPS(http.client.HTTPSConnection):
    """The same, with the certificate checked against the name."""

    def __init__(self, host: str, port: int | None, address: str, timeout: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=timeout, context=self._tls)
        self._address = address

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def shown(parts: SplitResult) -> str:
    """Return a URL for records and logs: the query may hold keys."""
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


# ------------------------------------------------------------------------------------------- programs


def run_program(
    words: list[str], *, given: bytes, cwd: str | None, timeout_seconds: float, stopping: threading.Event | None = None
) -> dict[str, object]:
    """Run a program to its end; return the last of what it printed. Raises ActionFailed for any exit code but 0.

    It is asked to end past its time limit, and when `stopping` is set, with all that it started; then it is killed.
    """
    if any("\0" in word for word in words):
        raise ActionFailed("a word of the command holds a zero character")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as source:
        source.write(given)
        source.seek(0)
        try:
            process = subprocess.Popen(
                words, stdin=source, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True, shell=False
            )
        except (OSError, ValueError) as error:
            raise ActionFailed(f"the program {words[0]!r} could not be started: {error}") from error
        reason = _awaited(process, timeout_seconds, stopping)
        text = _tail(output)
    if reason is not None:
        raise ActionFailed(reason, again=True, output=text)
    if process.returncode != 0:
        raise ActionFailed(f"it ended with code {process.returncode}", again=True, code=process.returncode, output=text)
    return {"code": 0, "output": text}


def _awaited(process: subprocess.Popen[bytes], timeout_seconds: float, stopping: threading.Event | None) -> str | None:
    """Wait for a program; return why it was ended, None where it ended by itself."""
    ended = threading.Event()

    def wait() -> None:
        process.wait()
        ended.set()

    start_thread("wfengine-program", wait)
    waited = 0.0
    while not ended.wait(0.1):
        waited += 0.1
        if waited >= timeout_seconds:
            _end(process, ended)
            return f"it ran longer than {timeout_seconds:g} s and was ended"
        if stopping is not None and stopping.is_set():
            _end(process, ended)
            return "it was ended, since its daemon was stopped"
    return None


def _end(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        if ended.wait(END_SECONDS):
            return


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - 4 * KEPT_CHARACTERS, 0))
    return output.read().decode("utf-8", "replace")[-KEPT_CHARACTERS:]
