"""The pages on the page and on the API are tests: what they show is what happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import assert_page_is_true

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "lines"), [("page.md", 6), ("api.md", 3)])
def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path, name: str, lines: int) -> None:
    assert assert_page_is_true(DOCS / name, tmp_path) == lines


def test_each_operation_stands_in_the_page_on_the_api() -> None:
    from wfengine.page.api import OPERATIONS

    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for each in OPERATIONS:
        assert each.path in text or f"`/{each.path.rpartition('/')[2]}`" in text, each.name
