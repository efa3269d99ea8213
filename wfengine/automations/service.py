"""`Automations`: the part of the daemon that looks at events, finds which automations they set off, and does their actions.

It is woken by the commits of anybody; nothing is polled. Of several processes that serve one journal one does the work, and the
next one takes over the moment that one is gone. Should two of them look at the same time, the journal refuses the second.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import TYPE_CHECKING

from wfengine.automations.definitions import CHAIN_LIMIT, automation_of
from wfengine.automations.evaluation import Met, Mind, feed, look, new_mind, next_look
from wfengine.automations.happenings import Happening, happening
from wfengine.automations.performing import Performer
from wfengine_journal.automations import (
    AdvanceAutomation,
    AutomationRow,
    FiringRow,
    NewFiring,
    count_recent_firings,
    find_firing_depth,
    find_next_attempt,
    list_active,
    list_pending,
)
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.errors import ForkedProcessError, JournalError, UsageError, WfengineError
from wfengine_journal.events import last_event_id, list_events_after
from wfengine_journal.threads import start_thread
from wfengine_journal.tickets import WriteRefused
from wfengine_scheduler.services import ThreadedService, unforeseen

if TYPE_CHECKING:
    from wfengine.automations.definitions import Automation
    from wfengine_journal.store import Journal

#: Events that one look reads, and events without consequence after which an automation's place is written all the same.
BATCH_EVENTS = 500
#: Firings that one turn does.
BATCH_FIRINGS = 1000
#: How long it sleeps at the most, in seconds; how long between two looks, since each commit of anybody wakes it.
SLEEP_SECONDS = 30.0
PAUSE_SECONDS = 0.01
#: How often a process that is not the one that works looks whether it may, in seconds.
STANDBY_SECONDS = 0.5
#: Webhooks and programs at a time.
WORKERS = 4
#: What is ended when the daemon stops has so long to go, in seconds.
LAST_SECONDS = 5.0
#: A state change of one run sets off an automation so often in a minute; beyond that it counts as a loop.
RESOURCE_LIMIT = 100
RESOURCE_SECONDS = 60.0

_logger = logging.getLogger("wfengine.automations")


class Automations(ThreadedService):
    """Serves the automations of one journal. See `wfengine_scheduler.services.Service`."""

    name = "automations"

    def __init__(self, journal: Journal, *, workers: int = WORKERS) -> None:
        super().__init__()
        self._journal = journal
        self._ending = threading.Event()  # what runs is ended
        self._most_workers = workers
        self._busy: set[int] = set()  # firings that a worker has
        self._lock = threading.Lock()
        self._leads = False
        self._seen: dict[int, tuple[AutomationRow, int]] = {}  # up to which event without consequence, while the row is that
        self._read: dict[str, Automation | None] = {}  # by definition; None: it cannot be read
        self._performer = Performer(journal, self._ending)
        self.fired = 0
        self.done = 0

    # ---- as the daemon sees it

    def stop(self, timeout_seconds: float) -> None:
        """Let end what is under way, for so long; a program that still runs then is ended, and tried again by another one."""
        until = self._journal.clock.monotonic_seconds() + timeout_seconds
        super().stop(timeout_seconds)
        while self._busy and self._journal.clock.monotonic_seconds() < until + LAST_SECONDS and self._fault is None:
            self._wake.clear()
            if self._journal.clock.monotonic_seconds() >= until:
                self._ending.set()
            if self._busy:
                self._wake.wait(0.05)
        if self._leads:
            self._leads = False
            with contextlib.suppress(JournalError, ForkedProcessError, OSError):
                self._journal.leave_automations()

    def report(self) -> dict[str, object]:
        """Return how it is."""
        with self._lock:
            busy = len(self._busy)
        return {"leads": self._leads, "fired": self.fired, "actions": self.done, "busy": busy}

    # ---- the loop

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self._leads = self._leads or self._journal.lead_automations()
            if not self._leads:
                self._wake.wait(STANDBY_SECONDS)
                continue
            mark = self._journal.changes.mark()
            if self._turn(inline=False):
                continue
            forget = self._journal.changes.call(mark, self._wake.set)
            self._wake.wait(self._sleep_seconds())
            forget()
            self._stopping.wait(PAUSE_SECONDS)

    def _sleep_seconds(self) -> float:
        now = self._journal.clock.wall_seconds()
        dues = [row.due_at for row in list_active(self._journal.records)]
        with self._lock:
            is_busy = bool(self._busy)
        if not is_busy:
            dues.append(find_next_attempt(self._journal.records))
        waits = [_seconds(due) - now for due in dues if due is not None]
        return min(SLEEP_SECONDS, max(min(waits, default=SLEEP_SECONDS), 0.0))

    def step(self) -> bool:
        """Look once, and do at once whatever is to be done; tell whether there was anything. For tests, on any thread."""
        return self._turn(inline=True)

    def _turn(self, *, inline: bool) -> bool:
        found = False
        for row in list_active(self._journal.records):
            if self._stopping.is_set():
                return False
            found = self._evaluate(row) or found
        return self._perform(inline=inline) or found

    # ---- looking

    def _evaluate(self, row: AutomationRow) -> bool:
        """Let an automation look at what happened since; tell whether there may be more."""
        automation = self._automation(row)
        if automation is None:
            return False
        now = self._journal.clock.wall_seconds()  # before the events are read: what occurred before it is among them
        known, place = self._seen.get(row.id, (row, row.seen_to))
        seen_to = place if known == row else row.seen_to
        is_due = row.due_at is not None and _seconds(row.due_at) <= now
        if last_event_id(self._journal.records) <= seen_to and not is_due:
            return False
        events = list_events_after(self._journal.records, seen_to, BATCH_EVENTS)
        is_all = len(events) < BATCH_EVENTS
        mind = _mind(row, automation, now)
        met: list[tuple[Met, Happening | None]] = []
        for event in map(happening, events):
            met += [(each, each.event) for each in feed(automation.trigger, mind, event, now)]
        if is_all:
            met += [(each, each.event) for each in look(automation.trigger, mind, now)]
        seen_to = events[-1].id if events else seen_to
        due = next_look(automation.trigger, mind)
        due_at = None if due is None else text_from_seconds(due)
        state = json.dumps(mind, ensure_ascii=False)
        if not met and state == row.state and due_at == row.due_at and seen_to - row.seen_to < BATCH_EVENTS:
            self._seen[row.id] = (row, seen_to)
            return not is_all
        firings = [self._firing(row, automation, each) for each, _ in met]
        change = AdvanceAutomation(
            row, seen_to=seen_to, state=state, due_at=due_at, firings=firings, at=self._journal.clock.now_text()
        )
        try:
            self._journal.write(change, synced=bool(firings))
        except WriteRefused:
            return True  # somebody else was quicker, or it was changed
        self.fired += len(firings)
        return True

    def _automation(self, row: AutomationRow) -> Automation | None:
        """Return what a row says, read once; None where it cannot be read, which is said once."""
        if row.definition not in self._read:
            if len(self._read) > BATCH_EVENTS:
                self._read.clear()
            try:
                self._read[row.definition] = automation_of(row)
            except UsageError as error:
                self._read[row.definition] = None
                _logger.error("Automation '%s' is left out: %s", row.name, error)
        return self._read[row.definition]

    # ---- firing

    def _firing(self, row: AutomationRow, automation: Automation, met: Met) -> NewFiring:
        event = met.event
        depth = 1 + max((find_firing_depth(self._journal.records, key) for key in (event.keys if event else ())), default=0)
        refusal = self._refusal(row, automation, event, depth)
        context = {
            **met.more,
            "event": None if event is None else event.as_json(),
            "depth": depth,
            "actions": [each.as_json() for each in automation.actions],
        }
        if refusal is not None:
            _logger.error("Automation '%s' fired and nothing is done: %s", row.name, refusal)
        return NewFiring(None if event is None else event.id, json.dumps(context, ensure_ascii=False), refusal)

    def _refusal(self, row: AutomationRow, automation: Automation, event: Happening | None, depth: int) -> str | None:
        """Return why a firing counts as a part of a loop; None: it does not."""
        limit = automation.chain_limit or CHAIN_LIMIT
        if depth > limit:
            return (
                f"this is the {depth}th firing in a row that another one's action led to, and the chain_limit is {limit}. "
                "Let the trigger leave out what the actions bring about, or raise the chain_limit"
            )
        if event is not None and event.resource.startswith("wfengine."):
            since = text_from_seconds(self._journal.clock.wall_seconds() - RESOURCE_SECONDS)
            count = count_recent_firings(self._journal.records, row.id, event.resource, since, 2 * RESOURCE_LIMIT)
            if count >= RESOURCE_LIMIT:
                return (
                    f"it fired {count} times for {event.resource} in {RESOURCE_SECONDS:g} s, which looks like a loop: its "
                    "actions change the state that sets it off"
                )
        return None

    # ---- doing

    def _perform(self, *, inline: bool) -> bool:
        """Do what is pending, or hand it to a worker where it may take long; tell whether anything was done."""
        done = self.done
        for firing in list_pending(self._journal.records, self._journal.clock.now_text(), BATCH_FIRINGS):
            if self._stopping.is_set():
                return False
            if firing.id not in self._busy:
                self._go_on(firing, inline=inline)
        return self.done > done

    def _go_on(self, firing: FiringRow, *, inline: bool) -> None:
        """Do action after action of a firing, until it has ended, has to wait, or a worker takes it."""
        rest: FiringRow | None = firing
        while rest is not None and not self._stopping.is_set():
            if not inline and self._performer.is_outside(rest):
                self._hand_over(rest)
                return
            rest = self._performer.perform(rest)
            self.done += 1

    def _hand_over(self, firing: FiringRow) -> None:
        """Let a thread do a firing; while all are taken it stays pending, and whoever is done wakes us."""
        with self._lock:
            if len(self._busy) >= self._most_workers:
                return
            self._busy.add(firing.id)
        start_thread("wfengine-action", lambda: self._do(firing))

    def _do(self, firing: FiringRow) -> None:
        """Do a firing on a worker's thread, to its end."""
        try:
            self._go_on(firing, inline=True)
        except WfengineError as error:
            self._fault = self._fault or error
        except Exception as error:
            self._fault = unforeseen(self.name, error)
        finally:
            with self._lock:
                self._busy.discard(firing.id)
            self._wake.set()


def _mind(row: AutomationRow, automation: Automation, now: float) -> Mind:
    """Return what an automation keeps in mind; as at first, where the record holds nothing that can be read."""
    try:
        mind = json.loads(row.state)
    except (ValueError, RecursionError):
        mind = None
    return mind if isinstance(mind, dict) else new_mind(automation.trigger, now)


def _seconds(text: str) -> float:
    try:
        return seconds_from_text(text)
    except ValueError:
        return 0.0
