"""Which rows of a journal belong to a flow run, and what refers to a value: said once, for all that moves or removes runs.

A test holds this against the schema, so that a new table or a new column with a checksum has to be entered here.
"""

from __future__ import annotations

import sqlite3

#: Tables whose rows belong to the flow run in their column `flow_run_id`, in an order in which they can be written.
RUN_TABLES = (
    *("execution", "task_run", "task_code", "transition", "argument", "item", "hook_run", "cache_use", "log", "artifact"),
    "message",
)

#: Tables that are not of one flow run: of the file, of the process, of all runs; or that only living processes write.
OTHER_TABLES = frozenset(
    {"meta", "owner", "flow", "task", "code", "flow_run", "value", "error", "dependency", "cache", "slot", "variable", "secret"}
    | {"deployment", "schedule", "tick", "quota", "event", "automation", "firing", "daemon"}
    | {"notification", "notification_target"}
)

#: Where a key of table `value` may stand: table, column of the key, and the column that holds the value itself where it is
#: small ('': never). A row of `value` to which none of these leads is not needed.
VALUE_REFERENCES = (
    ("flow_run", "result_hash", "result"),
    ("flow_run", "flow_hash", ""),
    ("task_run", "result_hash", "result"),
    ("transition", "result_hash", ""),
    ("argument", "hash", ""),
    ("item", "hash", "value"),
    ("message", "hash", "value"),
    ("cache", "result_hash", "result"),
)

#: Where the id of an error may stand.
ERROR_REFERENCES = (("flow_run", "error_id"), ("task_run", "error_id"), ("transition", "error_id"))


def begin_copying(connection: sqlite3.Connection) -> None:
    """Say, within a transaction, that rows of another file are written: their history makes no events."""
    connection.execute("INSERT INTO meta (key, value) VALUES ('copying', '')")


def end_copying(connection: sqlite3.Connection) -> None:
    """End what `begin_copying` began."""
    connection.execute("DELETE FROM meta WHERE key = 'copying'")


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, in their order."""
    return [str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()]


def run_family(connection: sqlite3.Connection, run_id: int, schema: str = "main") -> list[int]:
    """Return a flow run and the runs of all its subflows, by id."""
    rows = connection.execute(
        f"""
        WITH RECURSIVE family (id) AS (
            SELECT id FROM {schema}.flow_run WHERE id = ?
            UNION
            SELECT c.id FROM family
            CROSS JOIN {schema}.task_run t ON t.flow_run_id = family.id
                   AND t.task_id IN (SELECT id FROM {schema}.task WHERE kind = 'flow')
            CROSS JOIN {schema}.flow_run c ON c.parent_task_run_id = t.id)
        SELECT id FROM family ORDER BY id
        """,
        (run_id,),
    ).fetchall()
    return [int(row[0]) for row in rows]
