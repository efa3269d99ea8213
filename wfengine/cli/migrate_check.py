"""`wfengine migrate-check`: what in files written for Prefect would not run here."""

from __future__ import annotations

from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.output import clean, write, write_json
from wfengine.migration import Finding, Kind, Report, check_paths

_COLORS = {Kind.MISSING: "red", Kind.DIFFERS: "yellow", Kind.UNREADABLE: "magenta"}
_REPLACE = (
    r"sed -i.old -E 's/^( *)(from|import) prefect([. ])/\1\2 wfengine\3/; s/^( *)import prefect$/\1import wfengine as prefect/'"
)


@click.command(
    "migrate-check",
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine migrate-check etl.py\n  wfengine migrate-check flows/",
        "The exit code is 1 if something is missing or a file cannot be read, else 0.",
        'JSON:\n  {"schema_version", "command", "files", "prefect_files", "missing", "differs", "unreadable",\n'
        '   "findings": [{"path", "line", "kind", "name", "text"}]}\n'
        "  kind: missing (not in wfengine), differs (there, and means something else), unreadable (no Python)",
    ),
)
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@pass_settings
def migrate_check(settings: Settings, paths: tuple[Path, ...]) -> int:
    """List what files written for Prefect use that wfengine does not have, or that means something else here.

    Files are only parsed, never run; a folder stands for all Python files in it.
    """
    report = check_paths(paths)
    if settings.as_json:
        _write_json(report)
    elif not settings.quiet:
        for finding in report.findings:
            write(_line(finding))
        write(_verdict(report, paths))
    failed = report.count(Kind.MISSING) + report.count(Kind.UNREADABLE)
    return ExitCode.RUN_FAILED if failed else ExitCode.OK


def _write_json(report: Report) -> None:
    findings = [
        {"path": str(f.path), "line": f.line, "kind": f.kind.value, "name": f.name, "text": f.text} for f in report.findings
    ]
    counts = {kind.value: report.count(kind) for kind in Kind}
    fields = {"files": report.files, "prefect_files": report.prefect_files, **counts, "findings": findings}
    write_json("migrate-check", fields)


def _line(finding: Finding) -> str:
    kind = click.style(f"{finding.kind.value:<10}", fg=_COLORS[finding.kind])
    return f"{clean(finding.path)}:{finding.line}: {kind} {clean(finding.name)}: {clean(finding.text)}"


def _verdict(report: Report, paths: tuple[Path, ...]) -> str:
    files = f"{report.files} file{'s' if report.files != 1 else ''}"
    if not report.files or (not report.prefect_files and not report.findings):
        return f"{files} checked: none uses Prefect."
    missing, differs, unreadable = (report.count(kind) for kind in Kind)
    counts = f"{files} checked, {report.prefect_files} of them with Prefect: {missing} missing, {differs} different"
    if unreadable:
        counts += f", {unreadable} unreadable"
    where = "*.py" if any(path.is_dir() for path in paths) else " ".join(clean(path) for path in paths)
    if missing or unreadable:
        first = "Change the lines marked 'missing', look at those marked 'differs', then replace the imports:"
        return f"{counts}. {first}\n  {_REPLACE} {where}"
    look = " Look at the lines marked 'differs'." if differs else ""
    return f"{counts}.{look} It runs when the imports are replaced:\n  {_REPLACE} {where}"
