"""One task run: what it was given and gave, each attempt, and why it ran or did not."""

from __future__ import annotations

import logging
import sqlite3

from wfengine.page.asked import Asked, Data
from wfengine.page.pages.page import Page
from wfengine.page.readings import task_detail_json
from wfengine.page.serving import Serving


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a task run."""
    data = task_detail_json(connection, asked.id("task_run_id"))
    run_id, task_run_id = data["run"]["id"], data["task"]["id"]
    rerun = serving.commands.shown(["resume", f"--rerun={task_run_id}", str(run_id)])
    return {**data, "rerun_with": rerun, "read_only": serving.read_only}


def view(data: Data) -> Data:
    """Add names."""
    return {"level_name": lambda number: logging.getLevelName(number).lower()}


PAGE = Page("task_run", "/tasks/{task_run_id:int}", "task_run.html", load, view)
