"""`wfengine limits`: what may be done by so many at a time, or so often in a time."""

from __future__ import annotations

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path
from wfengine.cli.listing import write_list
from wfengine.cli.output import ago_text, clean, say, table_lines, write, write_json
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.queries import reading
from wfengine_journal.quota_queries import LimitView, PlaceView, list_limit_views, list_place_views
from wfengine_journal.quotas import TAG_PREFIX, rate_text

_JSON_OF_ONE = (
    '{"name", "tag", "slots", "taken", "rate", "rate_count", "rate_seconds", "paused", "description", "created_at",'
    ' "updated_at"}'
)
#: What takes a part of a limit away.
NONE = "none"


@click.group(
    cls=Group,
    name="limits",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.limits:ls", "List limits, by name."),
        "show": ("wfengine.cli.limits:show", "Show one, and who holds its places."),
        "set": ("wfengine.cli.limits:set_", "Set one."),
        "rm": ("wfengine.cli.limits:rm", "Remove one."),
    },
    epilog=epilog("Examples:\n  wfengine limits set database --slots 3\n  wfengine limits set api --rate 10/s"),
)
def limits() -> None:
    """How many may do something at a time: in code, with concurrency("database"): ... and rate_limit("api")."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "limits": [{_JSON_OF_ONE}]}}'),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, limit: int) -> int:
    """List limits, by name; those of tags too."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_limit_views(connection, limit=limit)
    header = ("NAME", "OF", "SLOTS", "TAKEN", "RATE", "DESCRIPTION")
    write_list(settings, path, "limits", found, header, cells=_cells, as_json=_json)
    return ExitCode.OK


def _cells(row: LimitView) -> list[str]:
    return [
        clean(_name(row)),
        "tag" if _is_tag(row) else "",
        "any" if row.slots is None else str(row.slots),
        str(row.taken),
        rate_text(row.rate_count, row.rate_seconds) or "any",
        clean(row.description or ""),
    ]


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine limits show database",
        f'JSON:\n  {{"schema_version", "command", "limit": {_JSON_OF_ONE},\n'
        '   "holders": [{"run_id", "run_name", "task_id", "pid", "occupies", "since"}], "waiting": [...]}',
    ),
)
@click.argument("name")
@click.option("--tag", is_flag=True, help="NAME is a tag.")
@pass_settings
def show(settings: Settings, name: str, tag: bool) -> int:
    """Show the limit NAME: who holds places of it, and who is the next to get some."""
    full = TAG_PREFIX + name if tag else name
    with reading(journal_path(settings)) as connection:
        found = list_limit_views(connection, name=full)
        places = list_place_views(connection, full)
    if not found:
        raise _missing(name, tag)
    row = found[0]
    holders, waiting = [one for one in places if one.occupies], [one for one in places if not one.occupies]
    if settings.as_json:
        fields = {"holders": [_place(one) for one in holders], "waiting": [_place(one) for one in waiting]}
        write_json("limits show", {"limit": _json(row), **fields})
        return ExitCode.OK
    rate = rate_text(row.rate_count, row.rate_seconds)
    slots = "any number at a time" if row.slots is None else f"{row.slots} at a time, {row.taken} taken"
    write(f"{clean(_name(row))}{' (tag)' if tag else ''}: {slots}; {'any rate' if rate is None else rate}")
    if row.description:
        write(clean(row.description))
    cells = [["holds" if one.occupies else "waits", str(one.occupies or ""), _who(one), ago_text(one.since)] for one in places]
    if cells:
        for line in table_lines(("", "PLACES", "WHO", "SINCE"), cells):
            write(line)
    return ExitCode.OK


@click.command(
    "set",
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine limits set database --slots 3\n"
        "  wfengine limits set api --rate 100/min\n"
        "  wfengine limits set heavy --tag --slots 2",
        f'JSON:\n  {{"schema_version", "command", "limit": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name")
@click.option("--slots", metavar="N", help="So many at a time; 'none': any number; 0: nobody.")
@click.option("--rate", metavar="N/TIME", help="So many starts in a time: 10/s, 100/min, 5/30s; 'none': any number.")
@click.option("--tag", is_flag=True, help="For task runs with the tag NAME.")
@click.option("--description", metavar="TEXT", help="For people.")
@pass_settings
def set_(settings: Settings, name: str, slots: str | None, rate: str | None, tag: bool, description: str | None) -> int:
    """Set the limit NAME, or change what is said here; the rest of it stays. Counts at once, for who waits too."""
    if slots is None and rate is None and description is None:
        raise UsageError(f"Nothing was said of the limit {name!r}. Say: --slots 3, or --rate 10/s.")
    options = options_of(slots=slots, rate=rate, description=description)
    path = journal_path(settings)
    execution.set_limit(path, name, tag=tag, **options)
    with reading(path) as connection:
        row = list_limit_views(connection, name=TAG_PREFIX + name if tag else name)[0]
    if settings.as_json:
        write_json("limits set", {"limit": _json(row)})
    elif not settings.quiet:
        say(f"Limit '{clean(name)}' is set.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog("Example:\n  wfengine limits rm database", 'JSON:\n  {"schema_version", "command", "name", "existed": true}'),
)
@click.argument("name")
@click.option("--tag", is_flag=True, help="NAME is a tag.")
@pass_settings
def rm(settings: Settings, name: str, tag: bool) -> int:
    """Remove the limit NAME: nothing is limited by it any more."""
    path = existing_path(settings)
    if not execution.remove_limit(path, name, tag=tag):
        raise _missing(name, tag)
    if settings.as_json:
        write_json("limits rm", {"name": name, "existed": True})
    elif not settings.quiet:
        say(f"Limit '{clean(name)}' is removed.")
    return ExitCode.OK


def options_of(**texts: str | None) -> dict[str, object]:
    """Return what was said on a command line, as the functions of `wfengine.concurrency` take it. Raises UsageError."""
    said: dict[str, object] = {}
    for option, text in texts.items():
        if text is None:
            continue
        if text == NONE:
            said[option] = None
        elif option in ("slots", "per_partition"):
            said[option] = _number(option.replace("_", "-"), text)
        else:
            said[option] = text
    return said


def _number(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"--{option} must be a whole number, or '{NONE}'; not {text!r}.")
    return int(text)


def _missing(name: str, tag: bool) -> NotFoundError:
    what = f"no limit of the tag {name!r}" if tag else f"no limit {name!r}"
    return NotFoundError(f"There is {what}. See them with: wfengine limits ls")


def _is_tag(row: LimitView) -> bool:
    return row.name.startswith(TAG_PREFIX)


def _name(row: LimitView) -> str:
    return row.name.removeprefix(TAG_PREFIX)


def _who(place: PlaceView) -> str:
    if not place.flow_run_id:
        return f"process {place.pid}"
    task = f", task run {place.task_run_id}" if place.task_run_id else ""
    return clean(f"flow run {place.flow_run_id} '{place.flow_run_name}'{task}, process {place.pid}")


def _place(place: PlaceView) -> dict[str, object]:
    return {
        "run_id": place.flow_run_id or None,
        "run_name": place.flow_run_name,
        "task_id": place.task_run_id or None,
        "pid": place.pid,
        "occupies": place.occupies,
        "since": place.since,
    }


def _json(row: LimitView) -> dict[str, object]:
    rate = rate_text(row.rate_count, row.rate_seconds)
    return {**row._asdict(), "name": _name(row), "tag": _is_tag(row), "paused": bool(row.paused), "rate": rate}
