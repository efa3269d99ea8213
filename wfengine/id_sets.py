"""A set of row ids that stays small where they are dense: one bit each."""

from __future__ import annotations

#: Ids that share one integer.
_SHARE = 1024


class IdSet:
    """Row ids, as bits of integers."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[int, int] = {}

    def __contains__(self, row_id: int) -> bool:
        part, bit = divmod(row_id, _SHARE)
        return bool(self._parts.get(part, 0) >> bit & 1)

    def add(self, row_id: int) -> None:
        """Put an id in."""
        part, bit = divmod(row_id, _SHARE)
        self._parts[part] = self._parts.get(part, 0) | 1 << bit

    def discard(self, row_id: int) -> None:
        """Take an id out, if it is in."""
        part, bit = divmod(row_id, _SHARE)
        self._parts[part] = self._parts.get(part, 0) & ~(1 << bit)
