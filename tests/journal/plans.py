"""What SQLite would read for a statement: which tables and indexes from end to end.

SQLite's own word for it, EXPLAIN QUERY PLAN, names aliases, and says nothing of what is only counted. The program that
EXPLAIN lists says both: which tree each cursor opens, and whether it is walked from its first or last entry on.
"""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

#: Tables with a row per definition, process or name: they stay small while runs come and go.
SMALL = frozenset({
    "_sqlite_migrations", "automation", "code", "daemon", "deployment", "flow", "meta",
    "notification_target", "owner", "quota", "schedule", "slot",
    "secret", "sqlite_master", "sqlite_sequence", "task", "variable",
})  # fmt: skip


class Walk(NamedTuple):
    """A table or index that is read from one end on: to the other, or until a limit is reached."""

    table: str
    index: str  # '': the table itself

    def __str__(self) -> str:
        return f"{self.table}.{self.index}" if self.index else self.table


def walks(connection: sqlite3.Connection, statement: str) -> set[Walk]:
    """Return what a statement walks through; partial indexes, which hold only what they are asked for, are left out."""
    trees = _trees(connection)
    opened: dict[int, Walk | None] = {}
    begun, gone_on, counted = set(), set(), set()
    for row in connection.execute(f"EXPLAIN {statement}").fetchall():
        operation, cursor, root, database = row[1:5]
        if operation in ("OpenRead", "OpenWrite", "ReopenIdx") and database == 0:
            opened[cursor] = trees.get(root)
        elif operation in ("Rewind", "Last"):
            begun.add(cursor)
        elif operation in ("Next", "Prev"):
            gone_on.add(cursor)
        elif operation == "Count":
            counted.add(cursor)
    return {tree for cursor in (begun & gone_on) | counted if (tree := opened.get(cursor)) is not None}


def large_walks(connection: sqlite3.Connection, statement: str) -> set[Walk]:
    """Return what a statement walks through that grows with the runs."""
    return {walk for walk in walks(connection, statement) if walk.table not in SMALL}


def _trees(connection: sqlite3.Connection) -> dict[int, Walk | None]:
    """Return what begins at each root page; None: a partial index."""
    rows = connection.execute("SELECT rootpage, tbl_name, name, type, sql FROM sqlite_schema WHERE rootpage > 0").fetchall()
    found: dict[int, Walk | None] = {1: Walk("sqlite_master", "")}
    for root, table, name, kind, sql in rows:
        partial = kind == "index" and re.search(r"\)\s*WHERE\s", sql or "") is not None
        found[root] = None if partial else Walk(table, name if kind == "index" else "")
    return found
