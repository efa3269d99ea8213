"""Which journal a command means, and opening it to read."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wfengine.cli.base import Settings
from wfengine.cli.output import clean
from wfengine_journal.location import ENVIRONMENT_VARIABLE, find_path
from wfengine_journal.queries import find_runs, get_run_head, has_open_runs, reading
from wfengine_journal.rows import Run
from wfengine_journal.task_queries import find_call_in_doubt


def journal_path(settings: Settings) -> Path:
    """Return the path of the journal to use."""
    return find_path(settings.journal)


def existing_path(settings: Settings) -> Path:
    """Return the path of the journal to use. Raises JournalNotFoundError where there is none: the engine would make one."""
    path = journal_path(settings)
    with reading(path):
        return path


def journal_reason(settings: Settings) -> str:
    """Return why that path."""
    if settings.journal:
        return "named with --journal"
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return f"named by {ENVIRONMENT_VARIABLE}"
    path = find_path()
    if not path.exists():
        return "the default; no journal was found here or in a folder above"
    here = path.parent.parent == Path.cwd()
    return "found in the working directory" if here else f"found above the working directory, in {path.parent.parent}"


@contextmanager
def open_swept(settings: Settings) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """Open the journal to read, after marking runs whose process died, so that an orphan is seen at once."""
    path = journal_path(settings)
    with reading(path) as connection:
        sweep_if_needed(connection, path)
        yield connection, path


def sweep_if_needed(connection: sqlite3.Connection, path: Path) -> None:
    """Look for runs whose process died, if any run counts as being executed."""
    if has_open_runs(connection):
        from wfengine.cli import execution

        execution.sweep(path)


def shown_path(path: Path) -> str:
    """Return a path for people: relative where it lies below the working directory."""
    try:
        return clean(path.relative_to(Path.cwd()))
    except ValueError:
        return clean(path)


def command_for(connection: sqlite3.Connection, run: Run, verb: str, settings: Settings, arguments: str = "") -> str:
    """Return a command line about a run that works when it is pasted: by name if the name is unique, else by id.

    `arguments` follow the run as they are.
    """
    unique = find_runs(connection, run.name) == [run.id] and clean(run.name) == run.name
    words = [f"wfengine {verb}", shlex.quote(run.name) if unique else str(run.id)]
    words += ["--journal", shlex.quote(settings.journal)] if settings.journal else []
    return " ".join([*words, arguments] if arguments else words)


def next_command_for(connection: sqlite3.Connection, run: Run, settings: Settings) -> str:
    """Return the command line that goes on with a run, or shows it where there is nothing to go on with."""
    if run.state in ("CRASHED", "FAILED"):
        return command_for(connection, run, "resume", settings)
    if run.state != "PAUSED":
        return command_for(connection, run, "runs show", settings)
    doubt = find_call_in_doubt(connection, run.id)
    if doubt is not None:
        in_doubt = get_run_head(connection, doubt[0])
        return command_for(connection, in_doubt, "resolve", settings, f"{doubt[1]} --done ...")
    if run.state_name == "Suspended":
        from wfengine.cli.inputs import arguments_of_answer

        return command_for(connection, run, "resume", settings, arguments_of_answer(connection, run.id))
    return command_for(connection, run, "resume", settings, "--on-drift rerun" if run.state_name == "Drifted" else "")
