"""A flow that is not durable, to see the harness find it out: it gives an outcome to its flow before the commit."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from pathlib import Path

from tests.crash.effects import acknowledged, append
from tests.crash.nursery import FLAG, serve
from tests.crash.plan import StatementPlan


def execute() -> None:
    """Run the steps that have no row yet; understands the options of the harness that it is given."""
    append("start", str(os.getpid()))
    parser = argparse.ArgumentParser()
    parser.add_argument("flow", choices=("hasty", "careful"))
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--kill-before", type=int, default=0)
    options = parser.parse_args()
    if options.kill_before:
        StatementPlan(options.kill_before, options.journal.with_name("killed-before.sql")).install()
    connection = sqlite3.connect(options.journal, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS done (step INTEGER PRIMARY KEY)")
    for step in range(3):
        if connection.execute("SELECT 1 FROM done WHERE step = ?", (step,)).fetchone():
            continue
        append("run", f"step/{step}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO done VALUES (?)", (step,))
        if options.flow == "hasty":
            acknowledged(f"step/{step}", None)  # the bug
        connection.execute("COMMIT")
        if options.flow == "careful":
            acknowledged(f"step/{step}", None)
    connection.close()
    print(f"result {json.dumps('done')}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
