"""A new flow run made of another one: what was recorded up to some call is copied, and the original is left as it was.

One INSERT ... SELECT a table; values, errors and code are shared. A call of the fork has another idempotency key than the one
it was copied from, since it belongs to another run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from wfengine_journal.run_rows import columns_of
from wfengine_journal.run_transitions import record_flow_event
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import Argument, RecordedChange, store_arguments

#: Tables that are copied with the calls; what was logged, sent, cached and made for people stays with the original.
_COPIED = ("transition", "argument", "item", "hook_run")


class ForkFlowRun(RecordedChange):
    """Write a new flow run that begins with what another one recorded before a call. Sets `flow_run_id`.

    It is PENDING: a resume executes it. Calls that were going on in the original count as cut off in the fork. Subflows that
    have not completed are forked with it.
    """

    __slots__ = ("arguments", "at", "before_id", "copied", "name", "parameters", "source_id")

    def __init__(
        self, source_id: int, *, before_id: int, name: str, parameters: str | None, arguments: Sequence[Argument], at: str
    ) -> None:
        self.flow_run_id = 0
        self.task_run_id = 0
        self.seq = 1
        self.source_id = source_id
        self.before_id = before_id  # calls that were written from this id on are not copied
        self.name = name
        self.parameters = parameters  # None: those of the original
        self.arguments = arguments  # parameters that do not stand in full in `parameters`
        self.at = at
        self.copied = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        self.flow_run_id, ids = self._copy_run(connection, self.source_id, None, self.name)
        if self.parameters is not None:
            connection.execute("UPDATE flow_run SET parameters = ? WHERE id = ?", (self.parameters, self.flow_run_id))
            connection.execute("DELETE FROM argument WHERE flow_run_id = ? AND task_run_id = 0", (self.flow_run_id,))
            store_arguments(connection, self.flow_run_id, 0, self.arguments, self.at)
        waiting = [(self.source_id, ids)]
        while waiting:
            source_id, ids = waiting.pop()
            for child, parent_call, name in connection.execute(
                "SELECT c.id, t.id, c.name FROM task_run t JOIN flow_run c ON c.parent_task_run_id = t.id"
                " WHERE t.flow_run_id = ? AND t.id < ? AND c.state <> 'COMPLETED' ORDER BY c.id",
                (source_id, self.before_id),
            ).fetchall():
                _, inner = self._copy_run(connection, child, parent_call + ids, f"{name}-{self.flow_run_id}")
                waiting.append((child, inner))

    def _copy_run(self, connection: sqlite3.Connection, source_id: int, parent_call: int | None, name: str) -> tuple[int, int]:
        """Copy one flow run and its calls; return its id, and what was added to the ids of its calls."""
        cursor = connection.execute(
            "INSERT INTO flow_run (name, flow_id, parent_task_run_id, state, state_name, state_message, version, epoch,"
            " owner_id, durability, parameters, tags, entrypoint, flow_hash, created_at, flow_version, origin, origin_run_id)"
            " SELECT ?, flow_id, ?, 'PENDING', 'Forked', 'forked from ' || name, 1, epoch, NULL, durability, parameters, tags,"
            " entrypoint, flow_hash, ?, flow_version, 'fork', id FROM flow_run WHERE id = ?",
            (name, parent_call, self.at, source_id),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        run_id = int(cursor.lastrowid or 0)
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " SELECT id, 0, 1, state, state_name, state_message, epoch, 0, ? FROM flow_run WHERE id = ?",
            (self.at, run_id),
        )
        record_flow_event(connection, run_id, "Forked", self.at)
        _copy(connection, "execution", {"flow_run_id": str(run_id)}, "flow_run_id = ?", (source_id,))
        _copy(connection, "task_code", {"flow_run_id": str(run_id)}, "flow_run_id = ?", (source_id,))
        first, last = connection.execute(  # the + keeps SQLite from looking for the smallest id in the runs before this one
            "SELECT min(+id), (SELECT max(id) FROM task_run) FROM task_run WHERE flow_run_id = ?", (source_id,)
        ).fetchone()
        added = 0 if first is None else last - first + 1
        moved = {"flow_run_id": str(run_id), "task_run_id": f"CASE task_run_id WHEN 0 THEN 0 ELSE task_run_id + {added} END"}
        self.copied += _copy(
            connection,
            "task_run",
            {"id": f"id + {added}", "flow_run_id": str(run_id), "scope": f"CASE scope WHEN 0 THEN 0 ELSE scope + {added} END"},
            "flow_run_id = ? AND id < ?",
            (source_id, self.before_id),
        )
        for table in _COPIED:
            own = " OR task_run_id = 0" if table in ("argument", "item") else ""
            where = f"flow_run_id = ? AND (task_run_id BETWEEN 1 AND ?{own})"
            _copy(connection, table, moved, where, (source_id, self.before_id - 1))
        self._cut_off(connection, run_id)
        return run_id, added

    def _cut_off(self, connection: sqlite3.Connection, run_id: int) -> None:
        """Let the calls that are going on in the original count as cut off here: what becomes of them is not known."""
        message = "was going on in the flow run that this one was forked from"
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " SELECT flow_run_id, id, version + 1, 'CRASHED', 'Interrupted', ?, epoch, attempt, ? FROM task_run"
            " WHERE flow_run_id = ? AND state IN ('RUNNING', 'CANCELLING')",
            (message, self.at, run_id),
        )
        connection.execute(
            "UPDATE task_run SET state = 'CRASHED', state_name = 'Interrupted', state_message = ?, version = version + 1,"
            " ended_at = ? WHERE flow_run_id = ? AND state IN ('RUNNING', 'CANCELLING')",
            (message, self.at, run_id),
        )


def _copy(
    connection: sqlite3.Connection, table: str, instead: Mapping[str, str], where: str, parameters: tuple[object, ...]
) -> int:
    """Copy rows within a table, with these expressions in the place of some columns; return how many."""
    columns = columns_of(connection, table)
    chosen = ", ".join(instead.get(column, f'"{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    return connection.execute(f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {table} WHERE {where}", parameters).rowcount
