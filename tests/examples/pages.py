"""Pages as tests: their Python blocks are written as files, their console lines are run, and the output is compared."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from programs import shell

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What differs from run to run, and what stands for it in both texts.
VOLATILE = {
    r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)": "TIME",
    r"\b\d+(\.\d+)? (µs|ms|s)\b": "DURATION",
    r"\b[a-z]+-[a-z]+\b": "RUN",
    r"summarise +234 +\d+ +\d+": "COUNTS",  # a commit that was under way when the kill came may have been of several calls
}


def blocks(page: str, language: str) -> list[str]:
    """Return the texts of a page's blocks in one language."""
    return [text for kind, text in BLOCK.findall(page) if kind == language]


def commands(block: str) -> list[tuple[str, str]]:
    """Return (command, the output shown below it) for each line that begins with a dollar sign."""
    starts = [match.start() for match in re.finditer(r"^\$ ", block, re.MULTILINE)]
    parts = [block[start:end] for start, end in pairwise([*starts, len(block)])]
    return [(part.partition("\n")[0][2:], part.partition("\n")[2]) for part in parts]


def assert_page_is_true(page: Path, folder: Path) -> int:
    """Write the page's Python and TOML blocks under the names in their first lines, run its console lines, in the page's order.

    Return how many lines were run.
    """
    done = 0
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind in ("python", "toml"):
            (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        for command, shown in commands(text) if kind == "console" else ():
            _assert_output_as_shown(page.name, command, shown, run(folder, command))
            done += 1
    return done


def _masked(text: str) -> str:
    for pattern, name in VOLATILE.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _assert_output_as_shown(page: str, command: str, shown: str, printed: str) -> None:
    """An ellipsis in the page stands for any text, over any number of lines."""
    pieces = [re.escape(piece) for piece in _masked(shown).split("…")]
    if not re.fullmatch(".*".join(pieces), _masked(printed), re.DOTALL):
        pytest.fail(f"{page} shows another output of: {command}\n--- {page}\n{shown}\n--- printed\n{printed}")


def run(folder: Path, command: str) -> str:
    """Run a line as shown; the script that sets up a checkout hands over to the installed program."""
    query = re.fullmatch(r'sqlite3 -box (\S+) "(.*)"', command)
    if query and shutil.which("sqlite3") is None:
        return box(folder / query[1], query[2])
    return shell(folder, "{ " + command.replace("./wf ", "wfengine ") + "; } 2>&1").stdout


def box(database: Path, query: str) -> str:
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
