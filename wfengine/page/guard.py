"""Who may ask, and what an answer carries: one ASGI middleware around everything, below all routing, streams included.

A request is looked at in this order, and refused by default:

1. its Host is one of those allowed (else a name that somebody points at this machine would do: DNS rebinding);
2. it has the token, as a cookie or as `Authorization: Bearer` - or brings it in the link that was printed, and gets the cookie;
3. one that changes something comes from this very page, by what the browser says of it, and changes are allowed;
4. its body is not larger than `BODY_LIMIT`.

No route is exempt. It knows nothing of routes, so that none can be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Bytes of the body of one request, and of a query.
BODY_LIMIT = 1_048_576
QUERY_LIMIT = 65_536
#: Characters of a token at least: of `secrets.token_urlsafe`, that is 96 bits.
TOKEN_CHARACTERS = 16
#: Names that only this machine has.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_HEADERS = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_OWN_HEADERS = frozenset(name for name, _ in _HEADERS)


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Guard:
    """The middleware. `token` None: whoever mounts the application checks for himself who asks (said so by him)."""

    def __init__(
        self, application: Application, *, token: str | None, hosts: Iterable[str], read_only: bool, base_path: str
    ) -> None:  # fmt: skip
        self._application = application
        self._token = token
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._read_only = read_only
        self._base_path = base_path
        # The cookies of all ports of a machine are in one jar: each page has a name of its own.
        self.cookie = "wfengine-" + hashlib.sha256((token or "").encode()).hexdigest()[:8]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            await _close(receive, send)  # there are no websockets here, so none is let through
            return
        headers = _headers(scope)
        try:
            scope = self._placed(scope)
            self._check_host(headers)
            link = self._link(scope)
            if link is not None:
                await _answer(
                    scope,
                    _with_headers(send),
                    303,
                    "",
                    [(b"location", link.encode()), (b"set-cookie", self._set_cookie(scope))],
                )
                return
            by_cookie = self._check_token(headers)
            self._check_change(scope, headers, by_cookie)
            _check_size(scope, headers)
        except _Refused as refused:
            extra = [(b"www-authenticate", b"Bearer")] if refused.status == 401 else []
            await _answer(scope, _with_headers(send), refused.status, refused.message, extra)
            return
        await self._application(scope, _limited(receive), _with_headers(send))

    # ---- where it stands

    def _placed(self, scope: Scope) -> Scope:
        """Return the request with the path as the application sees it, whether or not a proxy took the base path off."""
        if not self._base_path:
            return scope
        path, inside = scope["path"], scope.get("root_path", "") + self._base_path
        if not (path == inside or path.startswith(inside + "/")):
            path = inside + path
        return {**scope, "path": path, "root_path": inside}

    # ---- the checks

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        given = headers.get(b"host", [])
        if len(given) != 1:
            raise _Refused(400, "A request has one Host header.")
        host = given[0].decode("latin-1").lower()
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        if (port and not port.isdigit()) or name not in self._hosts:
            raise _Refused(
                421, "This page is not served under that name. Names are allowed with: wfengine ui --allow-host NAME"
            )  # fmt: skip

    def _link(self, scope: Scope) -> str | None:
        """Return where a request that brings the token in its address goes on, without it; None: it brings no right one."""
        if self._token is None or scope["method"] != "GET" or b"token=" not in scope["query_string"]:
            return None
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if len(given) != 1 or not self._is_token(given[0]):
            return None
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        # Of the path no more than the letters that steer nothing: '//host' would lead elsewhere.
        path = "/" + scope["path"].lstrip("/\\")
        safe = "".join(letter for letter in path if letter.isascii() and (letter.isalnum() or letter in "/-_.~"))
        return safe + (f"?{rest}" if rest else "")

    def _check_token(self, headers: dict[bytes, list[bytes]]) -> bool:
        """Refuse without the token; tell whether it came as a cookie, which browsers send by themselves."""
        if self._token is None:
            return True
        for value in headers.get(b"authorization", []):
            scheme, _, given = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and self._is_token(given.strip()):
                return False
        for value in headers.get(b"cookie", []):
            if self._is_token(_cookie(value.decode("latin-1"), self.cookie)):
                return True
        raise _Refused(
            401,
            "The token is missing or wrong. Open the link that wfengine printed when it started; "
            "programs send the header: Authorization: Bearer TOKEN",
        )

    def _is_token(self, given: str) -> bool:
        expected = (self._token or "").encode()
        return self._token is not None and hmac.compare_digest(given.encode("utf-8", "replace"), expected)

    def _check_change(self, scope: Scope, headers: dict[bytes, list[bytes]], by_cookie: bool) -> None:
        if scope["method"] in SAFE_METHODS:
            return
        site = headers.get(b"sec-fetch-site", [b""])[-1].decode("latin-1").lower()
        origin = headers.get(b"origin", [b""])[-1].decode("latin-1").lower()
        if site and site != "same-origin":
            raise _Refused(403, "What changes something has to be asked for from this page itself, and not from another one.")
        if origin and urlsplit(origin).netloc != headers[b"host"][0].decode("latin-1").lower():
            raise _Refused(403, "What changes something has to be asked for from this page itself, and not from another one.")
        if by_cookie and not site and not origin:
            raise _Refused(
                403, "The request does not say from where it comes. Programs send the header: Authorization: Bearer TOKEN"
            )  # fmt: skip
        if self._read_only:
            raise _Refused(403, "This page is read-only. Change things with the command line, or start it without --read-only.")

    def _set_cookie(self, scope: Scope) -> bytes:
        path = scope.get("root_path", "") or "/"
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return f"{self.cookie}={self._token}; Path={path}; HttpOnly; SameSite=Strict; Max-Age=2592000{secure}".encode("latin-1")


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _cookie(text: str, name: str) -> str:
    jar = SimpleCookie()
    try:
        jar.load(text)
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _check_size(scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
    if len(scope["query_string"]) > QUERY_LIMIT:
        raise _Refused(414, f"The address is longer than {QUERY_LIMIT} bytes.")
    length = headers.get(b"content-length", [b"0"])[-1]
    if not length.isdigit() or int(length) > BODY_LIMIT:
        raise _Refused(413, f"The body of a request has at most {BODY_LIMIT} bytes.")


def _limited(receive: Receive) -> Receive:
    """Return a `receive` under which a body that is longer than it said ends as one whose sender went away."""
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > BODY_LIMIT:
                return {"type": "http.disconnect"}
        return message

    return receive_limited


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in _OWN_HEADERS]
            message = {**message, "headers": [*kept, *_HEADERS]}
        await send(message)

    return send_with_headers


async def _answer(scope: Scope, send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Answer with a text; as JSON below /api."""
    body, kind = (text + "\n").encode(), b"text/plain; charset=utf-8"
    if "/api/" in scope["path"]:
        body, kind = json.dumps({"error": {"code": f"HTTP{status}", "message": text}}).encode(), b"application/json"
    start = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _close(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})
