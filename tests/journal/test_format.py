"""FORMAT.md says what is in a journal, all of it, and its examples work - with Python's SQLite and the sqlite3 program."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from xxhash import xxh3_128_digest

from wfengine_journal import store
from wfengine_journal.connection import APPLICATION_ID, FORMAT_VERSION
from wfengine_journal.states import StateType
from wfengine_journal.transitions import INLINE_BYTES

TEXT = (Path(__file__).resolve().parents[2] / "journal" / "FORMAT.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)

PROGRAM = """
import sys
from pathlib import Path
from wfengine import flow, get_run_logger, task, use_journal
from wfengine.cache_policies import INPUTS

STORAGE = Path(sys.argv[1]).parent / "results"

@task(retries=1)
def double(number):
    get_run_logger().warning("doubling %s", number)
    if number == 2:
        raise ValueError("two is not for me")
    return number * 2

@task
def large():
    return "x" * 5000

@task
def pair():
    return (3, 4)

@task(cache_policy=INPUTS, result_serializer="json", result_storage=STORAGE)
def several():
    return (1, 2)

@task(result_storage=STORAGE)
def outside():
    return "y" * 5000

@flow
def small(count):
    large(), several(), pair(), outside()
    return double.map(range(count), return_state=True)

@flow
def good(count):
    return sum(double.map(range(count)).result())

use_journal(sys.argv[1])
good(2)
try:
    small(4)
except ValueError:
    pass
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal that a small program wrote."""
    folder = tmp_path_factory.mktemp("format")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(folder / "program.py"), str(folder / "journal.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "journal.db"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def section(title: str) -> str:
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"FORMAT.md has no section {title}"
    return found[1]


def test_every_table_and_view_is_listed_with_all_its_columns_and_no_others(path: Path) -> None:
    for kind, name in query(
        path, "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
    ):
        columns = [row[1] for row in query(path, f"PRAGMA table_info({name})")]
        if str(name).startswith("_"):
            assert all(f"`{column}`" in TEXT for column in columns)
            continue
        listed = re.findall(r"^\| `(\w+)` \|", section(f"View `{name}`" if kind == "view" else f"`{name}`"), re.MULTILINE)
        assert listed == columns, name


def test_what_is_listed_exists(path: Path) -> None:
    names = {row[0] for row in query(path, "SELECT name FROM sqlite_schema")}
    assert set(re.findall(r"^### (?:View )?`(\w+)`", TEXT, re.MULTILINE)) <= names


def test_types_and_nullability_of_the_tables_are_as_written(path: Path) -> None:
    for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sqlite%'"):
        listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section(f"`{name}`"), re.MULTILINE))
        for _, column, kind, not_null, _, key in query(path, f"PRAGMA table_info({name})"):
            assert listed[str(column)].strip() == (str(kind) if not_null or key else f"{kind} or null"), f"{name}.{column}"


def test_every_index_and_trigger_is_named(path: Path) -> None:
    for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type IN ('index', 'trigger') AND name NOT LIKE 'sqlite%'"):
        assert f"`{name}`" in TEXT


def test_every_view_is_in_the_view_that_helps(path: Path) -> None:
    views = {row[0] for row in query(path, "SELECT name FROM sqlite_schema WHERE type = 'view'")}
    assert {row[0] for row in query(path, "SELECT name FROM help")} == views
    for _, sample in query(path, 'SELECT name, "try" FROM help'):
        query(path, str(sample))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize("sql", EXAMPLES, ids=[" ".join(example.split())[:60] for example in EXAMPLES])
def test_an_example_works_in_python_and_in_the_program(path: Path, sql: str) -> None:
    rows = query(path, sql)
    shown = subprocess.run(["sqlite3", "-readonly", "-json", str(path), sql], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert bool(shown.stdout.strip()) == bool(rows)


def test_most_examples_find_something_in_a_journal_with_a_failure(path: Path) -> None:
    empty = [sql for sql in EXAMPLES if not query(path, sql)]
    assert len(empty) <= 2, empty  # nothing is stuck, and nothing waits


def test_codecs_are_those_that_are_written_and_checksums_are_made_as_written(path: Path) -> None:
    codecs = set(re.findall(r"^\| `([\w+:-]+)` \|", TEXT[TEXT.index("## Values") : TEXT.index("## States")], re.MULTILINE))
    assert codecs == {"json", "pickle", "pickle+zlib", "serializer:TYPE", "stored", "sealed:KEY", "cloudpickle-flow"}
    stored = query(path, "SELECT codec, data, hash FROM value")
    stored += query(path, "SELECT result_codec, result, result_hash FROM task_run WHERE result IS NOT NULL")
    stored += query(path, "SELECT codec, data, hash FROM error WHERE data IS NOT NULL")
    stored += query(path, "SELECT result_codec, result, result_hash FROM cache WHERE result IS NOT NULL")
    assert {row[0] for row in stored} >= {"json", "pickle", "serializer:json", "stored"}
    for codec, data, hash_ in stored:
        assert re.sub(r"^serializer:.*", "serializer:TYPE", str(codec)) in codecs
        raw = data.encode() if isinstance(data, str) else data
        assert isinstance(raw, bytes)
        assert xxh3_128_digest(str(codec).encode() + b"\0" + raw) == hash_
        assert isinstance(data, str) == (codec in ("json", "stored"))
    assert f"at most {INLINE_BYTES} characters" in TEXT


def test_the_numbers_of_the_format_are_as_written() -> None:
    assert f"0x{APPLICATION_ID:X}" in TEXT
    assert f"is the format, {FORMAT_VERSION}." in TEXT
    assert TEXT.startswith(f"# The journal file, format {FORMAT_VERSION}\n")


def test_all_states_are_listed() -> None:
    states = TEXT[TEXT.index("## States") : TEXT.index("## Owners")]
    assert set(re.findall(r"`([A-Z]{6,})`", states)) == {state.value for state in StateType}


def test_the_invariants_hold_in_a_real_journal(path: Path) -> None:
    assert query(path, "PRAGMA foreign_key_check") == []
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    latest = "(SELECT max(seq) FROM transition h WHERE h.flow_run_id = {run} AND h.task_run_id = {task})"
    assert query(path, f"SELECT * FROM flow_run r WHERE version <> {latest.format(run='r.id', task='0')}") == []
    assert query(path, f"SELECT * FROM task_run t WHERE version <> {latest.format(run='t.flow_run_id', task='t.id')}") == []
    missing = "result_hash IS NOT NULL AND result IS NULL AND result_hash NOT IN (SELECT hash FROM value)"
    assert query(path, f"SELECT * FROM task_run WHERE {missing}") == []
    terminal = "state IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')"
    assert query(path, f"SELECT * FROM flow_run WHERE ({terminal}) <> (ended_at IS NOT NULL)") == []
    width = len("2026-11-22T15:30:50.123456Z")
    assert query(path, f"SELECT DISTINCT length(at) FROM transition WHERE length(at) <> {width}") == []


def test_a_fresh_journal_has_every_view(tmp_path: Path) -> None:
    store.open_journal(tmp_path / "journal.db")
    store.close_all()
    for (name,) in query(tmp_path / "journal.db", "SELECT name FROM sqlite_schema WHERE type = 'view'"):
        query(tmp_path / "journal.db", f"SELECT * FROM {name}")
