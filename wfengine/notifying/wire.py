"""What a process that sends one message keeps watch over: where its connections lead, and what was answered.

apprise tells only whether a message was sent. To know what a failure means - may it have arrived, does another try make sense,
and when - one has to see what goes over the wire: which addresses are connected to, and what HTTP and SMTP servers answer. So
`watch` puts itself between apprise and the standard library, requests included. That changes the whole process, which is
why it is called in one that does nothing but send this message (see `sending`).

- A connection is judged when it is made, by the address it goes to: whatever a name led to before. Private ones are refused.
- No redirect is followed. Each request, and each mail, carries the id of the message.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from wfengine.automations.outgoing import is_public

#: Answers after which another try makes sense, beside those of the server's own trouble (5xx).
_AGAIN = frozenset({408, 425, 429})
#: Bytes of an answer that are read at the most, and characters of it that are kept.
ANSWER_BYTES = 65_536
ANSWER_CHARACTERS = 200
#: The longest time that a server may ask to be left alone, in seconds: a day.
LONGEST_HOLD_SECONDS = 86_400.0
_MESSAGE_ID = re.compile(r"^Message-ID:[^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE | re.IGNORECASE)


class ForbiddenAddress(OSError):
    """A connection would go to this machine or a private network."""


@dataclass(slots=True)
class Exchange:
    """What came of one request or mail. `unsure`: it may have arrived; `again`: another try makes sense."""

    accepted: bool
    what: str
    again: bool = False
    unsure: bool = False
    retry_after: float | None = None


@dataclass(slots=True)
class Wire:
    """What was seen so far."""

    message_id: str
    allow_private: bool
    exchanges: list[Exchange] = field(default_factory=list)
    forbidden: str | None = None
    connections: int = 0
    requests: int = 0
    smtp_reply: tuple[int, str] | None = None  # the last one that refused something
    gave_mail: bool = False  # a mail's text was on its way

    def check(self, family: int, address: object) -> None:
        """Raise ForbiddenAddress unless a connection may go there."""
        if self.allow_private:
            return
        host = str(address[0]) if isinstance(address, tuple) and address else "a socket of this machine"
        if family not in (socket.AF_INET, socket.AF_INET6) or not is_public(host):
            self.forbidden = host
            raise ForbiddenAddress(f"{host} is an address of this machine or a private network")

    def next_key(self) -> str:
        """Return the id of the next request: the message's, and which of its requests it is, where it takes several."""
        self.requests += 1
        return self.message_id if self.requests == 1 else f"{self.message_id}.{self.requests}"


def watch(wire: Wire) -> None:
    """Keep watch over this process from now on."""
    _watch_connections(wire)
    _watch_requests(wire)
    _watch_mail(wire)


# ------------------------------------------------------------------------------------------- where it leads


def _watch_connections(wire: Wire) -> None:
    connect: Callable[..., Any] = socket.socket.connect
    connect_ex: Callable[..., Any] = socket.socket.connect_ex
    sendto: Callable[..., Any] = socket.socket.sendto

    def checked_connect(self: socket.socket, address: Any, /) -> Any:
        address = _resolved(self, address)
        wire.check(self.family, address)
        found = connect(self, address)
        wire.connections += 1
        return found

    def checked_connect_ex(self: socket.socket, address: Any, /) -> Any:
        address = _resolved(self, address)
        wire.check(self.family, address)
        found = connect_ex(self, address)
        wire.connections += 1
        return found

    def checked_sendto(self: socket.socket, data: Any, *more: Any) -> Any:
        wire.check(self.family, more[-1])
        return sendto(self, data, *more)

    socket.socket.connect = checked_connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = checked_connect_ex  # type: ignore[method-assign,assignment]
    socket.socket.sendto = checked_sendto  # type: ignore[method-assign,assignment]


