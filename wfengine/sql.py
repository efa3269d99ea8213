"""Tables of your own in the journal file: the connection of a transactional task, and one to read with anywhere.

`@task(transaction=True)` makes a task whose rows are committed together with its result, exactly once. See
docs/transactional-tasks.md. Names of your tables, indexes, views and triggers begin with `user_`.
"""

from __future__ import annotations

import os
import sqlite3

from wfengine.journals import default_journal
from wfengine.transactional import current
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import MissingContextError
from wfengine_journal.location import find_path
from wfengine_journal.user_tables import Connection, Cursor

__all__ = ["Connection", "Cursor", "connect", "current_connection"]


def current_connection() -> Connection:
    """Return the connection of the transactional task that runs now: what its parameter `connection` is given.

    For functions that a task calls. Raises MissingContextError elsewhere.
    """
    connection = current()
    if connection is None:
        raise MissingContextError(
            "There is no transaction here: only a task declared @task(transaction=True) has one. To read your tables in other "
            "places: wfengine.sql.connect()"
        )
    return connection


def connect(journal: str | os.PathLike[str] | None = None) -> sqlite3.Connection:
    """Open a connection that only reads: your tables, and the journal's views. Close it after use.

    `journal` is the file, by default that of the runs of this process. It never waits for a writer, and rows are
    `sqlite3.Row`. What an open transaction wrote is not seen before its commit.
    """
    return open_reader(default_journal().path if journal is None else find_path(journal))
