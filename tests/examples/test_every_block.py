"""Every block of code in the pages is run by a test, or stands here with the reason why it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import BLOCK

HERE = Path(__file__).parent
PAGES = sorted((HERE.parents[1] / "docs").glob("*.md"))

#: What `assert_page_is_true` writes or runs, of the pages that a test gives to it.
RUN = {"python", "toml", "console"}
#: Pages whose blocks of a language another test runs or checks, and which.
ELSEWHERE = {
    ("sql-cookbook.md", "sql"): "test_sql_cookbook_page.py",
    ("sql-cookbook.md", "text"): "test_sql_cookbook_page.py",
    ("kubernetes.md", "python"): "test_recipe_blocks.py",
    ("kubernetes.md", "sh"): "test_recipe_blocks.py",
    ("running-as-a-service.md", "dockerfile"): "test_recipe_blocks.py",
    ("deployment-recipes.md", "yaml"): "test_recipe_blocks.py",
}
#: Blocks that nothing runs, by how they begin, and why.
NOT_RUN = {
    ("start.md", "python3 -m venv"): "it installs over the network what the tests run in",
    ("from-nothing-to-production.md", "mkdir report"): "it installs over the network what the tests run in",
    ("from-nothing-to-production.md", "wfengine service show"): "systemd is not there; tests/cli checks the unit",
    ("running-as-a-service.md", "wfengine service show"): "systemd is not there; tests/cli checks the unit",
    ("notifications.md", "pip install"): "it installs over the network what the tests run in",
    ("notifications.md", "wfengine secrets set ops_url          #"): "the secret is typed; the same is run below, from a file",
    ("notifications.md", "wfengine notifications outbox --state failed"): "tests/notifications runs both",
    ("deployment-recipes.md", "*/5 * * * *"): "a line of a crontab; tests/cli checks the options",
}


def _blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def _pages_that_are_run() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py") if path.name != Path(__file__).name]
    return {name for text in texts if "assert_page_is_true(" in text for name in re.findall(r'"([\w-]+\.md)"', text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_is_run_or_stands_here_with_a_reason(page: Path) -> None:
    run = RUN if page.name in _pages_that_are_run() else set()
    forgotten = [
        f"{language}: {text.partition(chr(10))[0]}"
        for language, text in _blocks(page)
        if language not in run
        and (page.name, language) not in ELSEWHERE
        and not any(page.name == name and text.startswith(begin) for name, begin in NOT_RUN)
    ]

    assert forgotten == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_says_its_language_and_is_closed(page: Path) -> None:
    assert len(re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)) == 2 * len(_blocks(page))


def test_what_stands_here_is_there() -> None:
    there = {page.name: _blocks(page) for page in PAGES}

    assert [each for each in ELSEWHERE if each[1] not in {language for language, _ in there[each[0]]}] == []
    assert [each for each in NOT_RUN if not any(text.startswith(each[1]) for _, text in there[each[0]])] == []
    assert [name for name in ELSEWHERE.values() if not (HERE / name).exists()] == []
