"""Tasks for HTTP requests, through httpx: tried again by status, with one idempotency key over all tries, and guarded.

    from wfengine.integrations.http import get, post

    @flow
    def order(item):
        price = get("https://shop.example/prices", params={"item": item})["body"]["price"]
        post("https://shop.example/orders", json={"item": item, "price": price}, bearer=Secret("shop_token"))

Tries are the task's own retries, so they are journaled and outlive the process; `RetryAfter` is the delay, and waits as long as
the server asks for. Each request that changes something has the header Idempotency-Key with the task run's key, the same over
tries, restarts and resumes. Where an address leads is checked as for webhooks: the name is resolved once, private addresses are
refused unless `allow_private`, and no redirect is followed. Proxies of the environment are not used. Needs the extra `http`.
"""

from __future__ import annotations

import contextlib
import json as json_module
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, urlsplit

from tenacity.wait import wait_base

from wfengine._version import __version__
from wfengine.automations.outgoing import ActionFailed, checked_address, shown
from wfengine.redaction import KEEPER
from wfengine.runs import current_task_run
from wfengine.secrets import Secret
from wfengine.tasks import task
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import RequestFailedError, UsageError
from wfengine_journal.guarding import hide

try:
    import httpx
except ImportError as missing:
    raise UsageError(
        "HTTP tasks need the package httpx, which is not installed. Type: pip install 'wfengine[http]'"
    ) from missing

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["RetryAfter", "get", "is_temporary", "post", "request"]

Text: TypeAlias = "str | Secret[str]"
#: Seconds that a request may take as a whole, and bytes of an answer that are taken, unless the call says otherwise.
TIMEOUT_SECONDS = 30.0
MAX_BYTES = 10_000_000
#: The longest that a server is waited for because it asks so, in seconds.
MAX_DELAY_SECONDS = 3600.0
#: Answers after which another try makes sense: too early, too many, or the server's own trouble.
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529})
#: Methods that change nothing, which need no key.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Errors that come again however often it is tried.
_FOR_GOOD = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError)
#: Headers of an answer that are not kept: what they hold is as good as a password.
_NOT_KEPT = frozenset({"set-cookie", "set-cookie2", "authorization", "proxy-authenticate", "www-authenticate"})
#: Characters of an answer that the text of an error has.
SHOWN_CHARACTERS = 500


class RetryAfter(wait_base):
    """A delay for `retry_delay_seconds`: as long as the server asks for, and at least 1, 2, 4 ... times `base_seconds`."""

    def __init__(self, base_seconds: float = 1.0, max_seconds: float = 60.0) -> None:
        self.base_seconds = base_seconds
        self.max_seconds = max_seconds

    def __call__(self, retry_state: RetryCallState) -> float:
        """See tenacity.wait."""
        own = min(self.base_seconds * 2.0 ** min(retry_state.attempt_number - 1, 60), self.max_seconds)
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after_seconds if isinstance(error, RequestFailedError) else None
        return max(own, min(asked or 0.0, MAX_DELAY_SECONDS))


def is_temporary(error: BaseException) -> bool:
    """Tell whether another try of a request makes sense: there was no answer, or one of `TEMPORARY`."""
    return isinstance(error, RequestFailedError) and error.is_temporary


@task(key="wfengine.integrations.http.request", retries=3, retry_delay_seconds=RetryAfter(), retry_condition_fn=is_temporary)
def request(
    method: str,
    url: str,
    *,
    params: Mapping[str, object] | None = None,
    headers: Mapping[str, Text] | None = None,
    bearer: Text | None = None,
    auth: tuple[str, Text] | None = None,
    json: object = None,
    data: Mapping[str, object] | None = None,
    content: str | bytes | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_bytes: int = MAX_BYTES,
    allow_private: bool = False,
    idempotency_header: str = "Idempotency-Key",
) -> dict[str, object]:
    """Send a request; return {"status", "headers", "body"}: the body as JSON where it says so, else as text or bytes.

    Any answer but 2xx raises RequestFailedError, so do a redirect and one longer than `max_bytes`. `bearer`, the second of
    `auth`, and values of `params` and `headers` may be secrets. `idempotency_header`: its name, "" for none. The request is
    sent again where its process died before the answer was recorded, and a server that does not know the key does it twice:
    for such a one say `.with_options(retries=0, once=True)`, and a person is asked.
    """
    parts, address = _place(url, allow_private=allow_private)
    verb = method.upper()
    if not verb.isascii() or not verb.isalpha():
        raise UsageError(f"{method!r} is no method of HTTP.")
    sent = _headers(headers, bearer)
    if idempotency_header and verb not in _SAFE:
        sent.setdefault(idempotency_header, current_task_run().idempotency_key)
    sent["Host"] = _host(parts)
    target = httpx.URL(url).copy_with(host=address)
    login = None if auth is None else (auth[0], _clear(auth[1]))
    asked = None if params is None else {name: _clear(value) for name, value in params.items()}
    deadline = SystemClock().monotonic_seconds() + timeout_seconds
    try:
        with (
            httpx.Client(timeout=timeout_seconds, trust_env=False, verify=_certificates(parts)) as client,
            client.stream(
                verb, target, params=asked, headers=sent, auth=login, json=json, data=data, content=content,
                extensions={"sni_hostname": str(parts.hostname)},
            ) as answer,
        ):  # fmt: skip
            body = _body(answer, max_bytes, deadline, shown(parts))
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise RequestFailedError(
            f"{verb} {shown(parts)} had no answer: {type(error).__name__}: {hide(str(error))}",
            is_temporary=not isinstance(error, _FOR_GOOD),
        ) from None  # the original holds the request, with its headers
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise UsageError(f"{verb} {shown(parts)} could not be sent: {hide(str(error))}") from None
    return _result(verb, answer, body, shown(parts))


