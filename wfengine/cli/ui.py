"""`wfengine ui`: the page and the API, until stopped."""

from __future__ import annotations

import signal
import threading
import webbrowser

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import say, write_json
from wfengine.signal_handling import handling
from wfengine_journal.location import find_path


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine ui\n  wfengine ui --port 0 --read-only --no-open",
        'JSON, when it listens:\n  {"schema_version", "command", "journal", "address", "link", "read_only"}',
    ),
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4200, show_default=True, help="Where to listen; 0: any that is free."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Which address to listen at.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A further name under which it is reached.")
@click.option("--base-path", default="", metavar="PATH", help="The path below which a proxy serves it, such as /flows.")
@click.option("--read-only", is_flag=True, help="Nothing can be changed from the page.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Stop after so many seconds.")
@pass_settings
def ui(
    settings: Settings, port: int, host: str, hosts: tuple[str, ...], base_path: str, read_only: bool, no_open: bool,
    timeout: float | None,
) -> int:  # fmt: skip
    """Show the journal in a browser, and serve the API: until stopped with Ctrl-C.

    The link that is printed holds a token, without which nothing is answered. At another address than this machine's own, the
    token is taken from the environment variable WFENGINE_UI_TOKEN, and has to be set. The page then speaks HTTP without
    encryption: put a proxy with TLS before it.
    """
    from wfengine.page.needed import refuse_without_packages

    refuse_without_packages()
    from wfengine.page.settings import LOOPBACK, page_server

    server = page_server(settings.journal, host, port, hosts=hosts, read_only=read_only, base_path=base_path)
    server.start()
    stopped = threading.Event()
    try:
        with handling((signal.SIGINT, signal.SIGTERM), lambda _: stopped.set()):
            if settings.as_json:
                write_json("ui", {
                    "journal": str(find_path(settings.journal)), "address": server.address, "link": server.link,
                    "read_only": read_only,
                })  # fmt: skip
            if not settings.quiet:
                say(f"the page is at {server.link} (Ctrl-C stops it)")
            if not no_open and host in LOOPBACK:
                webbrowser.open(server.link)
            _wait(stopped, server, timeout)
    finally:
        server.stop(5.0)
    if server.fault is not None:
        raise server.fault
    return ExitCode.OK


def _wait(stopped: threading.Event, server: object, timeout: float | None) -> None:
    """Wait until a signal, a fault of the server, or the end of the time."""
    left = timeout
    while getattr(server, "fault", None) is None and not stopped.wait(0.5 if left is None else min(0.5, left)):
        if left is not None:
            left -= 0.5
            if left <= 0:
                return
