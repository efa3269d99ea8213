"""`wfengine follow`: the items of a stream, one a line."""

from __future__ import annotations

import json

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import command_for, journal_path, sweep_if_needed
from wfengine.cli.output import json_text, say, write
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.queries import get_run, reading


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine follow quiet-heron\n  wfengine follow @last read --start 1000 | head",
        'Each line is an item as JSON. One that JSON cannot hold is shown, not loaded: {"preview": "DataFrame ..."}',
    ),
)
@click.argument("run", metavar="RUN")
@click.argument("task", metavar="[TASK]", required=False)
@click.option("--start", type=click.IntRange(0), default=0, help="Number of the first item, from 0.")
@click.option("--timeout", type=click.FloatRange(0.0), metavar="SECONDS", help="Wait at most so long for each item.")
@pass_settings
def follow(settings: Settings, run: str, task: str | None, start: int, timeout: float | None) -> int:
    """Print what a generator of RUN hands out: items that are there, then those to come, each once, to its end.

    TASK is the name of a generator task (its first call) or the id of a task run; without it, the flow's own items.
    A run whose process died is waited for until it is resumed. The exit code is 1 when the stream failed.
    """
    path = journal_path(settings)
    with reading(path) as connection:
        sweep_if_needed(connection, path)
        found = get_run(connection, run)
        if found.state == "CRASHED" and not settings.quiet:
            resume = command_for(connection, found, "resume", settings)
            say(f"Flow run {found.id} was cut off. Its stream goes on with: {resume}")
    wanted = int(task) if task is not None and task.isdecimal() else task
    try:
        for text, is_json in execution.follow(path, found.id, wanted, start=start, timeout_seconds=timeout):
            write(json_text(json.loads(text)) if is_json else json_text({"preview": text}))
    except WfengineError:
        raise
    except TimeoutError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # what the stream failed with: the user's own
        say(f"The stream failed: {type(error).__name__}: {error}")
        return ExitCode.RUN_FAILED
    return ExitCode.OK
