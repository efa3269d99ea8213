"""Slots: at most so many holders of a name at a time, over all threads and processes that use the file.

A slot is held by a task run while it is RUNNING (or by a flow's body, while its run is), through the process that executes
it. It is void, whatever was or was not written, as soon as that process is dead, another process took the run over, or
the task run is not running any more. Void rows are removed by whoever claims the name next.

Whether a process is dead cannot be asked inside a transaction, so a claim is told; owner ids are never used again, so who
was dead then is dead still.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from wfengine_journal.store import Journal


class Holder(NamedTuple):
    """Who holds a slot, as far as the file knows; its process may be dead. `task_run_id` 0 means the flow's body."""

    slot_id: int
    owner_id: int
    flow_run_id: int
    task_run_id: int


class Look(NamedTuple):
    """What a look at a name found."""

    holders: list[Holder]  # alive
    dead_owners: frozenset[int]


def look(journal: Journal, name: str) -> Look:
    """Return who holds a slot of that name now, and which of its owners are dead."""
    holders = journal.read(lambda connection: list_holders(connection, name))
    dead = frozenset(owner for owner in {holder.owner_id for holder in holders} if not journal.is_owner_alive(owner))
    return Look([holder for holder in holders if holder.owner_id not in dead], dead)


def list_holders(connection: sqlite3.Connection, name: str) -> list[Holder]:
    """Return the holders of a name that are not void by what the file says, oldest first."""
    rows = connection.execute(
        "SELECT s.id, s.owner_id, s.flow_run_id, s.task_run_id FROM slot s"
        " JOIN owner o ON o.id = s.owner_id AND o.ended_at IS NULL"
        " JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id AND r.state IN ('RUNNING', 'CANCELLING')"
        " LEFT JOIN task_run t ON t.id = s.task_run_id"
        " WHERE s.name = ? AND (s.task_run_id = 0 OR t.state = 'RUNNING') ORDER BY s.id",
        (name,),
    ).fetchall()
    return [Holder._make(row) for row in rows]


class ClaimSlot:
    """Take one of the `limit` places of a name; refused while they are taken. A change of its own, or a rider.

    `dead_owners` are those that `look` found dead. `enclosing` are task runs whose places do not count against this one,
    since they wait for it.
    """

    __slots__ = ("at", "dead_owners", "enclosing", "flow_run_id", "limit", "name", "owner_id", "task_run_id")

    def __init__(
        self, name: str, limit: int, *, owner_id: int, flow_run_id: int, task_run_id: int, at: str,
        dead_owners: Collection[int] = (), enclosing: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.name = name
        self.limit = limit
        self.owner_id = owner_id
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id  # as a rider: of its carrier
        self.at = at
        self.dead_owners = dead_owners
        self.enclosing = enclosing

    def apply(self, connection: sqlite3.Connection) -> None:
        self.check(connection)
        self.ride(connection, self.task_run_id)

    def check(self, connection: sqlite3.Connection) -> None:
        if sum(not self._is_beside(holder) for holder in self._living(connection)) >= self.limit:
            raise WriteRefused

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        self.task_run_id = task_run_id
        living = {holder.slot_id for holder in self._living(connection)}
        for slot_id, owner, holder in connection.execute(
            "SELECT id, owner_id, task_run_id FROM slot WHERE name = ?", (self.name,)
        ).fetchall():
            if slot_id not in living or (owner, holder) == (self.owner_id, task_run_id):
                connection.execute("DELETE FROM slot WHERE id = ?", (slot_id,))
        connection.execute(
            "INSERT INTO slot (name, owner_id, flow_run_id, task_run_id, taken_at) VALUES (?, ?, ?, ?, ?)",
            (self.name, self.owner_id, self.flow_run_id, task_run_id, self.at),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM slot WHERE name = ? AND owner_id = ? AND flow_run_id = ? AND task_run_id = ?",
            (self.name, self.owner_id, self.flow_run_id, self.task_run_id),
        ).fetchone()
        return row is not None

    def _living(self, connection: sqlite3.Connection) -> list[Holder]:
        return [holder for holder in list_holders(connection, self.name) if holder.owner_id not in self.dead_owners]

    def _is_beside(self, holder: Holder) -> bool:
        """Tell whether a holder is the claimer itself, or waits for it."""
        if (holder.flow_run_id, holder.task_run_id) == (self.flow_run_id, self.task_run_id):
            return True
        return holder.task_run_id in self.enclosing


class ReleaseSlot:
    """Give a place back. A change of its own, or a rider on an outcome."""

    __slots__ = ("flow_run_id", "name", "owner_id", "task_run_id")

    def __init__(self, name: str, *, owner_id: int, flow_run_id: int, task_run_id: int) -> None:
        self.name = name
        self.owner_id = owner_id
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id

    def apply(self, connection: sqlite3.Connection) -> None:
        self.ride(connection, self.task_run_id)

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        connection.execute(
            "DELETE FROM slot WHERE name = ? AND owner_id = ? AND flow_run_id = ? AND task_run_id = ?",
            (self.name, self.owner_id, self.flow_run_id, task_run_id),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM slot WHERE name = ? AND owner_id = ? AND flow_run_id = ? AND task_run_id = ?",
            (self.name, self.owner_id, self.flow_run_id, self.task_run_id),
        ).fetchone()
        return row is None
