"""What a service manager such as systemd is told: that the process is ready, stops, lives, and what it does.

The protocol is one datagram to the socket that the environment names. Where it names none, nothing is sent. Nothing here can
stop a daemon: a datagram that cannot be delivered is lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

#: Characters of a status line: systemd shows it on one line.
STATUS_CHARACTERS = 200
#: How long a datagram may wait for room in the socket, in seconds.
SEND_SECONDS = 1.0


class Supervisor:
    """The service manager that started this process, if there is one."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        values = os.environ if environment is None else environment
        self._address = values.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog_seconds(values) if self._address else None

    @property
    def listens(self) -> bool:
        """Tell whether there is anybody to tell."""
        return self._address[:1] in ("/", "@") and len(self._address) > 1

    def tell(self, *assignments: str) -> bool:
        """Send assignments such as 'READY=1'; tell whether they were delivered."""
        if not self.listens:
            return False
        import socket  # only a process that is supervised needs it

        if not hasattr(socket, "AF_UNIX"):
            return False
        # An address that begins with '@' is in the abstract namespace, where a zero byte stands for it.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode("utf-8", "replace"), address)
        except OSError:
            return False
        return True

    def status(self, text: str) -> str:
        """Return the assignment of a status line."""
        return "STATUS=" + " ".join(text.split())[:STATUS_CHARACTERS]


def _watchdog_seconds(values: Mapping[str, str]) -> float | None:
    """Return within how many seconds a sign of life is expected; None: no such is."""
    wanted, pid = values.get("WATCHDOG_USEC", ""), values.get("WATCHDOG_PID", "")
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(wanted) / 1_000_000
