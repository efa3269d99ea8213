"""What the pages and the API show of queues, limits, events, automations, variables, secrets, artifacts and the file."""

from __future__ import annotations

import shlex
import sqlite3
from dataclasses import asdict
from typing import Any

from wfengine.page.commands import shown
from wfengine.page.paging import page_of
from wfengine.page.readings import json_of, run_json
from wfengine.page.serving import Serving
from wfengine_journal.artifacts import ArtifactRow, get_artifact, list_artifacts
from wfengine_journal.automations import AutomationRow, FiringRow, get_automation, list_automations
from wfengine_journal.connection import primary_code
from wfengine_journal.errors import NotFoundError
from wfengine_journal.event_tables import list_watched_tables
from wfengine_journal.events import EventRow, find_event, list_events, search_events
from wfengine_journal.health import Check, Verdict, list_checks, run_check
from wfengine_journal.page_lists import (
    count_firings,
    list_holders,
    list_running_runs,
    list_waiting_runs,
    page_firings,
    page_secrets,
    page_variables,
)
from wfengine_journal.page_queries import SCANNED
from wfengine_journal.queries import MAX_ID
from wfengine_journal.quota_queries import LimitView, QueueView, list_limit_views, list_queue_views
from wfengine_journal.quotas import TAG_PREFIX, rate_text
from wfengine_journal.variables import VariableRow, find_variable

#: Rows of a list that has no further pages: queues, limits, automations, and who holds or waits.
LISTED = 500
HOLDERS = 200
#: A file that is larger is not gone through for a page; values whose checksum is verified for one.
CHECKED_BYTES = 200_000_000
CHECKED_VALUES = 200
#: Events that one read gives to a stream.
EVENTS_AT_ONCE = 500
#: Checks that go through a whole table, or the whole file.
_WHOLE = frozenset({"pages", "references"})


# ------------------------------------------------------------------------------------------- queues and limits


def queue_json(row: QueueView) -> dict[str, Any]:
    """Return a queue."""
    return {**row._asdict(), "paused": bool(row.paused), "rate": rate_text(row.rate_count, row.rate_seconds)}


