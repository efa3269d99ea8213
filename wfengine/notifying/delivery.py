"""Have one message sent, by a process of its own, and tell what came of it.

In a process of its own, since apprise and what it loads are nothing that a flow's process should hold, since nothing else can
be stopped when its time is over, and since `wire` changes whatever process it watches.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wfengine.notifying.composing import composed, footer
from wfengine.redaction import KEEPER
from wfengine.references import filled_text
from wfengine.secret_sources import read_secret
from wfengine_journal.errors import SecretError, UsageError

if TYPE_CHECKING:
    from wfengine_journal.notifications import NotificationRow, TargetRow
    from wfengine_journal.store import Journal

#: How long sending one message may take, in seconds, its process's start included.
SEND_SECONDS = 60.0
#: How long its process has to end by itself when that is over, in seconds.
GRACE_SECONDS = 5.0
#: Characters of a part of a URL from which on it is kept out of everything this process writes.
TOKEN_CHARACTERS = 16
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: It looks for nothing in the folder it is started in, and imports what the process that starts it would.
_BOOTSTRAP = (
    "import json, sys; order = json.loads(sys.stdin.buffer.readline()); sys.path[:] = order['sys_path']; "
    "from wfengine.notifying.sending import main; main(order)"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a try. `again`: another one makes sense; `unsure`: it may have arrived all the same."""

    sent: bool
    reason: str | None = None
    again: bool = False
    unsure: bool = False
    retry_after: float | None = None


def is_installed() -> bool:
    """Tell whether this process can send anything."""
    return importlib.util.find_spec("apprise") is not None


def check_installed() -> None:
    """Raise UsageError where the package that sends is missing."""
    if not is_installed():
        raise UsageError("Sending notifications needs the package apprise. Install it: pip install 'wfengine[notify]'")


def deliver(
    journal: Journal, target: TargetRow, rows: Sequence[NotificationRow], message_id: str, *, may_be_repeat: bool
) -> Verdict:
    """Send the message that carries these notifications of a target, and wait for what comes of it."""
    begun = begin_delivery(journal, target, rows, message_id, may_be_repeat=may_be_repeat)
    return begun if isinstance(begun, Verdict) else begun.wait()


def begin_delivery(
    journal: Journal, target: TargetRow, rows: Sequence[NotificationRow], message_id: str, *, may_be_repeat: bool
) -> Delivery | Verdict:
    """Begin to send the message that carries these notifications of a target; or return why that cannot be."""
    subject, body, level = composed(rows)
    try:
        url = url_of(journal, target)
    except SecretError as error:  # another process may be able to read it
        return Verdict(False, str(error), again=True)
    order: dict[str, object] = {
        "url": url, "subject": subject, "body": body, "level": level, "message_id": message_id,
        "footer": footer(message_id, may_be_repeat=may_be_repeat), "allow_private": bool(target.allow_private),
        "seconds": SEND_SECONDS, "sys_path": [str(Path(entry).absolute()) for entry in sys.path],
    }  # fmt: skip
    try:
        return Delivery(order)
    except OSError as error:
        return Verdict(False, f"no process could be started for sending: {error.strerror}", again=True)


def url_of(journal: Journal, target: TargetRow) -> str:
    """Return the URL of a target with the values of its secrets, which this process knows from then on."""
    text = target.url.strip()

    def value_of(name: str) -> str:
        value = read_secret(name, journal)
        if not isinstance(value, str):
            raise SecretError(f"Secret '{name}' is no text, and cannot be in the URL of notification target '{target.name}'.")
        return value if is_whole else quote(value, safe="")

    is_whole = text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1
    url = filled_text(text, value_of).strip()
    KEEPER.learn(url, f"the URL of {target.name}")
    for part in url.replace("?", "/").replace("&", "/").replace("=", "/").replace("@", "/").replace(":", "/").split("/"):
        if len(part) >= TOKEN_CHARACTERS and "." not in part:  # a token in it, that an answer may repeat; no host
            KEEPER.learn(part, f"a part of the URL of {target.name}")
    return url


class Delivery:
    """A message that a process is sending. What that says is short, so that it never waits to be read."""

    def __init__(self, order: dict[str, object]) -> None:
        """Start the process. Raises OSError."""
        self._took_too_long = False
        environment = dict(os.environ)
        if not order["allow_private"]:  # a proxy would connect to whatever it is told
            environment = {name: value for name, value in environment.items() if name.lower() not in _PROXIES}
        theirs, self._lifeline = os.pipe()
        inherits: dict[str, object] = {}
        if sys.platform != "win32":
            inherits = {"pass_fds": (theirs,), "start_new_session": True}
            order = {**order, "lifeline": theirs}
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-c", _BOOTSTRAP],  # what libraries warn of is no matter of the user's
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, **inherits,
            )  # type: ignore[call-overload]  # fmt: skip
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        with contextlib.suppress(OSError):  # it has ended already: what came of it says so
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.close()

    def is_over(self) -> bool:
        """Tell whether its process has ended."""
        return self._process.poll() is not None

    def wait(self) -> Verdict:
        """Return what came of it, when its process has ended or its time is over."""
        self.rest()
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait()
        os.close(self._lifeline)
        if self._took_too_long:
            return Verdict(False, f"sending took longer than {SEND_SECONDS:g} s", again=True, unsure=True)
        return _verdict(said, self._process.returncode)

    def rest(self) -> None:
        """Wait until its process has ended, on any thread; kill it when its time is over."""
        try:
            self._process.wait(SEND_SECONDS + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._took_too_long = True
            self._process.kill()

    def leave_to_parent(self) -> None:
        """Let go of a process that another one started, from which this one was forked."""
        os.close(self._lifeline)
        self._process.returncode = 0  # so that nobody waits for it


def _verdict(said: bytes, code: int) -> Verdict:
    try:
        found = json.loads(said)
        retry_after = found.get("retry_after")
        return Verdict(
            bool(found["sent"]), found.get("reason"), bool(found.get("again")), bool(found.get("unsure")),
            float(retry_after) if isinstance(retry_after, int | float) else None,
        )  # fmt: skip
    except (ValueError, KeyError, AttributeError):
        pass
    took_too_long = sys.platform != "win32" and code == -14  # SIGALRM
    reason = (
        f"sending took longer than {SEND_SECONDS:g} s" if took_too_long else f"the process that was to send ended with {code}"
    )
    return Verdict(False, reason, again=True, unsure=True)
