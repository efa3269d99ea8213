"""What the page reads of flows: how their newest runs went, and what each of those runs called.

Runs are looked at from an id on (`page_queries.window_start`), calls of a run up to a number: both are bounded.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

#: Calls of each run of a grid that are counted; failures are found among all.
CELL_CALLS = 400
FAILED_CALLS = 50

_SECONDS = "(julianday(r.ended_at) - julianday(r.started_at)) * 86400"


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """One flow, and how those of its runs ended that were looked at."""

    name: str
    description: str | None
    runs: int
    completed: int
    failed: int  # or crashed
    open: int
    last_run_id: int | None
    last_run_name: str | None
    last_state: str | None
    last_state_name: str | None
    last_at: str | None


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One run of a flow, for its grid and trend."""

    id: int
    name: str
    state: str
    state_name: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """The calls of one task in one run, of those that were looked at."""

    run_id: int
    task: str
    calls: int
    completed: int
    failed: int
    first_id: int


@dataclass(frozen=True, slots=True)
class FlowDeployment:
    """A deployment of a flow. `parameter_schema`: JSON; null: not known."""

    name: str
    paused: int
    parameter_schema: str | None


def list_flow_counts(connection: sqlite3.Connection, from_id: int, limit: int) -> list[FlowCounts]:
    """Return flows by name, with their runs of their own from an id on."""
    rows = connection.execute(
        """
        SELECT f.name, f.description, coalesce(g.runs, 0), coalesce(g.completed, 0), coalesce(g.failed, 0), coalesce(g.open, 0),
               r.id, r.name, r.state, r.state_name, r.created_at
        FROM flow f LEFT JOIN (
            SELECT flow_id, count(*) AS runs, count(CASE WHEN state = 'COMPLETED' THEN 1 END) AS completed,
                   count(CASE WHEN state IN ('FAILED', 'CRASHED') THEN 1 END) AS failed,
                   count(CASE WHEN state NOT IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') THEN 1 END) AS open,
                   max(id) AS last_id
            FROM flow_run WHERE id >= ? AND parent_task_run_id IS NULL GROUP BY flow_id) g ON g.flow_id = f.id
        LEFT JOIN flow_run r ON r.id = g.last_id ORDER BY f.name LIMIT ?
        """,
        (from_id, limit),
    )
    return [FlowCounts(*row) for row in rows.fetchall()]


def find_flow(connection: sqlite3.Connection, name: str) -> tuple[str, str | None, str] | None:
    """Return name, description and first sight of a flow; None: there is none of that name."""
    row = connection.execute("SELECT name, description, first_seen_at FROM flow WHERE name = ?", (name,)).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def count_flow_states(connection: sqlite3.Connection, flow: str, from_id: int) -> dict[str, int]:
    """Return the runs of a flow from an id on, subflow runs included, by state."""
    rows = connection.execute(
        "SELECT state, count(*) FROM flow_run WHERE id >= ? AND flow_id = (SELECT id FROM flow WHERE name = ?) GROUP BY state",
        (from_id, flow),
    )
    return {str(row[0]): int(row[1]) for row in rows.fetchall()}


def list_flow_runs(connection: sqlite3.Connection, flow: str, from_id: int, limit: int) -> list[FlowRun]:
    """Return the newest runs of a flow, subflow runs included, the newest first."""
    rows = connection.execute(
        f"""
        SELECT r.id, r.name, r.state, r.state_name, r.created_at, r.started_at, r.ended_at, {_SECONDS} FROM flow_run r
        WHERE r.id >= ? AND r.flow_id = (SELECT id FROM flow WHERE name = ?) ORDER BY r.id DESC LIMIT ?
        """,
        (from_id, flow, limit),
    )
    return [FlowRun(*row) for row in rows.fetchall()]


def list_cells(connection: sqlite3.Connection, run_id: int) -> list[Cell]:
    """Return how the calls of a run went by task: of its first ones, and of those that failed."""
    rows = connection.execute(
        """
        SELECT k.name, count(*), count(CASE WHEN t.state = 'COMPLETED' THEN 1 END),
               count(CASE WHEN t.state = 'FAILED' THEN 1 END), min(t.id)
        FROM (SELECT task_run_id AS id FROM transition WHERE flow_run_id = ? AND task_run_id > 0 AND seq = 1
              ORDER BY task_run_id LIMIT ?) h
        CROSS JOIN task_run t ON t.id = h.id JOIN task k ON k.id = t.task_id WHERE t.orphaned_in IS NULL GROUP BY t.task_id
        """,
        (run_id, CELL_CALLS),
    ).fetchall()
    cells = {row[0]: Cell(run_id, *row) for row in rows}
    if sum(cell.calls for cell in cells.values()) < CELL_CALLS:
        return list(cells.values())
    failed = connection.execute(
        """
        SELECT k.name, count(*), min(t.id) FROM (
            SELECT id, task_id FROM task_run WHERE state = 'FAILED' AND +flow_run_id = :run
              AND id >= (SELECT task_run_id FROM transition WHERE flow_run_id = :run AND task_run_id > 0
                         ORDER BY task_run_id LIMIT 1)
              AND id <= (SELECT task_run_id FROM transition WHERE flow_run_id = :run ORDER BY task_run_id DESC LIMIT 1)
            LIMIT :limit) t
        JOIN task k ON k.id = t.task_id GROUP BY t.task_id
        """,
        {"run": run_id, "limit": FAILED_CALLS},
    ).fetchall()
    for task, count, first_id in failed:
        cell = cells.get(task, Cell(run_id, task, count, 0, 0, first_id))
        cells[task] = Cell(run_id, task, cell.calls, cell.completed, max(cell.failed, count), cell.first_id)
    return list(cells.values())


def list_flow_deployments(connection: sqlite3.Connection, flow: str, limit: int) -> list[FlowDeployment]:
    """Return the deployments of a flow, by name."""
    rows = connection.execute(
        """
        SELECT f.name || '/' || d.name, d.paused, d.parameter_schema FROM deployment d JOIN flow f ON f.id = d.flow_id
        WHERE f.name = ? AND d.removed_at IS NULL ORDER BY d.name LIMIT ?
        """,
        (flow, limit),
    )
    return [FlowDeployment(*row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- all flows over time


@dataclass(frozen=True, slots=True)
class Span:
    """When one run took place; `ended_at` null: it goes on."""

    id: int
    name: str
    flow: str
    state: str
    started_at: str
    ended_at: str | None


def list_spans(connection: sqlite3.Connection, from_id: int, since: str, limit: int) -> list[Span]:
    """Return the newest runs of their own that were under way since an instant, the newest first."""
    rows = connection.execute(
        """
        SELECT r.id, r.name, f.name, r.state, r.started_at, r.ended_at FROM flow_run r JOIN flow f ON f.id = r.flow_id
        WHERE r.id >= ? AND r.parent_task_run_id IS NULL AND r.started_at IS NOT NULL
          AND (r.ended_at IS NULL OR r.ended_at >= ?)
        ORDER BY r.id DESC LIMIT ?
        """,
        (from_id, since, limit),
    )
    return [Span(*row) for row in rows.fetchall()]
