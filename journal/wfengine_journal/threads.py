"""Threads start here and nowhere else: named, and daemons, so that none keeps a process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wfengine_journal.errors import JournalUnwritableError


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a named daemon thread. Whoever starts it also ends it, with a bounded wait.

    Raises JournalUnwritableError when the system has no more threads, as for any other fault of the machine: what calls this
    must not be left as if the thread ran.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise JournalUnwritableError(
            f"The system gives this process no more threads or memory ({error or type(error).__name__}), and {name} needs one. "
            "Nothing recorded is lost. See its limits (ulimit -a) and what else runs there, then run: wfengine resume --all"
        ) from error
    return thread
