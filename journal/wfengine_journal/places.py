"""Places of what has a quota: at most so many are held at a time, over all threads and processes that use the file.

A place is a row of table slot. It is held by the body of a flow, by a task run, or, outside of any run, by a process
(flow_run_id 0); whoever holds it may hold several at once (`occupies`). It is void, whatever was or was not written, as soon
as its process is dead, another process took the run over, or the task run is not running any more.

How many there are is read from the quota in the very transaction that takes one. A name without a quota is not limited.

Who has to wait stands in line with a row that occupies nothing, and nobody takes a place past it. Such a row is kept only in
the lines of names that have no room: what is free is never kept from others by somebody who waits for something else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.quotas import find_quota
from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from wfengine_journal.store import Journal


class Place(NamedTuple):
    """A row of the line of a name: who holds places of it, or waits for some (`occupies` 0)."""

    slot_id: int
    owner_id: int
    flow_run_id: int
    task_run_id: int
    occupies: int
    taken_at: str


@dataclass(frozen=True, slots=True)
class Claimer:
    """Who asks for places.

    `beside` are task runs that wait for the claimer: their places do not count against it, and it does not stand in line.
    """

    owner_id: int
    flow_run_id: int = 0  # 0: the process, outside of any run
    task_run_id: int = 0  # 0: the flow's body
    beside: frozenset[int] = field(default_factory=frozenset)


def list_places(connection: sqlite3.Connection, name: str) -> list[Place]:
    """Return who holds or waits for places of a name, by what the file says, in the order in which they came."""
    rows = connection.execute(
        "SELECT s.id, s.owner_id, s.flow_run_id, s.task_run_id, s.occupies, s.taken_at FROM slot s"
        " JOIN owner o ON o.id = s.owner_id AND o.ended_at IS NULL"
        " LEFT JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id AND r.state IN ('RUNNING', 'CANCELLING')"
        " LEFT JOIN task_run t ON t.id = s.task_run_id"
        " WHERE s.name = ? AND (s.flow_run_id = 0 OR r.id IS NOT NULL)"
        " AND (s.occupies = 0 OR s.task_run_id = 0 OR t.state = 'RUNNING') ORDER BY s.id",
        (name,),
    ).fetchall()
    return [Place._make(row) for row in rows]


def find_dead_owners(journal: Journal, names: Iterable[str]) -> frozenset[int]:
    """Return the dead ones of the processes that seem to hold or wait for places of these names."""

    def owners(connection: sqlite3.Connection) -> set[int]:
        return {place.owner_id for name in names for place in list_places(connection, name)}

    found = journal.read(owners)
    return frozenset(owner for owner in found if not journal.is_owner_alive(owner))


def list_lacking(
    connection: sqlite3.Connection, wanted: Mapping[str, int], claimer: Claimer, *, line: Collection[int] = (),
    dead_owners: Collection[int] = (),
) -> list[str]:  # fmt: skip
    """Return those names of which the claimer cannot have as many places now as it wants.

    `line` are the rows with which it waits.
    """
    return [name for name, count in wanted.items() if _lacks(connection, name, count, claimer, line, dead_owners)]


def _lacks(
    connection: sqlite3.Connection, name: str, count: int, claimer: Claimer, line: Collection[int], dead: Collection[int]
) -> bool:
    quota = find_quota(connection, name)
    if quota is None:
        return False
    if quota.paused:
        return True
    if quota.slots is None:
        return False
    found = [
        place
        for place in list_places(connection, name)
        if place.owner_id not in dead and place.task_run_id not in claimer.beside
    ]
    if sum(place.occupies for place in found) + count > quota.slots:
        return True
    if claimer.beside:
        return False
    own = min((place.slot_id for place in found if place.slot_id in line), default=None)
    return any(place.occupies == 0 and (own is None or place.slot_id < own) for place in found)


class TakePlaces:
    """Take places of all these names, or none: refused while one of them has no room. A change of its own, or a rider.

    Names without a quota are passed over. Sets `lacking` when it refuses for want of room, and `slot_ids` when it does not.
    """

    __slots__ = ("at", "claimer", "dead_owners", "keep", "lacking", "line", "slot_ids", "wanted")

    def __init__(
        self, wanted: Mapping[str, int], claimer: Claimer, *, at: str, line: Collection[int] = (),
        dead_owners: Collection[int] = (), keep: set[int] | None = None,
    ) -> None:  # fmt: skip
        self.wanted = wanted
        self.claimer = claimer
        self.at = at
        self.line = line  # the rows with which the claimer waited
        self.dead_owners = dead_owners
        self.keep = keep  # the rows of the claimer that count; others of these names it has left behind. None: all count
        self.lacking: list[str] = []
        self.slot_ids: list[int] = []

    def apply(self, connection: sqlite3.Connection) -> None:
        self.check(connection)
        self._check_run(connection)
        self.ride(connection, self.claimer.task_run_id)

    def check(self, connection: sqlite3.Connection) -> None:
        self._forget_left_behind(connection)
        self.lacking = list_lacking(connection, self.wanted, self.claimer, line=self.line, dead_owners=self.dead_owners)
        if self.lacking:
            raise WriteRefused

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        self.slot_ids = []
        _leave_line(connection, self.line, self.claimer.owner_id)
        for name, count in self.wanted.items():
            quota = find_quota(connection, name)
            if quota is None or quota.slots is None:
                continue
            _delete_void(connection, name, self.dead_owners)
            self.slot_ids.append(_insert(connection, name, self.claimer, task_run_id, count, self.at))
        if self.keep is not None:
            self.keep.update(self.slot_ids)  # here, so that no other thread of the claimer takes them for left behind

    def landed(self, connection: sqlite3.Connection) -> bool:
        return all(
            connection.execute("SELECT 1 FROM slot WHERE id = ?", (slot_id,)).fetchone() is not None
            for slot_id in self.slot_ids
        )

    def _check_run(self, connection: sqlite3.Connection) -> None:
        """Refuse where the claimer is not what it was: its run was taken over, its attempt given up."""
        claimer = self.claimer
        if not claimer.flow_run_id:
            return
        row = connection.execute(
            "SELECT 1 FROM flow_run r LEFT JOIN task_run t ON t.id = ? WHERE r.id = ? AND r.owner_id = ?"
            " AND r.state = 'RUNNING' AND (? = 0 OR t.state = 'RUNNING')",
            (claimer.task_run_id, claimer.flow_run_id, claimer.owner_id, claimer.task_run_id),
        ).fetchone()
        if row is None:
            raise WriteRefused

    def _forget_left_behind(self, connection: sqlite3.Connection) -> None:
        """Drop what an earlier attempt of the same task run holds: its thread was given up, and may be in its block yet."""
        if self.keep is None or not self.claimer.flow_run_id:
            return
        for name in self.wanted:
            for (slot_id,) in connection.execute(
                "SELECT id FROM slot WHERE name = ? AND owner_id = ? AND flow_run_id = ? AND task_run_id = ? AND occupies > 0",
                (name, self.claimer.owner_id, self.claimer.flow_run_id, self.claimer.task_run_id),
            ).fetchall():
                if slot_id not in self.keep:
                    connection.execute("DELETE FROM slot WHERE id = ?", (slot_id,))


class LineUp:
    """Stand in the lines of those names that have no room, and in no others. Sets `slot_ids`: the rows that wait."""

    __slots__ = ("at", "claimer", "dead_owners", "line", "slot_ids", "wanted")

    def __init__(
        self, wanted: Mapping[str, int], claimer: Claimer, *, at: str, line: Collection[int] = (),
        dead_owners: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.wanted = wanted
        self.claimer = claimer
        self.at = at
        self.line = line  # the rows with which it waits so far
        self.dead_owners = dead_owners
        self.slot_ids: list[int] = []

    def apply(self, connection: sqlite3.Connection) -> None:
        lacking = list_lacking(connection, self.wanted, self.claimer, line=self.line, dead_owners=self.dead_owners)
        kept: list[int] = []
        for name in () if self.claimer.beside else lacking:
            found = [place.slot_id for place in list_places(connection, name) if place.slot_id in self.line]
            kept.append(found[0] if found else _insert(connection, name, self.claimer, self.claimer.task_run_id, 0, self.at))
        _leave_line(connection, [slot_id for slot_id in self.line if slot_id not in kept], self.claimer.owner_id)
        self.slot_ids = kept

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Look for the rows: the ids of some that are not there would be given to others, in whose place it would then be."""
        left = [slot_id for slot_id in self.line if slot_id not in self.slot_ids]
        stands = all(_stands_in_line(connection, slot_id, self.claimer.owner_id) for slot_id in self.slot_ids)
        return stands and not any(_stands_in_line(connection, slot_id, self.claimer.owner_id) for slot_id in left)


