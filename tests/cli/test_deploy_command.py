"""`wfengine deploy`: a file, one flow, what a Python file declares; and any nonsense on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wfengine.cli import root
from wfengine_journal import store

FLOWS = """
from wfengine import deploy, flow

@flow
def etl(day: str = "today", size: int = 3):
    return day

@flow
def report(): ...

deploy(report.to_deployment("weekly", cron="0 4 * * mon"))
"""
FILE = """
[[deployments]]
name = "nightly"
flow = "flows.py:etl"
cron = "0 3 * * *"

[queues.slow]
slots = 2
"""


@pytest.fixture
def place(cli: Cli) -> Cli:
    """A folder with flows and a wfengine.toml."""
    (cli.folder / "flows.py").write_text(FLOWS)
    (cli.folder / "wfengine.toml").write_text(FILE)
    return cli


def test_file_is_planned_applied_and_found_from_the_journal(place: Cli) -> None:
    planned = place("deploy", "--plan")
    assert planned.out.splitlines() == ["created   deployment etl/nightly", "created   queue slow"]
    assert "nothing was written" in planned.err
    assert not (place.folder / ".wfengine").exists()
    answer = place("deploy")
    assert answer.code == 0, answer
    assert "a daemon (wfengine serve) starts it next at" in answer.out
    again = place("deploy", "wfengine.toml", "--json").object
    assert isinstance(again["changes"], list)
    assert [(each["kind"], each["outcome"]) for each in again["changes"]] == [
        ("deployment", "unchanged"), ("queue", "unchanged"),
    ]  # fmt: skip
    (place.folder / "below").mkdir()
    below = Cli(place.folder / "below")("deploy", "--plan")
    assert "nothing would change" in below.err
    (place.folder / "wfengine.toml").write_text("[queues.slow]\nslots = 2\n")
    assert place("deploy", "--prune").out.splitlines() == ["unchanged queue slow", "removed   deployment etl/nightly"]


def test_a_file_that_was_moved_says_what_removes_what_it_declared(place: Cli) -> None:
    assert place("deploy").code == 0
    old = place.folder / "old"
    old.mkdir()
    (place.folder / "wfengine.toml").rename(place.folder / "other.toml")
    (place.folder / "other.toml").rename(old / "wfengine.toml")
    (old / "wfengine.toml").write_text("")
    answer = place("deploy", "old/wfengine.toml", "--prune")
    assert "is gone. If this is that file, moved: wfengine deploy" in answer.err
    command = answer.err.rpartition("wfengine deploy ")[2].split()
    gone = place("deploy", *command)
    assert gone.out.splitlines() == ["removed   deployment etl/nightly", "removed   queue slow"]
    assert "moved" not in gone.err
    assert place("deploy", "old/wfengine.toml", "--moved-from", "x").code == 2


def test_flow_is_deployed_by_hand(place: Cli) -> None:
    answer = place(
        "deploy", "flows.py:etl", "--name", "eu", "--cron", "0 3 * * *", "--cron", "0 5 * * *", "--timezone", "Europe/Berlin",
        "--interval", "6h", "-p", "size=5", "--tag", "prod", "--queue", "slow", "--concurrency-limit", "1",
    )  # fmt: skip
    assert answer.code == 0, answer
    found = place("deployments", "show", "eu", "--json").object["deployment"]
    assert isinstance(found, dict)
    assert (found["parameters"], found["tags"], found["queue"], found["concurrency_limit"]) == (
        {"size": 5},
        ["prod"],
        "slow",
        1,
    )
    assert [(each["rule"], each["timezone"]) for each in found["schedules"]] == [
        ("21600", "Europe/Berlin"), ("0 3 * * *", "Europe/Berlin"), ("0 5 * * *", "Europe/Berlin"),
    ]  # fmt: skip


def test_python_file_is_deployed_as_it_declares(place: Cli) -> None:
    assert place("deploy", "flows.py").out.startswith("created   deployment report/weekly")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("flows.py:etl",), "needs a name"),
        (("nowhere.py:etl", "--name", "x"), "nowhere.py"),
        (("flows.py:etl", "--name", "a/b"), "without '/'"),
        (("flows.py:etl", "--name", "x", "--cron", "61 * * * *"), "61"),
        (("flows.py:etl", "--name", "x", "--interval", "often"), "--interval takes a time"),
        (("flows.py:etl", "--name", "x", "--timezone", "UTC"), "timezone="),
        (("flows.py:etl", "--name", "x", "-p", "dya=1"), "dya"),
        (("flows.py:etl", "--name", "x", "-p", "size=big"), "size"),
        (("flows.py:etl", "--name", "x", "--prune"), "--prune goes with a file"),
        (("flows.py", "--name", "x"), "holds 2 flows"),
        (("wfengine.toml", "--cron", "@daily"), "--cron goes with a flow"),
        (("nowhere.toml",), "cannot be read"),
        (("broken.toml",), "Did you mean 'deployments'?"),
    ],
)
def test_nonsense_is_refused_and_writes_nothing(place: Cli, arguments: tuple[str, ...], text: str) -> None:
    (place.folder / "broken.toml").write_text(f"{FILE}\n[deployment]\n")
    answer = place("deploy", *arguments)
    assert answer.code == 2, answer
    assert text in answer.err
    assert not (place.folder / ".wfengine").exists()


WORDS = st.sampled_from(
    [
        "deploy", "deployments", "schedules", "run", "show", "next", "calendar", "backfill", "trigger", "pause", "rm", "ls",
        "flows.py:etl", "wfengine.toml", "--plan", "--prune", "--name", "--cron", "--interval", "--timezone", "-p", "--in",
        "--at", "--from", "--to", "--limit", "--days", "-n", "etl/nightly", "1", "99999999999999999999", "2026-01-01", "10m",
        "UTC", "0 3 * * *", "day=1", "--json", "--queue", "--priority", "9999-12-31T23:59:59-23:59",
    ]
)  # fmt: skip
FIRST = st.sampled_from([("deploy",), ("deployments", "run"), ("deployments", "show"), ("deployments", "rm"),
                         ("schedules", "next"), ("schedules", "backfill"), ("schedules", "trigger"), ("schedules", "calendar"),
                         ("schedules", "show"), ("schedules", "pause")])  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(FIRST, st.lists(WORDS | st.text(max_size=6), max_size=5))
def test_any_words_give_an_answer_or_our_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WFENGINE_JOURNAL", str(tmp_path / "journal.db"))
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "wfengine.toml").write_text(FILE)
    runner = CliRunner()
    try:
        if not (tmp_path / "journal.db").exists():
            assert runner.invoke(root, ["deploy"], standalone_mode=False).exception is None
        answer = runner.invoke(root, [*first, *words], standalone_mode=True)
    finally:
        store.close_all()
    assert answer.exception is None or isinstance(answer.exception, SystemExit), (first, words, answer.exception)
