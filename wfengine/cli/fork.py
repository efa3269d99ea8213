"""`wfengine fork` and `wfengine diff`: a new run of what another one recorded, and where two runs part."""

from __future__ import annotations

from dataclasses import asdict

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import command_for, journal_path
from wfengine.cli.output import clean, say, shorten, write_json
from wfengine.cli.run import exact_parameters, parameter_text
from wfengine_journal.differences import Comparison, Difference, Side, compare_runs
from wfengine_journal.errors import UsageError
from wfengine_journal.queries import get_run, get_run_head, reading

#: Columns of one side of a difference.
WIDTH = 100
#: Differences that are listed without --verbose.
LISTED = 5


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine fork @last\n  wfengine fork quiet-heron --from train -p rate=0.01",
        'JSON:\n  {"schema_version", "command", "run_id", "name", "origin_run_id", "copied"}',
    ),
)
@click.argument("reference", metavar="RUN")
@click.option(
    "--from", "before", metavar="TASK", help="Leave out the first call of this task and all after it: they run again."
)
@click.option("-p", "--param", "texts", multiple=True, metavar="NAME=VALUE", help="Another value for a parameter; as in run.")
@click.option(
    "--parameters", "text_of_all", metavar="JSON", help="Other values as one JSON object, each exactly as it stands there."
)
@pass_settings
def fork(
    settings: Settings, reference: str, before: str | None, texts: tuple[str, ...], text_of_all: str | None
) -> int:  # fmt: skip
    """Make a new run that begins with what RUN recorded. RUN is left as it was, and nothing is executed yet."""
    path = journal_path(settings)
    with reading(path) as connection:
        run = get_run(connection, reference)
    exact = {} if text_of_all is None else exact_parameters(text_of_all)
    given = dict(parameter_text(text) for text in texts)
    made = execution.fork(path, run.id, before=before, texts=given, exact=exact)
    if settings.as_json:
        write_json("fork", {"run_id": made.flow_run_id, "name": made.name, "origin_run_id": run.id, "copied": made.copied})
    if not settings.quiet:
        with reading(path) as connection:
            forked = get_run_head(connection, made.flow_run_id)
            resume = command_for(connection, forked, "resume", settings)
        say(f"{clean(made.name)} is forked from {clean(run.name)} with {made.copied} of its calls. Go on with it: {resume}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine diff quiet-heron brave-otter",
        'JSON:\n  {"schema_version", "command", "alike", "differences": [{"what", "first": {...}, "second": {...}}]}\n'
        "  what: inputs, outcome, or only (a call that the other run does not have)",
    ),
)
@click.argument("first", metavar="RUN_A")
@click.argument("second", metavar="RUN_B")
@pass_settings
def diff(settings: Settings, first: str, second: str) -> int:
    """Say where two runs of a flow part: the first call whose inputs or outcome differ. Exit code 1 if they do."""
    path = journal_path(settings)
    with reading(path) as connection:
        one, other = get_run(connection, first), get_run(connection, second)
        if one.flow != other.flow:
            raise UsageError(
                f"{clean(one.name)} is a run of flow '{clean(one.flow)}', {clean(other.name)} one of '{clean(other.flow)}'. "
                "Compare two runs of one flow: wfengine runs ls --flow NAME"
            )
        compared = compare_runs(connection, one.id, other.id)
    differs = bool(compared.differences) or one.parameters != other.parameters or one.result != other.result
    if settings.as_json:
        found = [asdict(each) for each in compared.differences]
        write_json("diff", {"alike": compared.alike, "differences": found, "differs": differs})
    if not settings.quiet:
        for what, left, right in (("parameters", one.parameters, other.parameters), ("result", one.result, other.result)):
            if left != right:
                say(f"{what}: {shorten(clean(left), WIDTH)}  |  {shorten(clean(right), WIDTH)}")
        _say_differences(
            compared, clean(one.name), clean(other.name), LISTED if not settings.verbose else len(compared.differences)
        )
    return 1 if differs else ExitCode.OK


def _say_differences(compared: Comparison, one: str, other: str, listed: int) -> None:
    say(f"{compared.alike} calls are alike, {len(compared.differences)} are not" + (":" if compared.differences else "."))
    for each in compared.differences[:listed]:
        say(f"  {_heading(each, one, other)}")
        for name, side in ((one, each.first), (other, each.second)):
            if side is not None:
                say(f"    {name}: {_side_text(side)}")
    if len(compared.differences) > listed:
        say(f"  ... and {len(compared.differences) - listed} more (see them with -v)")


def _heading(difference: Difference, one: str, other: str) -> str:
    side = difference.first or difference.second
    task = "" if side is None else clean(side.task)
    if difference.what == "only":
        return f"{task} was only called in {one if difference.second is None else other}"
    return f"{task}: the inputs differ" if difference.what == "inputs" else f"{task}: equal inputs, another outcome"


def _side_text(side: Side) -> str:
    outcome = shorten(clean(side.outcome), WIDTH)
    return f"{shorten(clean(side.inputs), WIDTH)} -> {side.state} {outcome}".rstrip()
