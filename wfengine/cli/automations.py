"""`wfengine automations`: list, show, apply, try and switch automations, and see what they did."""

from __future__ import annotations

import sqlite3
import tomllib
from pathlib import Path

import click

from wfengine.cli import event_execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import ago_text, clean, instant_text, json_text, json_value, say, table_lines, write, write_json
from wfengine_journal.automations import (
    AutomationRow,
    FiringRow,
    count_firings,
    get_automation,
    list_automations,
    list_firings,
)
from wfengine_journal.errors import UsageError
from wfengine_journal.queries import reading

#: Bytes of a file with automations.
FILE_LIMIT = 1_000_000

_JSON_OF_ONE = (
    '{"id", "name", "description", "active", "trigger", "actions", "firings",'
    ' "last_fired_at", "due_at", "applied_from", "mind"}'
)
_JSON_OF_FIRING = (
    '{"id", "automation", "state", "event_id", "results", "attempts", "next_attempt_at", "fired_at", "ended_at", "context"}'
)
_JSON_OF_CHANGE = 'JSON:\n  {"schema_version", "command", "automation", "outcome"}'


@click.group(
    cls=Group,
    name="automations",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.automations:ls", "List automations, by name."),
        "show": ("wfengine.cli.automations:show", "Show one: its trigger, its actions, what it keeps in mind."),
        "apply": ("wfengine.cli.automations:apply", "Record those of a TOML file."),
        "test": ("wfengine.cli.automations:test", "Try one on events that you make up; nothing is done."),
        "firings": ("wfengine.cli.automations:firings", "What automations did, the newest first."),
        "pause": ("wfengine.cli.automations:pause", "Let one look at nothing."),
        "resume": ("wfengine.cli.automations:resume", "Let one look at events again."),
        "rm": ("wfengine.cli.automations:rm", "Take one away."),
    },
    epilog=epilog("Example:\n  wfengine automations apply wfengine.toml"),
)
def automations() -> None:
    """What is done when certain events happen, or do not. A daemon does it."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine automations ls",
        f'JSON:\n  {{"schema_version", "command", "journal", "automations": [{_JSON_OF_ONE}]}}',
    ),
)
@pass_settings
def ls(settings: Settings) -> int:
    """List automations, by name."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_automations(connection)
        counted = [count_firings(connection, row.id) for row in found]
        fields = [_json(connection, row) for row in found] if settings.as_json else []
    if settings.as_json:
        write_json("automations ls", {"journal": str(path), "automations": fields})
        return ExitCode.OK
    if not found:
        if not settings.quiet:
            say(f"no automations in {shown_path(path)}")
        return ExitCode.OK
    cells = [
        [
            clean(row.name),
            "yes" if row.active else "no",
            str(count),
            ago_text(last),
            clean(row.description or _shown_trigger(row)),
        ]
        for row, (count, last) in zip(found, counted, strict=True)
    ]
    for line in table_lines(("AUTOMATION", "ACTIVE", "FIRED", "LAST", "WHAT"), cells, right=(2,)):
        write(line)
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine automations show ship",
        f'JSON:\n  {{"schema_version", "command", "automation": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name")
@pass_settings
def show(settings: Settings, name: str) -> int:
    """Show the automation NAME: its trigger, its actions, and what it keeps in mind between events."""
    with reading(journal_path(settings)) as connection:
        row = get_automation(connection, name)
        shown = _json(connection, row)
    if settings.as_json:
        write_json("automations show", {"automation": shown})
        return ExitCode.OK
    for key in (
        "name",
        "description",
        "active",
        "trigger",
        "actions",
        "firings",
        "last_fired_at",
        "due_at",
        "applied_from",
        "mind",
    ):
        value = shown[key]
        if value is None or value == {}:
            continue
        if key == "actions" and isinstance(value, list):
            for number, action in enumerate(value):
                write(f"{'actions' if not number else '':<13} {clean(json_text(action))}")
            continue
        write(f"{key.replace('_at', '').replace('_', ' '):<13} {_text(key, value)}")
    return ExitCode.OK


