"""A flow that is not durable, to see the harness find it out; `careful` is the same without a bug.

hasty       gives an outcome to its flow before the commit
reordered   commits that a step is done before it commits what came of it
unlocked    goes on with what another process is at, since it looks before it takes the lock and not after
"""

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
    parser.add_argument("flow", choices=("hasty", "careful", "reordered", "unlocked"))
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--kill-before", type=int, default=0)
    parser.add_argument("--wait-for-go", action="store_true")
    options = parser.parse_args()
    if options.kill_before:
        StatementPlan(options.kill_before, options.journal.with_name("killed-before.sql")).install()
    connection = sqlite3.connect(options.journal, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS done (step INTEGER PRIMARY KEY, value INTEGER)")
    values = [take_step(connection, options.flow, step, waits=options.wait_for_go) for step in range(3)]
    connection.close()
    print(f"result {json.dumps(values)}", flush=True)


def take_step(connection: sqlite3.Connection, flow: str, step: int, *, waits: bool) -> int | None:
    """Return what the step gives, from the file if it is there. With `waits` it waits for a line after its look at the file."""
    value = find(connection, step)
    if waits:
        print(f"looked {step}", flush=True)
        sys.stdin.readline()
    if flow != "unlocked":
        connection.execute("BEGIN IMMEDIATE")
        value = find(connection, step)  # again: whoever had the lock before has done it
    if value is not None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return value[0]
    append("run", f"step/{step}")
    if flow == "unlocked":
        connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR REPLACE INTO done VALUES (?, ?)", (step, None if flow == "reordered" else step * step))
    if flow == "hasty":
        acknowledged(f"step/{step}", None)  # the bug
    connection.execute("COMMIT")
    if flow == "reordered":
        connection.execute("UPDATE done SET value = ? WHERE step = ?", (step * step, step))  # the bug: too late
    if flow != "hasty":
        acknowledged(f"step/{step}", None)
    return step * step


def find(connection: sqlite3.Connection, step: int) -> tuple[int | None] | None:
    """Return the recorded value of a step, None where there is no row."""
    found: tuple[int | None] | None = connection.execute("SELECT value FROM done WHERE step = ?", (step,)).fetchone()
    return found


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
