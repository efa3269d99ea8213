"""How a daemon's log looks on stderr: lines for people, or one JSON object a line for programs that collect them."""

from __future__ import annotations

import logging
import os
import sys

from wfengine.cli.output import clean_lines


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
    """Let every logger of this process write to stderr in that format: 'text' or 'json'; or as a file of the user's says."""
    from wfengine.logging import JsonFormatter, get_logger  # loads the engine

    get_logger()
    if os.environ.get("WFENGINE_LOGGING_CONFIG"):
        return
    handler = _Handler(shows_prints=log_format == "json")
    text = _TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    if quiet:
        handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)  # our own console handler is silent from here on
