"""Being told by the operating system when a file is written, where it does that: on Linux, through inotify.

It tells of what any process of this machine writes, the moment it is written; not of what is written into mapped memory,
nor of other machines. So it says when to look, and is never a proof that nothing happened. Python's library has no module
for inotify; ctypes, which calls it, is imported by the first who asks, for the sake of all who never do.

What macOS has for this needs the file opened, and closing that descriptor would drop the locks that SQLite has on the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

#: What is watched for, of <sys/inotify.h>: the content was changed. That a file is gone is told without being asked for.
_IN_MODIFY = 0x00000002
#: Bytes of events that are taken at once. Equal events that follow each other are one, so there are seldom two (of 16 bytes).
_READ_BYTES = 4096


class FileEvents:
    """Waits for writes to the file at one path. Holds two descriptors; none of them opens the file.

    One thread waits, and closes; others may only `wake` it.
    """

    def __init__(self, path: Path) -> None:
        """Raise OSError, ImportError or AttributeError where this cannot be had."""
        if sys.platform != "linux":  # elsewhere the flags below mean something else
            raise OSError("There is no inotify.")
        import ctypes
        import select

        library = ctypes.CDLL(None, use_errno=True)
        self._add_watch = library.inotify_add_watch
        self._path = os.fsencode(path)
        self._wakes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._events = int(library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._events < 0:
            os.close(self._wakes)
            raise OSError(ctypes.get_errno(), "There is no inotify instance left.")
        self._poll = select.poll()
        self._poll.register(self._wakes, select.POLLIN)
        self._poll.register(self._events, select.POLLIN)

    def follow(self) -> bool:
        """Watch the file that stands at the path now, if it is not watched yet; tell whether it is."""
        return int(self._add_watch(self._events, self._path, _IN_MODIFY)) >= 0

    def wait(self, seconds: float) -> bool:
        """Wait until the file is written or gone, or somebody wakes us, at most so long; tell whether it was the file.

        What was written since the last wait is told at once.
        """
        self._poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wakes)
        try:
            return bool(os.read(self._events, _READ_BYTES))
        except BlockingIOError:
            return False

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        os.eventfd_write(self._wakes, 1)

    def close(self) -> None:
        """Give the descriptors back: takes the system some milliseconds, in which other threads run."""
        os.close(self._wakes)
        os.close(self._events)


def open_events(path: Path) -> FileEvents | None:
    """Return what waits for writes to a file, or None where the system does not tell, or has no more to give."""
    try:
        return FileEvents(path)
    except (OSError, ImportError, AttributeError):
        return None
