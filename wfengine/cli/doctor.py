"""`wfengine doctor`: check that the journal is sound."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, say, write, write_json
from wfengine_journal.errors import JournalCorruptError
from wfengine_journal.health import Check, Verdict, check_broken_file, run_checks
from wfengine_journal.queries import reading

_COLORS = {Verdict.OK: "green", Verdict.NOTE: "blue", Verdict.WARNING: "yellow", Verdict.DAMAGE: "red"}


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine doctor --thorough",
        'JSON:\n  {"schema_version", "command", "journal", "sound", "checks": [{"name", "verdict", "text"}]}\n'
        "  verdict: ok, note, warning, damage",
    ),
)
@click.option("--thorough", is_flag=True, help="Check the indexes against their tables too; slow on a large file.")
@click.option(
    "--values",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Stored values of each kind whose checksum is verified.",
)
@click.option(
    "--buckets", is_flag=True, help="List the buckets that hold results, and find objects that no row names. Needs credentials."
)
@pass_settings
def doctor(settings: Settings, thorough: bool, values: int, buckets: bool) -> int:
    """Check that the journal is sound: pages, references, checksums, owners, file mode. Changes nothing.

    The exit code is 5 if anything is damaged; warnings are advice.
    """
    path = journal_path(settings)
    checks: list[Check] = []
    for check in _checks(path, thorough, values, buckets):
        checks.append(check)
        if not settings.as_json and (not settings.quiet or check.verdict is Verdict.DAMAGE):
            verdict = click.style(f"{check.verdict.value:<8}", fg=_COLORS[check.verdict])
            write(f"{verdict} {check.name:<11} {clean(check.text)}")
    damaged = any(check.verdict is Verdict.DAMAGE for check in checks)
    if settings.as_json:
        fields = {"journal": str(path), "sound": not damaged, "checks": [asdict(check) for check in checks]}
        write_json("doctor", fields)
    if damaged:
        name = shlex.quote(str(shown_path(path)))
        say(
            f"{shown_path(path)} is damaged. Keep a copy of it and its -wal file. Save what can be read with: "
            f"wfengine recover {name}  (or, if that finds nothing: sqlite3 {name} .recover | sqlite3 recovered.db)"
        )
        return ExitCode.JOURNAL
    return ExitCode.OK


def _checks(path: Path, thorough: bool, values: int, buckets: bool) -> Iterator[Check]:
    """Yield the checks of a journal; of one so damaged that it cannot be opened, what SQLite finds in its pages."""
    try:
        with reading(path) as connection:
            yield from run_checks(connection, path, thorough=thorough, sample=values)
        if buckets:
            from wfengine.cli.storage import bucket_checks  # what reads buckets is loaded where it is asked for

            yield from bucket_checks(path)
    except JournalCorruptError as error:
        found = check_broken_file(path)
        if found.verdict is not Verdict.DAMAGE:
            raise  # the damage has gone: another process was writing just then
        yield Check("file", Verdict.DAMAGE, str(error.__cause__ or error))
        yield found
