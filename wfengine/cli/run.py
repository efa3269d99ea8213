"""`wfengine run` and `wfengine resume`: execute runs in this process."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import click

from wfengine.cli import execution, inputs
from wfengine.cli.base import Command, Settings, epilog, pass_settings, report
from wfengine.cli.ending import ending_json, nothing_ran_line, read_ending, say_ending, say_failed_quietly
from wfengine.cli.execution import Outcome
from wfengine.cli.exits import ExitCode, code_of_error, code_of_state
from wfengine.cli.journal import command_for, journal_path
from wfengine.cli.live import following, make_view
from wfengine.cli.output import clean, say, write_json
from wfengine.cli.plan import say_plans
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import NotFoundError, RunOwnedError, UsageError, WfengineError
from wfengine_journal.queries import (
    find_newest_run_of,
    get_run,
    get_run_head,
    list_run_transitions,
    newest_run_id,
    reading,
)
from wfengine_journal.rows import Run

_SETTING = re.compile(r"(?P<call>[^=\[\]]+(?:\[.*?\])?)=(?P<value>.*)", re.DOTALL)
RERUN_HELP = (
    "Run more again than usual: 'failed' (every failure), 'changed' (tasks whose code changed), TASK, TASK[KEY] (by call_key, "
    "an argument's value or NAME=VALUE), from:TASK, or the id of a task run. May be given several times."
)
#: Bytes of a file that `-p name=@file` reads at most; a parameter is stored in the journal.
PARAMETER_FILE_BYTES = 64 * 1024 * 1024


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine run etl.py -p day=2026-11-22 -p options=@options.json\n"
        "  wfengine run package.module:nightly --name nightly-22 --tag prod",
        'JSON, when the run has ended:\n  {"schema_version", "command", "run": {... as in runs show}}',
    ),
)
@click.argument("target", metavar="FILE_OR_MODULE[:FLOW]")
@click.option(
    "-p",
    "--param",
    "texts",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter: text or JSON; @FILE reads it from a file, @- from standard input, @@ begins a text with @.",
)
@click.option("--name", help="Name of the run.")
@click.option("--tag", "tags", multiple=True, help="Tag of the run; may be given several times.")
@click.option("--idempotency-key", help="A second start with this key resumes the first run, or returns its result.")
@click.option(
    "--durability",
    type=click.Choice(["power", "process"]),
    help="What a result survives once the flow has it: a power cut (default), or a crash of the process.",
)
@pass_settings
def run(
    settings: Settings,
    target: str,
    texts: tuple[str, ...],
    name: str | None,
    tags: tuple[str, ...],
    idempotency_key: str | None,
    durability: str | None,
) -> int:
    """Run the flow that FILE_OR_MODULE defines, and show how it goes.

    The exit code says how the run ended. Ctrl-C once stops it such that it can be resumed, twice ends it at once.
    """
    given = dict(parameter_text(text) for text in texts)
    flow = execution.load_flow(target)
    parameters = execution.parameters_from_text(flow, given, execution.path_to_use(settings.journal))
    options: dict[str, object] = {
        "flow_run_name": name,
        "tags": list(tags) or None,
        "idempotency_key": idempotency_key,
        "durability": durability,
    }
    chosen = {option: value for option, value in options.items() if value is not None}
    flow = flow.with_options(**chosen) if chosen else flow
    since = SystemClock().now_text()
    path = execution.use_journal(Path(settings.journal) if settings.journal else None)
    with reading(path) as connection:
        before_id = newest_run_id(connection)

    def find(connection: sqlite3.Connection) -> int | None:
        return find_newest_run_of(connection, os.getpid(), since, before_id)

    with following(path, find, make_view(settings, path)):
        outcome = execution.start(flow, parameters, lambda: _last_words(path, find, settings))
    with reading(path) as connection:
        outcome = replace(outcome, run_id=outcome.run_id or find(connection))
        if _is_recorded(connection, outcome, before_id, since):
            fields, code = _nothing_ran(connection, cast("int", outcome.run_id), settings)
        else:
            fields, code = _finish(connection, path, outcome, settings)
    if settings.as_json:
        write_json("run", fields)
    return code


def _is_recorded(connection: sqlite3.Connection, outcome: Outcome, before_id: int, since: str) -> bool:
    """Tell whether the start was answered with the result of a run that had completed before `since`."""
    if outcome.run_id is None or outcome.run_id > before_id or outcome.error is not None:
        return False
    head = get_run_head(connection, outcome.run_id)
    return head.state == "COMPLETED" and head.ended_at is not None and head.ended_at < since


def _nothing_ran(connection: sqlite3.Connection, run_id: int, settings: Settings) -> tuple[dict[str, object], int]:
    ending = read_ending(connection, run_id, settings)
    if not settings.quiet:
        say(nothing_ran_line(ending.run))
    return {"run": ending_json(ending), "nothing_ran": True}, int(ExitCode.OK)


def _last_words(path: Path, find: Callable[[sqlite3.Connection], int | None], settings: Settings) -> str:
    """Return how to go on, for a process that is about to end at once: whatever goes wrong must not keep it."""
    command = "wfengine resume @last"
    with suppress(WfengineError, sqlite3.Error, OSError), reading(path) as connection:
        run_id = find(connection)
        if run_id is None:
            return "ended at once; no run had begun"
        command = command_for(connection, get_run_head(connection, run_id), "resume", settings)
    return f"ended at once · resume with: {command}"


def parameter_text(text: str) -> tuple[str, str]:
    """Return name and text of a '-p' option. Raises UsageError for one without '=', or a file that cannot be read."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"-p takes NAME=VALUE, not {text!r}. Example: -p day=2026-11-22")
    if value.startswith("@@"):
        return name.strip(), value[1:]
    if value.startswith("@"):
        return name.strip(), _file_text(value[1:])
    return name.strip(), value


