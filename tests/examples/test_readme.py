"""The README is a test: its Python files are written as shown, its console lines are run, and their output is compared."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from pages import assert_page_is_true, blocks, box, commands
from programs import shell

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_every_command_in_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(README, tmp_path) >= 9


def test_a_query_is_shown_alike_with_and_without_the_sqlite3_program(tmp_path: Path) -> None:
    shown = next(part for block in blocks(TEXT, "console") for part in commands(block) if "FROM attempts" in part[0])
    database, query = tmp_path / "empty.db", "SELECT 'mean' AS task, 1 AS attempt, 'FAILED' AS outcome, NULL AS error"
    sqlite3.connect(database).close()

    assert box(database, query).splitlines()[0][:28] == shown[1].splitlines()[0][:28]
    if shutil.which("sqlite3"):
        assert box(database, query) == shell(tmp_path, f'sqlite3 -box empty.db "{query}"').stdout.strip()


def test_the_first_example_of_the_readme_has_twelve_lines_of_code() -> None:
    lines = [line for line in blocks(TEXT, "python")[0].splitlines() if line.strip() and not line.startswith("#")]

    assert len(lines) == 12


def test_the_two_commands_of_the_readme_are_commands_of_the_script() -> None:
    printed = shell(ROOT, "./wf help").stdout

    named = re.findall(r"^\./wf (\w+)", blocks(TEXT, "sh")[0], re.MULTILINE)

    assert named == ["demo", "test"]
    assert all(f"./wf {name} " in printed for name in named)


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/prefect.md"]
)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    roots = "tests|examples|docs|journal|scheduler|wfengine|benchmarks"
    named = re.findall(rf"`((?:{roots})/[\w./]*|\w+\.(?:md|toml))`", text)

    missing = {name for name in linked if not ((ROOT / page).parent / name).exists()}
    missing |= {name for name in named if not (ROOT / name).exists()}

    assert sorted(missing) == []
