"""`wfengine deployments run`, `pause`, `resume`, `rm`, `check`: what is done with a deployment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import cast

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path, shown_path
from wfengine.cli.output import clean, instant_text, say, table_lines, write, write_json
from wfengine.cli.run import exact_parameters, parameter_text
from wfengine.cli.watch import watch_run
from wfengine.deployment_runs import ON_DUPLICATE, Asked, request_run, the_deployment
from wfengine.ids import typed
from wfengine.journals import use_journal
from wfengine.parameter_checks import value_of_text
from wfengine_journal.deployments import DeploymentRow, RemoveDeployment, get_columns, list_deployments
from wfengine_journal.errors import EntrypointError, NotFoundError, UsageError
from wfengine_journal.queries import reading
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused
from wfengine_scheduler.pausing import pause_deployment, unpause_deployment

_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NAME = click.argument("name", metavar="[FLOW/]NAME")


def open_for(settings: Settings) -> Journal:
    """Open the journal of a command that writes. Raises NotFoundError where there is none: these commands make none."""
    path = existing_path(settings)
    return use_journal(path)


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine deployments run etl/nightly -p day=2026-11-22 --watch\n"
        "  wfengine deployments run nightly --in 10m --idempotency-key nightly-22",
        'JSON:\n  {"schema_version", "command", "run": {"id", "name", "deployment", "state", "due_at", "is_new"}};\n'
        '  with --watch, when the run has ended: {"schema_version", "command", "run": {... as in runs show}}',
    ),
)
@NAME
@click.option(
    "-p", "--param", "texts", multiple=True, metavar="NAME=VALUE",
    help="A parameter: text or JSON; @FILE reads it from a file, @- from standard input, @@ begins a text with @.",
)  # fmt: skip
@click.option(
    "--parameters", "text_of_all", metavar="JSON", help="Parameters as one JSON object, each exactly as it stands there."
)
@click.option("--name", "run_name", help="Name of the run.")
@click.option("--tag", "tags", multiple=True, help="Tag of the run; may be given several times.")
@click.option("--in", "delay", metavar="TIME", help="Not taken up before: '10m', '2h', '1d'.")
@click.option("--at", metavar="INSTANT", help="Not taken up before: 2026-11-29T07:00:00+01:00.")
@click.option("--idempotency-key", help="A second request with this key is given the first one's run.")
@click.option("--queue", help="Another queue than the deployment's.")
@click.option("--priority", type=int, help="Another priority than the deployment's.")
@click.option("--partition-key", help="Runs of one key share the queue's limit for each partition.")
@click.option("--deduplication-key", help="While a run with this key waits or runs in the queue, there is no second one.")
@click.option(
    "--on-duplicate", type=click.Choice(ON_DUPLICATE), default="return", show_default=True,
    help="With a run that holds the key: be given it, or an error.",
)  # fmt: skip
@click.option("--watch", is_flag=True, help="Follow the run until it ends; the exit code is then the run's.")
@pass_settings
def run(
    settings: Settings, name: str, texts: tuple[str, ...], text_of_all: str | None, run_name: str | None,
    tags: tuple[str, ...], delay: str | None, at: str | None, idempotency_key: str | None, queue: str | None,
    priority: int | None, partition_key: str | None, deduplication_key: str | None, on_duplicate: str, watch: bool,
) -> int:  # fmt: skip
    """Put a run of a deployment into its queue, where a daemon (wfengine serve) takes it up.

    Without a daemon: wfengine resume RUN executes it in this process.
    """
    given = dict(parameter_text(text) for text in texts)
    exact = {} if text_of_all is None else exact_parameters(text_of_all)
    journal = open_for(settings)
    deployment = the_deployment(journal, _named(name))
    columns = journal.records.read(lambda connection: get_columns(connection, deployment.id))
    parameters = exact | {key: value_of_text(columns.parameter_schema, key, text) for key, text in given.items()}
    asked = Asked(
        deployment.id, parameters, _due(journal, delay, at), run_name, tags, idempotency_key, priority, queue, partition_key,
        None, deduplication_key, on_duplicate,
    )  # fmt: skip
    run_id, is_new = request_run(journal, asked)
    row = journal.records.get_flow_run(run_id)
    if watch:
        return watch_run(settings, str(row.id), "deployments run")
    if settings.as_json:
        fields = {
            "id": row.id,
            "name": row.name,
            "deployment": deployment.full_name,
            "state": row.state,
            "due_at": asked.due_at,
            "is_new": is_new,
        }
        write_json("deployments run", {"run": fields})
    elif settings.quiet:
        write(str(row.id))
    else:
        when = "" if asked.due_at is None else f", from {instant_text(asked.due_at)} on"
        write(f"{row.id} {clean(row.name)}")
        before = "" if is_new else "was asked for before, and nothing was added; it "
        does = f"waits in queue '{clean(row.queue)}'{when}" if row.state == "SCHEDULED" else f"is {row.state.capitalize()}"
        say(f"run {row.id} {before}{does}; follow it with: wfengine watch {typed(row.id, row.name)}")
    return ExitCode.OK


def _named(text: str) -> str | int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 18 else text


def _due(journal: Journal, delay: str | None, at: str | None) -> datetime | None:
    if delay is not None and at is not None:
        raise UsageError("--in and --at both say when. Give one of them.")
    if delay is not None:
        now = datetime.fromtimestamp(journal.clock.wall_seconds(), UTC)
        return now + timedelta(seconds=duration_of(delay, "--in"))
    return None if at is None else instant_of(at, "--at")


def duration_of(text: str, option: str) -> float:
    """Return the seconds of a time such as '10m'. Raises UsageError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option} takes a time such as '90s', '10m', '2h' or '1d', not {text!r}.")
    return float(found[1]) * _SECONDS[found[2]]


