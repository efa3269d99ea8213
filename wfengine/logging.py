"""Logs of flows and tasks: through the standard `logging`, and into the journal beside the run they belong to."""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from wfengine.scopes import Scope, current_scope
from wfengine_journal.errors import MissingContextError

if TYPE_CHECKING:
    LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    LoggerAdapter = logging.LoggerAdapter

ROOT = "wfengine"
FLOW_RUNS = "wfengine.flow_runs"
TASK_RUNS = "wfengine.task_runs"
#: A longer log line is cut in the journal, in characters.
LINE_LIMIT = 65_536


def get_run_logger() -> LoggerAdapter:
    """Return a logger whose lines go to the journal, with the run they belong to, and to standard logging.

    MissingContextError outside of a flow or task.
    """
    scope = current_scope()
    if scope is None:
        raise MissingContextError("get_run_logger() was called outside of a flow run. Use logging.getLogger() there.")
    _install()
    fields = {"flow_run_id": scope.run.id, "flow_run_name": scope.run.name, "flow_name": scope.run.flow.name}
    if scope.call is not None:
        fields |= {"task_run_id": scope.call.task_run_id, "task_name": scope.call.callee.name}
    return logging.LoggerAdapter(logging.getLogger(TASK_RUNS if scope.call is not None else FLOW_RUNS), fields)


class JournalHandler(logging.Handler):
    """Writes a record into the journal of the run that the calling code belongs to; outside of a run, nowhere.

    The line is committed with the next commit of the run, at the latest some tens of milliseconds later.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        scope = current_scope()
        if scope is None:
            return
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
            write_line(scope, record.levelno, record.name, message)
        except Exception:
            self.handleError(record)


def write_line(scope: Scope, level: int, logger: str, message: str) -> None:
    """Append one log line to the journal."""
    text = message if len(message) <= LINE_LIMIT else message[:LINE_LIMIT] + " ... (cut)"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    scope.run.journal.put_log(scope.run.id, scope.task_run_id or None, level, logger, text)


class _ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for the type checker
    """Shows lines on stderr as long as the program has not configured logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.stream = sys.stderr  # looked up anew: a test or notebook may have replaced it
            super().emit(record)


def show_on_console() -> None:
    """Show what wfengine logs on stderr, from INFO on, unless the program has configured logging itself."""
    _install()


_installed = False


def _install() -> None:
    """Attach our handlers to our loggers, once."""
    global _installed
    if _installed:
        return
    _installed = True
    root = logging.getLogger(ROOT)
    if root.level == logging.NOTSET:
        root.setLevel(logging.INFO)
    console = _ConsoleHandler()
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(console)
    handler = JournalHandler()
    for name in (FLOW_RUNS, TASK_RUNS):
        logging.getLogger(name).addHandler(handler)


# ---------------------------------------------------------------------------------------------------- print


_plain_print: Callable[..., None] | None = None


def record_prints() -> None:
    """From now on, what a run with log_prints prints is written to its log as well. Installed at the first such run."""
    global _plain_print
    if _plain_print is None:
        _plain_print = builtins.print
        builtins.print = _print


def _print(*values: object, **options: object) -> None:
    assert _plain_print is not None
    _plain_print(*values, **options)
    scope = current_scope()
    if scope is None or options.get("file") not in (None, sys.stdout, sys.stderr):
        return
    wanted = scope.call.callee.log_prints if scope.call is not None else None
    if wanted if wanted is not None else scope.run.log_prints:
        separator = options.get("sep")
        text = (" " if separator is None else str(separator)).join(str(value) for value in values)
        write_line(scope, logging.INFO, TASK_RUNS if scope.call is not None else FLOW_RUNS, text)
