"""What `wfengine doctor` finds in the journal, and the command that mends each finding."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving
from wfengine.page.value_readings import doctor_json


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Look at the journal."""
    return {**doctor_json(connection, serving), "shown_with": serving.commands.shown(["doctor"])}


def view(data: Data) -> Data:
    """Add signs and colours."""
    return {
        "marks": {"ok": "✓", "note": "○", "warning": "!", "damage": "✗"},
        "colours": {"ok": "completed", "note": "pending", "warning": "paused", "damage": "failed"},
    }


PAGES = (Page("doctor", "/doctor", "doctor.html", load, view, label="Doctor", key="x"),)
