"""Send one message with apprise: what runs in the process that `delivery` starts for it.

It is told what to send on its standard input, says what came of that on its standard output, and ends: when its time is over
or the process that started it is gone, at once. The URL, which holds secrets, stands in no argument and in no variable of the
environment, and nothing of it in what is said.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlsplit

from wfengine.notifying import wire as wires
from wfengine.notifying.composing import cut, harmless, wrapped
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

#: Services that show text as it is: what would be markup elsewhere is none there.
_LITERAL = frozenset({"mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms"})
#: Memory of the process, in bytes: an answer without end must not take the machine's.
MEMORY_BYTES = 2 << 30
#: How long a connection and an answer may take, in seconds, unless the URL allows longer: who gives up early sends a repeat.
CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 30.0
#: Characters of a part of a URL from which on it is taken out of whatever is said.
_SHORTEST = 4


def main(order: Mapping[str, Any]) -> None:
    """Send what an order says, and write the verdict as JSON."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no verdict
    _limit(order)
    verdict = send(order)
    os.write(output, json.dumps(verdict).encode())
    os._exit(0)  # nothing is left to do, and threads of a library must not keep it


def _limit(order: Mapping[str, Any]) -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, float(order["seconds"]))
        import resource

        with_limit = (MEMORY_BYTES, MEMORY_BYTES)
        try:
            resource.setrlimit(resource.RLIMIT_AS, with_limit)
        except (OSError, ValueError):  # macOS has no such limit
            return
    lifeline = order.get("lifeline")
    if isinstance(lifeline, int):
        start_thread("wfengine-lifeline", lambda: _end_with(lifeline))


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when the process that holds the other end is gone
    os._exit(1)


def send(order: Mapping[str, Any]) -> dict[str, object]:
    """Send a message; return what came of it: 'sent', and where not, 'reason', 'again', 'unsure', 'retry_after'."""
    import apprise

    said = _Said()
    logger = logging.getLogger("apprise")
    logger.handlers[:] = [said]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    url = str(order["url"])
    asset = apprise.AppriseAsset(
        app_id="wfengine", app_desc="wfengine", app_url="", image_url_mask="", image_url_logo="", async_mode=False
    )
    try:
        plugin = apprise.Apprise.instantiate(url, asset=asset)
    except Exception as error:  # whatever a plugin makes of a URL
        said.last, plugin = f"{type(error).__name__}", None
    if plugin is None:
        reason = "apprise cannot read the URL of the target. See https://github.com/caronc/apprise/wiki for what it may be."
        return _failed(reason, url)
    plugin.socket_connect_timeout = max(float(plugin.socket_connect_timeout or 0), CONNECT_SECONDS)
    plugin.socket_read_timeout = max(float(plugin.socket_read_timeout or 0), ANSWER_SECONDS)
    wire = wires.Wire(str(order["message_id"]), bool(order["allow_private"]))
    wires.watch(wire)
    try:
        sent = _notify(plugin, order)
    except Exception as error:  # a plugin's own fault must not look as if nothing had been tried
        wire.exchanges.append(
            wires.Exchange(False, f"{type(error).__name__} in apprise", again=True, unsure=wire.connections > 0)
        )
        sent = False
    return {"sent": True} if sent else _verdict(wire, said, url)


def _notify(plugin: NotifyBase, order: Mapping[str, Any]) -> bool:
    from apprise import NotifyFormat, OverflowMode

    subject, body, footer = str(order["subject"] or ""), str(order["body"]), str(order["footer"])
    schemas = _schemas(plugin)
    if not subject and "mailto" in schemas:
        subject = f"wfengine: {order['level']}"
    if not _LITERAL & schemas:
        subject, body, footer = harmless(subject), harmless(body), harmless(footer)
    room = int(plugin.body_maxlen) - len(footer) - 4
    if int(plugin.title_maxlen) <= 0:
        room -= len(subject) + 40
    is_plain = plugin.resolve_format(NotifyFormat.TEXT) == NotifyFormat.TEXT
    body = cut(wrapped(body), max(room, 20), weight=1 if is_plain else 6)
    return bool(
        plugin.notify(
            title=subject[: max(int(plugin.title_maxlen), 0) or 250], body=f"{body}\n\n{footer}",
            notify_type=str(order["level"]), body_format=NotifyFormat.TEXT, overflow=OverflowMode.TRUNCATE,
        )
    )  # fmt: skip


def _schemas(plugin: NotifyBase) -> set[str]:
    found: set[str] = set()
    for names in (plugin.protocol, plugin.secure_protocol):
        found.update([names] if isinstance(names, str) else names or ())
    return found


def _verdict(wire: wires.Wire, said: _Said, url: str) -> dict[str, object]:
    if wire.forbidden is not None:
        return _failed(
            f"the URL leads to {wire.forbidden}, an address of this machine or a private network. If that is meant: "
            "wfengine notifications set NAME ... --allow-private --overwrite",
            url,
            unsure=any(each.accepted for each in wire.exchanges),
        )
    bad = next((each for each in wire.exchanges if not each.accepted), None) or wires.mail_trouble(wire)
    arrived = any(each.accepted for each in wire.exchanges)
    if bad is None:
        if wire.exchanges and not said.last:
            return _failed("apprise says that it was not sent", url, unsure=arrived)
        again = wire.connections == 0 or arrived  # no name, no connection, no answer
        return _failed(said.last or "no connection could be made", url, again=again, unsure=arrived)
    return _failed(bad.what, url, again=bad.again, unsure=bad.unsure or arrived, retry_after=bad.retry_after)


def _failed(
    reason: str, url: str, *, again: bool = False, unsure: bool = False, retry_after: float | None = None
) -> dict[str, object]:
    return {
        "sent": False, "reason": without(reason, url), "again": again, "unsure": unsure, "retry_after": retry_after,
    }  # fmt: skip


def without(text: str, url: str) -> str:
    """Return a text with nothing in it that only the URL could know: its user, password, path and query."""
    for part in secret_parts(url):
        text = text.replace(part, "***")
    return text


def secret_parts(url: str) -> list[str]:
    """Return what may be secret in a URL, the longest first. For schemas as slack:// even the host may be a token."""
    try:
        parts = urlsplit(url)
        pieces = [parts.username or "", parts.password or "", parts.path, parts.query, parts.fragment]
    except ValueError:
        return [url]
    if parts.scheme not in ("http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"):
        pieces.append(parts.netloc.rpartition("@")[2].partition(":")[0])
    pieces += parts.path.split("/")
    for pair in parts.query.split("&"):
        pieces.append(pair.partition("=")[2])
    found = {url, *pieces, *map(unquote_plus, pieces)}
    return sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)


class _Said(logging.Handler):
    """Keeps the last warning of apprise."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.last = " ".join(record.getMessage().split())[:300]
