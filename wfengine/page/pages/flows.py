"""The flows, with how their newest runs ended."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.flow_readings import flows_json
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read the flows."""
    return flows_json(connection)


PAGE = Page("flows", "/flows", "flows.html", load, label="Flows", key="f")
