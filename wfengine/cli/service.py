"""`wfengine service`: a systemd unit that runs `wfengine serve`, filled in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import write, write_json
from wfengine_journal.errors import UsageError
from wfengine_journal.location import find_path

#: Seconds that systemd waits beyond the daemon's own bound before it kills what is left.
SPARE_SECONDS = 15
#: Seconds without a sign of life after which systemd kills the daemon and starts it again.
WATCHDOG_SECONDS = 60

_UNIT = """\
[Unit]
Description={description}
After=local-fs.target time-sync.target

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={folder}
ExecStart={command}
# The daemon is told to stop, what it started is not: it stops that itself, in order.
KillMode=mixed
TimeoutStopSec={stop_seconds}
WatchdogSec={watchdog_seconds}
Restart=on-failure
RestartSec=5
# Wrong usage does not go away by trying again.
RestartPreventExitStatus=2 3
UMask=0077
NoNewPrivileges=true

[Install]
WantedBy={target}
"""


@click.group(
    cls=Group,
    name="service",
    no_args_is_help=True,
    table={"show": ("wfengine.cli.service:show", "Print a systemd unit for `wfengine serve`.")},
    epilog=epilog("Example:\n  wfengine service show etl.py > ~/.config/systemd/user/etl.service"),
)
def service() -> None:
    """Run the daemon under a service manager."""


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine service show etl.py --user > ~/.config/systemd/user/etl.service\n"
        "  systemctl --user daemon-reload && systemctl --user enable --now etl",
        'JSON:\n  {"schema_version", "command", "unit"}',
    ),
)
@click.argument("files", metavar="[FILE_OR_MODULE[:FLOW]]...", nargs=-1)
@click.option("--user", "for_user", is_flag=True, help="For the service manager of a user, not of the system.")
@click.option("--stop-timeout", type=click.IntRange(0, 86400), default=30, show_default=True, help="As of `wfengine serve`.")
@pass_settings
def show(settings: Settings, files: tuple[str, ...], for_user: bool, stop_timeout: int) -> int:
    """Print a systemd unit that serves FILES, or every deployment in the journal, from this folder with this Python."""
    words = [sys.executable, "-m", "wfengine", "serve", *files, "--journal", str(find_path(settings.journal))]
    if stop_timeout != 30:
        words += ["--stop-timeout", str(stop_timeout)]
    unit = _UNIT.format(
        description=_line(f"wfengine serve {' '.join(files)}".strip()),
        folder=_line(str(Path.cwd())),
        command=" ".join(map(_word, words)),
        stop_seconds=stop_timeout + SPARE_SECONDS,
        watchdog_seconds=WATCHDOG_SECONDS,
        target="default.target" if for_user else "multi-user.target",
    )
    if settings.as_json:
        write_json("service show", {"unit": unit})
    else:
        write(unit.rstrip("\n"))
    return ExitCode.OK


def _line(text: str) -> str:
    """Return a value of a unit file as systemd reads it: a percent sign begins a specifier of its own."""
    if any(not character.isprintable() for character in text):
        raise UsageError(f"{text!r} holds a character that cannot stand in a unit file. Give the file or folder another name.")
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """Return one word of a command line in a unit file, quoted where it has to be."""
    plain = _line(text).replace("$", "$$")
    if plain and all(character.isalnum() or character in "/._-+:=,@%" for character in plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
