"""The page on runners is a test: its programs are run as shown."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "runners.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 3
