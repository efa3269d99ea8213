"""SQL, read-only: whatever the other pages do not show."""

from __future__ import annotations

import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.reading_operations import SQL_ROWS, SQL_SECONDS, ask_sql
from wfengine.page.saved import QUERIES, offer
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import list_saved_questions


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Run the statement, on a connection that can do nothing but read."""
    query = asked.query.get("q", "").replace("\r\n", "\n")  # as a form sends the ends of lines
    data: Data = {"statement": query, "wrong": None, "columns": [], "rows": [], "is_cut": False}
    if query.strip():
        try:
            data |= ask_sql(serving, query)
        except UsageError as error:
            data["wrong"] = str(error)
    data["views"] = [{"name": name, "shows": shows, "try": query} for name, shows, query in list_saved_questions(connection)]
    data["command"] = serving.commands.shown(["sql", query]) if query.strip() else None
    return data | offer(connection, serving, QUERIES, query)


def view(data: Data) -> Data:
    """Add the limits."""
    return {"limit_rows": SQL_ROWS, "limit_seconds": SQL_SECONDS}


PAGE = Page("sql", "/sql", "sql.html", load, view, label="SQL", key="s")
