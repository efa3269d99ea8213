"""Secrets as they stand in the journal: encrypted by who writes them, by name. Nothing here can read one.

Every change is committed at once; a new key takes the place of the old ones for all secrets in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from wfengine_journal.tickets import WriteRefused


class SecretRow(NamedTuple):
    """One secret: `ciphertext`, which is opaque here, or `source`, where it is kept. Times are ISO-8601 UTC texts."""

    name: str
    ciphertext: bytes | None
    key_id: str | None
    source: str | None
    version: int
    created_at: str
    updated_at: str


_COLUMNS = "name, ciphertext, key_id, source, version, created_at, updated_at"


class SetSecret:
    """Write a secret. Refused when it exists and is not to be overwritten. Sets `version`."""

    __slots__ = ("at", "ciphertext", "key_id", "name", "overwrite", "source", "version")

    def __init__(
        self, name: str, ciphertext: bytes | None, key_id: str | None, source: str | None, *, overwrite: bool, at: str
    ) -> None:  # fmt: skip
        self.name = name
        self.ciphertext = ciphertext
        self.key_id = key_id
        self.source = source
        self.overwrite = overwrite
        self.at = at
        self.version = 1

    def apply(self, connection: sqlite3.Connection) -> None:
        row = find_secret(connection, self.name)
        if row is not None and not self.overwrite:
            raise WriteRefused
        self.version = 1 if row is None else row.version + 1
        connection.execute(
            f"INSERT INTO secret ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET ciphertext = excluded.ciphertext, key_id = excluded.key_id,"
            " source = excluded.source, version = excluded.version, updated_at = excluded.updated_at",
            (self.name, self.ciphertext, self.key_id, self.source, self.version, self.at, self.at),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = find_secret(connection, self.name)
        return row is not None and (row.ciphertext, row.source, row.updated_at) == (self.ciphertext, self.source, self.at)


class UnsetSecret:
    """Delete a secret. Sets `existed`."""

    __slots__ = ("existed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.existed = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.existed = connection.execute("DELETE FROM secret WHERE name = ?", (self.name,)).rowcount == 1

    def landed(self, connection: sqlite3.Connection) -> bool:
        return find_secret(connection, self.name) is None


class Reencrypted(NamedTuple):
    """A secret as it is to stand, and as it stood when it was read."""

    name: str
    before: bytes
    ciphertext: bytes


class RotateKey:
    """Write all secrets anew under another key. Refused when one of them, or which there are, changed meanwhile."""

    __slots__ = ("key_id", "secrets")

    def __init__(self, secrets: Sequence[Reencrypted], key_id: str) -> None:
        self.secrets = secrets
        self.key_id = key_id

    def apply(self, connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("SELECT count(*) FROM secret WHERE ciphertext IS NOT NULL").fetchone()
        if count != len(self.secrets):
            raise WriteRefused
        for each in self.secrets:
            done = connection.execute(
                "UPDATE secret SET ciphertext = ?, key_id = ? WHERE name = ? AND ciphertext = ?",
                (each.ciphertext, self.key_id, each.name, each.before),
            )
            if done.rowcount != 1:
                raise WriteRefused

    def landed(self, connection: sqlite3.Connection) -> bool:
        rows = list_secrets(connection)
        return {row.name: row.ciphertext for row in rows if row.ciphertext is not None} == {
            each.name: each.ciphertext for each in self.secrets
        }


def find_secret(connection: sqlite3.Connection, name: str) -> SecretRow | None:
    """Return the secret of that name, encrypted."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM secret WHERE name = ?", (name,)).fetchone()
    return None if row is None else SecretRow._make(row)


def list_secrets(connection: sqlite3.Connection) -> list[SecretRow]:
    """Return all secrets, encrypted, by name."""
    return [SecretRow._make(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM secret ORDER BY name")]


class SecretListing(NamedTuple):
    """What may be said of a secret."""

    name: str
    version: int
    key_id: str | None
    source: str | None
    created_at: str
    updated_at: str


def list_names(connection: sqlite3.Connection, *, limit: int) -> list[SecretListing]:
    """Return what may be said of the secrets, by name."""
    rows = connection.execute(
        "SELECT name, version, key_id, source, created_at, updated_at FROM secrets ORDER BY name LIMIT ?", (limit,)
    )
    return [SecretListing._make(row) for row in rows]


#: Everywhere a value may stand that was encrypted: table, column of its codec, and of its data. The codec is `sealed:KEY_ID`;
#: where the value is kept outside of the journal, its data names that codec.
_SEALED = (
    ("value", "codec", "data"),
    ("flow_run", "result_codec", "result"),
    ("task_run", "result_codec", "result"),
    ("item", "codec", "value"),
    ("message", "codec", "value"),
    ("cache", "result_codec", "result"),
    ("error", "codec", "data"),
)


def count_by_key(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the ids of all keys that something in the journal is encrypted with, and how many secrets and values are."""
    statements = ["SELECT key_id, count(*) FROM secret WHERE key_id IS NOT NULL GROUP BY key_id"]
    for table, codec, data in _SEALED:
        statements.append(f"SELECT substr({codec}, 8), count(*) FROM {table} WHERE {codec} LIKE 'sealed:%' GROUP BY 1")
        statements.append(
            f"SELECT substr({data}, instr({data}, 'sealed:') + 7, 16), count(*) FROM {table}"
            f" WHERE {codec} = 'stored' AND instr({data}, 'sealed:') > 0 GROUP BY 1"
        )
    counts: dict[str, int] = {}
    for statement in statements:
        for key_id, count in connection.execute(statement):
            counts[key_id] = counts.get(key_id, 0) + count
    return counts
