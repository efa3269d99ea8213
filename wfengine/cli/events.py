"""`wfengine events`: list, show, follow and emit events, and make events of the rows of a table."""

from __future__ import annotations

import click

from wfengine.cli import event_execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path
from wfengine.cli.listing import write_list
from wfengine.cli.output import (
    clean,
    clean_lines,
    instant_text,
    json_text,
    json_value,
    say,
    write,
    write_json,
)
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.event_tables import list_watched_tables
from wfengine_journal.events import EventRow, find_event, list_events
from wfengine_journal.queries import reading

_JSON_OF_ONE = '{"id", "name", "resource", "run_id", "task_id", "labels", "related", "payload", "key", "occurred_at"}'
_JSON_OF_CHANGE = 'JSON:\n  {"schema_version", "command", "table", "event", "outcome"}'


@click.group(
    cls=Group,
    name="events",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.events:ls", "List events, the newest first."),
        "show": ("wfengine.cli.events:show", "Show one."),
        "follow": ("wfengine.cli.events:follow", "Print events as they happen."),
        "emit": ("wfengine.cli.events:emit", "Emit one."),
        "watch": ("wfengine.cli.events:watch", "Make an event of each row that is inserted into a table."),
        "unwatch": ("wfengine.cli.events:unwatch", "Make no events of a table's rows any more."),
    },
    epilog=epilog("Example:\n  wfengine events emit order.placed order.12 --payload '{\"total\": 80}'"),
)
def events() -> None:
    """What happened: state changes of flow runs, and what programs, tables, files and webhooks made an event."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine events ls --name 'order.*'\n  wfengine events ls --name 'wfengine.flow-run.Failed' --limit 5",
        f'JSON:\n  {{"schema_version", "command", "journal", "events": [{_JSON_OF_ONE}], "watched": [{{"table", "event"}}]}}',
    ),
)
@click.option("--name", help="Only those of this name; * stands for any text.")
@click.option("--resource", help="Only those of this resource; * stands for any text.")
@click.option("--run", "run_id", type=click.IntRange(1), help="Only those of the flow run with this id.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, name: str | None, resource: str | None, run_id: int | None, limit: int) -> int:
    """List events, the newest first."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_events(connection, name=name, resource=resource, run_id=run_id, limit=limit)
        watched = list_watched_tables(connection)
    write_list(
        settings, path, "events", found, ("ID", "OCCURRED", "NAME", "RESOURCE", "PAYLOAD"), cells=_cells, as_json=_json,
        right=(0,), none="no such", more={"watched": [each._asdict() for each in watched]},
    )  # fmt: skip
    if watched and not settings.quiet and not settings.as_json:
        say(f"watched tables: {', '.join(f'{clean(each.table)} ({clean(each.event)})' for each in watched)}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine events show 12",
        f'JSON:\n  {{"schema_version", "command", "event": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("event_id", metavar="ID", type=click.IntRange(1, 2**62))
@pass_settings
def show(settings: Settings, event_id: int) -> int:
    """Show the event with this ID."""
    with reading(journal_path(settings)) as connection:
        row = find_event(connection, event_id)
    if row is None:
        raise NotFoundError(f"There is no event {event_id}. See them with: wfengine events ls")
    if settings.as_json:
        write_json("events show", {"event": _json(row)})
        return ExitCode.OK
    fields = [
        ("event", row.id),
        ("name", row.name),
        ("resource", row.resource),
        ("occurred", instant_text(row.occurred_at)),
        ("run", f"{row.flow_run_id} {row.run_name or ''}" if row.flow_run_id is not None else None),
        ("flow", row.flow),
        ("deployment", row.deployment),
        ("task run", row.task_run_id),
        ("labels", row.labels),
        ("related", row.related),
        ("payload", row.payload),
        ("key", row.idempotency_key),
    ]
    for name, value in fields:
        if value is not None:
            write(f"{name:<11} {clean(value)}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine events follow --name 'order.*'\n  wfengine events follow --json --count 1 --timeout 60",
        f"With --json each line is an event:\n  {_JSON_OF_ONE}",
    ),
)
@click.option("--name", help="Only those of this name; * stands for any text.")
@click.option("--resource", help="Only those of this resource; * stands for any text.")
@click.option("--after", type=click.IntRange(0, 2**62), help="Begin after the event with this id. Default: with what comes.")
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--timeout", type=click.FloatRange(0.0), metavar="SECONDS", help="End after so long.")
@pass_settings
def follow(
    settings: Settings, name: str | None, resource: str | None, after: int | None, count: int | None, timeout: float | None
) -> int:
    """Print events as they happen, oldest first, until Ctrl-C."""
    path = journal_path(settings)
    with reading(path) as connection:
        newest = list_events(connection, limit=1)
    seen = after if after is not None else newest[0].id if newest else 0
    printed = 0

    def look() -> bool:
        nonlocal seen, printed
        with reading(path) as connection:
            found = list_events(connection, name=name, resource=resource, after=seen, limit=1000)
        for row in found[: None if count is None else count - printed]:
            seen, printed = row.id, printed + 1
            write(json_text(_json(row)) if settings.as_json else "  ".join(_cells(row)))
        return count is not None and printed >= count

    event_execution.follow(path, look, timeout)
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine events emit order.placed order.12 --payload '{\"total\": 80}' --key order-12\n"
        "  wfengine events emit disk.full host.a --label mount=/var",
        'JSON:\n  {"schema_version", "command", "event": {"id", "name", "resource", "is_new"}}',
    ),
)
@click.argument("name")
@click.argument("resource")
@click.option("--payload", help="JSON, else text.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the resource; several times.")
@click.option("--key", help="A second event of this name and key is not recorded.")
@pass_settings
def emit(settings: Settings, name: str, resource: str, payload: str | None, labels: tuple[str, ...], key: str | None) -> int:
    """Emit the event NAME of a RESOURCE."""
    path = journal_path(settings)
    of = {**dict(map(_label, labels)), "wfengine.resource.id": resource}
    event_id, is_new = event_execution.emit(path, name, of, payload=json_value(payload), key=key)
    if settings.as_json:
        write_json("events emit", {"event": {"id": event_id, "name": name, "resource": resource, "is_new": is_new}})
    elif not settings.quiet:
        said = "is emitted" if is_new else "was emitted before, with this key"
        say(f"Event {event_id}, {clean(name)} of {clean(resource)}, {said}.")
    return ExitCode.OK


