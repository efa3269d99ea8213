"""`wfengine deployments`: what was applied, for people and as JSON."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import Cli, environment

PROGRAM = """
from datetime import datetime, UTC
from wfengine import flow
from wfengine.deployments import Deployment
from wfengine.schedules import Cron, Interval

@flow
def etl(day="today"):
    "Load a day."

@flow
def report(): ...

if __name__ == "__main__":
    night = Cron("0 3 * * *", timezone="Europe/Berlin", parameters={"day": "x"}, slug="night", active=False)
    hourly = Interval(3600, anchor_date=datetime(2026, 1, 1, tzinfo=UTC))
    etl.to_deployment("nightly", schedules=[hourly, night], tags=["prod"], parameters={"day": "monday"}).apply()
    report.to_deployment("nightly").apply()
    report.to_deployment("\x1b[31mred\x1b[0m"[5:8]).apply()
"""


@pytest.fixture
def applied(cli: Cli) -> Cli:
    """A folder whose journal has three deployments."""
    (cli.folder / "flows.py").write_text(PROGRAM)
    command = [sys.executable, "flows.py"]
    subprocess.run(command, cwd=cli.folder, env=environment(), check=True, capture_output=True)
    return cli


def test_ls_shows_each_with_its_schedule_in_words(applied: Cli) -> None:
    answer = applied("deployments", "ls")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert lines[0].split() == ["DEPLOYMENT", "ACTIVE", "TAGS", "CHANGED", "SCHEDULE"]
    assert lines[1].startswith("etl/nightly")
    assert "every 1 h; cron 0 3 * * *, Europe/Berlin, off" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["report/nightly", "report/red"]
    assert "this version has no daemon" in answer.err


def test_ls_as_json_and_of_one_flow(applied: Cli) -> None:
    found = applied("deployments", "ls", "--flow", "etl", "--json").object["deployments"]
    assert isinstance(found, list)
    (row,) = found
    assert (row["full_name"], row["active"], row["tags"], row["parameters"]) == (
        "etl/nightly",
        True,
        ["prod"],
        {"day": "monday"},
    )
    assert [schedule["rule"] for schedule in row["schedules"]] == ["3600", "0 3 * * *"]
    assert row["schedules"][1]["parameters"] == {"day": "x"}


def test_show_tells_all_there_is(applied: Cli) -> None:
    answer = applied("deployments", "show", "etl/nightly")
    assert answer.code == 0
    for text in (
        "Load a day.",
        '{"day":"monday"}',
        "schedule    interval 3600 s, UTC, from 2026-01-01 00:00:00Z",
        'schedule    cron 0 3 * * *, Europe/Berlin, named night, with {"day":"x"}, off',
    ):
        assert text in answer.out
    assert applied("deployments", "show", "red", "--json").object["deployment"]["full_name"] == "report/red"  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "text"), [("nope", "There is no deployment 'nope'"), ("nightly", "Several deployments are named 'nightly'")]
)
def test_show_of_none_or_several_says_which_there_are(applied: Cli, name: str, text: str) -> None:
    answer = applied("deployments", "show", name)
    assert answer.code == 3
    assert text in answer.err


def test_ls_of_a_journal_without_deployments_says_so(cli: Cli, journal: object) -> None:
    answer = cli("deployments", "ls")
    assert (answer.code, answer.out) == (0, "")
    assert "no such deployments" in answer.err
