"""`wfengine deployments`: list and show what was applied; what is done with it is in `deployment_actions`."""

from __future__ import annotations

import sqlite3

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import ago_text, clean, clean_lines, instant_text, json_value, say, table_lines, write, write_json
from wfengine_journal.deployments import (
    DeploymentRow,
    ScheduleColumns,
    find_deployments,
    list_deployments,
    list_schedules,
)
from wfengine_journal.errors import NotFoundError
from wfengine_journal.queries import reading

_JSON_OF_ONE = (
    '{"id", "name", "flow", "full_name", "tags", "schedule", "active", "parameters", "version", "description", "entrypoint",'
    ' "created_at", "updated_at", "schedules"}'
)


@click.group(
    cls=Group,
    name="deployments",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.deployments:ls", "List deployments, by flow and name."),
        "show": ("wfengine.cli.deployments:show", "Show one, with its schedules."),
        "run": ("wfengine.cli.deployment_actions:run", "Put a run of one into its queue."),
        "pause": ("wfengine.cli.deployment_actions:pause", "Let its schedules start nothing."),
        "resume": ("wfengine.cli.deployment_actions:resume", "Let its schedules start runs again."),
        "rm": ("wfengine.cli.deployment_actions:rm", "Remove one."),
        "check": ("wfengine.cli.deployment_actions:check", "Which code cannot be loaded."),
    },
    epilog=epilog("Example:\n  wfengine deployments show etl/nightly"),
)
def deployments() -> None:
    """Flows with settings of their own, as their files applied them."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "deployments": [{_JSON_OF_ONE}]}}'),
)
@click.option("--flow", help="Only those of this flow.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, flow: str | None, limit: int) -> int:
    """List deployments, by flow and name."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_deployments(connection, flow=flow, limit=limit)
        fields = [_json(connection, row) for row in found] if settings.as_json else []
    if settings.as_json:
        write_json("deployments ls", {"journal": str(path), "deployments": fields})
        return ExitCode.OK
    if not found:
        if not settings.quiet:
            say(f"no such deployments in {shown_path(path)}")
        return ExitCode.OK
    for line in table_lines(("DEPLOYMENT", "ACTIVE", "TAGS", "CHANGED", "SCHEDULE"), [_cells(row) for row in found]):
        write(line)
    return ExitCode.OK


def _cells(row: DeploymentRow) -> list[str]:
    tags = json_value(row.tags) if row.tags else []
    return [
        clean(row.full_name),
        "yes" if row.active else "no",
        clean(", ".join(map(str, tags))) if isinstance(tags, list) else "",
        ago_text(row.updated_at),
        clean(row.schedule or ""),
    ]


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine deployments show etl/nightly\n  wfengine deployments show nightly --json",
        f'JSON:\n  {{"schema_version", "command", "deployment": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name", metavar="[FLOW/]NAME")
@pass_settings
def show(settings: Settings, name: str) -> int:
    """Show one deployment, with its schedules."""
    with reading(journal_path(settings)) as connection:
        row = _the_one(connection, name)
        schedules = list_schedules(connection, row.id)
        if settings.as_json:
            write_json("deployments show", {"deployment": _json(connection, row)})
            return ExitCode.OK
    lines = [
        ("flow", row.flow),
        ("parameters", row.parameters),
        ("tags", row.tags),
        ("version", row.version),
        ("description", row.description),
        ("code", row.entrypoint),
        ("changed", instant_text(row.updated_at)),
        ("active", "yes" if row.active else "no, it is paused" if row.paused and schedules else "no"),
        ("next", None if row.next_at is None else instant_text(row.next_at)),
        ("queue", f"{row.queue}, priority {row.priority}" if row.priority else row.queue),
        (
            "limit",
            None if row.concurrency_limit is None else f"{row.concurrency_limit} at a time, {_COLLISIONS[row.collision]}",
        ),
        ("isolated", "each run in a process of its own" if row.isolate else None),
        ("declared", row.applied_from),
    ]
    write(click.style(clean(row.full_name), bold=True))
    for title, text in lines:
        if text:
            write(f"  {title:<11} {clean_lines(text).strip().replace(chr(10), chr(10) + ' ' * 14)}")
    for schedule in schedules:
        write(f"  {'schedule':<11} {_schedule_text(schedule)}")
    return ExitCode.OK


_COLLISIONS = {"enqueue": "more wait", "cancel_new": "more are cancelled"}


def _the_one(connection: sqlite3.Connection, name: str) -> DeploymentRow:
    found = find_deployments(connection, name)
    if not found:
        raise NotFoundError(f"There is no deployment {name!r}. See them with: wfengine deployments ls")
    if len(found) > 1:
        names = ", ".join(clean(row.full_name) for row in found)
        raise NotFoundError(f"Several deployments are named {name!r}: {names}. Name the flow as well.")
    return found[0]


def _schedule_text(schedule: ScheduleColumns) -> str:
    """Return one schedule for people; the view has the same words without what only this command shows."""
    unit = " s" if schedule.kind == "interval" else ""
    parts = [f"{schedule.kind} {clean(schedule.rule)}{unit}, {clean(schedule.timezone)}"]
    if schedule.anchor_at:
        parts.append(f"from {instant_text(schedule.anchor_at)}")
    if schedule.slug:
        parts.append(f"named {clean(schedule.slug)}")
    if schedule.parameters != "{}":
        parts.append(f"with {clean(schedule.parameters)}")
    if schedule.jitter_seconds:
        parts.append(f"up to {schedule.jitter_seconds:g} s later")
    parts += [f"not before {instant_text(schedule.starts_at)}"] if schedule.starts_at else []
    parts += [f"not after {instant_text(schedule.ends_at)}"] if schedule.ends_at else []
    parts += [f"of late ones {schedule.catch_up}"] if schedule.catch_up != "last" else []
    parts += [f"overlap: {schedule.overlap}"] if schedule.overlap != "queue" else []
    return ", ".join([*parts, *([] if schedule.active else ["off"])])


def _json(connection: sqlite3.Connection, row: DeploymentRow) -> dict[str, object]:
    fields: dict[str, object] = {**row._asdict(), "active": bool(row.active)}
    for name in ("tags", "parameters"):
        fields[name] = json_value(getattr(row, name))
    fields["schedules"] = [
        {**schedule._asdict(), "parameters": json_value(schedule.parameters)} for schedule in list_schedules(connection, row.id)
    ]
    return fields
