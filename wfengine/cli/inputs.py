"""`wfengine inputs ls`, and what `wfengine resume` does about inputs that runs wait for."""

from __future__ import annotations

import functools
import shlex
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import command_for, open_swept, shown_path
from wfengine.cli.output import ago_text, clean, clean_lines, instant_text, say, table_lines, write, write_json
from wfengine.input_requests import (
    Request,
    chosen_request,
    example_text,
    fields_text,
    input_of_texts,
    open_requests,
    parsed_schema,
)
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import InvalidInputError, UsageError
from wfengine_journal.messages import OpenRequest, find_top_run, has_message
from wfengine_journal.queries import get_run_head, reading
from wfengine_journal.rows import Run

F = TypeVar("F", bound=Callable[..., object])

#: How long a resume waits for a run that is being suspended to have finished what it began, in seconds.
PARKING_SECONDS = 10.0


@click.group(
    cls=Group,
    name="inputs",
    no_args_is_help=True,
    table={"ls": ("wfengine.cli.inputs:ls", "List what runs ask people for.")},
    epilog=epilog("Examples:\n  wfengine inputs ls\n  wfengine resume quiet-heron --input approved=true"),
)
def inputs() -> None:
    """What runs ask people for: in code, pause_flow_run() and suspend_flow_run()."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(
        'JSON:\n  {"schema_version", "command", "journal", "inputs": [{"run_id", "run_name", "task_id", "kind", "key", "model",'
        ' "description", "asked_at", "until", "refused", "is_answered", "schema", "command"}]}'
    ),
)
@pass_settings
def ls(settings: Settings) -> int:
    """List what runs ask people for, oldest first, with the command that answers."""
    with open_swept(settings) as (connection, path):
        found = [_fields(connection, row, request, settings) for row, request in open_requests(connection, None)]
    if settings.as_json:
        write_json("inputs ls", {"journal": str(path), "inputs": found})
        return ExitCode.OK
    if not found and not settings.quiet:
        say(f"no run in {shown_path(path)} waits for input")
    if found:
        cells = [
            [
                clean(each["run_name"]),
                clean(each["key"] or each["task_id"]),
                ago_text(str(each["asked_at"])),
                "answered" if each["is_answered"] else instant_text(str(each["until"])) if each["until"] else "no limit",
                clean(fields_text(each["schema"]) or "to go on"),
            ]
            for each in found
        ]
        for line in table_lines(("RUN", "KEY", "ASKED", "UNTIL", "INPUT"), cells):
            write(line)
        for command in dict.fromkeys(str(each["command"]) for each in found):
            say(f"answer with: {clean(command)}")
    return ExitCode.OK


def _fields(connection: sqlite3.Connection, row: OpenRequest, request: Request, settings: Settings) -> dict[str, object]:
    run = get_run_head(connection, find_top_run(connection, row.flow_run_id))
    return {
        "run_id": row.flow_run_id,
        "run_name": row.run_name,
        "task_id": row.task_run_id,
        **{name: value for name, value in request.as_json().items() if name != "number"},
        "is_answered": has_message(connection, row.flow_run_id, request.topic(row.task_run_id)),
        "schema": parsed_schema(row),
        "command": command_for(connection, run, "resume", settings, arguments_of_answer(connection, run.id, row.task_run_id)),
    }


def arguments_of_answer(connection: sqlite3.Connection, run_id: int, task_run_id: int | None = None) -> str:
    """Return what follows `wfengine resume RUN` to answer what the run waits for; '' where it needs no input."""
    found = open_requests(connection, run_id)
    chosen = next((each for each in found if task_run_id in (None, each[0].task_run_id)), None)
    if chosen is None or has_message(connection, chosen[0].flow_run_id, chosen[1].topic(chosen[0].task_run_id)):
        return ""
    row, request = chosen
    words = [] if row.schema is None else ["--input", shlex.quote(example_text(parsed_schema(row)))]
    if len(found) > 1:
        words += ["--input-key", shlex.quote(request.key or str(row.task_run_id))]
    return " ".join(words)


# ------------------------------------------------------------------------------------------- wfengine resume


@dataclass(frozen=True, slots=True)
class Given:
    """What `wfengine resume` was given as input."""

    texts: tuple[str, ...]
    key: str | None


def options(command: F) -> F:
    """Give a command the options `--input` and `--input-key`, as one argument `given`."""

    @functools.wraps(command)
    def with_given(*arguments: object, input_texts: tuple[str, ...], input_key: str | None, **named: object) -> object:
        return command(*arguments, **named, given=Given(input_texts, input_key))

    wrapped = click.option(
        "--input",
        "input_texts",
        multiple=True,
        metavar="JSON|NAME=VALUE",
        help="The input that the run waits for: one JSON text, or NAME=VALUE for each field.",
    )(with_given)
    return click.option("--input-key", metavar="KEY", help="Which input, where the run waits for several.")(wrapped)  # type: ignore[return-value]  # click keeps the function


def answer(settings: Settings, path: Path, run: Run, given: Given, *, alone: bool) -> Run | None:
    """Give a run that is about to be resumed its input; return the run to execute.

    None: a process waits for the input and goes on with the run itself. Raises UsageError where the run wants an input
    and was given none, which says what to type; NotPausedError where it wants none.
    """
    if (given.texts or given.key) and not alone:
        raise UsageError("--input is for one run. Resume the runs one by one.")
    if run.state == "RUNNING":
        execution.sweep(path)  # its process may be dead
    with reading(path) as connection:
        run = get_run_head(connection, run.id)
        if not given.texts and not _is_to_be_answered(connection, run, given.key):
            return run
        row, request = chosen_request(connection, run.id, clean(run.name), given.key)
        top = get_run_head(connection, find_top_run(connection, run.id))
        if row.schema is not None and not given.texts:
            command = command_for(connection, top, "resume", settings, arguments_of_answer(connection, top.id, row.task_run_id))
            raise InvalidInputError(
                f"Flow run {row.flow_run_id} '{clean(row.run_name)}' waits for input: {fields_text(parsed_schema(row))}. "
                f"Nothing ran. Type: {command}"
            )
    value = input_of_texts(given.texts, parsed_schema(row)) if given.texts else None
    done = execution.give_input(path, row, request, value)
    if not settings.quiet:
        who = "" if not done.goes_on else "; the process that waits for it goes on"
        say(
            clean_lines(f"{row.run_name} has its input{who}." if done.is_new else f"{row.run_name} had its input already{who}.")
        )
    if done.goes_on:
        return None
    execution.wait_until_parked(path, top.id, PARKING_SECONDS)
    with reading(path) as connection:
        return get_run_head(connection, top.id)


def _is_to_be_answered(connection: sqlite3.Connection, run: Run, key: str | None) -> bool:
    """Tell whether a run that is resumed without input waits for one, or for somebody's word, that it does not have yet."""
    if run.state != "RUNNING" and run.state_name != "Suspended":
        return False  # one that was cut off goes on waiting
    now = SystemClock().now_text()
    found = [
        (row, request)
        for row, request in open_requests(connection, run.id)
        if not has_message(connection, row.flow_run_id, request.topic(row.task_run_id))
        and (request.until is None or request.until > now)
    ]
    return bool(found) or key is not None
