"""A record of `logging` as one line of JSON, with the run and task it belongs to: for programs that collect logs.

It works in a handler of the program's own as well: `{"()": "wfengine.logging.JsonFormatter"}`. It never reads the journal:
whoever formats holds the lock of a handler, and who holds the journal's may be waiting for that to log.
"""

from __future__ import annotations

import json
import logging

from wfengine_journal.clock import text_from_seconds

#: Fields of a record that go into its JSON object under these names, where the record has them.
_FIELDS = {
    "flow_run_id": "run_id",
    "flow_run_name": "run",
    "flow_name": "flow",
    "task_run_id": "task_run_id",
    "task_run_name": "task_run",
    "task_name": "task",
    "attempt": "attempt",
    "deployment": "deployment",
    "schedule_id": "schedule_id",
    "nominal_at": "nominal_at",
    "queue": "queue",
    "state": "state",
    "daemon": "daemon",
    "journal": "journal",
    "left": "left",
    "running": "running",
}
#: What every record has, and what is ours alone: no fields of a call.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "asctime", "event", "message", "printed", "taskName", *_FIELDS,
}  # fmt: skip


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record: at, level, logger, event, message, the run, task and deployment it is about.

    What a call gave as `extra`, and `get_run_logger(**fields)`, stand under 'fields'. Times are UTC.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        """The arguments of logging.Formatter are taken, so that a configuration file may give them, and change nothing."""
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields: dict[str, object] = {
            "at": text_from_seconds(record.created),
            "level": record.levelname,
            "logger": record.name,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        for attribute, name in _FIELDS.items():
            value = getattr(record, attribute, None)
            if value is not None:
                fields[name] = value
        own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if own:
            fields["fields"] = own
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return _json_text(fields)


def _json_text(fields: dict[str, object]) -> str:
    try:
        return json.dumps(fields, default=str)
    except Exception:  # an object of the user's that has no text, keys that JSON does not take, a list that holds itself
        fields["fields"] = "(they are no JSON)"
        return json.dumps(fields, default=repr, skipkeys=True)
