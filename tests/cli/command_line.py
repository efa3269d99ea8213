"""Run the command line as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import forked

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command line said."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, object]:
        """The one JSON object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user who set nothing of wfengine, with changes."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("WFENGINE_") and name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    sources = os.pathsep.join(str(ROOT / folder) for folder in (".", "journal", "scheduler"))
    return {**inherited, "PYTHONPATH": sources, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8", **changes}


class Cli:
    """Runs `python -m wfengine` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        """Return the command line for arguments."""
        return [sys.executable, "-m", "wfengine", *arguments]

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder, env=environment(**changes), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def __call__(self, *arguments: str, stdin: str = "", **changes: str) -> Answer:
        """Run it to its end, in a process as `tests.forked` has them; what `start` starts is started anew."""
        done = forked.run(self.command(*arguments), cwd=self.folder, env=environment(**changes), input=stdin, timeout=120)
        return Answer(done.returncode, done.stdout, done.stderr)