class LeavePlaces:
    """Give places back; `at` is when they were taken, since the id of a row that became void may be another's by now."""

    __slots__ = ("at", "owner_id", "slot_ids")

    def __init__(self, slot_ids: Collection[int], *, owner_id: int, at: str) -> None:
        self.slot_ids = slot_ids
        self.owner_id = owner_id
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        for slot_id in self.slot_ids:
            connection.execute(
                "DELETE FROM slot WHERE id = ? AND owner_id = ? AND taken_at = ? AND occupies > 0",
                (slot_id, self.owner_id, self.at),
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        return all(
            connection.execute(
                "SELECT 1 FROM slot WHERE id = ? AND owner_id = ? AND taken_at = ? AND occupies > 0",
                (slot_id, self.owner_id, self.at),
            ).fetchone()
            is None
            for slot_id in self.slot_ids
        )


class LeaveLine:
    """Wait no longer."""

    __slots__ = ("line", "owner_id")

    def __init__(self, line: Collection[int], owner_id: int) -> None:
        self.line = line
        self.owner_id = owner_id

    def apply(self, connection: sqlite3.Connection) -> None:
        _leave_line(connection, self.line, self.owner_id)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return not any(_stands_in_line(connection, slot_id, self.owner_id) for slot_id in self.line)


def _stands_in_line(connection: sqlite3.Connection, slot_id: int, owner_id: int) -> bool:
    waiting = "SELECT 1 FROM slot WHERE id = ? AND owner_id = ? AND occupies = 0"
    return connection.execute(waiting, (slot_id, owner_id)).fetchone() is not None


def _leave_line(connection: sqlite3.Connection, line: Iterable[int], owner_id: int) -> None:
    for slot_id in line:
        connection.execute("DELETE FROM slot WHERE id = ? AND owner_id = ? AND occupies = 0", (slot_id, owner_id))


def _insert(connection: sqlite3.Connection, name: str, claimer: Claimer, task_run_id: int, occupies: int, at: str) -> int:
    cursor = connection.execute(
        "INSERT INTO slot (name, owner_id, flow_run_id, task_run_id, taken_at, occupies) VALUES (?, ?, ?, ?, ?, ?)",
        (name, claimer.owner_id, claimer.flow_run_id, task_run_id, at, occupies),
    )
    return int(cursor.lastrowid or 0)


def _delete_void(connection: sqlite3.Connection, name: str, dead_owners: Collection[int]) -> None:
    living = {place.slot_id for place in list_places(connection, name) if place.owner_id not in dead_owners}
    for (slot_id,) in connection.execute("SELECT id FROM slot WHERE name = ?", (name,)).fetchall():
        if slot_id not in living:
            connection.execute("DELETE FROM slot WHERE id = ?", (slot_id,))
