"""Every read of the calls of one run that people-facing code needs: counts, groups, bars, failures. Runs are in `queries`.

A run's task runs are found by the range of ids that the history names, not through the index on (flow_run_id, ...):
that index is in no useful order, so a run of 500,000 calls would cost as many random reads (measured: 750 against
210 ms).
"""

from __future__ import annotations

import sqlite3

from wfengine_journal.rows import Bar, ExecutionCounts, Failure, TaskCount, TaskGroup, TaskRun

#: Durations a median is taken from; more would not move it for the eye, and cost time.
MEDIAN_SAMPLE = 10_000
DOUBT_DEPTH = 32  # levels of subflows in which a call in doubt is looked for
SPARSE = 20  # ids per row of the run above which rows are found by the index: they lie too far apart for a scan


def _task_range(connection: sqlite3.Connection, run_id: int) -> tuple[int, int]:
    """Return the smallest and largest task run id of a run, as the history's key names them; (1, 0): none."""
    first = connection.execute(
        "SELECT task_run_id FROM transition WHERE flow_run_id = ? AND task_run_id > 0 ORDER BY task_run_id LIMIT 1",
        (run_id,),
    ).fetchone()
    if first is None:
        return 1, 0
    last = connection.execute(
        "SELECT task_run_id FROM transition WHERE flow_run_id = ? ORDER BY task_run_id DESC LIMIT 1", (run_id,)
    ).fetchone()
    return first[0], last[0]


def count_task_runs(connection: sqlite3.Connection, run_id: int) -> int:
    """Return the number of calls of a run, subflow calls included."""
    row = connection.execute("SELECT count(*) FROM task_run WHERE flow_run_id = ?", (run_id,)).fetchone()
    return int(row[0])


def task_counts(connection: sqlite3.Connection, run_id: int) -> list[TaskCount]:
    """Return the run's calls counted by task and state, in the order of the tasks' first calls."""
    first_id, last_id = _task_range(connection, run_id)
    if _is_sparse(connection, run_id, first_id, last_id):
        rows = connection.execute(
            """
            SELECT k.kind, k.name, g.state, g.number, g.replayed, g.first_id FROM (
                SELECT t.task_id, t.state, count(*) AS number, min(t.id) AS first_id,
                       count(CASE WHEN t.epoch < r.epoch AND t.state IN ('COMPLETED', 'FAILED')
                                       AND t.orphaned_in IS NULL THEN 1 END) AS replayed
                FROM flow_run r CROSS JOIN task_run t ON t.flow_run_id = r.id
                WHERE r.id = ? GROUP BY t.task_id, t.state) g
            JOIN task k ON k.id = g.task_id ORDER BY g.first_id
            """,
            (run_id,),
        )
    else:
        rows = connection.execute(
            """
            SELECT k.kind, k.name, g.state, g.number, g.replayed, g.first_id FROM (
                SELECT t.task_id, t.state, count(*) AS number, min(t.id) AS first_id,
                       count(CASE WHEN t.epoch < r.epoch AND t.state IN ('COMPLETED', 'FAILED')
                                       AND t.orphaned_in IS NULL THEN 1 END) AS replayed
                FROM flow_run r CROSS JOIN task_run t ON +t.flow_run_id = r.id
                WHERE r.id = ? AND t.id BETWEEN ? AND ? GROUP BY t.task_id, t.state) g
            JOIN task k ON k.id = g.task_id ORDER BY g.first_id
            """,
            (run_id, first_id, last_id),
        )
    return [TaskCount(*row) for row in rows.fetchall()]


def execution_counts(connection: sqlite3.Connection, run_id: int) -> ExecutionCounts:
    """Return what the last execution of a run replayed, ran, and did not ask for again."""
    first_id, last_id = _task_range(connection, run_id)
    column = "t.flow_run_id" if _is_sparse(connection, run_id, first_id, last_id) else "+t.flow_run_id"
    row = connection.execute(
        f"""
        SELECT count(CASE WHEN t.epoch < r.epoch AND t.state IN ('COMPLETED', 'FAILED') AND t.orphaned_in IS NULL THEN 1 END),
               count(CASE WHEN t.epoch = r.epoch AND t.attempt > 0 AND t.state_name IS NOT 'Cached' THEN 1 END),
               count(t.orphaned_in),
               count(CASE WHEN t.epoch = r.epoch AND t.state_name = 'Cached' THEN 1 END)
        FROM flow_run r CROSS JOIN task_run t ON {column} = r.id
        WHERE r.id = ? AND t.id BETWEEN ? AND ? AND t.task_id IN (SELECT id FROM task WHERE kind = 'task')
        """,
        (run_id, first_id, last_id),
    ).fetchone()
    return ExecutionCounts(*row)


