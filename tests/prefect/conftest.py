"""What the Prefect-style programs share: a journal of their own, and its rows by SQL.

Every program of this folder uses names that Prefect documents, imported from `wfengine`, and asserts what Prefect documents;
where wfengine means something else on purpose, the test says so.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from wfengine_journal import store

Rows = Callable[..., list[tuple[object, ...]]]


@pytest.fixture(autouse=True)
def _journal(own_journal: store.Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each program a journal and a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Ask the journal of the test."""

    def query(sql: str, *parameters: object) -> list[tuple[object, ...]]:
        path = tmp_path / "journal.db"
        opened = store._OPEN.get(os.path.realpath(path))
        if opened is not None:
            opened.flush()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()

    return query
