"""Runs of another journal taken into this one: all or none, under new ids, nothing started."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, environment, python
from wfengine_journal import store
from wfengine_journal.errors import JournalCorruptError, NotFoundError, UsageError
from wfengine_journal.extraction import extract_run
from wfengine_journal.importing import import_runs

VIEWS = ("tasks", "attempts", "failures", "history", "logs", "artifacts", "cache_uses")


def query(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which several flows ran, with subflows, failures, logs, large values and cached results."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(folder, "flows.py", "all", TIMES="2")
    return folder / "journal.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A journal with runs of its own, so that no id fits by chance."""
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(tmp_path, "flows.py", "all", JOURNAL="target.db")
    return tmp_path / "target.db"


def taken(target: Path, source: Path, *run_ids: int, again: bool = False) -> object:
    try:
        return import_runs(store.open_journal(target), source, run_ids, again=again)
    finally:
        store.close_all()


def shown(path: Path, run_id: object) -> list[object]:
    """Return what people see of a run, without the numbers of its rows."""
    seen: list[object] = []
    for view in VIEWS:
        columns = [row[1] for row in query(path, f"PRAGMA table_info({view})")]
        kept = [name for name in columns if not str(name).endswith("id") and name not in ("name", "source_task_id")]
        seen.append(sorted(map(repr, query(path, f"SELECT {', '.join(map(str, kept))} FROM {view} WHERE run_id = ?", run_id))))
    return seen


def test_imported_runs_look_as_they_did_and_the_journal_stays_whole(source: Path, target: Path) -> None:
    before = {row[0]: shown(target, row[0]) for row in query(target, "SELECT id FROM runs")}
    imported = taken(target, source)

    assert [run.is_new for run in imported.runs] == [True] * 6
    assert imported.subflow_runs == 4
    for run_id, looks in before.items():
        assert shown(target, run_id) == looks
    pairs = query(target, "SELECT id, origin_run_id FROM runs WHERE origin = 'import'")
    assert len(pairs) == 10
    for new, old in pairs:
        assert shown(target, new) == shown(source, old)
    assert query(target, "PRAGMA foreign_key_check") == []
    assert query(target, "PRAGMA integrity_check") == [("ok",)]
    parents = "SELECT count(*) FROM runs WHERE parent_run_id IS NOT NULL AND origin = 'import'"
    assert query(target, parents) == [(4,)]
    assert query(target, "SELECT 1 FROM task_run WHERE result IS NULL AND result_hash NOT IN (SELECT hash FROM value)") == []
    assert query(target, "SELECT 1 FROM runs r WHERE origin = 'import' AND pid IS NULL") == []


def test_the_other_journal_is_left_byte_for_byte(source: Path, target: Path) -> None:
    before = source.read_bytes()
    taken(target, source)
    assert source.read_bytes() == before


def test_a_run_that_is_here_already_is_left_out_unless_one_asks_for_it_again(
    source: Path, target: Path, tmp_path: Path
) -> None:
    first = taken(target, source, 1)
    second = taken(target, source, 1)
    assert [run.is_new for run in second.runs] == [False]
    assert second.runs[0].run_id == first.runs[0].run_id
    third = taken(target, source, 1, again=True)
    assert third.runs[0].is_new
    assert third.runs[0].run_id > first.runs[0].run_id

    extract_run(target, 1, tmp_path / "small.db")  # it comes home again
    assert [(run.is_new, run.run_id) for run in taken(target, tmp_path / "small.db").runs] == [(False, 1)]


