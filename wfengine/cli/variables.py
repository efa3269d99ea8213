"""`wfengine variables`: list, read, set and delete the named values that flows share."""

from __future__ import annotations

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path
from wfengine.cli.listing import write_list
from wfengine.cli.output import (
    ago_text,
    clean,
    clean_lines,
    json_text,
    json_value,
    say,
    write,
    write_json,
)
from wfengine_journal.errors import NotFoundError
from wfengine_journal.queries import reading
from wfengine_journal.variables import VariableRow, find_variable, list_variables

_JSON_OF_ONE = '{"name", "value", "tags", "created_at", "updated_at"}'


@click.group(
    cls=Group,
    name="variables",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.variables:ls", "List variables, by name."),
        "get": ("wfengine.cli.variables:get", "Print the value of one."),
        "set": ("wfengine.cli.variables:set_", "Set one."),
        "unset": ("wfengine.cli.variables:unset", "Delete one."),
    },
    epilog=epilog("Example:\n  wfengine variables set batch_size 500"),
)
def variables() -> None:
    """Named values that flows share: in code, Variable.get("name")."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "variables": [{_JSON_OF_ONE}]}}'),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, limit: int) -> int:
    """List variables, by name."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_variables(connection, limit=limit)
    write_list(settings, path, "variables", found, ("NAME", "TAGS", "SET", "VALUE"), cells=_cells, as_json=_json)
    return ExitCode.OK


def _cells(row: VariableRow) -> list[str]:
    return [clean(row.name), clean(", ".join(map(str, _tags(row)))), ago_text(row.updated_at), clean(row.value)]


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine variables get batch_size",
        f'JSON:\n  {{"schema_version", "command", "variable": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name")
@pass_settings
def get(settings: Settings, name: str) -> int:
    """Print the value of the variable NAME: text as it is, anything else as JSON."""
    with reading(journal_path(settings)) as connection:
        row = find_variable(connection, name)
    if row is None:
        raise NotFoundError(f"There is no variable {name!r}. See them with: wfengine variables ls")
    if settings.as_json:
        write_json("variables get", {"variable": _json(row)})
        return ExitCode.OK
    value = json_value(row.value)
    write(clean_lines(value) if isinstance(value, str) else json_text(value))
    return ExitCode.OK


@click.command(
    "set",
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine variables set batch_size 500\n"
        '  wfengine variables set regions \'["north", "south"]\' --overwrite\n'
        "  wfengine variables set version 1.10 --text",
        'JSON:\n  {"schema_version", "command", "variable": {"name", "value", "tags"}}',
    ),
)
@click.argument("name")
@click.argument("value")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given several times.")
@click.option("--overwrite", is_flag=True, help="Change a variable that exists.")
@click.option("--text", is_flag=True, help="Take VALUE as text even where it is JSON.")
@pass_settings
def set_(settings: Settings, name: str, value: str, tags: tuple[str, ...], overwrite: bool, text: bool) -> int:
    """Set the variable NAME to VALUE: what VALUE is as JSON, else the text itself."""
    parsed = value if text else json_value(value)
    execution.set_variable(journal_path(settings), name, parsed, tags=tags, overwrite=overwrite)
    if settings.as_json:
        write_json("variables set", {"variable": {"name": name, "value": parsed, "tags": sorted(set(tags))}})
    elif not settings.quiet:
        say(f"Variable '{name}' is set.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine variables unset batch_size", 'JSON:\n  {"schema_version", "command", "name", "existed": true}'
    ),
)
@click.argument("name")
@pass_settings
def unset(settings: Settings, name: str) -> int:
    """Delete the variable NAME."""
    path = existing_path(settings)
    if not execution.unset_variable(path, name):
        raise NotFoundError(f"There is no variable {name!r}. See them with: wfengine variables ls")
    if settings.as_json:
        write_json("variables unset", {"name": name, "existed": True})
    elif not settings.quiet:
        say(f"Variable '{clean(name)}' is deleted.")
    return ExitCode.OK


def _json(row: VariableRow) -> dict[str, object]:
    return {**row._asdict(), "value": json_value(row.value), "tags": _tags(row)}


def _tags(row: VariableRow) -> list[object]:
    found = json_value(row.tags) if row.tags else []
    return found if isinstance(found, list) else [found]
