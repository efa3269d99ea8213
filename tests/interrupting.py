"""Ctrl-C for the long programmes: they judge what they began, print their line of summary, and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_asked = threading.Event()


def end_early_on_interrupt() -> None:
    """Let Ctrl-C, or SIGINT, end the programme after what it is at; a second one ends it at once."""

    def ask(number: int, frame: object) -> None:
        _asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)


def is_interrupted() -> bool:
    """Tell whether the programme was asked to end."""
    return _asked.is_set()


def until_interrupted(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, no more of them once the programme was asked to end."""
    for item in items:
        if _asked.is_set():
            return
        yield item
