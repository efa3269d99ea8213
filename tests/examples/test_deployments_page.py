"""The page on deployments is a test: its files are applied, and every line prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

from pages import assert_page_is_true

from wfengine import deployment_file

PAGE = Path(__file__).parents[2] / "docs" / "deployments.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 24


def test_the_table_of_keys_has_those_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = {row[0]: set(re.findall(r"`(\w+)(?: = true)?`", row[1])) for row in re.findall(r"^\| (.*?) \| (.*) \|$", text, re.M)}
    assert rows["`[[deployments]]`"] == set(deployment_file._DEPLOYMENT)
    assert rows["a schedule"] == set(deployment_file._SCHEDULE)
    assert rows["`[queues.NAME]`"] == set(deployment_file._QUEUE)
    assert rows["`[limits.NAME]`"] == set(deployment_file._LIMIT)
