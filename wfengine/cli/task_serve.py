"""`wfengine task serve`: run what is put into the queues of tasks."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import write_json


@click.group(
    cls=Group,
    name="task",
    no_args_is_help=True,
    table={"serve": ("wfengine.cli.task_serve:serve", "Run what `delay` puts into the queues of tasks, until stopped.")},
    epilog=epilog("Example:\n  wfengine task serve mails.py:send"),
)
def task() -> None:
    """Serve tasks in background."""


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine task serve mails.py:send mails.py:count --limit 4\n  wfengine task serve -m shop.tasks",
        'JSON, when it was stopped:\n  {"schema_version", "command", "journal", "finished"}\n'
        "  finished: background runs that ended in this process",
    ),
)
@click.argument("targets", metavar="[FILE_OR_MODULE[:TASK]]...", nargs=-1)
@click.option("-m", "--module", "modules", multiple=True, metavar="MODULE", help="Every task that this module defines.")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="At most so many runs at a time.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds.")
@pass_settings
def serve(settings: Settings, targets: tuple[str, ...], modules: tuple[str, ...], limit: int, timeout: float | None) -> int:
    """Run what `delay` puts into the queues of these tasks, from any process, until stopped.

    SIGTERM and Ctrl-C let finish what runs, for at most 30 seconds; a second one ends it at once. What was not finished goes
    on in the next process that serves the task, and so does what a killed one left.
    """
    worker = execution.make_worker((*targets, *modules), limit)
    path = execution.use_journal(Path(settings.journal) if settings.journal else None)
    execution.serve(worker, timeout, quiet=settings.quiet)
    if settings.as_json:
        write_json("task serve", {"journal": str(path), "finished": worker.finished})
    code = ExitCode.INTERRUPTED if worker.stopped_by == signal.SIGINT else ExitCode.OK
    if worker.left:
        execution.leave_behind(code)
    return code
