"""Where log lines go: into the journal, and to stderr as long as the program has not configured logging itself.

What goes into the journal has bounds: characters of a line, and lines of a run. What is left out is said there.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from weakref import WeakKeyDictionary

from wfengine.scopes import ACTIVE, LiveRun, Scope, current_scope
from wfengine_journal import guarding
from wfengine_journal.errors import UsageError
from wfengine_journal.transitions import utf8_text

ROOT = "wfengine"
FLOW_RUNS = "wfengine.flow_runs"
TASK_RUNS = "wfengine.task_runs"
#: The logger of lines that say what was left out.
LIMIT_LOGGER = "wfengine.logging"
#: A longer log line is cut in the journal, in characters, unless the variable says otherwise.
LINE_LIMIT = 65_536
LINE_LIMIT_VARIABLE = "WFENGINE_LOGGING_LINE_LIMIT"
#: So many lines of one run are kept in the journal at the most, unless the variable says otherwise.
RUN_LIMIT = 100_000
RUN_LIMIT_VARIABLE = "WFENGINE_LOGGING_RUN_LIMIT"
#: The lowest level of what goes into the journal: a name or a number. Default: whatever the loggers let through.
JOURNAL_LEVEL_VARIABLE = "WFENGINE_LOGGING_JOURNAL_LEVEL"
#: Loggers of libraries, with commas between, whose lines go into the journal too, beside the run that is going on.
EXTRA_VARIABLE = "WFENGINE_LOGGING_EXTRA_LOGGERS"
#: How lines look on stderr, as long as the program has not configured logging itself: 'text' (default) or 'json'.
FORMAT_VARIABLE = "WFENGINE_LOGGING_FORMAT"
#: The level of our loggers where the program has set none: a name or a number. Default: INFO.
LEVEL_VARIABLE = "WFENGINE_LOGGING_LEVEL"


class JournalHandler(logging.Handler):
    """Writes a record into the journal, beside the run that its logger was made for; other records go nowhere.

    The line is committed with the next commit of the run, at the latest some tens of milliseconds later.
    """

    def __init__(self, level: int = logging.NOTSET, *, line_limit: int = LINE_LIMIT, run_limit: int = RUN_LIMIT) -> None:
        super().__init__(level)
        # The journal's own lines may come from who holds its lock, which a line of a run may have to wait for here.
        self.addFilter(lambda record: not record.name.startswith("wfengine.journal"))
        self._line_limit = line_limit
        self._run_limit = run_limit
        self._kept: WeakKeyDictionary[LiveRun, int] = WeakKeyDictionary()  # lines of each run, also those left out

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
            self._put(other, getattr(record, "task_run_id", None), record)
        elif scope is not None and scope.run.id:  # 0 while a function gives the run its name: nothing to stand beside yet
            self._put(scope.run, _task_run_id(record, scope), record)

    def _put(self, run: LiveRun, task_run_id: int | None, record: logging.LogRecord) -> None:
        left_out = self._count(run) - self._run_limit
        if left_out > 0:
            if (
                set(str(left_out)) <= {"1", "0"} and str(left_out).count("1") == 1
            ):  # at the first, and again at 10, 100, 1,000 ...
                run.journal.put_log(run.id, None, logging.WARNING, LIMIT_LOGGER, self._words(left_out))
            return
        text = message_of(record)
        if len(text) > self._line_limit:
            text = f"{text[: self._line_limit]} ... ({len(text) - self._line_limit:,} characters were left out)"
        run.journal.put_log(run.id, task_run_id, record.levelno, record.name, utf8_text(text))

    def _count(self, run: LiveRun) -> int:
        """Return the number of this line in its run. The handler's own lock is held."""
        kept = self._kept.get(run)
        if kept is None:  # in a first execution there are none yet
            kept = 0 if run.epoch == 1 else run.journal.records.count_logs(run.id)
        self._kept[run] = kept + 1
        return kept + 1

    def _words(self, left_out: int) -> str:
        return (
            f"{left_out:,} lines so far were left out: {self._run_limit:,} lines of a run are kept in the journal, unless "
            f"{RUN_LIMIT_VARIABLE} says otherwise"
        )


