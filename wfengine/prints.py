"""`log_prints`: what a flow or task prints is a line of its log as well. Plain prints pay for it only where it is used."""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable

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
    if scope is None or options.get("file") not in (None, sys.stdout, sys.stderr):
        return
    wanted = scope.call.callee.log_prints if scope.call is not None else None
    busy = getattr(_thread, "busy", False)  # a log handler of the user's prints
    if (scope.run.log_prints if wanted is None else wanted) and not busy:
        _thread.busy = True
        try:
            separator = options.get("sep")
            log_printed((" " if separator is None else str(separator)).join(str(value) for value in values))
        finally:
            _thread.busy = False


def log_printed(text: str) -> None:
    """Log what the present run printed, as `get_run_logger` would."""
    from wfengine.logging.loggers import get_run_logger  # lazily: only who uses log_prints needs it

    get_run_logger().info("%s", text, extra={"printed": True}, stacklevel=3)
