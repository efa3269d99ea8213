"""Events: as they happen, by name, resource and run; and one with the automations that fired because of it."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving
from wfengine.page.value_readings import event_detail_json, events_json, watched_json

LIMIT = 100


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of events."""
    name, resource, run_id = asked.text("name"), asked.text("resource"), asked.number("run")
    found = events_json(
        connection, name=name or None, resource=resource or None, run_id=run_id or None,
        before=asked.number("before") or None, limit=LIMIT,
    )  # fmt: skip
    words = ["events", "ls", *([f"--name={name}"] if name else []), *([f"--resource={resource}"] if resource else [])]
    return {
        **found, "pattern": name, "resource": resource, "run": run_id or None, "watched": watched_json(connection),
        "is_first": not asked.text("before"), "read_only": serving.read_only,
        "shown_with": serving.commands.shown([*words, *([f"--run={run_id}"] if run_id else [])]),
    }  # fmt: skip


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one event."""
    event_id = asked.id("event_id")
    shown_with = serving.commands.shown(["events", "show", str(event_id)])
    return {**event_detail_json(connection, event_id), "shown_with": shown_with}


# The stream of changes, which every page listens to, is at /events.
PAGES = (
    Page("events", "/events/all", "events.html", load_list, label="Events", key="e"),
    Page("event", "/events/{event_id:int}", "event.html", load),
)
