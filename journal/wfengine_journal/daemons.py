"""Daemons: processes that serve a journal, what they say of themselves, and what `wfengine status` counts beside them.

A daemon's row says what it said last; whether its process lives is asked of the operating system. What is done at intervals
by whichever daemon comes first - pruning, backups - has its last time in `meta`, and one claim at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wfengine_journal import owners
from wfengine_journal.clock import instant_from_text
from wfengine_journal.errors import JournalCorruptError
from wfengine_journal.health import wal_bytes
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import utf8_text

#: Daemons that are read at the most: those that said something last.
LISTED_DAEMONS = 1000
#: Characters of a daemon's name that are kept.
NAME_CHARACTERS = 200


class PutDaemon:
    """Write how a daemon is: its row is made at the first time."""

    __slots__ = ("at", "name", "owner_id", "report", "state")

    def __init__(self, owner_id: int, name: str, state: str, report: Mapping[str, object], *, at: str) -> None:
        """`state`: 'running', 'stopping' or 'stopped'; `report`: JSON values."""
        self.owner_id = owner_id
        self.name = utf8_text(name)[:NAME_CHARACTERS]
        self.state = state
        self.report = json.dumps(report, default=str)
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO daemon (owner_id, name, state, beat_at, report) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (owner_id) DO UPDATE SET name = excluded.name, state = excluded.state, beat_at = excluded.beat_at,"
            " report = excluded.report",
            (self.owner_id, self.name, self.state, self.at, self.report),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT state, beat_at FROM daemon WHERE owner_id = ?", (self.owner_id,)).fetchone()
        return row is not None and tuple(row) == (self.state, self.at)


# ------------------------------------------------------------------------------------------- work at intervals


@dataclass(frozen=True, slots=True)
class Upkeep:
    """When something that is done at intervals was done last, and who is at it. `text` is how it stands in the journal."""

    done_at: str | None = None  # null: never
    owner_id: int | None = None  # null: nobody is at it
    result: str = ""  # of the last time, for people
    failed: str = ""  # why it could not be done since; '': it could
    tried_at: str | None = None

    @property
    def text(self) -> str:
        """The value of its row in `meta`."""
        return json.dumps(
            {name: getattr(self, name) for name in ("done_at", "owner_id", "result", "failed", "tried_at")}, sort_keys=True
        )


def get_upkeep(connection: sqlite3.Connection, kind: str) -> tuple[str | None, Upkeep]:
    """Return the text of the row (null: none) and what it says. Raises JournalCorruptError."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (f"upkeep:{kind}",)).fetchone()
    if row is None:
        return None, Upkeep()
    try:
        upkeep = Upkeep(**json.loads(row[0]))
        for at in (upkeep.done_at, upkeep.tried_at):
            if at is not None:
                instant_from_text(at)
    except (ValueError, TypeError) as error:
        raise JournalCorruptError(
            f"The journal's note of when '{kind}' was done last is damaged: {str(row[0])[:80]!r}. Run: wfengine doctor"
        ) from error
    return str(row[0]), upkeep


class SetUpkeep:
    """Replace what stands there of upkeep. Refused when somebody else was quicker."""

    __slots__ = ("expected", "kind", "text")

    def __init__(self, kind: str, expected: str | None, upkeep: Upkeep) -> None:
        self.kind = kind
        self.expected = expected
        self.text = upkeep.text

    def apply(self, connection: sqlite3.Connection) -> None:
        key = f"upkeep:{self.kind}"
        if self.expected is None:
            sql, values = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, self.text)
        else:
            sql, values = "UPDATE meta SET value = ? WHERE key = ? AND value = ?", (self.text, key, self.expected)  # type: ignore[assignment]  # one more
        if connection.execute(sql, values).rowcount != 1:
            raise WriteRefused

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (f"upkeep:{self.kind}",)).fetchone()
        return row is not None and row[0] == self.text


# ------------------------------------------------------------------------------------------- reads


class DaemonRow(NamedTuple):
    """A daemon that has not said that it ended; `lives` tells whether its process does."""

    owner_id: int
    name: str
    state: str
    pid: int
    host: str
    boot_id: str | None
    process_started: str | None
    role: str
    started_at: str
    beat_at: str
    report: str
    lives: bool = False


