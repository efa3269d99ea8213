"""The page on isolated runs is a test: its programs run, and every line prints what the page shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "isolation.md"


@pytest.mark.skipif(sys.platform == "win32", reason="a fault of machine code is no signal there")
def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 9
