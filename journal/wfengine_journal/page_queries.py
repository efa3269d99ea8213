"""What the page reads beside `queries`: runs that were searched for, how things are, and parts of very large runs.

No read here goes through all there is of something that grows: each looks at so many rows at the most (`SCANNED`), and says
where it stopped, from where the next one goes on. How many rows there are in the file plays no part.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import STEPS_BETWEEN_LOOKS, primary_code
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.queries import MAX_ID, get_run_head, reading
from wfengine_journal.rows import LogLine, Run, TaskRun, Transition

#: Rows that one read looks at, before it says that there may be more.
SCANNED = 20_000
#: Runs whose logs one read goes through, and lines of a run that are searched for a text.
SCANNED_FOR_LOGS = 500
SCANNED_LINES = 50_000
#: Calls that are counted of a run that is going on.
COUNTED = 10_000


@contextmanager
def limited_reading(path: Path, limit_seconds: float) -> Iterator[sqlite3.Connection]:
    """Open a journal read-only for reads that end after so many seconds. Raises UsageError for one that would not."""
    clock = SystemClock()
    until = clock.monotonic_seconds() + limit_seconds
    with reading(path) as connection:
        connection.set_progress_handler(lambda: int(clock.monotonic_seconds() > until), STEPS_BETWEEN_LOOKS)
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            raise UsageError(f"That took longer than {limit_seconds:g} s, and was stopped. Ask for less.") from error


# ---------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant; what is not said restricts nothing. Times as in the file, durations in seconds."""

    states: tuple[str, ...] = ()
    flow: str | None = None
    tag: str | None = None
    deployment: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()  # name, and the value's text
    since: str | None = None
    until: str | None = None
    longer_than_s: float | None = None
    shorter_than_s: float | None = None
    text: str | None = None  # in id, name, flow, parameters or message
    log: str | None = None  # in a line that it logged
    subflows: bool = False


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """A page of runs, newest first. `next_before`: from where the next page goes on; None: there are no more."""

    runs: list[Run]
    next_before: int | None
    searched_to: int  # no run with an id below it was looked at


#: Conditions by the name of what they need. Values are bound, and the texts are these and no others.
_CONDITIONS = {
    "flow": "f.name = :flow",
    "tag": "EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(r.tags) THEN r.tags ELSE '[]' END) j WHERE j.value = :tag)",
    "deployment": "EXISTS (SELECT 1 FROM deployment d WHERE d.id = r.deployment_id AND f.name || '/' || d.name = :deployment)",
    "since": "r.created_at >= :since",
    "until": "r.created_at < :until",
    "longer_than_s": "(julianday(coalesce(r.ended_at, :now)) - julianday(r.started_at)) * 86400 > :longer_than_s",
    "shorter_than_s": "(julianday(coalesce(r.ended_at, :now)) - julianday(r.started_at)) * 86400 < :shorter_than_s",
    "text": "(CAST(r.id AS TEXT) = :text OR instr(lower(r.name), lower(:text)) OR instr(lower(f.name), lower(:text))"
    " OR instr(lower(r.parameters), lower(:text)) OR instr(lower(coalesce(r.state_message, '')), lower(:text)))",
    "log": "EXISTS (SELECT 1 FROM (SELECT l.message FROM log l WHERE l.flow_run_id = r.id ORDER BY l.id DESC LIMIT 1000) l"
    " WHERE instr(lower(l.message), lower(:log)))",
}
_PARAMETER = (
    "EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(r.parameters) THEN r.parameters ELSE '{}' END) j"
    " WHERE j.key = :%s AND (CAST(j.value AS TEXT) = :%s OR (j.type IN ('true', 'false') AND j.type = lower(:%s))))"
)


def search_runs(
    connection: sqlite3.Connection, wanted: RunFilter, *, before_id: int = MAX_ID, limit: int = 50
) -> FoundRuns:  # fmt: skip
    """Return the newest runs below an id that are meant, looking at no more than `SCANNED` of them."""
    ids, low = _search(connection, wanted, before_id, limit + 1)
    runs = [get_run_head(connection, run_id) for run_id in ids[:limit]]
    if len(ids) > limit:
        return FoundRuns(runs, runs[-1].id, runs[-1].id)
    return FoundRuns(runs, low if low > 0 else None, low)


