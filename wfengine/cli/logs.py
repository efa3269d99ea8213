"""`wfengine logs`: search what all runs logged, and the index for it."""

from __future__ import annotations

from dataclasses import asdict

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path, shown_path
from wfengine.cli.output import clean, clean_lines, instant_text, say, write, write_json
from wfengine.cli.runs import LEVEL_COLORS, LEVELS, since_text
from wfengine_journal import log_search
from wfengine_journal.log_search import SCANNED_LINES, Filter, Found, FoundLine
from wfengine_journal.queries import MAX_ID, get_run, reading


@click.group(
    cls=Group,
    name="logs",
    no_args_is_help=True,
    table={
        "search": ("wfengine.cli.logs:search", "Find words in what runs logged."),
        "index": ("wfengine.cli.logs:index", "Make, or bring up to date, an index for it."),
    },
    epilog=epilog("Example:\n  wfengine logs search timeout --level warning --since 2d"),
)
def logs() -> None:
    """Search what all runs logged. For one run, and to follow it: wfengine runs logs RUN"""


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine logs search timeout --flow etl --since 2d\n  wfengine logs search 'connection reset' postgres*",
        'JSON:\n  {"schema_version", "command", "journal", "indexed", "whole", "logs": [{"id", "at", "level", "run_id", "run",'
        ' "flow", "task_id", "task", "logger", "message"}], "next_before_id"}\n'
        "  whole is false where older lines were not searched, for want of an index",
    ),
)
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("--run", help="Only what this run logged.")
@click.option("--flow", help="Only what runs of this flow logged.")
@click.option("--level", type=click.Choice(list(LEVELS), case_sensitive=False), help="This level and above.")
@click.option("--since", metavar="AGE_OR_TIME", help="Only lines since: 30m, 2h, 3d, 2026-11-22, 2026-11-22T15:30 (UTC).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many, the newest.")
@click.option("--before", type=click.IntRange(1, MAX_ID), metavar="ID", help="Only lines with a smaller id: the next page.")
@pass_settings
def search(
    settings: Settings, words: tuple[str, ...], run: str | None, flow: str | None, level: str | None, since: str | None,
    limit: int, before: int | None,
) -> int:  # fmt: skip
    """Find lines that hold every WORD, whatever its case; the newest come last.

    'several words' in quotes stand beside each other in this order; word* is the beginning of one. With an index (wfengine logs
    index) all lines are searched, which is quick; without it, the newest 100,000.
    """
    path, instant = journal_path(settings), since_text(since) if since else None
    run_id = None
    if run is not None:
        with reading(path) as connection:
            run_id = get_run(connection, run).id
    least = LEVELS[level.lower()] if level else 0
    wanted = Filter(run_id, flow, least, instant, MAX_ID if before is None else before)
    found = log_search.search(path, words, wanted, limit=limit)
    if settings.as_json:
        fields = {
            "journal": str(path), "indexed": found.is_indexed, "whole": found.is_whole,
            "logs": [asdict(line) for line in reversed(found.lines)], "next_before_id": _next_id(found),
        }  # fmt: skip
        write_json("logs search", fields)
        return ExitCode.OK
    for line in reversed(found.lines):
        write(_text(line))
    if not settings.quiet:
        for sentence in _remarks(found):
            say(sentence)
    return ExitCode.OK


def _next_id(found: Found) -> int | None:
    return found.lines[-1].id if found.more else None


def _remarks(found: Found) -> list[str]:
    remarks = [] if found.lines else ["no such lines"]
    if found.more:
        remarks.append(f"older ones: add --before {_next_id(found)}, or --limit")
    if not found.is_whole:
        remarks.append(f"only the newest {SCANNED_LINES:,} lines were searched; for all of them: wfengine logs index")
    return remarks


def _text(line: FoundLine) -> str:
    names = {number: name.upper() for name, number in LEVELS.items()}
    level = click.style(f"{names.get(line.level, str(line.level)):<8}", fg=LEVEL_COLORS.get(line.level))
    where = f"{line.run_id} {clean(line.run)}" + (f" {clean(line.task)}" if line.task else "")
    message = clean_lines(line.message).replace("\n", "\n    ")
    return f"{instant_text(line.at)}  {level} {where}  {message}"


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine logs index\n  wfengine logs index --drop",
        'JSON:\n  {"schema_version", "command", "journal", "index", "lines", "added", "removed", "bytes"}, all 0 after --drop',
    ),
)
@click.option("--drop", is_flag=True, help="Delete the index.")
@pass_settings
def index(settings: Settings, drop: bool) -> int:
    """Make an index of all lines that runs logged, or bring it up to date: a file beside the journal, NAME-search.

    Once it is there, each search brings it up to date first. Runs do not write it, and never wait for it. It takes as much room
    again as the lines themselves.
    """
    path = existing_path(settings)
    file = log_search.index_path(path)
    if drop:
        was_there, updated = log_search.delete(path), log_search.Updated()
    else:
        updated = log_search.update(path)
    size = file.stat().st_size if file.exists() else 0
    if settings.as_json:
        write_json("logs index", {"journal": str(path), "index": str(file), **asdict(updated), "bytes": size})
    elif not settings.quiet:
        if drop:
            say(f"{shown_path(file)} is deleted" if was_there else "there is no index")
        else:
            say(f"{updated.lines:,} lines in {shown_path(file)}, {size:,} bytes; {updated.added:,} of them new")
    return ExitCode.OK
