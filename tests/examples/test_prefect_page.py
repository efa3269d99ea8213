"""The page on coming from Prefect is a test: its file is moved as the page says, and every line prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import assert_page_is_true, blocks

import wfengine.cli
from wfengine.migration_notes import LEFT_OUT

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "prefect.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) >= 7


def test_every_block_of_the_page_is_run() -> None:
    assert TEXT.count("\n```") == 2 * (len(blocks(TEXT, "python")) + len(blocks(TEXT, "console")))


def test_the_page_replaces_imports_by_the_very_line_that_the_check_shows(tmp_path: Path) -> None:
    from wfengine.cli.migrate_check import _REPLACE

    assert f"$ {_REPLACE} orders.py" in TEXT


@pytest.mark.parametrize("name", ["get_client", "workers", "Flow.from_source", "assets", "settings"])
def test_what_the_page_leaves_out_is_explained_by_the_check_too(name: str) -> None:
    left_out = TEXT.partition("## What is left out")[2].lower()

    assert name in LEFT_OUT
    assert name.removeprefix("Flow.").lower().rstrip("s") in left_out.replace("accounts, ", "")


def test_the_commands_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`wfengine ([a-z-]+)", TEXT))

    assert named
    assert all(wfengine.cli.root.get_command(wfengine.cli.click.Context(wfengine.cli.root), name) for name in named)
