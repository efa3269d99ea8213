"""The keys, as a page: what each does, and the address where it leads for who has no scripts."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving

#: Keys that are not those of pages: key, and what it does.
OTHERS = (
    ("/", "go to the search box"),
    ("p", "pause the live updates, or let them go on"),
    ("1 to 9", "on the page of a run: go to its parts, in their order"),
    ("j", "go to the next page of a list: older runs, later calls, further changes"),
    ("Ctrl+Enter", "send the form in whose text you are"),
    ("?", "show this"),
)


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Return the keys."""
    from wfengine.page.pages import PAGES

    pages = [{"key": page.key, "does": f"go to {page.label}", "path": page.path} for page in PAGES if page.label]
    return {"keys": [*pages, *({"key": key, "does": does, "path": None} for key, does in OTHERS)]}


PAGE = Page("keys", "/keys", "keys.html", load)
