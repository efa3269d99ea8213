"""What is said, and returned, when a run that was started, resumed or watched has ended."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from wfengine.cli.base import Settings
from wfengine.cli.exits import code_of_state
from wfengine.cli.journal import next_command_for, shown_path
from wfengine.cli.output import clean, clean_lines, duration_text, instant_text, json_value, say, shorten, state_text
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.queries import get_run, list_executions
from wfengine_journal.rows import ExecutionCounts, Run
from wfengine_journal.task_queries import execution_counts, list_failures

#: Lines of a recorded traceback that are shown: its end, where the cause is.
TRACEBACK_LINES = 30
ENGINE_FOLDER = Path(__file__).parents[1]
#: Characters of a result that are shown.
RESULT_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run stands. `counts`: what the last attempt replayed and ran, null while the run is parked.

    `seconds` is how long the last attempt took.
    """

    run: Run
    counts: ExecutionCounts | None
    seconds: float | None
    next_command: str


def read_ending(connection: sqlite3.Connection, run_id: int, settings: Settings) -> Ending:
    """Read how a run stands."""
    run = get_run(connection, run_id)
    return Ending(
        run,
        # A parked run has been asked for part of its calls only, which would be told as a number of all.
        None if run.state == "PAUSED" else execution_counts(connection, run_id),
        _attempt_seconds(connection, run),
        next_command_for(connection, run, settings),
    )


def counts_text(counts: ExecutionCounts | None) -> str:
    """Return the figures for people: '3 replayed, 1 ran, 2 cached, 1 not asked for again'; '' for a parked run."""
    if counts is None:
        return ""
    orphans = f", {counts.not_asked} not asked for again" if counts.not_asked else ""
    cached = f", {counts.cached} cached" if counts.cached else ""
    return f"{counts.replayed} replayed, {counts.ran} ran{cached}{orphans}"


def _attempt_seconds(connection: sqlite3.Connection, run: Run) -> float | None:
    executions = list_executions(connection, run.id)
    if not executions or run.ended_at is None:
        return run.duration_s
    try:
        return max(0.0, seconds_from_text(run.ended_at) - seconds_from_text(executions[-1].started_at))
    except ValueError:  # instants that are none, in a damaged file
        return run.duration_s


def say_ending(connection: sqlite3.Connection, ending: Ending, path: Path, *, verbose: bool, why: bool = True) -> None:
    """Say how a run stands: its failure with the traceback, or its result, then one line. `why`: say what stopped it."""
    run = ending.run
    if run.state == "FAILED":
        _say_failure(connection, run.id, verbose)
    elif run.state in ("CRASHED", "PAUSED", "SCHEDULED") and run.error and why:
        say("  " + clean_lines(run.error).replace("\n", "\n  "))
    if run.result is not None and run.result != "null":
        say(f"result  {shorten(clean(run.result), RESULT_WIDTH)}")
    say(ending_line(ending, path))


def _say_failure(connection: sqlite3.Connection, run_id: int, verbose: bool) -> None:
    failures = list_failures(connection, run_id, limit=2)
    if not failures:
        return
    lines = clean_lines(failures[0].traceback).rstrip().split("\n")
    lines = lines if verbose else _without_engine(lines)
    if len(lines) > TRACEBACK_LINES:
        lines = ["...", *lines[-TRACEBACK_LINES:]]
    for line in lines:
        say(click.style("  " + line, dim=True))
    said = f"{failures[0].type}: {failures[0].message}" if failures[0].message else failures[0].type
    where = f" (in task {clean(failures[1].task)})" if len(failures) > 1 and failures[1].ended_the_run else ""
    say(click.style("failed", fg="red", bold=True) + f"  {clean(said)}{where}")


def _without_engine(lines: list[str]) -> list[str]:
    """Return a traceback's lines without the frames of wfengine itself, which say nothing about the user's mistake."""
    engine, kept, skips = f'  File "{ENGINE_FOLDER}{os.sep}', [], False
    for line in lines:
        if not line.startswith("    "):  # the lines of a frame stand below its file
            skips = line.startswith(engine)
        if not skips:
            kept.append(line)
    return kept


def ending_line(ending: Ending, path: Path) -> str:
    """Return the one line that ends every start, resume and watch."""
    run = ending.run
    parts = [f"{clean(run.name)} {state_text(run.state, run.state_name)}", f"{run.tasks_done}/{run.tasks_total} tasks"]
    if ending.counts is not None and (ending.counts.replayed or ending.counts.not_asked):
        parts[-1] += f" ({counts_text(ending.counts)})"
    if ending.seconds is not None:
        parts.append(duration_text(ending.seconds))
    parts.append(f"journal {shown_path(path)}")
    step = "resume with" if run.state == "CRASHED" else "fix it, then" if run.state == "FAILED" else "next"
    parts.append(f"{step}: {ending.next_command}")
    return " · ".join(parts)


def say_failed_quietly(connection: sqlite3.Connection, ending: Ending) -> None:
    """Say, in the one line that --quiet leaves, that a run did not complete, why, and how to go on."""
    run = ending.run
    why = run.error or run.message
    if run.state == "FAILED" and (failures := list_failures(connection, run.id, limit=2)):
        task = f" in task {clean(failures[1].task)}" if len(failures) > 1 and failures[1].ended_the_run else ""
        why = f"{failures[0].type}: {failures[0].message}{task}"
    said = f": {shorten(clean(why), RESULT_WIDTH)}" if why else ""
    say(f"error: {clean(run.name)} {clean(run.state_name)}{said} · next: {ending.next_command}")


def nothing_ran_line(run: Run) -> str:
    """Return what is said of a run that had completed before it was asked for."""
    return f"{clean(run.name)} already Completed at {instant_text(run.ended_at)}; nothing ran"


def ending_json(ending: Ending) -> dict[str, object]:
    """Return the fields of a run for --json."""
    return {
        **run_json(ending.run),
        "replayed": ending.counts and ending.counts.replayed,
        "ran": ending.counts and ending.counts.ran,
        "cached": ending.counts and ending.counts.cached,
        "not_asked": ending.counts and ending.counts.not_asked,
        "attempt_duration_s": ending.seconds,
        "next_command": ending.next_command,
        "exit_code": int(code_of_state(ending.run.state)),
    }


def run_json(run: Run) -> dict[str, object]:
    """Return a run for --json: every column, with parameters, result and tags as JSON where they are."""
    fields: dict[str, object] = asdict(run)
    for name in ("parameters", "result", "tags"):
        fields[name] = json_value(getattr(run, name))
    return fields
