"""Deployments and their schedules, as records. What makes runs of them is not here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple


class ScheduleColumns(NamedTuple):
    """One schedule, as table `schedule` has it; column meanings are in sql/format_2.sql."""

    kind: str
    rule: str
    anchor_at: str | None  # null of an interval: keep what it is counted from, else the present instant
    timezone: str
    day_or: bool
    parameters: str
    slug: str
    active: bool


class DeploymentColumns(NamedTuple):
    """What an author says of a deployment; column meanings are in sql/format_2.sql."""

    name: str
    entrypoint: str | None
    version: str | None
    description: str | None
    parameters: str
    tags: str | None


class DeploymentRow(NamedTuple):
    """One deployment, as view `deployments` shows it."""

    id: int
    name: str
    flow: str
    full_name: str
    tags: str | None
    schedule: str | None
    active: int
    parameters: str
    version: str | None
    description: str | None
    entrypoint: str | None
    created_at: str
    updated_at: str


class PutDeployment:
    """Make the record of a deployment what its author says, schedules included; sets `id` and `outcome`.

    A schedule that stays keeps its row, and an interval without an anchor what it is counted from. `paused` null: as it is.
    """

    __slots__ = ("at", "columns", "flow_id", "id", "outcome", "paused", "schedules")

    def __init__(
        self, flow_id: int, columns: DeploymentColumns, schedules: Sequence[ScheduleColumns], *, paused: bool | None, at: str
    ) -> None:
        self.flow_id = flow_id
        self.columns = columns
        self.schedules = schedules
        self.paused = paused
        self.at = at
        self.id = 0
        self.outcome = "unchanged"  # or 'created', 'updated'

    def apply(self, connection: sqlite3.Connection) -> None:
        self.outcome = "unchanged"
        before = connection.execute(
            "SELECT id, name, entrypoint, version, description, parameters, tags, paused FROM deployment"
            " WHERE flow_id = ? AND name = ?",
            (self.flow_id, self.columns.name),
        ).fetchone()
        paused = before[7] if self.paused is None and before else int(bool(self.paused))
        if before is None:
            self._insert(connection, paused)
        else:
            self.id = int(before[0])
        changed = self._put_schedules(connection)
        if before is not None and (changed or tuple(before[1:]) != (*self.columns, paused)):
            self._update(connection, paused)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT updated_at FROM deployment WHERE id = ?", (self.id,)).fetchone()
        return row is not None and (self.outcome == "unchanged" or row[0] == self.at)

    def _insert(self, connection: sqlite3.Connection, paused: int) -> None:
        cursor = connection.execute(
            "INSERT INTO deployment (flow_id, name, entrypoint, version, description, parameters, tags, paused, created_at,"
            " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.flow_id, *self.columns, paused, self.at, self.at),
        )
        self.id = int(cursor.lastrowid or 0)
        self.outcome = "created"

    def _update(self, connection: sqlite3.Connection, paused: int) -> None:
        connection.execute(
            "UPDATE deployment SET entrypoint = ?, version = ?, description = ?, parameters = ?, tags = ?, paused = ?,"
            " updated_at = ? WHERE id = ?",
            (*self.columns[1:], paused, self.at, self.id),
        )
        self.outcome = "updated"

    def _put_schedules(self, connection: sqlite3.Connection) -> bool:
        """Make the schedules those given; tell whether anything changed."""
        known = {
            tuple(row[1:7]): (int(row[0]), row[7], row[8])
            for row in connection.execute(
                "SELECT id, kind, rule, timezone, day_or, parameters, slug, anchor_at, active FROM schedule"
                " WHERE deployment_id = ?",
                (self.id,),
            ).fetchall()
        }
        changed = False
        for kind, rule, anchor_at, timezone, day_or, parameters, slug, active in self.schedules:
            found = known.pop((kind, rule, timezone, int(day_or), parameters, slug), None)
            anchor = anchor_at or (found[1] if found else self.at if kind == "interval" else None)
            if found is None:
                connection.execute(
                    "INSERT INTO schedule (deployment_id, kind, rule, anchor_at, timezone, day_or, parameters, slug, active)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (self.id, kind, rule, anchor, timezone, int(day_or), parameters, slug, int(active)),
                )
            elif found[1:] != (anchor, int(active)):
                connection.execute(
                    "UPDATE schedule SET anchor_at = ?, active = ? WHERE id = ?", (anchor, int(active), found[0])
                )
            else:
                continue
            changed = True
        for schedule_id, *_ in known.values():
            connection.execute("DELETE FROM schedule WHERE id = ?", (schedule_id,))
        return changed or bool(known)


# ------------------------------------------------------------------------------------------- reads for people


def list_deployments(connection: sqlite3.Connection, *, flow: str | None = None, limit: int = 1000) -> list[DeploymentRow]:
    """Return deployments by flow and name: all, or those of one flow."""
    rows = connection.execute(
        "SELECT id, name, flow, full_name, tags, schedule, active, parameters, version, description, entrypoint, created_at,"
        " updated_at FROM deployments WHERE ? IS NULL OR flow = ? ORDER BY flow, name LIMIT ?",
        (flow, flow, limit),
    )
    return [DeploymentRow._make(row) for row in rows.fetchall()]


def find_deployments(connection: sqlite3.Connection, name: str) -> list[DeploymentRow]:
    """Return the deployments that 'flow/name', or a name without its flow, means."""
    rows = connection.execute(
        "SELECT id, name, flow, full_name, tags, schedule, active, parameters, version, description, entrypoint, created_at,"
        " updated_at FROM deployments WHERE full_name = ? OR name = ? ORDER BY flow, name",
        (name, name),
    )
    found = [DeploymentRow._make(row) for row in rows.fetchall()]
    return [row for row in found if row.full_name == name] or found


def list_schedules(connection: sqlite3.Connection, deployment_id: int) -> list[ScheduleColumns]:
    """Return the schedules of a deployment, in the order in which they were added."""
    rows = connection.execute(
        "SELECT kind, rule, anchor_at, timezone, day_or, parameters, slug, active FROM schedule WHERE deployment_id = ?"
        " ORDER BY id",
        (deployment_id,),
    )
    return [
        ScheduleColumns(kind, rule, anchor_at, timezone, bool(day_or), parameters, slug, bool(active))
        for kind, rule, anchor_at, timezone, day_or, parameters, slug, active in rows.fetchall()
    ]
