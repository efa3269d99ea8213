"""The daemon: runs services in one process until it is told to stop, says how they are, and stops them in time.

It registers itself in the journal and says there every some seconds how it does; a service manager is told too. Nothing is
decided by that: whether it lives, others ask of the operating system.

Told to stop (SIGTERM, Ctrl-C, `stop`), it lets its services take up nothing more, gives what is under way so many seconds, and
leaves the rest such that another daemon goes on with it. Told so a second time, it gives them none. A terminal that is closed
(SIGHUP) counts as being told, except under nohup: a daemon whose configuration or code was changed is started anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from wfengine._version import __version__
from wfengine.listeners import Event, add_listener, remove_listener
from wfengine.signal_handling import handling
from wfengine.supervision import Supervisor
from wfengine_journal.daemons import PutDaemon, names_of_run
from wfengine_journal.errors import JournalError, UsageError, WfengineError
from wfengine_journal.threads import start_thread
from wfengine_journal.ticks import find_next_due
from wfengine_scheduler.services import Service

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.daemon")

#: How often a daemon says how it is, in seconds.
BEAT_SECONDS = 10.0
#: How often it looks whether a service cannot go on, in seconds: a look reads a few attributes.
LOOK_SECONDS = 0.5
#: How long services may take to stop, in seconds, unless it is told otherwise; and at the most.
STOP_SECONDS = 30.0
MOST_STOP_SECONDS = 86400.0
#: How long it waits for services that were told to end at once, in seconds.
LAST_SECONDS = 2.0
#: How long it waits for the first step of its services before it says that it is ready all the same, in seconds.
READY_SECONDS = 30.0
#: State changes of runs that wait to be logged; beyond that the oldest are not logged.
LOGGED_CHANGES = 10_000

_STOP, _CHANGE = "stop", "change"


class Daemon:
    """One process that serves a journal. Make it, then `run` it on the main thread."""

    def __init__(
        self,
        journal: Journal,
        services: Sequence[Service],
        name: str,
        *,
        stop_timeout: float = STOP_SECONDS,
        supervisor: Supervisor | None = None,
        parent_pid: int | None = None,
    ) -> None:
        """`services` in the order in which they are started, and stopped. `parent_pid`: ends when that process does."""
        self.journal = journal
        self.services = tuple(services)
        self.name = name
        self.stop_timeout = checked_stop_timeout(stop_timeout)
        self.stopped_by: int | None = None  # the signal that asked first
        self.left: list[int] = []  # runs that went on when it ended, and were left to the next daemon
        self.is_ready = threading.Event()  # it has said so
        self.is_hanging = False  # it ended, and a service did not
        self._supervisor = Supervisor() if supervisor is None else supervisor
        self._parent_pid = parent_pid
        self._stops = 0
        # Signals arrive here: unlike those of an Event, its `put` may interrupt itself.
        self._mail: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()
        self._started = self._beat_at = self._alive_at = 0.0
        self._state = "running"
        self._fault: WfengineError | None = None

    def stop(self) -> None:
        """Begin to stop; called again, stop at once. May be called from any thread and from a signal handler."""
        self._stops += 1
        self._mail.put((_STOP, None))

    def run(self, timeout: float | None = None) -> None:
        """Serve until stopped, or for `timeout` seconds. Raises the error of a service that could not go on."""
        clock = self.journal.clock
        self._started = clock.monotonic_seconds()
        until = None if timeout is None else self._started + timeout
        with stopping_on_signals(self), self._logging():
            started: list[Service] = []
            try:
                self._begin(started)
                while not self._stops and self._fault is None and (until is None or clock.monotonic_seconds() < until):
                    self._turn(until)
            except WfengineError as error:
                self._fault = self._fault or error
            finally:
                self._end(started)
        if self._fault is not None:
            raise self._fault

    # ---- serving

    def _begin(self, started: list[Service]) -> None:
        self._say("running")  # first: whoever is told of a run finds its daemon
        for service in self.services:
            service.start()
            started.append(service)
        _logger.info(
            "daemon '%s' serves %s: %s",
            self.name, self.journal.path, ", ".join(service.name for service in self.services) or "nothing",
            extra={"event": "daemon.started", "journal": str(self.journal.path), "daemon": self.name},
        )  # fmt: skip

    def _turn(self, until: float | None) -> None:
        """Wait a little, take notice of what happened meanwhile, and say how things are when that is due."""
        now = self.journal.clock.monotonic_seconds()
        self._take_notice(LOOK_SECONDS if until is None else max(0.0, min(LOOK_SECONDS, until - now)))
        self._fault = next((service.fault for service in self.services if service.fault is not None), None)
        if self._fault is not None:
            return
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            _logger.warning("the process that started this daemon is gone", extra={"event": "daemon.orphaned"})
            self.stop()
        now = self.journal.clock.monotonic_seconds()
        becomes_ready = not self.is_ready.is_set() and (self._all_ready() or now - self._started >= READY_SECONDS)
        if becomes_ready:
            self._supervisor.tell("READY=1", f"MAINPID={os.getpid()}")
        if becomes_ready or now >= self._beat_at:
            self._say("running")
        if becomes_ready:
            self.is_ready.set()
        self._sign_of_life(now)

    def _all_ready(self) -> bool:
        return all(getattr(service, "is_ready", True) for service in self.services)

    def _sign_of_life(self, now: float) -> None:
        """Tell the watchdog, twice as often as it wants: not from a thread of its own, which would live on when this hangs."""
        interval = self._supervisor.watchdog_seconds
        if interval is not None and now >= self._alive_at:
            self._alive_at = now + interval / 2 - LOOK_SECONDS
            self._supervisor.tell("WATCHDOG=1")

    def _say(self, state: str) -> None:
        """Write into the journal how the daemon is. Raises JournalError."""
        self._state = state
        report = self.report()
        self.journal.write(
            PutDaemon(self.journal.owner_id, self.name, state, report, at=self.journal.clock.now_text()), synced=False
        )
        self._beat_at = self.journal.clock.monotonic_seconds() + BEAT_SECONDS
        self._supervisor.tell(self._supervisor.status(_status_line(state, report)))

    def report(self) -> dict[str, object]:
        """Return how the daemon is, as JSON values."""
        clock = self.journal.clock
        return {
            "version": __version__,
            "uptime_seconds": round(clock.monotonic_seconds() - self._started, 1),
            "next_due": self.journal.read(lambda connection: find_next_due(connection, starts=True)),
            "services": {service.name: _report_of(service) for service in self.services},
        }

    # ---- what happens to runs

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Log what becomes of the runs of this process, on the daemon's own thread: a listener must not block."""

        def changed(event: Event) -> None:
            if event.task_run_id is None and self._mail.qsize() < LOGGED_CHANGES:
                self._mail.put((_CHANGE, event))

        add_listener(changed)
        try:
            yield
        finally:
            remove_listener(changed)

    def _take_notice(self, seconds: float) -> None:
        """Wait for mail, at most so long, and read all of it."""
        with contextlib.suppress(queue.Empty):
            kind, event = self._mail.get(timeout=seconds) if seconds > 0 else self._mail.get_nowait()
            while True:
                if kind == _CHANGE and event is not None:
                    self._log(event)
                kind, event = self._mail.get_nowait()

    def _log(self, event: Event) -> None:
        try:
            found = self.journal.read(lambda connection: names_of_run(connection, event.flow_run_id))
        except JournalError:
            return  # whoever writes next meets it, and says so
        if found is None:
            return  # pruned meanwhile
        names = found
        state = event.state_name or event.state.capitalize()
        _logger.log(
            _LEVELS.get(event.state, logging.INFO), "flow run %d '%s' of %s: %s", event.flow_run_id, names.run,
            names.deployment or names.flow, state,
            extra={
                "event": f"run.{state.lower()}", "flow_run_id": event.flow_run_id, "flow_run_name": names.run,
                "flow_name": names.flow, "deployment": names.deployment, "state": event.state,
            },
        )  # fmt: skip

    # ---- stopping

    def _end(self, started: list[Service]) -> None:
        """Stop the services that were started, and say the last word."""
        self._supervisor.tell("STOPPING=1")
        for service in started:
            service.stop_taking()
        with contextlib.suppress(JournalError):  # then nothing can be written: the fault says so
            self._say("stopping")
        running = sum(_number_running(_report_of(service)) for service in started)
        if running and self._fault is None:
            _logger.info(
                "stopping: up to %g s are left for what runs (%d)", self.stop_timeout, running,
                extra={"event": "daemon.stopping", "running": running},
            )  # fmt: skip
        self._stop_services(started)
        self.left = sorted({run_id for service in started for run_id in _left_by(service)})
        self._take_notice(0)
        with contextlib.suppress(JournalError):
            self._say("stopped")
        left = f"left to the next daemon: flow run {', '.join(map(str, self.left))}" if self.left else "nothing was left undone"
        if self._fault is None:
            level = logging.WARNING if self.left else logging.INFO
            _logger.log(level, "stopped; %s", left, extra={"event": "daemon.stopped", "left": self.left})

    def _stop_services(self, started: list[Service]) -> None:
        """Stop them one after the other, within one bound for all, on a thread: this one goes on to listen for signals."""
        clock = self.journal.clock
        allowed = 0.0 if self._stops >= 2 or self._fault is not None else self.stop_timeout
        until = clock.monotonic_seconds() + allowed
        ended = threading.Event()

        def stop_each() -> None:
            try:
                for service in started:
                    with _logged(service.name):
                        service.stop(max(0.0, until - clock.monotonic_seconds()))
            finally:
                ended.set()
                self._mail.put((_CHANGE, None))

        start_thread("wfengine-stop", stop_each)
        at_once = allowed == 0.0
        while not ended.is_set() and clock.monotonic_seconds() < until + LAST_SECONDS:
            self._take_notice(LOOK_SECONDS)
            self._sign_of_life(clock.monotonic_seconds())
            if self._stops >= 2 and not at_once:
                at_once, until = True, clock.monotonic_seconds()
                start_thread("wfengine-stop-now", lambda: _stop_now(started))
        self.is_hanging = not ended.is_set()


