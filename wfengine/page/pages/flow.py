"""One flow: its newest runs by what they called, how long they took, and its parameters."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.flow_chart import trend
from wfengine.page.flow_readings import flow_json
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a flow."""
    return flow_json(connection, asked.text("name"))


def view(data: Data) -> Data:
    """Add the drawing, and the cells by run and task."""
    return {
        "trend": trend(data["runs"]),
        "grid": {(cell["run_id"], cell["task"]): cell for cell in data["cells"]},
        "schemas": [(each["name"], _fields(each["parameter_schema"])) for each in data["deployments"]],
    }


def _fields(schema: object) -> list[tuple[str, object, bool, object]]:
    """Return name, what it is, whether it has to be given, and its default, of each parameter of a schema."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return []
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    return [
        (str(name), part.get("type", part) if isinstance(part, dict) else part, name in needed, _default(part))
        for name, part in schema["properties"].items()
    ]


def _default(part: object) -> object:
    return part.get("default") if isinstance(part, dict) else None


PAGE = Page("flow", "/flow", "flow.html", load, view)
