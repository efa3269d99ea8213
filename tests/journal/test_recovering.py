"""A damaged file: what can be read is saved, what is lost is said, and no call gets a value that is not its own."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, python
from wfengine_journal.connection import FORMAT_VERSION, PAGE_BYTES
from wfengine_journal.errors import JournalNotFoundError, NotAJournalError, UsageError
from wfengine_journal.recovering import LOST, Recovered, recover

pytestmark = pytest.mark.long

#: Damaged files of each kind; each is a seed.
SEEDS = 25
OUTCOMES = """
    SELECT t.id, t.flow_run_id, t.scope, k.key, t.call_key, t.occurrence, t.result_codec,
           coalesce(t.result, v.data), t.result_hash
    FROM task_run t JOIN task k ON k.id = t.task_id LEFT JOIN value v ON v.hash = t.result_hash AND t.result IS NULL
    WHERE t.state = 'COMPLETED'
"""


def query(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(folder, "flows.py", "all", TIMES="6")
    return folder / "journal.db"


def assert_sound(path: Path) -> None:
    """Say that the file is a whole journal in which every completed call has a value."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    assert path.stat().st_mode & 0o777 == 0o600
    missing = "state = 'COMPLETED' AND result IS NULL AND result_hash NOT IN (SELECT hash FROM value)"
    assert query(path, f"SELECT 1 FROM task_run WHERE {missing}") == []
    incomplete = "SELECT id FROM flow_run r WHERE tasks_total > (SELECT count(*) FROM tasks t WHERE t.run_id = r.id)"
    assert query(path, f"SELECT 1 FROM flow_run WHERE state <> 'CRASHED' AND id IN ({incomplete})") == []
    for view in ("runs", "tasks", "history", "failures", "logs", "attempts"):
        query(path, f"SELECT * FROM {view}")


def assert_no_wrong_value(source: Path, rescued: Path, seed: int) -> int:
    """Say that each completed call there has the value it had; return the number of those calls."""
    truth = set(query(source, OUTCOMES))
    found = set(query(rescued, OUTCOMES))
    assert found <= truth, f"seed {seed}: {found - truth}"
    return len(found)


def rescued(raw: bytes, folder: Path) -> Recovered:
    (folder / "damaged.db").write_bytes(raw)
    done = recover(folder / "damaged.db", folder / "rescued.db", overwrite=True)
    assert (folder / "damaged.db").read_bytes() == raw
    return done