def match_runs(connection: sqlite3.Connection, wanted: RunFilter, limit: int) -> list[int]:
    """Return the ids of all runs that are meant, newest first, as far as one read looks, and no more than `limit`."""
    return _search(connection, wanted, MAX_ID, limit)[0]


def _search(connection: sqlite3.Connection, wanted: RunFilter, before_id: int, limit: int) -> tuple[list[int], int]:
    """Return ids, and the smallest id that was looked at; 0: the end was reached."""
    states = set(wanted.states)
    narrow, order = "1", "id"
    if states == {"FAILED"}:
        narrow = "state = 'FAILED'"
    elif states and not states & {"COMPLETED", "FAILED", "CANCELLED"}:
        # By the index of the runs that have not ended, which are few; in the order of ids every run would be looked at.
        narrow, order = "state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')", "+id"
    scanned = SCANNED if wanted.log is None else SCANNED_FOR_LOGS
    counted = connection.execute(
        f"SELECT count(*), min(id) FROM (SELECT id FROM flow_run WHERE {narrow} AND {order} < ? ORDER BY {order} DESC LIMIT ?)",
        (before_id, scanned),
    ).fetchone()
    low = counted[1] or 0
    values: dict[str, object] = {"low": low, "before": before_id, "limit": limit, "now": SystemClock().now_text()}
    conditions = [narrow.replace("state", "r.state")]
    for name, condition in _CONDITIONS.items():
        if (value := getattr(wanted, name)) is not None:
            conditions.append(condition)
            values[name] = value
    if states:
        names = [f"s{number}" for number in range(len(wanted.states))]
        conditions.append(f"r.state IN ({', '.join(f':{name}' for name in names)})")
        values |= dict(zip(names, wanted.states, strict=True))
    for number, (key, text) in enumerate(wanted.parameters):
        conditions.append(_PARAMETER % (f"k{number}", f"v{number}", f"v{number}"))
        values |= {f"k{number}": key, f"v{number}": text}
    if not wanted.subflows:
        conditions.append("r.parent_task_run_id IS NULL")
    by_id = f"{'+' if order == '+id' else ''}r.id"
    rows = connection.execute(
        f"""
        SELECT r.id FROM flow_run r JOIN flow f ON f.id = r.flow_id
        WHERE {by_id} >= :low AND {by_id} < :before AND {" AND ".join(conditions)} ORDER BY {by_id} DESC LIMIT :limit
        """,
        values,
    ).fetchall()
    return [row[0] for row in rows], low if counted[0] == scanned else 0


# ---------------------------------------------------------------------------------------------------- how things are


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many runs are in one state, of those that were looked at."""

    state: str
    count: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Runs that were created in one stretch of time."""

    starts_at: str
    completed: int
    failed: int
    other: int


@dataclass(frozen=True, slots=True)
class FailingFlow:
    """A flow of which runs failed or crashed, and the newest of them."""

    flow: str
    failed: int
    runs: int
    run_id: int
    run_name: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Upcoming:
    """What is due next."""

    at: str
    deployment: str
    what: str
    run_id: int | None


def window_start(connection: sqlite3.Connection, scanned: int = SCANNED) -> int:
    """Return the id from which on there are no more runs than one read looks at."""
    row = connection.execute(
        "SELECT min(id) FROM (SELECT id FROM flow_run ORDER BY id DESC LIMIT ?)", (scanned,)
    ).fetchone()  # fmt: skip
    return int(row[0] or 0)


def count_states(connection: sqlite3.Connection, from_id: int, since: str) -> list[StateCount]:
    """Return runs of their own by state: of those that have not ended all, of the others those created since then."""
    rows = connection.execute(
        """
        SELECT state, count(*) FROM flow_run
        WHERE id >= ? AND created_at >= ? AND state IN ('COMPLETED', 'FAILED', 'CANCELLED') AND parent_task_run_id IS NULL
        GROUP BY state
        UNION ALL
        SELECT state, count(*) FROM flow_run INDEXED BY flow_run_open
        WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND parent_task_run_id IS NULL GROUP BY state
        """,
        (from_id, since),
    )
    return [StateCount(*row) for row in rows.fetchall()]


