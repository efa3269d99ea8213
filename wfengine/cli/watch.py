"""`wfengine watch`: follow a run that another process executes."""

from __future__ import annotations

import threading

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.ending import ending_json, read_ending, say_ending, say_failed_quietly
from wfengine.cli.exits import code_of_state
from wfengine.cli.journal import open_swept, sweep_if_needed
from wfengine.cli.live import follow, make_view
from wfengine.cli.output import write_json
from wfengine_journal.queries import LAST, find_open_run, get_run, list_run_transitions


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine watch quiet-heron",
        'JSON, when the run has ended:\n  {"schema_version", "command", "run": {... as in runs show}}',
    ),
)
@click.argument("run", required=False)
@pass_settings
def watch(settings: Settings, run: str | None) -> int:
    """Follow RUN until it ends or waits for a person; the exit code is that of the run.

    Without RUN: the newest one that is being executed, else @last.
    """
    return watch_run(settings, run, "watch")


def watch_run(settings: Settings, run: str | None, command: str) -> int:
    """Follow a run until it ends or waits for a person; return the exit code that says how."""
    with open_swept(settings) as (connection, path):
        run_id = find_open_run(connection) if run is None else None
        if run_id is None:
            run_id = get_run(connection, run or LAST).id
        seq = list_run_transitions(connection, run_id)[-1].seq
        with make_view(settings, path) as view:
            follow(
                path,
                lambda _: run_id,
                view,
                threading.Event(),
                after_seq=seq - 1,
                until_rest=True,
                idle=lambda: sweep_if_needed(connection, path),
            )
        ending = read_ending(connection, run_id, settings)
        if settings.as_json:
            write_json(command, {"run": ending_json(ending)})
        if not settings.quiet:
            say_ending(connection, ending, path, verbose=settings.verbose)
        elif code_of_state(ending.run.state):
            say_failed_quietly(connection, ending)
        return code_of_state(ending.run.state)
