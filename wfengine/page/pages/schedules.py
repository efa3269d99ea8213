"""Schedules: the list of them, one with every instant at which it was due, and a calendar of one or of all."""

from __future__ import annotations

import sqlite3
from datetime import date

from wfengine.page.asked import Asked, Data
from wfengine.page.deployment_readings import (
    OUTCOMES,
    calendar_json,
    schedule_detail_json,
    schedules_json,
    ticks_json,
)
from wfengine.page.pages.page import Page, commands_of
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_lists import get_schedule

LIMIT = 50
TICKS = 100
#: The sign of an outcome beside its colour, which is never the only one; and the colour, as of a state.
MARKS = {"started": "✓", "skipped": "⊘", "coalesced": "≈", "missed": "✗"}
COLOURS = {"started": "completed", "skipped": "paused", "coalesced": "paused", "missed": "failed"}
_BUTTONS = ("schedules.pause", "schedules.resume", "schedules.trigger")


def load_list(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a page of schedules."""
    text = asked.text("text")
    found = schedules_json(connection, text=text or None, after=(asked.text("after"), asked.number("after_id")), limit=LIMIT)
    return {**found, "text": text, "is_first": not asked.text("after"), "read_only": serving.read_only}


def load(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read one schedule, and a page of what became of it."""
    schedule_id, outcome = asked.id("schedule_id"), asked.text("outcome")
    if outcome and outcome not in OUTCOMES:
        raise UsageError(f"An outcome is one of {', '.join(OUTCOMES)}.")
    data = schedule_detail_json(connection, schedule_id)
    found = ticks_json(
        connection, schedule_id, before=asked.text("before") or None, outcome=outcome or None, limit=TICKS
    )  # fmt: skip
    return {
        **data, **found, "outcome": outcome, "is_first": not asked.text("before"), "read_only": serving.read_only,
        "commands": {
            **commands_of(serving, _BUTTONS, {"schedule_id": schedule_id}),
            "schedules.backfill": serving.commands.shown(
                ["schedules", "backfill", "--from=INSTANT", "--to=INSTANT", str(schedule_id)]
            ),
        },
        "shown_with": serving.commands.shown(["schedules", "show", str(schedule_id)]),
    }  # fmt: skip


def load_calendar(connection: sqlite3.Connection, serving: Serving, asked: Asked) -> Data:
    """Read a month: of one schedule, or of all."""
    schedule_id = asked.number("schedule") or None
    data = calendar_json(connection, schedule_id, month=asked.text("month"), timezone=asked.text("zone") or None)
    deployment = None if schedule_id is None else get_schedule(connection, schedule_id).schedule.deployment
    return {
        **data, "schedule_id": schedule_id, "deployment": deployment, "zone": asked.text("zone"),
        "shown_with": serving.commands.shown(["schedules", "calendar", *([] if schedule_id is None else [str(schedule_id)])]),
    }  # fmt: skip


def view(data: Data) -> Data:
    """Add signs and colours."""
    return {"marks": MARKS, "colours": COLOURS, "outcomes": OUTCOMES}


def view_calendar(data: Data) -> Data:
    """Add the weeks: seven days each, None for those of other months."""
    days = data["days"]
    first = date.fromisoformat(days[0]["date"]).weekday()
    cells = [None] * first + days
    cells += [None] * (-len(cells) % 7)
    return {**view(data), "weeks": [cells[place : place + 7] for place in range(0, len(cells), 7)]}


PAGES = (
    Page("schedules", "/schedules", "schedules.html", load_list, view, label="Schedules", key="c"),
    Page("calendar", "/schedules/calendar", "calendar.html", load_calendar, view_calendar),
    Page("schedule", "/schedules/{schedule_id:int}", "schedule.html", load, view),
)
