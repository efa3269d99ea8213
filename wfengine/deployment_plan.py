"""What applying a file would change, and applying it.

`plan` writes nothing. `apply` writes deployments, queues and limits in one transaction, then automations; cut off in between,
it is called again and does the rest. Applying the same again changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.automations.definitions import apply_automations
from wfengine.deployment_options import schedule_columns
from wfengine.deployments import due_words
from wfengine.plain_json import plain_json
from wfengine.tag_limits import forget_limited_tags
from wfengine_journal.automations import find_automation, list_automations
from wfengine_journal.declared import ApplyDeclared, list_applied_from, list_files, list_quotas_applied_from
from wfengine_journal.deployments import (
    DeploymentColumns,
    RemoveDeployment,
    ScheduleColumns,
    find_deployments,
    get_columns,
    list_schedules,
)
from wfengine_journal.quotas import QUEUE_PREFIX, TAG_PREFIX, RemoveQuota, find_quota

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from wfengine.automations.definitions import Automation
    from wfengine.deployment_file import Declared, DeclaredQuota
    from wfengine.deployments import Deployment
    from wfengine_journal.store import Journal


@dataclass(frozen=True, slots=True)
class Planned:
    """What becomes of one thing: outcome created, updated, unchanged or removed; `fields`: what differs."""

    kind: str  # 'deployment', 'queue', 'limit', 'tag' or 'automation'
    name: str
    outcome: str
    fields: tuple[str, ...] = ()
    due: str | None = None  # of a deployment that was applied: when it is due next


# ------------------------------------------------------------------------------------------- the plan


def plan(connection: sqlite3.Connection | None, declared: Declared, *, prune: bool = False) -> list[Planned]:
    """Return what applying would do to a journal, or to one that is not there yet. Writes nothing."""
    found = [_of_deployment(connection, each) for each in declared.deployments]
    found += [_of_quota(connection, each) for each in declared.quotas]
    found += [_of_automation(connection, each, declared.applied_from) for each in declared.automations]
    if prune and connection is not None:
        found += [Planned("deployment", name, "removed") for _, name in gone_deployments(connection, declared)]
        found += [Planned(*_kind_and_name(name), "removed") for name in gone_quotas(connection, declared)]
        kept = {each.name for each in declared.automations}
        found += [
            Planned("automation", row.name, "removed")
            for row in list_automations(connection)
            if row.applied_from in declared.places and row.name not in kept
        ]
    return found


def find_moved(connection: sqlite3.Connection, declared: Declared) -> str | None:
    """Return a file that declared something in this journal and is gone, where that may be this file before it was moved."""
    gone = [file for file in list_files(connection) if file not in declared.places and not Path(file).exists()]
    name = None if declared.applied_from is None else Path(declared.applied_from).name
    return next((file for file in gone if Path(file).name == name), None)


def gone_deployments(connection: sqlite3.Connection, declared: Declared) -> list[tuple[int, str]]:
    """Return (id, 'flow/name') of the deployments that the file declared before and does not declare any more."""
    kept = {each.full_name for each in declared.deployments}
    return [row for row in list_applied_from(connection, declared.places) if row[1] not in kept]


def gone_quotas(connection: sqlite3.Connection, declared: Declared) -> list[str]:
    """Return the names of the quotas that the file declared before and does not declare any more; none that is set by hand."""
    kept = {each.full_name for each in declared.quotas}
    return [name for name in list_quotas_applied_from(connection, declared.places) if name not in kept]


def _kind_and_name(quota: str) -> tuple[str, str]:
    """Return what a quota is of, and its name for people."""
    for prefix, kind in ((QUEUE_PREFIX, "queue"), (TAG_PREFIX, "tag")):
        if quota.startswith(prefix):
            return kind, quota.removeprefix(prefix)
    return "limit", quota


def _of_deployment(connection: sqlite3.Connection | None, deployment: Deployment) -> Planned:
    rows = [] if connection is None else find_deployments(connection, deployment.full_name)
    row = next((row for row in rows if (row.flow, row.name) == (deployment.flow_name, deployment.name)), None)
    if connection is None or row is None:
        return Planned("deployment", deployment.full_name, "created")
    before = get_columns(connection, row.id)
    after = deployment.columns()
    differing = [
        name for name in DeploymentColumns._fields if _value(getattr(before, name), name) != _value(getattr(after, name), name)
    ]
    if deployment.paused is not None and bool(row.paused) != deployment.paused:
        differing.append("paused")
    if _differ(list_schedules(connection, row.id), [schedule_columns(deployment.name, each) for each in deployment.schedules]):
        differing.append("schedules")
    return Planned("deployment", deployment.full_name, "updated" if differing else "unchanged", tuple(differing))


def _value(value: object, name: str) -> object:
    """Return a column's value as it is compared: JSON by what it says."""
    if isinstance(value, str) and name in ("parameters", "tags", "parameter_schema", "source"):
        return json.loads(value)
    return value


