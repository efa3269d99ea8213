"""Threads start here and nowhere else: named, and daemons, so that none keeps a process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a named daemon thread. Whoever starts it also ends it, with a bounded wait."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
