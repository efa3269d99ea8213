"""The README is a test: its Python files are written as shown, its console lines are run, and their output is compared."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from programs import shell

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What differs from run to run, and what stands for it in both texts.
VOLATILE = {
    r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)": "TIME",
    r"\b\d+(\.\d+)? (µs|ms|s)\b": "DURATION",
    r"\b[a-z]+-[a-z]+\b": "RUN",
    r"summarise +234 +\d+ +\d+": "COUNTS",  # a commit that was under way when the kill came may have been of several calls
}


def _blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README) if kind == language]


def _masked(text: str) -> str:
    for pattern, name in VOLATILE.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _assert_output_as_shown(command: str, shown: str, printed: str) -> None:
    """An ellipsis in the README stands for any text, over any number of lines."""
    pieces = [re.escape(piece) for piece in _masked(shown).split("…")]
    if not re.fullmatch(".*".join(pieces), _masked(printed), re.DOTALL):
        pytest.fail(f"README.md shows another output of: {command}\n--- README\n{shown}\n--- printed\n{printed}")


def _commands(block: str) -> list[tuple[str, str]]:
    """Return (command, the output shown below it) for each line that begins with a dollar sign."""
    starts = [match.start() for match in re.finditer(r"^\$ ", block, re.MULTILINE)]
    parts = [block[start:end] for start, end in pairwise([*starts, len(block)])]
    return [(part.partition("\n")[0][2:], part.partition("\n")[2]) for part in parts]


def _run(folder: Path, command: str) -> str:
    """Run a line as shown; the script that sets up a checkout hands over to the installed program."""
    query = re.fullmatch(r'sqlite3 -box (\S+) "(.*)"', command)
    if query and shutil.which("sqlite3") is None:
        return _box(folder / query[1], query[2])
    return shell(folder, "{ " + command.replace("./wf ", "wfengine ") + "; } 2>&1").stdout


def _box(database: Path, query: str) -> str:
    """Show a query as the sqlite3 program does, for machines that have Python only."""
    with closing(sqlite3.connect(database)) as connection:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        rows = [["" if value is None else str(value) for value in row] for row in cursor]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]

    def line(cells: list[str], edges: str = "│││") -> str:
        return edges[0] + edges[1].join(f" {cell} " for cell in cells) + edges[2]

    rules = ["".join("─" * (width + 2)) for width in widths]
    top, middle, bottom = (left + across.join(rules) + right for left, across, right in ("┌┬┐", "├┼┤", "└┴┘"))
    head = [" " * ((width - len(name)) // 2) + name for name, width in zip(names, widths, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    return "\n".join([top, line(padded[0]), middle, *map(line, padded[1:]), bottom])


def test_every_command_in_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    done = 0
    for kind, text in BLOCK.findall(README):
        if kind == "python":
            (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        for command, shown in _commands(text) if kind == "console" else ():
            _assert_output_as_shown(command, shown, _run(tmp_path, command))
            done += 1
    assert done >= 9


def test_a_query_is_shown_alike_with_and_without_the_sqlite3_program(tmp_path: Path) -> None:
    shown = next(part for block in _blocks("console") for part in _commands(block) if "FROM attempts" in part[0])
    database, query = tmp_path / "empty.db", "SELECT 'mean' AS task, 1 AS attempt, 'FAILED' AS outcome, NULL AS error"
    sqlite3.connect(database).close()

    assert _box(database, query).splitlines()[0][:28] == shown[1].splitlines()[0][:28]
    if shutil.which("sqlite3"):
        assert _box(database, query) == shell(tmp_path, f'sqlite3 -box empty.db "{query}"').stdout.strip()


def test_the_first_example_of_the_readme_has_twelve_lines_of_code() -> None:
    lines = [line for line in _blocks("python")[0].splitlines() if line.strip() and not line.startswith("#")]

    assert len(lines) == 12


def test_the_two_commands_of_the_readme_are_commands_of_the_script() -> None:
    printed = shell(ROOT, "./wf help").stdout

    named = re.findall(r"^\./wf (\w+)", _blocks("sh")[0], re.MULTILINE)

    assert named == ["demo", "test"]
    assert all(f"./wf {name} " in printed for name in named)


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    roots = "tests|examples|docs|journal|scheduler|wfengine|benchmarks"
    named = re.findall(rf"`((?:{roots})/[\w./]*|\w+\.(?:md|toml))`", text)

    missing = sorted({name for name in [*linked, *named] if not (ROOT / name).exists()})

    assert missing == []
