"""Deployments: the list of them, and one with its runs, its schedules, its settings, and the form in which a run is started."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

from wfengine.page.asked import Asked, Data
from wfengine.page.deployment_readings import deployment_detail_json, deployment_runs_json, deployments_json
from wfengine.page.forms import fields_of
from wfengine.page.pages.page import Page, commands_of
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import list_beating_daemons

LIMIT = 50
PARTS = ("runs", "start", "schedules", "settings")
_BUTTONS = ("deployments.pause", "deployments.resume", "deployments.delete", "deployments.run")
#: Settings in the order in which they are shown.
_SETTINGS = (
    "description", "tags", "version", "entrypoint", "source", "queue", "priority", "concurrency_limit", "collision", "isolate",
    "memory_limit_bytes", "time_limit_seconds", "max_recoveries", "applied_from", "created_at", "updated_at",
)  # fmt: skip


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of deployments."""
    text = asked.text("text")
    found = deployments_json(connection, text=text or None, after=asked.text("after"), limit=LIMIT)
    return {
        **found, "text": text, "is_first": not asked.text("after"), "read_only": serving.read_only,
        "commands": commands_of(serving, ("deployments.check",), {}),
    }  # fmt: skip


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one deployment, and the part of it that is shown."""
    part = asked.text("show", "runs")
    if part not in PARTS:
        raise UsageError(f"A deployment has the parts {', '.join(PARTS)}.")
    return load_part(connection, serving, asked.id("deployment_id"), part, asked.number("before") or None)


def load_part(
    connection: sqlite3.Connection, serving: Serving, deployment_id: int, part: str, before: int | None = None
) -> Data:  # fmt: skip
    """Read one deployment with a part of it."""
    data = deployment_detail_json(connection, deployment_id)
    found = data["deployment"]
    names = {"flow": found["flow"], "deployment": found["name"]}
    runs = deployment_runs_json(connection, deployment_id, before=before, limit=LIMIT) if part == "runs" else {}
    return {
        **data, **runs, "show": part, "is_first": before is None, "read_only": serving.read_only, "names": names,
        "commands": commands_of(serving, _BUTTONS, names),
        "next_at": min((each["upcoming_at"] for each in data["schedules"] if each["upcoming_at"]), default=None),
        "is_served": bool(list_beating_daemons(connection)),
        "shown_with": serving.commands.shown(["deployments", "show", "--", found["full_name"]]),
    }  # fmt: skip


def view(data: Data) -> Data:
    """Add the form, and what the settings are called."""
    return view_form(data, {}, {})


def view_form(
    data: Data, typed: dict[str, str], problems: dict[str, str], problem: str | None = None, rest: dict[str, str] | None = None
) -> Data:
    """Add the form with what was typed in it, and why it was not taken. `rest`: what was typed beside the parameters."""
    found = data["deployment"]
    schema: Any = found["parameter_schema"]
    own = found["parameters"] if isinstance(found["parameters"], dict) else {}
    fields = fields_of(schema, own, typed, problems) if isinstance(schema, dict) else []
    settings = [(name.replace("_", " "), found[name]) for name in _SETTINGS if found[name] not in (None, "", [], False)]
    given = {"run_name": "", "tags": "", "at": "", "json": "", "idempotency_key": "", **(rest or {})}
    given["idempotency_key"] = given["idempotency_key"] or secrets.token_urlsafe(12)
    return {"part_names": PARTS, "fields": fields, "problem": problem, "settings": settings, "given": given}


PAGES = (
    Page(
        "deployments", "/deployments", "deployments.html", load_list, lambda data: {}, label="Deployments", key="d"
    ),
    Page("deployment", "/deployments/{deployment_id:int}", "deployment.html", load, view),
)  # fmt: skip
