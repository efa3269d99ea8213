"""The clock of a simulated machine: it moves when somebody sleeps on it, or when it is set, and outlives its processes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from wfengine.testing.clock import VirtualClock

_FORM = struct.Struct("<dd")


class MachineClock(VirtualClock):
    """Wall and monotonic time in a file of some bytes, so that a process which is killed takes neither with it."""

    def __init__(self, path: Path, start: float) -> None:
        """`start`: what the wall shows where there is no such file yet."""
        super().__init__(start)
        self.on_sleep: Callable[[], object] = lambda: None
        is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if is_new:
            self._write()
        else:
            self._wall, self._monotonic = _FORM.unpack(os.pread(self._descriptor, _FORM.size, 0))

    def _write(self) -> None:
        os.pwrite(self._descriptor, _FORM.pack(self._wall, self._monotonic), 0)

    def _move(self, seconds: float) -> None:
        super()._move(seconds)
        self._write()

    def set_by(self, seconds: float) -> None:
        """Set the wall forward or back, as a person or a time server does."""
        with self._lock:
            self._wall += seconds
            self._write()

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.on_sleep()