def _is_sparse(connection: sqlite3.Connection, run_id: int, first_id: int, last_id: int) -> bool:
    """Tell whether a run's task runs lie so far apart that the index finds them sooner than a scan of their range."""
    wide = last_id - first_id
    return wide > SPARSE * 1000 and wide > SPARSE * count_task_runs(connection, run_id)


def find_call_in_doubt(connection: sqlite3.Connection, run_id: int) -> tuple[int, int] | None:
    """Return (run id, task run id) of a call for which a parked run, or a subflow it waits in, waits; None: there is none."""
    for _ in range(DOUBT_DEPTH):
        row = connection.execute(
            """
            SELECT id FROM task_run WHERE flow_run_id = ? AND state = 'PAUSED'
              AND coalesce(state_name, '') NOT IN ('Paused', 'Suspended')
              AND task_id IN (SELECT id FROM task WHERE kind = 'task') ORDER BY id LIMIT 1
            """,
            (run_id,),
        ).fetchone()
        if row is not None:
            return run_id, int(row[0])
        child = connection.execute(
            """
            SELECT r.id FROM flow_run r JOIN task_run t ON t.id = r.parent_task_run_id
            WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND r.state = 'PAUSED' AND t.flow_run_id = ?
            ORDER BY r.id DESC LIMIT 1
            """,
            (run_id,),
        ).fetchone()
        if child is None:
            return None
        run_id = int(child[0])
    return None


def list_task_groups(connection: sqlite3.Connection, run_id: int) -> list[TaskGroup]:
    """Return the run's calls grouped by task, in the order of first calls, with durations and when they took place."""
    first_id, last_id = _task_range(connection, run_id)
    rows = connection.execute(
        """
        SELECT g.task_id, k.kind, k.name, g.number, g.completed, g.failed, g.interrupted, g.running, g.waiting, g.replayed,
               g.first_id, g.total_s,
               strftime('%s', g.first_started_at) - strftime('%s', g.run_started_at)
                   + (substr(g.first_started_at, 21, 6) - substr(g.run_started_at, 21, 6)) / 1e6,
               strftime('%s', g.last_ended_at) - strftime('%s', g.run_started_at)
                   + (substr(g.last_ended_at, 21, 6) - substr(g.run_started_at, 21, 6)) / 1e6
        FROM (
            SELECT t.task_id, count(*) AS number, min(t.id) AS first_id,
                   count(CASE WHEN t.state = 'COMPLETED' THEN 1 END) AS completed,
                   count(CASE WHEN t.state = 'FAILED' THEN 1 END) AS failed,
                   count(CASE WHEN t.state = 'CRASHED' THEN 1 END) AS interrupted,
                   count(CASE WHEN t.state = 'RUNNING' THEN 1 END) AS running,
                   count(CASE WHEN t.state IN ('SCHEDULED', 'PENDING', 'PAUSED') THEN 1 END) AS waiting,
                   count(CASE WHEN t.epoch < r.epoch AND t.state IN ('COMPLETED', 'FAILED') AND t.orphaned_in IS NULL
                         THEN 1 END) AS replayed,
                   coalesce(sum(CASE WHEN t.state = 'COMPLETED' THEN
                       strftime('%s', t.ended_at) - strftime('%s', t.started_at)
                       + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6 END), 0) AS total_s,
                   min(t.started_at) AS first_started_at, max(t.ended_at) AS last_ended_at,
                   r.started_at AS run_started_at
            FROM flow_run r CROSS JOIN task_run t ON +t.flow_run_id = r.id
            WHERE r.id = ? AND t.id BETWEEN ? AND ? GROUP BY t.task_id) g
        JOIN task k ON k.id = g.task_id ORDER BY g.first_id
        """,
        (run_id, first_id, last_id),
    ).fetchall()
    medians = _medians(connection, run_id, first_id, last_id, sum(row[3] for row in rows))
    return [_task_group(row, medians) for row in rows]


def _task_group(row: sqlite3.Row, medians: dict[int, float]) -> TaskGroup:
    task_id, *counts, total_s, starts_s, ends_s = row
    # A task called a few times in a very long run may have escaped the sample; its mean stands in.
    completed = row[4]
    median_s = medians.get(task_id, total_s / completed if completed else None)
    return TaskGroup(*[*counts, total_s, median_s, starts_s, ends_s])


