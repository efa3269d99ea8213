"""Variables and secrets. Of a secret everything but its value is shown, and its value is read nowhere here."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving
from wfengine.page.value_readings import secrets_json, variable_detail_json, variables_json

LIMIT = 100


def load_variables(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of variables, and the one that is to be changed."""
    text, edit = asked.text("text"), asked.text("edit")
    found = variables_json(connection, text=text or None, after=asked.text("after"), limit=LIMIT)
    return {
        **found, "text": text, "is_first": not asked.text("after"), "read_only": serving.read_only,
        "edited": variable_detail_json(connection, edit)["variable"] if edit else None,
        "command": serving.commands.shown(["variables", "set", "NAME", "JSON"]),
    }  # fmt: skip


def load_secrets(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of what may be said of secrets."""
    return {
        **secrets_json(connection, after=asked.text("after"), limit=LIMIT), "is_first": not asked.text("after"),
        "read_only": serving.read_only, "command": serving.commands.shown(["secrets", "set", "NAME"]),
    }  # fmt: skip


PAGES = (
    Page("variables", "/variables", "variables.html", load_variables, label="Variables", key="v"),
    Page("secrets", "/secrets", "secrets.html", load_secrets),
)
