"""Quotas: how much of something may be done at a time (slots), and how much of it in a time (a rate).

A quota is named 'queue:NAME' for the runs of a queue, 'tag:NAME' for the task runs with a tag, else as the user says. What
has no quota is not limited. Who takes places is in `slots`; the rate is kept here, in the quota's row, so that it outlives
every process.

The rate is a leaky bucket: each start counts one, what counts wears off evenly by rate_count in rate_seconds, and a start may
be made while it fits under rate_count. So rate_count starts may come at once after a rest, and then one by one.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from wfengine_journal.clock import instant_from_text

if TYPE_CHECKING:
    from wfengine_journal.tickets import Change

#: What the names of quotas of queues and of tags begin with.
QUEUE_PREFIX = "queue:"
TAG_PREFIX = "tag:"

#: A wait shorter than this is none: instants are written in whole microseconds, and may be rounded down.
_TOLERANCE_SECONDS = 2e-6
#: How long to wait, in seconds, before one looks whether a quota is paused yet.
PAUSED_WAIT_SECONDS = 1.0


class Keep(enum.Enum):
    """What stands for a value that stays as it is."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


class QuotaRow(NamedTuple):
    """One quota; see format_4.sql. Times are ISO-8601 UTC texts."""

    name: str
    slots: int | None
    partition_slots: int | None
    rate_count: int | None
    rate_seconds: float | None
    rate_level: float
    rate_at: str | None
    paused: int
    description: str | None
    applied_from: str | None
    created_at: str
    updated_at: str


_COLUMNS = (
    "name, slots, partition_slots, rate_count, rate_seconds, rate_level, rate_at, paused, description, applied_from,"
    " created_at, updated_at"
)


