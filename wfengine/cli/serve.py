"""`wfengine serve`: the daemon."""

from __future__ import annotations

import signal
from typing import Any

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import clean, say, write, write_json
from wfengine_journal.location import find_path


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine serve etl.py\n  wfengine serve --limit 4 --log-format json\n"
        "  wfengine serve --check etl.py report.py",
        "JSON, when it was stopped:\n"
        '  {"schema_version", "command", "journal", "name", "left"}\n'
        "  left: ids of runs that it left to the next daemon",
        'JSON with --check:\n  {"schema_version", "command", "deployments": ["FLOW/NAME"], "flows": ["FLOW"]}',
    ),
)
@click.argument("files", metavar="[FILE_OR_MODULE[:FLOW]]...", nargs=-1)
@click.option(
    "--recover",
    type=click.Choice(["own", "all", "none"]),
    default="own",
    show_default=True,
    help="Which runs are taken up whose process died: those of what is served, every one, none.",
)
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only runs that wait in this queue; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="At most so many runs at a time.")
@click.option("--name", metavar="NAME", help="What `wfengine status` calls the daemon.")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(0, 86400),
    default=30.0,
    show_default=True,
    help="How long runs may take to end when the daemon is stopped, in seconds.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="WFENGINE_LOGGING_FORMAT",
    help="How the log on stderr looks. [env: WFENGINE_LOGGING_FORMAT]",
)
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Answer Prometheus at this port of its own; 0: one that is free."
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="The address that it listens at.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds.")
@click.option("--no-config", is_flag=True, help="Leave wfengine.toml alone, with its deployments, [retention] and [backup].")
@click.option("--check", is_flag=True, help="Load FILES, say what would be served, and end; nothing is written.")
@click.option("--ui", "with_page", is_flag=True, help="Serve the page and the API too; see `wfengine ui`.")
@click.option("--ui-host", default="127.0.0.1", show_default=True, help="Which address the page listens at.")
@click.option(
    "--ui-port", type=click.IntRange(0, 65535), default=4200, show_default=True, help="Its port; 0: any that is free."
)
@click.option("--parent", "parent_pid", type=click.IntRange(1), hidden=True)
@pass_settings
def serve(
    settings: Settings, /, files: tuple[str, ...], check: bool, log_format: str, timeout: float | None, with_page: bool,
    ui_host: str, ui_port: int, **options: Any
) -> int:  # fmt: skip
    """Start what is due, execute it, take up what was cut off, and keep the journal: until stopped.

    FILES are loaded, which starts nothing; each of their flows is served by the deployments that the file declares or the
    journal has of it, else by one named like the file. Without FILES every deployment in the journal is served, and
    wfengine.toml applied before. Several daemons may serve one journal: each run is executed by one.

    SIGTERM and Ctrl-C stop it in order, within --stop-timeout; a second one stops it at once. Nothing is lost either way.
    """
    if check:
        return _check(settings, files)
    from wfengine.cli.daemon_logs import set_up_logs

    set_up_logs(log_format, quiet=settings.quiet)
    path = find_path(settings.journal)
    if with_page:
        options["ui"] = (ui_host, ui_port)
    daemon = execution.make_daemon(path, files, options)
    daemon.run(timeout)
    if settings.as_json:
        write_json("serve", {"journal": str(path), "name": daemon.name, "left": daemon.left})
    code = ExitCode.INTERRUPTED if daemon.stopped_by == signal.SIGINT else ExitCode.OK
    if daemon.left or daemon.is_hanging:
        execution.leave_behind(code)
    return code


def _check(settings: Settings, files: tuple[str, ...]) -> int:
    deployments, flows = execution.what_is_served(files)
    if settings.as_json:
        write_json("serve", {"deployments": deployments, "flows": flows})
        return ExitCode.OK
    for name in deployments:
        write(f"deployment {clean(name)}")
    for name in flows:
        write(f"flow {clean(name)}: its deployments in the journal, else one named like the file")
    if not files and not settings.quiet:
        say("without FILES every deployment in the journal is served")
    return ExitCode.OK
