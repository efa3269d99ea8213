"""Daemons as real processes for tests: started, waited for by the socket of a service manager, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: Seconds after which a process counts as hanging.
SECONDS = 60


class DaemonProcess:
    """A process that serves, and the socket to which it says how it is."""

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str]) -> None:
        """`arguments`: of Python, such as '-m', 'wfengine', 'serve'."""
        self._sockets = tempfile.mkdtemp(prefix="wf-")  # a socket's path may not be long
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(f"{self._sockets}/notify")
        self.manager.settimeout(SECONDS)
        self.log = folder / f"daemon-{Path(self._sockets).name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder, env={**environment, "NOTIFY_SOCKET": f"{self._sockets}/notify"}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.manager.close()

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(encoding="utf-8")

    @property
    def facts(self) -> list[dict[str, object]]:
        """Its log, of --log-format json."""
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]

    def wait_until(self, wanted: str) -> DaemonProcess:
        """Wait until it tells the service manager a line that begins so."""
        try:
            while not any(line.startswith(wanted) for line in self.manager.recv(4096).decode().split("\n")):
                pass
        except TimeoutError:
            raise AssertionError(f"the daemon did not say {wanted} in {SECONDS} s:\n{self.said}") from None
        return self

    def wait_until_ready(self) -> DaemonProcess:
        """Wait until it is ready."""
        return self.wait_until("READY=1")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """Kill it, and nothing that it started."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end in {SECONDS} s:\n{self.said}") from None
