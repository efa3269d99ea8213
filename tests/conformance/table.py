"""The table at the end of the conformance suite: each case by each runner, and the reason of each gap."""

from __future__ import annotations

import os

import pytest

from tests.conformance.runners import CANDIDATES

#: What became of a case, by case and runner.
_found: dict[str, dict[str, str]] = {}
_reasons: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what became of a case."""
    runner = dict(report.user_properties).get("runner")
    if not isinstance(runner, str):
        return
    case = report.nodeid.partition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")
    row = _found.setdefault(case, {})
    if report.failed:
        row[runner] = "FAILED"
    elif report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason not in _reasons:
            _reasons.append(reason)
        row[runner] = f"({_reasons.index(reason) + 1})"
    elif report.when == "call":
        row.setdefault(runner, "ok")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not _found:
        return
    runners = [candidate.name for candidate in CANDIDATES if any(candidate.name in row for row in _found.values())]
    write = terminalreporter.write_line
    terminalreporter.section("where tasks run: each case on each runner")
    width = max(map(len, _found))
    write(f"{'':{width}}  {'  '.join(f'{name:^10}' for name in runners)}")
    for case, row in _found.items():
        write(f"{case:{width}}  {'  '.join(f'{row.get(name, os.curdir):^10}' for name in runners)}")
    for number, reason in enumerate(_reasons, 1):
        write(f"({number}) {reason}")
    for candidate in CANDIDATES:
        if not candidate.is_there:
            write(f"{candidate.name}: the package {candidate.package} is not installed")
