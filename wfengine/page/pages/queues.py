"""Queues and limits: what there is of both, and of each one who holds it and who waits."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page, commands_of
from wfengine.page.serving import Serving
from wfengine.page.value_readings import HOLDERS, LISTED, limit_detail_json, limits_json, queue_detail_json, queues_json

_BUTTONS = ("queues.pause", "queues.resume", "queues.delete", "queues.set")


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read the queues and the limits."""
    return {**queues_json(connection), **limits_json(connection), "read_only": serving.read_only}


def load_queue(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one queue."""
    name = asked.text("name")
    data = queue_detail_json(connection, name)
    return {**data, "commands": commands_of(serving, _BUTTONS, {"name": name}), "read_only": serving.read_only}


def load_limit(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one limit."""
    name, tag = asked.text("name"), asked.text("tag") == "true"
    data = limit_detail_json(connection, name, tag=tag)
    commands = commands_of(serving, ("limits.set", "limits.delete"), {"name": name, "tag": tag})
    return {**data, "commands": commands, "read_only": serving.read_only}


def view(data: Data) -> Data:
    """Add how many are shown."""
    return {"most": HOLDERS, "listed": LISTED}


PAGES = (
    Page("queues", "/queues", "queues.html", load_list, view, label="Queues", key="q"),
    Page("queue", "/queues/one", "queue.html", load_queue, view),
    Page("limit", "/limits/one", "limit.html", load_limit, view),
)
