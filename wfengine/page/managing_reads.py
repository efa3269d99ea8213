"""The operations that only read what is not a run: entries of the table that `operations` describes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from wfengine.page import deployment_readings as deployments
from wfengine.page import value_readings as values_of
from wfengine.page.managing_operations import DEPLOYMENT, FLOW, NAME, SCHEDULE_ID
from wfengine.page.operations import Operation, Values, Words
from wfengine.page.parameters import Parameter
from wfengine.page.reading_operations import PAGE_LIMIT
from wfengine.page.serving import Serving
from wfengine_journal.automations import get_automation
from wfengine_journal.page_lists import get_deployment

Read = Callable[[sqlite3.Connection, Values], object]

_LIMIT = Parameter("limit", "integer", "query", "Rows of the answer at the most.", default=50, smallest=1, largest=PAGE_LIMIT)
_BEFORE = Parameter("before", "integer", "query", "Only those with a smaller id: next_before of the page before.")
_TEXT = Parameter("text", "string", "query", "Only those whose name holds this.")
_KINDS = ("markdown", "table", "link", "image", "progress")


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return None if value in (None, "") else str(value)


def _number(values: Values, name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) else None


def _limit(values: Values) -> int:
    return _number(values, "limit") or PAGE_LIMIT


def _full_name(values: Values) -> str:
    return f"{values.get('flow')}/{values.get('deployment')}"


def _id(values: Values, name: str) -> int:
    return int(str(values[name]))


def _reads(read: Read) -> Callable[[Serving, Values], object]:
    return lambda serving, values: serving.read_here(lambda connection: read(connection, values))


def _operation(
    name: str, path: str, summary: str, parameters: tuple[Parameter, ...], read: Read, words: Words | None = None
) -> Operation:  # fmt: skip
    return Operation(name, "GET", path, summary, parameters, _reads(read), words or (lambda values: None))


def _runs_of(connection: sqlite3.Connection, values: Values) -> object:
    row = get_deployment(connection, _full_name(values))
    return deployments.deployment_runs_json(connection, row.id, before=_number(values, "before"), limit=_limit(values))


def _ticks_of(connection: sqlite3.Connection, values: Values) -> object:
    return deployments.ticks_json(
        connection, _id(values, "schedule_id"), before=_text(values, "before"), outcome=_text(values, "outcome"),
        limit=_limit(values),
    )  # fmt: skip


def _calendar(connection: sqlite3.Connection, values: Values) -> object:
    return deployments.calendar_json(
        connection, _number(values, "schedule_id"), month=_text(values, "month") or "", timezone=_text(values, "timezone")
    )


def _firings(connection: sqlite3.Connection, values: Values) -> object:
    name = _text(values, "name")
    automation_id = None if name is None else get_automation(connection, name).id
    return values_of.firings_json(connection, automation_id, before=_number(values, "before"), limit=_limit(values))


def _events(connection: sqlite3.Connection, values: Values) -> object:
    return values_of.events_json(
        connection, name=_text(values, "name"), resource=_text(values, "resource"), run_id=_number(values, "run_id"),
        before=_number(values, "before"), limit=_limit(values),
    )  # fmt: skip


def _artifacts(connection: sqlite3.Connection, values: Values) -> object:
    return values_of.artifacts_json(
        connection, key=_text(values, "key"), kind=_text(values, "type"), run_id=_number(values, "run_id"),
        before=_number(values, "before"), limit=_limit(values),
    )  # fmt: skip


_MONTH = Parameter("month", "string", "query", "As 2026-11; the present one where it is not said.")
_ZONE = Parameter("timezone", "string", "query", "Whose days are meant: an IANA name.")

MANAGING_READS: tuple[Operation, ...] = (
    _operation(
        "deployments.list", "/deployments", "List deployments, by flow and name.",
        (_TEXT, Parameter("after", "string", "query", "Only those after this name: next_after of the page before."), _LIMIT),
        lambda connection, values: deployments.deployments_json(
            connection, text=_text(values, "text"), after=_text(values, "after") or "", limit=_limit(values)
        ),
        lambda values: ["deployments", "ls"],
    ),
    _operation(
        "deployments.get", "/deployments/{flow}/{deployment}",
        "One deployment: settings, schedules, and the schema of its parameters.", (FLOW, DEPLOYMENT),
        lambda connection, values: deployments.deployment_detail_json(connection, _full_name(values)),
        lambda values: ["deployments", "show", "--", _full_name(values)],
    ),
    _operation(
        "deployments.runs", "/deployments/{flow}/{deployment}/runs", "The runs of a deployment, newest first.",
        (FLOW, DEPLOYMENT, _BEFORE, _LIMIT), _runs_of,
    ),
    _operation(
        "schedules.list", "/schedules", "List schedules, by deployment.",
        (
            _TEXT, Parameter("after", "string", "query", "See next of the page before."),
            Parameter("after_id", "integer", "query", "See next of the page before.", default=0), _LIMIT,
        ),
        lambda connection, values: deployments.schedules_json(
            connection, text=_text(values, "text"), after=(_text(values, "after") or "", _number(values, "after_id") or 0),
            limit=_limit(values),
        ),
        lambda values: ["schedules", "ls"],
    ),
    _operation(
        "schedules.get", "/schedules/{schedule_id}", "One schedule: its rule in words, and when it is due next.",
        (SCHEDULE_ID, Parameter("count", "integer", "query", "Instants to come.", default=5, largest=50)),
        lambda connection, values: deployments.schedule_detail_json(
            connection, _id(values, "schedule_id"), _number(values, "count") or 0
        ),
        lambda values: ["schedules", "show", str(_id(values, "schedule_id"))],
    ),
    _operation(
        "schedules.ticks", "/schedules/{schedule_id}/ticks",
        "Every instant at which a schedule was due, newest first, with what became of it and why.",
        (
            SCHEDULE_ID, Parameter("before", "string", "query", "Only earlier ones: next_before of the page before."),
            Parameter("outcome", "string", "query", "Only those with this outcome.", choices=deployments.OUTCOMES), _LIMIT,
        ),
        _ticks_of, lambda values: ["schedules", "show", str(_id(values, "schedule_id"))],
    ),
    _operation(
        "schedules.calendar", "/schedules/calendar", "A month, day by day: what was due, and what will be.",
        (Parameter("schedule_id", "integer", "query", "Only this schedule."), _MONTH, _ZONE), _calendar,
        lambda values: ["schedules", "calendar"],
    ),
    _operation(
        "queues.list", "/queues", "List queues, by name.", (), lambda connection, values: values_of.queues_json(connection),
        lambda values: ["queues", "ls"],
    ),
    _operation(
        "queues.get", "/queues/{name}", "One queue, with the runs that go on and those that wait.", (NAME,),
        lambda connection, values: values_of.queue_detail_json(connection, str(values["name"])),
    ),
    _operation(
        "limits.list", "/limits", "List limits, by name.", (), lambda connection, values: values_of.limits_json(connection),
        lambda values: ["limits", "ls"],
    ),
    _operation(
        "limits.get", "/limits/{name}", "One limit, with who holds its places and who waits.",
        (NAME, Parameter("tag", "boolean", "query", "The name is that of a tag of tasks.", default=False)),
        lambda connection, values: values_of.limit_detail_json(connection, str(values["name"]), tag=bool(values["tag"])),
        lambda values: ["limits", "show", *(["--tag"] if values.get("tag") else []), "--", str(values["name"])],
    ),
    _operation(
        "events.list", "/events", "List events, newest first.",
        (
            Parameter("name", "string", "query", "Only those of this name; * stands for any text."),
            Parameter("resource", "string", "query", "Only those of this resource; * stands for any text."),
            Parameter("run_id", "integer", "query", "Only those of this run."), _BEFORE, _LIMIT,
        ),
        _events, lambda values: ["events", "ls"],
    ),
    _operation(
        "events.get", "/events/{event_id}", "One event, and the automations that fired because of it.",
        (Parameter("event_id", "integer", "path", "The event, by its id.", required=True, smallest=1),),
        lambda connection, values: values_of.event_detail_json(connection, _id(values, "event_id")),
        lambda values: ["events", "show", str(min(_id(values, "event_id"), 2**62))],
    ),
    _operation(
        "automations.list", "/automations", "List automations, by name.", (),
        lambda connection, values: values_of.automations_json(connection), lambda values: ["automations", "ls"],
    ),
    _operation(
        "automations.get", "/automations/{name}", "One automation: its trigger, its actions, what it keeps in mind.", (NAME,),
        lambda connection, values: values_of.automation_detail_json(connection, str(values["name"])),
        lambda values: ["automations", "show", "--", str(values["name"])],
    ),
    _operation(
        "automations.firings", "/automations/{name}/firings", "What an automation did, newest first.",
        (NAME, _BEFORE, _LIMIT), _firings, lambda values: ["automations", "firings", "--", str(values["name"])],
    ),
    _operation(
        "variables.list", "/variables", "List variables, by name.",
        (_TEXT, Parameter("after", "string", "query", "Only those after this name: next_after of the page before."), _LIMIT),
        lambda connection, values: values_of.variables_json(
            connection, text=_text(values, "text"), after=_text(values, "after") or "", limit=_limit(values)
        ),
        lambda values: ["variables", "ls"],
    ),
    _operation(
        "variables.get", "/variables/{name}", "One variable.", (NAME,),
        lambda connection, values: values_of.variable_detail_json(connection, str(values["name"])),
        lambda values: ["variables", "get", "--", str(values["name"])],
    ),
    _operation(
        "secrets.list", "/secrets", "List secrets, by name; their values are not shown anywhere.",
        (Parameter("after", "string", "query", "Only those after this name: next_after of the page before."), _LIMIT),
        lambda connection, values: values_of.secrets_json(
            connection, after=_text(values, "after") or "", limit=_limit(values)
        ),
        lambda values: ["secrets", "ls"],
    ),
    _operation(
        "artifacts.list", "/artifacts", "List artifacts, newest first.",
        (
            Parameter("key", "string", "query", "Only those with this key."),
            Parameter("type", "string", "query", "Only those of this type.", choices=_KINDS),
            Parameter("run_id", "integer", "query", "Only those of this run."), _BEFORE, _LIMIT,
        ),
        _artifacts, lambda values: ["artifacts", "ls"],
    ),
    _operation(
        "artifacts.get", "/artifacts/{artifact_id}", "One artifact.",
        (Parameter("artifact_id", "integer", "path", "The artifact, by its id.", required=True, smallest=1),),
        lambda connection, values: values_of.artifact_detail_json(connection, _id(values, "artifact_id")),
        lambda values: ["artifacts", "show", str(_id(values, "artifact_id"))],
    ),
    Operation(
        "doctor.get", "GET", "/doctor", "Whether the journal is sound, and with which command a finding is mended.", (),
        lambda serving, values: serving.read_here(lambda connection: values_of.doctor_json(connection, serving)),
        lambda values: ["doctor"],
    ),
)  # fmt: skip
