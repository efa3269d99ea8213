"""The rows of a journal as plain objects, and a run as a page: complete, escaped, without code of anybody."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.journal.files_program import FLOWS, python
from tests.journal.handmade import HOSTILE, make_journal
from wfengine.files import export_runs, render_run
from wfengine_journal.errors import NotFoundError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    python(folder, "flows.py", "all")
    return folder / "journal.db"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


class _Page(HTMLParser):
    """Collects tags and attributes, and complains of what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_an_export_of_everything_has_each_row_of_each_view(source: Path) -> None:
    found = [json.loads(json.dumps(row)) for row in export_runs(journal=source)]
    assert found[0]["kind"] == "journal"
    for kind, view in {"run": "runs", "task": "tasks", "attempt": "attempts", "transition": "history", "log": "logs"}.items():
        rows = [row for row in found if row["kind"] == kind]
        assert len(rows) == query(source, f"SELECT count(*) FROM {view}")[0][0] > 0
    first = next(row for row in found if row["kind"] == "run")
    assert first["parameters"] == {"number": 5}
    large = next(row for row in found if row["kind"] == "task" and row["task"] == "large")
    assert "5" * 100 in large["result"]  # the preview: it does not stand in its row


def test_an_export_of_one_run_brings_its_subflow_runs_and_nothing_else(source: Path) -> None:
    rows = list(export_runs([1], journal=source))
    assert {row["id"] for row in rows if row["kind"] == "run"} == {1, 2, 3}
    assert {row["run_id"] for row in rows if row["kind"] == "task"} == {1, 2, 3}
    with pytest.raises(NotFoundError):
        list(export_runs([99], journal=source))


def test_an_export_can_be_given_up_in_the_middle(source: Path) -> None:
    rows = export_runs(journal=source)
    assert next(rows)["kind"] == "journal"
    rows.close()  # type: ignore[attr-defined]


def test_the_page_of_a_run_shows_its_calls_errors_and_logs_and_asks_for_nothing(source: Path) -> None:
    failed = query(source, "SELECT name FROM runs WHERE state = 'FAILED'")[0][0]
    text = "".join(render_run(str(failed), journal=source))
    page = parsed(text)
    shown = " ".join(page.text)
    for part in ("two is not for me", "Traceback (most recent call last)", "doubling 2", "AwaitingRetry", str(failed)):
        assert part in shown
    assert "rect" in page.tags
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not [name for name, _ in page.attributes if name in ("src", "href", "style") or name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text


def test_the_texts_of_a_hostile_journal_are_shown_as_text(tmp_path: Path) -> None:
    path = make_journal(tmp_path / "journal.db")
    evil = "<script>alert(1)</script>\"' onload=x"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE flow_run SET name = ?, parameters = ?, state_name = ? WHERE id = 6", (evil, evil, evil))
        connection.execute("UPDATE task SET name = ? WHERE id = 4", (evil,))
        connection.execute("UPDATE error SET message = ?, traceback = ?, type = ? WHERE id = 3", (evil, evil, evil))
        connection.commit()
    for run_id in range(1, 7):
        page = parsed("".join(render_run(run_id, journal=path)))
        assert "script" not in page.tags
        assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = "".join(render_run(6, journal=path))
    assert "&lt;script&gt;" in text
    assert not {"\x1b", "\u202e", "\x9b"} & set(text)
    assert "\x1b" in HOSTILE


def test_the_page_of_a_long_run_is_drawn_by_task_and_says_what_it_left_out(tmp_path: Path) -> None:
    program = """
from wfengine import flow, task, use_journal

@task
def step(number):
    return number

@flow
def long():
    for number in range(1500):
        step(number)

use_journal("journal.db", durability="process")
long()
"""
    (tmp_path / "long.py").write_text(program, encoding="utf-8")
    python(tmp_path, "long.py")
    text = "".join(render_run(1, journal=tmp_path / "journal.db"))
    page = parsed(text)
    assert text.count("<rect") == 1
    assert "step (1,500)" in " ".join(page.text)
    assert "Only the first 1,000 rows are shown here" in text
    assert len(text) < 1_000_000
