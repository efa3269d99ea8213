"""Artifacts: what runs made for people to look at. Whatever one holds is shown as text, and nothing of it is ever markup."""

from __future__ import annotations

import sqlite3
from typing import Any

from wfengine.page.asked import Asked, Data
from wfengine.page.markdown import blocks
from wfengine.page.pages.page import Page
from wfengine.page.serving import Serving
from wfengine.page.value_readings import artifact_detail_json, artifacts_json
from wfengine_journal.errors import UsageError

LIMIT = 50
TYPES = ("markdown", "table", "link", "image", "progress")
#: Rows and columns of a table, and characters of a text, that are shown; the JSON twin holds all.
ROWS = 500
COLUMNS = 50
CHARACTERS = 200_000


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of artifacts."""
    key, kind, run_id = asked.text("key"), asked.text("type"), asked.number("run")
    if kind and kind not in TYPES:
        raise UsageError(f"A type is one of {', '.join(TYPES)}.")
    found = artifacts_json(
        connection, key=key or None, kind=kind or None, run_id=run_id or None, before=asked.number("before") or None,
        limit=LIMIT,
    )  # fmt: skip
    words = ["artifacts", "ls", *([f"--key={key}"] if key else []), *([f"--type={kind}"] if kind else [])]
    return {
        **found, "key": key, "type": kind, "run": run_id or None, "is_first": not asked.text("before"),
        "shown_with": serving.commands.shown([*words, *([f"--run={run_id}"] if run_id else [])]),
    }  # fmt: skip


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one artifact."""
    artifact_id = asked.id("artifact_id")
    shown_with = serving.commands.shown(["artifacts", "show", str(artifact_id)])
    return {**artifact_detail_json(connection, artifact_id), "shown_with": shown_with}


def view_list(data: Data) -> Data:
    """Add the types."""
    return {"types": TYPES}


def view(data: Data) -> Data:
    """Add what the artifact is made of."""
    found = data["artifact"]
    content, table = found["data"], None
    if found["type"] == "table":
        table = _table(content)
    text = content[:CHARACTERS] if isinstance(content, str) else None
    return {
        "blocks": blocks(text) if found["type"] == "markdown" and text is not None else [],
        "is_cut": (isinstance(content, str) and len(content) > CHARACTERS) or (table is not None and table[2]),
        "table": table, "percent": _percent(content) if found["type"] == "progress" else None,
    }  # fmt: skip


def _percent(content: object) -> float | None:
    return min(100.0, max(0.0, float(content))) if isinstance(content, int | float) else None


def _table(content: Any) -> tuple[list[str], list[list[object]], bool]:
    """Return columns, rows, and whether there are more, of a table in any of its forms: lists, or dicts, or a dict of lists."""
    if isinstance(content, dict):
        columns = [column if isinstance(column, list) else [column] for column in content.values()]
        height = max((len(column) for column in columns), default=0)
        rows = [[column[row] if row < len(column) else None for column in columns] for row in range(min(height, ROWS))]
        return _narrow(list(map(str, content)), rows, height)
    if not isinstance(content, list):
        return [], [], False
    shown = content[:ROWS]
    if shown and all(isinstance(row, dict) for row in shown):
        names = list(dict.fromkeys(name for row in shown for name in row))
        return _narrow(names, [[row.get(name) for name in names] for row in shown], len(content))
    lists = [row if isinstance(row, list) else [row] for row in shown]
    width = max((len(row) for row in lists), default=0)
    return _narrow([str(number) for number in range(width)], [row + [None] * (width - len(row)) for row in lists], len(content))


def _narrow(names: list[str], rows: list[list[object]], height: int) -> tuple[list[str], list[list[object]], bool]:
    return names[:COLUMNS], [row[:COLUMNS] for row in rows], height > ROWS or len(names) > COLUMNS


PAGES = (
    Page("artifacts", "/artifacts", "artifacts.html", load_list, view_list, label="Artifacts", key="i"),
    Page("artifact", "/artifacts/{artifact_id:int}", "artifact.html", load, view),
)
