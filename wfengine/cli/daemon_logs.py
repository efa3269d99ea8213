"""How a daemon's log looks on stderr: lines for people, or one JSON object a line for programs that collect them."""

from __future__ import annotations

import json
import logging
import sys

from wfengine.cli.output import clean_lines
from wfengine_journal.clock import text_from_seconds

#: Fields of a record that go into its JSON object under these names, where the record has them.
_FIELDS = {
    "flow_run_id": "run_id",
    "flow_run_name": "run",
    "flow_name": "flow",
    "task_run_id": "task_run_id",
    "task_run_name": "task_run",
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


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record: at, level, logger, event, message, and the run and deployment it is about."""

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
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


class _TextFormatter(logging.Formatter):
    """Lines for people. A further line of a message is indented, so that it cannot pass for a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return clean_lines(super().format(record)).replace("\n", "\n  ")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for the type checker
    """Writes to stderr; what `print` of a flow shows by itself is not shown twice."""

    def __init__(self, *, shows_prints: bool) -> None:
        super().__init__(sys.stderr)
        self._shows_prints = shows_prints

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if self._shows_prints or not getattr(record, "printed", False):
            super().emit(record)


def set_up_logs(log_format: str, *, quiet: bool) -> None:
    """Let every logger of this process write to stderr in that format: 'text' or 'json'."""
    from wfengine.logging import get_logger  # loads the engine

    get_logger()
    handler = _Handler(shows_prints=log_format == "json")
    text = _TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    if quiet:
        handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)  # our own console handler is silent from here on
