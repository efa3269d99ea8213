"""`wfengine resume --plan`, and `wfengine replay`: what is recorded of a run, held against the code as it is now."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode, code_of_error
from wfengine.cli.journal import command_for, journal_path
from wfengine.cli.output import clean, clean_lines, say, shorten, write_json
from wfengine_journal.queries import get_run, reading
from wfengine_journal.rows import Run

if TYPE_CHECKING:
    from wfengine.dry_runs import Plan, PlannedCall

#: Calls other than replayed ones that are listed one by one.
LISTED = 40
_COLOURS = {"REPLAY": "green", "RERUN": "yellow", "NEW": "cyan", "ORPHAN": "magenta"}


def say_plans(
    settings: Settings, path: Path, chosen: Sequence[Run], on_drift: str | None, rerun: Sequence[str],
    values: Mapping[str, object],
) -> int:  # fmt: skip
    """Say for each run what a resume would do; the exit code is 0, or that of the first that would be parked."""
    plans = [(run, execution.plan(path, run.id, on_drift=on_drift, rerun=rerun, values=values)) for run in chosen]
    if settings.as_json:
        write_json("resume --plan", {"plans": [_json(plan) for _, plan in plans]})
    options = [("--on-drift", on_drift)] if on_drift else []
    options += [("--rerun", each) for each in rerun] + [
        ("--set", f"{call}={json.dumps(value)}") for call, value in values.items()
    ]
    asked = " ".join(f"{option} {shlex.quote(text)}" for option, text in options)
    code = int(ExitCode.OK)
    for run, plan in plans:
        if not settings.quiet:
            say(f"plan for {clean(run.name)} (nothing was run)")
            _say_plan(settings, plan)
            with reading(path) as connection:
                say(f"next: {command_for(connection, run, 'resume', settings, asked)}")
        if plan.error is not None:
            code = code or code_of_error(plan.error)
    return code


def _json(plan: Plan) -> dict[str, object]:
    return {
        "run_id": plan.flow_run_id, "name": plan.name, "ended": plan.ended, "counts": dict(plan.counts),
        "calls": [asdict(call) for call in plan.calls], "error": None if plan.error is None else str(plan.error),
    }  # fmt: skip


def _say_plan(settings: Settings, plan: Plan) -> None:
    counts = [f"{click.style(word, fg=_COLOURS[word])} {plan.counts[word]}" for word in _COLOURS]
    say("  " + " · ".join(counts))
    told = [call for call in plan.calls if call.decision != "REPLAY" or settings.verbose]
    for call in told[:LISTED]:
        _say_call(call)
    if len(told) > LISTED:
        say(f"  ... and {len(told) - LISTED} more (see them with --json)")
    if plan.error is not None:
        say("  " + clean_lines(str(plan.error)).replace("\n", "\n  "))
    elif plan.ended:
        say("  the flow comes to its end" + _outcome(plan))
    else:
        say("  what follows depends on the first call that runs, so it cannot be told now")


def _outcome(plan: Plan) -> str:
    outcome = plan.outcome
    if outcome is None:
        return ""
    if outcome.error is not None:
        return f" and raises {type(outcome.error).__name__}: {shorten(clean(str(outcome.error)), 80)}"
    return f" and gives {shorten(clean(repr(outcome.value)), 80)}"


def _say_call(call: PlannedCall) -> None:
    from wfengine.dry_runs import inputs_text

    number = f" #{call.task_run_id}" if call.task_run_id is not None else ""
    why = f"  - {clean(call.why)}" if call.why else ""
    word = click.style(f"{call.decision:<6}", fg=_COLOURS[call.decision])
    say(f"  {word} {clean(call.task)}({clean(inputs_text(call.inputs))}){number}{why}")
    for name, recorded, now in call.differences:
        say(f"           {clean(name)}: recorded {clean(recorded)}, now {clean(now)}")


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine replay @last\n  wfengine replay quiet-heron --pdb",
        'JSON:\n  {"schema_version", "command", "plan": {"run_id", "name", "ended", "counts", "calls", "error"}}',
    ),
)
@click.argument("reference", metavar="RUN")
@click.option("--pdb", "debug", is_flag=True, help="Stop at the first line of the flow, in Python's debugger.")
@pass_settings
def replay(settings: Settings, reference: str, debug: bool) -> int:
    """Run the flow's body once more over what is recorded: every call is answered from the journal, no task runs.

    Nothing is written. `breakpoint()` in the flow works, and the values are those that were. The body stops at the first call
    that has no recorded outcome.
    """
    path = journal_path(settings)
    with reading(path) as connection:
        run = get_run(connection, reference)
    plan = execution.replay(path, run.id, debug=debug)
    if settings.as_json:
        write_json("replay", {"plan": _json(plan)})
    if not settings.quiet:
        say(f"replayed {clean(run.name)} (nothing was run or written)")
        _say_plan(settings, plan)
    return int(ExitCode.OK) if plan.error is None else code_of_error(plan.error)
