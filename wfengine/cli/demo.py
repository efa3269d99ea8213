"""`wfengine demo`: see a flow get killed and resumed."""

from __future__ import annotations

import os

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine_journal.location import ENVIRONMENT_VARIABLE


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine demo"))
@pass_settings
def demo(settings: Settings) -> int:
    """Run a flow over 28,298 airports, kill it in the middle, resume it, and check the result.

    Needs the extra: pip install 'wfengine[examples]'
    """
    from wfengine.demo import run_demo

    if settings.journal:
        os.environ[ENVIRONMENT_VARIABLE] = settings.journal  # the processes that the demo starts inherit it
    return run_demo(say=click.echo)
