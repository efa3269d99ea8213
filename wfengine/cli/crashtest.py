"""`wfengine crashtest`: kill a flow around each of its commits, recover it, and compare with an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import clean, clean_lines, say, write_json
from wfengine.cli.run import parameter_text


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine crashtest pay.py:pay -p item=book --witness ledger.txt\n"
        "  wfengine crashtest etl.py --copy input.csv --kills 50\n"
        "  wfengine crashtest pay.py:pay -p item=book --witness ledger.txt --at before:9",
        'JSON, at the end:\n  {"schema_version", "command", "flow", "commits", "kills": [{"point", "commit", "problem"}]}',
    ),
)
@click.argument("target", metavar="FILE_OR_MODULE[:FLOW]")
@click.option("-p", "--param", "texts", multiple=True, metavar="NAME=VALUE", help="A parameter, as of `wfengine run`.")
@click.option("--kills", type=click.IntRange(min=1), metavar="N", help="At most so many, spread evenly. [default: all]")
@click.option("--at", "points", multiple=True, metavar="POINT", help="Only here: before:N or after:N.")
@click.option("--witness", "witnesses", multiple=True, metavar="FILE", help="A file the flow writes, compared too.")
@click.option(
    "--copy", "copies", multiple=True, type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="A file or folder that each run is to find in its working directory.",
)  # fmt: skip
@click.option("--real-clock", is_flag=True, help="Let retries and sleeps take their time.")
@click.option("--timeout", "timeout_seconds", type=float, default=60.0, show_default=True, help="Seconds one process may run.")
@pass_settings
def crashtest(
    settings: Settings,
    target: str,
    texts: tuple[str, ...],
    kills: int | None,
    points: tuple[str, ...],
    witnesses: tuple[str, ...],
    copies: tuple[Path, ...],
    real_clock: bool,
    timeout_seconds: float,
) -> int:
    """Kill the flow just before and just after each commit of its run, recover it, and compare how it ends.

    Each run has a journal and an empty working directory of its own, and is a process of its own. The exit code is 1 when a
    kill changed what came of the flow.
    """
    flow = execution.load_flow(target)
    parameters = execution.parameters_from_text(flow, dict(parameter_text(text) for text in texts))
    options: dict[str, object] = {
        "kills": kills,
        "at": points,
        "witness": witnesses or None,
        "prepare": tuple(path.absolute() for path in copies) or None,
        "virtual_clock": not real_clock,
        "timeout_seconds": timeout_seconds,
    }

    def told(kill: execution.KillLike, number: int) -> None:
        if kill.problem is not None or settings.verbose:
            say(f"{clean(str(kill))}: {'as undisturbed' if kill.problem is None else 'ENDS OTHERWISE'}")

    report = execution.crashtest(flow, parameters, options, told)
    if settings.as_json:
        write_json("crashtest", _json(report))
    if report.failures:
        say(clean_lines(report.explanation()))
        return ExitCode.RUN_FAILED
    if not settings.quiet:
        say(clean(str(report)))
    return ExitCode.OK


def _json(report: execution.CrashReportLike) -> dict[str, object]:
    kills = [{"point": kill.point, "commit": kill.commit, "problem": kill.problem} for kill in report.kills]
    return {"flow": report.flow, "commits": report.commits, "kills": kills}
