"""The pages that lead in and out - start, concepts, recipes, troubleshooting - are tests: every line prints what they show."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from pages import assert_page_is_true

from wfengine.cli import root
from wfengine_journal import codec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("name", "lines"), [("start.md", 7), ("concepts.md", 2), ("deployment-recipes.md", 9), ("troubleshooting.md", 16)]
)
def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path, name: str, lines: int) -> None:
    assert assert_page_is_true(DOCS / name, tmp_path) == lines


def _command(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """Return the command that words name, and the words after it; None: there is no such command."""
    command: click.Command = root
    rest = list(words)
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            return None
        command, rest = found, rest[1:]
    return command, rest


def _mistakes(text: str) -> list[str]:
    mistakes = []
    for line in re.findall(r"`wfengine ([^`]+)`", text):
        found = _command(line.split())
        if found is None:
            mistakes.append(line)
            continue
        command, rest = found
        known = {name for option in (*command.params, *root.params) for name in (*option.opts, *option.secondary_opts)}
        asked = re.findall(r"(?<!\S)--?[a-z][a-z-]*", re.sub(r"(['\"]).*?\1", "", " ".join(rest)))
        mistakes += [f"{line}: {option}" for option in asked if option not in {*known, "--help", "-h", "--version"}]
    return mistakes


@pytest.mark.parametrize("page", [*sorted(path.name for path in DOCS.glob("*.md")), "../README.md"])
def test_every_command_that_a_page_names_in_its_text_exists_with_those_options(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)

    assert _mistakes(text) == []


def test_the_page_that_compares_says_of_us_what_the_code_and_the_page_on_capacity_say() -> None:
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    capacity = (DOCS / "capacity.md").read_text(encoding="utf-8")
    ((count, size),) = re.findall(r"a map of ([\d,]+) in (\d+ MB)", text)

    assert f"a value of {codec.MAX_VALUE_BYTES // 2**20} MiB" in text
    assert re.search(rf"maps {count} tasks .*\| {size} \|", capacity)
