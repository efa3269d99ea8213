"""Create and migrate the schema. Migrations only go forward, are numbered by format, and are never edited once released.

A new file is made by plain SQL in one transaction, with the same bookkeeping that sqlite-utils keeps, so that the common
case does not import sqlite-utils; every later format is a sqlite-utils migration, applied after an automatic backup.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine_journal.clock import Clock
from wfengine_journal.connection import APPLICATION_ID, FORMAT_VERSION
from wfengine_journal.errors import InternalError

if TYPE_CHECKING:
    from sqlite_utils import Database

MIGRATION_SET = "wfengine"

#: The scripts that make the tables, one a format so far: a new file runs them all, an older one those it has not had.
SCRIPTS = {1: "schema.sql", 2: "format_2.sql", 3: "format_3.sql", 4: "format_4.sql"}

# What sqlite-utils itself would create; a test holds the two against each other.
_BOOKKEEPING = """
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
"""


def read_sql(name: str) -> str:
    """Return the text of one of the package's .sql files."""
    from importlib import resources  # takes as long as all of json, and only a new file needs it

    return resources.files("wfengine_journal").joinpath("sql", name).read_text(encoding="utf-8")


def migration_name(version: int) -> str:
    """Return the name under which a format is recorded as applied."""
    return f"format_{version}"


def create(connection: sqlite3.Connection, clock: Clock, created_by: str) -> None:
    """Make an empty database a journal, in one transaction; do nothing when another process was quicker."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for script in (*map(read_sql, SCRIPTS.values()), read_sql("views.sql"), _BOOKKEEPING):
                for statement in statements(script):
                    connection.execute(statement)
            for version in range(1, FORMAT_VERSION + 1):
                connection.execute(
                    'INSERT INTO "_sqlite_migrations" (migration_set, name, applied_at) VALUES (?, ?, ?)',
                    (MIGRATION_SET, migration_name(version), clock.now_text()),
                )
            connection.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [
                    ("journal_id", os.urandom(16).hex()),
                    ("created_at", clock.now_text()),
                    ("created_by", created_by),
                ],
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def our_definitions() -> dict[tuple[str, str], str]:
    """Return the type and name of all that a new journal defines, with its SQL."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in (*map(read_sql, SCRIPTS.values()), read_sql("views.sql"), _BOOKKEEPING):
            connection.executescript(script)
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name"
        )
        return {(row[0], row[1]): row[2] for row in rows.fetchall()}


def _run_script(name: str) -> Callable[[Database], None]:
    """Return the migration that one script is."""

    def run(database: Database) -> None:
        for statement in statements(read_sql(name)):
            database.conn.execute(statement)

    return run


#: Format -> what turns a file of the format before it into this one. Views are dropped before and made anew after.
#: Format 1 is the first that was released.
UPGRADES: dict[int, Callable[[Database], None]] = {version: _run_script(SCRIPTS[version]) for version in SCRIPTS if version > 1}


def statements(script: str) -> list[str]:
    """Split an SQL script into its statements; triggers, which hold semicolons, stay whole."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise InternalError(f"An SQL script of wfengine ends in the middle of a statement: {pending[:80]!r}. Please report it.")
    return found


def upgrade(
    connection: sqlite3.Connection, path: Path, version: int, upgrades: dict[int, Callable[[Database], None]] | None = None
) -> Path:
    """Bring an older file to the newest format in one transaction, after a backup; return the backup's path.

    Raises what the migration raised, with the file as it was.
    """
    from sqlite_utils import Database, Migrations

    steps = UPGRADES if upgrades is None else upgrades
    backup_path = path.with_name(f"{path.name}.format-{version}.backup")
    backup(connection, backup_path)
    migrations = Migrations(MIGRATION_SET)
    for number in sorted(steps):
        migrations(name=migration_name(number))(steps[number])
    connection.execute("BEGIN IMMEDIATE")
    try:
        _drop_views(connection)
        migrations.apply(Database(connection))
        for statement in statements(read_sql("views.sql")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max([FORMAT_VERSION, *steps])}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return backup_path


def _drop_views(connection: sqlite3.Connection) -> None:
    """Drop every view but those of the user's own, see `user_tables`."""
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view' AND name NOT LIKE 'user\\_%' ESCAPE '\\'")
    names = [row[0] for row in found.fetchall()]
    for name in names:
        quoted = name.replace('"', '""')
        connection.execute(f'DROP VIEW "{quoted}"')


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the journal with SQLite's own backup, while it may be in use."""
    os.close(os.open(target, os.O_CREAT | os.O_RDWR, 0o600))  # as private as the journal
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()
