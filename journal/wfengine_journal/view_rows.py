"""Rows of the journal's views as plain dicts: for tests of flows, and whoever wants no classes of ours."""

from __future__ import annotations

from pathlib import Path

from wfengine_journal.read_only_sql import sandbox, select


def list_runs(path: Path) -> list[dict[str, object]]:
    """Return the rows of the view `runs`, oldest first."""
    return list_rows(path, "SELECT * FROM runs ORDER BY id")


def list_tasks(path: Path) -> list[dict[str, object]]:
    """Return the rows of the view `tasks`, in the order in which they were written."""
    return list_rows(path, "SELECT * FROM tasks ORDER BY id")


def list_rows(path: Path, statement: str) -> list[dict[str, object]]:
    """Return the rows of one reading statement. Raises UsageError for one that is wrong or would do anything but read."""
    with sandbox(path) as connection:
        found = select(connection, statement)
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def find_last_instant(path: Path) -> str | None:
    """Return when the last thing recorded in a journal happened, or None for an empty one."""
    (row,) = list_rows(path, "SELECT max(at) AS at FROM history")
    return None if row["at"] is None else str(row["at"])
