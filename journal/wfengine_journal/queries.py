"""Every read that people-facing code needs: the command line, and later the web page.

A connection comes from `reading` (or `connection.open_reader`), rows leave as frozen dataclasses. Nothing here writes,
and nothing turns a stored value back into an object: what is shown is JSON text, or the preview made at write time.

A run's task runs are found by the range of ids that the history names, not through the index on (flow_run_id, ...):
that index is in no useful order, so a run of 500,000 calls would cost as many random reads (measured: 750 against
210 ms).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from wfengine_journal.connection import explain, heed_signals, inspect_file, open_reader, primary_code, raise_if_damaged
from wfengine_journal.errors import JournalNotFoundError, NotFoundError
from wfengine_journal.previews import clean
from wfengine_journal.rows import (
    Bar,
    Execution,
    ExecutionCounts,
    Failure,
    LogLine,
    Run,
    TaskCount,
    TaskGroup,
    TaskRun,
    Transition,
)

LAST = "@last"  # the reference that means the run started last
MAX_ID = 2**63 - 1  # larger than any id SQLite gives
#: How many names an error about an unknown or ambiguous run lists, and among how many of the newest runs it looks.
NAMES_LISTED = 5
NAMES_SEARCHED = 1000
NAME_WIDTH = 60  # characters of a name in such a list
#: Durations a median is taken from; more would not move it for the eye, and cost time.
MEDIAN_SAMPLE = 10_000
DOUBT_DEPTH = 32  # levels of subflows in which a call in doubt is looked for
SPARSE = 20  # ids per row of the run above which rows are found by the index: they lie too far apart for a scan


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal read-only, after checking that it is one; text that is not UTF-8 is read with replacements.

    What SQLite reports inside the block is raised as the JournalError that explains it; Ctrl-C ends a statement.
    """
    try:
        if inspect_file(path) == 0:
            raise JournalNotFoundError(f"The journal {path} is empty. Run a flow first: wfengine run FILE")
        with closing(open_reader(path)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            heed_signals(connection)
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:
        interrupted = isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_INTERRUPT
        raise (KeyboardInterrupt() if interrupted else explain(error, path)) from error
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise_if_damaged(path, error)  # a row of a wrong page, say: then it is no fault of ours
        raise


# ---------------------------------------------------------------------------------------------------- runs


def list_runs(
    connection: sqlite3.Connection,
    *,
    states: Sequence[str] = (),
    flow: str | None = None,
    since: str | None = None,
    top_level: bool = False,
    before_id: int = MAX_ID,
    limit: int = 20,
) -> list[Run]:
    """Return runs, newest first: those in one of the states, of the flow, created at `since` or later.

    `before_id` continues after a page's last id. `top_level` leaves subflow runs out.
    """
    rows = _runs(
        connection,
        states=states,
        flow=flow,
        since=since,
        top_level=top_level,
        first_id=0,
        before_id=before_id,
        limit=limit,
    )
    return [_counted(connection, run) for run in rows]


def get_run_head(connection: sqlite3.Connection, run_id: int) -> Run:
    """Return a run without counting its tasks while it is going on. Raises NotFoundError."""
    rows = _runs(connection, states=(), flow=None, since=None, top_level=False, first_id=run_id, before_id=run_id + 1, limit=1)
    if not rows:
        raise NotFoundError(f"There is no run {run_id} in this journal. List runs with: wfengine runs ls")
    return rows[0]


def _runs(
    connection: sqlite3.Connection,
    *,
    states: Sequence[str],
    flow: str | None,
    since: str | None,
    top_level: bool,
    first_id: int,
    before_id: int,
    limit: int,
) -> list[Run]:
    narrow, by_id = _index_for(states)
    rows = connection.execute(
        f"""
        SELECT r.id, r.name, f.name, r.state,
               coalesce(r.state_name, substr(r.state, 1, 1) || lower(substr(r.state, 2))),
               r.state_message, r.parameters,
               CASE WHEN r.result_hash IS NULL THEN NULL
                    WHEN r.result_codec = 'json' AND r.result IS NOT NULL THEN r.result
                    ELSE r.result_preview END,
               CASE WHEN r.state IN ('FAILED', 'CRASHED', 'PAUSED', 'SCHEDULED')
                    THEN coalesce(e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END,
                                  r.state_message) END,
               r.epoch, r.tasks_done, r.tasks_total, r.created_at, r.started_at, r.ended_at,
               round(strftime('%s', r.ended_at) - strftime('%s', r.started_at)
                     + (substr(r.ended_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6, 6),
               r.tags, r.idempotency_key, r.durability, r.next_attempt_at,
               (SELECT p.flow_run_id FROM task_run p WHERE p.id = r.parent_task_run_id), r.parent_task_run_id,
               r.entrypoint, o.pid, o.host
        FROM flow_run r
        JOIN flow f ON f.id = r.flow_id
        LEFT JOIN error e ON e.id = r.error_id
        LEFT JOIN owner o ON o.id = r.owner_id
        WHERE {by_id} >= :first_id AND {by_id} < :before_id
          AND (:states = '' OR instr(:states, '|' || r.state || '|') > 0)
          AND (:flow IS NULL OR f.name = :flow)
          AND (:since IS NULL OR r.created_at >= :since)
          AND (NOT :top_level OR r.parent_task_run_id IS NULL) {narrow}
        ORDER BY {by_id} DESC LIMIT :limit
        """,
        {
            "first_id": first_id,
            "before_id": before_id,
            "states": f"|{'|'.join(states)}|" if states else "",
            "flow": flow,
            "since": since,
            "top_level": top_level,
            "limit": limit,
        },
    )
    return [Run(*row) for row in rows.fetchall()]


def _index_for(states: Sequence[str]) -> tuple[str, str]:
    """Return a further condition by which SQLite finds the few runs in these states, if they are few, and how to name the id.

    With a + before it the id is not searched by: for the order's sake, SQLite would go through every run there is.
    """
    if set(states) == {"FAILED"}:
        return "AND r.state = 'FAILED'", "r.id"
    if states and not {"COMPLETED", "FAILED", "CANCELLED"} & set(states):
        return "AND r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')", "+r.id"
    return "", "r.id"


def _counted(connection: sqlite3.Connection, run: Run) -> Run:
    """Return the run with the task counts that stand in its row only after it ended."""
    if run.tasks_total is not None and run.tasks_done is not None:
        return run
    counts = [count for count in task_counts(connection, run.id) if count.kind == "task"]
    done = sum(count.count for count in counts if count.state == "COMPLETED")
    return replace(run, tasks_done=done, tasks_total=sum(count.count for count in counts))


def get_run(connection: sqlite3.Connection, reference: int | str) -> Run:
    """Return the one run that an id, a name, a unique beginning of a name, or '@last' means.

    Raises NotFoundError that lists near names, or the runs if there are several.
    """
    ids = [reference] if isinstance(reference, int) else find_runs(connection, reference)
    if len(ids) == 1:
        return _counted(connection, get_run_head(connection, ids[0]))
    if ids:
        raise NotFoundError(_several(connection, str(reference), ids))
    raise NotFoundError(_unknown(connection, str(reference)))


def find_runs(connection: sqlite3.Connection, reference: str) -> list[int]:
    """Return the ids of the runs a reference may mean, newest first: an id, '@last', a name, or its beginning."""
    if reference == LAST:
        # A flow may have put background runs into the queue since: the last one that somebody started is meant.
        newest = "SELECT id FROM flow_run WHERE parent_task_run_id IS NULL{} ORDER BY id DESC LIMIT 1"
        last = connection.execute(newest.format(" AND queue IS NULL")).fetchall()
        return [row[0] for row in last or connection.execute(newest.format("")).fetchall()]
    if not reference or any("\ud800" <= character <= "\udfff" for character in reference):
        return []  # an argument that is not UTF-8 is no name
    if reference.isascii() and reference.isdigit() and int(reference) < MAX_ID:
        rows = connection.execute("SELECT id FROM flow_run WHERE id = ?", (int(reference),))
        if found := rows.fetchall():
            return [row[0] for row in found]
    rows = connection.execute("SELECT id FROM flow_run WHERE name = ? ORDER BY id DESC LIMIT 100", (reference,))
    if found := rows.fetchall():
        return [row[0] for row in found]
    rows = connection.execute(
        "SELECT id FROM flow_run WHERE name >= ? AND name < ? ORDER BY id DESC LIMIT 100",
        (reference, reference + "\U0010ffff"),
    )
    return [row[0] for row in rows.fetchall()]


def _several(connection: sqlite3.Connection, reference: str, ids: Sequence[int]) -> str:
    heads = [get_run_head(connection, run_id) for run_id in ids[:NAMES_LISTED]]
    listed = ", ".join(f"{run.id} ({clean(run.name, NAME_WIDTH)}, {clean(run.state_name, NAME_WIDTH)})" for run in heads)
    more = ", ..." if len(ids) > NAMES_LISTED else ""
    return f"{reference!r} fits {len(ids)} runs: {listed}{more}. Name one by its id."


def _unknown(connection: sqlite3.Connection, reference: str) -> str:
    import difflib

    if reference == LAST:
        return "There is no run in this journal yet. Start one with: wfengine run FILE"
    rows = connection.execute("SELECT name FROM flow_run ORDER BY id DESC LIMIT ?", (NAMES_SEARCHED,)).fetchall()
    names = list(dict.fromkeys(row[0] for row in rows))
    near = difflib.get_close_matches(reference, names, NAMES_LISTED) or names[:NAMES_LISTED]
    known = (
        f" Runs with near names: {', '.join(clean(name, NAME_WIDTH) for name in near)}."
        if near
        else " The journal holds no runs."
    )
    return f"There is no run {reference!r}.{known} List runs with: wfengine runs ls"


def find_newest_run_of(connection: sqlite3.Connection, pid: int, since: str, after_id: int) -> int | None:
    """Return the newest top-level run that process `pid` executes: one created after `after_id`, or one it took up.

    `since` is when the process began to look: an owner row older than that is of another process with the same pid.
    """
    row = connection.execute(
        """
        SELECT max(id) FROM (
            SELECT r.id FROM flow_run r JOIN owner o ON o.id = r.owner_id
            WHERE r.id > ? AND r.parent_task_run_id IS NULL AND o.pid = ? AND o.started_at >= ?
            UNION ALL
            SELECT r.id FROM flow_run r JOIN owner o ON o.id = r.owner_id
            WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND r.state = 'RUNNING'
              AND r.parent_task_run_id IS NULL AND o.pid = ? AND o.started_at >= ?)
        """,
        (after_id, pid, since, pid, since),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def has_open_runs(connection: sqlite3.Connection) -> bool:
    """Tell whether a run counts as being executed, so that its process may have died unnoticed."""
    row = connection.execute(
        """
        SELECT 1 FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
          AND state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING') LIMIT 1
        """
    ).fetchone()
    return row is not None


def find_open_run(connection: sqlite3.Connection) -> int | None:
    """Return the newest top-level run that is being executed; None if there is none."""
    row = connection.execute(
        """
        SELECT id FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
          AND state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING') AND parent_task_run_id IS NULL
        ORDER BY id DESC LIMIT 1
        """
    ).fetchone()
    return None if row is None else int(row[0])


def newest_run_id(connection: sqlite3.Connection) -> int:
    """Return the largest run id; 0 where there is none."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM flow_run").fetchone()[0])


def list_subflow_runs(connection: sqlite3.Connection, run_id: int, limit: int) -> list[Run]:
    """Return the runs that the run's subflow calls started, in order of their start."""
    rows = connection.execute(
        """
        SELECT c.id FROM task_run t JOIN flow_run c ON c.parent_task_run_id = t.id
        WHERE t.flow_run_id = ? AND t.task_id IN (SELECT id FROM task WHERE kind = 'flow')
        ORDER BY c.id LIMIT ?
        """,
        (run_id, limit),
    ).fetchall()
    return [_counted(connection, get_run_head(connection, row[0])) for row in rows]


def list_executions(connection: sqlite3.Connection, run_id: int) -> list[Execution]:
    """Return the starts of a run's body, oldest first."""
    rows = connection.execute(
        """
        SELECT x.epoch, x.reason, x.started_at, o.pid, o.host, x.exit_code, x.peak_memory_bytes, x.output
        FROM execution x JOIN owner o ON o.id = x.owner_id WHERE x.flow_run_id = ? ORDER BY x.epoch
        """,
        (run_id,),
    )
    return [Execution(*row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- tasks


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
    if _is_sparse(connection, run_id, first_id, last_id):
        first_id, last_id, column = 1, MAX_ID, "t.flow_run_id"
    else:
        column = "+t.flow_run_id"
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


# ---------------------------------------------------------------------------------------------------- history and logs


def list_history(connection: sqlite3.Connection, run_id: int, *, limit: int = 1000) -> list[Transition]:
    """Return the first `limit` state changes of a run and its calls, oldest first."""
    rows = connection.execute(
        """
        SELECT h.at, h.task_id, h.task, h.seq, h.state, h.state_name, h.attempt, h.message, h.error
        FROM history h WHERE h.run_id = ? ORDER BY h.at, coalesce(h.task_id, 0), h.seq LIMIT ?
        """,
        (run_id, limit),
    )
    return [Transition(*row) for row in rows.fetchall()]


def list_run_transitions(connection: sqlite3.Connection, run_id: int, *, after_seq: int = 0) -> list[Transition]:
    """Return the state changes of the run itself after its change number `after_seq`."""
    rows = connection.execute(
        """
        SELECT h.at, NULL, NULL, h.seq, h.state,
               coalesce(h.state_name, substr(h.state, 1, 1) || lower(substr(h.state, 2))), h.attempt, h.message,
               e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END
        FROM transition h LEFT JOIN error e ON e.id = h.error_id
        WHERE h.flow_run_id = ? AND h.task_run_id = 0 AND h.seq > ? ORDER BY h.seq
        """,
        (run_id, after_seq),
    )
    return [Transition(*row) for row in rows.fetchall()]


def list_logs(
    connection: sqlite3.Connection,
    run_id: int,
    *,
    after_id: int = 0,
    level: int = 0,
    task: str | None = None,
    limit: int = 1000,
) -> list[LogLine]:
    """Return logged messages of a run at the level or above, oldest first; `after_id` continues a page."""
    rows = connection.execute(
        """
        SELECT l.id, l.at, l.level, l.task_run_id, k.name, l.logger, l.message
        FROM log l LEFT JOIN task_run t ON t.id = l.task_run_id LEFT JOIN task k ON k.id = t.task_id
        WHERE l.flow_run_id = ? AND l.id > ? AND l.level >= ? AND (? IS NULL OR k.name = ?) ORDER BY l.id LIMIT ?
        """,
        (run_id, after_id, level, task, task, limit),
    )
    return [LogLine(*row) for row in rows.fetchall()]


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