def instant_of(text: str, option: str) -> datetime:
    """Return the instant of an ISO-8601 text; without an offset it is UTC. Raises UsageError."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} takes an ISO-8601 instant, such as 2026-11-29T07:00:00+01:00, not {text!r}.") from error


# ------------------------------------------------------------------------------------------- pause, resume, rm


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine deployments pause etl/nightly"))
@NAME
@pass_settings
def pause(settings: Settings, name: str) -> int:
    """Let none of its schedules start runs. What is due meanwhile is recorded as skipped."""
    return _switch(settings, name, paused=True)


@click.command(cls=Command, epilog=epilog("Example:\n  wfengine deployments resume etl/nightly"))
@NAME
@pass_settings
def resume(settings: Settings, name: str) -> int:
    """Let its schedules start runs again, from now on."""
    return _switch(settings, name, paused=False)


def _switch(settings: Settings, name: str, *, paused: bool) -> int:
    journal = open_for(settings)
    deployment = the_deployment(journal, _named(name))
    (pause_deployment if paused else unpause_deployment)(journal, deployment.id)
    what = "paused" if paused else "resumed"
    if settings.as_json:
        write_json(f"deployments {'pause' if paused else 'resume'}", {"deployment": deployment.full_name, "paused": paused})
    elif not settings.quiet:
        say(f"deployment '{clean(deployment.full_name)}' is {what}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine deployments rm etl/nightly",
        'JSON:\n  {"schema_version", "command", "deployment", "cancelled_runs"}',
    ),
)
@NAME
@pass_settings
def rm(settings: Settings, name: str) -> int:
    """Remove a deployment. Its runs that nobody began are cancelled; what ran, and its ticks, stay.

    A file that still declares it makes it anew when it is applied.
    """
    journal = open_for(settings)
    deployment = the_deployment(journal, _named(name))
    change = RemoveDeployment(deployment.id, at=journal.clock.now_text())
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        raise NotFoundError(f"Deployment '{deployment.full_name}' was removed by somebody else meanwhile.") from None
    if settings.as_json:
        write_json("deployments rm", {"deployment": deployment.full_name, "cancelled_runs": change.cancelled})
    elif not settings.quiet:
        waiting = f"; {change.cancelled} run(s) that waited were cancelled" if change.cancelled else ""
        say(f"deployment '{clean(deployment.full_name)}' is removed{waiting}")
    return ExitCode.OK


# ------------------------------------------------------------------------------------------- check


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine deployments check",
        'JSON:\n  {"schema_version", "command", "journal", "deployments": [{"full_name", "entrypoint", "problem"}]}',
    ),
)
@pass_settings
def check(settings: Settings) -> int:
    """Load the code of every deployment, and say which cannot be loaded. The exit code is 1 where there is one.

    Each is loaded as a daemon would load it to run it: it is code of yours that runs.
    """
    path = journal_path(settings)
    with reading(path) as connection:
        rows = list_deployments(connection, limit=100_000)
    found = [(row, _problem(row)) for row in rows]
    bad = [row for row, problem in found if problem is not None]
    if settings.as_json:
        fields = [{"full_name": row.full_name, "entrypoint": row.entrypoint, "problem": problem} for row, problem in found]
        write_json("deployments check", {"journal": str(path), "deployments": fields})
    else:
        cells = [[clean(row.full_name), "ok" if problem is None else clean(problem)] for row, problem in found]
        for line in table_lines(("DEPLOYMENT", "CODE"), cells) if cells else ():
            write(line)
        if not settings.quiet:
            say(f"{len(bad)} of {len(found)} deployments in {shown_path(path)} cannot be loaded")
    return ExitCode.RUN_FAILED if bad else ExitCode.OK


def _problem(row: DeploymentRow) -> str | None:
    from wfengine.loading import load_entrypoint  # it loads the user's code

    if row.entrypoint is None:
        return "it names no code: only a process that has the flow can run it"
    try:
        found = load_entrypoint(row.entrypoint)
    except EntrypointError as error:
        return str(error)
    name = cast("str | None", getattr(found, "name", None))
    return None if name == row.flow else f"it is flow '{name}' now, and the deployment is of '{row.flow}'"
