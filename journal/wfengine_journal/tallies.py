"""What is counted for programs that watch a journal: how runs and task runs ended and how long they took, ticks, sizes.

A tally is kept in memory and brought up to date: each time only what is new since is read, and what had not ended then. So
it costs what happened, not what there is. Nothing here writes.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wfengine_journal.clock import seconds_from_text
from wfengine_journal.connection import explain, open_reader
from wfengine_journal.health import wal_bytes

#: Rows in one read, so that no reader is open for long and the log beside the file can be folded in.
ROWS_AT_ONCE = 10_000
#: Task runs that had not ended, or failed and may be run again, which are looked at anew each time: the newest ones.
WATCHED_LIMIT = 100_000
#: Upper bounds of durations and of lateness, in seconds: from a task that does nothing to a night's work.
DURATIONS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
LATENESS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
#: How many different flows, tasks and states are told apart; what comes later counts as OTHER.
FLOWS_LIMIT = 100
TASKS_LIMIT = 500
STATES_LIMIT = 50
OTHER = "other"
_STATE_EVENT = "wfengine.flow-run."
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@contextmanager
def reading_beside(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a reader of a journal that this process may have open too. What SQLite reports is raised as JournalError."""
    try:
        with closing(open_reader(path)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            yield connection
    except sqlite3.Error as error:
        raise explain(error, path) from error


class Spread:
    """How many values there were up to each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: beyond all bounds
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Names:
    """Words that are told apart: the first so many of them; later ones are OTHER."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[object, None] = {}

    def knows(self, word: object) -> bool:
        """Tell whether a word is told apart."""
        if word in self._known:
            return True
        if len(self._known) >= self._limit:
            return False
        self._known[word] = None
        return True


@dataclass(slots=True)
class Tally:
    """What was counted so far: since the file has format 4, less what was pruned before the first look."""

    flows_limit: int = FLOWS_LIMIT
    tasks_limit: int = TASKS_LIMIT
    rows_at_once: int = ROWS_AT_ONCE
    run_states: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # (flow, name of the state): times that it was entered
    run_seconds: dict[tuple[str, str], Spread] = field(default_factory=dict)  # by flow and last state
    task_ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by flow, task and last state
    task_seconds: dict[tuple[str, str], Spread] = field(default_factory=dict)  # by flow and task
    ticks: Counter[str] = field(default_factory=Counter)  # by outcome
    tick_lateness: Spread = field(default_factory=lambda: Spread(LATENESS))
    _flows: Names = field(init=False)
    _tasks: Names = field(init=False)
    _states: Names = field(default_factory=lambda: Names(STATES_LIMIT))
    _last_event: int = 0
    _last_task_run: int = 0
    _last_ticks: dict[int, str] = field(default_factory=dict)  # by schedule
    _watched: dict[int, int] = field(default_factory=dict)  # task run -> the version that was counted; -1: none yet

    def __post_init__(self) -> None:
        self._flows = Names(self.flows_limit)
        self._tasks = Names(self.tasks_limit)

    def update(self, path: Path) -> None:
        """Count what is new. Raises JournalError; what was counted until then stays."""
        while self._count_some(path):
            pass

    def _count_some(self, path: Path) -> bool:
        """Read some of each; tell whether there may be more."""
        with reading_beside(path) as connection:
            more = [self._count_events(connection), self._count_new_task_runs(connection), self._count_ticks(connection)]
            if not any(more):
                self._count_watched(connection)
        return any(more)

    def _flow(self, name: str) -> str:
        return name if self._flows.knows(name) else OTHER

    # ---- flow runs, by their events

    def _count_events(self, connection: sqlite3.Connection) -> bool:
        rows = connection.execute(
            """
            SELECT e.id, e.name, f.name, r.state,
                   CASE WHEN r.ended_at = e.occurred_at AND r.started_at IS NOT NULL THEN
                       strftime('%s', r.ended_at) - strftime('%s', r.started_at)
                       + (substr(r.ended_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6 END
            FROM (SELECT id, name, flow_run_id, occurred_at, resource FROM event WHERE id > ? ORDER BY id LIMIT ?) e
            LEFT JOIN flow_run r ON r.id = e.flow_run_id AND e.resource = 'wfengine.flow-run.' || e.flow_run_id
            LEFT JOIN flow f ON f.id = r.flow_id
            ORDER BY e.id
            """,
            (self._last_event, self.rows_at_once),
        ).fetchall()
        for event_id, name, flow, state, seconds in rows:
            self._last_event = event_id
            if flow is None or not name.startswith(_STATE_EVENT):
                continue  # an event of the user's, or of a run that was pruned
            shown, entered = self._flow(flow), name.removeprefix(_STATE_EVENT)
            self.run_states[shown, entered if self._states.knows(entered) else OTHER] += 1
            if seconds is not None and state in _ENDED:
                self.run_seconds.setdefault((shown, state), Spread(DURATIONS)).add(max(0.0, seconds))
        return len(rows) == self.rows_at_once

    # ---- task runs, by their ids

    def _count_new_task_runs(self, connection: sqlite3.Connection) -> bool:
        if connection.execute("SELECT id FROM task_run WHERE id >= ? LIMIT 1", (self._last_task_run,)).fetchone() is None:
            # The newest were pruned, and their ids are given anew.
            (self._last_task_run,) = connection.execute("SELECT coalesce(max(id), 0) FROM task_run").fetchone()
        rows = connection.execute(
            """
            SELECT t.id, t.version, t.state, f.name, k.name, k.kind,
                   CASE WHEN t.ended_at >= r.created_at THEN
                       strftime('%s', t.ended_at) - strftime('%s', t.started_at)
                       + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6 END
            FROM (SELECT * FROM task_run WHERE id > ? ORDER BY id LIMIT ?) t
            JOIN flow_run r ON r.id = t.flow_run_id JOIN flow f ON f.id = r.flow_id JOIN task k ON k.id = t.task_id
            ORDER BY t.id
            """,
            (self._last_task_run, self.rows_at_once),
        ).fetchall()
        self._count_task_runs(rows)
        if rows:
            self._last_task_run = rows[-1][0]
        return len(rows) == self.rows_at_once

    def _count_watched(self, connection: sqlite3.Connection) -> None:
        ids = list(self._watched)
        for start in range(0, len(ids), self.rows_at_once):
            some = ids[start : start + self.rows_at_once]
            rows = connection.execute(
                """
                SELECT t.id, t.version, t.state, f.name, k.name, k.kind,
                       CASE WHEN t.ended_at >= r.created_at THEN
                           strftime('%s', t.ended_at) - strftime('%s', t.started_at)
                           + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6 END
                FROM json_each(?) j CROSS JOIN task_run t ON t.id = j.value
                JOIN flow_run r ON r.id = t.flow_run_id JOIN flow f ON f.id = r.flow_id JOIN task k ON k.id = t.task_id
                """,
                (json.dumps(some),),
            ).fetchall()
            for gone in set(some) - {row[0] for row in rows}:
                del self._watched[gone]
            self._count_task_runs(rows)

    def _count_task_runs(self, rows: list[sqlite3.Row]) -> None:
        for task_run_id, version, state, flow, task, kind, seconds in rows:
            if kind != "task":
                continue  # the call of a subflow: its run is counted
            ended = state in _ENDED and seconds is not None
            if ended and self._watched.get(task_run_id) != version:
                shown = (self._flow(flow), task) if self._tasks.knows((flow, task)) else (self._flow(flow), OTHER)
                self.task_ends[(*shown, state)] += 1
                self.task_seconds.setdefault(shown, Spread(DURATIONS)).add(max(0.0, seconds))
            if state == "COMPLETED":
                self._watched.pop(task_run_id, None)
            else:
                self._watched[task_run_id] = version if ended else -1
        while len(self._watched) > WATCHED_LIMIT:
            del self._watched[next(iter(self._watched))]

    # ---- ticks, by schedule and instant

    def _count_ticks(self, connection: sqlite3.Connection) -> bool:
        more = False
        for (schedule_id,) in connection.execute("SELECT id FROM schedule WHERE decided_to IS NOT NULL").fetchall():
            rows = connection.execute(
                "SELECT nominal_at, outcome, decided_at FROM tick WHERE schedule_id = ? AND nominal_at > ?"
                " ORDER BY nominal_at LIMIT ?",
                (schedule_id, self._last_ticks.get(schedule_id, ""), self.rows_at_once),
            ).fetchall()
            for nominal_at, outcome, decided_at in rows:
                self._last_ticks[schedule_id] = nominal_at
                self.ticks[outcome] += 1
                if outcome == "started":
                    self.tick_lateness.add(max(0.0, seconds_from_text(decided_at) - seconds_from_text(nominal_at)))
            more = more or len(rows) == self.rows_at_once
        return more


class Present(NamedTuple):
    """How things are in a journal at this moment. Sizes in bytes, times in seconds."""

    open_runs: tuple[tuple[str, str, int], ...]  # (flow, state, number)
    queues: tuple[tuple[str, int, int, int], ...]  # (name, waiting, running, 1: paused)
    scheduler_lag: float  # how long the schedule that waits longest has been due; 0: none is
    daemon_age: float | None  # how long ago a daemon that did not end said how it is; None: there is none
    file_bytes: int
    wal_bytes: int
    free_bytes: int


def get_present(path: Path, now: float) -> Present:
    """Return how things are, by indexes of what is open and due. `now`: seconds since 1970."""
    with reading_beside(path) as connection:
        runs = connection.execute(
            """
            SELECT f.name, r.state, count(*) FROM flow_run r JOIN flow f ON f.id = r.flow_id
            WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') GROUP BY r.state, r.flow_id ORDER BY f.name, r.state
            """
        ).fetchall()
        queues = connection.execute("SELECT name, waiting, running, paused FROM queues ORDER BY name").fetchall()
        (due,) = connection.execute(
            """
            SELECT min(s.due_at) FROM schedule s JOIN deployment d ON d.id = s.deployment_id
            WHERE s.due_at IS NOT NULL AND s.removed_at IS NULL AND s.active = 1 AND d.paused = 0 AND d.removed_at IS NULL
            """
        ).fetchone()
        (beat,) = connection.execute(
            "SELECT max(d.beat_at) FROM daemon d JOIN owner o ON o.id = d.owner_id"
            " WHERE o.ended_at IS NULL AND d.state <> 'stopped'"
        ).fetchone()
        free = connection.execute("PRAGMA freelist_count").fetchone()[0] * connection.execute("PRAGMA page_size").fetchone()[0]
    return Present(
        tuple((str(row[0]), str(row[1]), int(row[2])) for row in runs),
        tuple((str(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in queues),
        0.0 if due is None else max(0.0, now - seconds_from_text(due)),
        None if beat is None else max(0.0, now - seconds_from_text(beat)),
        path.stat().st_size,
        wal_bytes(path),
        int(free),
    )
