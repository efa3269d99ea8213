"""The page on events is a test: its programs and tables are written, and every line prints what the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the page uses the sqlite3 program")
    assert assert_page_is_true(PAGE, tmp_path) == 13
