"""Two engines with a planted bug, to see the harness find them out.

`hasty` acknowledges before it commits, `deaf` goes on after a write that failed; `careful` has no bug.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import sys
from pathlib import Path

from tests.crash.effects import acknowledged, append
from tests.crash.nursery import FLAG, serve
from tests.faults import injector


def execute() -> None:
    """Run the steps that have no row yet; understands the options of the harness that it is given."""
    append("start", str(os.getpid()))
    parser = argparse.ArgumentParser()
    parser.add_argument("flow", choices=("hasty", "deaf", "careful"))
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    injector.arm()
    try:
        _run(options.flow, options.journal)
    except sqlite3.Error as error:
        print(f"error JournalUnwritableError: the journal {options.journal} {error}. Then run: wfengine resume", flush=True)
    else:
        print(f"result {json.dumps('done')}", flush=True)


def _run(kind: str, journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS done (step INTEGER PRIMARY KEY)")
        for step in range(3):
            if connection.execute("SELECT 1 FROM done WHERE step = ?", (step,)).fetchone():
                continue
            append("run", f"step/{step}")
            if kind == "hasty":
                acknowledged(f"step/{step}", None)  # the bug
            with contextlib.suppress(*([sqlite3.Error] if kind == "deaf" else [])):  # the other bug
                connection.execute("INSERT INTO done VALUES (?)", (step,))
            if kind != "hasty":
                acknowledged(f"step/{step}", None)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
