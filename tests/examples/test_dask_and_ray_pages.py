"""The pages on Dask and on Ray are tests: their programs are run as shown, on clusters of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import assert_page_is_true

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "lines"), [("dask.md", 1), ("ray.md", 1)])
def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path, page: str, lines: int) -> None:
    assert assert_page_is_true(DOCS / page, tmp_path) == lines
