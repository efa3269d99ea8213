"""What must hold after a kill, and after the resumed run has ended. Each check returns the violations it found, as text.

Two witnesses: the effect file, and the journal read by plain SQL. Nothing here imports wfengine.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.crash.effects import Effect

#: The background tasks that a flow queued: nobody serves them here.
_QUEUED = "(SELECT id FROM flow_run WHERE substr(queue, 1, 5) = 'task:' AND epoch = 0)"


def connect(journal: Path) -> sqlite3.Connection:
    """Open a journal as any reader would."""
    return sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)


#: The connection that all checks of a thread share: most of a check is SQLite reading the schema.
_SHARED = threading.local()


@contextmanager
def one_connection(journal: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal, or give the connection that a block around this one has opened on this thread."""
    shared: sqlite3.Connection | None = getattr(_SHARED, "connection", None)
    if shared is not None:
        yield shared
        return
    with closing(connect(journal)) as connection:
        _SHARED.connection = connection
        try:
            yield connection
        finally:
            _SHARED.connection = None


def query(journal: Path, sql: str) -> list[tuple[object, ...]]:
    """Return the rows of a query; none while the journal has no tables yet."""
    with one_connection(journal) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'runs'").fetchall():
            return []
        return connection.execute(sql).fetchall()


def is_unborn(journal: Path) -> bool:
    """Tell whether the kill came while the empty file was being switched to write-ahead logging.

    SQLite left a rollback journal then, which the next writer rolls back and a read-only reader cannot.
    """
    return Path(f"{journal}-journal").exists()


# ------------------------------------------------------------------------------------------- the effect file


def acknowledged_never_again(effects: Sequence[Effect]) -> list[str]:
    """G1: once the flow was given an outcome, that call's code never runs again."""
    given: set[str] = set()
    violations = []
    for effect in effects:
        if effect.kind == "ack":
            given.add(effect.call)
        elif effect.kind in ("run", "fail") and effect.call in given:
            violations.append(f"acknowledged-never-again: {effect.call} ran after the flow was given its outcome")
    return violations


def repeats_in_flight_only(effects: Sequence[Effect], in_flight: int) -> list[str]:
    """G2: a process repeats of its predecessors' work only what was in flight, at most `in_flight` calls."""
    violations = []
    before: Counter[str] = Counter()
    for number, process in enumerate(_processes(effects)):
        ran = Counter(effect.call for effect in process if effect.kind == "run")
        twice = [call for call, count in ran.items() if count > 1]
        violations += [f"repeats-in-flight-only: {call} ran {ran[call]} times in process {number}" for call in twice]
        # What the process before repeated may have been cut off again, so the bound is on each kill, not on all.
        repeated = [call for call in ran if before[call]]
        if len(repeated) > in_flight:
            violations.append(f"repeats-in-flight-only: process {number} ran {repeated} again; {in_flight} can be in flight")
        before += ran
    return violations


def order_kept(effects: Sequence[Effect]) -> list[str]:
    """`as_completed` hands out replayed outcomes in the order in which they were handed out before the kill."""
    longest: list[str] = []
    violations = []
    for number, process in enumerate(_processes(effects)):
        given = [effect.call for effect in process if effect.kind == "ack"]
        shared = min(len(given), len(longest))
        if given[:shared] != longest[:shared]:
            violations.append(f"order-kept: process {number} was given {given[:shared]}, before it was {longest[:shared]}")
        longest = max(longest, given, key=len)
    return violations


def _processes(effects: Sequence[Effect]) -> list[list[Effect]]:
    parts: list[list[Effect]] = []
    for effect in effects:
        if effect.kind == "start":
            parts.append([])
        else:
            parts[-1].append(effect)
    return parts


# ------------------------------------------------------------------------------------------- the journal


def file_sound(journal: Path) -> list[str]:
    """SQLite finds no damage and no dangling reference."""
    with one_connection(journal) as connection:
        try:
            damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            return [f"file-sound: {error}"]
    return [f"file-sound: {text}" for text in damage] + [f"file-sound: dangling reference {row}" for row in dangling]


