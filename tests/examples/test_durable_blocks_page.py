"""The page about durable building blocks, executed."""

from __future__ import annotations

from pathlib import Path

from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "durable-blocks.md"


def test_the_page_of_durable_blocks_is_true(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 2