def queues_json(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the queues, by name."""
    return {"queues": [queue_json(row) for row in list_queue_views(connection, limit=LISTED)]}


def queue_detail_json(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Return one queue, with the runs that go on and those that wait, in the order in which they are let out."""
    found = list_queue_views(connection, name=name)
    if not found:
        raise NotFoundError(f"There is no queue {name!r}. See them with: wfengine queues ls")
    return {
        "queue": queue_json(found[0]),
        "running": [run_json(run) for run in list_running_runs(connection, name, HOLDERS)],
        "waiting": [run_json(run) for run in list_waiting_runs(connection, name, HOLDERS)],
    }


def limit_json(row: LimitView) -> dict[str, Any]:
    """Return a limit; `tag`: its name is that of a tag."""
    return {
        **row._asdict(), "name": row.name.removeprefix(TAG_PREFIX), "tag": row.name.startswith(TAG_PREFIX),
        "paused": bool(row.paused), "rate": rate_text(row.rate_count, row.rate_seconds),
    }  # fmt: skip


def limits_json(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the limits, by name."""
    return {"limits": [limit_json(row) for row in list_limit_views(connection, limit=LISTED)]}


def limit_detail_json(connection: sqlite3.Connection, name: str, *, tag: bool) -> dict[str, Any]:
    """Return one limit, with who holds its places and who waits for some."""
    full = TAG_PREFIX + name if tag else name
    found = list_limit_views(connection, name=full)
    if not found:
        raise NotFoundError(f"There is no limit {'of the tag ' if tag else ''}{name!r}. See them with: wfengine limits ls")
    places = [each._asdict() for each in list_holders(connection, full, HOLDERS)]
    return {
        "limit": limit_json(found[0]),
        "holders": [each for each in places if each["occupies"]],
        "waiting": [each for each in places if not each["occupies"]],
    }


# ------------------------------------------------------------------------------------------- events


def event_json(row: EventRow) -> dict[str, Any]:
    """Return an event, with what is known of the run that it is of."""
    return {
        "id": row.id, "name": row.name, "resource": row.resource, "run_id": row.flow_run_id, "task_id": row.task_run_id,
        "labels": json_of(row.labels), "related": json_of(row.related), "payload": json_of(row.payload),
        "key": row.idempotency_key, "occurred_at": row.occurred_at, "run_name": row.run_name, "flow": row.flow,
        "deployment": row.deployment,
    }  # fmt: skip


def events_json(
    connection: sqlite3.Connection,
    *,
    name: str | None,
    resource: str | None,
    run_id: int | None,
    before: int | None,
    limit: int,
) -> dict[str, Any]:
    """Return a page of events, newest first."""
    found, following = search_events(
        connection,
        name=name,
        resource=resource,
        run_id=run_id,
        before_id=MAX_ID if before is None else before,
        limit=limit,
        scanned=SCANNED,
    )
    return {"events": [event_json(row) for row in found], "next_before": following}


def events_after(
    connection: sqlite3.Connection, event_id: int, *, name: str | None, resource: str | None
) -> list[dict[str, Any]]:
    """Return the events after one, oldest first, for a stream."""
    found = list_events(connection, name=name, resource=resource, after=event_id, limit=EVENTS_AT_ONCE)
    return [event_json(row) for row in found]


def newest_event_id(connection: sqlite3.Connection) -> int:
    """Return the id of the newest event; 0: there is none."""
    found = list_events(connection, limit=1)
    return found[0].id if found else 0


def event_detail_json(connection: sqlite3.Connection, event_id: int) -> dict[str, Any]:
    """Return one event, and the automations that fired because of it."""
    row = find_event(connection, event_id)
    if row is None:
        raise NotFoundError(f"There is no event {event_id}. See them with: wfengine events ls")
    found = page_firings(connection, automation_id=None, event_id=event_id, before_id=MAX_ID, limit=HOLDERS)
    return {"event": event_json(row), "firings": [firing_json(each) for each in found]}


def watched_json(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the tables whose new rows are events."""
    return [each._asdict() for each in list_watched_tables(connection)]


# ------------------------------------------------------------------------------------------- automations


def automation_json(connection: sqlite3.Connection, row: AutomationRow) -> dict[str, Any]:
    """Return an automation, with how often it fired."""
    definition = json_of(row.definition)
    parts = definition if isinstance(definition, dict) else {}
    count, last = count_firings(connection, row.id)
    return {
        "id": row.id, "name": row.name, "description": row.description, "active": bool(row.active),
        "trigger": parts.get("trigger"), "actions": parts.get("actions"), "firings": count, "last_fired_at": last,
        "due_at": row.due_at, "applied_from": row.applied_from, "mind": json_of(row.state), "updated_at": row.updated_at,
    }  # fmt: skip


def firing_json(row: FiringRow) -> dict[str, Any]:
    """Return a firing and what came of its actions."""
    return {
        "id": row.id, "automation_id": row.automation_id, "automation": row.automation, "state": row.state,
        "event_id": row.event_id, "results": json_of(row.results), "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at, "fired_at": row.fired_at, "ended_at": row.ended_at,
        "context": json_of(row.context),
    }  # fmt: skip


def automations_json(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the automations, by name."""
    return {"automations": [automation_json(connection, row) for row in list_automations(connection, LISTED)]}


def automation_detail_json(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Return one automation."""
    return {"automation": automation_json(connection, get_automation(connection, name))}


def firings_json(
    connection: sqlite3.Connection, automation_id: int | None, *, before: int | None, limit: int
) -> dict[str, Any]:
    """Return a page of firings, newest first: of one automation, or of all."""
    found = page_firings(
        connection, automation_id=automation_id, before_id=MAX_ID if before is None else before, limit=limit + 1
    )
    rows, following = page_of(found, limit, lambda row: row.id)
    return {"firings": [firing_json(row) for row in rows], "next_before": following}


# ------------------------------------------------------------------------------------------- variables and secrets


def variable_json(row: VariableRow) -> dict[str, Any]:
    """Return a variable with value and tags as JSON."""
    return {**row._asdict(), "value": json_of(row.value), "tags": json_of(row.tags) or []}


def variables_json(connection: sqlite3.Connection, *, text: str | None, after: str, limit: int) -> dict[str, Any]:
    """Return a page of variables, by name."""
    found = page_variables(connection, text=text, after=after, limit=limit + 1)
    rows, following = page_of(found, limit, lambda row: row.name)
    return {"variables": [variable_json(row) for row in rows], "next_after": following}


def variable_detail_json(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Return one variable."""
    row = find_variable(connection, name)
    if row is None:
        raise NotFoundError(f"There is no variable {name!r}. See them with: wfengine variables ls")
    return {"variable": variable_json(row)}


def secrets_json(connection: sqlite3.Connection, *, after: str, limit: int) -> dict[str, Any]:
    """Return a page of what may be said of secrets, by name. Their values are read nowhere here."""
    found = page_secrets(connection, after=after, limit=limit + 1)
    rows, following = page_of(found, limit, lambda row: row.name)
    return {"secrets": [row._asdict() for row in rows], "next_after": following}


# ------------------------------------------------------------------------------------------- artifacts


def artifact_json(row: ArtifactRow) -> dict[str, Any]:
    """Return an artifact; `data` of a text is the text, of any other type JSON."""
    return {**row._asdict(), "data": row.data if row.type == "markdown" else json_of(row.data)}


def artifacts_json(
    connection: sqlite3.Connection, *, key: str | None, kind: str | None, run_id: int | None, before: int | None, limit: int
) -> dict[str, Any]:
    """Return a page of artifacts, newest first."""
    found = list_artifacts(
        connection, key=key, kind=kind, run_id=run_id, before_id=MAX_ID if before is None else before, limit=limit + 1
    )
    rows, following = page_of(found, limit, lambda row: row.id)
    return {"artifacts": [artifact_json(row) for row in rows], "next_before": following}


def artifact_detail_json(connection: sqlite3.Connection, artifact_id: int) -> dict[str, Any]:
    """Return one artifact."""
    row = get_artifact(connection, artifact_id)
    if row is None:
        raise NotFoundError(f"There is no artifact {artifact_id}. See them with: wfengine artifacts ls")
    return {"artifact": artifact_json(row)}


# ------------------------------------------------------------------------------------------- the file's health


def doctor_json(connection: sqlite3.Connection, serving: Serving) -> dict[str, Any]:
    """Return what `wfengine doctor` finds, as far as there is time for it: what was not looked at says with which command."""
    command = serving.commands.shown(["doctor"])
    checks = []
    is_large = serving.path.stat().st_size > CHECKED_BYTES
    for name, check in list_checks(connection, serving.path, thorough=False, sample=CHECKED_VALUES):
        if is_large and name in _WHOLE:
            checks.append(Check(name, Verdict.NOTE, f"not looked at here, since the file is large; see: {command}"))
            continue
        try:
            checks.append(run_check(name, check))
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            checks.append(Check(name, Verdict.NOTE, f"not finished in time; see: {command}"))
    found = [{**asdict(check), "mend": _mend(check, serving)} for check in checks]
    return {
        "checks": found,
        "sound": all(check.verdict is not Verdict.DAMAGE for check in checks),
        "journal": str(serving.path),
    }


def _mend(check: Check, serving: Serving) -> str | None:
    """Return the command that mends a finding, or says more of it; None: there is nothing to mend."""
    if check.verdict is Verdict.OK:
        return None
    if check.verdict is Verdict.DAMAGE:
        return shown(["recover", str(serving.path)])
    if check.name == "file mode":
        return shlex.join(["chmod", "600", str(serving.path)])
    if check.name == "owners":
        return serving.commands.shown(["resume", "--all"]) if "dead:" in check.text else None
    words = {"pages": ["doctor", "--thorough"], "references": ["doctor"], "runs": ["sql", "SELECT * FROM stuck"]}.get(
        check.name
    )
    return None if words is None else serving.commands.shown(words)