def _label(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"A label is NAME=VALUE, not {text!r}.")
    return name, value


@click.command(
    cls=Command,
    epilog=epilog("Example:\n  wfengine events watch user_orders --name order.placed", _JSON_OF_CHANGE),
)
@click.argument("table")
@click.option("--name", "event", help="Of the events. Default: TABLE.inserted")
@pass_settings
def watch(settings: Settings, table: str, event: str | None) -> int:
    """Make an event of each row that anybody inserts into TABLE, a table of yours (user_...) in the journal's file."""
    path = existing_path(settings)
    name, outcome = event_execution.watch(path, table, event)
    if settings.as_json:
        write_json("events watch", {"table": table, "event": name, "outcome": outcome})
    elif not settings.quiet:
        was = " already" if outcome == "unchanged" else ""
        say(f"Each row that is inserted into {clean(table)} is an event{was}: {clean(name)}, its payload the row.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine events unwatch user_orders", 'JSON:\n  {"schema_version", "command", "table", "outcome"}'
    ),
)
@click.argument("table")
@pass_settings
def unwatch(settings: Settings, table: str) -> int:
    """Make no events of the rows of TABLE any more."""
    path = existing_path(settings)
    if not event_execution.unwatch(path, table):
        raise NotFoundError(f"The table {table!r} is not watched. See which are: wfengine events ls")
    if settings.as_json:
        write_json("events unwatch", {"table": table, "outcome": "removed"})
    elif not settings.quiet:
        say(f"Rows of {clean(table)} are no events any more.")
    return ExitCode.OK


def _cells(row: EventRow) -> list[str]:
    resource = f"{row.resource} {row.run_name}" if row.run_name is not None else row.resource
    return [str(row.id), instant_text(row.occurred_at), clean(row.name), clean(resource), clean(clean_lines(row.payload or ""))]


def _json(row: EventRow) -> dict[str, object]:
    return {
        "id": row.id, "name": row.name, "resource": row.resource, "run_id": row.flow_run_id, "task_id": row.task_run_id,
        "labels": json_value(row.labels), "related": json_value(row.related), "payload": json_value(row.payload),
        "key": row.idempotency_key, "occurred_at": row.occurred_at,
    }  # fmt: skip
