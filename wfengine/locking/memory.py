"""`MemoryLockManager`."""

from __future__ import annotations

from wfengine.locking.protocol import LockManager


class MemoryLockManager(LockManager):
    """Means the journal's own lock, see LockManager: it holds between processes as well."""
