"""The cookbook of SQL is a test: its program makes a journal, and each query is asked of it and answers what is shown."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pages import VOLATILE, assert_page_is_true
from programs import environment, query

from tests.daemons import DaemonProcess
from wfengine.sql import connect
from wfengine_journal import store

DOCS = Path(__file__).parents[2] / "docs"
QUERY = re.compile(r"^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def shown(rows: sqlite3.Cursor) -> str:
    """Return what a query answers as the page has it: a line of names, a line for each row."""
    names = [column[0] for column in rows.description]
    lines = [names, *(["" if value is None else str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def matches(page: str, answer: str) -> bool:
    """An ellipsis in the page stands for any text within its line; how wide columns are is not compared."""

    def plain(text: str) -> str:
        for pattern, name in VOLATILE.items():
            text = re.sub(pattern, name, text)
        return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())

    return re.fullmatch("[^\n]*".join(map(re.escape, plain(page).split("…"))), plain(answer)) is not None


def serve_the_run_that_waits(folder: Path) -> None:
    """Let a daemon execute the run in the queue; the time limit of the test is the bound."""
    journal = store.open_journal(folder / ".wfengine" / "journal.db")
    with DaemonProcess(folder, "-m", "wfengine", "serve", environment=environment()) as daemon:
        daemon.wait_until_ready()
        while True:
            mark = journal.changes.mark()
            if query(journal.path, "SELECT 1 FROM runs WHERE queue IS NOT NULL AND state = 'COMPLETED'"):
                break
            journal.changes.wait(mark, 1.0)
        daemon.stop()
    store.close_all()


@pytest.mark.crash
def test_every_query_of_the_page_answers_what_the_page_shows(tmp_path: Path) -> None:
    page = DOCS / "sql-cookbook.md"
    assert assert_page_is_true(page, tmp_path) == 7
    serve_the_run_that_waits(tmp_path)
    queries = QUERY.findall(page.read_text(encoding="utf-8"))
    assert len(queries) >= 20
    with closing(connect(tmp_path / ".wfengine" / "journal.db")) as connection:
        for asked, text in queries:
            answer = shown(connection.execute(asked))
            assert not text or matches(text, answer), f"{asked}\n--- the page\n{text}\n--- answered\n{answer}"


def test_every_query_of_the_format_is_answered_by_a_journal(tmp_path: Path) -> None:
    store.open_journal(tmp_path / "journal.db")
    with closing(connect(tmp_path / "journal.db")) as connection:
        queries = QUERY.findall((DOCS.parent / "journal" / "FORMAT.md").read_text(encoding="utf-8"))
        assert len(queries) == 15
        for asked, _ in queries:
            connection.execute(asked).fetchall()
    store.close_all()
