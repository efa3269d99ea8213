"""`wfengine variables`: what it prints, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli


def test_variables_are_set_listed_read_and_deleted(cli: Cli) -> None:
    assert cli("variables", "set", "limit", "500", "--tag", "b", "--tag", "a").code == 0
    assert cli("variables", "set", "name", "plain text").code == 0
    listed = cli("variables", "ls", "--json").object
    assert [(each["name"], each["value"], each["tags"]) for each in listed["variables"]] == [
        ("limit", 500, ["a", "b"]),
        ("name", "plain text", []),
    ]
    assert (listed["command"], listed["schema_version"]) == ("variables ls", 1)
    shown = cli("variables", "ls").out.splitlines()
    assert shown[0].split() == ["NAME", "TAGS", "SET", "VALUE"]
    assert shown[1].split()[:3] == ["limit", "a,", "b"]
    assert cli("variables", "get", "name").out == "plain text\n"
    assert cli("variables", "get", "limit", "--json").object["variable"]["value"] == 500
    assert cli("variables", "unset", "limit").code == 0
    assert cli("variables", "get", "limit").code == 3
    assert "no variable 'limit'" in cli("variables", "unset", "limit").err


@pytest.mark.parametrize(
    ("text", "options", "value"),
    [
        ("500", (), 500),
        ('["a", 1]', (), ["a", 1]),
        ("null", (), None),
        ("1.10", ("--text",), "1.10"),
        ("plain", (), "plain"),
        ('"quoted"', (), "quoted"),
    ],
)
def test_a_value_is_json_when_it_can_be_unless_text_is_asked_for(
    cli: Cli, text: str, options: tuple[str, ...], value: object
) -> None:
    answer = cli("variables", "set", "v", text, *options, "--json")
    assert answer.object["variable"] == {"name": "v", "value": value, "tags": []}
    assert cli("variables", "get", "v", "--json").object["variable"]["value"] == value


def test_an_existing_variable_is_changed_only_with_overwrite(cli: Cli) -> None:
    cli("variables", "set", "limit", "5")
    refused = cli("variables", "set", "limit", "6")
    assert refused.code == 2
    assert "error[WF130]" in refused.err
    assert cli("variables", "get", "limit").out == "5\n"
    assert cli("variables", "set", "limit", "6", "--overwrite").code == 0
    assert cli("variables", "get", "limit").out == "6\n"


def test_a_name_that_is_not_allowed_is_refused(cli: Cli) -> None:
    refused = cli("variables", "set", "Not A Name", "5")
    assert (refused.code, "cannot name a variable" in refused.err) == (2, True)


def test_without_a_journal_there_is_nothing_to_read(cli: Cli, tmp_path: Path) -> None:
    for command in (("ls",), ("get", "limit"), ("unset", "limit")):
        assert cli("variables", *command).code == 5
    assert not (tmp_path / ".wfengine").exists()


def test_a_journal_without_variables_says_so(cli: Cli, journal: Path) -> None:
    answer = cli("variables", "ls")
    assert (answer.code, answer.out) == (0, "")
    assert "no variables in .wfengine/journal.db" in answer.err
