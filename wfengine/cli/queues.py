"""`wfengine queues`: where runs of deployments wait, and what lets them out."""

from __future__ import annotations

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path
from wfengine.cli.limits import options_of
from wfengine.cli.listing import write_list
from wfengine.cli.output import clean, say, write_json
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.queries import reading
from wfengine_journal.quota_queries import QueueView, list_queue_views
from wfengine_journal.quotas import rate_text

_JSON_OF_ONE = (
    '{"name", "paused", "slots", "partition_slots", "rate", "rate_count", "rate_seconds", "waiting", "running", "description"}'
)


@click.group(
    cls=Group,
    name="queues",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.queues:ls", "List queues, by name."),
        "set": ("wfengine.cli.queues:set_", "Limit one."),
        "pause": ("wfengine.cli.queues:pause", "Let no run out of one."),
        "resume": ("wfengine.cli.queues:resume", "Let runs out of it again."),
        "rm": ("wfengine.cli.queues:rm", "Take the limits of one away."),
    },
    epilog=epilog("Example:\n  wfengine queues set etl --slots 2 --per-partition 1 --rate 100/min"),
)
def queues() -> None:
    """Queues of runs: how many of them go on at a time. A queue exists where it is named; without limits, all is let in."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "queues": [{_JSON_OF_ONE}]}}'),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, limit: int) -> int:
    """List queues, by name: those with limits, deployments, or runs that wait."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_queue_views(connection, limit=limit)
    header = ("NAME", "STATE", "WAITING", "RUNNING", "SLOTS", "PER-PARTITION", "RATE")
    write_list(settings, path, "queues", found, header, cells=_cells, as_json=_json)
    return ExitCode.OK


def _cells(row: QueueView) -> list[str]:
    return [
        clean(row.name),
        "paused" if row.paused else "open",
        str(row.waiting),
        str(row.running),
        "any" if row.slots is None else str(row.slots),
        "any" if row.partition_slots is None else str(row.partition_slots),
        rate_text(row.rate_count, row.rate_seconds) or "any",
    ]


@click.command(
    "set",
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine queues set etl --slots 2 --per-partition 1 --rate 100/min\n"
        "  wfengine queues set etl --rate none",
        f'JSON:\n  {{"schema_version", "command", "queue": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name")
@click.option("--slots", metavar="N", help="So many runs at a time; 'none': any number; 0: none is let out.")
@click.option("--per-partition", metavar="N", help="So many runs of one partition key at a time; 'none': any number.")
@click.option("--rate", metavar="N/TIME", help="So many starts in a time: 10/s, 100/min, 5/30s; 'none': any number.")
@click.option("--description", metavar="TEXT", help="For people.")
@pass_settings
def set_(
    settings: Settings, name: str, slots: str | None, per_partition: str | None, rate: str | None, description: str | None
) -> int:  # fmt: skip
    """Limit the queue NAME; what is not said stays as it is."""
    options = options_of(slots=slots, per_partition=per_partition, rate=rate, description=description)
    if not options:
        raise UsageError(f"Nothing was said of the queue {name!r}. Say: --slots 2, --per-partition 1 or --rate 100/min.")
    return _change(settings, "set", name, "is set", options)


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine queues pause etl", f'JSON:\n  {{"schema_version", "command", "queue": {_JSON_OF_ONE}}}'
    ),
)
@click.argument("name")
@pass_settings
def pause(settings: Settings, name: str) -> int:
    """Let no run out of the queue NAME; those that are going on go on."""
    return _change(settings, "pause", name, "is paused", {})


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine queues resume etl", f'JSON:\n  {{"schema_version", "command", "queue": {_JSON_OF_ONE}}}'
    ),
)
@click.argument("name")
@pass_settings
def resume(settings: Settings, name: str) -> int:
    """Let runs out of the queue NAME again."""
    return _change(settings, "resume", name, "is open", {})


@click.command(
    cls=Command,
    epilog=epilog("Example:\n  wfengine queues rm etl", 'JSON:\n  {"schema_version", "command", "name", "existed": true}'),
)
@click.argument("name")
@pass_settings
def rm(settings: Settings, name: str) -> int:
    """Take all limits of the queue NAME away, and its pause; its runs stay."""
    path = existing_path(settings)
    if not execution.change_queue(path, name, "rm"):
        raise NotFoundError(f"The queue {name!r} has no limits. See queues with: wfengine queues ls")
    if settings.as_json:
        write_json("queues rm", {"name": name, "existed": True})
    elif not settings.quiet:
        say(f"Queue '{clean(name)}' has no limits any more.")
    return ExitCode.OK


def _change(settings: Settings, verb: str, name: str, said: str, options: dict[str, object]) -> int:
    path = journal_path(settings)
    execution.change_queue(path, name, verb, **options)
    with reading(path) as connection:
        row = list_queue_views(connection, name=name)[0]
    if settings.as_json:
        write_json(f"queues {verb}", {"queue": _json(row)})
    elif not settings.quiet:
        say(f"Queue '{clean(name)}' {said}.")
    return ExitCode.OK


def _json(row: QueueView) -> dict[str, object]:
    return {**row._asdict(), "paused": bool(row.paused), "rate": rate_text(row.rate_count, row.rate_seconds)}
