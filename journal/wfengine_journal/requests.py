"""What people ask of flow runs: that one be cancelled, be paused, or go on waiting; and the reads of what was asked.

A run that a process executes is only asked: CANCELLING, or RUNNING named Pausing. Its owner sees that, and ends or parks it.
A run that nobody executes is cancelled or parked by the change itself. The epoch stays, so the owner can still write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, cast

from wfengine_journal.errors import InternalError
from wfengine_journal.records import Records
from wfengine_journal.run_transitions import cancel_unfinished_calls, record_flow_transition
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import FROM_STATES, RecordedChange

#: Ids that one question about many runs names at most.
IDS_ASKED = 500


class Asked(NamedTuple):
    """How a run stands that was asked for something, or may have been."""

    id: int
    state: str
    state_name: str | None
    state_message: str | None
    epoch: int


class Before(NamedTuple):
    """What a paused run was before it was paused; and whether it waits in a queue."""

    state: str
    state_name: str | None
    epoch: int
    queue: str | None


class _Open(NamedTuple):
    """A run that has not ended."""

    id: int
    parent_run_id: int | None
    state: str
    state_name: str | None
    version: int
    epoch: int
    owner_id: int | None

    @property
    def is_executed(self) -> bool:
        """Tell whether a process has it, as far as the file says: one whose process died is asked too, and swept later."""
        return self.state == "RUNNING" or (self.state == "SCHEDULED" and self.owner_id is not None)


class _Request(RecordedChange):
    """What asking has in common: it reaches the run and the subflows it waits in, in one transaction.

    `message` says who asked, and why. `ended`: afterwards, the runs whose state the change itself made final.
    """

    __slots__ = ("at", "ended", "message")

    def __init__(self, flow_run_id: int, *, message: str, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.seq = 0
        self.message = message
        self.at = at
        self.ended: list[int] = []

    def _family(self, connection: sqlite3.Connection) -> list[_Open]:
        """Return the run and the subflows it waits in, as far as they have not ended. Raises WriteRefused if it has."""
        rows = connection.execute(
            "SELECT r.id, (SELECT p.flow_run_id FROM task_run p WHERE p.id = r.parent_task_run_id), r.state, r.state_name,"
            " r.version, r.epoch, r.owner_id FROM flow_run r WHERE r.id = ?"
            " UNION ALL SELECT r.id, p.flow_run_id, r.state, r.state_name, r.version, r.epoch, r.owner_id"
            " FROM flow_run r JOIN task_run p ON p.id = r.parent_task_run_id"
            " WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND r.id <> ?",
            (self.flow_run_id, self.flow_run_id),
        ).fetchall()
        ids = {self.flow_run_id}
        family = []
        # Ordered here: for an order by id, SQLite would read every run there ever was. A subflow comes after its parent.
        for run in map(_Open._make, sorted(rows, key=lambda row: int(row[0]))):
            if run.id in ids or run.parent_run_id in ids:
                ids.add(run.id)
                family.append(run)
        if not family or family[0].state in ("COMPLETED", "FAILED", "CANCELLED"):
            raise WriteRefused
        self.seq = family[0].version
        return family

    def _move(self, connection: sqlite3.Connection, run: _Open, state: str, name: str | None) -> None:
        cursor = connection.execute(
            "UPDATE flow_run SET state = ?, state_name = ?, state_message = ?, version = version + 1,"
            " ended_at = CASE WHEN ? = 'CANCELLED' THEN ? END,"
            " next_attempt_at = CASE WHEN ? <> 'CANCELLED' THEN next_attempt_at END,"
            " wake_at = CASE WHEN ? <> 'CANCELLED' THEN wake_at END"
            f" WHERE id = ? AND version = ? AND (state = ? OR state IN ({FROM_STATES[state]}))",
            (state, name, self.message, state, self.at, state, state, run.id, run.version, state),
        )
        if cursor.rowcount != 1:  # as read in this very transaction, so never; and nothing is refused after a first write
            raise InternalError(f"Flow run {run.id} cannot go from {run.state} to {state}. Please report this.")
        if run.id == self.flow_run_id:
            self.seq = run.version + 1
        record_flow_transition(connection, run.id, run.version + 1, state, name, self.message, run.epoch, None, self.at)


class RequestCancel(_Request):
    """Ask that a run and its subflows be cancelled. One that nobody executes is cancelled at once, with its calls."""

    __slots__ = ()

    def apply(self, connection: sqlite3.Connection) -> None:
        for run in self._family(connection):
            if run.state == "CANCELLING":
                continue  # asked before: that stands
            if run.is_executed:
                self._move(connection, run, "CANCELLING", None)
                continue
            self._move(connection, run, "CANCELLED", None)
            cancel_unfinished_calls(connection, run.id, self.message, self.at)
            self.ended.append(run.id)


class RequestPause(_Request):
    """Ask that a run and its subflows be paused. One that nobody executes, or that waits for an attempt, is so at once."""

    __slots__ = ()

    def apply(self, connection: sqlite3.Connection) -> None:
        family = self._family(connection)
        if family[0].state not in ("RUNNING", "SCHEDULED", "PENDING", "CRASHED"):
            raise WriteRefused
        for run in family:
            if run.state == "RUNNING":
                if run.state_name != "Pausing":
                    self._move(connection, run, "RUNNING", "Pausing")
            elif run.id == self.flow_run_id or run.is_executed:
                self._move(connection, run, "PAUSED", None)
                self.ended.append(run.id)


class ReturnToWaiting(RecordedChange):
    """Let a paused run wait again for what it waited for: its queue, a resume, its start."""

    __slots__ = ("at", "message", "state", "state_name")

    def __init__(self, flow_run_id: int, *, version: int, state: str, state_name: str | None, message: str, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.seq = version + 1
        self.state = state
        self.state_name = state_name
        self.message = message
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE flow_run SET state = ?, state_name = ?, state_message = ?, version = ?,"
            " ended_at = CASE WHEN ? = 'CRASHED' THEN ? END, owner_id = CASE WHEN ? = 'SCHEDULED' THEN NULL ELSE owner_id END"
            f" WHERE id = ? AND version = ? AND state = 'PAUSED' AND state IN ({FROM_STATES[self.state]})",
            (
                self.state,
                self.state_name,
                self.message,
                self.seq,
                self.state,
                self.at,
                self.state,
                self.flow_run_id,
                self.seq - 1,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        ((epoch,),) = connection.execute("SELECT epoch FROM flow_run WHERE id = ?", (self.flow_run_id,)).fetchall()
        record_flow_transition(
            connection, self.flow_run_id, self.seq, self.state, self.state_name, self.message, epoch, None, self.at
        )


# ------------------------------------------------------------------------------------------- reads


def list_asked(records: Records, flow_run_ids: Sequence[int]) -> list[Asked]:
    """Return those of these runs that were asked to stop, or were stopped by somebody else than their owner."""
    found: list[Asked] = []
    for start in range(0, len(flow_run_ids), IDS_ASKED):
        asked = tuple(flow_run_ids[start : start + IDS_ASKED])
        rows = records.rows(
            f"SELECT id, state, state_name, state_message, epoch FROM flow_run WHERE id IN ({', '.join('?' * len(asked))})"
            " AND (state IN ('CANCELLING', 'CANCELLED', 'PAUSED') OR (state = 'RUNNING' AND state_name = 'Pausing'))",
            asked,
        )
        found += map(Asked._make, rows)
    return found


def find_before(records: Records, flow_run_id: int) -> Before | None:
    """Return what a paused run was before its pause."""
    row = records.row(
        "SELECT t.state, t.state_name, r.epoch, r.queue FROM flow_run r"
        " JOIN transition t ON t.flow_run_id = r.id AND t.task_run_id = 0 AND t.seq = r.version - 1"
        " WHERE r.id = ? AND r.state = 'PAUSED'",
        (flow_run_id,),
    )
    return None if row is None else Before._make(row)


def list_untold(records: Records, flow_name: str) -> list[int]:
    """Return the cancelled runs of a flow whose process died before it called a hook for that, oldest first."""
    rows = records.rows(
        "SELECT r.id FROM owner o JOIN flow_run r ON r.owner_id = o.id JOIN flow f ON f.id = r.flow_id"
        " WHERE o.ended_at IS NULL AND r.state = 'CANCELLED' AND f.name = ? AND NOT EXISTS (SELECT 1 FROM hook_run h"
        "  WHERE h.flow_run_id = r.id AND h.task_run_id = 0 AND h.seq = r.version AND h.hook = 'on_cancellation')"
        " ORDER BY r.id",
        (flow_name,),
    )
    return [cast(int, row[0]) for row in rows]
