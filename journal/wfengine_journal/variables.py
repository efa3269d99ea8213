"""Variables: named JSON values that flows share. Every change is committed at once."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from wfengine_journal.tickets import WriteRefused


class VariableRow(NamedTuple):
    """One variable; `value` and `tags` are JSON texts, times ISO-8601 UTC texts."""

    name: str
    value: str
    tags: str | None
    created_at: str
    updated_at: str


class SetVariable:
    """Write a variable. Refused when it exists and is not to be overwritten."""

    __slots__ = ("at", "name", "overwrite", "tags", "value")

    def __init__(self, name: str, value: str, tags: str | None, *, overwrite: bool, at: str) -> None:
        self.name = name
        self.value = value
        self.tags = tags
        self.overwrite = overwrite
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        if not self.overwrite and find_variable(connection, self.name) is not None:
            raise WriteRefused
        connection.execute(
            "INSERT INTO variable (name, value, tags, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value, tags = excluded.tags, updated_at = excluded.updated_at",
            (self.name, self.value, self.tags, self.at, self.at),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = find_variable(connection, self.name)
        return row is not None and (row.value, row.updated_at) == (self.value, self.at)


class UnsetVariable:
    """Delete a variable. Sets `existed`."""

    __slots__ = ("existed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.existed = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.existed = connection.execute("DELETE FROM variable WHERE name = ?", (self.name,)).rowcount == 1

    def landed(self, connection: sqlite3.Connection) -> bool:
        return find_variable(connection, self.name) is None


def find_variable(connection: sqlite3.Connection, name: str) -> VariableRow | None:
    """Return the variable of that name."""
    row = connection.execute(
        "SELECT name, value, tags, created_at, updated_at FROM variable WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else VariableRow._make(row)


def list_variables_named(connection: sqlite3.Connection, prefix: str, *, limit: int) -> list[VariableRow]:
    """Return the variables whose names begin with a text, by name."""
    rows = connection.execute(
        "SELECT name, value, tags, created_at, updated_at FROM variable WHERE name >= ? AND name < ? ORDER BY name LIMIT ?",
        (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1), limit),
    )
    return [VariableRow._make(row) for row in rows.fetchall()]


def list_variables(connection: sqlite3.Connection, *, limit: int) -> list[VariableRow]:
    """Return the variables, by name."""
    rows = connection.execute("SELECT name, value, tags, created_at, updated_at FROM variables ORDER BY name LIMIT ?", (limit,))
    return [VariableRow._make(row) for row in rows]
