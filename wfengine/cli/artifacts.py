"""`wfengine artifacts`: list and show what runs made for people to look at."""

from __future__ import annotations

import json

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import (
    ago_text,
    clean,
    clean_lines,
    instant_text,
    json_value,
    say,
    table_lines,
    write,
    write_json,
)
from wfengine_journal.artifacts import ArtifactRow, find_artifact, get_artifact, list_artifacts
from wfengine_journal.errors import NotFoundError
from wfengine_journal.queries import get_run, reading

_TYPES = ("markdown", "table", "link", "image", "progress")
_JSON_OF_ONE = (
    '{"id", "key", "type", "data", "description", "run_id", "run_name", "task_id", "task", "created_at", "updated_at"}'
)
#: Rows of a table that are shown; --json shows all.
ROWS_SHOWN = 1000


@click.group(
    cls=Group,
    name="artifacts",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.artifacts:ls", "List artifacts, the newest first."),
        "show": ("wfengine.cli.artifacts:show", "Show one."),
    },
    epilog=epilog("Example:\n  wfengine artifacts show report"),
)
def artifacts() -> None:
    """Texts, tables, links, pictures and progress that runs made for people to look at."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine artifacts ls --run @last",
        f'JSON:\n  {{"schema_version", "command", "journal", "artifacts": [{_JSON_OF_ONE}], "next_before_id"}}\n'
        "  next_before_id: for --before, to get the next page; null at the end",
    ),
)
@click.option("--run", help="Only those of this run: id, name, beginning of a name, or @last.")
@click.option("--key", help="Only those with this key: the versions of one thing.")
@click.option("--type", "kind", type=click.Choice(_TYPES, case_sensitive=False), help="Only those of this type.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), help="Only those with a smaller id: the next page.")
@pass_settings
def ls(settings: Settings, run: str | None, key: str | None, kind: str | None, limit: int, before: int | None) -> int:
    """List artifacts, the newest first."""
    path = journal_path(settings)
    page: dict[str, int] = {} if before is None else {"before_id": before}
    with reading(path) as connection:
        run_id = None if run is None else get_run(connection, run).id
        found = list_artifacts(connection, key=key, kind=kind, run_id=run_id, limit=limit + 1, **page)
    shown, more = found[:limit], len(found) > limit
    if settings.as_json:
        next_id = shown[-1].id if more else None
        listed = [_json(row) for row in shown]
        write_json("artifacts ls", {"journal": str(path), "artifacts": listed, "next_before_id": next_id})
        return ExitCode.OK
    if not shown:
        if not settings.quiet:
            say(f"no such artifacts in {shown_path(path)}")
        return ExitCode.OK
    cells = [
        [str(row.id), clean(row.key or ""), clean(row.type), _maker(row), ago_text(row.updated_at), _summary(row)]
        for row in shown
    ]
    for line in table_lines(("ID", "KEY", "TYPE", "MADE BY", "CHANGED", "SHOWS"), cells, right=(0,)):
        write(line)
    if more and not settings.quiet:
        say(f"older ones: add --before {shown[-1].id}, or --limit")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine artifacts show report\n  wfengine artifacts show 12",
        f'JSON:\n  {{"schema_version", "command", "artifact": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("artifact", metavar="ID_OR_KEY")
@pass_settings
def show(settings: Settings, artifact: str) -> int:
    """Show the artifact of that id, or the one of that key that was changed last."""
    with reading(journal_path(settings)) as connection:
        row = get_artifact(connection, int(artifact)) if artifact.isdecimal() and len(artifact) < 19 else None
        row = row or find_artifact(connection, artifact)
    if row is None:
        raise NotFoundError(f"There is no artifact with the id or key {artifact!r}. See them with: wfengine artifacts ls")
    if settings.as_json:
        write_json("artifacts show", {"artifact": _json(row)})
        return ExitCode.OK
    if not settings.quiet:
        say(f"{clean(row.type)} {row.id}, made by {_maker(row)}, changed {instant_text(row.updated_at)}")
        if row.description:
            say(clean_lines(row.description))
    for line in _content(row):
        write(line)
    return ExitCode.OK


def _maker(row: ArtifactRow) -> str:
    if row.run_id is None:
        return "no run"
    run = clean(row.run_name) if row.run_name else f"run {row.run_id}"
    return f"{run}/{clean(row.task)}" if row.task else run


def _json(row: ArtifactRow) -> dict[str, object]:
    return {**row._asdict(), "data": row.data if row.type == "markdown" else json_value(row.data)}


def _summary(row: ArtifactRow) -> str:
    """Return one line that says what it shows."""
    data = row.data if row.type == "markdown" else json_value(row.data)
    if row.type == "progress":
        return f"{data} %"
    if row.type == "table":
        _, rows = _table(data)
        return clean(row.description or f"{len(rows)} rows")
    return clean(row.description or (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)))


def _content(row: ArtifactRow) -> list[str]:
    """Return the lines of the thing itself."""
    data = row.data if row.type == "markdown" else json_value(row.data)
    if row.type == "table":
        columns, rows = _table(data)
        shown = table_lines(columns, rows[:ROWS_SHOWN]) if columns else ["(empty)"]
        return shown if len(rows) <= ROWS_SHOWN else [*shown, f"... and {len(rows) - ROWS_SHOWN} more rows: --json shows all"]
    if row.type == "progress":
        return [f"{data} %"]
    if row.type == "link" and isinstance(data, dict):
        text, link = clean(data.get("text")), clean(data.get("link"))
        return [link if text == link else f"{text}: {link}"]
    return [clean_lines(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))]


def _table(data: object) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of a table in any of its forms, as cells for people."""
    if isinstance(data, dict):
        columns = [list(column) if isinstance(column, list) else [column] for column in data.values()]
        height = max((len(column) for column in columns), default=0)
        rows = [[_cell(column[n]) if n < len(column) else "" for column in columns] for n in range(height)]
        return [clean(name) for name in data], rows
    if not isinstance(data, list):
        return [], []
    if data and all(isinstance(row, dict) for row in data):
        names = list(dict.fromkeys(name for row in data for name in row))
        return [clean(name) for name in names], [[_cell(row.get(name)) for name in names] for row in data]
    width = max((len(row) for row in data if isinstance(row, list)), default=0)
    rows = [[_cell(cell) for cell in (row if isinstance(row, list) else [row])] for row in data]
    return [str(number) for number in range(width)], [row + [""] * (width - len(row)) for row in rows]


def _cell(value: object) -> str:
    return "" if value is None else clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
