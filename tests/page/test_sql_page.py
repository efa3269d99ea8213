"""The SQL page: it can do nothing but read, and not for long."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_page import Page

STATEMENTS = [
    "DELETE FROM flow_run",
    "UPDATE flow_run SET name = 'x'",
    "INSERT INTO meta VALUES ('a', 'b')",
    "REPLACE INTO meta VALUES ('a', 'b')",
    "DROP TABLE flow_run",
    "DROP VIEW runs",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE TRIGGER x AFTER INSERT ON log BEGIN SELECT 1; END",
    "CREATE INDEX x ON log (at)",
    "ALTER TABLE log ADD COLUMN x",
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "ATTACH 'file:/etc/passwd?mode=ro' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT x",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA user_version = 9",
    "PRAGMA schema_version = 9",
    "PRAGMA trusted_schema = ON",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('x', 'y')",
    "SELECT edit('x')",
    "SELECT 1; DELETE FROM flow_run",
    "EXPLAIN DELETE FROM flow_run; SELECT 1",
    "WITH x AS (SELECT 1) DELETE FROM log",
    "SELECT * FROM pragma_query_only(0)",
    "SELECT * FROM fsdir('/')",
    ".shell ls",
    "",
    "  ",
    "\x00",
    "SELECT '\x00'",
    "nonsense",
]


def state_of(folder: Path) -> tuple[int, set[str]]:
    """Return when the journal was written last, and what lies beside it: but for the files of who just reads."""
    names = {path.name for path in folder.iterdir()} - {"journal.db-wal", "journal.db-shm"}
    return (folder / "journal.db").stat().st_mtime_ns, names


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_that_does_anything_but_read_is_refused_and_changes_nothing(
    page: Page, filled: Path, statement: str
) -> None:
    before = state_of(filled)
    answer = page.client.get("/api/v1/sql", params={"q": statement})
    if answer.status_code == 200:  # it was one that only reads, however it looks
        assert statement.startswith(("SELECT * FROM pragma_query_only", "SELECT '"))
    else:
        assert answer.status_code == 400, answer.text
    assert page.client.get("/sql", params={"q": statement}).status_code == 200
    assert state_of(filled) == before
    assert page.json("/api/v1/sql", q="PRAGMA query_only")["rows"] == [[1]]


@pytest.mark.parametrize(
    "statement",
    [
        "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x",
        "SELECT count(*) FROM transition a, transition b, transition c, transition d, transition e, transition f, transition g",
        "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n FROM x WHERE n < 0",
    ],
)
def test_a_statement_that_would_not_end_is_stopped(page: Page, statement: str) -> None:
    answer = page.client.get("/api/v1/sql", params={"q": statement})
    assert answer.status_code == 400
    assert "longer than" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "statement", ["SELECT zeroblob(1000000000)", "SELECT printf('%.*c', 900000000, 'x')", "SELECT hex(zeroblob(3000000))"]
)
def test_a_value_that_is_too_large_is_refused(page: Page, statement: str) -> None:
    answer = page.client.get("/api/v1/sql", params={"q": statement})
    assert answer.status_code in (200, 400)
    assert len(answer.content) < 1000, "it is not handed out"


def test_more_rows_than_are_shown_are_said_to_be_there(page: Page) -> None:
    numbers = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 5000) SELECT n FROM x"
    found = page.json("/api/v1/sql", q=numbers)
    assert (len(found["rows"]), found["is_cut"]) == (1000, True)  # type: ignore[arg-type]
    assert "and there are more" in page.client.get("/sql", params={"q": numbers}).text


def test_every_question_that_the_page_offers_is_answered(page: Page) -> None:
    for view in page.json("/sql.json")["views"]:  # type: ignore[attr-defined]
        assert page.json("/api/v1/sql", q=view["try"])["columns"]