def test_a_sound_file_comes_back_row_for_row(source: Path, tmp_path: Path) -> None:
    done = recover(source, tmp_path / "rescued.db")
    assert (done.lost_results, done.crashed_runs, done.unreadable, done.unusable_rows) == ((), {}, {}, 0)
    for (table,) in query(source, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sqlite%'"):
        if table != "meta":
            assert sorted(query(tmp_path / "rescued.db", f"SELECT * FROM {table}"), key=repr) == sorted(
                query(source, f"SELECT * FROM {table}"), key=repr
            )
    assert_sound(tmp_path / "rescued.db")


@pytest.mark.parametrize("kind", ["a bit", "a page", "the end"])
def test_damage_at_random_places_never_gives_a_call_a_wrong_value(source: Path, tmp_path: Path, kind: str) -> None:
    raw = source.read_bytes()
    calls = saved = unreadable = 0
    for seed in range(SEEDS):
        print(f"{kind}, seed {seed}")
        chance = random.Random(f"{kind} {seed}")
        damaged = bytearray(raw)
        if kind == "a bit":
            damaged[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        elif kind == "a page":
            start = chance.randrange(len(raw) // PAGE_BYTES) * PAGE_BYTES
            damaged[start : start + PAGE_BYTES] = chance.choice([bytes(PAGE_BYTES), chance.randbytes(PAGE_BYTES)])
        else:
            del damaged[chance.randrange(len(raw)) :]
        try:
            rescued(bytes(damaged), tmp_path)
        except NotAJournalError:
            unreadable += 1
            continue
        assert_sound(tmp_path / "rescued.db")
        calls += len(query(source, OUTCOMES))
        saved += assert_no_wrong_value(source, tmp_path / "rescued.db", seed)
    if kind != "the end":
        assert saved >= 0.85 * calls
        assert unreadable == 0
    assert unreadable <= SEEDS // 5


def test_a_flipped_bit_in_a_result_is_found_and_the_call_runs_again_in_a_resume(source: Path, tmp_path: Path) -> None:
    raw = source.read_bytes()
    place = raw.index(b"5" * 1500)  # a large text result, in table value
    damaged = bytearray(raw)
    damaged[place + 7] ^= 1
    done = rescued(bytes(damaged), tmp_path)
    assert len(done.lost_results) == 1
    [(run_id, task_run_id)] = done.lost_results
    assert query(tmp_path / "rescued.db", "SELECT state, state_name, message FROM tasks WHERE id = ?", task_run_id) == [
        ("CRASHED", "Interrupted", LOST)
    ]
    state, message = query(tmp_path / "rescued.db", "SELECT state, message FROM runs WHERE id = ?", run_id)[0]
    assert state == "CRASHED"
    assert "results of calls are lost" in str(message)
    last = "SELECT max(seq) FROM transition WHERE task_run_id = ?"
    version = query(tmp_path / "rescued.db", "SELECT version FROM task_run WHERE id = ?", task_run_id)
    assert query(tmp_path / "rescued.db", last, task_run_id) == version

    # A run of its own is gone on with: only what was lost runs again.
    if query(tmp_path / "rescued.db", "SELECT parent_run_id FROM runs WHERE id = ?", run_id) == [(None,)]:
        python(tmp_path, "-m", "wfengine", "resume", str(run_id), "--journal", "rescued.db")
        assert query(tmp_path / "rescued.db", "SELECT state FROM runs WHERE id = ?", run_id) == [("COMPLETED",)]


def test_a_row_that_answers_to_another_identity_than_the_index_says_is_not_believed(source: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(source.read_bytes())
    call = query(
        source, "SELECT t.id, call_key FROM task_run t JOIN task k ON k.id = t.task_id WHERE k.name = 'double' LIMIT 1"
    )[0]
    raw = bytearray(damaged.read_bytes())
    places = [place for place in range(len(raw)) if raw.startswith(bytes(call[1]), place)]  # type: ignore[call-overload]
    assert len(places) >= 2
    doubted = set()
    for place in places:  # the index and the row each in turn: either way the call does not count as done under a wrong key
        changed = bytearray(raw)
        changed[place] ^= 0xFF
        done = rescued(bytes(changed), tmp_path)
        doubted |= {lost for _, lost in done.lost_results}
        assert_no_wrong_value(source, tmp_path / "rescued.db", place)
    assert call[0] in doubted


def test_a_run_that_was_going_on_is_crashed_and_says_so(source: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "going-on.db"
    damaged.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("UPDATE flow_run SET state = 'RUNNING', ended_at = NULL WHERE id = 1")
        connection.commit()
    done = recover(damaged, tmp_path / "rescued.db")
    assert done.crashed_runs == {1: "it was going on when the file was damaged"}
    assert query(tmp_path / "rescued.db", "SELECT state FROM runs WHERE id = 1") == [("CRASHED",)]


def test_what_is_in_the_log_beside_the_file_is_saved_too(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "journal.db"
    copy.write_bytes(source.read_bytes())
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("INSERT INTO variable VALUES ('colour', '\"blue\"', NULL, 'now', 'now')")
    try:
        (tmp_path / "damaged.db").write_bytes(copy.read_bytes())
        (tmp_path / "damaged.db-wal").write_bytes(Path(f"{copy}-wal").read_bytes())
    finally:
        connection.close()
    recover(tmp_path / "damaged.db", tmp_path / "rescued.db")
    assert query(tmp_path / "rescued.db", "SELECT name FROM variables") == [("colour",)]


def test_an_older_format_is_saved_into_the_present_one(tmp_path: Path) -> None:
    import gzip

    old = tmp_path / "old.db"
    old.write_bytes(gzip.decompress((Path(__file__).parent / "fixtures" / "format-1.db.gz").read_bytes()))
    recover(old, tmp_path / "rescued.db")
    assert query(tmp_path / "rescued.db", "SELECT count(*) FROM task_run") == query(old, "SELECT count(*) FROM task_run")
    assert query(tmp_path / "rescued.db", "PRAGMA user_version") == [(FORMAT_VERSION,)]


def test_what_is_no_journal_is_refused_and_nothing_is_left(source: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes " * 5000, encoding="utf-8")
    with pytest.raises(NotAJournalError):
        recover(tmp_path / "notes.txt", tmp_path / "rescued.db")
    with pytest.raises(JournalNotFoundError):
        recover(tmp_path / "missing.db", tmp_path / "rescued.db")
    with pytest.raises(UsageError, match="is the damaged file itself"):
        recover(source, source, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]
