"""`wfengine status`: living and dead daemons, and a journal without any."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command_line import Cli, environment

from tests.daemons import DaemonProcess

FLOW = """
from wfengine import flow

@flow
def etl():
    return 1
"""


@pytest.fixture
def folder(cli: Cli) -> Path:
    (cli.folder / "etl.py").write_text(FLOW)
    return cli.folder


def serving(folder: Path, *options: str) -> DaemonProcess:
    return DaemonProcess(folder, "-m", "wfengine", "serve", "etl.py", *options, environment=environment())


def daemons(cli: Cli) -> list[dict[str, object]]:
    found = cli("status", "--json").object["daemons"]
    assert isinstance(found, list)
    return found


def test_a_daemon_that_lives_is_shown_and_the_exit_code_is_0(cli: Cli, folder: Path) -> None:
    with serving(folder, "--name", "nightly work") as daemon:
        daemon.wait_until_ready()
        answer = cli("status")
        assert (answer.code, answer.err) == (0, "")
        assert f"running: nightly work · pid {daemon.process.pid} on " in answer.out
        (shown,) = daemons(cli)
        assert (shown["name"], shown["pid"], shown["lives"], shown["silent"]) == (
            "nightly work",
            daemon.process.pid,
            True,
            False,
        )
        assert daemon.stop() == 0


def test_a_daemon_that_was_killed_is_dead_at_once(cli: Cli, folder: Path) -> None:
    with serving(folder) as daemon:
        daemon.wait_until_ready()
        daemon.kill()
        answer = cli("status")
    assert answer.code == 3
    assert f"dead: etl.py · pid {daemon.process.pid} on " in answer.out
    assert "wfengine serve" in answer.err
    assert [shown["lives"] for shown in daemons(cli)] == [False]


def test_a_daemon_that_was_stopped_is_gone(cli: Cli, folder: Path) -> None:
    with serving(folder) as daemon:
        assert daemon.wait_until_ready().stop() == 0
    assert cli("status").code == 3
    assert daemons(cli) == []


def test_ctrl_c_stops_it_with_the_exit_code_of_ctrl_c(cli: Cli, folder: Path) -> None:
    with serving(folder) as daemon:
        assert daemon.wait_until_ready().stop(signal.SIGINT) == 130


def test_of_two_daemons_both_are_shown(cli: Cli, folder: Path) -> None:
    with serving(folder, "--name", "one") as one, serving(folder, "--name", "two") as two:
        one.wait_until_ready()
        two.wait_until_ready()
        assert sorted(str(shown["name"]) for shown in daemons(cli)) == ["one", "two"]
        one.kill()
        assert {shown["name"]: shown["lives"] for shown in daemons(cli)} == {"one": False, "two": True}
        assert cli("status", "-q").code == 0


def test_a_journal_without_a_daemon_is_answered_too(cli: Cli, journal: Path) -> None:
    answer = cli("status")
    assert answer.code == 3
    assert "no daemon serves this journal" in answer.err
    assert answer.out.startswith("journal ")
    found = cli("status", "--json").object
    assert found["daemons"] == []
    assert found["last_backup"] is None
    assert found["journal"] == str(journal)


def test_no_journal_is_trouble_with_the_journal(cli: Cli) -> None:
    assert cli("status", "--journal", "nowhere.db").code == 5
    assert not (cli.folder / "nowhere.db").exists()