def count_buckets(connection: sqlite3.Connection, from_id: int, since: str, seconds: int) -> list[Bucket]:
    """Return runs of their own by when they were created, in stretches of so many seconds; empty ones are left out."""
    rows = connection.execute(
        """
        SELECT strftime('%Y-%m-%dT%H:%M:%SZ', bucket * :seconds, 'unixepoch'),
               count(CASE WHEN state = 'COMPLETED' THEN 1 END),
               count(CASE WHEN state IN ('FAILED', 'CRASHED') THEN 1 END),
               count(CASE WHEN state NOT IN ('COMPLETED', 'FAILED', 'CRASHED') THEN 1 END)
        FROM (SELECT strftime('%s', created_at) / :seconds AS bucket, state FROM flow_run
              WHERE id >= :from_id AND created_at >= :since AND parent_task_run_id IS NULL)
        GROUP BY bucket ORDER BY bucket
        """,
        {"seconds": seconds, "from_id": from_id, "since": since},
    )
    return [Bucket(*row) for row in rows.fetchall()]


def list_failing_flows(connection: sqlite3.Connection, from_id: int, since: str, limit: int) -> list[FailingFlow]:
    """Return flows of which runs failed or crashed since then, those with the most failures first."""
    rows = connection.execute(
        """
        SELECT f.name, g.failed, g.number, r.id, r.name,
               coalesce(e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END, r.state_message)
        FROM (SELECT flow_id, count(*) AS number, count(CASE WHEN state IN ('FAILED', 'CRASHED') THEN 1 END) AS failed,
                     max(CASE WHEN state IN ('FAILED', 'CRASHED') THEN id END) AS last_id
              FROM flow_run WHERE id >= ? AND created_at >= ? AND parent_task_run_id IS NULL GROUP BY flow_id) g
        JOIN flow f ON f.id = g.flow_id JOIN flow_run r ON r.id = g.last_id LEFT JOIN error e ON e.id = r.error_id
        WHERE g.failed > 0 ORDER BY g.failed DESC, f.name LIMIT ?
        """,
        (from_id, since, limit),
    )
    return [FailingFlow(*row) for row in rows.fetchall()]


@dataclass(frozen=True, slots=True)
class ParkedRun:
    """A run that stopped because a person has to decide: a call is in doubt, or came back with other inputs."""

    run_id: int
    run_name: str
    state_name: str
    message: str | None
    at: str


def list_parked_runs(connection: sqlite3.Connection, limit: int) -> list[ParkedRun]:
    """Return the runs that wait for a person's word on a call, the newest first."""
    rows = connection.execute(
        """
        SELECT r.id, r.name, r.state_name, r.state_message,
               (SELECT h.at FROM transition h WHERE h.flow_run_id = r.id AND h.task_run_id = 0 ORDER BY h.seq DESC LIMIT 1)
        FROM flow_run r
        WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND r.state = 'PAUSED' AND r.parent_task_run_id IS NULL
          AND r.state_name IN ('Drifted', 'InDoubt')
        ORDER BY r.id DESC LIMIT ?
        """,
        (limit,),
    )
    return [ParkedRun(*row) for row in rows.fetchall()]


def list_upcoming(connection: sqlite3.Connection, limit: int) -> list[Upcoming]:
    """Return what is due next, soonest first."""
    rows = connection.execute("SELECT at, deployment, what, run_id FROM upcoming LIMIT ?", (limit,))
    return [Upcoming(*row) for row in rows.fetchall()]


@dataclass(frozen=True, slots=True)
class BeatingDaemon:
    """A process that serves the journal, and when it last said so. One that was killed did not say that it ended."""

    name: str
    state: str
    pid: int
    host: str
    beat_at: str


def list_beating_daemons(connection: sqlite3.Connection) -> list[BeatingDaemon]:
    """Return the daemons that have not ended, as far as they said, the newest first."""
    rows = connection.execute(
        """
        SELECT d.name, d.state, o.pid, o.host, d.beat_at FROM daemon d JOIN owner o ON o.id = d.owner_id
        WHERE o.ended_at IS NULL AND d.state <> 'stopped' ORDER BY d.owner_id DESC LIMIT 20
        """
    )
    return [BeatingDaemon(*row) for row in rows.fetchall()]


