"""`wfengine resolve`: a person settles a call in doubt."""

from __future__ import annotations

import json

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import command_for, journal_path
from wfengine.cli.output import say, write_json
from wfengine_journal.errors import UsageError
from wfengine_journal.queries import get_run, get_run_head, reading


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine sql 'SELECT run_name, task_id, task, inputs FROM in_doubt'\n"
        "  wfengine resolve quiet-heron 12 --done '{\"receipt\": 77}'\n"
        "  wfengine resolve quiet-heron 12 --not-done"
    ),
)
@click.argument("run", metavar="RUN")
@click.argument("task_run", metavar="TASK_RUN_ID", type=int)
@click.option("--done", metavar="JSON", help="It took effect; this is its result.")
@click.option("--not-done", is_flag=True, help="It did not take effect; a resume runs it again.")
@pass_settings
def resolve(settings: Settings, run: str, task_run: int, done: str | None, not_done: bool) -> int:
    """Say whether a call that was cut off took effect, so that its run can be resumed."""
    if (done is None) is not not_done:
        raise UsageError("Say either --done RESULT (it took effect) or --not-done (it did not).")
    value = None if done is None else _value(done)
    path = journal_path(settings)
    with reading(path) as connection:  # refuses a missing journal, which the engine would create
        found = get_run(connection, run)
        parent = found
        while parent.parent_run_id is not None:  # a subflow goes on when the run that called it does
            parent = get_run_head(connection, parent.parent_run_id)
        command = command_for(connection, parent, "resume", settings)
    execution.resolve(path, found.id, task_run, done=done is not None, value=value)
    if settings.as_json:
        write_json("resolve", {"run_id": found.id, "task_run_id": task_run, "done": done is not None})
    if not settings.quiet:
        say(f"Task run {task_run} is settled. Go on with: {command}")
    return ExitCode.OK


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--done takes the result as JSON; {text!r} is none ({error}). Text needs quotes: '\"text\"'."
        ) from error
