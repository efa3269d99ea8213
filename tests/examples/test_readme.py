"""The README is a test: its Python files are written as shown, its console lines are run, and their output is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP_LIMIT_SECONDS = 60
#: What differs from run to run, and what stands for it in both texts.
VOLATILE = {
    r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)": "TIME",
    r"\b\d+(\.\d+)? (µs|ms|s)\b": "DURATION",
    r"\b[a-z]+-[a-z]+\b": "RUN",
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


def test_every_command_in_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WFENGINE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = 0
    for kind, text in BLOCK.findall(README):
        if kind == "python":
            (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        for command, shown in _commands(text) if kind == "console" else ():
            ended = subprocess.run(
                # The script sets up a checkout and hands over to this very program.
                ["sh", "-c", command.replace("./wf ", "wfengine ")],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=STEP_LIMIT_SECONDS,
                check=False,
            )
            _assert_output_as_shown(command, shown, ended.stdout)
            done += 1
    assert done >= 9


def test_the_first_example_of_the_readme_has_twelve_lines_of_code() -> None:
    lines = [line for line in _blocks("python")[0].splitlines() if line.strip() and not line.startswith("#")]

    assert len(lines) == 12


def test_the_two_commands_of_the_readme_are_commands_of_the_script() -> None:
    printed = subprocess.run(["sh", ROOT / "wf", "help"], capture_output=True, text=True, timeout=10, check=True).stdout

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
