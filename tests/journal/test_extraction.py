"""One run as a file of its own: what is in it, what is not, and that nothing can be half there."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, python
from wfengine_journal import extraction, store
from wfengine_journal.connection import FORMAT_VERSION, open_reader
from wfengine_journal.errors import JournalNotFoundError, NewerJournalError, NotAJournalError, NotFoundError, UsageError
from wfengine_journal.extraction import extract_run
from wfengine_journal.run_rows import ERROR_REFERENCES, OTHER_TABLES, RUN_TABLES, VALUE_REFERENCES

FIXTURES = Path(__file__).parent / "fixtures"


def query(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which several flows ran, with subflows, failures, logs, large values and cached results."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(folder, "flows.py", "all")
    return folder / "journal.db"


def tables_of(path: Path) -> set[str]:
    names = query(path, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sqlite%'")
    return {str(name) for (name,) in names}


def test_every_table_and_every_checksum_is_accounted_for(source: Path) -> None:
    tables = tables_of(source)
    assert {*RUN_TABLES, *OTHER_TABLES} == tables
    assert not set(RUN_TABLES) & OTHER_TABLES
    columns = {(table, str(row[1])) for table in tables for row in query(source, f"PRAGMA table_info({table})")}
    hashes = {(table, column) for table, column in columns if column == "hash" or column.endswith("_hash")}
    own = {("value", "hash"), ("error", "hash"), ("code", "hash"), ("task_code", "code_hash")}  # they refer to nothing
    assert {(table, column) for table, column, _ in VALUE_REFERENCES} == hashes - own
    assert set(ERROR_REFERENCES) == {(table, column) for table, column in columns if column == "error_id"}
    assert {table for table, column in columns if column == "flow_run_id"} == {*RUN_TABLES, "dependency", "cache", "slot"} | {
        *("tick", "event", "notification")
    }


def test_an_extract_holds_the_rows_of_the_run_and_its_subflows_and_no_others(source: Path, tmp_path: Path) -> None:
    run_id = query(source, "SELECT id FROM runs WHERE flow = 'parent' AND parent_run_id IS NULL")[0][0]
    family = query(source, "SELECT id FROM runs WHERE id = ? OR parent_run_id = ?", run_id, run_id)
    assert len(family) == 3

    extracted = extract_run(source, int(str(run_id)), tmp_path / "small.db")

    ids = ", ".join(str(row[0]) for row in family)
    assert extracted.run_ids == tuple(sorted(row[0] for row in family))
    for table in RUN_TABLES:
        wanted = query(source, f"SELECT * FROM {table} WHERE flow_run_id IN ({ids}) ORDER BY 1, 2, 3")
        assert query(tmp_path / "small.db", f"SELECT * FROM {table} ORDER BY 1, 2, 3") == wanted, table
    runs = query(source, f"SELECT * FROM flow_run WHERE id IN ({ids}) ORDER BY id")
    assert query(tmp_path / "small.db", "SELECT * FROM flow_run ORDER BY id") == runs
    assert extracted.task_runs == query(tmp_path / "small.db", "SELECT count(*) FROM task_run")[0][0]


def test_an_extract_is_a_whole_journal_of_the_same_kind(source: Path, tmp_path: Path) -> None:
    for (run_id,) in query(source, "SELECT id FROM flow_run"):
        small = tmp_path / f"{run_id}.db"
        extract_run(source, int(str(run_id)), small)
        assert small.stat().st_mode & 0o777 == 0o600
        assert not Path(f"{small}-wal").exists()
        for pragma in ("application_id", "user_version", "journal_mode", "auto_vacuum", "page_size"):
            assert query(small, f"PRAGMA {pragma}") == query(source, f"PRAGMA {pragma}"), pragma
        assert query(small, "PRAGMA integrity_check") == [("ok",)]
        assert query(small, "PRAGMA foreign_key_check") == []
        definitions = "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2"
        assert query(small, definitions) == query(source, definitions)
        for table, column, inline in VALUE_REFERENCES:
            outside = f"AND {inline} IS NULL" if inline else ""
            missing = f"SELECT 1 FROM {table} WHERE {column} > '' AND {column} NOT IN (SELECT hash FROM value) {outside}"
            assert query(small, missing) == [], (table, column)
        for table, column in ERROR_REFERENCES:
            assert query(small, f"SELECT 1 FROM {table} WHERE {column} > 0 AND {column} NOT IN (SELECT id FROM error)") == []
        needed = " UNION ".join(f"SELECT {column} FROM {table} WHERE {column} > ''" for table, column, _ in VALUE_REFERENCES)
        assert query(small, f"SELECT 1 FROM value WHERE hash NOT IN ({needed})") == []
        assert query(small, "SELECT value FROM meta WHERE key = 'journal_id'") == query(
            source, "SELECT value FROM meta WHERE key = 'journal_id'"
        )


def test_a_subflow_run_can_be_extracted_by_itself(source: Path, tmp_path: Path) -> None:
    child = query(source, "SELECT id FROM runs WHERE parent_run_id IS NOT NULL")[0][0]
    assert extract_run(source, int(str(child)), tmp_path / "small.db").run_ids == (child,)
    assert query(tmp_path / "small.db", "SELECT id, parent_run_id FROM runs") == [(child, None)]
    assert query(tmp_path / "small.db", "PRAGMA foreign_key_check") == []


def test_what_the_source_holds_is_the_same_afterwards(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    extract_run(source, 1, tmp_path / "small.db")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.db"]


def test_a_run_that_is_going_on_is_copied_and_can_be_resumed_in_the_copy(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    child = subprocess.Popen(
        [sys.executable, "flows.py", "waiting"], cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["first ran\n", "in the second task\n"]
        extract_run(tmp_path / "journal.db", 1, tmp_path / "small.db")
        assert query(tmp_path / "journal.db", "SELECT state FROM runs WHERE id = 1") == [("RUNNING",)]
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()

    small = tmp_path / "small.db"
    assert query(small, "SELECT state FROM runs") == [("CRASHED",)]
    message = str(query(small, "SELECT message FROM runs")[0][0])
    assert re.fullmatch(r"copied by extract while process \d+ on .* counted as executing it", message)
    assert query(small, "SELECT task, state_name, interruptions FROM tasks ORDER BY id") == [
        ("first", "Completed", 0),
        ("second", "Interrupted", 0),
    ]
    last = "SELECT state FROM transition h WHERE task_run_id = 0 ORDER BY seq DESC LIMIT 1"
    assert query(small, last) == [("CRASHED",)]
    shown = python(tmp_path, "-m", "wfengine", "resume", "1", "--journal", "small.db", WAIT="no")
    assert "second ran" in shown
    assert "first ran" not in shown
    assert query(small, "SELECT state, result FROM runs") == [("COMPLETED", "3")]
    assert query(tmp_path / "journal.db", "SELECT state FROM runs WHERE id = 1") == [("RUNNING",)]


def test_idempotency_keys_stay_what_they_were_and_new_runs_get_ids_of_their_own(source: Path, tmp_path: Path) -> None:
    extract_run(source, 1, tmp_path / "flows.db")
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(tmp_path, "flows.py", "all", JOURNAL="flows.db")
    used = {row[0] for row in query(source, "SELECT id FROM flow_run")}
    new = {row[0] for row in query(tmp_path / "flows.db", "SELECT id FROM flow_run")} - {1, 2, 3}
    assert new
    assert not new & used


def test_a_target_that_exists_is_refused_and_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "small.db").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        extract_run(source, 1, tmp_path / "small.db")
    with pytest.raises(UsageError, match="is a folder"):
        extract_run(source, 1, tmp_path)
    assert (tmp_path / "small.db").read_text(encoding="utf-8") == "mine"
    extract_run(source, 1, tmp_path / "small.db", overwrite=True)
    assert query(tmp_path / "small.db", "SELECT id FROM flow_run ORDER BY id") == [(1,), (2,), (3,)]


def test_a_journal_in_use_is_not_overwritten_even_when_forced(source: Path, tmp_path: Path) -> None:
    store.open_journal(tmp_path / "used.db").owner_id  # noqa: B018  # registers, so the log holds something
    try:
        with pytest.raises(UsageError, match="is in use"):
            extract_run(source, 1, tmp_path / "used.db", overwrite=True)
    finally:
        store.close_all()


def test_nothing_is_left_when_the_run_is_not_there_or_the_source_is_none(source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no flow run 99"):
        extract_run(source, 99, tmp_path / "small.db")
    with pytest.raises(JournalNotFoundError):
        extract_run(tmp_path / "missing.db", 1, tmp_path / "small.db")
    (tmp_path / "notes.txt").write_text("notes " * 500, encoding="utf-8")
    with pytest.raises(NotAJournalError):
        extract_run(tmp_path / "notes.txt", 1, tmp_path / "small.db")
    (tmp_path / "notes.txt").unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_newer_journal_is_refused(source: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    newer.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerJournalError):
        extract_run(newer, 1, tmp_path / "small.db")


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_journal_is_read_and_left_as_it_is(version: int, tmp_path: Path) -> None:
    import gzip

    old = tmp_path / "old.db"
    old.write_bytes(gzip.decompress((FIXTURES / f"format-{version}.db.gz").read_bytes()))
    before = old.read_bytes()
    run_id = int(str(query(old, "SELECT max(id) FROM flow_run WHERE parent_task_run_id IS NULL")[0][0]))
    extract_run(old, run_id, tmp_path / "small.db")
    assert old.read_bytes() == before
    assert query(tmp_path / "small.db", "PRAGMA user_version") == [(FORMAT_VERSION,)]
    assert query(tmp_path / "small.db", "SELECT id FROM runs WHERE parent_run_id IS NULL") == [(run_id,)]


def test_a_process_killed_at_any_point_leaves_no_target(source: Path, tmp_path: Path) -> None:
    """Let the process die before each statement in turn; the target is either not there or whole."""
    program = textwrap.dedent(
        """
        import os, signal, sqlite3, sys
        from pathlib import Path
        from wfengine_journal import connection, extraction

        class Deadly(connection._Reader):
            left = int(sys.argv[3])

            def execute(self, *arguments):
                Deadly.left -= 1
                if Deadly.left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().execute(*arguments)

        connection._Reader = Deadly
        extraction.extract_run(Path(sys.argv[1]), 1, Path(sys.argv[2]))
        """
    )
    (tmp_path / "deadly.py").write_text(program, encoding="utf-8")
    for number in range(0, 400, 23):
        target = tmp_path / f"small-{number}.db"
        done = subprocess.run([sys.executable, "deadly.py", str(source), str(target), str(number)], cwd=tmp_path, check=False)
        if done.returncode == 0:
            assert query(target, "SELECT id FROM flow_run ORDER BY id") == [(1,), (2,), (3,)]
            break
        assert done.returncode == -signal.SIGKILL
        assert not target.exists()
    else:
        pytest.fail("it never came to its end")


def test_a_fork_while_an_extract_is_made_knows_that_the_source_is_open(source: Path, tmp_path: Path) -> None:
    from wfengine_journal.connection import open_beside, open_readers

    (tmp_path / "new.db").touch()
    with closing(open_beside(tmp_path / "new.db", source)):
        assert str(source.resolve()) in open_readers()
    assert str(source.resolve()) not in open_readers()
    with closing(open_reader(source)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] > 3
    assert extraction.Extracted((1,), 0, 0).run_ids == (1,)
