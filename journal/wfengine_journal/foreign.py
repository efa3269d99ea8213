"""Which tables, views, indexes and triggers of a file are not wfengine's, for `wfengine doctor`.

A trigger is code that runs whenever wfengine writes, and a view decides what is shown: whoever could write the file could
leave one there. What is ours is known exactly: the scripts that make a journal are run in memory and compared, word by word.
What a user's own transactional tasks made, see `user_tables`, is the user's affair, unless it reaches a table of ours.
"""

from __future__ import annotations

import sqlite3

from wfengine_journal.schema import our_definitions
from wfengine_journal.user_tables import EVENT_TRIGGER, PREFIX


def find_foreign(connection: sqlite3.Connection) -> tuple[list[str], int]:
    """Return what a file of the newest format has that wfengine did not make, or lacks, and how many triggers of a user's own.

    Those stand on tables of the user's own, and run only when the user's code writes there.
    """
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name"
    ).fetchall()
    ours = our_definitions()
    present = {(row[0], row[1]) for row in rows}
    problems = [f"no {kind} {name}" for kind, name in ours if (kind, name) not in present]
    own_triggers = 0
    for kind, name, table, sql in rows:
        if (kind, name) in ours:
            if sql != ours[kind, name]:
                problems.append(f"another {kind} {name} than wfengine makes")
        elif not (str(name).startswith(PREFIX) and str(table).startswith(PREFIX)):
            problems.append(f"{kind} {name} on {table}" if kind in ("trigger", "index") else f"{kind} {name}")
        elif kind == "trigger" and not str(name).startswith(EVENT_TRIGGER):
            own_triggers += 1
    return problems, own_triggers