def _task_run_id(record: logging.LogRecord, scope: Scope) -> int | None:
    """Return whose line it is: a flow's logger used in a task still speaks for the flow."""
    if getattr(record, "flow_run_id", None) == scope.run.id:
        return getattr(record, "task_run_id", None) or None
    return scope.task_run_id or None


def _active_run(flow_run_id: object) -> LiveRun | None:
    """Return the run of that id, if this process executes it."""
    return next((run for (_, run_id), run in list(ACTIVE.items()) if run_id == flow_run_id), None)


def message_of(record: logging.LogRecord) -> str:
    """Return the text of a record, with its traceback and stack if it has them."""
    formatter = logging.Formatter()
    message = guarding.hide(record.getMessage())
    if record.exc_info:
        message += "\n" + guarding.hide(formatter.formatException(record.exc_info))
    if record.stack_info:
        message += "\n" + formatter.formatStack(record.stack_info)
    return message


class _ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for the type checker
    """Shows lines on stderr as long as the program has not configured logging itself."""

    def __init__(self, formatter: logging.Formatter, *, shows_prints: bool) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._shows_prints = shows_prints  # print() shows its text itself, but not as JSON

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if not logging.getLogger().handlers and (self._shows_prints or not getattr(record, "printed", False)):
            self.stream = sys.stderr  # looked up anew: a test or notebook may have replaced it
            super().emit(record)


_installed = False


def install() -> None:
    """Configure logging as the environment says, and attach our handlers to our loggers: once. Raises UsageError."""
    global _installed
    if _installed:
        return
    root = logging.getLogger(ROOT)
    handler = JournalHandler(
        _level(JOURNAL_LEVEL_VARIABLE, "NOTSET"),
        line_limit=_number(LINE_LIMIT_VARIABLE, LINE_LIMIT),
        run_limit=_number(RUN_LIMIT_VARIABLE, RUN_LIMIT),
    )
    console = _console()
    level = _level(LEVEL_VARIABLE, "INFO")
    configured = os.environ.get("WFENGINE_LOGGING_CONFIG")
    if configured:
        from wfengine.logging.configuration import configure  # loads tomllib, which a start without it has not to wait for

        configure(Path(configured))
    else:
        root.addHandler(console)
    if root.level == logging.NOTSET:
        root.setLevel(level)
    extra = (name.strip() for name in os.environ.get(EXTRA_VARIABLE, "").split(","))
    for name in (FLOW_RUNS, TASK_RUNS, *filter(None, extra)):
        logging.getLogger(name).addHandler(handler)
    _installed = True


def _console() -> _ConsoleHandler:
    wanted = os.environ.get(FORMAT_VARIABLE) or "text"
    if wanted == "json":
        from wfengine.logging.json_lines import (
            JsonFormatter,
        )  # loads json and more, which a start without it has not to wait for

        return _ConsoleHandler(JsonFormatter(), shows_prints=True)
    if wanted != "text":
        raise UsageError(f"{FORMAT_VARIABLE}={wanted!r} is no format of log lines. Set text or json.")
    return _ConsoleHandler(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"), shows_prints=False)


def _level(variable: str, default: str) -> int:
    text = os.environ.get(variable) or default
    level = int(text) if text.isdecimal() else logging.getLevelName(text.upper())
    if not isinstance(level, int):
        raise UsageError(f"{variable}={text!r} is no level of logging. Set DEBUG, INFO, WARNING, ERROR or a number.")
    return level


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or len(text) > 12:
        raise UsageError(f"{variable}={text!r} is no number from 0 on. Set one, or leave it out for {default:,}.")
    return int(text)