def _resolved(sock: socket.socket, address: Any) -> Any:
    """Return an address with its name resolved: a name given to `connect` itself must not be looked up twice."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return address
    found = socket.getaddrinfo(address[0], address[1], family=sock.family, type=sock.type)
    return found[0][4]


# ------------------------------------------------------------------------------------------- HTTP


def _watch_requests(wire: Wire) -> None:
    import requests  # apprise needs it

    send = requests.Session.send

    def seen_send(self: Any, request: Any, **options: Any) -> Any:
        key = wire.next_key()
        request.headers["Idempotency-Key"] = key
        request.headers["X-Wfengine-Delivery"] = key
        host = urlsplit(str(request.url)).hostname or "it"
        before = wire.connections
        wants_stream = options.get("stream")
        try:
            answer = send(self, request, **{**options, "allow_redirects": False, "stream": True})
            if not wants_stream:
                _read(answer)
        except requests.exceptions.RequestException as error:
            wire.exchanges.append(_unanswered(host, error, wire.connections > before))
            raise
        wire.exchanges.append(_answered(host, answer))
        return answer

    requests.Session.send = seen_send  # type: ignore[method-assign]


def _read(answer: Any) -> None:
    """Read the beginning of an answer, in place of all of it."""
    found = b""
    for piece in answer.iter_content(8192):
        found += piece
        if len(found) >= ANSWER_BYTES:
            break
    answer.close()
    answer._content, answer._content_consumed = found[:ANSWER_BYTES], True  # noqa: SLF001  # there is no other way to say so


def _answered(host: str, answer: Any) -> Exchange:
    status = int(answer.status_code)
    if 200 <= status < 300:
        return Exchange(True, f"{host} answered {status}")
    follows = " (redirects are not followed)" if 300 <= status < 400 else ""
    text = " ".join(str(answer.text or "")[: 4 * ANSWER_CHARACTERS].split())[:ANSWER_CHARACTERS]
    return Exchange(
        False,
        f"{host} answered {status}{follows}{f': {text}' if text else ''}",
        again=status in _AGAIN or status >= 500,
        unsure=status >= 500,
        retry_after=_retry_after(answer.headers.get("Retry-After")) if status == 429 or status >= 500 else None,
    )


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a server asks to be left alone for; None where it does not say so in seconds."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return min(seconds, LONGEST_HOLD_SECONDS) if 0 < seconds < float("inf") else None


def _unanswered(host: str, error: BaseException, connected: bool) -> Exchange:
    root = _root(error)
    said = getattr(root, "strerror", None) or ("" if isinstance(root, OSError) else str(root)[:ANSWER_CHARACTERS])
    is_tls = isinstance(root, ssl.SSLCertVerificationError)
    said = root.verify_message if isinstance(root, ssl.SSLCertVerificationError) else said
    name = type(root).__name__
    return Exchange(
        False, f"{host} gave no answer: {name}{f': {said}' if said else ''}", again=True, unsure=connected and not is_tls
    )


def _root(error: BaseException) -> BaseException:
    """Return what an exception was made of: those of requests hold whole URLs."""
    found, seen = error, {id(error)}
    while True:
        inner = found.__cause__ or found.__context__ or getattr(found, "reason", None)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            return found
        seen.add(id(inner))
        found = inner


# ------------------------------------------------------------------------------------------- mail


def _watch_mail(wire: Wire) -> None:
    sendmail: Callable[..., Any] = smtplib.SMTP.sendmail
    getreply: Callable[..., Any] = smtplib.SMTP.getreply
    data: Callable[..., Any] = smtplib.SMTP.data

    def seen_getreply(self: smtplib.SMTP) -> Any:
        code, text = getreply(self)
        if code >= 400:
            wire.smtp_reply = (code, " ".join(text.decode("utf-8", "replace").split())[:ANSWER_CHARACTERS])
        return code, text

    def seen_data(self: smtplib.SMTP, message: Any) -> Any:
        wire.gave_mail = True
        found = data(self, message)
        wire.gave_mail = False
        return found

    def seen_sendmail(self: smtplib.SMTP, sender: Any, receivers: Any, message: Any, *more: Any, **named: Any) -> Any:
        wire.smtp_reply, wire.gave_mail = None, False
        refused = sendmail(self, sender, receivers, with_message_id(message, wire.message_id), *more, **named)
        if not refused:
            wire.exchanges.append(Exchange(True, "the mail server took it"))
        return refused

    smtplib.SMTP.getreply = seen_getreply  # type: ignore[method-assign]
    smtplib.SMTP.data = seen_data  # type: ignore[method-assign,assignment]
    smtplib.SMTP.sendmail = seen_sendmail  # type: ignore[method-assign,assignment]


def with_message_id(message: str | bytes, message_id: str) -> str | bytes:
    """Return a mail under the message's own id, and marked as one that no person wrote."""
    if isinstance(message, bytes):
        return message
    head, blank, body = message.replace("\r\n", "\n").partition("\n\n")
    head = _MESSAGE_ID.sub("", head + "\n").rstrip("\n")
    ours = (
        f"Message-ID: <{message_id}@notifications.wfengine>\nX-Wfengine-Delivery: {message_id}\nAuto-Submitted: auto-generated"
    )
    return f"{head}\n{ours}{blank}{body}"


def mail_trouble(wire: Wire) -> Exchange | None:
    """Return what went wrong with a mail, where the server said so or fell silent; None where there was no mail."""
    if wire.smtp_reply is not None:
        code, text = wire.smtp_reply
        return Exchange(False, f"the mail server answered {code}: {text}", again=code < 500)
    if wire.gave_mail:
        return Exchange(False, "the mail server gave no answer to the mail", again=True, unsure=True)
    return None
