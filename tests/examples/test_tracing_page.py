"""The page on traces is a test: its lines print what it shows, and its bounds are those of the code."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true

from wfengine.listeners import tracing

PAGE = Path(__file__).parents[2] / "docs" / "tracing.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 2


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    assert f"more than {tracing.WAITING_LIMIT:,} ends wait" in PAGE.read_text(encoding="utf-8")
    assert tracing.LAST_SECONDS == 10.0
