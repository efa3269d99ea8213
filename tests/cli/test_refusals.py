"""Bad input, and what must never be possible: one clear line, the right exit code, nothing written."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, Cli, environment
from handmade import make_journal

from wfengine_journal.errors import UsageError
from wfengine_journal.read_only_sql import sandbox, select

READING = [["runs", "ls"], ["runs", "show", "1"], ["runs", "logs", "1"], ["watch"], ["sql", "SELECT 1"], ["doctor"]]
MISSING = [*READING, ["resolve", "1", "2", "--not-done"], ["resume", "1"]]
ALL = [*READING, ["info"], ["resume", "1"], ["resume", "--all"]]

WRITES = [
    "INSERT INTO meta VALUES ('a', 'b')",
    "UPDATE flow_run SET state = 'COMPLETED', ended_at = created_at",
    "DELETE FROM task_run",
    "INSERT INTO meta VALUES ('a', 'b') RETURNING *",
    "WITH x AS (SELECT 1) DELETE FROM task_run",
    "REPLACE INTO meta VALUES ('journal_id', 'x')",
    "DROP TABLE task_run",
    "DROP VIEW runs",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP VIEW runs AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.x USING fts5(a)",
    "CREATE INDEX x ON task_run (state)",
    "ALTER TABLE task_run RENAME TO x",
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT x",
    "COMMIT",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA optimize",
    "PRAGMA incremental_vacuum",
    "SELECT * FROM pragma_wal_checkpoint",
    "SELECT load_extension('x')",
    "REINDEX",
    "ANALYZE",
    "EXPLAIN DELETE FROM task_run",
    "SELECT 1; DELETE FROM task_run",
]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("statement", WRITES)
def test_only_reading_is_possible_on_the_connection_of_sql(cli: Cli, journal: Path, statement: str) -> None:
    before = digest(journal)
    with sandbox(journal) as connection, pytest.raises(UsageError):
        list(select(connection, statement).rows)
    assert digest(journal) == before
    assert [path.name for path in cli.folder.iterdir()] == [".wfengine"]
    assert not list(Path.cwd().glob("copy.db")) + list(Path.cwd().glob("other.db"))


@pytest.mark.parametrize("statement", ["DELETE FROM task_run", "ATTACH 'other.db' AS other", "VACUUM INTO 'copy.db'"])
def test_sql_refuses_whatever_is_not_reading(cli: Cli, journal: Path, statement: str) -> None:
    before = digest(journal)
    answer = cli("sql", statement)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error[WF100]: Only reading is allowed here")
    assert digest(journal) == before
    assert [path.name for path in cli.folder.iterdir()] == [".wfengine"]


def test_a_view_that_a_hostile_writer_made_can_do_no_more(cli: Cli, journal: Path) -> None:
    connection = sqlite3.connect(journal)
    connection.execute("CREATE VIEW evil AS SELECT load_extension('/tmp/evil')")
    connection.close()
    assert cli("sql", "SELECT * FROM evil").code == 2


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_a_missing_journal_is_said_and_none_is_made(cli: Cli, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith("error[WF401]: There is no journal at ")
    assert len(answer.err.splitlines()) == 1
    assert list(cli.folder.iterdir()) == []


def test_info_of_a_missing_journal_depends_on_whether_it_was_named(cli: Cli) -> None:
    assert cli("info", "--journal", "named.db").code == 5
    answer = cli("info", "--json")
    assert (answer.code, answer.object["exists"]) == (0, False)
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_a_file_that_is_no_database_is_left_as_it_is(cli: Cli, arguments: list[str]) -> None:
    path = cli.folder / "notes.txt"
    path.write_text("these are notes, not a database\n" * 200, encoding="utf-8")
    before = digest(path)
    answer = cli(*arguments, "--journal", str(path))
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith("error[WF402]: ")
    assert len(answer.err.splitlines()) == 1
    assert digest(path) == before
    assert list(cli.folder.iterdir()) == [path]


@pytest.mark.parametrize("arguments", ALL[::4], ids=" ".join)
def test_somebody_elses_database_is_left_as_it_is(cli: Cli, arguments: list[str]) -> None:
    path = cli.folder / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    before = digest(path)
    answer = cli(*arguments, "--journal", str(path))
    assert answer.code == 5
    assert answer.err.startswith("error[WF402]: ")
    assert digest(path) == before


@pytest.mark.parametrize("arguments", ALL, ids=" ".join)
def test_a_newer_journal_is_left_byte_for_byte(cli: Cli, arguments: list[str]) -> None:
    path = make_journal(cli.folder / "newer.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = digest(path)
    answer = cli(*arguments, "--journal", str(path))
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith("error[WF403]: ")
    assert digest(path) == before
    assert list(cli.folder.iterdir()) == [path]


@pytest.mark.parametrize("arguments", READING[::4], ids=" ".join)
def test_an_empty_file_is_no_journal(cli: Cli, arguments: list[str]) -> None:
    path = cli.folder / "empty.db"
    path.touch()
    answer = cli(*arguments, "--journal", str(path))
    assert answer.code == 5
    assert answer.err.startswith("error[WF401]: ")
    assert path.stat().st_size == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["rns"], 2, "Did you mean runs or run?"),
        (["runs", "lst"], 2, "Did you mean ls?"),
        (["runs", "ls", "--stat", "FAILED"], 2, "--stat"),
        (["runs", "ls", "--state", "BROKEN"], 2, "completed"),
        (["runs", "ls", "--limit", "0"], 2, "--limit"),
        (["runs", "ls", "--since", "yesterday"], 2, "--since"),
        (["runs", "logs", "1", "--grep", "("], 2, "regular expression"),
        (["runs", "show"], 2, "RUN"),
        (["runs", "show", "99"], 3, "wfengine runs ls"),
        (["runs", "show", "99999999999999999999999999"], 3, "wfengine runs ls"),
        (["runs", "show", ""], 3, "wfengine runs ls"),
        (["runs", "show", "\udcff"], 3, "wfengine runs ls"),
        (["watch", "nobody"], 3, "nobody"),
        (["resume"], 2, "--all"),
        (["resume", "1", "--all"], 2, "--all"),
        (["resume", "nobody"], 3, "nobody"),
        (["sql", "SELEC"], 2, "syntax error"),
        (["sql", "SELECT * FROM nowhere"], 2, "no such table"),
        (["sql", "  "], 2, "no statement"),
        (["run"], 2, "FILE_OR_MODULE"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(cli: Cli, journal: Path, arguments: list[str], code: int, text: str) -> None:
    before = digest(journal)
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("error[WF")
    assert text in answer.err
    assert len(answer.err.splitlines()) == 1
    assert "Traceback" not in answer.err
    assert digest(journal) == before


def test_errors_are_an_object_with_json_and_a_traceback_with_v(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "nobody", "--json", "-v")
    assert answer.object["error"]["code"] == "WF103"
    assert (answer.object["command"], answer.object["exit_code"]) == ("runs show", 3)
    assert "Traceback" in answer.err


# ---------------------------------------------------------------------------------------------------- start


def imported(*arguments: str, folder: Path) -> set[str]:
    """Return the modules that a command line imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "wfengine", *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


