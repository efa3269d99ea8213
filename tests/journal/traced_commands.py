"""Run commands of wfengine in this process, one after the other, and write down every statement that SQLite runs for them.

    python traced_commands.py STATEMENTS_FILE < COMMANDS

Standard input: a JSON list of command lines. The file gets a JSON object: "codes", the exit codes by command, and
"statements", a list of [command, statement], each pair once. A command line that serves is stopped as soon as no run waits.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from wfengine.cli import main

#: Seconds between two looks at whether a daemon has done its work.
LOOK_SECONDS = 0.05

opened = sqlite3.connect
noted: dict[tuple[str, str], None] = {}
codes: dict[str, object] = {}
current = ""


def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """Open a connection as sqlite3.connect does, and trace it from its opening on."""
    connection = opened(*arguments, **options)
    connection.set_trace_callback(lambda statement: noted.setdefault((current, statement)))
    return connection


def stop_when_idle(path: str) -> None:
    """Send this process SIGTERM when the daemon in it has begun, and no run waits or is executed any more."""
    done = "SELECT (SELECT count(*) FROM daemons) AND NOT (SELECT count(*) FROM runs WHERE state IN ('SCHEDULED', 'RUNNING'))"
    while True:
        threading.Event().wait(LOOK_SECONDS)
        with contextlib.closing(opened(f"file:{path}?mode=ro", uri=True)) as connection:
            if connection.execute(done).fetchone()[0]:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def run(arguments: list[str]) -> None:
    """Run one command; what it prints goes to standard error, with its exit code."""
    global current
    if arguments[0] == "serve":
        threading.Thread(target=stop_when_idle, args=(os.environ["WFENGINE_JOURNAL"],), daemon=True).start()
    current = " ".join(arguments)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main(arguments)
    except SystemExit as end:
        codes[current] = end.code
        print(f"$ wfengine {current}\n{output.getvalue()}[{end.code}]", file=sys.stderr)
    finally:
        current = ""


if __name__ == "__main__":
    sqlite3.connect = connect  # type: ignore[assignment]  # this process does nothing else
    for arguments in json.loads(sys.stdin.read()):
        run(arguments)
    Path(sys.argv[1]).write_text(json.dumps({"codes": codes, "statements": list(noted)}), encoding="utf-8")
