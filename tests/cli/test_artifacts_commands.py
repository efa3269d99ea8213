"""`wfengine artifacts`: what it prints, and with which exit code."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from command_line import Cli
from handmade import HOSTILE, insert

AT = "2026-11-22T15:30:50.000000Z"
ROWS: list[dict[str, object]] = [
    {"key": "report", "type": "markdown", "data": "## First"},
    {"key": "report", "type": "markdown", "data": "## Second\n\ntext", "description": "the report"},
    {"type": "table", "data": json.dumps([{"name": "ada", "n": 1}, {"name": "bob", "more": None}])},
    {"type": "table", "data": json.dumps({"a": [1, 2], "b": ["x"]})},
    {"type": "table", "data": json.dumps([[1, 2], [3]])},
    {"type": "link", "data": json.dumps({"link": "https://example.com", "text": "here"})},
    {"type": "image", "data": json.dumps("https://example.com/a.png")},
    {"key": "load", "type": "progress", "data": "12.5"},
    {"key": "7", "type": "markdown", "data": HOSTILE, "description": HOSTILE},
]


@pytest.fixture(autouse=True)
def artifacts(journal: Path) -> None:
    connection = sqlite3.connect(journal, isolation_level=None)
    for number, row in enumerate(ROWS):
        insert(
            connection, "artifact", flow_run_id=1, task_run_id=0, ordinal=number, created_at=AT,
            updated_at=AT.replace("50", f"{10 + number}"), **row,
        )  # fmt: skip
    connection.close()


def test_artifacts_are_listed_newest_first_and_filtered(cli: Cli) -> None:
    def ids(*options: str) -> list[int]:
        return [each["id"] for each in cli("artifacts", "ls", "--json", *options).object["artifacts"]]

    assert ids() == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert ids("--key", "report") == [2, 1]
    assert ids("--type", "table") == [5, 4, 3]
    assert ids("--run", "quiet-heron", "--type", "link") == [6]
    assert ids("--run", "3") == []
    first = cli("artifacts", "ls", "--limit", "4", "--json").object
    assert first["next_before_id"] == 6
    assert ids("--before", "3") == [2, 1]
    assert cli("artifacts", "ls", "--run", "nobody").code == 3


def test_the_list_says_what_each_shows(cli: Cli) -> None:
    lines = cli("artifacts", "ls").out.splitlines()
    assert lines[0].split() == ["ID", "KEY", "TYPE", "MADE", "BY", "CHANGED", "SHOWS"]
    by_id = {line.split()[0]: line for line in lines[1:]}
    assert by_id["2"].endswith("the report")
    assert by_id["1"].endswith("## First")
    assert by_id["3"].endswith("2 rows")
    assert by_id["8"].endswith("12.5 %")
    assert "quiet-heron" in by_id["8"]


@pytest.mark.parametrize(
    ("which", "shown"),
    [
        ("1", "## First\n"),
        ("report", "## Second\n\ntext\n"),
        ("3", "name  n  more\nada   1\nbob\n"),
        ("4", "a  b\n1  x\n2\n"),
        ("5", "0  1\n1  2\n3\n"),
        ("6", "here: https://example.com\n"),
        ("7", "https://example.com/a.png\n"),
        ("load", "12.5 %\n"),
    ],
)
def test_an_artifact_is_shown_by_its_id_or_key(cli: Cli, which: str, shown: str) -> None:
    assert cli("artifacts", "show", which).out == shown


def test_in_json_the_data_is_json(cli: Cli) -> None:
    artifact = cli("artifacts", "show", "3", "--json").object["artifact"]
    assert artifact["data"] == [{"name": "ada", "n": 1}, {"name": "bob", "more": None}]
    assert (artifact["run_name"], artifact["task"], artifact["type"]) == ("quiet-heron", None, "table")
    assert cli("artifacts", "show", "1", "--json").object["artifact"]["data"] == "## First"


def test_what_is_not_there_has_an_exit_code_of_its_own(cli: Cli) -> None:
    answer = cli("artifacts", "show", "nothing")
    assert (answer.code, "no artifact with the id or key 'nothing'" in answer.err) == (3, True)


@pytest.mark.parametrize("command", [("ls",), ("show", "9"), ("show", "9", "--json"), ("ls", "--json")])
def test_nothing_that_a_hostile_writer_wrote_steers_the_terminal(cli: Cli, command: tuple[str, ...]) -> None:
    answer = cli("artifacts", *command)
    assert answer.code == 0
    assert not set("\x1b\x07\x9b\x08\r\u202e") & set(answer.out + answer.err)
