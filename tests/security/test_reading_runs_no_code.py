"""Reading a journal never runs code, whatever it holds: guarantee G9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Whoever unpickles a Trap writes the file `sprung`. It is a flow's parameter, an argument, a result, and part of an error.
PROGRAM = """
import os, sys
from wfengine import flow, task

def spring(path):
    with open(path, "w"):
        pass
    return Trap()

class Trap:
    def __reduce__(self):
        return spring, (os.path.abspath("sprung"),)

@task
def keep(trap):
    return Trap()

@task
def fail(trap):
    raise ValueError("no", Trap())

@flow
def traps(trap):
    keep(trap)
    fail(trap)

if __name__ == "__main__":
    try:
        traps(Trap())
    except ValueError:
        pass
"""
READING = [
    "runs ls", "runs ls --json", "runs show @last", "runs show @last --json", "runs logs @last", "info", "doctor",
    "sql 'SELECT * FROM tasks'", "sql 'SELECT * FROM failures'", "export", "export @last --format html",
    "extract @last small.db", "import small.db --again", "backup copy.db", "recover journal.db -o saved.db",
    "diff @last @last", "inputs ls",
    "prune --older-than 1d --dry-run",
]  # fmt: skip


def _shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "WFENGINE_JOURNAL": str(folder / "journal.db")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_no_reading_command_unpickles_a_parameter_argument_result_or_error(tmp_path: Path) -> None:
    (tmp_path / "traps.py").write_text(PROGRAM, encoding="utf-8")
    ended = _shell(tmp_path, f"{sys.executable} traps.py")
    assert ended.returncode == 0, ended.stderr
    (tmp_path / "sprung").unlink(missing_ok=True)  # the writer checks what it writes by reading it back

    for command in READING:
        shown = _shell(tmp_path, f"wfengine {command}")
        assert shown.returncode == 0, shown.stderr
        assert not (tmp_path / "sprung").exists(), command

    _shell(tmp_path, "wfengine resume @last")
    assert (tmp_path / "sprung").exists(), "the trap does not work, so this test shows nothing"
