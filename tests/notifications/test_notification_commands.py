"""`wfengine notifications` says what there is and what to do, and never what is secret in the URL of a target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command_line import Answer, Cli
from tests.notifications.services import SLACK, HttpService
from tests.secrets.test_canary import forms_of, holders

CANARY = "TIiajkdnlazkcOXrIdevi7FQ"


class OwnCli(Cli):
    """With the journal and the key of the test; nothing is sent but by who is told to."""

    def __call__(self, *arguments: str, stdin: str = "", **changes: str) -> Answer:
        own = {
            "WFENGINE_JOURNAL": "journal.db", "WFENGINE_NOTIFICATIONS": "off",
            "WFENGINE_SECRETS_KEY_FILE": str(self.folder / "keys" / "secrets.key"),
        }  # fmt: skip
        return super().__call__(*arguments, stdin=stdin, **own, **changes)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return OwnCli(tmp_path)


def test_a_target_is_set_tried_told_and_looked_at_and_its_token_is_found_nowhere(
    cli: Cli, service: HttpService, tmp_path: Path
) -> None:
    said = []

    def run(*arguments: str, code: int = 0, stdin: str = "") -> str:
        found = cli(*arguments, stdin=stdin)
        said.append(found.out + found.err)
        assert found.code == code, said[-1]
        return found.out + found.err

    run("secrets", "set", "ops_url", stdin=SLACK)
    run("notifications", "set", "ops", "--url-secret", "ops_url", "--rate", "5/min", "--allow-private")
    assert run("notifications", "ls").splitlines()[1].split() == ["ops", "0", "0", "0", "5/min", "{{", "secrets.ops_url", "}}"]
    assert "took it" in run("notifications", "test", "ops")
    service.answers.append((403, {}))
    answer = run("notifications", "test", "ops", code=1)
    assert "hooks.slack.com answered 403: no, ***" in answer
    service.answers.append((404, {}))
    assert "Notification 1 to ops is recorded." in run("notifications", "notify", "ops", "hello")
    assert "0 messages are sent, 1 are given up, 0 notifications wait." in run("notifications", "send")
    (failed,) = json.loads(run("notifications", "outbox", "--state", "failed", "--json"))["notifications"]
    assert (failed["reason"], failed["attempts"]) == ("hooks.slack.com answered 404: no, ***", 1)
    assert "1 notifications failed: wfengine notifications outbox --state failed" in run("status", code=3)
    assert "1 notifications are tried again." in run("notifications", "retry", "--all")
    assert "1 messages are sent" in run("notifications", "send", code=0)
    assert "state           sent" in run("notifications", "show", "1")
    assert "rate            5/min" in run("notifications", "show", "ops")
    run("sql", "SELECT * FROM notifications")
    run("notifications", "unset", "ops")
    assert len(service.got) == 2
    assert [text for text in said if any(form in text.encode() for form in forms_of(CANARY))] == []
    assert holders(tmp_path, forms_of(CANARY)) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("set", "ops"), 2, "--url-secret NAME"),
        (("set", "ops", "--url", "slack://a/b/c"), 2, "wfengine secrets set ops_url"),
        (("set", "o p s", "--url", "json://h"), 2, "cannot name a notification target"),
        (("set", "ops", "--url", "json://h", "--rate", "often"), 2, "no rate"),
        (("show", "ops"), 3, "wfengine notifications ls"),
        (("unset", "ops"), 3, "wfengine notifications ls"),
        (("test", "ops"), 3, "wfengine notifications ls"),
        (("notify", "ops", "x"), 2, "wfengine notifications set ops"),
        (("retry",), 2, "--all"),
        (("retry", "7"), 3, "outbox --state failed"),
        (("outbox",), 0, "no such notifications"),
        (("ls",), 0, "no targets"),
    ],
)
def test_a_command_that_makes_no_sense_says_what_to_type(
    cli: Cli, journal: object, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found = cli("notifications", *arguments)
    assert found.code == code, found.err
    assert said in found.out + found.err
    assert "fault in wfengine" not in found.err
