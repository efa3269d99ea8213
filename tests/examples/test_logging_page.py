"""The page on logs is a test: its lines print what it shows, and its limits are those of the code."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true

from wfengine.logging import handlers

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 8


def test_the_settings_on_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    variables = {value for name, value in vars(handlers).items() if name.endswith("_VARIABLE")}

    assert all(f"| `{variable}` |" in text for variable in variables)
    assert f"| {handlers.LINE_LIMIT:,} |" in text
    assert f"| {handlers.RUN_LIMIT:,} |" in text
