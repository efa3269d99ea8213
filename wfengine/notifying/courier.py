"""`Courier`: sends what stands in the outbox of one journal, message by message, and records what came of each.

A daemon has one that goes on for ever. Any other process has one while there is something to send: it begins with the first
notification, and ends with the process, which waits a little for it. Of several processes one sends; the others leave it to
that one, and take over when it is gone. Should two of them look at the same time, the journal refuses the second.

Several targets are sent to at a time, and to one of them one message: one that does not answer delays only itself.

A message is tried in this order: note the try, send, record the outcome. Whoever dies between the last two leaves a try with no
outcome; the next one makes it again, under the same id, and the message says so.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from wfengine.notifying.delivery import Delivery, Verdict, begin_delivery, is_installed
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.errors import ForkedProcessError, InternalError, JournalError, WfengineError
from wfengine_journal.notifications import (
    MESSAGE_LIMIT,
    BeginSending,
    NotificationRow,
    RecordSending,
    TargetRow,
    has_pending,
    list_begun,
    list_pending,
    list_targets,
)
from wfengine_journal.threads import start_thread
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import shown_text
from wfengine_scheduler.services import ThreadedService

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Seconds before the second try, the third ...; the last one holds for all that follow.
RETRY_SECONDS = (2.0, 8.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
#: Tries of one message: the last one is some five hours after the first.
TRIES = 10
#: Characters of a reason that are recorded.
REASON_CHARACTERS = 1000
#: Targets that are sent to at a time: each message has a process of its own.
LANES = 8
#: How long it sleeps at the most, in seconds; how long between two looks, where each commit of anybody wakes it.
SLEEP_SECONDS = 30.0
PAUSE_SECONDS = 0.01
#: How often a process that is not the one that sends looks whether it may, in seconds.
STANDBY_SECONDS = 0.5
#: How long a process that ends goes on sending, in seconds, and how often it looks meanwhile whether it may.
EXIT_SECONDS = 10.0
EXIT_LOOK_SECONDS = 0.05
#: 'off': this process sends nothing and leaves it to others. Nothing (default): it sends.
ENVIRONMENT_VARIABLE = "WFENGINE_NOTIFICATIONS"

_logger = logging.getLogger("wfengine.notifications")


class _Batch(NamedTuple):
    """Notifications that one message carries, and when it is due."""

    rows: list[NotificationRow]
    due: float


class _Flight(NamedTuple):
    """A message on its way."""

    delivery: Delivery
    rows: list[NotificationRow]
    may_be_repeat: bool


class Courier(ThreadedService):
    """Sends the notifications of one journal. See `wfengine_scheduler.services.Service`."""

    name = "notifications"

    def __init__(self, journal: Journal, *, stays: bool = False) -> None:
        """`stays`: it goes on while nothing waits, as that of a daemon does."""
        super().__init__()
        self.journal = self._journal = journal
        self._stays = stays
        self._lock = threading.Lock()
        self._leads = False
        self._flights: dict[str, _Flight] = {}  # by the name of the target; of whoever executes the loop
        self._is_handed_over = False  # to the thread that ends the process
        self._next_due: float | None = None
        self._warned = False
        self.sent = 0
        self.failed = 0

    # ---- as the daemon sees it

    def start(self) -> None:
        """Begin to look, on a thread of its own, unless it does already; look at once."""
        with self._lock:
            self._wake.set()
            if self._thread is None and not self._stopping.is_set() and self._may_send():
                self._thread = start_thread("wfengine-notifications", self._run)

    def stop(self, timeout_seconds: float) -> None:
        """Let end the message that is being sent, for so long. One that is cut off is sent again by whoever is next."""
        super().stop(timeout_seconds)
        thread = self._thread
        if (thread is None or not thread.is_alive()) and not self._flights:
            with contextlib.suppress(JournalError, ForkedProcessError, OSError):
                self._leave()
        with _lock:
            if self._stays and _couriers.get(_key(self.journal)) is self:
                del _couriers[_key(self.journal)]

    def report(self) -> dict[str, object]:
        """Return how it is."""
        return {"leads": self._leads, "sent": self.sent, "failed": self.failed, "installed": is_installed()}

    # ---- the loop

    def _run(self) -> None:
        try:
            while not self._is_handed_over and (self._flights or not self._stopping.is_set()):
                self._wake.clear()
                if self._stopping.is_set():
                    if not self._record_ended():
                        self._wake.wait(SLEEP_SECONDS)
                    continue
                if not self._lead():
                    if not self._stays and not self._has_work():
                        break
                    self._wake.wait(STANDBY_SECONDS)
                    continue
                mark = self._journal.changes.mark()
                if self._record_ended() + self._begin_due():
                    continue
                if not self._stays and self._next_due is None and not self._flights:
                    break
                self._sleep(mark)
        except (JournalError, ForkedProcessError, InternalError) as error:
            if not self._stopping.is_set():
                self._fault = error
        except Exception as error:
            self._fault = InternalError(f"Notifications cannot be sent: {type(error).__name__}: {error}. Please report this.")
            self._fault.__cause__ = error
        finally:
            with self._lock:
                self._thread = None
                if not self._stays and not self._is_handed_over:
                    with contextlib.suppress(JournalError, ForkedProcessError, OSError):
                        self._leave()
                    if self._wake.is_set() and self._fault is None and not self._stopping.is_set():
                        self._thread = start_thread("wfengine-notifications", self._run)

    def _sleep(self, mark: object) -> None:
        """Sleep until something is due or was asked for; a daemon, also until anybody commits."""
        now = self._journal.clock.wall_seconds()
        seconds = SLEEP_SECONDS if self._next_due is None else min(max(self._next_due - now, 0.0), SLEEP_SECONDS)
        if not self._stays:
            self._wake.wait(seconds)
            return
        forget = self._journal.changes.call(mark, self._wake.set)  # type: ignore[arg-type]  # a mark of these changes
        self._wake.wait(seconds)
        forget()
        self._stopping.wait(PAUSE_SECONDS)

    def _may_send(self) -> bool:
        if os.environ.get(ENVIRONMENT_VARIABLE) == "off" and not self._stays:
            return False
        if is_installed():
            return True
        if not self._warned and (not self._stays or self._has_work()):
            self._warned = True
            _logger.warning(
                "Notifications wait in the outbox: this process cannot send them without apprise. Install it: pip install "
                "'wfengine[notify]', then: wfengine notifications send"
            )
        return False

    def _lead(self) -> bool:
        self._leads = self._leads or self._journal.lead_notifications()
        return self._leads

    def _leave(self) -> None:
        if self._leads:
            self._leads = False
            self._journal.leave_notifications()

    def _has_work(self) -> bool:
        return self._journal.records.read(has_pending)

    def leave_to_parent(self) -> None:
        """Let go of what is on its way, in a forked child: it is the parent's."""
        for flight in self._flights.values():
            flight.delivery.leave_to_parent()

    # ---- at the end of a process

    def finish(self, seconds: float) -> None:
        """Send what waits, whatever is left of a digest's time; leave the rest, and what another process sends, in the outbox.

        On the calling thread: when a process ends, no thread can be started any more.
        """
        clock = self._journal.clock
        until = clock.monotonic_seconds() + seconds
        self._is_handed_over = True
        self.stop(seconds)
        if self._thread is not None or not self._may_send():
            return
        waiting = threading.Event()
        try:
            while (left := until - clock.monotonic_seconds()) > 0 and self._has_work():
                seconds = EXIT_LOOK_SECONDS
                if self._lead():
                    if self._record_ended() + self._begin_due(gathers=False):
                        continue
                    if not self._flights:
                        seconds = (self._next_due or 0.0) - clock.wall_seconds()
                        if self._next_due is None or seconds > left:
                            return
                waiting.wait(max(seconds, 0.0))
        finally:
            self._leave()

    # ---- sending

    def step(self) -> bool:
        """Begin what is due, on the calling thread, and wait until one message was sent, or not; tell whether there was one.

        Only for who leads, or is alone.
        """
        begun = self._begin_due()
        while not self._record_ended():
            if not self._flights:
                return begun > 0
            self._wake.wait(SLEEP_SECONDS)
            self._wake.clear()
        return True

    def _begin_due(self, *, gathers: bool = True) -> int:
        """Begin to send what is due to targets that nothing is on its way to; return to how many."""
        targets = {row.name: row for row in self._journal.records.read(list_targets)}
        now = self._journal.clock.wall_seconds()
        self._next_due = None
        begun = 0
        for batch in self._batches(targets, now, gathers):
            name = batch.rows[0].target
            if name in self._flights or len(self._flights) >= LANES:
                continue  # looked at again when a message has arrived
            if batch.due <= now:
                self._begin(targets.get(name), batch.rows)
                begun += 1
                if name not in self._flights:
                    return begun  # its outcome is known already, and what else is due may be another
            else:
                self._next_due = batch.due if self._next_due is None else min(self._next_due, batch.due)
        return begun

    def _record_ended(self) -> int:
        """Record what came of the messages whose processes have ended; return of how many."""
        ended = [(name, flight) for name, flight in self._flights.items() if flight.delivery.is_over()]
        for name, flight in ended:
            del self._flights[name]
            self._record(flight.rows, flight.delivery.wait(), flight.may_be_repeat)
        return len(ended)

    def _batches(self, targets: dict[str, TargetRow], now: float, gathers: bool) -> list[_Batch]:
        """Return the messages that are to be sent, the oldest first."""
        groups: dict[tuple[str, str | None], list[NotificationRow]] = {}
        for row in self._journal.records.read(list_pending):
            groups.setdefault((row.target, row.message_id), []).append(row)
        found = []
        for (name, message_id), rows in groups.items():
            target = targets.get(name)
            if target is None:
                found.append(_Batch(rows, 0.0))
            elif message_id is not None:
                again = max((_seconds(row.next_attempt_at) for row in rows if row.next_attempt_at), default=0.0)
                found.append(_Batch(rows, max(again, _seconds(target.held_to))))
            else:
                found.append(self._new_message(target, rows, now, gathers))
        return found

    def _new_message(self, target: TargetRow, rows: Sequence[NotificationRow], now: float, gathers: bool) -> _Batch:
        """Return what goes out together of the notifications that no message carries yet, and when."""
        due = _seconds(target.held_to)
        if target.digest_seconds and gathers:
            due = max(due, _seconds(rows[0].created_at) + target.digest_seconds)
        if target.rate_count is not None and target.rate_seconds is not None:
            since = text_from_seconds(max(now - target.rate_seconds, 0.0))
            begun = self._journal.records.read(lambda connection: list_begun(connection, target.name, since))
            if len(begun) >= target.rate_count:
                due = max(due, _seconds(begun[-target.rate_count]) + target.rate_seconds)
            is_last = len(begun) + 1 >= target.rate_count  # what waits for the next place may as well go with this one
        else:
            is_last = False
        together = bool(target.digest_seconds) or is_last
        return _Batch(list(rows[:MESSAGE_LIMIT] if together else rows[:1]), due)

    def _begin(self, target: TargetRow | None, rows: Sequence[NotificationRow]) -> None:
        """Note that a message is tried, and begin to send it."""
        message_id = rows[0].message_id or f"{self._journal.id[:12]}-{rows[0].id}"
        may_be_repeat = any(row.unsure for row in rows)
        begin = BeginSending(rows, message_id, at=self._journal.clock.now_text())
        try:
            self._journal.write(begin, synced=True)
        except WriteRefused:
            return  # somebody else was quicker
        begun = begin.begun()
        if target is None:
            gone = Verdict(False, f"there is no notification target '{rows[0].target}' any more")
            self._record(begun, gone, may_be_repeat)
            return
        found = begin_delivery(self._journal, target, begun, message_id, may_be_repeat=may_be_repeat)
        if isinstance(found, Verdict):
            self._record(begun, found, may_be_repeat)
            return
        self._flights[target.name] = _Flight(found, begun, may_be_repeat)
        # Where the process ends no thread can be started: `finish` looks again and again.
        with contextlib.suppress(RuntimeError):
            start_thread("wfengine-notification", lambda: self._tell_of_end(found))

    def _tell_of_end(self, delivery: Delivery) -> None:
        delivery.rest()
        self._wake.set()

    def _record(self, rows: Sequence[NotificationRow], verdict: Verdict, may_be_repeat: bool) -> None:
        with contextlib.suppress(WriteRefused):
            self._journal.write(self._outcome(rows, verdict, may_be_repeat), synced=True)

    def _outcome(self, rows: Sequence[NotificationRow], verdict: Verdict, was_unsure: bool) -> RecordSending:
        at = self._journal.clock.now_text()
        if verdict.sent:
            self.sent += 1
            return RecordSending(rows, "sent", at=at)
        reason = shown_text(verdict.reason or "it was not sent")[:REASON_CHARACTERS]
        unsure = verdict.unsure or was_unsure
        attempts = max(row.attempts for row in rows)
        named = f"Message {rows[0].message_id} to notification target '{rows[0].target}'"
        now = self._journal.clock.wall_seconds()
        held_to = None if verdict.retry_after is None else text_from_seconds(now + verdict.retry_after)
        if not verdict.again or attempts >= TRIES:
            self.failed += 1
            _logger.error("%s was not sent and is given up: %s. Try again: wfengine notifications retry", named, reason)
            return RecordSending(rows, "failed", at=at, reason=reason, unsure=unsure, held_to=held_to)
        delay = max(RETRY_SECONDS[min(attempts, len(RETRY_SECONDS)) - 1], verdict.retry_after or 0.0)
        _logger.warning("%s was not sent and is tried again in %g s: %s", named, delay, reason)
        return RecordSending(
            rows,
            "pending",
            at=at,
            reason=reason,
            unsure=unsure,
            next_attempt_at=text_from_seconds(now + delay),
            held_to=held_to,
        )


