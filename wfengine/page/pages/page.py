"""What a page is: where it stands, what it reads, and what it shows of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wfengine.page.serving import Serving
from wfengine.page.table import find
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


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `load` reads what its `.json` twin gives, on a thread; `view` adds what only the template needs."""

    name: str
    path: str  # as Starlette reads it; its twin has .json behind it
    template: str
    load: Callable[[sqlite3.Connection, Serving, Asked], Data]
    view: Callable[[Data], Data] = lambda data: {}
    label: str | None = None  # in the navigation
    key: str | None = None  # that goes there
    is_read: bool = True  # it needs a connection of the usual kind


def commands_of(serving: Serving, names: Iterable[str], values: Mapping[str, object]) -> dict[str, str]:
    """Return the commands of operations by name, each about what the values name: what a button shows."""
    found = {name: find(name).words(values) for name in names}
    return {name: serving.commands.shown(words) for name, words in found.items() if words is not None}
