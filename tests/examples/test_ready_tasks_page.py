"""The page on tasks that are ready to use is a test: its programs are written, and every line prints what the page shows."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true, blocks

PAGE = Path(__file__).parents[2] / "docs" / "ready-tasks.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 10
    assert not any(b"0123456789" in file.read_bytes() for file in (tmp_path / ".wfengine").glob("journal.db*"))


def test_every_block_of_the_page_is_run() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * (len(blocks(text, "python")) + len(blocks(text, "console")))
