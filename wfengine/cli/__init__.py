"""The command line: `wfengine`, or `python -m wfengine`.

Commands are thin: they read through `wfengine_journal.queries`, call the engine through `execution`, and write through
`output`. Nothing here opens a database or holds SQL.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

import click

from wfengine._version import __version__
from wfengine.cli.base import Group, Settings, color_choice, command_name, epilog, report, settings_of
from wfengine.cli.exits import EXPLANATION, ExitCode
from wfengine_journal.errors import InternalError, JournalUnwritableError, UsageError
from wfengine_journal.guarding import POST

__all__ = ["main", "root"]

#: Errors of the system that say something of the machine - its disk, memory, limits - and not of a fault in wfengine.
OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EACCES", "EPERM")
    if hasattr(errno, name)
)


@click.group(
    cls=Group,
    name="wfengine",
    no_args_is_help=True,
    table={
        "run": ("wfengine.cli.run:run", "Run a flow from a file or module."),
        "serve": ("wfengine.cli.serve:serve", "Start what is due, execute it, recover: the daemon."),
        "dev": ("wfengine.cli.dev:dev", "Serve files, and anew when they change."),
        "ui": ("wfengine.cli.ui:ui", "The page in a browser, and the API."),
        "status": ("wfengine.cli.status:status", "Which daemons serve the journal, and how things are."),
        "service": ("wfengine.cli.service:service", "Run the daemon under systemd."),
        "resume": ("wfengine.cli.run:resume", "Take runs up again where they stopped."),
        "retry": ("wfengine.cli.run:retry", "Take a run up again, and run every failure in it again."),
        "fork": ("wfengine.cli.fork:fork", "Make a new run that begins with what another one recorded."),
        "replay": ("wfengine.cli.plan:replay", "Run a flow's body over what is recorded; no task runs."),
        "diff": ("wfengine.cli.fork:diff", "Where two runs of a flow part."),
        "cancel": ("wfengine.cli.stopping:cancel", "Cancel runs, whichever process executes them."),
        "pause": ("wfengine.cli.stopping:pause", "Let runs stop before whatever comes next."),
        "unpause": ("wfengine.cli.stopping:unpause", "Let paused runs go on."),
        "resolve": ("wfengine.cli.resolve:resolve", "Settle a call in doubt by a person's word."),
        "send": ("wfengine.cli.send:send", "Send a message to a run."),
        "inputs": ("wfengine.cli.inputs:inputs", "What runs ask people for."),
        "runs": ("wfengine.cli.runs:runs", "List runs, show one, read its logs."),
        "logs": ("wfengine.cli.logs:logs", "Search what all runs logged."),
        "tasks": ("wfengine.cli.tasks:tasks", "About single task runs: why one was cached, or not."),
        "task": ("wfengine.cli.task_serve:task", "Serve tasks in background."),
        "watch": ("wfengine.cli.watch:watch", "Follow a run of another process until it ends."),
        "follow": ("wfengine.cli.follow:follow", "Print what a generator hands out, item by item."),
        "deploy": ("wfengine.cli.deploy:deploy", "Record deployments: of a file, or of one flow."),
        "deployments": ("wfengine.cli.deployments:deployments", "Flows with settings of their own."),
        "schedules": ("wfengine.cli.schedules:schedules", "When deployments are due."),
        "events": ("wfengine.cli.events:events", "What happened, and what is made an event."),
        "automations": ("wfengine.cli.automations:automations", "What is done when events happen."),
        "notifications": ("wfengine.cli.notifications:notifications", "Whom to tell, and what was told."),
        "limits": ("wfengine.cli.limits:limits", "How many may do something at a time, or in a time."),
        "queues": ("wfengine.cli.queues:queues", "Queues of runs, and what limits them."),
        "variables": ("wfengine.cli.variables:variables", "Named values that flows share."),
        "secrets": ("wfengine.cli.secrets:secrets", "Passwords and keys that flows use."),
        "artifacts": ("wfengine.cli.artifacts:artifacts", "What runs made for people to look at."),
        "metrics": ("wfengine.cli.metrics:metrics", "What Prometheus is to know of the journal."),
        "sql": ("wfengine.cli.sql:sql", "Ask the journal anything, read-only."),
        "extract": ("wfengine.cli.files:extract", "Copy one run into a small journal of its own."),
        "import": ("wfengine.cli.files:import_", "Take runs of another journal into this one."),
        "backup": ("wfengine.cli.files:backup", "Copy the journal while it is in use."),
        "prune": ("wfengine.cli.files:prune", "Delete old runs that have ended."),
        "export": ("wfengine.cli.exports:export", "Runs as JSON Lines, or one as an HTML page."),
        "recover": ("wfengine.cli.files:recover", "Save what can be read of a damaged file."),
        "info": ("wfengine.cli.info:info", "Which journal is used, and what it holds."),
        "doctor": ("wfengine.cli.doctor:doctor", "Check that the journal is sound."),
        "storage": ("wfengine.cli.storage:storage", "Results in buckets: objects that no row names."),
        "crashtest": ("wfengine.cli.crashtest:crashtest", "Kill a flow around each of its commits, and compare."),
        "migrate-check": ("wfengine.cli.migrate_check:migrate_check", "What in a Prefect file would not run here."),
        "demo": ("wfengine.cli.demo:demo", "See a flow get killed and resumed."),
    },
    epilog=epilog(
        "Examples:\n"
        "  wfengine demo\n"
        "  wfengine run etl.py -p day=2026-11-22\n"
        "  wfengine resume @last\n"
        "  wfengine sql 'SELECT name, state FROM runs'",
        "A RUN is an id, a name, the beginning of a name, or @last: the newest that somebody started, not one of a queue.",
    )
    + "\n\n"
    + EXPLANATION,
)
@click.version_option(__version__, "--version", prog_name="wfengine", message="%(prog)s %(version)s")
def root() -> None:
    """Durable workflows in one SQLite file: run it, kill it, fix it, resume it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (default: this process's) and exit with its code."""
    # Called last, when no thread is waited for any more: Ctrl-C must not replace the exit code while Python takes itself down.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    POST.hides_output = True
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode must not end a command
            if stream.write_through:  # PYTHONUNBUFFERED: what a flow prints is written by lines, not by the words of one
                stream.reconfigure(line_buffering=True, write_through=False)
    try:
        return int(root.main(arguments, prog_name="wfengine", standalone_mode=False) or ExitCode.OK)
    except click.UsageError as error:
        return _report_usage(error, arguments)
    except click.ClickException as error:
        return report(UsageError(error.format_message()), None, settings_of(None, arguments))
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            return _report_unexpected(error, arguments)
        return report(_refused_by_the_machine(error), None, settings_of(None, arguments))
    except MemoryError as error:
        refused = _refused_by_the_machine(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
        refused.__cause__ = error
        return report(refused, None, settings_of(None, arguments))
    except Exception as error:
        return _report_unexpected(error, arguments)


def _refused_by_the_machine(error: OSError) -> JournalUnwritableError:
    where = f" ({error.filename})" if error.filename else ""
    refused = JournalUnwritableError(
        f"The system refused what the command asked of it: {error.strerror}{where}. Nothing recorded is lost. Make room, "
        "or see the limits of this process (ulimit -a), then type it again."
    )
    refused.__cause__ = error
    return refused


def _report_unexpected(error: Exception, arguments: list[str]) -> int:
    unexpected = InternalError(
        f"{type(error).__name__}: {error}. This is a fault in wfengine: please report it with the output of -v."
    )
    unexpected.__cause__ = error
    settings = settings_of(None, arguments)
    settings.verbose = settings.verbose or "-v" in arguments or "--verbose" in arguments
    return report(unexpected, None, settings)


def _report_usage(error: click.UsageError, arguments: list[str]) -> int:
    settings: Settings = settings_of(error.ctx, arguments)
    if error.ctx is not None:
        error.ctx.color = color_choice(settings)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return ExitCode.USAGE
    hint = f" See: {error.ctx.command_path} --help" if error.ctx is not None else ""
    return report(UsageError(f"{error.format_message()}{hint}"), command_name(error.ctx), settings)
