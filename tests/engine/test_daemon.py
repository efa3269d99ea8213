"""The daemon and its services: what it writes and tells while it runs, and how it ends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import Rows
from wfengine.daemon import Daemon
from wfengine.supervision import Supervisor
from wfengine_journal.errors import JournalUnwritableError, UsageError, WfengineError
from wfengine_journal.store import Journal

SECONDS = 60


class Steady:
    """A service that does nothing but keep a list of what it is asked."""

    name = "steady"

    def __init__(
        self, on_start: Callable[[], object] = lambda: None, on_stop: Callable[[float], object] = lambda _: None
    ) -> None:
        self.asked: list[str] = []
        self.is_ready = True
        self.fault: WfengineError | None = None
        self.left: list[int] = []
        self._on_start, self._on_stop = on_start, on_stop

    def start(self) -> None:
        self.asked.append("start")
        self._on_start()

    def stop_taking(self) -> None:
        self.asked.append("stop_taking")

    def stop(self, timeout_seconds: float) -> None:
        self.asked.append("stop" if timeout_seconds > 0 else "stop at once")
        self._on_stop(timeout_seconds)

    def report(self) -> dict[str, object]:
        return {"running": 0, "asked": list(self.asked)}


def served(daemon: Daemon) -> threading.Thread:
    """Run a daemon on a thread, and return that when it is ready."""
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    assert daemon.is_ready.wait(SECONDS)
    return thread


def ended(daemon: Daemon, thread: threading.Thread) -> None:
    daemon.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_it_is_registered_before_its_services_start_and_stopped_after_they_end(journal: Journal, rows: Rows) -> None:
    seen: list[object] = []
    service = Steady(
        lambda: seen.append(rows("SELECT name, state FROM daemons")),
        lambda _: seen.append(rows("SELECT name, state FROM daemons")),
    )
    daemon = Daemon(journal, [service], "nightly")
    ended(daemon, served(daemon))
    assert seen == [[("nightly", "running")], [("nightly", "stopping")]]
    assert rows("SELECT name, state FROM daemons") == [("nightly", "stopped")]
    assert service.asked == ["start", "stop_taking", "stop"]


def test_its_report_holds_that_of_each_service(journal: Journal, rows: Rows) -> None:
    daemon = Daemon(journal, [Steady()], "nightly")
    thread = served(daemon)
    (text,) = rows("SELECT report FROM daemons")[0]
    report = json.loads(str(text))
    assert report["services"]["steady"]["asked"] == ["start"]
    assert report["next_due"] is None
    assert set(report) == {"version", "uptime_seconds", "next_due", "services"}
    ended(daemon, thread)


def test_a_service_that_cannot_report_ends_nothing(journal: Journal) -> None:
    class Broken(Steady):
        def report(self) -> dict[str, object]:
            raise ZeroDivisionError("broken")

    daemon = Daemon(journal, [Broken()], "nightly")
    thread = served(daemon)
    assert daemon.report()["services"] == {"steady": {"error": "ZeroDivisionError: broken"}}
    ended(daemon, thread)


def test_a_service_that_cannot_go_on_ends_it_with_that_error(journal: Journal) -> None:
    sick, sound = Steady(), Steady()
    sick.fault = JournalUnwritableError("the disk is full")
    with pytest.raises(JournalUnwritableError, match="the disk is full"):
        Daemon(journal, [sick, sound], "nightly").run(SECONDS)
    assert sound.asked == ["start", "stop_taking", "stop at once"]


def test_a_service_that_cannot_be_started_stops_those_before_it(journal: Journal) -> None:
    def refuse() -> None:
        raise UsageError("no such queue")

    first, second, third = Steady(), Steady(refuse), Steady()
    with pytest.raises(UsageError, match="no such queue"):
        Daemon(journal, [first, second, third], "nightly").run(SECONDS)
    assert first.asked == ["start", "stop_taking", "stop at once"]
    assert second.asked == ["start"]
    assert third.asked == []


def test_a_service_that_fails_to_stop_keeps_none_from_stopping(journal: Journal) -> None:
    def fail(_: float) -> None:
        raise ZeroDivisionError

    last = Steady()
    daemon = Daemon(journal, [Steady(on_stop=fail), last], "nightly")
    ended(daemon, served(daemon))
    assert last.asked == ["start", "stop_taking", "stop"]


def test_a_second_word_to_stop_waits_for_nothing(journal: Journal) -> None:
    stopping, hanging = threading.Event(), threading.Event()

    def hang(seconds: float) -> None:
        stopping.set()
        if seconds > 0:
            hanging.wait(SECONDS)

    service = Steady(on_stop=hang)
    daemon = Daemon(journal, [service], "nightly", stop_timeout=1000)
    thread = served(daemon)
    daemon.stop()
    assert stopping.wait(SECONDS)
    ended(daemon, thread)
    assert service.asked == ["start", "stop_taking", "stop", "stop at once"]
    hanging.set()


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e9])
def test_the_time_to_stop_in_is_checked(journal: Journal, seconds: float) -> None:
    with pytest.raises(UsageError, match="time to stop in"):
        Daemon(journal, [], "nightly", stop_timeout=seconds)


def test_two_daemons_one_after_the_other_in_one_process_have_one_row(journal: Journal, rows: Rows) -> None:
    for name in ("first", "second"):
        Daemon(journal, [], name).run(0.01)
    assert rows("SELECT name, state FROM daemons") == [("second", "stopped")]


# ------------------------------------------------------------------------------------------- the service manager


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    """The socket of a service manager."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(SECONDS)
    return receiver


def told_until(manager: socket.socket, wanted: str) -> list[str]:
    """Return the lines that the manager was told, up to one."""
    lines: list[str] = []
    while wanted not in lines:
        lines += manager.recv(4096).decode().split("\n")
    return lines


def test_the_manager_is_told_of_readiness_life_and_the_end_in_order(journal: Journal, manager: socket.socket) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"})
    service = Steady()
    service.is_ready = False
    daemon = Daemon(journal, [service], "nightly", supervisor=supervisor)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    before = told_until(manager, "WATCHDOG=1")
    assert "READY=1" not in before
    service.is_ready = True
    told_until(manager, "READY=1")
    then = told_until(manager, "WATCHDOG=1")
    assert any(line.startswith("STATUS=running; 0 runs; next due never") for line in then)
    assert "STOPPING=1" not in then
    ended(daemon, thread)
    told_until(manager, "STOPPING=1")
    manager.close()


def test_the_watchdog_hears_nothing_of_a_service_that_cannot_go_on(journal: Journal, manager: socket.socket) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"})
    service = Steady()
    service.fault = JournalUnwritableError("the disk is full")
    with pytest.raises(JournalUnwritableError):
        Daemon(journal, [service], "nightly", supervisor=supervisor).run()
    assert "WATCHDOG=1" not in told_until(manager, "STOPPING=1")
    manager.close()
