"""What all commands share: lazily loaded groups, the global options, and errors that become one line and an exit code.

Loading this module loads click and nothing heavier, so that `wfengine --help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sqlite3
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from wfengine.cli.exits import ExitCode, code_of_error
from wfengine.cli.output import clean_lines, say, write_json
from wfengine_journal.errors import WfengineError


@dataclass(slots=True)
class Settings:
    """The global options, wherever on the command line they stood."""

    journal: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    settings = context.ensure_object(Settings)
    if value and parameter.name is not None:
        setattr(settings, parameter.name, value)


def _option(*names: str, **attributes: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_remember, **attributes)


#: Accepted before and after the name of a command.
GLOBAL_OPTIONS: tuple[click.Option, ...] = (
    _option(
        "--journal",
        metavar="PATH",
        help="The journal file. [env: WFENGINE_JOURNAL; default: .wfengine/journal.db here or in a folder above]",
    ),
    _option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout."),
    _option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    _option("-v", "--verbose", is_flag=True, help="Show tracebacks and details."),
    _option("--no-color", is_flag=True, help="No colours. [env: NO_COLOR]"),
)

_HELP_NAMES: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command that accepts the global options and returns an exit code."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        attributes.setdefault("context_settings", _HELP_NAMES)
        super().__init__(*arguments, **attributes)
        self.params.extend(GLOBAL_OPTIONS)

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; every error of wfengine becomes one line on stderr."""
        settings = ctx.ensure_object(Settings)
        ctx.color = color_choice(settings)
        try:
            return int(super().invoke(ctx) or ExitCode.OK)
        except WfengineError as error:
            return report(error, command_name(ctx), settings)
        except BrokenPipeError:
            # The reader of our output has gone (`wfengine runs ls | head`); Python must not complain about it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        except sqlite3.Error as error:
            # A reading command explains these itself (queries.reading); this is what escapes elsewhere.
            return report(WfengineError(f"SQLite reported: {error}"), command_name(ctx), settings, ExitCode.JOURNAL)


class Group(click.Group):
    """A group whose commands are named in a table and imported when they are used."""

    def __init__(self, *arguments: Any, table: dict[str, tuple[str, str]], **attributes: Any) -> None:
        """`table`: command name -> ('module:attribute', one line of help)."""
        attributes.setdefault("context_settings", _HELP_NAMES)
        super().__init__(*arguments, **attributes)
        self.params.extend(GLOBAL_OPTIONS)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no such one."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; an unknown name is answered with the nearest ones."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self._table, 3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])


def epilog(*paragraphs: str) -> str:
    """Return paragraphs for the end of a help text, each line kept as it is."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in paragraphs)


def command_name(context: click.Context | None) -> str | None:
    """Return the command as it stands in JSON: 'runs ls'."""
    return None if context is None else context.command_path.partition(" ")[2] or None


def color_choice(settings: Settings) -> bool | None:
    """Return False where colours were turned off, True where they were forced, None to ask the terminal."""
    if settings.no_color or os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def report(error: WfengineError, command: str | None, settings: Settings, code: ExitCode | None = None) -> int:
    """Say an error: a line on stderr, an object on stdout with --json, the traceback with -v. Return the exit code."""
    exit_code = code_of_error(error) if code is None else code
    text = clean_lines(error).strip()
    if settings.verbose:
        say(clean_lines("".join(traceback.format_exception(error))).rstrip())
    if settings.as_json:
        write_json(command or "", {"error": {"code": error.code, "message": text}, "exit_code": int(exit_code)})
    # A further line (a diff of arguments) is indented, so that text from a journal cannot pass for a message of ours.
    say(click.style(f"error[{error.code}]", fg="red", bold=True) + ": " + text.replace("\n", "\n  "))
    return int(exit_code)


def settings_of(context: click.Context | None, arguments: Sequence[str]) -> Settings:
    """Return the settings of a command line that could not be read to its end."""
    found = context.find_object(Settings) if context is not None else None
    settings = found or Settings()
    settings.as_json = settings.as_json or "--json" in arguments
    return settings
