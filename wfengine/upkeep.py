"""Upkeep: what a daemon does for the journal itself at intervals - delete old runs, make backups. Off unless configured.

When each was done last stands in the journal, so that a restart neither repeats nor forgets it; of several daemons one does
it. What could not be done is logged and tried again later: a full backup disk is no reason to stop serving.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.files import age_seconds, backup_journal, prune_runs
from wfengine_journal.backing_up import default_target
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.daemons import SetUpkeep, Upkeep, get_upkeep
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.location import make_private_folder
from wfengine_journal.tickets import WriteRefused
from wfengine_scheduler.services import ThreadedService

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.upkeep")

#: The longest sleep between two looks, in seconds: a machine that was suspended, or whose clock was set, is noticed by then.
LOOK_SECONDS = 60.0
#: How long after a failure it is tried again, in seconds, if the interval itself is not shorter.
AGAIN_SECONDS = 600.0
#: Intervals that are allowed, in seconds.
SHORTEST_SECONDS = 60.0
LONGEST_SECONDS = 366 * 86400.0
#: Backups that may be kept.
MOST_BACKUPS = 10_000


@dataclass(frozen=True, slots=True)
class Retention:
    """Which runs are deleted, and how often. `keep` is the age from which an ended run goes."""

    keep: str | timedelta
    every: str | timedelta = "1d"
    keep_runs: int = 0  # so many of the newest ended runs of each flow stay, however old
    keep_failed: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is deleted."""
        age_seconds(self.keep)
        _checked_interval("[retention] every", self.every)
        if self.keep_runs < 0:
            raise UsageError(f"[retention] keep_runs is a number of runs, not {self.keep_runs}.")


@dataclass(frozen=True, slots=True)
class Backups:
    """How often backups are made, where, and how many are kept. A copy beside the journal does not outlive its disk."""

    folder: str | Path
    every: str | timedelta = "1d"
    keep: int = 7

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is written."""
        _checked_interval("[backup] every", self.every)
        if not 1 <= self.keep <= MOST_BACKUPS:
            raise UsageError(f"[backup] keep is a number of backups from 1 to {MOST_BACKUPS}, not {self.keep}.")


def _checked_interval(what: str, every: str | timedelta) -> float:
    seconds = age_seconds(every)
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise UsageError(f"{what} is a time from 1 minute to 366 days, such as '1d' or '12h', not {every!r}.")
    return seconds


@dataclass(frozen=True, slots=True)
class _Job:
    kind: str
    every_seconds: float
    do: Callable[[], str]  # returns what was done, for people


class UpkeepService(ThreadedService):
    """Does retention and backups on a thread of its own. See `wfengine_scheduler.services.Service`."""

    name = "upkeep"

    def __init__(self, journal: Journal, *, retention: Retention | None = None, backups: Backups | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._jobs: list[_Job] = []
        if retention is not None:
            self._jobs.append(_Job("prune", age_seconds(retention.every), lambda: _prune(journal, retention)))
        if backups is not None:
            self._jobs.append(_Job("backup", age_seconds(backups.every), lambda: _backup(journal, backups)))
        self._last: dict[str, Upkeep] = {}

    @property
    def is_configured(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self._jobs)

    def start(self) -> None:
        """Begin, where there is anything to do.

        When stopped, a backup that is cut off leaves no file under a backup's name; pruning stops between two batches.
        """
        if self._jobs:
            super().start()

    def report(self) -> dict[str, object]:
        """See Service."""
        return {
            job.kind: {
                "every_seconds": job.every_seconds,
                "done_at": last.done_at,
                "result": last.result,
                "failed": last.failed or None,
            }
            for job in self._jobs
            for last in (self._last.get(job.kind, Upkeep()),)
        }

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(max(0.01, min(self.step(), LOOK_SECONDS)))

    def step(self) -> float:
        """Do what is due; return after how many seconds to look again. Raises JournalError where nothing can be written."""
        waits = [LOOK_SECONDS]
        for job in self._jobs:
            if self._stopping.is_set():
                break
            text, upkeep = self._read(job.kind)
            self._last[job.kind] = upkeep
            wait = self._seconds_left(job, upkeep)
            if wait > 0:
                waits.append(wait)
            elif not self._is_at_it_elsewhere(upkeep):
                self._claim_and_do(job, text, upkeep)
        return min(waits)

    def _read(self, kind: str) -> tuple[str | None, Upkeep]:
        return self._journal.read(lambda connection: get_upkeep(connection, kind))

    def _seconds_left(self, job: _Job, upkeep: Upkeep) -> float:
        """Return how long until something is due. A last time that lies more than an interval ahead was a wrong clock's."""
        now = self._journal.clock.wall_seconds()
        left = 0.0
        if upkeep.done_at is not None:
            left = seconds_from_text(upkeep.done_at) + job.every_seconds - now
        if upkeep.failed and upkeep.tried_at is not None:
            again = min(AGAIN_SECONDS, job.every_seconds)
            left = max(left, seconds_from_text(upkeep.tried_at) + again - now)
            return left if left <= 2 * again else 0.0
        return left if left <= 2 * job.every_seconds else 0.0

    def _is_at_it_elsewhere(self, upkeep: Upkeep) -> bool:
        owner_id = upkeep.owner_id
        return owner_id is not None and owner_id != self._journal.owner_id and self._journal.is_owner_alive(owner_id)

    def _claim_and_do(self, job: _Job, text: str | None, upkeep: Upkeep) -> None:
        began_at = text_from_seconds(self._journal.clock.wall_seconds())
        claim = replace(upkeep, owner_id=self._journal.owner_id, tried_at=began_at)
        try:
            self._journal.write(SetUpkeep(job.kind, text, claim), synced=True)
        except WriteRefused:
            return  # another daemon was quicker
        try:
            result = job.do()
        except (WfengineError, OSError) as error:
            self._journal.write(SetUpkeep(job.kind, claim.text, replace(claim, owner_id=None, failed=f"{error}")), synced=False)
            _logger.error(
                "%s failed and is tried again later: %s", job.kind, error, extra={"event": f"upkeep.{job.kind}.failed"}
            )
            return
        done = Upkeep(began_at, None, result)
        self._journal.write(SetUpkeep(job.kind, claim.text, done), synced=True)
        self._last[job.kind] = done
        _logger.info("%s: %s", job.kind, result, extra={"event": f"upkeep.{job.kind}"})


def _prune(journal: Journal, retention: Retention) -> str:
    pruned = prune_runs(
        older_than=retention.keep, keep=retention.keep_runs, keep_failed=retention.keep_failed, journal=journal.path
    )
    return f"{pruned.runs} runs deleted"


def _backup(journal: Journal, backups: Backups) -> str:
    folder = Path(backups.folder).expanduser()
    if not folder.is_absolute():
        folder = journal.path.parent / folder
    try:
        make_private_folder(folder)
    except OSError as error:
        raise UsageError(
            f"The folder of backups, {folder}, cannot be made: {error.strerror}. Make it, or name another one: [backup] folder"
        ) from error
    name = default_target(journal.path, journal.clock).name
    made = backup_journal(folder / name, journal=journal.path, overwrite=True)
    for old in _backups_in(folder, journal.path.name)[: -backups.keep]:
        old.unlink(missing_ok=True)
    return f"{made.target} ({made.bytes} bytes)"


def _backups_in(folder: Path, journal_name: str) -> list[Path]:
    """Return the backups of a journal in a folder, the oldest first: their names begin alike and hold the time."""
    return sorted(folder.glob(f"{journal_name}.????-??-??T??????Z.backup"))


__all__ = ["Backups", "Retention", "UpkeepService"]
