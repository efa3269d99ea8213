"""`wfengine extract`, `import`, `backup`, `prune` and `recover`: journals as files."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, say, size_text, write_json
from wfengine_journal.errors import UsageError
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


@click.command(
    "import",
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine import heron.db\n  wfengine import other.db quiet-heron 12",
        'JSON:\n  {"schema_version", "command", "journal", "source", "runs": [{"run_id", "origin_run_id", "name",'
        ' "state", "is_new", "key_taken_by"}],\n  "subflow_runs", "task_runs"}',
    ),
)
@click.argument("source", metavar="FILE")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--again", is_flag=True, help="Runs that are here already too, as runs of their own.")
@pass_settings
def import_(settings: Settings, source: str, runs: tuple[str, ...], again: bool) -> int:
    """Take the runs of FILE (default: all), an extract or another journal, into this journal under new ids.

    All of them are taken or none. A run that was going on arrives as crashed; nothing runs until you resume it.
    """
    from wfengine.files import import_runs

    path = journal_path(settings)
    done = import_runs(target_path(source), runs, journal=path, again=again)
    if settings.as_json:
        fields = {"runs": [asdict(run) for run in done.runs], "subflow_runs": done.subflow_runs, "task_runs": done.task_runs}
        write_json("import", {"journal": str(path), "source": str(target_path(source)), **fields})
    if settings.quiet:
        return ExitCode.OK
    for run in done.runs:
        if not run.is_new:
            say(f"{clean(run.name)} is here already, as run {run.run_id}. To have it once more: --again")
            continue
        say(f"{clean(run.name)} is run {run.run_id} here, {clean(run.state)} (it was run {run.origin_run_id})")
        if run.key_taken_by is not None:
            say(f"  without its idempotency key: run {run.key_taken_by} here has that")
    new = [run for run in done.runs if run.is_new]
    if new:
        say(f"imported {len(new)} runs, {done.subflow_runs} subflow runs, {done.task_runs:,} calls into {shown_path(path)}")
        verb = "resume" if new[-1].state == "CRASHED" else "runs show"
        named = f" --journal {shlex.quote(settings.journal)}" if settings.journal else ""
        say(f"Go on with: wfengine {verb} {new[-1].run_id}{named}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine backup /backups\n  wfengine backup before-the-release.db",
        'JSON:\n  {"schema_version", "command", "journal", "target", "bytes"}',
    ),
)
@click.argument("target", metavar="[FILE_OR_FOLDER]", required=False)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@pass_settings
def backup(settings: Settings, target: str | None, force: bool) -> int:
    """Copy the journal, while it may be in use, and check the copy. Nobody waits for it.

    The default is a file beside the journal, named by the time.
    """
    from wfengine.files import backup_journal

    path = journal_path(settings)
    done = backup_journal(target, journal=path, overwrite=force)
    if settings.as_json:
        write_json("backup", {"journal": str(path), "target": str(done.target), "bytes": done.bytes})
    if not settings.quiet:
        say(f"{shown_path(done.target)}: {size_text(done.bytes)}, every page and reference is sound")
        say(
            f"To restore it: end what uses the journal, move {path.name} and its -wal away, then: "
            f"cp {pasted(done.target)} {pasted(path)}"
        )
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine prune --older-than 30d --keep-failed --dry-run\n  wfengine prune --keep 100 --flow etl",
        'JSON:\n  {"schema_version", "command", "journal", "dry_run", "runs", "subflow_runs", "task_runs",'
        ' "values", "errors", "bytes", "kept_for_open"}',
    ),
)
@click.option("--older-than", metavar="AGE", help="Runs that ended at least so long ago: 45m, 12h, 30d, 2w.")
@click.option("--keep", type=click.IntRange(0), default=0, metavar="N", help="The newest N ended runs of each flow stay.")
@click.option("--keep-failed", is_flag=True, help="Runs that failed stay.")
@click.option("--flow", help="Only runs of this flow.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@pass_settings
def prune(settings: Settings, older_than: str | None, keep: int, keep_failed: bool, flow: str | None, dry_run: bool) -> int:
    """Delete old runs that have ended, with all that belongs to them, and let the file shrink.

    Crashed and paused runs always stay, and so does what an open run waits for. Other processes may go on meanwhile.
    """
    from wfengine.files import prune_runs

    if older_than is None and keep < 1:
        raise UsageError("Say which runs may go: --older-than 30d, or --keep 100 (the newest 100 of each flow stay).")
    path = journal_path(settings)
    done = prune_runs(older_than=older_than, keep=keep, keep_failed=keep_failed, flow=flow, dry_run=dry_run, journal=path)
    if settings.as_json:
        counts = {name: value for name, value in asdict(done).items() if name != "unreferenced_files"}
        write_json("prune", {"journal": str(path), "dry_run": dry_run, **counts})
    if settings.quiet:
        return ExitCode.OK
    parts = [f"{done.runs:,} runs", f"{done.subflow_runs:,} subflow runs", f"{done.task_runs:,} calls"]
    parts += [f"{done.values:,} values", f"{done.errors:,} errors"]
    parts += [f"{done.events:,} events, firings and ticks"] if done.events else []
    verb = "would delete" if dry_run else "deleted"
    size = f"about {size_text(done.bytes)}" if dry_run else f"the file is {size_text(done.bytes)} smaller"
    say(f"{verb} {', '.join(parts)}: {size}")
    if done.kept_for_open:
        say(
            f"{done.kept_for_open:,} more are old enough, but open runs may need them (wfengine sql 'SELECT * FROM stuck'), or "
            "automations have not looked at their events yet (wfengine automations ls)"
        )
    if dry_run and done.runs:
        say("Nothing was deleted. Do it with the same command without --dry-run")
    return ExitCode.OK


#: Calls whose results are lost that a rescue lists; --json has all of them.
LISTED = 10


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine recover .wfengine/journal.db -o rescued.db",
        'JSON:\n  {"schema_version", "command", "source", "target", "rows": {table: number},'
        ' "lost_results": [[run_id, task_run_id]],\n  "crashed_runs": {run_id: why},'
        ' "unreadable": {table: times}, "unusable_rows"}',
    ),
)
@click.argument("source", metavar="FILE")
@click.option("-o", "--output", "target", metavar="TARGET", help="The new journal. Default: FILE.recovered")
@click.option("--force", is_flag=True, help="Overwrite TARGET if it exists.")
@pass_settings
def recover(settings: Settings, source: str, target: str | None, force: bool) -> int:
    """Save what can be read of FILE, a damaged journal, into a new one. FILE itself is not touched; end what uses it before.

    No result is taken that does not match its checksum: such calls run again in a resume. What is incomplete is marked CRASHED.
    """
    from wfengine.files import recover_journal

    damaged = target_path(source)
    file = target_path(target) if target else damaged.with_name(f"{damaged.name}.recovered")
    done = recover_journal(damaged, file, overwrite=force)
    if settings.as_json:
        fields = {name: value for name, value in asdict(done).items() if name != "target"}
        write_json("recover", {"source": str(damaged), "target": str(file), **fields})
    if settings.quiet:
        return ExitCode.OK
    counts = {name: done.rows.get(table, 0) for table, name in _SAVED.items()}
    say(f"saved {', '.join(f'{count:,} {name}' for name, count in counts.items())}: {shown_path(file)}")
    for run_id, reason in list(done.crashed_runs.items())[:LISTED]:
        say(f"  run {run_id} is CRASHED: {reason}")
    if len(done.crashed_runs) > LISTED:
        say(f"  and {len(done.crashed_runs) - LISTED} more runs")
    for run_id, task_run_id in done.lost_results[:LISTED]:
        say(f"  task run {task_run_id} of run {run_id}: its result is lost")
    if len(done.lost_results) > LISTED:
        say(f"  and {len(done.lost_results) - LISTED:,} more results; see all with --json")
    if not done.crashed_runs:
        say("No run misses anything that can be noticed.")
    say(f"Check it with: wfengine doctor --thorough --journal {pasted(file)}")
    return ExitCode.OK


_SAVED = {"flow_run": "runs", "task_run": "calls", "value": "values", "error": "errors", "log": "log lines"}
