"""Which run waits for the end of which other one, while it is running: by that a run lends its places to those it waits for.

A wait is a row of table slot, named 'wait:ID' by the run that is waited for. It is void where its process is dead, its run is
taken over, or the call that waits is not running any more; so it needs no end, and a kill leaves nothing behind that counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping

#: What the names of such rows begin with.
WAIT_PREFIX = "wait:"

_VALID = (
    " FROM slot s JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id AND r.state = 'RUNNING'"
    " JOIN task_run t ON t.id = s.task_run_id AND t.state = 'RUNNING' WHERE s.name >= 'wait:' AND s.name < 'wait;'"
)


class NoteWait:
    """A rider on the beginning of a call that waits for the end of a run."""

    __slots__ = ("at", "flow_run_id", "owner_id", "waits_for")

    def __init__(self, flow_run_id: int, waits_for: int, *, owner_id: int, at: str) -> None:
        self.flow_run_id = flow_run_id  # whose call it is; of a subflow, the row is of the run that it belongs to
        self.waits_for = waits_for
        self.owner_id = owner_id
        self.at = at

    def check(self, connection: sqlite3.Connection) -> None:
        """Refuse nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        connection.execute(f"DELETE FROM slot WHERE name >= 'wait:' AND name < 'wait;' AND id NOT IN (SELECT s.id{_VALID})")
        connection.execute("DELETE FROM slot WHERE task_run_id = ? AND name >= 'wait:' AND name < 'wait;'", (task_run_id,))
        connection.execute(
            "INSERT INTO slot (name, owner_id, flow_run_id, task_run_id, taken_at, occupies) VALUES (?, ?, ?, ?, ?, 0)",
            (
                f"{WAIT_PREFIX}{self.waits_for}",
                self.owner_id,
                find_outermost(connection, self.flow_run_id),
                task_run_id,
                self.at,
            ),
        )


def find_outermost(connection: sqlite3.Connection, flow_run_id: int) -> int:
    """Return the run that a subflow belongs to, however deep; of any other run, itself."""
    row = connection.execute(
        "WITH RECURSIVE up (id, level) AS (SELECT ?, 0 UNION ALL SELECT t.flow_run_id, up.level + 1 FROM up"
        " JOIN flow_run r ON r.id = up.id JOIN task_run t ON t.id = r.parent_task_run_id)"
        " SELECT id FROM up ORDER BY level DESC LIMIT 1",
        (flow_run_id,),
    ).fetchone()
    return int(row[0])


def list_waits(connection: sqlite3.Connection) -> dict[int, set[int]]:
    """Return, by running run, the runs whose end it waits for."""
    waits: dict[int, set[int]] = {}
    for flow_run_id, name in connection.execute(f"SELECT s.flow_run_id, s.name{_VALID}"):
        waits.setdefault(int(flow_run_id), set()).add(int(str(name)[len(WAIT_PREFIX) :]))
    return waits


def waits_for_any(waits: Mapping[int, set[int]], flow_run_id: int, others: Collection[int]) -> bool:
    """Tell whether a run waits for one of others, or for one that waits for one of them, and so on."""
    return any(reached in others for reached in _reached(waits, flow_run_id) if reached != flow_run_id)


def find_circle(connection: sqlite3.Connection, flow_run_id: int) -> list[int]:
    """Return the runs that wait for each other in a circle with a run, beginning with it; empty: there is no circle."""
    waits = list_waits(connection)
    before: dict[int, int] = {}
    line = [flow_run_id]
    for run in line:
        for waited in sorted(waits.get(run, ())):
            if waited == flow_run_id:
                circle = [run]
                while circle[0] != flow_run_id:
                    circle.insert(0, before[circle[0]])
                return circle
            if waited not in before:
                before[waited] = run
                line.append(waited)
    return []


def _reached(waits: Mapping[int, set[int]], flow_run_id: int) -> Iterable[int]:
    reached: set[int] = set()
    line = [flow_run_id]
    for run in line:
        new = waits.get(run, set()) - reached
        reached |= new
        line += new
    return reached