def _differ(before: Sequence[ScheduleColumns], after: Sequence[ScheduleColumns]) -> bool:
    """Tell whether schedules differ; an interval without an anchor keeps what it is counted from."""

    def identity(columns: ScheduleColumns) -> tuple[object, ...]:
        return (columns.kind, columns.rule, columns.timezone, columns.day_or, columns.parameters, columns.slug)

    known = {identity(columns): columns for columns in before}
    wanted = {
        identity(columns): columns if columns.anchor_at or identity(columns) not in known
        else replace_anchor(columns, known[identity(columns)].anchor_at)
        for columns in after
    }  # fmt: skip
    return known != wanted


def replace_anchor(columns: ScheduleColumns, anchor_at: str | None) -> ScheduleColumns:
    """Return columns with another anchor."""
    return columns._replace(anchor_at=anchor_at)


def _of_quota(connection: sqlite3.Connection | None, quota: DeclaredQuota) -> Planned:
    row = None if connection is None else find_quota(connection, quota.full_name)
    if row is None:
        return Planned(quota.kind, quota.name, "created")
    change = quota.change_without_journal()
    rate = None if row.rate_count is None else (row.rate_count, row.rate_seconds)
    pairs = {
        "slots": (row.slots, change.slots), "per_partition": (row.partition_slots, change.partition_slots),
        "rate": (rate, change.rate), "description": (row.description, change.description),
        "applied_from": (row.applied_from, change.applied_from),
    }  # fmt: skip
    differing = tuple(name for name, (before, after) in pairs.items() if before != after)
    return Planned(quota.kind, quota.name, "updated" if differing else "unchanged", differing)


def _of_automation(connection: sqlite3.Connection | None, automation: Automation, applied_from: str | None) -> Planned:
    row = None if connection is None else find_automation(connection, automation.name)
    if row is None or row.name != automation.name:
        return Planned("automation", automation.name, "created")
    pairs = {
        "definition": (row.definition, plain_json(automation.definition(), f"automation '{automation.name}'")),
        "description": (row.description, automation.description),
        "applied_from": (row.applied_from, applied_from),
        "active": (bool(row.active), bool(row.active) if automation.active is None else automation.active),
    }
    differing = tuple(name for name, (before, after) in pairs.items() if before != after)
    return Planned("automation", automation.name, "updated" if differing else "unchanged", differing)


# ------------------------------------------------------------------------------------------- applying


def apply(journal: Journal, declared: Declared, *, prune: bool = False) -> list[Planned]:
    """Make the journal what the file says, and return what became of each thing."""
    planned: list[Planned] = []
    gone: list[tuple[int, str]] = []
    quotas: list[str] = []

    def look(connection: sqlite3.Connection) -> None:
        planned[:] = plan(connection, declared, prune=prune)
        gone[:] = gone_deployments(connection, declared) if prune else []
        quotas[:] = gone_quotas(connection, declared) if prune else []

    journal.read(look)
    at = journal.clock.now_text()
    stays = {(each.kind, each.name) for each in planned if each.outcome == "unchanged"}
    change = ApplyDeclared(
        [each.change(journal) for each in declared.deployments],
        [each.change(journal) for each in declared.quotas if (each.kind, each.name) not in stays],
        [RemoveDeployment(deployment_id, at=at) for deployment_id, _ in gone],
        [RemoveQuota(name) for name in quotas],
    )
    journal.write(change, synced=True)
    forget_limited_tags(journal)
    apply_automations(
        declared.automation_tables or [], declared.applied_from, prune=prune, journal=journal, moved_from=declared.moved_from
    )
    due = {}
    for deployment, written in zip(declared.deployments, change.deployments, strict=True):
        deployment.id, deployment.outcome = written.id, written.outcome
        due[deployment.full_name] = due_words(journal, written.id) if deployment.schedules else None
    return [replace(each, due=due.get(each.name)) if each.kind == "deployment" else each for each in planned]
