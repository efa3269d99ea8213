"""Bring the newest commits of a quiet process to the disk, without a transaction of their own.

In durability "process" a commit is synced once a second *with the commits that follow*; when none follows, this is how the
last ones come to the disk. Only the log is opened here, never the journal itself nor the shared memory: SQLite holds its
locks on those two, and closing any descriptor of theirs would drop them.
"""

from __future__ import annotations

import os
from pathlib import Path

from wfengine_journal.errors import JournalUnwritableError

#: Opens without a new inode or a change of content; a sync needs a writable descriptor on some systems.
_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: Syncs content and length, which is all that SQLite needs of a log; not every system has it.
_sync = getattr(os, "fdatasync", os.fsync)


def sync_log(path: Path) -> None:
    """Return once all that was written to a journal's log is on the disk. A log that is not there was folded in, and synced.

    Raises JournalUnwritableError: from then on nobody knows which of the unsynced pages the system has kept, so that nothing
    that is written after them may count as safe.
    """
    try:
        descriptor = os.open(f"{path}-wal", _FLAGS)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(path, error) from error
    try:
        _sync(descriptor)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> JournalUnwritableError:
    return JournalUnwritableError(
        f"The disk failed under the journal {path}: what was written last could not be synced ({error.strerror}). "
        "It is in the file, and may be gone after a power cut. Check the disk, then run: wfengine resume --all"
    )
