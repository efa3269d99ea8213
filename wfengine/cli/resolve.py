"""`wfengine resolve`: a person settles a call in doubt."""

from __future__ import annotations

import json

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import say, write_json
from wfengine_journal.errors import UsageError


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
    from wfengine.journals import use_journal
    from wfengine.recovery import find_run_id, resolve_call

    if (done is None) is not not_done:
        raise UsageError("Say either --done RESULT (it took effect) or --not-done (it did not).")
    journal = use_journal(settings.journal)
    run_id = find_run_id(journal, run)
    resolve_call(journal, run_id, task_run, done=done is not None, value=None if done is None else _value(done))
    if settings.as_json:
        write_json("resolve", {"run_id": run_id, "task_run_id": task_run, "done": done is not None})
    say(f"Task run {task_run} is settled. Go on with: wfengine resume {run}")
    return ExitCode.OK


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--done takes the result as JSON; {text!r} is none ({error}). Text needs quotes: '\"text\"'."
        ) from error
