"""`wfengine runs`: list runs, show one, read its logs."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.ending import run_json
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import command_for, open_swept, shown_path
from wfengine.cli.output import (
    ago_text,
    clean,
    clean_lines,
    duration_text,
    instant_text,
    json_text,
    say,
    state_text,
    table_lines,
    write,
    write_json,
)
from wfengine_journal.clock import SystemClock, text_from_seconds
from wfengine_journal.queries import get_run, get_run_head, list_logs, list_runs
from wfengine_journal.rows import LogLine, Run
from wfengine_journal.states import TERMINAL, StateType

#: Log lines read in one query.
LOG_PAGE = 1000
#: Seconds between two looks for new log lines.
LOG_INTERVAL_SECONDS = 0.25

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LEVEL_COLORS = {40: "red", 50: "red", 30: "yellow", 10: "bright_black"}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_AGE_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?Z?)?")


@click.group(
    cls=Group,
    name="runs",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.runs:ls", "List runs, the newest first."),
        "show": ("wfengine.cli.show:show", "Show a run: its tasks as a tree, and when they ran."),
        "logs": ("wfengine.cli.runs:logs", "Read what a run logged."),
    },
    epilog=epilog("Example:\n  wfengine runs ls --state FAILED --since 2d"),
)
def runs() -> None:
    """List runs, show one, read its logs."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine runs ls --state FAILED --state CRASHED --since 2d",
        'JSON:\n  {"schema_version", "command", "journal", "runs": [{"id", "name", "flow", "state", ...}],'
        ' "next_before_id"}\n  next_before_id: for --before, to get the next page; null at the end',
    ),
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in StateType], case_sensitive=False),
    help="Only runs in this state; may be given several times.",
)
@click.option("--flow", help="Only runs of this flow.")
@click.option(
    "--since", metavar="AGE_OR_TIME", help="Only runs created since: 30m, 2h, 3d, 2026-11-22, 2026-11-22T15:30 (UTC)."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), help="Only runs with a smaller id: the next page.")
@click.option("--subflows", is_flag=True, help="Runs of subflows too.")
@pass_settings
def ls(
    settings: Settings,
    states: tuple[str, ...],
    flow: str | None,
    since: str | None,
    limit: int,
    before: int | None,
    subflows: bool,
) -> int:
    """List runs, the newest first."""
    instant = since_text(since) if since else None
    with open_swept(settings) as (connection, path):
        page: dict[str, int] = {} if before is None else {"before_id": before}
        found = list_runs(connection, states=states, flow=flow, since=instant, top_level=not subflows, limit=limit + 1, **page)
        shown, more = found[:limit], len(found) > limit
    if settings.as_json:
        next_id = shown[-1].id if more else None
        fields = {"journal": str(path), "runs": [run_json(run) for run in shown], "next_before_id": next_id}
        write_json("runs ls", fields)
        return ExitCode.OK
    if not shown:
        if not settings.quiet:
            say(f"no such runs in {shown_path(path)}")
        return ExitCode.OK
    for line in table_lines(_COLUMNS, [_row(run) for run in shown], right=(0, 4, 6)):
        write(line)
    if more and not settings.quiet:
        say(f"older ones: add --before {shown[-1].id}, or --limit")
    return ExitCode.OK


_COLUMNS = ("ID", "NAME", "FLOW", "STATE", "TASKS", "STARTED", "TOOK", "NOTE")


def _row(run: Run) -> list[str]:
    return [
        str(run.id),
        clean(run.name),
        clean(run.flow),
        state_text(run.state, run.state_name),
        f"{run.tasks_done}/{run.tasks_total}",
        ago_text(run.started_at or run.created_at),
        duration_text(run.duration_s),
        clean(run.error or run.message or ""),
    ]


def since_text(text: str) -> str:
    """Return the instant, as the journal writes it, that an age or a time in UTC means. Raises BadParameter."""
    if age := _AGE.fullmatch(text.strip()):
        seconds = float(age[1]) * _AGE_SECONDS[age[2]]
        return text_from_seconds(max(0.0, SystemClock().wall_seconds() - seconds))
    if instant := _INSTANT.fullmatch(text.strip()):
        return f"{instant[1]}T{instant[2] or '00:00'}{instant[3] or ':00'}.000000Z"
    raise click.BadParameter(
        f"{text!r} is neither an age (30m, 2h, 3d) nor a time in UTC (2026-11-22, 2026-11-22T15:30).",
        param_hint="--since",
    )


# ---------------------------------------------------------------------------------------------------- logs


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine runs logs @last -f --level warning",
        'JSON:\n  {"schema_version", "command", "run_id", "logs": [{"id", "at", "level", "task", "task_id", "logger",'
        ' "message"}]}\n  with -f: one object of the list on each line, as they come',
    ),
)
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended, or pauses.")
@click.option("--task", help="Only what this task logged.")
@click.option("--level", type=click.Choice(list(LEVELS), case_sensitive=False), help="This level and above.")
@click.option("--grep", metavar="REGEX", help="Only messages in which this occurs.")
@pass_settings
def logs(settings: Settings, run: str, follow: bool, task: str | None, level: str | None, grep: str | None) -> int:
    """Read what RUN logged, oldest first.

    With --follow also what it logs from now on, in whichever process, until it has ended or pauses. A run whose process died is
    waited for until it is resumed.
    """
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as error:
        raise click.BadParameter(f"{grep!r} is not a regular expression: {error}", param_hint="--grep") from error
    with open_swept(settings) as (connection, _):
        found = get_run(connection, run)
        if follow and found.state == StateType.CRASHED and not settings.quiet:
            say(f"Flow run {found.id} was cut off. It goes on with: {command_for(connection, found, 'resume', settings)}")
        lines = _lines(connection, found.id, LEVELS[level.lower()] if level else 0, task, follow)
        matching = (line for line in lines if pattern is None or pattern.search(line.message))
        if settings.as_json and not follow:
            write_json("runs logs", {"run_id": found.id, "logs": [asdict(line) for line in matching]})
            return ExitCode.OK
        for line in matching:
            write(json_text(asdict(line)) if settings.as_json else _log_text(line))
    return ExitCode.OK


def _lines(connection: sqlite3.Connection, run_id: int, level: int, task: str | None, follow: bool) -> Iterator[LogLine]:
    after_id, pause = 0, threading.Event()
    while True:
        # Asked before the page is read, so that the last lines of a run that just ended are not missed.
        state = get_run_head(connection, run_id).state
        # A run whose process died goes on when it is resumed, by a daemon at once: whether this look falls into that moment
        # must not decide.
        ended = state in {*TERMINAL, StateType.PAUSED} and not (follow and state == StateType.CRASHED)
        page = list_logs(connection, run_id, after_id=after_id, level=level, task=task, limit=LOG_PAGE)
        yield from page
        if page:
            after_id = page[-1].id
        elif ended or not follow:
            return
        else:
            pause.wait(LOG_INTERVAL_SECONDS)


def _log_text(line: LogLine) -> str:
    names = {number: name.upper() for name, number in LEVELS.items()}
    level = names.get(line.level, str(line.level))
    where = clean(line.task) if line.task else "-"
    message = clean_lines(line.message).replace("\n", "\n    ")
    colored = click.style(f"{level:<8}", fg=LEVEL_COLORS.get(line.level))
    return f"{instant_text(line.at)}  {colored} {where}  {message}"
