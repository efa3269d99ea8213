"""All flows on one axis of time: runs that were, and instants that are due."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.flow_chart import axis
from wfengine.page.flow_readings import LANES, timeline_json
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving

#: Since when, as is offered.
SPANS = ("1h", "24h", "7d", "30d")


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read what was and what is due."""
    return timeline_json(connection, asked.text("since", "24h"), asked.text("ahead"))


def view(data: Data) -> Data:
    """Add the drawing."""
    return {"spans": SPANS, "axis": axis(data, LANES)}


PAGE = Page("timeline", "/timeline", "timeline.html", load, view, label="Timeline", key="t")
