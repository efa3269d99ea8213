"""What replay reads of a run: its recorded calls, at once or part by part, and what people and code edits said of them.

These go through the write connection, as all of `records`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wfengine_journal.records import CALL_COLUMNS, CallRow, Records

if TYPE_CHECKING:
    from wfengine_journal.transitions import Identity

#: Calls of a run that are read at once when it is resumed; of a run with more, so many are kept in memory at the most.
CALLS_AT_ONCE = 20_000


def find_last_call(records: Records, flow_run_id: int) -> int:
    """Return the id of the call that was written last in a flow run; 0: it has none."""
    row = records.row("SELECT max(id) FROM task_run WHERE flow_run_id = ?", (flow_run_id,))
    return 0 if row is None or row[0] is None else cast(int, row[0])


def is_large(records: Records, flow_run_id: int) -> bool:
    """Tell whether a flow run has more calls than are read at once."""
    row = records.row(
        "SELECT count(*) FROM (SELECT 1 FROM task_run WHERE flow_run_id = ? LIMIT ?)", (flow_run_id, CALLS_AT_ONCE + 1)
    )
    return row is not None and cast(int, row[0]) > CALLS_AT_ONCE


def list_calls(records: Records, flow_run_id: int) -> list[CallRow]:
    """Return every recorded call of a flow run, in the order in which the rows were written."""
    return records.calls(f"SELECT {CALL_COLUMNS} FROM task_run WHERE flow_run_id = ? ORDER BY id", (flow_run_id,))


def list_calls_after(records: Records, flow_run_id: int, after_id: int, until_id: int, limit: int) -> list[CallRow]:
    """Return at most `limit` recorded calls of a large flow run, in the order in which the rows were written.

    The table is read from that id on, since an index would have all the run's rows sorted for each part.
    """
    return records.calls(
        f"SELECT {CALL_COLUMNS} FROM task_run WHERE id > ? AND id <= ? AND +flow_run_id = ? ORDER BY id LIMIT ?",
        (after_id, until_id, flow_run_id, limit),
    )


def list_calls_inside(records: Records, flow_run_id: int, task_run_id: int) -> list[CallRow]:
    """Return the calls that a task made, and those that they made, and so on, in the order in which they were written."""
    return records.calls(
        "WITH RECURSIVE inside (id) AS (SELECT ? UNION ALL SELECT t.id FROM task_run t JOIN inside i"
        " ON t.flow_run_id = ? AND t.scope = i.id)"
        f" SELECT {CALL_COLUMNS} FROM task_run WHERE id IN (SELECT id FROM inside) AND id <> ? ORDER BY id",
        (task_run_id, flow_run_id, task_run_id),
    )


def find_call_row(records: Records, identity: Identity, until_id: int) -> CallRow | None:
    """Return the call with that identity, if it was written no later than that one."""
    rows = records.calls(
        f"SELECT {CALL_COLUMNS} FROM task_run WHERE flow_run_id = ? AND scope = ? AND task_id = ? AND call_key = ?"
        " AND occurrence = ? AND id <= ?",
        (*identity, until_id),
    )
    return rows[0] if rows else None


def list_completed_on_main_lane(records: Records, flow_run_id: int, scope: int, task_id: int, until_id: int) -> list[int]:
    """Return the ids of the completed main-lane calls of a task in a scope that are no orphans, oldest first."""
    rows = records.rows(
        "SELECT id FROM task_run WHERE flow_run_id = ? AND scope = ? AND task_id = ? AND id <= ? AND lane = 0"
        " AND state = 'COMPLETED' AND orphaned_in IS NULL ORDER BY id",
        (flow_run_id, scope, task_id, until_id),
    )
    return [cast(int, row[0]) for row in rows]


def list_completed(records: Records, flow_run_id: int, after_id: int, until_id: int, limit: int) -> list[tuple[int, int]]:
    """Return (id, scope) of at most `limit` completed calls of a flow run, in the order in which they were written."""
    rows = records.rows(
        "SELECT id, scope FROM task_run WHERE id > ? AND id <= ? AND +flow_run_id = ? AND state = 'COMPLETED'"
        " ORDER BY id LIMIT ?",
        (after_id, until_id, flow_run_id, limit),
    )
    return [(cast(int, row[0]), cast(int, row[1])) for row in rows]


def has_not_ready(records: Records, flow_run_id: int) -> bool:
    """Tell whether some calls of a flow run could not begin, since what they waited for failed."""
    row = records.row(
        "SELECT 1 FROM task_run WHERE flow_run_id = ? AND state = 'PENDING' AND state_name = 'NotReady' LIMIT 1",
        (flow_run_id,),
    )
    return row is not None


def list_superseded(records: Records, flow_run_id: int) -> list[tuple[int, str, str]]:
    """Return what a person took back: (scope, when that call had ended, when it was taken back)."""
    rows = records.rows(
        "SELECT t.scope, b.at, h.at FROM transition h JOIN task_run t ON t.id = h.task_run_id"
        " JOIN transition b ON b.flow_run_id = h.flow_run_id AND b.task_run_id = h.task_run_id AND b.seq = h.seq - 1"
        " WHERE h.flow_run_id = ? AND h.state_name IN ('Rerun', 'Set')",
        (flow_run_id,),
    )
    return [(cast(int, scope), str(ended_at), str(at)) for scope, ended_at, at in rows]


def list_task_codes(records: Records, flow_run_id: int) -> dict[tuple[int, int], str]:
    """Return (task, epoch) -> hash of the code of its own that the task had in that execution."""
    rows = records.rows("SELECT task_id, epoch, code_hash FROM task_code WHERE flow_run_id = ?", (flow_run_id,))
    return {(cast(int, task_id), cast(int, epoch)): str(code_hash) for task_id, epoch, code_hash in rows}


def list_reruns(records: Records, flow_run_id: int) -> dict[int, str]:
    """Return epoch -> what a person asked to run again in that execution, beside what runs again anyway."""
    rows = records.rows("SELECT epoch, rerun FROM execution WHERE flow_run_id = ? AND rerun IS NOT NULL", (flow_run_id,))
    return {cast(int, epoch): str(rerun) for epoch, rerun in rows}