def _medians(connection: sqlite3.Connection, run_id: int, first_id: int, last_id: int, count: int) -> dict[int, float]:
    """Return the median seconds of completed calls by task id, from evenly spread ones."""
    rows = connection.execute(
        """
        SELECT task_id, strftime('%s', ended_at) - strftime('%s', started_at)
                            + (substr(ended_at, 21, 6) - substr(started_at, 21, 6)) / 1e6
        FROM task_run
        WHERE id BETWEEN ? AND ? AND +flow_run_id = ? AND id % ? = 0
          AND state = 'COMPLETED' AND started_at IS NOT NULL AND ended_at IS NOT NULL
        """,
        (first_id, last_id, run_id, max(1, count // MEDIAN_SAMPLE)),
    ).fetchall()
    durations: dict[int, list[float]] = {}
    for task_id, seconds in rows:
        if seconds is not None:  # None: as in `list_bars`
            durations.setdefault(task_id, []).append(seconds)
    return {task_id: _median(seconds) for task_id, seconds in durations.items()}


def _median(seconds: list[float]) -> float:
    """Return the median; the module `statistics` has one too, and takes longer to load than all reads of a run take."""
    ordered = sorted(seconds)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def list_tasks(connection: sqlite3.Connection, run_id: int, *, limit: int = 100, after_id: int = 0) -> list[TaskRun]:
    """Return task runs of a run in the order of their calls; `after_id` continues after a page's last id."""
    rows = connection.execute(
        """
        SELECT t.id, t.task, t.name, t.state, t.state_name, t.attempts, t.inputs, t.result, t.error, t.started_at,
               t.ended_at, t.duration_s, t.message, t.next_attempt_at, t.parent_task_id, t.replayed, t.orphan
        FROM transition h CROSS JOIN tasks t ON t.id = h.task_run_id
        WHERE h.flow_run_id = ? AND h.task_run_id > ? AND h.seq = 1 ORDER BY h.task_run_id LIMIT ?
        """,
        (run_id, after_id, limit),
    ).fetchall()
    return [TaskRun(*[*row[:15], bool(row[15]), bool(row[16])]) for row in rows]


def list_bars(connection: sqlite3.Connection, run_id: int, *, limit: int = 100, after_id: int = 0) -> list[Bar]:
    """Return when each call of a run took place, subflow calls included, in the order of the calls."""
    rows = connection.execute(
        """
        SELECT k.kind, k.name, t.id, t.state,
               strftime('%s', t.started_at) - strftime('%s', r.started_at)
                   + (substr(t.started_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6,
               strftime('%s', t.ended_at) - strftime('%s', t.started_at)
                   + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6
        FROM transition h
        CROSS JOIN task_run t ON t.id = h.task_run_id
        JOIN task k ON k.id = t.task_id
        JOIN flow_run r ON r.id = t.flow_run_id
        WHERE h.flow_run_id = ? AND h.task_run_id > ? AND h.seq = 1 AND t.started_at IS NOT NULL
        ORDER BY h.task_run_id LIMIT ?
        """,
        (run_id, after_id, limit),
    )
    return [Bar(*row) for row in rows.fetchall() if row[4] is not None]  # None: an instant that is none, in a damaged file


def list_failures(connection: sqlite3.Connection, run_id: int, *, limit: int = 20) -> list[Failure]:
    """Return the failure of the run itself, then its failed calls, those that ended the run first."""
    first_id, last_id = _task_range(connection, run_id)
    rows = connection.execute(
        """
        SELECT NULL, NULL, coalesce(e.type, r.state), coalesce(e.message, r.state_message, ''),
               coalesce(e.traceback, ''),
               r.epoch, 1 AS ended_the_run, 0 AS position
        FROM flow_run r LEFT JOIN error e ON e.id = r.error_id WHERE r.id = ? AND r.state IN ('FAILED', 'CRASHED')
        UNION ALL
        SELECT k.name, t.id, coalesce(e.type, t.state), coalesce(e.message, t.state_message, ''),
               coalesce(e.traceback, ''),
               t.attempt, coalesce(t.fatal, 0), t.id
        FROM task_run t JOIN task k ON k.id = t.task_id LEFT JOIN error e ON e.id = t.error_id
        WHERE t.state = 'FAILED' AND t.id BETWEEN ? AND ? AND +t.flow_run_id = ?
        ORDER BY ended_the_run DESC, position LIMIT ?
        """,
        (run_id, first_id, last_id, run_id, limit),
    ).fetchall()
    return [Failure(*[*row[:6], bool(row[6])]) for row in rows]
