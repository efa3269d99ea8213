"""`wfengine cancel`, `pause` and `unpause`: stop runs, whichever process executes them, and let them go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.ending import run_json
from wfengine.cli.exits import ExitCode, code_of_state
from wfengine.cli.journal import command_for, journal_path
from wfengine.cli.output import clean, say, write_json
from wfengine.cli.run import resume_one
from wfengine_journal.queries import get_run, get_run_head, reading

if TYPE_CHECKING:
    from wfengine_journal.rows import Run

_JSON = 'JSON:\n  {"schema_version", "command", "runs": [{"run": {... as in runs show}, "next_command"}]}'

_reason = click.option("--reason", metavar="TEXT", help="Why; it is recorded, and told to whoever runs it.")
_references = click.argument("references", metavar="RUN...", nargs=-1, required=True)


@click.command(
    cls=Command,
    epilog=epilog("Examples:\n  wfengine cancel quiet-heron\n  wfengine cancel @last --reason 'wrong day' --wait", _JSON),
)
@_references
@_reason
@click.option("--wait", is_flag=True, help="Wait until the processes that execute the runs have ended them.")
@pass_settings
def cancel(settings: Settings, references: tuple[str, ...], reason: str | None, wait: bool) -> int:
    """Cancel each RUN, with its subflows.

    Tasks in queues never start, async tasks are cancelled, sync ones stop at their next call of a task or of
    check_cancelled(); cleanup and hooks run. A run that no process executes is cancelled at once.
    """
    return _ask(settings, references, lambda path, run_id: execution.cancel(path, run_id, reason, wait=wait))


@click.command(cls=Command, epilog=epilog("Examples:\n  wfengine pause quiet-heron --reason 'the warehouse is down'", _JSON))
@_references
@_reason
@pass_settings
def pause(settings: Settings, references: tuple[str, ...], reason: str | None) -> int:
    """Pause each RUN: what runs finishes and is recorded, nothing new begins.

    A run that no process executes is not taken up before it is unpaused.
    """
    return _ask(settings, references, lambda path, run_id: execution.pause(path, run_id, reason))


@click.command(cls=Command, epilog=epilog("Examples:\n  wfengine unpause quiet-heron", _JSON))
@_references
@pass_settings
def unpause(settings: Settings, references: tuple[str, ...]) -> int:
    """Let each paused RUN go on.

    One that was paused while it was executed is resumed here. One that waited, in a queue or for a resume, waits again.
    """
    path, chosen = _chosen(settings, references)
    results, codes = [], []
    for run in chosen:
        if execution.let_wait_again(path, run.id):
            results.append(_told(settings, path, run.id))
            codes.append(int(ExitCode.OK))
            continue
        fields, code = resume_one(settings, path, run)
        results.append(fields)
        codes.append(code)
    if settings.as_json:
        write_json("unpause", {"runs": results})
    return next((code for code in codes if code), int(ExitCode.OK))


def _ask(settings: Settings, references: tuple[str, ...], ask: Callable[[Path, int], object]) -> int:
    """Ask the same of several runs; each is looked up before any is asked, and told of when it was."""
    path, chosen = _chosen(settings, references)
    results = []
    for run in chosen:
        ask(path, run.id)
        results.append(_told(settings, path, run.id))
    if settings.as_json:
        write_json(str(click.get_current_context().info_name), {"runs": results})
    return ExitCode.OK


def _chosen(settings: Settings, references: tuple[str, ...]) -> tuple[Path, list[Run]]:
    path = journal_path(settings)
    with reading(path) as connection:  # refuses a missing journal, which the engine would create
        found = [get_run(connection, reference) for reference in references]
    return path, list({run.id: run for run in found}.values())


def _told(settings: Settings, path: Path, run_id: int) -> dict[str, object]:
    """Say how a run stands after it was asked, and what to type next; return that for --json."""
    with reading(path) as connection:
        run = get_run(connection, run_id)
        top = run
        while top.parent_run_id is not None:  # a subflow goes on when the run that called it does
            top = get_run_head(connection, top.parent_run_id)
        verb, what = _NEXT.get(run.state_name, _NEXT.get(run.state, ("runs show", f"is {run.state_name}")))
        command = command_for(connection, run if verb in ("watch", "runs show") else top, verb, settings)
    if not settings.quiet:
        said = f" ({clean(run.message)})" if run.message else ""
        say(f"{clean(run.name)} {what}{said} · next: {command}")
    return {"run": run_json(run), "exit_code": int(code_of_state(run.state)), "next_command": command}


#: How a run stands, by state name or state: the command that goes on from there, and what is said.
_NEXT = {
    "Cancelling": ("watch", "was asked to stop"),
    "Cancelled": ("runs show", "is cancelled"),
    "Pausing": ("watch", "was asked to pause"),
    "Paused": ("unpause", "is paused"),
    "Scheduled": ("runs show", "waits in its queue again"),
    "CRASHED": ("resume", "waits for a resume again"),
    "PENDING": ("resume", "waits to be started again"),
}