@task(key="wfengine.integrations.http.get", retries=3, retry_delay_seconds=RetryAfter(), retry_condition_fn=is_temporary)
def get(
    url: str,
    *,
    params: Mapping[str, object] | None = None,
    headers: Mapping[str, Text] | None = None,
    bearer: Text | None = None,
    auth: tuple[str, Text] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_bytes: int = MAX_BYTES,
    allow_private: bool = False,
) -> dict[str, object]:
    """Send a GET; see `request`."""
    return request.fn(
        "GET", url, params=params, headers=headers, bearer=bearer, auth=auth, timeout_seconds=timeout_seconds,
        max_bytes=max_bytes, allow_private=allow_private,
    )  # fmt: skip


@task(key="wfengine.integrations.http.post", retries=3, retry_delay_seconds=RetryAfter(), retry_condition_fn=is_temporary)
def post(
    url: str,
    *,
    json: object = None,
    data: Mapping[str, object] | None = None,
    content: str | bytes | None = None,
    params: Mapping[str, object] | None = None,
    headers: Mapping[str, Text] | None = None,
    bearer: Text | None = None,
    auth: tuple[str, Text] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_bytes: int = MAX_BYTES,
    allow_private: bool = False,
    idempotency_header: str = "Idempotency-Key",
) -> dict[str, object]:
    """Send a POST with an idempotency key; see `request`."""
    return request.fn(
        "POST", url, json=json, data=data, content=content, params=params, headers=headers, bearer=bearer, auth=auth,
        timeout_seconds=timeout_seconds, max_bytes=max_bytes, allow_private=allow_private,
        idempotency_header=idempotency_header,
    )  # fmt: skip


def _place(url: str, *, allow_private: bool) -> tuple[SplitResult, str]:
    """Return the parts of a URL, and the one address that is connected to."""
    try:
        return checked_address(url, allow_private=allow_private)
    except ActionFailed as refusal:
        if refusal.again:
            raise RequestFailedError(f"Nothing was sent: {refusal}", is_temporary=True) from None
        text = str(refusal).replace("allow_private = true", "allow_private=True")
        if "takes no user or password" in text:
            KEEPER.learn(urlsplit(url).password)
            text += "; give those as auth=(user, Secret('NAME'))"
        raise UsageError(f"Nothing was sent: {text}") from None


def _certificates(parts: SplitResult) -> ssl.SSLContext | bool:
    """Return the system's certificates, or those of SSL_CERT_FILE."""
    return ssl.create_default_context() if parts.scheme == "https" else True


def _headers(headers: Mapping[str, Text] | None, bearer: Text | None) -> httpx.Headers:
    made = httpx.Headers({"User-Agent": f"wfengine/{__version__}"})
    given = {**(headers or {}), **({} if bearer is None else {"Authorization": f"Bearer {_clear(bearer)}"})}
    for name, value in given.items():
        text = _clear(value)
        if not isinstance(text, str) or not text.isprintable() or not str(name).isprintable() or not str(name).strip():
            raise UsageError(f"The header {name!r} is not printable text.")
        made[name] = text
    return made


def _clear(value: object) -> str:
    if not isinstance(value, Secret):
        return value if isinstance(value, str) else str(value)
    found = value.get()
    return found if isinstance(found, str) else str(found)


def _host(parts: SplitResult) -> str:
    name = str(parts.hostname)
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{parts.port}" if parts.port is not None else name


def _body(answer: httpx.Response, max_bytes: int, deadline: float, where: str) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > max_bytes:
            raise RequestFailedError(
                f"The answer of {where} has more than {max_bytes:,} bytes. Raise max_bytes, or ask for less.",
                status=answer.status_code,
            )
        if SystemClock().monotonic_seconds() > deadline:  # every read has the time limit for itself, so one that trickles
            raise RequestFailedError(f"The answer of {where} did not come to its end in time.", is_temporary=True)
    return bytes(body)


def _result(verb: str, answer: httpx.Response, body: bytes, where: str) -> dict[str, object]:
    status = answer.status_code
    if not 200 <= status < 300:
        text = hide(body[: 8 * SHOWN_CHARACTERS].decode("utf-8", "replace"))[:SHOWN_CHARACTERS]
        follows = " Redirects are not followed: give the address that it leads to." if 300 <= status < 400 else ""
        raise RequestFailedError(
            f"{verb} {where} was answered with {status}.{follows}{f' It said: {text}' if text else ''}",
            status=status, body=text, retry_after_seconds=_retry_after(answer), is_temporary=status in TEMPORARY,
        )  # fmt: skip
    headers = {name: value for name, value in answer.headers.items() if name not in _NOT_KEPT}
    return {"status": status, "headers": headers, "body": _decoded(answer, body)}


def _decoded(answer: httpx.Response, body: bytes) -> object:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        with contextlib.suppress(ValueError, RecursionError):
            return json_module.loads(body)
    if kind.startswith("text/") or kind.endswith(("json", "xml")):
        try:
            return body.decode(answer.charset_encoding or "utf-8", "replace")
        except LookupError:  # a charset that does not exist
            return body.decode("utf-8", "replace")
    return body


def _retry_after(answer: httpx.Response) -> float | None:
    """Return for how many seconds the server asks to be left alone: it says seconds, or a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - SystemClock().wall_seconds())
    return None
