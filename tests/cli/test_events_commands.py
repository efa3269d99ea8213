"""`wfengine events` and `wfengine automations`: what they print, with which exit code, and what they make of nonsense."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from command_line import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOML = """
[[automations]]
name = "ship"
description = "Ship what was ordered"

[automations.trigger]
expect = ["order.placed"]
match = {"payload.region" = "eu"}

[[automations.actions]]
type = "run-deployment"
deployment = "ship/now"
parameters = {order = "{{ event.payload.id }}"}

[[automations]]
name = "late"
trigger = {after = ["job.begun"], expect = ["job.ended"], posture = "Proactive", within = 60, for_each = ["payload.job"]}
actions = [{type = "emit-event", event = "job.late", payload = "{{ since.resource }}"}]
"""


@pytest.fixture
def applied(cli: Cli, tmp_path: Path) -> Cli:
    """The command line, with two automations applied."""
    (tmp_path / "wf.toml").write_text(TOML, encoding="utf-8")
    done = cli("automations", "apply", "wf.toml")
    assert done.out.splitlines() == ["created    ship", "created    late"]
    return cli


def test_events_are_emitted_listed_shown_and_followed(cli: Cli) -> None:
    emitted = cli("events", "emit", "order.placed", "order.12", "--payload", '{"total": 80}', "--label", "region=eu", "--json")
    assert emitted.object["event"] == {"id": 1, "name": "order.placed", "resource": "order.12", "is_new": True}
    assert "is emitted" in cli("events", "emit", "note", "r", "--payload", "plain", "--key", "k").err
    assert "was emitted before" in cli("events", "emit", "note", "r", "--key", "k").err
    listed = cli("events", "ls").out.splitlines()
    assert [line.split()[0] for line in listed] == ["ID", "2", "1"]
    found = cli("events", "ls", "--name", "order.*", "--json").object["events"]
    assert [(each["resource"], each["payload"], each["labels"]) for each in found] == [
        ("order.12", {"total": 80}, {"region": "eu"})
    ]
    assert "payload     plain" in cli("events", "show", "2").out or '"plain"' in cli("events", "show", "2").out
    assert cli("events", "show", "9").code == 3
    followed = cli("events", "follow", "--after", "0", "--count", "2", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in followed] == [1, 2]
    assert cli("events", "follow", "--timeout", "0").out == ""


def test_a_table_is_watched_and_not_any_more(cli: Cli, tmp_path: Path) -> None:
    cli("events", "emit", "first", "r")
    connection = sqlite3.connect(tmp_path / ".wfengine" / "journal.db")
    connection.execute("CREATE TABLE user_orders (id INTEGER PRIMARY KEY, what TEXT)")
    assert cli("events", "watch", "user_orders", "--name", "order.placed", "--json").object["outcome"] == "created"
    assert "an event already" in cli("events", "watch", "user_orders", "--name", "order.placed").err
    with connection:
        connection.execute("INSERT INTO user_orders (what) VALUES ('x')")
    connection.close()
    listed = cli("events", "ls", "--json").object
    assert listed["watched"] == [{"table": "user_orders", "event": "order.placed"}]
    assert listed["events"][0]["payload"] == {"id": 1, "what": "x"}
    assert cli("events", "unwatch", "user_orders").code == 0
    assert cli("events", "unwatch", "user_orders").code == 3
    assert cli("events", "watch", "flow_run").code == 2
    assert cli("events", "watch", "user_gone").code == 3


def test_automations_are_applied_shown_tried_switched_and_removed(applied: Cli, tmp_path: Path) -> None:
    assert applied("automations", "apply", "wf.toml").out.splitlines() == ["unchanged  ship", "unchanged  late"]
    listed = applied("automations", "ls").out.splitlines()
    assert listed[0].split() == ["AUTOMATION", "ACTIVE", "FIRED", "LAST", "WHAT"]
    assert [line.split()[:2] for line in listed[1:]] == [["late", "yes"], ["ship", "yes"]]
    shown = applied("automations", "show", "ship", "--json").object["automation"]
    assert shown["actions"] == [
        {"type": "run-deployment", "deployment": "ship/now", "parameters": {"order": "{{ event.payload.id }}"}}
    ]
    assert applied("automations", "show", "ship").out.startswith("name          ship\n")
    event = '{"name": "order.placed", "resource": "order.7", "payload": {"id": 7, "region": "eu"}}'
    (firing,) = applied("automations", "test", "ship", "--event", event, "--json").object["firings"]
    assert firing == {"event": 1, "actions": [{"type": "run-deployment", "deployment": "ship/now", "parameters": {"order": 7}}]}
    assert applied("automations", "test", "ship", "--event", '{"name": "order.placed"}').out == "does not fire\n"
    late = applied(
        "automations",
        "test",
        "late",
        "--event",
        '{"name": "job.begun", "resource": "j", "payload": {"job": 1}}',
        "--then",
        "60",
    )
    assert late.out.splitlines()[0] == "fires because of what did not come"
    assert '"payload": "j"' in late.out
    assert "paused" in applied("automations", "pause", "ship").err
    assert "already" in applied("automations", "pause", "ship").err
    assert applied("automations", "resume", "ship", "--json").object["outcome"] == "updated"
    assert applied("automations", "firings", "--json").object["firings"] == []
    assert applied("automations", "rm", "ship").code == 0
    assert applied("automations", "rm", "ship").code == 3
    (tmp_path / "wf.toml").write_text("", encoding="utf-8")
    assert applied("automations", "apply", "wf.toml", "--prune").out == "removed    late\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[automations]]\nname = 'a'\n", "has no trigger and no actions"),
        ("[[automation]]\nname = 'a'\n", ""),
        ("automations = 7", "[[automations]]"),
        ("= ", "is no TOML"),
        ("[[automations]]\nname='a'\ntriger={}\nactions=[]", "did you mean 'trigger'"),
        ("[[automations]]\nname='a'\ntrigger={}\nactions=[{type='run-comand'}]", "did you mean 'run-command'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_nothing_written(cli: Cli, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wf.toml").write_text(text, encoding="utf-8")
    done = cli("automations", "apply", "wf.toml")
    assert done.code == (2 if said else 0)
    assert said in done.err
    assert "Traceback" not in done.err


NONSENSE = [
    ("events", "emit", "", "r"),
    ("events", "emit", "wfengine.x", "r"),
    ("events", "emit", "e", "r", "--label", "x"),
    ("events", "emit", "e", "r", "--key", "firing:1:0"),
    ("events", "show", "x"),
    ("automations", "apply", "gone.toml"),
    ("automations", "test", "ship", "--event", "{"),
    ("automations", "test", "ship", "--event", "[1]"),
    ("automations", "test", "ship", "--event", '{"nme": "x"}'),
    ("automations", "test", "ship", "--event", '{"name": 7}'),
]


def test_nonsense_is_one_line_and_exit_code_2(applied: Cli) -> None:
    for arguments in NONSENSE:
        done = applied(*arguments)
        assert done.code == 2, done
        assert done.err.startswith("error[WF")
        assert "Traceback" not in done.err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30), st.text(max_size=10))
def test_any_toml_and_event_is_refused_in_our_words_or_taken(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    from wfengine.automations.definitions import automations_from
    from wfengine.automations.rehearsal import events_from_text
    from wfengine_journal.errors import UsageError

    for value in (text, [text], [{"name": name, "trigger": {"expect": text}, "actions": [{"type": text}]}], [{text: name}]):
        try:
            automations_from(value)
        except UsageError:
            continue
    with contextlib.suppress(UsageError):
        events_from_text([text, name])


def test_what_a_hostile_writer_put_into_events_steers_no_terminal(cli: Cli, tmp_path: Path) -> None:
    cli("events", "emit", "e", "r")
    connection = sqlite3.connect(tmp_path / ".wfengine" / "journal.db")
    with connection:
        connection.execute(
            "INSERT INTO event (name, resource, labels, payload, occurred_at)"
            " VALUES (?, ?, ?, CAST(x'ff1b5b324a' AS TEXT), 'x')",
            ("\x1b[2Jname", "\x1b]0;t\x07r", "{"),
        )
    connection.close()
    for arguments in (("ls",), ("show", "2", "--json"), ("follow", "--after", "0", "--count", "2")):
        done = cli("events", *arguments)
        assert done.code == 0, done
        assert "\x1b" not in done.out