def count_calls(connection: sqlite3.Connection, run_id: int) -> int:
    """Return how many calls a run has made, no more than `COUNTED` and one."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM task_run WHERE flow_run_id = ? LIMIT ?)", (run_id, COUNTED + 1)
    ).fetchone()
    return int(row[0])


def usual_seconds(connection: sqlite3.Connection, flow: str, from_id: int) -> float | None:
    """Return the median duration of the newest completed runs of a flow; None: there are none."""
    rows = connection.execute(
        """
        SELECT (julianday(r.ended_at) - julianday(r.started_at)) * 86400 FROM flow_run r
        WHERE r.id >= ? AND r.flow_id = (SELECT id FROM flow WHERE name = ?) AND r.state = 'COMPLETED'
        ORDER BY r.id DESC LIMIT 21
        """,
        (from_id, flow),
    ).fetchall()
    durations = sorted(row[0] for row in rows if row[0] is not None)
    return durations[len(durations) // 2] if durations else None


def list_flow_names(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Return names of flows, in order."""
    return [row[0] for row in connection.execute("SELECT name FROM flow ORDER BY name LIMIT ?", (limit,)).fetchall()]


# ---------------------------------------------------------------------------------------------------- one run


def list_calls(
    connection: sqlite3.Connection, run_id: int, *, after_id: int, limit: int, task: str | None, state: str | None
) -> tuple[list[TaskRun], int | None]:  # fmt: skip
    """Return task runs of a run in the order of their calls, and the id after which the next page begins; None: no more."""
    last = connection.execute(
        """
        SELECT count(*), max(task_run_id) FROM (SELECT task_run_id FROM transition
            WHERE flow_run_id = ? AND task_run_id > ? AND seq = 1 ORDER BY task_run_id LIMIT ?)
        """,
        (run_id, after_id, SCANNED),
    ).fetchone()
    if not last[0]:
        return [], None
    rows = connection.execute(
        """
        SELECT t.id, t.task, t.name, t.state, t.state_name, t.attempts, t.inputs, t.result, t.error, t.started_at,
               t.ended_at, t.duration_s, t.message, t.next_attempt_at, t.parent_task_id, t.replayed, t.orphan
        FROM transition h CROSS JOIN tasks t ON t.id = h.task_run_id
        WHERE h.flow_run_id = :run AND h.task_run_id > :after AND h.task_run_id <= :last AND h.seq = 1
          AND (:task IS NULL OR t.task = :task) AND (:state IS NULL OR t.state = :state)
        ORDER BY h.task_run_id LIMIT :limit
        """,
        {"run": run_id, "after": after_id, "last": last[1], "task": task, "state": state, "limit": limit + 1},
    ).fetchall()
    found = [TaskRun(*[*row[:15], bool(row[15]), bool(row[16])]) for row in rows]
    if len(found) > limit:
        return found[:limit], found[limit - 1].id
    return found, last[1] if last[0] == SCANNED else None


def list_transitions(
    connection: sqlite3.Connection, run_id: int, *, after: tuple[int, int], limit: int, task_run_id: int | None = None
) -> list[Transition]:  # fmt: skip
    """Return state changes of a run, first its own, then those of its calls in the order of the calls; or of one call only.

    `after`: id of the task run, 0 for the run itself, and number of the change after which to begin.
    """
    rows = connection.execute(
        """
        SELECT h.at, nullif(h.task_run_id, 0), k.name, h.seq, h.state,
               coalesce(h.state_name, substr(h.state, 1, 1) || lower(substr(h.state, 2))), h.attempt, h.message,
               e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END
        FROM transition h LEFT JOIN task_run t ON t.id = h.task_run_id LEFT JOIN task k ON k.id = t.task_id
        LEFT JOIN error e ON e.id = h.error_id
        WHERE h.flow_run_id = ? AND (h.task_run_id, h.seq) > (?, ?) AND h.task_run_id <= ?
        ORDER BY h.task_run_id, h.seq LIMIT ?
        """,
        (run_id, *after, MAX_ID if task_run_id is None else task_run_id, limit),
    )
    return [Transition(*row) for row in rows.fetchall()]


