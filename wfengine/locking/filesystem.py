"""`FileSystemLockManager`."""

from __future__ import annotations

import os
from pathlib import Path

from wfengine.locking.protocol import LockManager


class FileSystemLockManager(LockManager):
    """Means the journal's own lock, see LockManager. No lock files are written into the folder."""

    def __init__(self, lock_files_directory: str | os.PathLike[str]) -> None:
        self.lock_files_directory = Path(lock_files_directory)
