"""The page on notifications is a test: its programs are written, and every line prints what the page shows."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "notifications.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 9
