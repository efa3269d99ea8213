"""State changes of task runs as events: only while an automation asks for them, by a trigger that is there only then.

Each state change of a flow run is always an event, written with it (`run_transitions.record_flow_transition`). For task runs,
of which there are many more, even a trigger that finds nothing to do would take a thirtieth of the time of a task.
"""

from __future__ import annotations

import sqlite3

_CREATE = """
CREATE TRIGGER IF NOT EXISTS task_run_event AFTER INSERT ON transition
WHEN NEW.task_run_id <> 0 AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'copying')
BEGIN
    INSERT INTO event (name, resource, flow_run_id, task_run_id, occurred_at)
    VALUES ('wfengine.task-run.' || coalesce(NEW.state_name, substr(NEW.state, 1, 1) || lower(substr(NEW.state, 2))),
            'wfengine.task-run.' || NEW.task_run_id, NEW.flow_run_id, NEW.task_run_id, NEW.at);
END
"""
_WANTED = "SELECT 1 FROM automation WHERE wants_tasks = 1 AND active = 1 AND removed_at IS NULL LIMIT 1"


def keep_task_events(connection: sqlite3.Connection) -> None:
    """Let state changes of task runs be events from now on, if an automation wants them, or not any more.

    Part of each change that writes a row of table `automation`, after it.
    """
    if connection.execute(_WANTED).fetchone() is not None:
        connection.execute(_CREATE)
    else:
        connection.execute("DROP TRIGGER IF EXISTS task_run_event")