def _seconds(text: str | None) -> float:
    try:
        return 0.0 if text is None else seconds_from_text(text)
    except ValueError:
        return 0.0


# ------------------------------------------------------------------------------------------- the one of this process

_couriers: dict[tuple[int, str], Courier] = {}
_lock = threading.Lock()


def wake_courier(journal: Journal) -> None:
    """Have what stands in the outbox sent, by this process unless another one does."""
    with _lock:
        found = _couriers.get(_key(journal))
        if found is None or found.journal is not journal:
            found = _couriers[_key(journal)] = Courier(journal)
    found.start()


def daemon_courier(journal: Journal) -> Courier:
    """Return the courier of a daemon, which is this process's from now on."""
    with _lock:
        found = _couriers[_key(journal)] = Courier(journal, stays=True)
    return found


def _key(journal: Journal) -> tuple[int, str]:
    return os.getpid(), str(journal.path)


def _finish_all() -> None:
    for (pid, _), courier in list(_couriers.items()):
        if pid == os.getpid():
            with contextlib.suppress(WfengineError, OSError):
                courier.finish(EXIT_SECONDS)


def _after_fork_in_child() -> None:
    global _lock  # a thread of the parent may have held it
    _lock = threading.Lock()
    for courier in _couriers.values():
        courier.leave_to_parent()
    _couriers.clear()


atexit.register(_finish_all)  # after the journal's own, so before it: the last is called first
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
