"""`wfengine deploy`: record what a file declares, or one flow's deployment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.deployment_actions import duration_of
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, say, write, write_json
from wfengine.cli.run import parameter_text
from wfengine.deployment_file import Declared, flow_at, read_file
from wfengine.deployment_plan import Planned, apply, find_moved, plan
from wfengine.deployments import Deployment, schedules_of
from wfengine.journals import use_journal
from wfengine.serving import find_served
from wfengine.upkeep_tables import FILE_NAME, find_file
from wfengine_journal.errors import UsageError
from wfengine_journal.queries import reading

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_COLORS = {"created": "green", "updated": "yellow", "removed": "red"}


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine deploy --plan\n"
        "  wfengine deploy wfengine.toml --prune\n"
        "  wfengine deploy flows.py:etl --name nightly --cron '0 3 * * *' --timezone Europe/Berlin -p day=today",
        'JSON:\n  {"schema_version", "command", "journal", "file", "plan", "changes": [{"kind", "name", "outcome",\n'
        '   "fields", "due"}]}',
    ),
)
@click.argument("target", metavar="[FILE.toml | FILE.py:FLOW]", required=False)
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would change.")
@click.option("--prune", is_flag=True, help="Remove what the file declared when it was applied before, and does not any more.")
@click.option("--moved-from", metavar="FILE.toml", help="With --prune: where the file stood when it was applied before.")
@click.option("--name", help="Of a FLOW: the deployment's name.")
@click.option("--cron", multiple=True, help="Of a FLOW: when it is due; may be given several times.")
@click.option("--interval", multiple=True, help="Of a FLOW: due every so often: '15m', '6h'.")
@click.option("--rrule", multiple=True, help="Of a FLOW: due by a rule of RFC 5545.")
@click.option("--timezone", help="Of these: an IANA name.")
@click.option("-p", "--param", "texts", multiple=True, metavar="NAME=VALUE", help="Of a FLOW: a parameter; text or JSON.")
@click.option("--tag", "tags", multiple=True, help="Of a FLOW: a tag of its runs.")
@click.option("--queue", help="Of a FLOW: where its runs wait.")
@click.option("--priority", type=int, help="Of a FLOW: of its runs in the queue.")
@click.option("--concurrency-limit", type=int, help="Of a FLOW: so many of its runs at a time.")
@click.option("--paused", is_flag=True, default=None, help="Of a FLOW: its schedules start nothing yet.")
@pass_settings
def deploy(
    settings: Settings, /, target: str | None, only_plan: bool, prune: bool, moved_from: str | None, **options: Any
) -> int:
    """Record deployments: those that a wfengine.toml declares, or a Python file, or one of a flow.

    Without a target: the wfengine.toml here, else the one beside the journal. All of it is checked first, and nothing is
    written where anything in it is wrong. Applying the same again changes nothing.
    """
    path = journal_path(settings)
    declared = _declared(target, path, {key: value for key, value in options.items() if value not in (None, ())})
    if prune and declared.applied_from is None:
        raise UsageError("--prune goes with a file that declares deployments: wfengine deploy FILE.toml --prune")
    if moved_from is not None and not prune:
        raise UsageError("--moved-from goes with --prune: wfengine deploy FILE.toml --prune --moved-from /old/FILE.toml")
    declared = replace(declared, moved_from=None if moved_from is None else os.path.realpath(moved_from))
    if only_plan:
        with _reading_if_there(path) as connection:
            changes = plan(connection, declared, prune=prune)
            moved = None if connection is None else find_moved(connection, declared)
    else:
        changes = apply(use_journal(path), declared, prune=prune)
        moved = use_journal(path).read(lambda connection: find_moved(connection, declared))
    if settings.as_json:
        fields = [
            {"kind": each.kind, "name": each.name, "outcome": each.outcome, "fields": list(each.fields), "due": each.due}
            for each in changes
        ]
        write_json("deploy", {"journal": str(path), "file": declared.applied_from, "plan": only_plan, "changes": fields})
        return ExitCode.OK
    for each in changes:
        write(_line(each))
    if not settings.quiet:
        say(_summary(changes, path, only_plan=only_plan))
        if moved is not None:
            say(
                f"note: {clean(moved)} declared something that is there still, and is gone. If this is that file, moved: "
                f"wfengine deploy {clean(declared.applied_from or '')} --prune --moved-from {clean(moved)}"
            )
    return ExitCode.OK


def _line(change: Planned) -> str:
    mark = click.style(f"{change.outcome:<9}", fg=_COLORS.get(change.outcome))
    differing = f"  {', '.join(change.fields)}" if change.fields else ""
    due = "" if change.due is None or change.outcome == "removed" else f"  {change.due}"
    return f"{mark} {change.kind} {clean(change.name)}{differing}{due}"


def _summary(changes: Sequence[Planned], path: Path, *, only_plan: bool) -> str:
    differing = sum(each.outcome != "unchanged" for each in changes)
    if not changes:
        return "nothing is declared"
    if only_plan:
        what = f"{differing} of {len(changes)} would change; nothing was written" if differing else "nothing would change"
    else:
        what = f"{differing} of {len(changes)} changed" if differing else "everything is as it was"
    return f"{what} ({shown_path(path)})"


@contextmanager
def _reading_if_there(path: Path) -> Iterator[sqlite3.Connection | None]:
    if not path.exists():
        yield None
        return
    with reading(path) as connection:
        yield connection


def _declared(target: str | None, journal: Path, options: dict[str, Any]) -> Declared:
    """Return what a target declares. Raises UsageError, and EntrypointError for code that cannot be loaded."""
    if target is None:
        here = Path(FILE_NAME)
        file = here if here.is_file() else find_file(journal)
        if file is None:
            raise UsageError(f"There is no {FILE_NAME} here. Name a file, or a flow: wfengine deploy FILE.py:FLOW --name NAME")
        target = str(file)
    if target.endswith(".toml"):
        if options:
            raise UsageError(f"--{next(iter(options)).replace('_', '-')} goes with a flow: wfengine deploy FILE.py:FLOW")
        return read_file(Path(target), journal.parent / "sources")
    if "name" not in options:
        return _declared_in_code(target, options)
    return Declared(None, [_of_flow(target, options)])


def _declared_in_code(target: str, options: dict[str, Any]) -> Declared:
    names_flow = ":" in target and not Path(target).is_file()
    found = [] if names_flow else find_served([target]).declared
    if not found or options:
        raise UsageError(f"A deployment of a flow needs a name: wfengine deploy {target} --name nightly")
    return Declared(None, found)


def _of_flow(target: str, options: dict[str, Any]) -> Deployment:
    flow = flow_at(target, Path.cwd())
    texts = dict(parameter_text(text) for text in options.pop("texts", ()))
    schedules = schedules_of(
        [duration_of(text, "--interval") for text in options.pop("interval", ())],
        options.pop("cron", None), options.pop("rrule", None), timezone=options.pop("timezone", None),
    )  # fmt: skip
    parameters = cast(Any, flow).parameters.from_text(texts)
    return Deployment.build_from_flow(flow, options.pop("name"), schedules=schedules, parameters=parameters, **options)
