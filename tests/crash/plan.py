"""Kill this very process before its n-th SQL statement, without a hook in the code under test.

An audit hook sees every SQLite connection that is opened; on those that may write, a trace callback counts statements.
SQLite calls it before a statement runs, so "before statement n" for every n covers each boundary of each transaction:
before BEGIN, between two statements, before COMMIT, and - before the next statement - just after COMMIT.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
import threading
from pathlib import Path

#: A value in the text of a statement: SQLite tells what it executes with its parameters in their places.
_VALUE = re.compile(r"[xX]?'(?:[^']|'')*'|\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b|\bNULL\b")


class StatementPlan:
    """Counts the statements of all write connections of this process, and ends it before number `kill_before`.

    With 0 it never ends it, and lists each statement's kind in the note.
    """

    def __init__(self, kill_before: int, note: Path) -> None:
        self._left = kill_before
        self._note = note
        self._list = None if kill_before else note.open("a", encoding="utf-8", buffering=1)
        self._opening = threading.local()

    def install(self) -> None:
        """Watch every connection that is opened from now on."""
        sys.addaudithook(self._on_audit)

    def _on_audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "sqlite3.connect":
            self._opening.database = str(arguments[0])
        elif event == "sqlite3.connect/handle" and "mode=ro" not in self._opening.database:
            connection = arguments[0]
            assert isinstance(connection, sqlite3.Connection)
            if not self._is_watched(connection):
                # Python before 3.12 tells of a connection an instant before it can be used. The next event that the
                # profiler sees on this thread comes when it can, and before its first statement.
                sys.setprofile(lambda *_: sys.setprofile(None) if self._is_watched(connection) else None)

    def _is_watched(self, connection: sqlite3.Connection) -> bool:
        try:
            connection.set_trace_callback(self._on_statement)
        except sqlite3.ProgrammingError:
            return False
        return True

    def _on_statement(self, sql: str) -> None:
        if sql.startswith("--"):
            return  # a statement inside a trigger belongs to the one that fired it
        if self._list is not None:
            self._list.write(kind_of(sql) + "\n")
        self._left -= 1
        if self._left == 0:
            self._note.write_text(sql, encoding="utf-8")
            kill_this_process()


def kind_of(sql: str) -> str:
    """Return a statement without its values, on one line."""
    return " ".join(_VALUE.sub("?", sql).split())


def kill_this_process() -> None:
    """End the calling process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