HEAVY = {"rich", "asyncio", "sqlite_utils", "pydantic", "croniter", "tenacity", "cloudpickle", "multiprocessing"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["runs", "show", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    assert not imported(*arguments, folder=tmp_path) & {*HEAVY, "importlib.metadata"}


def test_help_of_the_program_imports_no_command(tmp_path: Path) -> None:
    loaded = {name for name in imported("--help", folder=tmp_path) if name.startswith("wfengine.cli.")}
    assert loaded == {"wfengine.cli.base", "wfengine.cli.exits", "wfengine.cli.output"}


def test_reading_commands_import_no_terminal_library(cli: Cli, journal: Path) -> None:
    assert not imported("runs", "ls", folder=cli.folder) & HEAVY


def test_every_command_explains_itself_with_an_example(cli: Cli) -> None:
    for words in ("run", "resume", "runs", "runs ls", "runs show", "runs logs", "watch", "sql", "info", "doctor", "demo"):
        answer = cli(*words.split(), "-h")
        assert answer.code == 0
        assert f"wfengine {words}" in answer.out.partition("Example")[2], words
    exits = cli("--help").out.partition("Exit codes:")[2]
    assert [line.split()[0] for line in exits.strip().splitlines()] == [*"01234567", "130"]


def test_no_sql_is_run_and_no_database_opened_in_the_command_line() -> None:
    for path in (ROOT / "wfengine" / "cli").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert ".execute(" not in source, path
        assert "sqlite3.connect" not in source, path
