"""Counts of the calls of large runs, kept for as long as nothing is committed to the file.

Who looks at a run of very many calls looks at several parts of it, and counting them all takes most of the time of each. What
is kept is never older than the file: a count belongs to the state of the file that it was read of.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from wfengine_journal.call_counts import Quantiles, Stretch, count_calls, task_quantiles
from wfengine_journal.clock import SystemClock
from wfengine_journal.rows import TaskGroup

#: Calls of a run from which on its counts are kept, and runs that are kept.
WORTH = 5_000
RUNS = 16
#: Seconds for which a file has to have been left alone: a second commit may leave it with the very time of the first one.
SETTLED_SECONDS = 3.0

#: By file: its number on the disk, when it was written last, in nanoseconds, and its size.
Version = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """The calls of a run by task, how long they took, and when they took place, by stretches of their ids."""

    groups: list[TaskGroup]
    count: int
    quantiles: dict[tuple[str, str], Quantiles]
    stretches: list[Stretch]


class KeptCounts:
    """Counts by run. Its method may be called from any thread."""

    def __init__(self, version: Callable[[], Version]) -> None:
        self._version = version
        self._clock = SystemClock()
        self._lock = Lock()
        self._kept: OrderedDict[int, tuple[Version, Counts]] = OrderedDict()

    def of(self, connection: sqlite3.Connection, run_id: int) -> Counts:
        """Return the counts of a run, as the file has them now."""
        version = self._version()  # before anything is read: what is committed meanwhile makes it another one
        with self._lock:
            kept = self._kept.get(run_id)
            if kept is not None and kept[0] == version:
                self._kept.move_to_end(run_id)
                return kept[1]
        groups, stretches = count_calls(connection, run_id)
        counts = Counts(groups, sum(group.count for group in groups), task_quantiles(connection, run_id), stretches)
        if counts.count >= WORTH and self._is_settled(version):
            with self._lock:
                self._kept[run_id] = (version, counts)
                self._kept.move_to_end(run_id)
                while len(self._kept) > RUNS:
                    self._kept.popitem(last=False)
        return counts

    def _is_settled(self, version: Version) -> bool:
        written_ns = max(written for _, written, _ in version)
        return self._clock.wall_seconds() - written_ns / 1e9 > SETTLED_SECONDS