def history_gapless(journal: Path) -> list[str]:
    """G7: the transitions of each run are numbered 1..n, n is the row's version, and the last one is the row's state."""
    rows = query(
        journal,
        "SELECT r.kind, r.id, r.version, r.state, count(h.seq), min(h.seq), max(h.seq),"
        "       (SELECT l.state FROM transition l WHERE l.flow_run_id = r.run_id AND l.task_run_id = r.task_run_id"
        "        ORDER BY l.seq DESC LIMIT 1) AS last"
        " FROM (SELECT 'flow run' AS kind, id, id AS run_id, 0 AS task_run_id, version, state FROM flow_run"
        "       UNION ALL SELECT 'task run', id, flow_run_id, id, version, state FROM task_run) r"
        " LEFT JOIN transition h ON h.flow_run_id = r.run_id AND h.task_run_id = r.task_run_id"
        " GROUP BY r.kind, r.id"
        " HAVING count(h.seq) <> r.version OR min(h.seq) <> 1 OR max(h.seq) <> r.version OR last <> r.state",
    )
    return [f"history-gapless: (kind, id, version, state, count, first, last, last state) = {row}" for row in rows]


def acknowledged_is_recorded(journal: Path, effects: Sequence[Effect]) -> list[str]:
    """G1: at least as many task runs have an outcome in the file as the flow was given."""
    ran = {effect.call for effect in effects if effect.kind == "run"}
    given = {effect.call for effect in effects if effect.kind == "ack"} & ran
    rows = query(journal, "SELECT count(*) FROM tasks WHERE state IN ('COMPLETED', 'FAILED', 'CANCELLED')")
    recorded = int(str(rows[0][0])) if rows else 0
    if recorded >= len(given):
        return []
    return [f"acknowledged-is-recorded: the flow was given {len(given)} outcomes, the journal holds {recorded}"]


def one_run(journal: Path) -> list[str]:
    """However often it was killed and resumed, there is one run beside what it queued, and one subflow run for each call."""
    rows = query(journal, f"SELECT count(*) FROM runs WHERE parent_run_id IS NULL AND id NOT IN {_QUEUED}")
    count = int(str(rows[0][0])) if rows else 0
    return [f"one-run: there are {count} runs" for _ in range(count > 1)]


def nothing_left_running(journal: Path) -> list[str]:
    """G4: when the run has ended, no row of it claims to be running or to wait."""
    rows = query(
        journal,
        "SELECT 'run', id, state FROM runs WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'PAUSED')"
        f" AND id NOT IN {_QUEUED}"
        " UNION ALL SELECT 'task', id, state FROM tasks WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'PAUSED')"
        f" AND run_id NOT IN {_QUEUED}",
    )
    return [f"nothing-left-running: {row}" for row in rows]


def logs_kept(journal: Path, effects: Sequence[Effect]) -> list[str]:
    """What a task logged is in the journal when the flow is given the task's outcome."""
    logged = {message for (message,) in query(journal, "SELECT message FROM logs")}
    expected = {effect.call for effect in effects if effect.kind == "ack" and effect.call.startswith("speak/")}
    return [f"logs-kept: nothing logged by {call}" for call in sorted(expected) if f"about to do {call}" not in logged]


def after_kill(journal: Path, effects: Sequence[Effect]) -> list[str]:
    """Return what is wrong right after a kill, before anybody looks at the file again."""
    if not journal.exists() or is_unborn(journal):
        return [f"acknowledged-is-recorded: {effect.call}, without a journal" for effect in effects if effect.kind == "ack"]
    with one_connection(journal):
        return (
            acknowledged_never_again(effects)
            + file_sound(journal)
            + history_gapless(journal)
            + acknowledged_is_recorded(journal, effects)
            + logs_kept(journal, effects)
            + one_run(journal)
        )


def after_end(journal: Path, effects: Sequence[Effect], in_flight: int, is_ordered: bool) -> list[str]:
    """Return what is wrong when the run has ended."""
    with one_connection(journal):
        return (
            after_kill(journal, effects)
            + repeats_in_flight_only(effects, in_flight)
            + (order_kept(effects) if is_ordered else [])
            + nothing_left_running(journal)
        )
