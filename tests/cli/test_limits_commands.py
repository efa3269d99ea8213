"""`wfengine limits` and `wfengine queues`: what they print, and with which exit code."""

from __future__ import annotations

from pathlib import Path

from command_line import Cli


def test_limits_are_set_changed_listed_shown_and_removed(cli: Cli) -> None:
    assert cli("limits", "set", "database", "--slots", "3", "--description", "ours").code == 0
    assert cli("limits", "set", "api", "--rate", "100/min").code == 0
    assert cli("limits", "set", "heavy", "--tag", "--slots", "2").code == 0
    changed = cli("limits", "set", "database", "--rate", "10/s", "--json").object["limit"]
    assert (changed["slots"], changed["rate"], changed["description"], changed["tag"]) == (3, "10/s", "ours", False)
    shown = cli("limits", "ls").out.splitlines()
    assert shown[0].split() == ["NAME", "OF", "SLOTS", "TAKEN", "RATE", "DESCRIPTION"]
    assert [line.split() for line in shown[1:]] == [
        ["api", "any", "0", "100/min"],
        ["database", "3", "0", "10/s", "ours"],
        ["heavy", "tag", "2", "0", "any"],
    ]
    listed = cli("limits", "ls", "--json").object
    assert [(each["name"], each["tag"]) for each in listed["limits"]] == [("api", False), ("database", False), ("heavy", True)]
    assert "3 at a time, 0 taken; 10/s" in cli("limits", "show", "database").out
    assert cli("limits", "show", "heavy", "--tag", "--json").object["holders"] == []
    assert cli("limits", "rm", "database").code == 0
    assert cli("limits", "rm", "database").code == 3
    assert cli("limits", "show", "heavy").code == 3
    assert cli("limits", "set", "api", "--rate", "none", "--json").object["limit"]["rate"] is None


def test_queues_are_limited_paused_resumed_and_freed(cli: Cli) -> None:
    answer = cli("queues", "set", "etl", "--slots", "2", "--per-partition", "1", "--rate", "100/min", "--json")
    queue = answer.object["queue"]
    assert (queue["slots"], queue["partition_slots"], queue["rate"], queue["paused"]) == (2, 1, "100/min", False)
    assert cli("queues", "pause", "etl").code == 0
    assert cli("queues", "pause", "other", "--json").object["queue"]["paused"] is True
    shown = [line.split() for line in cli("queues", "ls").out.splitlines()]
    assert shown == [
        ["NAME", "STATE", "WAITING", "RUNNING", "SLOTS", "PER-PARTITION", "RATE"],
        ["etl", "paused", "0", "0", "2", "1", "100/min"],
        ["other", "paused", "0", "0", "any", "any", "any"],
    ]
    assert cli("queues", "resume", "etl", "--json").object["queue"]["paused"] is False
    assert cli("queues", "rm", "other").code == 0
    assert cli("queues", "rm", "other").code == 3
    assert [each["name"] for each in cli("queues", "ls", "--json").object["queues"]] == ["etl"]


NONSENSE = [
    "limits set a",
    "limits set a --slots -1",
    "limits set a --slots 9999999999",
    "limits set a --slots ٣",
    "limits set a --rate 10/0s",
    "limits set tag:a --slots 1",
    "limits set a --tag --rate 1/s",
    f"limits set {'x' * 300} --slots 1",
    "queues set etl",
    "queues set etl --per-partition 1.5",
    f"queues pause {'x' * 300}",
]


def test_nonsense_is_refused_in_words_and_writes_nothing(cli: Cli) -> None:
    cli("limits", "set", "known", "--slots", "1")
    for line in NONSENSE:
        refused = cli(*line.split())
        assert refused.code == 2, line
        assert "error[WF100]" in refused.err
        assert "Traceback" not in refused.err
    assert [each["name"] for each in cli("limits", "ls", "--json").object["limits"]] == ["known"]
    assert cli("queues", "ls", "--json").object["queues"] == []


def test_a_missing_journal_is_not_created_by_looking(cli: Cli, tmp_path: Path) -> None:
    for arguments in (("limits", "ls"), ("limits", "rm", "a"), ("queues", "rm", "a")):
        assert cli(*arguments).code != 0
    assert not list(tmp_path.rglob("*.db"))
