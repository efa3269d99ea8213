"""What comes after a button of the pages on deployments, schedules, limits, events and the like: a page, or where to go on.

The form in which a run is started has a way of its own: what somebody typed is held against the schema first, and is shown
again, with what is wrong with it at its field, when it cannot be taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from wfengine.page.forms import parsed_schema, read
from wfengine.page.operations import Values
from wfengine.page.pages.deployments import load_part, view_form
from wfengine.page.saved import QUERIES, SEARCHES
from wfengine.page.saved import next_path as saved_path
from wfengine.page.serving import Serving
from wfengine.page.table import find
from wfengine_journal.automations import get_automation
from wfengine_journal.deployments import get_columns
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.page_lists import get_deployment

#: What a button shows: a template, its status, and what it is given.
Shown = tuple[str, int, dict[str, Any]]
Done = dict[str, Any]


# ------------------------------------------------------------------------------------------- where to go on


def _deployment(serving: Serving, values: Values, done: Done) -> str:
    full_name = f"{values['flow']}/{values['deployment']}"
    found = serving.read_here(lambda connection: get_deployment(connection, full_name))
    return f"/deployments/{found.id}"


def _automation(serving: Serving, values: Values, done: Done) -> str:
    found = serving.read_here(lambda connection: get_automation(connection, str(values["name"])))
    return f"/automations/{found.id}"


def _run(serving: Serving, values: Values, done: Done) -> str:
    return f"/runs/{int(done['answer']['run']['id'])}"


def _schedule(serving: Serving, values: Values, done: Done) -> str:
    return f"/schedules/{values['schedule_id']}"


def _queue(serving: Serving, values: Values, done: Done) -> str:
    return "/queues/one?" + urlencode({"name": str(values["name"])})


def _limit(serving: Serving, values: Values, done: Done) -> str:
    tag = {"tag": "true"} if values.get("tag") else {}
    return "/limits/one?" + urlencode({"name": str(values["name"]), **tag})


def _to(path: str) -> Callable[[Serving, Values, Done], str]:
    return lambda serving, values, done: path


_NEXT: Mapping[str, Callable[[Serving, Values, Done], str]] = {
    "deployments.run": _run,
    "deployments.pause": _deployment,
    "deployments.resume": _deployment,
    "deployments.delete": _to("/deployments"),
    "schedules.pause": _schedule,
    "schedules.resume": _schedule,
    "schedules.trigger": _run,
    "queues.set": _queue,
    "queues.pause": _queue,
    "queues.resume": _queue,
    "queues.delete": _to("/queues"),
    "limits.set": _limit,
    "limits.delete": _to("/queues"),
    "events.emit": lambda serving, values, done: f"/events/{int(done['answer']['event']['id'])}",
    "automations.pause": _automation,
    "automations.resume": _automation,
    "automations.delete": _to("/automations"),
    "variables.set": _to("/variables"),
    "variables.delete": _to("/variables"),
    "secrets.set": _to("/secrets"),
    "secrets.delete": _to("/secrets"),
    **{f"searches.{verb}": lambda serving, values, done: saved_path(SEARCHES, values) for verb in ("save", "forget")},
    **{f"queries.{verb}": lambda serving, values, done: saved_path(QUERIES, values) for verb in ("save", "forget")},
}


def next_path(serving: Serving, name: str, values: Values, done: Done) -> str | None:
    """Return where to go on after an operation; None: it is none of these. Called on a thread."""
    found = _NEXT.get(name)
    return None if found is None else found(serving, values, done)


# ------------------------------------------------------------------------------------------- what is shown


def shown_after(serving: Serving, name: str, values: dict[str, Any], done: Done) -> Shown | None:
    """Return the page that shows what came of an operation; None: there is none. Called on a thread."""
    if name == "schedules.backfill":
        words = find(name).words({**values, "dry_run": False}) or []
        return "backfill.html", 200, {"answer": done["answer"], "values": values, "command": serving.commands.shown(words)}
    if name == "automations.test":
        back = _automation(serving, values, done)
        return "tried.html", 200, {"answer": done["answer"], "values": values, "command": done["command"], "back": back}
    if name == "deployments.check":
        return "checked.html", 200, {"answer": done["answer"], "command": done["command"]}
    if name == "secrets.check":
        message = f"The secret {values['name']!r} can be read here."
        return "message.html", 200, {"title": "It can be read", "message": message, "command": done["command"]}
    return None


# ------------------------------------------------------------------------------------------- the start form


def start_run(serving: Serving, fields: Mapping[str, list[str]]) -> tuple[str | None, Shown | None]:
    """Start the run that a form asks for. Return where it can be seen, or the form with what is wrong with it.

    The form names its deployment by its id. Called on a thread.
    """
    given = {name: texts[-1] for name, texts in fields.items()}
    typed = {name.removeprefix("param."): text for name, text in given.items() if name.startswith("param.")}
    text = given.get("deployment_id", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError("The form does not say which deployment is meant.")
    columns, row = serving.read_here(lambda connection: _columns(connection, int(text)))
    form = read(parsed_schema(columns.parameter_schema), parsed_object(columns.parameters), typed)
    values: dict[str, Any] = {
        "flow": row.flow, "deployment": row.name, "run_name": given.get("run_name", "").strip() or None,
        "tags": [tag.strip() for tag in given.get("tags", "").split(",") if tag.strip()],
        "at": given.get("at", "").strip() or None, "idempotency_key": given.get("idempotency_key") or None,
        "queue": None, "priority": None,
    }  # fmt: skip
    problem: str | None = None
    try:
        all_given = _object(given.get("json", ""))
        problems = {name: said for name, said in form.problems.items() if name not in all_given}
        operation = find("deployments.run")
        values["parameters"] = {**form.values, **all_given}
        for each in operation.parameters:
            if values[each.name] is not None:
                each.checked(values[each.name])
        if not problems:
            done: Any = operation.function(serving, values)
            return _run(serving, values, done), None
    except WfengineError as error:
        problems, problem = form.problems, str(error)
    data = serving.read_here(lambda connection: load_part(connection, serving, row.id, "start"))
    said = problem or "The run was not started: see what is said at the fields."
    return None, ("deployment.html", 400, {**data, **view_form(data, typed, problems, said, given)})


def _columns(connection: Any, deployment_id: int) -> tuple[Any, Any]:
    row = get_deployment(connection, deployment_id)
    return get_columns(connection, row.id), row


def parsed_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text of the journal holds; an empty one where it holds something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _object(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"What is given as JSON is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise UsageError("The parameters as JSON are an object, with the parameters by name.")
    return found
