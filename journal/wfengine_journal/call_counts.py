"""How many calls of each task a run made, how they ended and how long they took: what is read of every call of a run.

Nothing else that a page reads looks at all calls of a run, so this is what the page of a very large run takes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from wfengine_journal.rows import TaskGroup

#: Durations that quantiles are taken from.
SAMPLE = 2_000
#: Ids that one statement goes through. So few rows are sorted by task without leaving the processor's cache: all of 100,000
#: calls at once take a quarter longer.
AT_ONCE = 4_000
#: Statements at the most: where the calls of a run lie far apart, each goes through more ids.
STATEMENTS = 1_000

#: How the calls of a group are told apart, as numbers: see `_COUNTED`.
_COMPLETED, _FAILED, _INTERRUPTED, _RUNNING, _WAITING = range(5)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long completed calls of one task took, in seconds."""

    median_s: float
    p95_s: float
    mean_s: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Calls whose ids lie next to each other, and when they took place. `last_ended_at`: None while one has not ended."""

    first_id: int
    last_id: int
    first_started_at: str | None
    last_ended_at: str | None


@dataclass(slots=True)
class _Counts:
    """What was counted of one task. `by_state`: by the numbers above."""

    first_id: int
    by_state: list[int]
    count: int = 0
    replayed: int = 0
    first_started_at: str | None = None
    last_ended_at: str | None = None


#: One number says task, whether the outcome is of an earlier execution (8), and the state: fewer columns to sort.
_COUNTED = """
    SELECT t.task_id * 16 + (t.epoch < ? AND t.orphaned_in IS NULL) * 8
               + CASE t.state WHEN 'COMPLETED' THEN 0 WHEN 'FAILED' THEN 1 WHEN 'CRASHED' THEN 2 WHEN 'RUNNING' THEN 3
                              WHEN 'SCHEDULED' THEN 4 WHEN 'PENDING' THEN 4 WHEN 'PAUSED' THEN 4 ELSE 5 END,
           count(*), count(t.ended_at), min(t.id), min(t.started_at), max(t.ended_at)
    FROM task_run t WHERE t.id BETWEEN ? AND ? AND +t.flow_run_id = ? GROUP BY 1
