"""The reads of background runs: flow runs that wait in a queue, and who waits for their ends.

They go through the write connection, so they see what this process just committed. A queue is named by the column
`flow_run.queue`; the changes are in `run_transitions`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from wfengine_journal.records import OpenRunRow, Records

#: Ids that one question about many runs names at most.
IDS_ASKED = 500


class QueuedRun(NamedTuple):
    """A background run that may be taken up now."""

    id: int
    queue: str


def list_ready(records: Records, queues: Iterable[str], limit: int) -> list[QueuedRun]:
    """Return the runs that were never taken up and wait for nothing, oldest first."""
    found = [
        records.rows(
            "SELECT r.id, r.queue FROM flow_run r WHERE r.state = 'SCHEDULED' AND r.queue = ?"
            " AND NOT EXISTS (SELECT 1 FROM dependency d JOIN flow_run n ON n.id = d.needs_run_id"
            "                 WHERE d.flow_run_id = r.id AND n.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED'))"
            " ORDER BY r.priority DESC, r.id LIMIT ?",  # as the index has them; of background tasks all are equal
            (queue, limit),
        )
        for queue in queues
    ]
    return [QueuedRun._make(row) for row in heapq.merge(*found)][:limit]


def list_cut_off(records: Records, queues: Iterable[str], limit: int) -> list[QueuedRun]:
    """Return the runs that were taken up and whose process died, oldest first; none that was only imported."""
    found: list[tuple[object, ...]] = []
    for queue in queues:
        found += records.rows(
            "SELECT id, queue FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
            " AND state = 'CRASHED' AND crashes >= 0 AND queue = ? ORDER BY id LIMIT ?",
            (queue, limit),
        )
    return sorted(QueuedRun._make(row) for row in found)[:limit]


def list_running(records: Records, queues: Iterable[str]) -> list[OpenRunRow]:
    """Return the runs that a process executes, or did when it died."""
    found: list[tuple[object, ...]] = []
    for queue in queues:
        found += records.rows(
            "SELECT r.id, r.name, f.name, NULL, NULL, r.state, r.version, r.epoch, r.owner_id"
            " FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
            " AND r.state = 'RUNNING' AND r.queue = ?",
            (queue,),
        )
    return [OpenRunRow._make(row) for row in found]


def list_needs(records: Records, flow_run_id: int) -> dict[int, bool]:
    """Return the ids of the runs that a queued one had to wait for, oldest first, and whether it fails with them."""
    rows = records.rows(
        "SELECT needs_run_id, must_complete FROM dependency WHERE flow_run_id = ? ORDER BY needs_run_id", (flow_run_id,)
    )
    return {cast(int, needed): bool(must_complete) for needed, must_complete in rows}


def list_ended(records: Records, flow_run_ids: Sequence[int]) -> list[int]:
    """Return which of these runs have ended for good: completed, failed or cancelled."""
    ended: list[int] = []
    for start in range(0, len(flow_run_ids), IDS_ASKED):
        asked = tuple(flow_run_ids[start : start + IDS_ASKED])
        marks = ", ".join("?" * len(asked))
        rows = records.rows(
            f"SELECT id FROM flow_run WHERE id IN ({marks}) AND state IN ('COMPLETED', 'FAILED', 'CANCELLED')", asked
        )
        ended += [cast(int, row[0]) for row in rows]
    return ended


def find_flow_run_of(records: Records, task_run_id: int) -> int | None:
    """Return the id of the flow run that a task run belongs to."""
    row = records.row("SELECT flow_run_id FROM task_run WHERE id = ?", (task_run_id,))
    return None if row is None else cast(int, row[0])


def find_first_call(records: Records, flow_run_id: int) -> int | None:
    """Return the id of the first task run of a flow run: the task, where it is the run of a lone one."""
    row = records.row("SELECT min(id) FROM task_run WHERE flow_run_id = ? AND scope = 0", (flow_run_id,))
    return None if row is None else cast("int | None", row[0])
