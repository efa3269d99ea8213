"""How a journal is created, migrated and backed up."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from wfengine_journal import schema, store
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import APPLICATION_ID, FORMAT_VERSION, open_writer

Upgrade = Callable[[Database], None]

#: The format that the tests' own migrations make.
NEXT = FORMAT_VERSION + 1
#: What the file itself says of the formats it had.
RECORDED = [(f"format_{version}",) for version in range(1, FORMAT_VERSION + 1)]
FIXTURES = Path(__file__).parent / "fixtures"


def make(path: Path) -> Path:
    store.open_journal(path)
    store.close_all()
    return path


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def schema_of(path: Path) -> set[tuple[object, ...]]:
    """Return name and definition of everything in a file, white space aside."""
    rows = query(path, "SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {(*row[:3], " ".join(str(row[3]).split())) for row in rows}


def test_a_new_file_is_what_the_migrations_of_sqlite_utils_would_make(tmp_path: Path) -> None:
    fresh = make(tmp_path / "fresh.db")
    connection = sqlite3.connect(tmp_path / "migrated.db", isolation_level=None)
    migrations = Migrations(schema.MIGRATION_SET)

    def first(database: Database) -> None:
        for script in (*schema.SCRIPTS.values(), "views.sql"):
            for statement in schema.statements(schema.read_sql(script)):
                database.conn.execute(statement)

    migrations(name=schema.migration_name(1))(first)
    for version in range(2, FORMAT_VERSION + 1):
        migrations(name=schema.migration_name(version))(lambda _: None)
    migrations.apply(Database(connection))
    connection.close()
    assert schema_of(fresh) == schema_of(tmp_path / "migrated.db")
    recorded = "SELECT migration_set, name FROM _sqlite_migrations"
    assert query(fresh, recorded) == query(tmp_path / "migrated.db", recorded)
    applied = query(fresh, "SELECT applied_at FROM _sqlite_migrations")
    assert len(applied) == FORMAT_VERSION


def test_sqlite_utils_finds_nothing_left_to_apply_in_a_new_file(tmp_path: Path) -> None:
    fresh = make(tmp_path / "fresh.db")
    connection = sqlite3.connect(fresh, isolation_level=None)
    migrations = Migrations(schema.MIGRATION_SET)
    ran: list[int] = []
    for version in range(1, FORMAT_VERSION + 1):
        migrations(name=schema.migration_name(version))(lambda _: ran.append(1))
    migrations.apply(Database(connection))
    connection.close()
    assert ran == []


def test_a_new_file_says_what_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "journal.db")
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert {row[0] for row in query(path, "SELECT key FROM meta")} == {"journal_id", "created_at", "created_by"}
    assert query(path, "SELECT length(value) FROM meta WHERE key = 'journal_id'") == [(32,)]


def test_opening_a_journal_again_changes_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "journal.db")
    before = path.read_bytes()
    make(path)
    assert path.read_bytes() == before


def test_two_processes_that_create_one_journal_at_once_both_get_it(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from wfengine_journal import store
print("ready", flush=True)
sys.stdin.readline()
journal = store.open_journal(Path(sys.argv[1]))
print(journal.id, journal.owner_id, flush=True)
"""
    for turn in range(5):
        path = tmp_path / str(turn) / "journal.db"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        answers = [child.communicate(timeout=60)[0].split() for child in children]
        assert len({answer[0] for answer in answers}) == 1
        assert sorted(int(answer[1]) for answer in answers) == [1, 2, 3, 4]
        assert query(path, "PRAGMA integrity_check") == [("ok",)]


def older(path: Path) -> sqlite3.Connection:
    """Return a write connection to a journal with a row, and a view that is no longer made."""
    make(path)
    connection, _ = open_writer(path)
    connection.execute("CREATE VIEW outdated AS SELECT key FROM meta")
    connection.execute("INSERT INTO flow (name, first_seen_at) VALUES ('etl', 'now')")
    return connection


def add_colour(database: Database) -> None:
    database.conn.execute("ALTER TABLE flow ADD COLUMN colour TEXT")
    database.conn.execute("UPDATE flow SET colour = 'blue'")


