"""The rows of a journal as plain objects, one after the other: what the views show, for other programs.

Nothing is turned back into an object of Python: a result is JSON where it was stored as JSON, else its preview text. Memory
does not grow with the journal.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from wfengine_journal.run_rows import columns_of

#: kind -> the view, its column that names the run, and how the rows of a run are sorted.
KINDS = {
    "task": ("tasks", "run_id", "id"),
    "attempt": ("attempts", "run_id", "task_id, attempt"),
    "transition": ("history", "run_id", "task_id, seq"),
    "failure": ("failures", "run_id", "task_id"),
    "log": ("logs", "run_id", "id"),
    "message": ("messages", "run_id", "id"),
    "artifact": ("artifacts", "run_id", "id"),
    "cache_use": ("cache_uses", "run_id", "task_id"),
}
#: Kinds that belong to no run, given only where the whole journal is exported.
LOOSE_KINDS = {"variable": ("variables", "name"), "deployment": ("deployments", "id")}
#: Columns that hold JSON text, or a preview in its place.
JSON_COLUMNS = frozenset({"parameters", "inputs", "result", "tags", "value", "parts"})
#: Rows fetched at a time.
PAGE = 500


def rows(connection: sqlite3.Connection, run_ids: Sequence[int] | None = None) -> Iterator[dict[str, object]]:
    """Yield an object for each row, each with its `kind`: a run, then what belongs to it, then the next run.

    `run_ids`: these runs; default all, then what belongs to no run. All is of one moment. The columns are those of the views.
    """
    connection.execute("BEGIN")
    try:
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('journal_id', 'created_at')").fetchall())
        yield {"kind": "journal", "format": connection.execute("PRAGMA user_version").fetchone()[0], **meta}
        for run_id in run_ids if run_ids is not None else _all_runs(connection):
            yield from _objects(connection, "run", "runs", "WHERE id = ?", (run_id,))
            for kind, (view, column, order) in KINDS.items():
                yield from _objects(connection, kind, view, f"WHERE {column} = ? ORDER BY {order}", (run_id,))
        if run_ids is None:
            yield from _objects(connection, "artifact", "artifacts", "WHERE run_id IS NULL ORDER BY id", ())
            for kind, (view, order) in LOOSE_KINDS.items():
                yield from _objects(connection, kind, view, f"ORDER BY {order}", ())
    finally:
        connection.execute("ROLLBACK")


def _all_runs(connection: sqlite3.Connection) -> Iterator[int]:
    last = 0
    while True:
        page = connection.execute("SELECT id FROM flow_run WHERE id > ? ORDER BY id LIMIT ?", (last, PAGE)).fetchall()
        if not page:
            return
        for (last,) in page:
            yield last


def _objects(
    connection: sqlite3.Connection, kind: str, view: str, condition: str, parameters: tuple[object, ...]
) -> Iterator[dict[str, object]]:
    names = columns_of(connection, view)
    cursor = connection.execute(f"SELECT {', '.join(names)} FROM {view} {condition}", parameters)
    while page := cursor.fetchmany(PAGE):
        for row in page:
            values = zip(names, row, strict=True)
            yield {"kind": kind, **{name: _plain(value) if name in JSON_COLUMNS else value for name, value in values}}


def _plain(value: object) -> object:
    """Return what a JSON text holds; a preview stays a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