def exact_parameters(text: str) -> dict[str, object]:
    """Return the parameters of a --parameters option, each exactly as it stands there. Raises UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'--parameters is no JSON: {error}. Example: --parameters \'{{"day": "2026-11-22"}}\'') from None
    if not isinstance(found, dict):
        raise UsageError("--parameters is a JSON object, with the parameters by name.")
    return found


def _file_text(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.read()
        if Path(name).stat().st_size > PARAMETER_FILE_BYTES:
            raise UsageError(
                f"{name} has more than {PARAMETER_FILE_BYTES:,} bytes. Give the flow its path instead: -p NAME={name}"
            )
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file {name} of a -p option cannot be read: {error}") from error


def _finish(
    connection: sqlite3.Connection, path: Path, outcome: Outcome, settings: Settings, attempt: int = 0
) -> tuple[dict[str, object], int]:
    """Say how a start or resume ended; return its fields for --json and the exit code.

    `attempt`: the number of the run's last one before; 0 for a new run.
    """
    if outcome.run_id is None:
        if outcome.error is not None:
            raise outcome.error
        if outcome.stopped is not None:
            raise outcome.stopped  # nothing was begun, so this came from elsewhere
        return {"run": None}, ExitCode.INTERRUPTED
    ending = read_ending(connection, outcome.run_id, settings)
    fields: dict[str, object] = {"run": ending_json(ending)}
    code = int(code_of_state(ending.run.state))
    if outcome.error is not None:
        code = _say_error(outcome.error, settings)
        fields["error"] = {"code": outcome.error.code, "message": str(outcome.error)}
    if not settings.quiet and not _is_refused(outcome, ending.run, attempt):
        say_ending(connection, ending, path, verbose=settings.verbose, why=outcome.error is None and not outcome.interrupted)
    elif settings.quiet and outcome.error is None and code != ExitCode.OK:
        say_failed_quietly(connection, ending)
    if outcome.interrupted:
        code = int(ExitCode.INTERRUPTED)
        if ending.run.state not in ("CRASHED", "COMPLETED"):  # else the line above has said it
            say(f"interrupted; resume with: {command_for(connection, ending.run, 'resume', settings)}")
    fields["exit_code"] = code
    return fields, code


def _is_refused(outcome: Outcome, run: Run, attempt: int) -> bool:
    """Tell whether the engine refused before it did anything, so that there is nothing to say of the run."""
    if outcome.error is None:
        return False
    return isinstance(outcome.error, RunOwnedError | UsageError) or run.attempt == attempt


def _say_error(error: WfengineError, settings: Settings) -> int:
    talk = Settings(settings.journal, False, settings.quiet, settings.verbose, settings.no_color)
    return report(error, None, talk)


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine resume @last\n  wfengine resume --all",
        'JSON, when all have ended:\n  {"schema_version", "command", "runs": [{"run": {...}, "exit_code", "error"?}]}',
    ),
)
@click.argument("references", metavar="[RUN]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every run whose process died; recorded failures stay as they are.")
@click.option(
    "--on-drift",
    type=click.Choice(["error", "rerun", "reuse"]),
    help="When a finished call comes back with other inputs: stop and show the difference, run it as a new call, or let the "
    "recorded result stand for it. [default: rerun if the flow's code was edited, else error]",
)
@click.option("--plan", "plans", is_flag=True, help="Only say what would be replayed and what would run; execute nothing.")
@click.option("--rerun", "rerun", multiple=True, metavar="WHAT", help=RERUN_HELP)
@click.option("--set", "settings_texts", multiple=True, metavar="TASK[KEY]=JSON", help="Give a call this result by hand.")
@click.option("--takeover", is_flag=True, help="Take the run from a process that does not answer; it cannot write any more.")
@inputs.options
@pass_settings
def resume(
    settings: Settings, references: tuple[str, ...], every: bool, on_drift: str | None, plans: bool, rerun: tuple[str, ...],
    settings_texts: tuple[str, ...], takeover: bool, given: inputs.Given,
) -> int:  # fmt: skip
    """Take each RUN up again: what finished is replayed, what did not runs.

    Fix the bug, then resume: calls whose inputs are the same keep their results. The exit code is that of the first run
    that did not complete.
    """
    if bool(references) == every:
        raise UsageError("Name the runs to resume, or say --all. See what can be resumed: wfengine runs ls --state CRASHED")
    if every and (rerun or settings_texts):
        raise UsageError("--rerun and --set are about one run. Name it: wfengine resume RUN --rerun ...")
    path = journal_path(settings)
    how = _How(on_drift, takeover, every, rerun, dict(_setting(text) for text in settings_texts))
    chosen = _chosen_runs(path, references, every)
    if not chosen:
        say("nothing to resume: no run's process has died")
    if plans:
        return say_plans(settings, path, chosen, how.on_drift, how.rerun, how.values)
    return _resume_each(settings, path, chosen, how, "resume", None if every else given)


@click.command(
    cls=Command,
    epilog=epilog("Examples:\n  wfengine retry @last\n  wfengine retry quiet-heron"),
)
@click.argument("references", metavar="RUN...", nargs=-1, required=True)
@pass_settings
def retry(settings: Settings, references: tuple[str, ...]) -> int:
    """Take each RUN up again and run every failure in it again, also what the flow had handled. What completed replays."""
    path = journal_path(settings)
    chosen = _chosen_runs(path, references, every=False)
    return _resume_each(settings, path, chosen, _How(rerun=("failed",)), "retry")


@dataclass(frozen=True, slots=True)
class _How:
    """How runs are resumed; see `wfengine.recovery.resume_run`."""

    on_drift: str | None = None
    takeover: bool = False
    recovery: bool = False
    rerun: tuple[str, ...] = ()
    values: dict[str, object] = field(default_factory=dict)


def _setting(text: str) -> tuple[str, object]:
    """Return the call and the value of a '--set' option."""
    match = _SETTING.fullmatch(text)
    if match is None:
        raise UsageError(f"--set takes TASK[KEY]=JSON, not {text!r}. Example: --set 'charge[42]={{\"receipt\": 77}}'")
    try:
        return match["call"], json.loads(match["value"])
    except ValueError as error:
        raise UsageError(
            f"--set takes the result as JSON; {match['value']!r} is none ({error}). Text needs quotes: '\"text\"'."
        ) from error


def _resume_each(
    settings: Settings, path: Path, chosen: Sequence[Run], how: _How, command: str, given: inputs.Given | None = None
) -> int:
    results: list[dict[str, object]] = []
    codes: list[int] = []
    for named in chosen:
        one = named if given is None else inputs.answer(settings, path, named, given, alone=len(chosen) == 1)
        if one is None:  # a process waits for it, and goes on
            results.append({"run": {"id": named.id, "name": named.name}, "input_given": True, "exit_code": ExitCode.OK})
            codes.append(ExitCode.OK)
            continue
        fields, code = _resume_one(settings, path, one, how)
        results.append({**fields, "exit_code": code})
        codes.append(code)
        if code == ExitCode.INTERRUPTED:
            break
    if settings.as_json:
        write_json(command, {"runs": results})
    return ExitCode.INTERRUPTED if ExitCode.INTERRUPTED in codes else next((code for code in codes if code), ExitCode.OK)


def _chosen_runs(path: Path, references: Sequence[str], every: bool) -> list[Run]:
    """Return the runs to resume, each once. Every reference is looked up before any run is started."""
    with reading(path) as connection:
        if not every:
            found = [get_run(connection, reference) for reference in references]
            return list({run.id: run for run in found}.values())
    ids = execution.resumable_runs(path)
    with reading(path) as connection:
        return [get_run_head(connection, run_id) for run_id in ids]


def resume_one(settings: Settings, path: Path, chosen: Run) -> tuple[dict[str, object], int]:
    """Resume one run, as `resume RUN` does; return its fields for --json and the exit code."""
    fields, code = _resume_one(settings, path, chosen, _How())
    return {**fields, "exit_code": code}, code


def _resume_one(settings: Settings, path: Path, chosen: Run, how: _How) -> tuple[dict[str, object], int]:
    try:
        with reading(path) as connection:
            seq = list_run_transitions(connection, chosen.id)[-1].seq
            head = get_run_head(connection, chosen.id)
            is_over = head.state == "COMPLETED" and head.state_name != "ContinuedAsNew"
            if is_over and not how.rerun and not how.values:
                return _nothing_ran(connection, chosen.id, settings)

        def find(connection: sqlite3.Connection) -> int | None:
            # A resume that is refused leaves nothing to look at.
            return chosen.id if get_run_head(connection, chosen.id).attempt > chosen.attempt else None

        with following(path, find, make_view(settings, path), after_seq=seq):
            outcome = execution.resume(
                path,
                chosen.id,
                on_drift=how.on_drift,
                takeover=how.takeover,
                recovery=how.recovery,
                rerun=how.rerun,
                values=how.values,
                last_words=lambda: _last_words(path, lambda _: chosen.id, settings),
            )
        with reading(path) as connection:
            return _finish(connection, path, outcome, settings, chosen.attempt)
    except NotFoundError as error:  # pruned between our look and this one
        say(f"{clean(chosen.name)} is gone")
        return {"run": None, "error": {"code": error.code, "message": str(error)}}, code_of_error(error)
