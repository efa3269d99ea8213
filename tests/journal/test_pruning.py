"""Old runs deleted whole, in batches, beside others that write; nothing that is needed goes with them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, environment, python
from wfengine_journal import pruning, store
from wfengine_journal.connection import open_reader
from wfengine_journal.pruning import Pruned, Rule
from wfengine_journal.run_rows import ERROR_REFERENCES, RUN_TABLES, VALUE_REFERENCES

LATER = "2999-01-01T00:00:00.000000Z"


def query(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


def change(path: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, parameters)
        connection.commit()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(folder, "flows.py", "all", TIMES="8")
    return folder / "journal.db"


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """A journal with eight runs each of three flows, and a process that wrote it and ended."""
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    (tmp_path / "journal.db").write_bytes(made.read_bytes())
    return tmp_path / "journal.db"


def pruned(path: Path, rule: Rule) -> Pruned:
    try:
        return pruning.prune(store.open_journal(path), rule)
    finally:
        store.close_all()


def assert_whole(path: Path) -> None:
    """Say that no row refers to a missing one, no run is there in part, and nothing is kept for nobody."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    assert query(path, "SELECT 1 FROM meta WHERE key = 'pruning'") == []
    for table in RUN_TABLES:
        stray = f"SELECT 1 FROM {table} WHERE flow_run_id NOT IN (SELECT id FROM flow_run)"
        assert query(path, stray) == [], table
    for table, column, inline in VALUE_REFERENCES:
        outside = f"AND {inline} IS NULL" if inline else ""
        missing = f"SELECT 1 FROM {table} WHERE {column} > '' AND {column} NOT IN (SELECT hash FROM value) {outside}"
        assert query(path, missing) == [], (table, column)
    for table, column in ERROR_REFERENCES:
        assert query(path, f"SELECT 1 FROM {table} WHERE {column} > 0 AND {column} NOT IN (SELECT id FROM error)") == []
    latest = "(SELECT max(seq) FROM transition h WHERE h.flow_run_id = r.id AND h.task_run_id = 0)"
    assert query(path, f"SELECT 1 FROM flow_run r WHERE version <> {latest}") == []


def assert_tidy(path: Path) -> None:
    """Say that no value and no error is kept that nothing refers to."""
    values = " UNION ".join(f"SELECT {column} FROM {table} WHERE {column} > ''" for table, column, _ in VALUE_REFERENCES)
    assert query(path, f"SELECT 1 FROM value WHERE hash NOT IN ({values})") == []
    errors = " UNION ".join(f"SELECT {column} FROM {table} WHERE {column} > 0" for table, column in ERROR_REFERENCES)
    assert query(path, f"SELECT 1 FROM error WHERE id NOT IN ({errors})") == []


def test_the_newest_of_each_flow_stay_and_the_others_go_with_their_subflows(path: Path) -> None:
    before = path.stat().st_size
    done = pruned(path, Rule(None, keep_newest=2))
    # `child` is called by `parent` too: those are subflow runs, and go with it.
    assert (done.runs, done.subflow_runs) == (18, 12)
    assert query(path, "SELECT flow, count(*) FROM runs WHERE parent_run_id IS NULL GROUP BY flow ORDER BY flow") == [
        ("child", 2),
        ("failing", 2),
        ("parent", 2),
    ]
    assert_whole(path)
    assert_tidy(path)
    assert path.stat().st_size < before * 0.6
    assert done.bytes == before - path.stat().st_size
    assert query(path, "PRAGMA freelist_count") == [(0,)]


def test_what_stays_reads_as_it_did(path: Path) -> None:
    newest = query(path, "SELECT max(id) FROM runs WHERE flow = 'parent'")[0][0]
    views = ("tasks", "history", "attempts", "logs", "artifacts")
    before = [query(path, f"SELECT * FROM {view} WHERE run_id = ?", newest) for view in views]
    pruned(path, Rule(None, keep_newest=1))
    assert [query(path, f"SELECT * FROM {view} WHERE run_id = ?", newest) for view in views] == before


def test_failed_runs_stay_when_that_is_asked_for(path: Path) -> None:
    done = pruned(path, Rule(LATER, keep_failed=True))
    assert done.runs == 16
    assert query(path, "SELECT DISTINCT flow, state FROM runs") == [("failing", "FAILED")]
    assert_whole(path)


def test_only_what_ended_before_the_instant_goes_and_only_of_the_flow(path: Path) -> None:
    middle = str(query(path, "SELECT ended_at FROM runs WHERE flow = 'failing' ORDER BY id LIMIT 1 OFFSET 3")[0][0])
    assert pruned(path, Rule(middle, flow="failing")).runs == 3
    assert pruned(path, Rule("1999-01-01T00:00:00.000000Z")).runs == 0
    assert pruned(path, Rule(LATER, flow="failing")).runs == 5
    assert query(path, "SELECT DISTINCT flow FROM runs WHERE parent_run_id IS NULL ORDER BY flow") == [("child",), ("parent",)]


