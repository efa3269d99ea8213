"""The second witness: a file to which tasks and flows append what they did, one line at a time, beside the journal.

    start PID     a process began
    run CALL      user code of that call ran to its end (its outcome may not be recorded yet)
    fail CALL     user code of that call is about to raise
    ack CALL      the flow was given the outcome of that call: it must never run again

A line is one O_APPEND write, so it survives SIGKILL and the order of lines is the order of events over all processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, TypeVar

#: Where a child finds the file.
VARIABLE = "WFENGINE_CRASH_EFFECTS"

T = TypeVar("T")


class Effect(NamedTuple):
    """One line of the file."""

    kind: str
    call: str


def append(kind: str, call: str) -> None:
    """Write one line of the running process."""
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{kind} {call}\n".encode())
    finally:
        os.close(descriptor)


def acknowledged(call: str, value: T) -> T:
    """Note that the flow was given this value; return it."""
    append("ack", call)
    return value


def has_happened(kind: str, call: str) -> bool:
    """Tell whether that line was written already, by any process of this case."""
    return Effect(kind, call) in read(Path(os.environ[VARIABLE]))


def read(path: Path) -> list[Effect]:
    """Return all lines of a file, in order; none if there is no file."""
    if not path.exists():
        return []
    return [Effect(*line.split(" ", 1)) for line in path.read_text(encoding="utf-8").splitlines()]
