"""`wfengine extract`: one run as a file of its own."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, say, size_text, write_json
from wfengine_journal.queries import get_run, reading


def target_path(text: str) -> Path:
    """Return the absolute path that an argument names."""
    return Path(text).expanduser().absolute()


def pasted(path: Path) -> str:
    """Return a path as it can be pasted into a shell."""
    return shlex.quote(str(shown_path(path)))


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine extract quiet-heron heron.db\n  wfengine runs show @last --journal heron.db",
        'JSON:\n  {"schema_version", "command", "journal", "target", "run_id", "run_ids", "task_runs", "bytes"}',
    ),
)
@click.argument("run", metavar="RUN")
@click.argument("target", metavar="[FILE]", required=False)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@pass_settings
def extract(settings: Settings, run: str, target: str | None, force: bool) -> int:
    """Copy RUN and its subflow runs into FILE (default: run-ID.db here), a small journal of its own.

    The run may be going on; nothing is written to the journal it is in. Files that result_storage keeps are not copied: FILE
    refers to them where they are. Variables, deployments and cache entries stay behind.
    """
    from wfengine.files import extract_run

    path = journal_path(settings)
    with reading(path) as connection:
        found = get_run(connection, run)
    file = target_path(target or f"run-{found.id}.db")
    done = extract_run(found.id, file, journal=path, overwrite=force)
    if settings.as_json:
        fields = {"run_id": found.id, "run_ids": list(done.run_ids), "task_runs": done.task_runs, "bytes": done.bytes}
        write_json("extract", {"journal": str(path), "target": str(file), **fields})
    if not settings.quiet:
        others = f" with {len(done.run_ids) - 1} subflow runs" if len(done.run_ids) > 1 else ""
        say(f"{clean(found.name)}{others}, {done.task_runs:,} calls: {shown_path(file)} ({size_text(done.bytes)})")
        say(f"See it with: wfengine runs show {found.id} --journal {pasted(file)}")
    return ExitCode.OK
