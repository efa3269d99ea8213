"""What a request for a page, or for a part of one, asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wfengine_journal.errors import UsageError
from wfengine_journal.queries import MAX_ID

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a page: what stands in its path and its query."""

    path: Mapping[str, Any]
    query: Mapping[str, str]

    def text(self, name: str, otherwise: str = "") -> str:
        """Return a parameter of the query."""
        return self.query.get(name, otherwise)[:5000]

    def number(self, name: str, otherwise: int = 0) -> int:
        """Return a parameter of the query that is a number. Raises UsageError."""
        text = self.query.get(name, "")
        if not text:
            return otherwise
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise UsageError(f"{name} is a whole number, not {text[:50]!r}.")
        return int(text)

    def id(self, name: str) -> int:
        """Return a number of the path, such that SQLite can hold it."""
        return min(int(self.path[name]), MAX_ID - 1)
