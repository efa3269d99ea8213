"""What a service manager is told, over real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine.supervision import Supervisor


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(10)
        yield receiver


def test_assignments_arrive_as_lines_of_one_datagram(manager: socket.socket) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.getsockname()})
    assert supervisor.tell("READY=1", supervisor.status("two\nlines, " + "x" * 500))
    ready, status = manager.recv(4096).decode().split("\n")
    assert ready == "READY=1"
    assert status.startswith("STATUS=two lines, xxx")
    assert len(status) < 250


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="Linux has abstract sockets")
def test_sockets_in_the_abstract_namespace_are_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0wfengine-test-{os.getpid()}")
        receiver.settimeout(10)
        assert Supervisor({"NOTIFY_SOCKET": f"@wfengine-test-{os.getpid()}"}).tell("STOPPING=1")
        assert receiver.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1234", "notify", "@", "/" + "x" * 300])
def test_nobody_to_tell_is_no_error(address: str) -> None:
    assert not Supervisor({"NOTIFY_SOCKET": address}).tell("READY=1")


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "\u0661"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_that_is_meant_for_this_process(values: dict[str, str], seconds: float | None) -> None:
    assert Supervisor({"NOTIFY_SOCKET": "/run/notify", **values}).watchdog_seconds == seconds
    assert Supervisor(values).watchdog_seconds is None
