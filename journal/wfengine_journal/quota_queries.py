"""Limits and queues as people see them: reads of the views, and who holds or waits for places."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from wfengine_journal.places import list_places


class LimitView(NamedTuple):
    """A row of view limits; `name` begins with 'tag:' for the limit of a tag. `taken` is as far as the file knows."""

    name: str
    slots: int | None
    rate_count: int | None
    rate_seconds: float | None
    taken: int
    paused: int
    description: str | None
    created_at: str
    updated_at: str


class QueueView(NamedTuple):
    """A row of view queues."""

    name: str
    paused: int
    slots: int | None
    partition_slots: int | None
    rate_count: int | None
    rate_seconds: float | None
    waiting: int
    running: int
    description: str | None


class PlaceView(NamedTuple):
    """Who holds places of a limit, or waits for some (`occupies` 0)."""

    owner_id: int
    pid: int | None
    flow_run_id: int
    flow_run_name: str | None
    task_run_id: int
    occupies: int
    since: str


def list_limit_views(connection: sqlite3.Connection, *, name: str | None = None, limit: int = 1000) -> list[LimitView]:
    """Return the limits, by name; or the one of that name."""
    rows = connection.execute(
        "SELECT name, slots, rate_count, rate_seconds, taken, paused, description, created_at, updated_at FROM limits"
        " WHERE ? IS NULL OR name = ? ORDER BY name LIMIT ?",
        (name, name, limit),
    ).fetchall()
    return [LimitView._make(row) for row in rows]


def list_queue_views(connection: sqlite3.Connection, *, name: str | None = None, limit: int = 1000) -> list[QueueView]:
    """Return the queues, by name: those that have limits, deployments, or runs that wait; or the one of that name."""
    rows = connection.execute(
        "SELECT name, paused, slots, partition_slots, rate_count, rate_seconds, waiting, running, description FROM queues"
        " WHERE ? IS NULL OR name = ? ORDER BY name LIMIT ?",
        (name, name, limit),
    ).fetchall()
    return [QueueView._make(row) for row in rows]


def list_place_views(connection: sqlite3.Connection, name: str) -> list[PlaceView]:
    """Return who holds or waits for places of a name, in the order in which they came."""
    found = []
    for place in list_places(connection, name):
        owner = connection.execute("SELECT pid FROM owner WHERE id = ?", (place.owner_id,)).fetchone()
        run = connection.execute("SELECT name FROM flow_run WHERE id = ?", (place.flow_run_id,)).fetchone()
        found.append(
            PlaceView(
                place.owner_id,
                owner and owner[0],
                place.flow_run_id,
                run and run[0],
                place.task_run_id,
                place.occupies,
                place.taken_at,
            )
        )
    return found
