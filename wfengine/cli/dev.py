"""`wfengine dev`: serve files and serve them anew when they change."""

from __future__ import annotations

import signal

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import clean, say
from wfengine_journal.location import find_path


@click.command(
    cls=Command,
    epilog=epilog("Example:\n  wfengine dev etl.py", "It serves as `wfengine serve FILES` does; see that for what is served."),
)
@click.argument("files", metavar="FILE_OR_MODULE[:FLOW]...", nargs=-1, required=True)
@click.option("--stop-timeout", type=click.FloatRange(0, 86400), default=5.0, show_default=True,
              help="How long runs may take to end before the new code takes them up, in seconds.")  # fmt: skip
@pass_settings
def dev(settings: Settings, files: tuple[str, ...], stop_timeout: float) -> int:
    """Serve FILES, and again when a Python file beside or below them changes.

    Each reload is a fresh interpreter. Runs under way may end, for some seconds; what is left goes on with the new code. While
    the files have an error it is shown, and the daemon goes on with the code as it was.
    """
    from wfengine.dev import Reloader, Served

    path = find_path(settings.journal)
    options = ("--journal", str(path), *(("--quiet",) if settings.quiet else ()))
    reloader = Reloader(
        Served(files, options, stop_timeout), lambda text: None if settings.quiet else say(f"dev: {clean(text)}")
    )
    reloader.run()
    return ExitCode.INTERRUPTED if reloader.stopped_by == signal.SIGINT else ExitCode.OK
