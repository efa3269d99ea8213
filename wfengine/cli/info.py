"""`wfengine info`: which journal is used and why, what it holds, and which versions are at work."""

from __future__ import annotations

import platform
import sqlite3
from dataclasses import asdict
from pathlib import Path

import click

from wfengine._version import __version__
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, journal_reason
from wfengine.cli.output import clean, instant_text, size_text, write, write_json
from wfengine_journal.errors import JournalNotFoundError
from wfengine_journal.health import JournalInfo, journal_info
from wfengine_journal.queries import reading


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine info",
        'JSON:\n  {"schema_version", "command", "path", "why", "exists", "journal": {"format", "runs", ...},\n'
        '   "versions": {"wfengine", "python", "sqlite"}}',
    ),
)
@pass_settings
def info(settings: Settings) -> int:
    """Say which journal is used and why, what it holds, and which versions are at work."""
    path, reason = journal_path(settings), journal_reason(settings)
    found: JournalInfo | None = None
    try:
        with reading(path) as connection:
            found = journal_info(connection, path)
    except JournalNotFoundError:
        # A journal that was named has to be there; the default one comes into being with the first run.
        if not reason.startswith("the default"):
            raise
    versions = {"wfengine": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if settings.as_json:
        _write_json(path, reason, found, versions)
        return ExitCode.OK
    facts = [("journal", clean(path)), ("why", clean(reason))]
    facts += _facts(found) if found else [("state", "not created yet; the first run creates it")]
    facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    for name, text in facts:
        write(f"{name:<10}  {text}")
    return ExitCode.OK


def _write_json(path: Path, reason: str, found: JournalInfo | None, versions: dict[str, str]) -> None:
    journal = {**asdict(found), "runs": dict(found.runs)} if found else None
    fields = {"path": str(path), "why": reason, "exists": found is not None, "journal": journal, "versions": versions}
    write_json("info", fields)


def _facts(found: JournalInfo) -> list[tuple[str, str]]:
    runs = ", ".join(f"{number:,} {clean(state)}" for state, number in found.runs) or "none"
    return [
        ("format", f"{found.format}, created {instant_text(found.created_at)} by {clean(found.created_by)}"),
        (
            "size",
            f"{size_text(found.file_bytes)}, log {size_text(found.wal_bytes)}, unused {size_text(found.free_bytes)}",
        ),
        ("flows", f"{found.flows:,}"),
        ("runs", runs),
        ("task runs", f"{found.task_runs:,}"),
        ("values", f"{found.values:,}"),
        ("log lines", f"{found.logs:,}"),
    ]
