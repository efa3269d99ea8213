"""What changes deployments, schedules, queues, limits, events, automations, variables and secrets: entries of the table.

Each is done by the command that it shows; see `operations`. A name that a user chose stands behind `--`, or after `=`. No entry
names code: where a secret is kept, and what an automation does, is said with the command line and in files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from wfengine.page.operations import Operation, Values, Words, told
from wfengine.page.parameters import Parameter
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError

FLOW = Parameter("flow", "string", "path", "Name of the flow.", required=True)
DEPLOYMENT = Parameter("deployment", "string", "path", "Name of the deployment.", required=True)
SCHEDULE_ID = Parameter("schedule_id", "integer", "path", "The schedule, by its id.", required=True, smallest=1)
NAME = Parameter("name", "string", "path", "Its name.", required=True)
_OF_TAG = Parameter("tag", "boolean", "body", "The name is that of a tag of tasks.", default=False)
_SLOTS = Parameter("slots", "count", "body", "So many at a time; 'none': any number; 0: nobody.")
_RATE = Parameter("rate", "string", "body", "So many starts in a time, such as 10/s or 100/min; 'none': any number.")
_DESCRIPTION = Parameter("description", "string", "body", "For people.")
_KEY = Parameter("idempotency_key", "string", "body", "What is asked a second time with this key is done once.")


def _runs(words: Words) -> Callable[[Serving, Values], object]:
    return lambda serving, values: told(serving.commands.run(words(values)))


def _operation(
    name: str, method: str, path: str, summary: str, parameters: tuple[Parameter, ...], words: Words, code: int = 200
) -> Operation:  # fmt: skip
    return Operation(name, method, path, summary, parameters, _runs(words), words, code)


def _text(values: Values, name: str) -> str:
    return str(values.get(name) or "")


def _full_name(values: Values) -> str:
    return f"{_text(values, 'flow')}/{_text(values, 'deployment')}"


def _named(*verbs: str) -> Words:
    return lambda values: [*verbs, "--", _text(values, "name")]


def _deployment(verb: str) -> Words:
    return lambda values: ["deployments", verb, "--", _full_name(values)]


def _schedule(verb: str) -> Words:
    return lambda values: ["schedules", verb, str(int(_text(values, "schedule_id")))]


def _options(values: Values, **options: str) -> list[str]:
    """Return the options whose parameters were given: option by name of the parameter."""
    return [f"--{option}={values[name]}" for name, option in options.items() if values.get(name) is not None]


# ------------------------------------------------------------------------------------------- the words


def _run_words(values: Values) -> list[str]:
    words = ["deployments", "run"]
    parameters = values.get("parameters")
    if isinstance(parameters, dict) and parameters:
        words.append(f"--parameters={json.dumps(parameters, ensure_ascii=False)}")
    if values.get("run_name"):
        words.append(f"--name={values['run_name']}")
    tags = values.get("tags")
    words += [f"--tag={tag}" for tag in tags] if isinstance(tags, list) else []
    words += _options(values, at="at", queue="queue", priority="priority", idempotency_key="idempotency-key")
    return [*words, "--", _full_name(values)]


def _backfill_words(values: Values) -> list[str]:
    words = ["schedules", "backfill", f"--from={values['start']}", f"--to={values['end']}"]
    words += ["--dry-run"] if values.get("dry_run") else []
    return [*words, str(int(_text(values, "schedule_id")))]


def _queue_words(values: Values) -> list[str]:
    options = _options(values, slots="slots", per_partition="per-partition", rate="rate", description="description")
    return ["queues", "set", *options, "--", _text(values, "name")]


def _limit_words(values: Values) -> list[str]:
    options = _options(values, slots="slots", rate="rate", description="description")
    return ["limits", "set", *(["--tag"] if values.get("tag") else []), *options, "--", _text(values, "name")]


def _limit_remove_words(values: Values) -> list[str]:
    return ["limits", "rm", *(["--tag"] if values.get("tag") else []), "--", _text(values, "name")]


def _emit_words(values: Values) -> list[str]:
    words = ["events", "emit"]
    if values.get("payload") is not None:
        words.append(f"--payload={json.dumps(values['payload'], ensure_ascii=False)}")
    labels = values.get("labels")
    for name, value in labels.items() if isinstance(labels, dict) else ():
        if "=" in str(name):
            raise UsageError(f"{str(name)[:100]!r} is no name of a label.")
        words.append(f"--label={name}={value if isinstance(value, str) else json.dumps(value)}")
    words += _options(values, idempotency_key="key")
    return [*words, "--", _text(values, "name"), _text(values, "resource")]


def _test_words(values: Values) -> list[str]:
    words = ["automations", "test"]
    if values.get("event") is not None:
        words.append(f"--event={json.dumps(values['event'], ensure_ascii=False)}")
    if values.get("then_seconds"):
        words.append(f"--then={values['then_seconds']}")
    return [*words, "--", _text(values, "name")]


def _variable_words(values: Values) -> list[str]:
    words = ["variables", "set", *(["--overwrite"] if values.get("overwrite") else [])]
    tags = values.get("tags")
    words += [f"--tag={tag}" for tag in tags] if isinstance(tags, list) else []
    return [*words, "--", _text(values, "name"), json.dumps(values.get("value"), ensure_ascii=False)]


def _secret_words(values: Values) -> list[str]:
    """Return the command without the value, which it reads from its standard input."""
    return ["secrets", "set", *(["--overwrite"] if values.get("overwrite") else []), "--", _text(values, "name")]


def _set_secret(serving: Serving, values: Values) -> object:
    # Of one end of a line at the end the command takes the text to be without it.
    return told(serving.commands.run(_secret_words(values), given=f"{values['value']}\n".encode()))


# ------------------------------------------------------------------------------------------- the table

_OF_DEPLOYMENT = (FLOW, DEPLOYMENT)
_OVERWRITE = Parameter("overwrite", "boolean", "body", "Change one that exists.", default=False)
_TAGS = Parameter("tags", "strings", "body", "Tags.")

MANAGING: tuple[Operation, ...] = (
    _operation(
        "deployments.run", "POST", "/deployments/{flow}/{deployment}/runs", "Put a run of a deployment into its queue.",
        (
            *_OF_DEPLOYMENT,
            Parameter(
                "parameters", "object", "body", "Values by name of a parameter, in place of those there are.", default={}
            ),
            Parameter("run_name", "string", "body", "Name of the run."),
            _TAGS,
            Parameter("at", "string", "body", "Not taken up before this instant, in ISO 8601; without an offset, UTC."),
            Parameter("queue", "string", "body", "Another queue than the deployment's."),
            Parameter("priority", "integer", "body", "Another priority than the deployment's."),
            _KEY,
        ),
        _run_words, 201,
    ),
    _operation(
        "deployments.pause", "POST", "/deployments/{flow}/{deployment}/pause", "Let its schedules start nothing.",
        _OF_DEPLOYMENT, _deployment("pause"),
    ),
    _operation(
        "deployments.resume", "POST", "/deployments/{flow}/{deployment}/resume", "Let its schedules start runs again.",
        _OF_DEPLOYMENT, _deployment("resume"),
    ),
    _operation(
        "deployments.delete", "DELETE", "/deployments/{flow}/{deployment}",
        "Remove a deployment; its runs that nobody began are cancelled.", _OF_DEPLOYMENT, _deployment("rm"),
    ),
    _operation(
        "deployments.check", "POST", "/deployments/check",
        "Load the code of every deployment, as a daemon would, and say which cannot be loaded.", (),
        lambda values: ["deployments", "check"],
    ),
    _operation(
        "schedules.pause", "POST", "/schedules/{schedule_id}/pause", "Let a schedule start nothing.", (SCHEDULE_ID,),
        _schedule("pause"),
    ),
    _operation(
        "schedules.resume", "POST", "/schedules/{schedule_id}/resume", "Let a schedule start runs again.", (SCHEDULE_ID,),
        _schedule("resume"),
    ),
    _operation(
        "schedules.trigger", "POST", "/schedules/{schedule_id}/trigger",
        "Start a run now, with the schedule's parameters; when it is due does not change.", (SCHEDULE_ID,),
        _schedule("trigger"), 201,
    ),
    _operation(
        "schedules.backfill", "POST", "/schedules/{schedule_id}/backfill",
        "Start a run for each instant of the past that started none.",
        (
            SCHEDULE_ID,
            Parameter("start", "string", "body", "The first instant, in ISO 8601; without an offset, UTC.", required=True),
            Parameter("end", "string", "body", "The last instant; both are included.", required=True),
            Parameter("dry_run", "boolean", "body", "Only say which instants are meant.", default=False),
        ),
        _backfill_words,
    ),
    _operation(
        "queues.set", "POST", "/queues/{name}", "Limit a queue; what is not said stays as it is.",
        (
            NAME, _SLOTS,
            Parameter("per_partition", "count", "body", "So many runs of one partition key at a time; 'none': any number."),
            _RATE, _DESCRIPTION,
        ),
        _queue_words,
    ),
    _operation(
        "queues.pause", "POST", "/queues/{name}/pause", "Let no run out of a queue.", (NAME,), _named("queues", "pause")
    ),
    _operation(
        "queues.resume", "POST", "/queues/{name}/resume", "Let runs out of a queue again.", (NAME,), _named("queues", "resume")
    ),
    _operation(
        "queues.delete", "DELETE", "/queues/{name}", "Take the limits of a queue away; its runs stay.", (NAME,),
        _named("queues", "rm"),
    ),
    _operation(
        "limits.set", "POST", "/limits/{name}", "Set a limit, or change what is said; the rest stays as it is.",
        (NAME, _SLOTS, _RATE, _OF_TAG, _DESCRIPTION), _limit_words,
    ),
    _operation(
        "limits.delete", "DELETE", "/limits/{name}", "Remove a limit.", (NAME, replace(_OF_TAG, place="query")),
        _limit_remove_words,
    ),
    _operation(
        "events.emit", "POST", "/events", "Emit an event.",
        (
            Parameter("name", "string", "body", "Its name.", required=True),
            Parameter("resource", "string", "body", "What it is of.", required=True),
            Parameter("payload", "json", "body", "More about it, as JSON."),
            Parameter("labels", "object", "body", "Labels of the resource, by name."),
            _KEY,
        ),
        _emit_words, 201,
    ),
    _operation(
        "automations.test", "POST", "/automations/{name}/test",
        "Say what an automation would do on events that you make up; nothing is done.",
        (
            NAME,
            Parameter("event", "json", "body", "An event, or a list of them: name, resource, payload and so on."),
            Parameter(
                "then_seconds", "integer", "body", "Look again so long after the last event: for what does not come.",
                largest=1_000_000_000,
            ),
        ),
        _test_words,
    ),
    _operation(
        "automations.pause", "POST", "/automations/{name}/pause", "Let an automation look at nothing.", (NAME,),
        _named("automations", "pause"),
    ),
    _operation(
        "automations.resume", "POST", "/automations/{name}/resume", "Let an automation look at events again.", (NAME,),
        _named("automations", "resume"),
    ),
    _operation(
        "automations.delete", "DELETE", "/automations/{name}", "Take an automation away; its firings stay.", (NAME,),
        _named("automations", "rm"),
    ),
    _operation(
        "variables.set", "POST", "/variables/{name}", "Set a variable.",
        (NAME, Parameter("value", "json", "body", "Its value, as JSON.", required=True), _TAGS, _OVERWRITE), _variable_words,
    ),
    _operation(
        "variables.delete", "DELETE", "/variables/{name}", "Delete a variable.", (NAME,), _named("variables", "unset")
    ),
    Operation(
        "secrets.set", "POST", "/secrets/{name}", "Set a secret; its value is never shown again.",
        (NAME, Parameter("value", "string", "body", "Its value, a text.", required=True), _OVERWRITE),
        _set_secret, _secret_words,
    ),
    _operation(
        "secrets.check", "POST", "/secrets/{name}/check", "Say whether a secret can be read here; its value is not shown.",
        (NAME,), _named("secrets", "check"),
    ),
    _operation("secrets.delete", "DELETE", "/secrets/{name}", "Delete a secret.", (NAME,), _named("secrets", "unset")),
)  # fmt: skip
