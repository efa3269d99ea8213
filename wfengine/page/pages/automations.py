"""Automations: the list of them; and one with its trigger, what it did, and a try of it in which nothing is done."""

from __future__ import annotations

import sqlite3
from typing import Any

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page, commands_of
from wfengine.page.rendering import json_text
from wfengine.page.serving import Serving
from wfengine.page.value_readings import automation_detail_json, automations_json, firings_json
from wfengine_journal.errors import NotFoundError

LIMIT = 50
_BUTTONS = ("automations.pause", "automations.resume", "automations.delete", "automations.test")


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read the automations."""
    return {**automations_json(connection), "read_only": serving.read_only}


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one automation, and a page of its firings."""
    automation_id = asked.id("automation_id")
    data = automation_detail_json(connection, str(automation_id))
    if data["automation"]["id"] != automation_id:  # another one, whose name is this number
        raise NotFoundError(f"There is no automation with the id {automation_id}. See them with: wfengine automations ls")
    found = firings_json(connection, automation_id, before=asked.number("before") or None, limit=LIMIT)
    name = data["automation"]["name"]
    return {
        **data, **found, "is_first": not asked.text("before"), "read_only": serving.read_only,
        "commands": commands_of(serving, _BUTTONS, {"name": name}),
        "shown_with": serving.commands.shown(["automations", "show", "--", name]),
    }  # fmt: skip


def view(data: Data) -> Data:
    """Add an event to begin with."""
    return {"example": json_text({"name": _expected(data["automation"]["trigger"]), "payload": {}})}


def _expected(trigger: Any) -> str:
    """Return the name of an event that a trigger waits for."""
    for _ in range(20):
        if not isinstance(trigger, dict):
            break
        names = trigger.get("expect")
        if isinstance(names, list) and names:
            return str(names[0]).replace("*", "x")
        inner = trigger.get("triggers")
        trigger = inner[0] if isinstance(inner, list) and inner else None
    return "order.placed"


PAGES = (
    Page("automations", "/automations", "automations.html", load_list, label="Automations", key="a"),
    Page("automation", "/automations/{automation_id:int}", "automation.html", load, view),
)
