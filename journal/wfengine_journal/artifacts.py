"""Artifacts: tables, texts, links, pictures and progress that runs make for people to look at."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from wfengine_journal.tickets import WriteRefused

#: Larger than any id SQLite gives.
MAX_ID = 2**63 - 1


class ArtifactRow(NamedTuple):
    """One artifact, as view `artifacts` shows it; `data` is markdown text, or JSON of the other types."""

    id: int
    key: str | None
    type: str
    data: str
    description: str | None
    run_id: int | None
    run_name: str | None
    task_id: int | None  # null: the flow's body, or outside of a run
    task: str | None
    created_at: str
    updated_at: str


class Maker(NamedTuple):
    """Which code makes an artifact. `ordinal` null: it can be told from no other, so that it is made anew each time."""

    flow_run_id: int
    epoch: int  # a process that lost the run makes none
    task_run_id: int  # 0: the flow's body
    ordinal: int | None  # 0, 1, 2 ... within the execution of that call


class PutArtifact:
    """Write an artifact; one of the same maker, of an earlier execution of the same code, is overwritten. Sets `id`."""

    __slots__ = ("at", "data", "description", "id", "key", "kind", "maker")

    def __init__(self, kind: str, key: str | None, data: str, description: str | None, maker: Maker | None, *, at: str) -> None:
        self.kind = kind
        self.key = key
        self.data = data
        self.description = description
        self.maker = maker
        self.at = at
        self.id = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        maker = self.maker
        if maker is not None:
            _check_owner(connection, maker)
            self.id = _find_made(connection, maker)
            if self.id:
                self._overwrite(connection)
                return
        cursor = connection.execute(
            "INSERT INTO artifact (key, type, data, description, flow_run_id, task_run_id, ordinal, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.key,
                self.kind,
                self.data,
                self.description,
                None if maker is None else maker.flow_run_id,
                None if maker is None else maker.task_run_id,
                None if maker is None else maker.ordinal,
                self.at,
                self.at,
            ),
        )
        self.id = int(cursor.lastrowid or 0)

    def _overwrite(self, connection: sqlite3.Connection) -> None:
        """Change the row, unless it says the same already: then `updated_at` keeps telling when it came to say so."""
        connection.execute(
            "UPDATE artifact SET key = ?, type = ?, data = ?, description = ?, updated_at = ? WHERE id = ?"
            " AND NOT (key IS ? AND type = ? AND data = ? AND description IS ?)",
            (
                *(self.key, self.kind, self.data, self.description, self.at, self.id),
                *(self.key, self.kind, self.data, self.description),
            ),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT 1 FROM artifact WHERE id = ? AND data = ?", (self.id, self.data)).fetchone()
        return row is not None


class UpdateArtifact:
    """Change what an artifact shows; `description` null leaves it as it is. Sets `existed`: there is one of that type."""

    __slots__ = ("at", "data", "description", "existed", "id", "kind")

    def __init__(self, artifact_id: int, kind: str, data: str, description: str | None, *, at: str) -> None:
        self.id = artifact_id
        self.kind = kind
        self.data = data
        self.description = description
        self.at = at
        self.existed = False

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE artifact SET data = ?, description = coalesce(?, description), updated_at = ? WHERE id = ? AND type = ?",
            (self.data, self.description, self.at, self.id, self.kind),
        )
        self.existed = cursor.rowcount == 1

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT 1 FROM artifact WHERE id = ? AND updated_at = ?", (self.id, self.at)).fetchone()
        return row is not None


def _check_owner(connection: sqlite3.Connection, maker: Maker) -> None:
    row = connection.execute("SELECT epoch FROM flow_run WHERE id = ?", (maker.flow_run_id,)).fetchone()
    if row is None or row[0] != maker.epoch:
        raise WriteRefused


def _find_made(connection: sqlite3.Connection, maker: Maker) -> int:
    row = connection.execute(
        "SELECT id FROM artifact WHERE flow_run_id = ? AND task_run_id = ? AND ordinal = ?",
        (maker.flow_run_id, maker.task_run_id, maker.ordinal),
    ).fetchone()
    return 0 if row is None else int(row[0])


_COLUMNS = "id, key, type, data, description, run_id, run_name, task_id, task, created_at, updated_at"


def get_artifact(connection: sqlite3.Connection, artifact_id: int) -> ArtifactRow | None:
    """Return an artifact by its id, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM artifacts WHERE id = ?", (artifact_id,)).fetchone()
    return None if row is None else ArtifactRow._make(row)


def find_artifact(connection: sqlite3.Connection, key: str | None) -> ArtifactRow | None:
    """Return the artifact of that key, or of any (None), that was changed last."""
    of_key, values = ("", ()) if key is None else ("WHERE key = ?", (key,))
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM artifacts {of_key} ORDER BY updated_at DESC, id DESC LIMIT 1", values
    ).fetchone()
    return None if row is None else ArtifactRow._make(row)


def list_artifacts(
    connection: sqlite3.Connection,
    *,
    key: str | None = None,
    kind: str | None = None,
    run_id: int | None = None,
    before_id: int = MAX_ID,
    limit: int = 20,
) -> list[ArtifactRow]:
    """Return artifacts, the newest first: of that key, type and flow run. `before_id` continues after a page's last id."""
    # Only what was asked for stands in the statement, so that SQLite finds the index that serves it.
    asked = {"key = ?": key, "type = ?": kind, "run_id = ?": run_id}
    given = {condition: value for condition, value in asked.items() if value is not None}
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM artifacts WHERE {' AND '.join(['id < ?', *given])} ORDER BY id DESC LIMIT ?",
        (before_id, *given.values(), limit),
    )
    return [ArtifactRow._make(row) for row in rows]