"""


def count_groups(connection: sqlite3.Connection, run_id: int) -> list[TaskGroup]:
    """Return the run's calls grouped by task, in the order of first calls.

    As `queries.list_task_groups`, in a quarter of its time: median and sum are left to `task_quantiles`, and are null and 0.
    """
    return count_calls(connection, run_id)[0]


def count_calls(connection: sqlite3.Connection, run_id: int) -> tuple[list[TaskGroup], list[Stretch]]:
    """Return what `count_groups` does, and when the calls took place, by stretches of their ids: all of them, in order."""
    connection.execute("BEGIN")  # all of it is read of one state of the file
    try:
        found, stretches = _counted(connection, run_id)
        groups = [
            _group(connection, run_id, task_id, found[task_id])
            for task_id in sorted(found, key=lambda each: found[each].first_id)
        ]
        return groups, stretches
    finally:
        connection.execute("COMMIT")


def _counted(connection: sqlite3.Connection, run_id: int) -> tuple[dict[int, _Counts], list[Stretch]]:
    epoch, first_id, last_id = connection.execute(
        """
        SELECT (SELECT epoch FROM flow_run WHERE id = :run),
               (SELECT task_run_id FROM transition WHERE flow_run_id = :run AND task_run_id > 0 ORDER BY task_run_id LIMIT 1),
               (SELECT task_run_id FROM transition WHERE flow_run_id = :run ORDER BY task_run_id DESC LIMIT 1)
        """,
        {"run": run_id},
    ).fetchone()
    found: dict[int, _Counts] = {}
    stretches: list[Stretch] = []
    if epoch is None or first_id is None:
        return found, stretches
    step = max(AT_ONCE, (last_id - first_id) // STATEMENTS + 1)
    for start in range(first_id, last_id + 1, step):
        end = min(start + step - 1, last_id)
        have_ended, starts, ends = True, [], []
        for key, count, ended, call_id, started_at, ended_at in connection.execute(_COUNTED, (epoch, start, end, run_id)):
            task_id, kind = divmod(key, 16)
            counts = found.setdefault(task_id, _Counts(call_id, [0] * 6))
            counts.first_id = min(counts.first_id, call_id)
            counts.count += count
            counts.by_state[kind % 8] += count
            counts.replayed += count if kind in (8 + _COMPLETED, 8 + _FAILED) else 0
            counts.first_started_at = min(filter(None, (counts.first_started_at, started_at)), default=None)
            counts.last_ended_at = max(filter(None, (counts.last_ended_at, ended_at)), default=None)
            have_ended = have_ended and ended == count
            starts.append(started_at)
            ends.append(ended_at)
        if starts:  # otherwise all calls in it are those of other runs
            last_ended_at = max(filter(None, ends), default=None) if have_ended else None
            stretches.append(Stretch(start, end, min(filter(None, starts), default=None), last_ended_at))
    return found, stretches


def _group(connection: sqlite3.Connection, run_id: int, task_id: int, counts: _Counts) -> TaskGroup:
    kind, task, starts_s, ends_s = connection.execute(
        """
        SELECT k.kind, k.name,
               strftime('%s', :started) - strftime('%s', r.started_at)
                   + (substr(:started, 21, 6) - substr(r.started_at, 21, 6)) / 1e6,
               strftime('%s', :ended) - strftime('%s', r.started_at)
                   + (substr(:ended, 21, 6) - substr(r.started_at, 21, 6)) / 1e6
        FROM flow_run r JOIN task k ON k.id = :task WHERE r.id = :run
        """,
        {"started": counts.first_started_at, "ended": counts.last_ended_at, "task": task_id, "run": run_id},
    ).fetchone()
    by_state = counts.by_state
    return TaskGroup(
        kind, task, counts.count, by_state[_COMPLETED], by_state[_FAILED], by_state[_INTERRUPTED], by_state[_RUNNING],
        by_state[_WAITING], counts.replayed, counts.first_id, 0.0, None, starts_s, ends_s,
    )  # fmt: skip


def task_quantiles(connection: sqlite3.Connection, run_id: int) -> dict[tuple[str, str], Quantiles]:
    """Return quantiles by kind and name of what was called, out of no more than `SAMPLE` calls, evenly spread by their ids."""
    rows = connection.execute(
        """
        WITH RECURSIVE
            edge (first, last) AS (
                SELECT (SELECT task_run_id FROM transition WHERE flow_run_id = :run AND task_run_id > 0
                        ORDER BY task_run_id LIMIT 1),
                       (SELECT task_run_id FROM transition WHERE flow_run_id = :run ORDER BY task_run_id DESC LIMIT 1)),
            chosen (id, step, last) AS (
                SELECT first, 1 + (last - first) / :sample, last FROM edge WHERE first IS NOT NULL
                UNION ALL SELECT id + step, step, last FROM chosen WHERE id + step <= last)
        SELECT k.kind, k.name, strftime('%s', t.ended_at) - strftime('%s', t.started_at)
                               + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6
        FROM chosen c CROSS JOIN task_run t ON t.id = c.id JOIN task k ON k.id = t.task_id
        WHERE t.flow_run_id = :run AND t.state = 'COMPLETED' AND t.started_at IS NOT NULL AND t.ended_at IS NOT NULL
        """,
        {"run": run_id, "sample": SAMPLE},
    ).fetchall()
    durations: dict[tuple[str, str], list[float]] = {}
    for kind, name, seconds in rows:
        if seconds is not None:  # None: an instant that is none, in a damaged file
            durations.setdefault((kind, name), []).append(seconds)
    found = {}
    for key, values in durations.items():
        values.sort()
        tail = values[min(len(values) - 1, len(values) * 95 // 100)]
        found[key] = Quantiles(values[len(values) // 2], tail, sum(values) / len(values))
    return found
