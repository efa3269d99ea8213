"""What a page is: where it stands, what it reads, and what it shows of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wfengine.page.asked import Asked, Data
from wfengine.page.serving import Serving
from wfengine.page.table import find


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


def commands_of(serving: Serving, names: Iterable[str], values: Mapping[str, object]) -> dict[str, str]:
    """Return the commands of operations by name, each about what the values name: what a button shows."""
    found = {name: find(name).words(values) for name in names}
    return {name: serving.commands.shown(words) for name, words in found.items() if words is not None}