class PutQuota:
    """Create a quota, or change what is said here of one that exists; the rest stays. Sets `created`.

    What has been started already goes on to count against a rate that changes, up to as much as the new one lets in.
    """

    __slots__ = ("applied_from", "at", "created", "description", "name", "partition_slots", "rate", "slots")

    def __init__(
        self, name: str, *, at: str, slots: int | Literal[Keep.KEEP] | None = KEEP,
        partition_slots: int | Literal[Keep.KEEP] | None = KEEP,
        rate: tuple[int, float] | Literal[Keep.KEEP] | None = KEEP, description: str | Literal[Keep.KEEP] | None = KEEP,
        applied_from: str | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.applied_from = applied_from  # the file that says so; null: code or a command
        self.slots = slots
        self.partition_slots = partition_slots
        self.rate = rate  # so many starts in so many seconds
        self.description = description
        self.at = at
        self.created = False

    def apply(self, connection: sqlite3.Connection) -> None:
        known = find_quota(connection, self.name)
        self.created = known is None
        wanted = self._wanted(known)
        level = 0.0 if known is None or known.rate_at is None else _level(known, self.at)
        connection.execute(
            "INSERT INTO quota (name, slots, partition_slots, rate_count, rate_seconds, description, applied_from, created_at,"
            " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET slots = excluded.slots,"
            " partition_slots = excluded.partition_slots, rate_count = excluded.rate_count,"
            " rate_seconds = excluded.rate_seconds, description = excluded.description,"
            " applied_from = excluded.applied_from, updated_at = excluded.updated_at",
            (self.name, *wanted, self.applied_from, self.at, self.at),
        )
        if known is not None and known.rate_at is not None:
            most = float(wanted[2] or 0)
            connection.execute(
                "UPDATE quota SET rate_level = ?, rate_at = ? WHERE name = ?", (min(level, most), self.at, self.name)
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = find_quota(connection, self.name)
        return row is not None and row.updated_at == self.at and self._wanted(row) == self._wanted_of(row)

    def _wanted(self, known: QuotaRow | None) -> tuple[int | None, int | None, int | None, float | None, str | None]:
        slots, partition_slots, count, seconds, description = (None,) * 5 if known is None else self._wanted_of(known)
        if self.rate is not KEEP:
            count, seconds = (None, None) if self.rate is None else self.rate
        return (
            slots if self.slots is KEEP else self.slots,
            partition_slots if self.partition_slots is KEEP else self.partition_slots,
            count,
            seconds,
            description if self.description is KEEP else self.description,
        )

    @staticmethod
    def _wanted_of(row: QuotaRow) -> tuple[int | None, int | None, int | None, float | None, str | None]:
        return row.slots, row.partition_slots, row.rate_count, row.rate_seconds, row.description


class PauseQuota:
    """Let nothing in any more, or let it in again. A quota that does not exist is created: it limits nothing else."""

    __slots__ = ("at", "name", "paused")

    def __init__(self, name: str, *, paused: bool, at: str) -> None:
        self.name = name
        self.paused = paused
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO quota (name, paused, created_at, updated_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = excluded.updated_at",
            (self.name, int(self.paused), self.at, self.at),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = find_quota(connection, self.name)
        return row is not None and (row.paused, row.updated_at) == (int(self.paused), self.at)


class RemoveQuota:
    """Delete a quota: its name is not limited any more. Who holds places keeps them. Sets `existed`."""

    __slots__ = ("existed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.existed = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.existed = connection.execute("DELETE FROM quota WHERE name = ?", (self.name,)).rowcount == 1

    def landed(self, connection: sqlite3.Connection) -> bool:
        return find_quota(connection, self.name) is None


# ------------------------------------------------------------------------------------------- reads


def find_quota(connection: sqlite3.Connection, name: str) -> QuotaRow | None:
    """Return the quota of that name."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM quota WHERE name = ?", (name,)).fetchone()
    return None if row is None else QuotaRow._make(row)


def list_quotas(connection: sqlite3.Connection, prefix: str = "", *, limit: int = 10_000) -> list[QuotaRow]:
    """Return the quotas whose names begin so, by name."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM quota WHERE substr(name, 1, ?) = ? ORDER BY name LIMIT ?", (len(prefix), prefix, limit)
    ).fetchall()
    return [QuotaRow._make(row) for row in rows]


# ------------------------------------------------------------------------------------------- the rate


def rate_wait_seconds(connection: sqlite3.Connection, name: str, at: str, count: int = 1) -> float:
    """Return how long `count` starts have to wait at that instant for the rate of a quota; 0.0: they may be made now.

    More starts at once than the rate lets in are made when nothing counts any more, and are paid for afterwards.

    A clock that was set back lets nothing wear off for the time that it repeats. In a transaction the present instant then
    takes the place of the future one, so that the wait ends: commit that, do not refuse it.
    """
    row = find_quota(connection, name)
    if row is None or row.rate_count is None or not row.rate_seconds or row.rate_at is None:
        return 0.0
    if at < row.rate_at and connection.in_transaction:
        connection.execute("UPDATE quota SET rate_at = ? WHERE name = ?", (at, name))
    excess = _level(row, at) - max(0, row.rate_count - count)
    wait = excess * row.rate_seconds / row.rate_count
    return wait if wait > _TOLERANCE_SECONDS else 0.0


def take_rate(connection: sqlite3.Connection, name: str, at: str, count: int = 1) -> None:
    """Count so many starts at that instant against the rate of a quota, if it has one. To be used inside a transaction."""
    row = find_quota(connection, name)
    if row is not None and row.rate_count is not None:
        connection.execute("UPDATE quota SET rate_level = ?, rate_at = ? WHERE name = ?", (_level(row, at) + count, at, name))


def rate_text(count: int | None, seconds: float | None) -> str | None:
    """Return a rate as people write it: '10/s', '100/min'."""
    if count is None or seconds is None:
        return None
    unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"}.get(seconds)
    return f"{count}/{unit}" if unit is not None else f"{count}/{seconds:g}s"


class TakeRate:
    """Count starts against the rates of all these names, if all may be made now. It refuses nothing: sets `wait_seconds`,
    0.0 when they are counted. A name without a quota is passed over. `note` is written when they are counted.
    """

    __slots__ = ("at", "note", "wait_seconds", "wanted")

    def __init__(self, wanted: Mapping[str, int], *, at: str, note: Change | None = None) -> None:
        self.wanted = wanted
        self.at = at
        self.note = note
        self.wait_seconds = 0.0

    def apply(self, connection: sqlite3.Connection) -> None:
        waits = [0.0]
        for name, count in self.wanted.items():
            quota = find_quota(connection, name)
            if quota is not None and quota.paused:
                waits.append(PAUSED_WAIT_SECONDS)
            waits.append(rate_wait_seconds(connection, name, self.at, count))
        self.wait_seconds = max(waits)
        if self.wait_seconds:
            return
        if self.note is not None:
            self.note.apply(connection)
        for name, count in self.wanted.items():
            take_rate(connection, name, self.at, count)

    def landed(self, connection: sqlite3.Connection) -> bool:
        if self.note is not None:
            return bool(self.wait_seconds) or self.note.landed(connection)
        rows = [find_quota(connection, name) for name in self.wanted]
        return all(row is None or row.rate_count is None or row.rate_at == self.at for row in rows)


def _level(row: QuotaRow, at: str) -> float:
    """Return how many starts still count at that instant."""
    if row.rate_at is None or row.rate_count is None or not row.rate_seconds:
        return 0.0
    elapsed = (instant_from_text(at) - instant_from_text(row.rate_at)) / timedelta(seconds=1)
    return max(0.0, row.rate_level - max(0.0, elapsed) * row.rate_count / row.rate_seconds)