def test_an_older_journal_is_backed_up_and_migrated(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = older(path)
    backup = schema.upgrade(connection, path, FORMAT_VERSION, {NEXT: add_colour})
    connection.close()
    assert query(path, "SELECT name, colour FROM flow") == [("etl", "blue")]
    assert query(path, "PRAGMA user_version") == [(NEXT,)]
    names = [row[0] for row in query(path, "SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert names == [f"format_{version}" for version in range(1, NEXT + 1)]
    assert query(path, "SELECT count(*) FROM sqlite_schema WHERE type = 'view' AND name = 'outdated'") == [(0,)]
    assert query(path, "SELECT count(*) FROM runs") == [(0,)]  # the views are there, made anew
    assert backup == tmp_path / f"journal.db.format-{FORMAT_VERSION}.backup"
    assert query(backup, "SELECT name FROM flow") == [("etl",)]
    assert query(backup, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert backup.stat().st_mode & 0o777 == 0o600


def test_several_formats_are_applied_in_order_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = older(path)

    def add_shade(database: Database) -> None:
        database.conn.execute("UPDATE flow SET colour = 'dark ' || colour")

    schema.upgrade(connection, path, FORMAT_VERSION, {NEXT + 1: add_shade, NEXT: add_colour})
    schema.upgrade(connection, path, NEXT + 1, {NEXT + 1: add_shade, NEXT: add_colour})
    connection.close()
    assert query(path, "SELECT colour FROM flow") == [("dark blue",)]
    assert query(path, "PRAGMA user_version") == [(NEXT + 1,)]


def test_a_migration_that_raises_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = older(path)
    before = schema_of(path)

    def half_done(database: Database) -> None:
        add_colour(database)
        raise RuntimeError("a defect in the migration")

    with pytest.raises(RuntimeError, match="a defect in the migration"):
        schema.upgrade(connection, path, FORMAT_VERSION, {NEXT: half_done})
    assert not connection.in_transaction
    connection.close()
    assert schema_of(path) == before
    assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert query(path, "SELECT name FROM _sqlite_migrations") == RECORDED
    assert (tmp_path / f"journal.db.format-{FORMAT_VERSION}.backup").exists()


def test_of_several_migrations_all_or_none_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    connection = older(path)

    def fails(_: Database) -> None:
        raise RuntimeError("the second fails")

    with pytest.raises(RuntimeError):
        schema.upgrade(connection, path, FORMAT_VERSION, {NEXT: add_colour, NEXT + 1: fails})
    connection.close()
    assert "colour" not in {row[1] for row in query(path, "PRAGMA table_info(flow)")}


def test_a_process_that_is_killed_while_migrating_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    older(path).close()
    before = schema_of(path)
    program = """
import os, sys
from pathlib import Path
from wfengine_journal import schema
from wfengine_journal.connection import open_writer
path = Path(sys.argv[1])
def killed(database):
    database.conn.execute("ALTER TABLE flow ADD COLUMN colour TEXT")
    os.kill(os.getpid(), 9)
version = open_writer(path)[1]
schema.upgrade(open_writer(path)[0], path, version, {version + 1: killed})
"""
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert schema_of(path) == before
    assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]


def columns_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the columns of every table and view of a file."""
    names = [str(row[0]) for row in query(path, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name")]
    return {name: query(path, f"PRAGMA table_xinfo('{name}')") for name in names}


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_a_journal_of_each_released_format_becomes_what_a_new_one_is_and_keeps_its_rows(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress((FIXTURES / f"format-{version}.db.gz").read_bytes()))
    rows = query(path, "SELECT * FROM runs"), query(path, "SELECT * FROM tasks"), query(path, "SELECT * FROM history")
    make(path)  # opening it is enough
    fresh = make(tmp_path / "fresh.db")
    assert schema_of(path) == schema_of(fresh)
    assert columns_of(path) == columns_of(fresh)
    assert query(path, "PRAGMA user_version") == [(FORMAT_VERSION,)]
    after = query(path, "SELECT * FROM runs"), query(path, "SELECT * FROM tasks"), query(path, "SELECT * FROM history")
    for old, new in zip(rows, after, strict=True):
        assert [row[: len(before)] for row, before in zip(new, old, strict=True)] == old
    assert (tmp_path / f"old.db.format-{version}.backup").exists()


def test_a_backup_while_the_journal_is_written_is_whole(tmp_path: Path) -> None:
    connection = older(tmp_path / "journal.db")
    schema.backup(connection, tmp_path / "copy.db")
    connection.close()
    assert query(tmp_path / "copy.db", "PRAGMA integrity_check") == [("ok",)]
    assert query(tmp_path / "copy.db", "SELECT name FROM flow") == [("etl",)]


def test_a_script_is_split_into_its_statements_and_triggers_stay_whole() -> None:
    found = schema.statements(
        "-- a; comment\nCREATE TABLE a (x); -- and; more\n"
        "CREATE TRIGGER t AFTER INSERT ON a\nBEGIN\n  SELECT 1; SELECT 2;\nEND;\n"
    )
    assert len(found) == 2
    assert found[1].startswith("CREATE TRIGGER")
    assert found[1].endswith("END;")


def test_a_script_that_ends_in_the_middle_of_a_statement_is_a_defect_that_is_said() -> None:
    from wfengine_journal.errors import InternalError

    with pytest.raises(InternalError, match="ends in the middle of a statement"):
        schema.statements("CREATE TABLE a (x);\nCREATE TABLE b (")


def test_creating_a_journal_in_one_that_is_there_does_nothing(tmp_path: Path) -> None:
    connection = older(tmp_path / "journal.db")
    before = schema_of(tmp_path / "journal.db")
    schema.create(connection, SystemClock(), "again")
    connection.close()
    assert schema_of(tmp_path / "journal.db") == before
