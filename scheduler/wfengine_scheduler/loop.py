"""The scheduler: turns due instants into SCHEDULED runs, and sleeps until the next one is due.

It needs only the journal, and is told nothing: a deployment that another process applies wakes it as any commit does. Any
number of them may work on one file. Instants are those of the wall clock, which may jump; so it looks at that clock at
least every second, whatever it waits for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from wfengine_journal.changes import Mark
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.errors import ScheduleError
from wfengine_journal.names import new_run_name
from wfengine_journal.store import Journal
from wfengine_journal.ticks import DecideTicks, Decision, OpenRun, ScheduleRow, find_next_due, list_due, list_open_runs_of
from wfengine_scheduler.services import ThreadedService
from wfengine_scheduler.ticks import WAITING_RUNS, decide, text_of

_logger = logging.getLogger("wfengine.scheduler")

#: Schedules that are decided in one transaction; other processes write between two of them.
SCHEDULES_AT_ONCE = 500
#: How long it sleeps at the most before it looks at the clock, in seconds: a clock that was set, or a machine that slept,
#: is noticed by then. A look costs some microseconds.
SLEEP_SECONDS = 1.0
#: How long it rests after a look that a commit woke it for, in seconds: a busy journal has thousands of them a second.
REST_SECONDS = 0.05
#: Times a step looks again because others were quicker, before it leaves the rest to the next step.
LOOKS = 1000


class Scheduler(ThreadedService):
    """A scheduler of one journal: all its deployments, or some. `launch` is told each run that it started, after the commit."""

    name = "scheduler"

    def __init__(
        self, journal: Journal, *, deployment_ids: Collection[int] | None = None, launch: Callable[[int], object] | None = None
    ) -> None:
        super().__init__()
        self.journal = journal
        self.deployment_ids = deployment_ids
        self.is_ready = False  # it has decided once what was due
        self._launch = launch
        self._unreadable: dict[int, tuple[object, ...]] = {}  # by id: what the schedule said when it could not be read
        self._ticks = self._runs = 0
        self._next_due: float | None = None
        self._late_seconds = 0.0  # of the tick that was decided latest, of those that were not caught up

    # ---- a step

    def step(self) -> float | None:
        """Decide all that is due now; return when the next is due, in seconds of the wall clock (None: nothing is).

        Each decision is committed before this returns. Raises JournalError.
        """
        for _ in range(LOOKS):
            now = self.journal.clock.wall_seconds()
            due = self._due(now)
            if not due or self._stopping.is_set():
                break
            self._decide(due, now)
        following = self.journal.read(lambda connection: find_next_due(connection, self.deployment_ids))
        self._next_due = None if following is None else seconds_from_text(str(following))
        self.is_ready = True
        return self._next_due

    def _due(self, now: float) -> list[ScheduleRow]:
        at = text_of(datetime.fromtimestamp(now, UTC))
        limit = SCHEDULES_AT_ONCE + len(self._unreadable)
        found: list[ScheduleRow] = []
        self.journal.read(lambda connection: found.extend(list_due(connection, at, limit, self.deployment_ids)))
        return [schedule for schedule in found if self._unreadable.get(schedule.id) != _rule_columns(schedule)]

    def _decide(self, due: Sequence[ScheduleRow], now: float) -> None:
        instant = datetime.fromtimestamp(now, UTC)
        decisions = [made for schedule in due if (made := self._decision(schedule, instant)) is not None]
        if not decisions:
            return
        self.journal.write(DecideTicks(decisions, at=text_of(instant)), synced=True)
        for decision in decisions:
            if not decision.is_written:
                continue
            self._note(decision, now)
            for run_id in decision.started:
                if self._launch is not None:
                    self._launch(run_id)

    def _decision(self, schedule: ScheduleRow, now: datetime) -> Decision | None:
        try:
            return decide(schedule, now, lambda: self._open_runs(schedule), self._new_name)
        except ScheduleError as error:
            self._unreadable[schedule.id] = _rule_columns(schedule)
            _logger.error(
                "Schedule %d of deployment '%s' cannot be read, and starts nothing before it is changed: %s",
                schedule.id, schedule.deployment, error,
            )  # fmt: skip
            return None

    def _open_runs(self, schedule: ScheduleRow) -> list[OpenRun]:
        found: list[OpenRun] = []
        self.journal.read(lambda connection: found.extend(list_open_runs_of(connection, schedule, WAITING_RUNS)))
        return found

    def _new_name(self) -> str:
        return new_run_name(self.journal.records.is_run_name_taken)

    def _note(self, decision: Decision, now: float) -> None:
        self._ticks += len(decision.ticks)
        self._runs += len(decision.started)
        for tick in decision.ticks:
            if tick.outcome == "started" and tick.reason is None:
                due = decision.schedule.due_at if decision.schedule.next_at == tick.nominal_at else None
                self._late_seconds = max(self._late_seconds, now - seconds_from_text(due)) if due else self._late_seconds
            level = logging.DEBUG if tick.outcome == "started" else logging.INFO
            _logger.log(
                level, "deployment '%s', due at %s: %s%s", decision.schedule.deployment, tick.nominal_at, tick.outcome,
                "" if tick.reason is None else f": {tick.reason}",
                extra={
                    "event": f"tick.{tick.outcome}", "deployment": decision.schedule.deployment, "nominal_at": tick.nominal_at,
                },
            )  # fmt: skip

    # ---- a part of the daemon

    def report(self) -> dict[str, object]:
        """Return how it is, as JSON values. `late_seconds`: of the latest tick that was in time."""
        return {
            "ticks": self._ticks,
            "runs_started": self._runs,
            "next_due": None if self._next_due is None else text_of(datetime.fromtimestamp(self._next_due, UTC)),
            "late_seconds": round(self._late_seconds, 6),
            "unreadable_schedules": sorted(self._unreadable),
        }

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            mark = self.journal.changes.mark()
            due = self.step()
            if self._stopping.is_set():
                return
            seconds = SLEEP_SECONDS if due is None else min(SLEEP_SECONDS, due - self.journal.clock.wall_seconds())
            self._sleep(max(seconds, REST_SECONDS) if self._unreadable else seconds, mark)

    def _sleep(self, seconds: float, mark: Mark) -> None:
        """Sleep so long, or until something is committed: not at once then, a schedule can wait for as long as that."""
        if seconds <= 0:
            return
        rest = min(seconds, REST_SECONDS)
        self._stopping.wait(rest)
        if seconds > rest:
            forget = self.journal.changes.call(mark, self._wake.set)
            self._wake.wait(seconds - rest)
            forget()


def _rule_columns(schedule: ScheduleRow) -> tuple[object, ...]:
    """Return what a schedule's rule is made of."""
    return (
        schedule.kind, schedule.rule, schedule.timezone, schedule.anchor_at, schedule.day_or, schedule.starts_at,
        schedule.ends_at,
    )  # fmt: skip
