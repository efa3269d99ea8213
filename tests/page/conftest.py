"""What the tests of the page share: pages over journals that real runs wrote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving_page import Page, page_over, run_program

from wfengine_journal import store


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose journal holds runs 1 (fine), 2 (failing), 3 (parent) with 4, 5 (asking)."""
    folder = tmp_path_factory.mktemp("filled")
    run_program(folder, "fine", "failing", "parent", "asking")
    return folder


@pytest.fixture(scope="session")
def page(filled: Path) -> Iterator[Page]:
    """A page over that journal, for tests that only read."""
    with page_over(filled) as served:
        yield served
    store.close_all()


@pytest.fixture
def own_page(tmp_path: Path) -> Iterator[Page]:
    """A page over a journal that holds run 1, which is fine, for tests that change something."""
    run_program(tmp_path, "fine")
    with page_over(tmp_path) as served:
        yield served
    store.close_all()