def _text(key: str, value: object) -> str:
    if key == "active":
        return "yes" if value else "no"
    if key.endswith("_at"):
        return instant_text(str(value))
    return clean(value if isinstance(value, str) else json_text(value))


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine automations apply wfengine.toml --prune",
        'JSON:\n  {"schema_version", "command", "automations": [{"name", "outcome"}]}',
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--prune", is_flag=True, help="Remove those that this file held and holds no more.")
@pass_settings
def apply(settings: Settings, file: Path, prune: bool) -> int:
    """Record the automations of a TOML FILE, its [[automations]] tables. Applying the same again changes nothing."""
    tables = _read(file)
    done = event_execution.apply(journal_path(settings), tables, str(file.resolve()), prune=prune)
    if settings.as_json:
        write_json("automations apply", {"automations": [{"name": name, "outcome": outcome} for name, outcome in done]})
        return ExitCode.OK
    for name, outcome in done:
        write(f"{outcome:<9}  {clean(name)}")
    if not done and not settings.quiet:
        say(f"no automations in {clean(file)}")
    return ExitCode.OK


def _read(file: Path) -> object:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"The file {file} cannot be read: {error.strerror or error}.") from error
    if len(data) > FILE_LIMIT:
        raise UsageError(f"The file {file} is larger than {FILE_LIMIT} bytes, which no file of automations is.")
    try:
        return tomllib.loads(data.decode()).get("automations", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"The file {file} is no TOML: {error}") from error


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        '  wfengine automations test ship --event \'{"name": "order.placed", "payload": {"id": 7}}\'\n'
        '  wfengine automations test late --event \'{"name": "job.begun"}\' --then 3600',
        "An event has a name, and may have: resource, labels, related, payload, flow_run (an id), flow, deployment, "
        "seconds (after the first).",
        'JSON:\n  {"schema_version", "command", "firings": [{"event", "actions"}]}',
    ),
)
@click.argument("name")
@click.option("--event", "texts", multiple=True, metavar="JSON", help="An event, or a list of them; several times.")
@click.option(
    "--then", "then_seconds", type=click.FloatRange(0, 1e9), default=0.0, metavar="SECONDS",
    help="Look again so long after the last event: for what does not come.",
)  # fmt: skip
@pass_settings
def test(settings: Settings, name: str, texts: tuple[str, ...], then_seconds: float) -> int:
    """Try the automation NAME on events that you make up, and print what it would do. Nothing is done or written."""
    with reading(journal_path(settings)) as connection:
        row = get_automation(connection, name)
    found = event_execution.rehearse(row, texts, then_seconds)
    if settings.as_json:
        write_json("automations test", {"firings": found})
        return ExitCode.OK
    for firing in found:
        by = "what did not come" if firing["event"] is None else f"event {firing['event']}"
        write(f"fires because of {by}")
        actions = firing["actions"]
        for action in actions if isinstance(actions, list) else ():
            write(f"  {clean(json_text(action))}")
    if not found:
        write("does not fire")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine automations firings\n  wfengine automations firings ship --state failed",
        f'JSON:\n  {{"schema_version", "command", "firings": [{_JSON_OF_FIRING}]}}',
    ),
)
@click.argument("name", required=False)
@click.option("--state", type=click.Choice(["pending", "done", "failed"]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@pass_settings
def firings(settings: Settings, name: str | None, state: str | None, limit: int) -> int:
    """List what automations did, or the one NAME, the newest first."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_firings(connection, automation=name, state=state, limit=limit)
    if settings.as_json:
        write_json("automations firings", {"firings": [_firing_json(row) for row in found]})
        return ExitCode.OK
    if not found:
        if not settings.quiet:
            say(f"no such firings in {shown_path(path)}")
        return ExitCode.OK
    cells = [[str(row.id), instant_text(row.fired_at), row.state, clean(row.automation), _shown_results(row)] for row in found]
    for line in table_lines(("ID", "FIRED", "STATE", "AUTOMATION", "RESULTS"), cells, right=(0,)):
        write(line)
    return ExitCode.OK


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine automations pause ship", _JSON_OF_CHANGE))
@click.argument("name")
@pass_settings
def pause(settings: Settings, name: str) -> int:
    """Let the automation NAME look at nothing; what it has fired already is done."""
    return _switch(settings, name, active=False)


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine automations resume ship", _JSON_OF_CHANGE))
@click.argument("name")
@pass_settings
def resume(settings: Settings, name: str) -> int:
    """Let the automation NAME look at events again, at those from now on."""
    return _switch(settings, name, active=True)


def _switch(settings: Settings, name: str, *, active: bool) -> int:
    path = journal_path(settings)
    with reading(path) as connection:
        row = get_automation(connection, name)
    changed = event_execution.set_active(path, row.name, active=active)
    verb, state = ("resume", "active") if active else ("pause", "paused")
    if settings.as_json:
        write_json(f"automations {verb}", {"automation": row.name, "outcome": "updated" if changed else "unchanged"})
    elif not settings.quiet:
        say(f"Automation {clean(row.name)} is {state}{'' if changed else ' already'}.")
    return ExitCode.OK


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine automations rm ship", _JSON_OF_CHANGE))
@click.argument("name")
@pass_settings
def rm(settings: Settings, name: str) -> int:
    """Take the automation NAME away. Its firings stay, and what it has fired already is done."""
    path = journal_path(settings)
    with reading(path) as connection:
        row = get_automation(connection, name)
    event_execution.remove(path, row.name)
    if settings.as_json:
        write_json("automations rm", {"automation": row.name, "outcome": "removed"})
    elif not settings.quiet:
        say(f"Automation {clean(row.name)} is removed.")
    return ExitCode.OK


# ------------------------------------------------------------------------------------------- small helpers


def _json(connection: sqlite3.Connection, row: AutomationRow) -> dict[str, object]:
    definition = json_value(row.definition)
    parts = definition if isinstance(definition, dict) else {}
    count, last = count_firings(connection, row.id)
    return {
        "id": row.id, "name": row.name, "description": row.description, "active": bool(row.active),
        "trigger": parts.get("trigger"), "actions": parts.get("actions"), "firings": count, "last_fired_at": last,
        "due_at": row.due_at, "applied_from": row.applied_from, "mind": json_value(row.state),
    }  # fmt: skip


def _shown_trigger(row: AutomationRow) -> str:
    definition = json_value(row.definition)
    trigger = definition.get("trigger") if isinstance(definition, dict) else None
    return _shown_one(trigger)


def _shown_one(trigger: object) -> str:
    if not isinstance(trigger, dict):
        return "cannot be read"
    inner = trigger.get("triggers")
    if isinstance(inner, list):
        return f"{trigger.get('type')} of {len(inner)} triggers"
    names = trigger.get("expect")
    shown = ", ".join(map(str, names)) if isinstance(names, list) and names else "any event"
    return f"no {shown}" if trigger.get("posture") == "Proactive" else shown


def _shown_results(row: FiringRow) -> str:
    results = json_value(row.results)
    parts = []
    for each in results if isinstance(results, list) else ():
        if isinstance(each, dict):
            why = f" ({each.get('reason')})" if each.get("reason") else ""
            parts.append(clean(f"{each.get('action') or 'nothing'} {each.get('outcome')}{why}"))
    return ", ".join(parts)


def _firing_json(row: FiringRow) -> dict[str, object]:
    return {
        "id": row.id, "automation": row.automation, "state": row.state, "event_id": row.event_id,
        "results": json_value(row.results), "attempts": row.attempts, "next_attempt_at": row.next_attempt_at,
        "fired_at": row.fired_at, "ended_at": row.ended_at, "context": json_value(row.context),
    }  # fmt: skip