class QueueRow(NamedTuple):
    """One queue of runs."""

    name: str
    waiting: int
    running: int
    paused: int
    slots: int | None


class DueRow(NamedTuple):
    """What is due next."""

    at: str
    deployment: str
    schedule: str | None


class Situation(NamedTuple):
    """What `wfengine status` shows beside the daemons."""

    queues: tuple[QueueRow, ...]
    upcoming: tuple[DueRow, ...]
    runs: Mapping[str, int]  # by state, of those that have not ended
    file_bytes: int
    wal_bytes: int
    upkeep: Mapping[str, Upkeep]


def list_daemons(connection: sqlite3.Connection, path: Path) -> list[DaemonRow]:
    """Return the daemons that did not say that they ended, the newest first, each with whether its process lives.

    Asked of the operating system, so one that was killed is dead at once. Not for a process that executes runs itself: the
    locks it holds would be given back.
    """
    rows = connection.execute(
        "SELECT d.owner_id, d.name, d.state, o.pid, o.host, o.boot_id, o.process_started, o.role, o.started_at, d.beat_at,"
        " d.report FROM daemon d JOIN owner o ON o.id = d.owner_id WHERE o.ended_at IS NULL AND d.state <> 'stopped'"
        " ORDER BY d.owner_id DESC LIMIT ?",
        (LISTED_DAEMONS,),
    ).fetchall()
    found = [DaemonRow(*row) for row in rows]
    if not found or not Path(f"{path}-lock").exists():
        return [row._replace(lives=_process_lives(row)) for row in found]
    with closing(owners.LockFile(path)) as lock_file:
        return [
            row._replace(lives=owners.is_alive(lock_file, row.owner_id, row.pid, row.boot_id, row.process_started))
            for row in found
        ]


def _process_lives(row: DaemonRow) -> bool:
    started = owners.process_started(row.pid)
    return row.boot_id == owners.boot_id() and started is not None and started == row.process_started


def get_situation(connection: sqlite3.Connection, path: Path, *, upcoming: int = 10) -> Situation:
    """Return how things are in the journal: queues, what is due, runs that have not ended, sizes, upkeep."""
    queues = connection.execute("SELECT name, waiting, running, paused, slots FROM queues ORDER BY name").fetchall()
    due = connection.execute(
        "SELECT at, deployment, rule FROM upcoming WHERE what = 'schedule' LIMIT ?", (upcoming,)
    ).fetchall()
    states = connection.execute(
        "SELECT state, count(*) FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') GROUP BY state"
    ).fetchall()
    kinds = [str(row[0]).partition(":")[2] for row in connection.execute("SELECT key FROM meta WHERE key GLOB 'upkeep:*'")]
    return Situation(
        tuple(QueueRow._make(row) for row in queues),
        tuple(DueRow._make(row) for row in due),
        {str(row[0]): int(row[1]) for row in states},
        path.stat().st_size,
        wal_bytes(path),
        {kind: get_upkeep(connection, kind)[1] for kind in kinds},
    )


class RunNames(NamedTuple):
    """What a run is called by people. `deployment`: its full name; null: none."""

    run: str
    flow: str
    deployment: str | None


def names_of_run(connection: sqlite3.Connection, flow_run_id: int) -> RunNames | None:
    """Return the names of a run; null: there is no such run."""
    row = connection.execute(
        "SELECT r.name, f.name, d.name FROM flow_run r JOIN flow f ON f.id = r.flow_id"
        " LEFT JOIN deployment d ON d.id = r.deployment_id"
        " WHERE r.id = ?",
        (flow_run_id,),
    ).fetchone()
    return None if row is None else RunNames(str(row[0]), str(row[1]), None if row[2] is None else f"{row[1]}/{row[2]}")


def ids_of_flow(connection: sqlite3.Connection, flow_name: str) -> list[int]:
    """Return the ids of the deployments of a flow, as they are recorded."""
    rows = connection.execute(
        "SELECT d.id FROM deployment d JOIN flow f ON f.id = d.flow_id WHERE f.name = ? AND d.removed_at IS NULL ORDER BY d.id",
        (flow_name,),
    )
    return [int(row[0]) for row in rows.fetchall()]
