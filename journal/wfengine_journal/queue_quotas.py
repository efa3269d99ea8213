"""The limits of a queue, as rows of table quota: a stand-in until there is a module for all quotas."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from wfengine_journal.clock import Clock, seconds_from_text


class Quota(NamedTuple):
    """A row of table quota."""

    slots: int | None
    partition_slots: int | None
    rate_count: int | None
    rate_seconds: float | None
    rate_level: float
    rate_at: str | None
    paused: int

    def level(self, now: float) -> float:
        """Return the starts that count now."""
        if self.rate_count is None or self.rate_seconds is None or self.rate_at is None:
            return 0.0
        gone = max(0.0, now - seconds_from_text(self.rate_at))
        return max(0.0, self.rate_level - gone * self.rate_count / self.rate_seconds)

    def next_start_at(self, now: float, taken: int) -> float | None:
        """Return when another start is let in after `taken` further ones; None: now."""
        if self.rate_count is None or self.rate_seconds is None:
            return None
        excess = self.level(now) + taken + 1 - self.rate_count
        return None if excess <= 1e-6 else now + excess * self.rate_seconds / self.rate_count


def find_quota(connection: sqlite3.Connection, name: str) -> Quota | None:
    """Return a quota."""
    row = connection.execute(
        "SELECT slots, partition_slots, rate_count, rate_seconds, rate_level, rate_at, paused FROM quota WHERE name = ?",
        (name,),
    ).fetchone()
    return None if row is None else Quota._make(row)


def take_start(connection: sqlite3.Connection, name: str, clock: Clock) -> None:
    """Count a start."""
    quota = find_quota(connection, name)
    if quota is not None and quota.rate_count is not None:
        connection.execute(
            "UPDATE quota SET rate_level = ?, rate_at = ? WHERE name = ?",
            (quota.level(clock.wall_seconds()) + 1, clock.now_text(), name),
        )
