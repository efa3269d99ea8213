"""`LockManager`: the base of what `CachePolicy.configure(lock_manager=...)` takes."""

from __future__ import annotations


class LockManager:
    """Stands for the lock that `isolation_level=SERIALIZABLE` takes on a cache key.

    That is always the journal's own: a row, held by the process that computes the key, seen by all threads and processes
    that use the file, and void at once when that process dies. There is nothing to configure and nothing to clean up, so
    a lock manager is accepted for the sake of code that names one, and changes nothing.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))
