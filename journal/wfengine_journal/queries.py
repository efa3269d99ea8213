"""Every read of runs, their history and their logs that people-facing code needs: the command line and the page.

A connection comes from `reading` (or `connection.open_reader`), rows leave as frozen dataclasses. Nothing here writes,
and nothing turns a stored value back into an object: what is shown is JSON text, or the preview made at write time. What
is read of a run's calls is in `task_queries`, which these use.
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
from wfengine_journal.rows import Execution, LogLine, Run, Transition
from wfengine_journal.task_queries import task_counts

LAST = "@last"  # the reference that means the run started last
MAX_ID = 2**63 - 1  # larger than any id SQLite gives
#: How many names an error about an unknown or ambiguous run lists, and among how many of the newest runs it looks.
NAMES_LISTED = 5
NAMES_SEARCHED = 1000
NAME_WIDTH = 60  # characters of a name in such a list


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