@pytest.mark.parametrize("state", ["CRASHED", "PAUSED", "SCHEDULED", "RUNNING", "CANCELLING", "PENDING"])
@pytest.mark.parametrize("where", ["the run", "a subflow"])
def test_what_has_not_ended_stays_with_its_whole_family(path: Path, state: str, where: str) -> None:
    parent = query(path, "SELECT min(id) FROM runs WHERE flow = 'parent'")[0][0]
    child = query(path, "SELECT min(id) FROM runs WHERE parent_run_id = ?", parent)[0][0]
    ended = "ended_at" if state == "CRASHED" else "NULL"
    change(
        path, f"UPDATE flow_run SET state = ?, ended_at = {ended} WHERE id = ?", state, parent if where == "the run" else child
    )
    done = pruned(path, Rule(LATER))
    assert query(path, "SELECT count(*) FROM runs") == [(3,)]
    assert done.kept_for_open == (0 if where == "the run" else 1)
    assert_whole(path)


def test_a_run_that_an_open_one_waits_for_stays_until_that_has_ended(path: Path) -> None:
    needed, waiting = (
        row[0] for row in query(path, "SELECT id FROM runs WHERE flow = 'child' AND parent_run_id IS NULL LIMIT 2")
    )
    change(path, "INSERT INTO dependency VALUES (?, ?, 1)", waiting, needed)
    change(path, "UPDATE flow_run SET state = 'SCHEDULED', ended_at = NULL WHERE id = ?", waiting)
    assert pruned(path, Rule(LATER)).kept_for_open == 1
    assert query(path, "SELECT id FROM flow_run ORDER BY id") == sorted([(needed,), (waiting,)])
    change(path, "UPDATE flow_run SET state = 'COMPLETED', ended_at = created_at WHERE id = ?", waiting)
    pruned(path, Rule(LATER))
    assert query(path, "SELECT count(*) FROM flow_run") == [(0,)]
    assert_whole(path)


def test_a_background_run_stays_while_a_run_that_may_ask_for_it_is_open(path: Path) -> None:
    ids = [row[0] for row in query(path, "SELECT id FROM runs WHERE flow = 'child' AND parent_run_id IS NULL ORDER BY id")]
    change(path, "UPDATE flow_run SET state = 'PAUSED', ended_at = NULL WHERE id = ?", ids[1])
    change(path, f"UPDATE flow_run SET queue = 'task:x' WHERE id IN ({ids[0]}, {ids[2]})")
    assert pruned(path, Rule(LATER)).kept_for_open == 1
    assert query(path, "SELECT id FROM flow_run ORDER BY id") == [(ids[1],), (ids[2],)]


def test_cache_entries_keep_their_values_when_the_run_that_computed_them_goes(path: Path) -> None:
    assert query(path, "SELECT count(*) FROM cache") == [(1,)]
    pruned(path, Rule(LATER))
    assert query(path, "SELECT count(*) FROM flow_run") == [(0,)]
    assert query(path, "SELECT count(*) FROM value") == [(1,)]
    assert query(path, "SELECT 1 FROM cache WHERE result IS NULL AND result_hash NOT IN (SELECT hash FROM value)") == []
    python(path.parent, "flows.py", "all")
    uses = query(path, "SELECT DISTINCT outcome FROM cache_uses")
    assert uses == [("hit",)]


def test_a_dry_run_counts_what_would_go_and_writes_nothing(path: Path) -> None:
    rule = Rule(None, keep_newest=3, keep_failed=True)
    before = path.read_bytes()
    with closing(open_reader(path)) as connection:
        would = pruning.estimate(connection, rule)
    assert path.read_bytes() == before
    did = pruned(path, rule)
    assert (would.runs, would.subflow_runs, would.task_runs) == (did.runs, did.subflow_runs, did.task_runs) == (10, 10, 50)
    assert (would.values, would.errors) == (did.values, did.errors)
    assert would.bytes > 100_000


def test_a_run_that_is_resumed_between_the_look_and_the_batch_stays(path: Path) -> None:
    journal = store.open_journal(path)
    try:
        families: list[object] = []
        journal.read(lambda connection: families.extend(pruning.plan(connection, Rule(LATER, flow="failing"))[0]))
        first = families[0].run_id  # type: ignore[attr-defined]
        change(path, "UPDATE flow_run SET version = version + 1, state = 'RUNNING', ended_at = NULL WHERE id = ?", first)
        deletion = pruning._DeleteRuns(families)  # type: ignore[arg-type]
        journal.write(deletion, synced=True)
    finally:
        store.close_all()
    assert len(deletion.deleted) == 7
    assert query(path, "SELECT id FROM runs WHERE flow = 'failing'") == [(first,)]


