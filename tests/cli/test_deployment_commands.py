"""`wfengine deployments` and `wfengine schedules`: what was applied, for people and as JSON, and what is done with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

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


def apply(folder: Path) -> Path:
    """Write the program into a folder and let it make its three deployments."""
    (folder / "flows.py").write_text(PROGRAM)
    subprocess.run([sys.executable, "flows.py"], cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return apply(tmp_path_factory.mktemp("applied"))


@pytest.fixture
def applied(cli: Cli, once: Path) -> Cli:
    """A folder whose journal has three deployments; their flows are in the folder that it is a copy of."""
    shutil.copytree(once, cli.folder, dirs_exist_ok=True)
    return cli


def test_ls_shows_each_with_its_schedule_in_words(applied: Cli) -> None:
    answer = applied("deployments", "ls")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert lines[0].split() == ["DEPLOYMENT", "ACTIVE", "TAGS", "CHANGED", "SCHEDULE"]
    assert lines[1].startswith("etl/nightly")
    assert "every 1 h; cron 0 3 * * *, Europe/Berlin, off" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["report/nightly", "report/red"]
    assert answer.err == ""


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


# ------------------------------------------------------------------------------------------- what is done


def test_run_puts_a_run_into_the_queue_once_for_a_key(applied: Cli) -> None:
    answer = applied("deployments", "run", "etl/nightly", "-p", "day=5", "--in", "2h", "--idempotency-key", "k", "--json")
    assert answer.code == 0, answer
    first = answer.object["run"]
    assert isinstance(first, dict)
    assert (first["deployment"], first["state"], first["due_at"] is not None) == ("etl/nightly", "SCHEDULED", True)
    again = applied("deployments", "run", "etl/nightly", "-p", "day=6", "--idempotency-key", "k")
    assert again.out.split()[0] == str(first["id"])
    assert "waits in queue 'default'" in again.err
    due = str(first["due_at"])[:19]
    assert f"  waits       is due at {due}Z" in applied("runs", "show", "1").out
    assert applied("runs", "show", "1", "--json").object["waits_for"] == [f"is due at {due}Z"]
    rows = applied("sql", "SELECT parameters FROM runs", "--json").object["rows"]
    assert rows == [{"parameters": '{"day":5}'}] or rows == [['{"day":5}']]


def test_watched_run_is_followed_to_its_end(applied: Cli) -> None:
    process = applied.start("deployments", "run", "etl/nightly", "--watch", "--json")
    while not applied("runs", "ls", "--json").object["runs"]:
        assert process.poll() is None, process.communicate()
    assert applied("resume", "@last").code == 0
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"command": "deployments run"' in out
    assert '"COMPLETED"' in out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("nope",), 3, "no deployment 'nope'"),
        (("nightly",), 3, "Several deployments"),
        (("etl/nightly", "-p", "dya=1"), 2, "no parameter 'dya'"),
        (("etl/nightly", "-p", "day"), 2, "NAME=VALUE"),
        (("etl/nightly", "--in", "soon"), 2, "--in takes a time"),
        (("etl/nightly", "--at", "25:00"), 2, "--at takes an ISO-8601 instant"),
        (("etl/nightly", "--at", "2026-11-28", "--in", "1h"), 2, "Give one of them"),
        (("etl/nightly", "--queue", "task:x"), 2, "a queue is named"),
    ],
)
def test_run_refuses_nonsense_and_writes_nothing(applied: Cli, arguments: tuple[str, ...], code: int, text: str) -> None:
    answer = applied("deployments", "run", *arguments)
    assert answer.code == code, answer
    assert text in answer.err
    assert applied("runs", "ls", "--json").object["runs"] == []


def test_deployment_is_paused_resumed_and_removed(applied: Cli) -> None:
    def active() -> list[object]:
        found = applied("deployments", "ls", "--flow", "etl", "--json").object["deployments"]
        assert isinstance(found, list)
        return [row["active"] for row in found]

    assert applied("deployments", "pause", "etl/nightly").code == 0
    assert active() == [False]
    assert applied("deployments", "resume", "etl/nightly").code == 0
    assert active() == [True]
    applied("deployments", "run", "etl/nightly")
    assert applied("deployments", "rm", "etl/nightly", "--json").object["cancelled_runs"] == 1
    assert active() == []
    assert applied("deployments", "rm", "etl/nightly").code == 3


def test_check_names_code_that_is_gone(cli: Cli) -> None:
    apply(cli.folder)
    assert cli("deployments", "check").code == 0
    (cli.folder / "flows.py").write_text(PROGRAM.replace("def report()", "def reports()"))
    answer = cli("deployments", "check", "--json")
    assert answer.code == 1
    found = answer.object["deployments"]
    assert isinstance(found, list)
    assert [row["problem"] is None for row in found] == [True, False, False]


# ------------------------------------------------------------------------------------------- schedules


def test_schedules_are_listed_in_words_with_what_is_next(applied: Cli) -> None:
    found = applied("schedules", "ls", "--json").object["schedules"]
    assert isinstance(found, list)
    assert [(row["id"], row["deployment"], row["active"]) for row in found] == [
        (1, "etl/nightly", True),
        (2, "etl/nightly", False),
    ]
    assert "at 03:00 every day (Europe/Berlin)" in found[1]["words"]
    lines = applied("schedules", "ls").out.splitlines()
    assert lines[0].split() == ["ID", "DEPLOYMENT", "ACTIVE", "NEXT", "LAST", "DUE"]
    shown = applied("schedules", "show", "etl/nightly:night")
    assert shown.code == 0, shown
    assert shown.out.count("03:00:00") == 5


def test_next_and_calendar_tell_what_is_due(applied: Cli) -> None:
    found = applied("schedules", "next", "-n", "3", "--json").object["next"]
    assert isinstance(found, list)
    assert [row["deployment"] for row in found] == ["etl/nightly"] * 3
    assert len(applied("schedules", "next", "2", "-n", "4").out.splitlines()) == 4
    days = applied("schedules", "calendar", "--days", "2", "--timezone", "Europe/Berlin", "--json").object["days"]
    assert isinstance(days, list)
    assert sum(len(day["instants"]) for day in days) == 48
    assert "and 20 more" in applied("schedules", "calendar", "--days", "3").out
    assert applied("schedules", "calendar", "--timezone", "Mars").code == 2


def test_schedule_is_paused_triggered_and_filled_back(applied: Cli) -> None:
    assert applied("schedules", "resume", "2").code == 0
    assert applied("schedules", "pause", "1").code == 0
    found = applied("schedules", "ls", "--json").object["schedules"]
    assert isinstance(found, list)
    assert [row["active"] for row in found] == [False, True]
    assert applied("schedules", "trigger", "etl/nightly:night").code == 0
    arguments = ("schedules", "backfill", "1", "--from", "2026-01-01", "--to", "2026-01-01T03:30", "--json")
    planned = applied(*arguments, "--dry-run").object["instants"]
    started = applied(*arguments).object["instants"]
    assert isinstance(planned, list)
    assert isinstance(started, list)
    assert [row["run_id"] for row in planned] == [None] * 4
    assert [row["run_id"] for row in started] == [2, 3, 4, 5]
    assert applied(*arguments).object["instants"] == []


@pytest.mark.parametrize("text", ["99", "etl/nightly", "nightly", "nope", "etl/nightly:day", "", "a:b:c", "\x00"[:0] + "%"])
def test_schedule_that_is_not_one_is_not_found(applied: Cli, text: str) -> None:
    assert applied("schedules", "show", text).code == 3