def test_a_run_that_was_going_on_arrives_crashed_and_is_resumed_here(tmp_path: Path, target: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "flows.py", "waiting"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stdin=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["first ran\n", "in the second task\n"]
        imported = taken(target, tmp_path / "journal.db")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    [run] = imported.runs
    assert run.state == "CRASHED"
    text = python(tmp_path, "-m", "wfengine", "resume", str(run.run_id), "--journal", "target.db", WAIT="no")
    assert "second ran" in text
    assert "first ran" not in text
    assert query(target, "SELECT state, result FROM runs WHERE id = ?", run.run_id) == [("COMPLETED", "3")]


def test_an_idempotency_key_that_is_taken_is_left_out_and_said(source: Path, target: Path, tmp_path: Path) -> None:
    keyed = tmp_path / "keyed.db"
    keyed.write_bytes(source.read_bytes())
    for path in (keyed, target):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE flow_run SET idempotency_key = 'k' WHERE id = 1")
            connection.commit()
    imported = taken(target, keyed, 1, 6)
    assert [run.key_taken_by for run in imported.runs] == [1, None]
    assert query(target, "SELECT id FROM runs WHERE idempotency_key = 'k'") == [(1,)]


def test_a_value_that_does_not_match_its_checksum_stops_the_import_before_anything_is_written(
    source: Path, target: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("UPDATE value SET data = CAST(data AS TEXT) || 'x' WHERE typeof(data) = 'text'")
        connection.commit()
    before = query(target, "SELECT (SELECT count(*) FROM flow_run), (SELECT count(*) FROM error), (SELECT count(*) FROM meta)")
    with pytest.raises(JournalCorruptError, match="does not match its checksum"):
        taken(target, damaged)
    found = query(target, "SELECT (SELECT count(*) FROM flow_run), (SELECT count(*) FROM error), (SELECT count(*) FROM meta)")
    assert found == before


def test_a_file_with_a_missing_row_is_refused_in_words(source: Path, target: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("DELETE FROM task")
        connection.commit()
    with pytest.raises(JournalCorruptError, match="is not whole"):
        taken(target, damaged)
    assert query(target, "SELECT count(*) FROM runs WHERE origin = 'import'") == [(0,)]


def test_it_refuses_itself_and_runs_that_are_not_there(source: Path, target: Path) -> None:
    with pytest.raises(UsageError, match="is the journal that the runs are to be imported into"):
        taken(target, target)
    with pytest.raises(NotFoundError, match="no flow run 99"):
        taken(target, source, 1, 99)


def test_a_process_killed_during_an_import_leaves_all_of_it_or_nothing(source: Path, tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from wfengine_journal import importing, store

journal = store.open_journal(Path(sys.argv[2]))
left = int(sys.argv[3])

class Deadly(importing._Writing):
    def _insert(self, table, row):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._insert(table, row)

importing._Writing = Deadly
importing.import_runs(journal, Path(sys.argv[1]))
if left < 1000:
    os.kill(os.getpid(), signal.SIGKILL)  # after the commit
"""
    (tmp_path / "deadly.py").write_text(program, encoding="utf-8")
    rows = sum(
        int(str(query(source, f"SELECT count(*) FROM {table}")[0][0])) for table in ("flow_run", "task_run", "transition")
    )
    for left in (0, 1, 12, 30, rows // 2, 900):
        path = tmp_path / f"target-{left}.db"
        done = subprocess.run(
            [sys.executable, "deadly.py", str(source), str(path), str(left)], cwd=tmp_path, env=environment(), check=False
        )
        assert done.returncode == -signal.SIGKILL
        expected = 10 if left == 900 else 0
        assert query(path, "SELECT count(*) FROM flow_run") == [(expected,)]
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
        assert len(taken(path, source).runs) == 6
        assert query(path, "SELECT count(*) FROM flow_run") == [(10,)]


def test_history_that_is_imported_makes_no_events_and_no_flag_stays(target: Path, source: Path) -> None:
    before = query(target, "SELECT * FROM event")
    taken(target, source)
    assert query(target, "SELECT * FROM event") == before
    assert query(target, "SELECT * FROM meta WHERE key = 'copying'") == []


def test_a_run_of_a_deployment_belongs_to_the_deployment_of_that_name_here_if_there_is_one(
    target: Path, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(copy)) as writing:
        reading.backup(writing)
        for number, name in ((7, "here"), (8, "elsewhere")):
            writing.execute(
                "INSERT INTO deployment (id, flow_id, name, parameters, created_at, updated_at)"
                " SELECT ?, flow_id, ?, '{}', '', '' FROM flow_run WHERE id = 1",
                (number, name),
            )
        writing.execute("UPDATE flow_run SET deployment_id = CASE id % 2 WHEN 1 THEN 7 ELSE 8 END")
        writing.execute("UPDATE flow_run SET deployment_id = 7 WHERE id = 1")
        writing.commit()
        (flow,) = writing.execute("SELECT f.name FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE r.id = 1").fetchone()
    with closing(sqlite3.connect(target)) as writing:
        writing.execute(
            "INSERT INTO deployment (id, flow_id, name, parameters, created_at, updated_at)"
            " SELECT 3, id, 'here', '{}', '', '' FROM flow WHERE name = ?",
            (flow,),
        )
        writing.commit()
    taken(target, copy)
    found = "SELECT DISTINCT deployment_id FROM flow_run WHERE origin = 'import' ORDER BY 1"
    assert query(target, found) == [(None,), (3,)]
    assert query(target, "PRAGMA foreign_key_check") == []
