"""Signals that stop what a process serves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

#: The signals that are handled here now.
_handled: frozenset[int] = frozenset()


@contextlib.contextmanager
def handling(numbers: Iterable[int], handle: Callable[[int], None]) -> Iterator[None]:
    """Let signals call `handle` with their number; on another thread than the main one nothing is changed.

    A child that user code forks ends by them, as it would elsewhere: nobody there asks whether one came.
    """
    global _handled
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handled
    previous = {number: signal.signal(number, lambda number, _: handle(number)) for number in numbers}
    _handled = before | previous.keys()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _handled = before


def _end_by_signals_in_child() -> None:
    global _handled
    for number in _handled:
        signal.signal(number, signal.SIG_DFL)
    _handled = frozenset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_by_signals_in_child)
