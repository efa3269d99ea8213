"""Where log lines go: into the journal, and to stderr as long as the program has not configured logging itself."""

from __future__ import annotations

import logging
import os
import sys

from wfengine.scopes import ACTIVE, LiveRun, Scope, current_scope
from wfengine_journal import guarding
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal
from wfengine_journal.transitions import utf8_text

ROOT = "wfengine"
FLOW_RUNS = "wfengine.flow_runs"
TASK_RUNS = "wfengine.task_runs"
#: A longer log line is cut in the journal, in characters.
LINE_LIMIT = 65_536
#: The level of our loggers where the program has set none: a name or a number. Default: INFO.
LEVEL_VARIABLE = "WFENGINE_LOGGING_LEVEL"


class JournalHandler(logging.Handler):
    """Writes a record into the journal, beside the run that its logger was made for; other records go nowhere.

    The line is committed with the next commit of the run, at the latest some tens of milliseconds later.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            self._write(record)
        except Exception:
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> None:
        scope, named = current_scope(), getattr(record, "flow_run_id", None)
        other = None if scope is not None and named == scope.run.id else _active_run(named)
        if other is not None:  # from a thread that does not know its run, or a logger that was handed on
            _put(other.journal, other.id, getattr(record, "task_run_id", None), record)
        elif scope is not None and scope.run.id:  # 0 while a function gives the run its name: nothing to stand beside yet
            _put(scope.run.journal, scope.run.id, _task_run_id(record, scope), record)


def _task_run_id(record: logging.LogRecord, scope: Scope) -> int | None:
    """Return whose line it is: a flow's logger used in a task still speaks for the flow."""
    if getattr(record, "flow_run_id", None) == scope.run.id:
        return getattr(record, "task_run_id", None) or None
    return scope.task_run_id or None


def _active_run(flow_run_id: object) -> LiveRun | None:
    """Return the run of that id, if this process executes it."""
    return next((run for (_, run_id), run in list(ACTIVE.items()) if run_id == flow_run_id), None)


def _put(journal: Journal, flow_run_id: int, task_run_id: int | None, record: logging.LogRecord) -> None:
    formatter = logging.Formatter()
    message = guarding.hide(record.getMessage())
    if record.exc_info:
        message += "\n" + guarding.hide(formatter.formatException(record.exc_info))
    if record.stack_info:
        message += "\n" + formatter.formatStack(record.stack_info)
    text = message if len(message) <= LINE_LIMIT else message[:LINE_LIMIT] + " ... (cut)"
    journal.put_log(flow_run_id, task_run_id, record.levelno, record.name, utf8_text(text))


class _ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for the type checker
    """Shows lines on stderr as long as the program has not configured logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers and not getattr(record, "printed", False):  # print() shows its text itself
            self.stream = sys.stderr  # looked up anew: a test or notebook may have replaced it
            super().emit(record)


_installed = False


def install() -> None:
    """Attach our handlers to our loggers, once."""
    global _installed
    if _installed:
        return
    _installed = True
    root = logging.getLogger(ROOT)
    if root.level == logging.NOTSET:
        root.setLevel(_level())
    console = _ConsoleHandler()
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(console)
    handler = JournalHandler()
    for name in (FLOW_RUNS, TASK_RUNS):
        logging.getLogger(name).addHandler(handler)


def _level() -> int:
    text = os.environ.get(LEVEL_VARIABLE) or "INFO"
    level = int(text) if text.isdigit() else logging.getLevelName(text.upper())
    if not isinstance(level, int):
        raise UsageError(f"{LEVEL_VARIABLE}={text!r} is no level of logging. Set DEBUG, INFO, WARNING, ERROR or a number.")
    return level
