"""`wfengine export`: runs as JSON Lines for other programs, or one run as an HTML page for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.files import target_path
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import json_text, say, size_text, write, write_json
from wfengine_journal.errors import UsageError


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine export > journal.jsonl\n  wfengine export @last --format html -o run.html",
        'JSON LINES:\n  one object on each line, with its "kind": journal, run, task, attempt, transition, failure, log,\n'
        "  message, artifact, cache_use, variable, deployment; the columns are those of the views",
        'JSON (with -o):\n  {"schema_version", "command", "journal", "target", "format", "bytes"}',
    ),
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "html"]),
    default="jsonl",
    show_default=True,
    help="html: one run, as a page.",
)
@click.option("-o", "--output", "target", metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@pass_settings
def export(settings: Settings, runs: tuple[str, ...], form: str, target: str | None, force: bool) -> int:
    """Write RUNs and their subflow runs (default: the whole journal) as JSON Lines, or one RUN as an HTML page.

    The page needs nothing but a browser: no script, no request. No stored value is turned back into an object.
    """
    from wfengine.files import export_runs, render_run

    if form == "html" and len(runs) != 1:
        raise UsageError("Name one run to export as a page, such as: wfengine export @last --format html -o run.html")
    path = journal_path(settings)
    parts: Iterator[str]
    if form == "html":
        parts = render_run(runs[0], journal=path)
    else:
        parts = (f"{json_text(row)}\n" for row in export_runs(runs or None, journal=path))
    if target is None:
        for part in parts:
            write(part.removesuffix("\n"))
        return ExitCode.OK
    file = target_path(target)
    size = _write_file(file, parts, force)
    if settings.as_json:
        write_json("export", {"journal": str(path), "target": str(file), "format": form, "bytes": size})
    if not settings.quiet:
        say(f"{shown_path(file)}: {size_text(size)}")
    return ExitCode.OK


def _write_file(file: Path, parts: Iterator[str], force: bool) -> int:
    """Write a private file, whole or not at all; return its size."""
    from wfengine_journal.extraction import new_file

    with new_file(file, overwrite=force) as building, building.open("w", encoding="utf-8") as stream:
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())
    return file.stat().st_size
