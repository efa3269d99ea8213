"""The raw reference: what the same work costs with nothing but sqlite3.

Per task: insert a 'running' row and update it to 'completed' with two 100-byte JSON values, one unique secondary index,
one commit; WAL, synchronous NORMAL (raw-N) or FULL (raw-F).
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Literal

Synchronous = Literal["NORMAL", "FULL"]

#: A JSON value of 100 bytes.
VALUE = json.dumps({"value": "x" * 87})
assert len(VALUE) == 100


def raw_microseconds(folder: Path, tasks: int, synchronous: Synchronous) -> float:
    """Return the microseconds a task, in a new file in `folder`."""
    path = folder / f"raw-{time.monotonic_ns()}.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(
            "CREATE TABLE task (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,"
            " input TEXT, result TEXT, UNIQUE (run, key))"
        )
        began = time.perf_counter()
        for number in range(tasks):
            _task(connection, number)
        return (time.perf_counter() - began) / tasks * 1e6
    finally:
        connection.close()


def _task(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO task (id, run, key, state, input) VALUES (?, 1, ?, 'running', ?)", (number, f"step-{number}", VALUE)
    )
    connection.execute("UPDATE task SET state = 'completed', result = ? WHERE id = ?", (VALUE, number))
    connection.execute("COMMIT")