def test_a_value_that_a_new_row_refers_to_between_the_look_and_the_deletion_stays(path: Path) -> None:
    journal = store.open_journal(path)
    try:
        hash_ = query(path, "SELECT hash FROM value LIMIT 1")[0][0]
        for table in ("task_run", "cache"):
            change(path, f"UPDATE {table} SET result = '1' WHERE result IS NULL AND result_hash IS NOT NULL")
        change(path, "DELETE FROM argument")
        change(path, "UPDATE flow_run SET result_hash = NULL, result = NULL")
        journal.read(pruning._note_unreferenced)
        change(path, "UPDATE flow_run SET result_hash = ? WHERE id = 1", hash_)  # such as a message, or a value that was set
        deletion = pruning._DeleteUnreferenced("value")
        journal.write(deletion, synced=True)
    finally:
        store.close_all()
    assert deletion.deleted > 3
    assert query(path, "SELECT hash FROM value") == [(hash_,)]


@pytest.mark.long
@pytest.mark.crash
def test_a_process_killed_at_any_commit_leaves_a_whole_journal_and_the_next_one_goes_on(path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from wfengine_journal import pruning, store, writer

pruning.BATCH_CALLS = 10
pruning.BATCH_VALUES = 5
pruning.BATCH_PAGES = 20
journal = store.open_journal(Path(sys.argv[1]))
left, inside = int(sys.argv[2]), sys.argv[3] == "inside"
write = journal.write

def deadly(change, *, synced):
    global left
    left -= 1
    if left < 0:
        if not inside:
            os.kill(os.getpid(), signal.SIGKILL)
        apply = change.apply
        class Dying:
            def apply(self, connection):
                apply(connection)
                os.kill(os.getpid(), signal.SIGKILL)
        change = Dying()
    write(change, synced=synced)

journal.write = deadly
pruning.prune(journal, pruning.Rule(None, keep_newest=2))
"""
    (path.parent / "deadly.py").write_text(program, encoding="utf-8")
    whole = path.read_bytes()
    killed = 0
    for left in (0, 1, 3, 7, 9, 12, 16, 20, 24, 30):
        for moment in ("inside", "between"):
            path.write_bytes(whole)
            done = subprocess.run(
                [sys.executable, "deadly.py", str(path), str(left), moment], cwd=path.parent, env=environment(), check=False
            )
            killed += done.returncode == -signal.SIGKILL
            assert_whole(path)
            pruned(path, Rule(None, keep_newest=2))
            assert query(path, "SELECT count(*) FROM runs WHERE parent_run_id IS NULL") == [(6,)]
            assert_whole(path)
            assert_tidy(path)
    assert killed >= 14


def test_flows_of_another_process_go_on_while_runs_are_pruned(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "flows.py", "all"], cwd=path.parent, env=environment(TIMES="10"), stderr=subprocess.DEVNULL
    )
    rounds = 0
    while child.poll() is None:
        pruned(path, Rule(None, keep_newest=1))
        rounds += 1
    assert child.returncode == 0
    assert rounds >= 1
    pruned(path, Rule(None, keep_newest=1))
    assert query(path, "SELECT count(*) FROM runs WHERE parent_run_id IS NULL") == [(3,)]
    assert_whole(path)
    assert_tidy(path)


STORING = """
import sys
from pathlib import Path
from wfengine import flow, task, use_journal

@task(result_storage=Path("results"))
def outside(text):
    return text * 3000

@flow
def storing(text):
    outside("shared")
    outside(text)

use_journal("journal.db", durability="process")
for text in sys.argv[1:]:
    storing(text)
"""


def test_files_of_results_go_with_the_last_row_that_refers_to_them_unless_they_are_young(tmp_path: Path) -> None:
    (tmp_path / "storing.py").write_text(STORING, encoding="utf-8")
    python(tmp_path, "storing.py", "one", "two", "three")
    results = tmp_path / "results"
    assert len(list(results.iterdir())) == 4
    prune = "from wfengine.files import prune_runs; print(prune_runs(keep=1, journal='journal.db').runs)"
    young = next(results.iterdir())
    for file in results.iterdir():
        os.utime(file, (1, 1))
    rows = query(tmp_path / "journal.db", "SELECT result FROM task_run ORDER BY id")
    paths = [json.loads(str(row[0]))["path"] for row in rows]
    shared, one, two, three = paths[0], paths[1], paths[3], paths[5]
    os.utime(results / one)  # somebody has just used it again
    assert python(tmp_path, "-c", prune) == "2\n"
    assert {file.name for file in results.iterdir()} == {shared, one, three}
    assert two not in {file.name for file in results.iterdir()}
    assert young.parent == results

    python(tmp_path, "storing.py", "three")
    assert (results / three).stat().st_mtime > 1  # whoever uses a file again says so


def test_events_firings_and_ticks_go_by_age_but_none_that_is_still_needed(path: Path) -> None:
    old, young = "2020-01-01T00:00:00.000000Z", "2030-01-01T00:00:00.000000Z"
    run_id = query(path, "SELECT max(id) FROM flow_run")[0][0]
    for at in (old, young):
        change(path, "INSERT INTO event (name, resource, occurred_at) VALUES ('order.placed', 'order', ?)", at)
    change(path, "INSERT INTO event (name, resource, occurred_at) VALUES ('not.seen', 'order', ?)", old)
    seen_to = query(path, "SELECT max(id) - 1 FROM event")[0][0]
    change(
        path,
        "INSERT INTO automation (id, name, definition, active, wants_tasks, seen_to, state, created_at, updated_at)"
        " VALUES (1, 'a', '{}', 1, 0, ?, '{}', ?, ?)",
        seen_to, old, old,
    )  # fmt: skip
    for state, at in (("done", old), ("pending", old), ("done", young)):
        change(
            path,
            "INSERT INTO firing (automation_id, context, state, actions_done, results, fired_at)"
            " VALUES (1, '{}', ?, 0, '[]', ?)",
            state, at,
        )  # fmt: skip
    change(
        path,
        "INSERT INTO deployment (id, flow_id, name, parameters, created_at, updated_at)"
        " SELECT 1, min(id), 'd', '{}', ?, ? FROM flow",
        old, old,
    )  # fmt: skip
    change(
        path,
        "INSERT INTO schedule (id, deployment_id, kind, rule, timezone, day_or, parameters, slug, active, decided_to,"
        " created_at) VALUES (1, 1, 'interval', '60', 'UTC', 1, '{}', '', 1, '2025-01-01T00:00:00.000000Z', ?)",
        old,
    )
    for nominal_at, run in (("2020-01-01", None), ("2020-01-02", run_id), ("2020-01-03", 10**6), ("2026-01-01", None)):
        change(path, "INSERT INTO tick VALUES (1, ?, 'started', NULL, ?, ?)", f"{nominal_at}T00:00:00.000000Z", run, old)

    for state, at in (("sent", old), ("pending", old), ("failed", young)):
        change(
            path,
            "INSERT INTO notification (target, level, body, state, created_at, ended_at)"
            " VALUES ('ops', 'info', 'x', ?, ?, iif(? = 'pending', NULL, ?))",
            state, at, state, at,
        )  # fmt: skip

    assert pruned(path, Rule(ended_before="2026-06-01T00:00:00.000000Z")).events == 5
    assert query(path, "SELECT state, created_at FROM notification ORDER BY id") == [("pending", old), ("failed", young)]
    assert query(path, "SELECT name FROM event WHERE flow_run_id IS NULL ORDER BY id") == [("order.placed",), ("not.seen",)]
    assert query(path, "SELECT state, fired_at FROM firing ORDER BY id") == [("pending", old), ("done", young)]
    assert query(path, "SELECT substr(nominal_at, 1, 10) FROM tick") == [("2020-01-02",), ("2026-01-01",)]


def test_a_run_stays_until_every_automation_has_seen_its_events(path: Path) -> None:
    runs = query(path, "SELECT id FROM flow_run WHERE parent_task_run_id IS NULL ORDER BY id")
    seen_to = query(path, "SELECT max(id) FROM event WHERE flow_run_id = ?", *runs[2])[0][0]
    for name, active in (("looks", 1), ("paused", 0)):
        change(
            path,
            "INSERT INTO automation (name, definition, active, wants_tasks, seen_to, state, created_at, updated_at)"
            " VALUES (?, '{}', ?, 0, ?, '{}', '2026', '2026')",
            name, active, seen_to if active else 0,
        )  # fmt: skip
    done = pruned(path, Rule(ended_before=None))
    assert (done.runs, done.kept_for_open) == (3, len(runs) - 3)
    assert_whole(path)
    change(path, "UPDATE automation SET seen_to = (SELECT max(id) FROM event)")
    assert pruned(path, Rule(ended_before=None)).runs == len(runs) - 3


def test_events_of_a_run_go_with_it(path: Path) -> None:
    assert query(path, "SELECT count(*) > 0 FROM event") == [(1,)]
    pruned(path, Rule(ended_before=LATER))
    assert query(path, "SELECT count(*) FROM event WHERE flow_run_id NOT IN (SELECT id FROM flow_run)") == [(0,)]