def checked_stop_timeout(seconds: object) -> float:
    """Return how long a daemon may take to stop, in seconds. Raises UsageError."""
    if isinstance(seconds, int | float) and 0 <= seconds <= MOST_STOP_SECONDS:
        return float(seconds)
    raise UsageError(f"The time to stop in is a number of seconds from 0 to {MOST_STOP_SECONDS:.0f}, not {seconds!r}.")


#: How loud a state of a run is in the log.
_LEVELS = {"FAILED": logging.ERROR, "CRASHED": logging.WARNING, "PAUSED": logging.WARNING}


def _stop_now(services: Sequence[Service]) -> None:
    for service in services:
        with _logged(service.name):
            service.stop(0.0)


@contextlib.contextmanager
def _logged(name: str) -> Iterator[None]:
    """Go on when a service fails to stop: the others are to stop too."""
    try:
        yield
    except Exception:
        _logger.exception("service '%s' did not stop in order; what it had under way is taken up by the next daemon", name)


def _report_of(service: Service) -> object:
    try:
        return service.report()
    except Exception as error:  # a report must not end what it reports of
        return {"error": f"{type(error).__name__}: {error}"}


def _number_running(report: object) -> int:
    """Return how many runs a service has, by its report: a number, or their ids."""
    found = report.get("running", 0) if isinstance(report, dict) else 0
    return len(found) if isinstance(found, list) else found if isinstance(found, int) else 0


def _left_by(service: Service) -> list[int]:
    """Return the runs that a stopped service left to another process."""
    left = getattr(service, "left", ())
    return [run_id for run_id in left if isinstance(run_id, int)]


def _status_line(state: str, report: dict[str, object]) -> str:
    services = report["services"]
    assert isinstance(services, dict)
    running = sum(map(_number_running, services.values()))
    due = report["next_due"]
    return f"{state}; {running} runs; next due {str(due)[:19] + 'Z' if due else 'never'}"


def stopping_on_signals(daemon: Daemon) -> contextlib.AbstractContextManager[None]:
    """Let SIGTERM, Ctrl-C and SIGHUP stop the daemon, when entered on the main thread."""

    def stop(number: int) -> None:
        daemon.stopped_by = daemon.stopped_by or number
        daemon.stop()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return handling(numbers, stop)
