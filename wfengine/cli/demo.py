"""`wfengine demo`: see a flow get killed and resumed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import write, write_json
from wfengine_journal.location import ENVIRONMENT_VARIABLE

if TYPE_CHECKING:
    from wfengine.demo import DemoResult


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine demo"))
@pass_settings
def demo(settings: Settings) -> int:
    """Run a flow over 28,298 airports, kill it in the middle, resume it, and check the result.

    Needs the extra: pip install 'wfengine[examples]'
    """
    from wfengine.demo import run_demo

    if settings.journal:
        os.environ[ENVIRONMENT_VARIABLE] = settings.journal  # the processes that the demo starts inherit it
    silent = settings.quiet or settings.as_json
    result = run_demo(say=(lambda _: None) if silent else write)
    if settings.as_json:
        write_json("demo", _json(result))
    elif settings.quiet:
        write(result.verdict)
    return ExitCode.OK if result.identical else ExitCode.RUN_FAILED


def _json(result: DemoResult) -> dict[str, object]:
    return {
        "journal": str(result.journal.absolute()),
        "run": {"id": result.run.id, "name": result.run.name, "state": result.run.state},
        "tasks": [
            {"task": task.task, "calls": task.count, "replayed": task.replayed, "ran": task.count - task.replayed}
            for task in result.tasks
        ],
        "rows": result.rows,
        "other_rows": result.other_rows,
        "identical": result.identical,
    }