def newest_logs(
    connection: sqlite3.Connection,
    run_id: int,
    *,
    limit: int,
    before_id: int = MAX_ID,
    level: int = 0,
    text: str | None = None,
    task_run_id: int | None = None,
) -> list[LogLine]:
    """Return the newest lines of a run below an id, oldest first; a text is looked for in the newest `SCANNED_LINES`."""
    rows = connection.execute(
        """
        SELECT l.id, l.at, l.level, l.task_run_id, k.name, l.logger, l.message
        FROM (SELECT * FROM log WHERE flow_run_id = :run AND id < :before ORDER BY id DESC LIMIT :scanned) l
        LEFT JOIN task_run t ON t.id = l.task_run_id LEFT JOIN task k ON k.id = t.task_id
        WHERE l.level >= :level AND (:text IS NULL OR instr(lower(l.message), lower(:text)))
          AND (:task IS NULL OR l.task_run_id = :task)
        LIMIT :limit
        """,
        {
            "run": run_id, "before": before_id, "scanned": SCANNED_LINES, "level": level, "text": text, "task": task_run_id,
            "limit": limit,
        },
    ).fetchall()  # fmt: skip
    return sorted((LogLine(*row) for row in rows), key=lambda line: line.id)


# ---------------------------------------------------------------------------------------------------- one task run


@dataclass(frozen=True, slots=True)
class TaskRunDetail:
    """One call, and what became of it."""

    task: TaskRun
    run_id: int
    run_name: str
    flow: str
    traceback: str | None
    interruptions: int
    occurrence: int
    tags: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a call."""

    attempt: int
    started_at: str
    ended_at: str | None
    outcome: str
    error: str | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class CacheAnswer:
    """What a call asked of the cache, and the answer."""

    outcome: str
    key: str
    message: str | None
    source_task_id: int | None
    source_run_id: int | None
    at: str


def get_task_run(connection: sqlite3.Connection, task_run_id: int) -> TaskRunDetail:
    """Return one task run. Raises NotFoundError."""
    row = connection.execute(
        """
        SELECT t.id, t.task, t.name, t.state, t.state_name, t.attempts, t.inputs, t.result, t.error, t.started_at,
               t.ended_at, t.duration_s, t.message, t.next_attempt_at, t.parent_task_id, t.replayed, t.orphan,
               t.run_id, t.run_name, t.flow,
               (SELECT e.traceback FROM task_run x JOIN error e ON e.id = x.error_id WHERE x.id = t.id),
               t.interruptions, t.occurrence, t.tags
        FROM tasks t WHERE t.id = ?
        """,
        (task_run_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no task run {task_run_id} in this journal. List runs with: wfengine runs ls")
    return TaskRunDetail(TaskRun(*[*row[:15], bool(row[15]), bool(row[16])]), *row[17:])


def list_attempts(connection: sqlite3.Connection, run_id: int, task_run_id: int, limit: int) -> list[Attempt]:
    """Return the attempts of a call, oldest first."""
    rows = connection.execute(
        """
        SELECT attempt, started_at, ended_at, outcome, error, duration_s FROM attempts
        WHERE run_id = ? AND task_id = ? ORDER BY started_at LIMIT ?
        """,
        (run_id, task_run_id, limit),
    )
    return [Attempt(*row) for row in rows.fetchall()]


def find_cache_answer(connection: sqlite3.Connection, run_id: int, task_run_id: int) -> CacheAnswer | None:
    """Return what a call asked of the cache; None: it did not ask."""
    row = connection.execute(
        """
        SELECT outcome, key, message, source_task_id, source_run_id, at FROM cache_uses WHERE run_id = ? AND task_id = ?
        ORDER BY at DESC LIMIT 1
        """,
        (run_id, task_run_id),
    ).fetchone()
    return None if row is None else CacheAnswer(*row)


def list_saved_questions(connection: sqlite3.Connection) -> Sequence[tuple[str, str, str]]:
    """Return the views: name, what each shows, and what can be asked of it."""
    return [tuple(row) for row in connection.execute("SELECT name, shows, try FROM help").fetchall()]
