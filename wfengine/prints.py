"""`log_prints`: what a flow or task prints is a line of its log as well. Plain prints pay for it only where it is used."""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping

from wfengine.scopes import current_scope

#: Turns log_prints on for all flows that do not say themselves: 1 or true.
ENVIRONMENT_VARIABLE = "WFENGINE_LOGGING_LOG_PRINTS"

_plain_print: Callable[..., None] | None = None
_thread = threading.local()


def wants_prints(own: bool | None, outer: bool | None) -> bool:
    """Tell whether a run's prints are logged: as its flow says, else as the run that called it, else the environment."""
    if own is not None:
        return own
    return outer if outer is not None else os.environ.get(ENVIRONMENT_VARIABLE, "").lower() in ("1", "true")


def record_prints() -> None:
    """From now on, what a run with log_prints prints is logged as well. Installed at the first such run."""
    global _plain_print
    if _plain_print is None:
        _plain_print = builtins.print
        builtins.print = _print


def _print(*values: object, **options: object) -> None:
    assert _plain_print is not None
    _plain_print(*values, **options)
    scope = current_scope()
    if scope is None or not is_shown(options):
        return
    wanted = scope.call.callee.log_prints if scope.call is not None else None
    busy = getattr(_thread, "busy", False)  # a log handler of the user's prints
    if (scope.run.log_prints if wanted is None else wanted) and not busy:
        _thread.busy = True
        try:
            log_printed(printed_text(values, options))
        finally:
            _thread.busy = False


def is_shown(options: Mapping[str, object]) -> bool:
    """Tell by the options of a print whether it goes to the program's output, and not into a file."""
    return options.get("file") in (None, sys.stdout, sys.stderr)


def printed_text(values: Iterable[object], options: Mapping[str, object]) -> str:
    """Return the line of the log for what is printed."""
    separator = options.get("sep")
    return (" " if separator is None else str(separator)).join(str(value) for value in values)


def log_printed(text: str) -> None:
    """Log what the present run printed, as `get_run_logger` would."""
    from wfengine.logging.loggers import get_run_logger  # lazily: only who uses log_prints needs it

    get_run_logger().info("%s", text, extra={"printed": True}, stacklevel=3)
