"""`wfengine serve`: what it serves of which file, and that nonsense is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Cli

FLOWS = """
from wfengine import flow

@flow
def etl(): ...

@flow
def report(): ...
"""

DECLARING = (
    FLOWS
    + """
etl.serve("nightly", cron="0 3 * * *")
"""
)


@pytest.fixture
def folder(cli: Cli) -> Path:
    (cli.folder / "flows.py").write_text(FLOWS)
    (cli.folder / "declaring.py").write_text(DECLARING)
    return cli.folder


def deployments(cli: Cli) -> list[str]:
    found = cli("deployments", "ls", "--json").object["deployments"]
    assert isinstance(found, list)
    return [str(each["full_name"]) for each in found]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["flows.py"], ["etl/flows", "report/flows"]),
        (["flows"], ["etl/flows", "report/flows"]),
        (["flows.py:etl"], ["etl/flows"]),
        (["declaring.py"], ["etl/nightly", "report/declaring"]),
    ],
)
def test_each_flow_of_a_file_is_served_as_it_says_or_under_the_name_of_the_file(
    cli: Cli, folder: Path, targets: list[str], expected: list[str]
) -> None:
    for _ in range(2):  # the second time they are there
        answer = cli("serve", *targets, "--timeout", "0.1", "--json")
        assert answer.code == 0, answer
        assert answer.object["left"] == []
        assert deployments(cli) == expected


def test_a_check_writes_nothing(cli: Cli, folder: Path) -> None:
    answer = cli("serve", "declaring.py", "--check", "--json")
    assert answer.code == 0
    assert (answer.object["deployments"], answer.object["flows"]) == (["etl/nightly"], ["report"])
    assert not (folder / ".wfengine").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "nowhere.py"),
        ("serve", "flows.py:nothing"),
        ("serve", "no.such.module"),
        ("serve", ""),
        ("serve", "."),
        ("serve", "\udcff.py"),
        ("serve", "flows.py", "--limit", "0"),
        ("serve", "flows.py", "--limit", "many"),
        ("serve", "flows.py", "--queue", ""),
        ("serve", "flows.py", "--queue", "task:x"),
        ("serve", "flows.py", "--recover", "some"),
        ("serve", "flows.py", "--stop-timeout", "-1"),
        ("serve", "flows.py", "--stop-timeout", "nan"),
        ("serve", "flows.py", "--timeout", "0"),
        ("serve", "flows.py", "--log-format", "xml"),
        ("serve", "flows.py", "--parent", "0"),
        ("dev",),
        ("dev", "nowhere.py"),
        ("dev", "flows.py", "--stop-timeout", "soon"),
        ("status", "extra"),
        ("service", "show", "--stop-timeout", "-1"),
        ("service", "install"),
    ],
)
def test_nonsense_is_refused_with_a_line_and_nothing_is_written(cli: Cli, folder: Path, arguments: tuple[str, ...]) -> None:
    answer = cli(*arguments)
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    assert answer.err.strip()
    assert not (folder / ".wfengine").exists()


def test_a_name_that_is_no_text_is_kept_all_the_same(cli: Cli, folder: Path) -> None:
    answer = cli("serve", "flows.py", "--name", "night\udcff" + "y" * 500, "--timeout", "0.1")
    assert answer.code == 0, answer


def test_backups_and_retention_are_done_as_the_configuration_says(cli: Cli, folder: Path) -> None:
    (folder / "wfengine.toml").write_text('[backup]\nfolder = "copies"\nkeep = 2\n[retention]\nkeep = "30d"\n')
    assert cli("serve", "flows.py", "--no-config", "--timeout", "0.5").code == 0
    assert cli("status", "--json").object["last_backup"] is None
    for _ in range(2):
        answer = cli("serve", "flows.py", "--timeout", "2")
        assert answer.code == 0, answer
    found = cli("status", "--json").object
    assert len(list((folder / "copies").glob("*.backup"))) == 1
    assert found["last_prune"]["result"] == "0 runs deleted"  # type: ignore[index]
    assert "copies/journal.db." in found["last_backup"]["result"]  # type: ignore[index]
    assert "backup" in cli("status").out


def test_a_configuration_with_a_mistake_is_refused(cli: Cli, folder: Path) -> None:
    (folder / "wfengine.toml").write_text('[backup]\nfolde = "copies"\n')
    answer = cli("serve", "flows.py")
    assert answer.code == 2
    assert "Did you mean 'folder'?" in answer.err
    assert not (folder / ".wfengine").exists()


def test_a_daemon_of_everything_applies_the_file_that_declares_deployments(cli: Cli, folder: Path) -> None:
    declared = '[[deployments]]\nname = "nightly"\nflow = "flows.py:etl"\nschedules = [{ cron = "0 3 * * *" }]\n'
    (folder / "wfengine.toml").write_text(declared)
    assert cli("serve", "--timeout", "0.1", "--no-config").code == 0
    assert deployments(cli) == []
    for _ in range(2):
        answer = cli("serve", "--timeout", "0.1")
        assert answer.code == 0, answer
        assert deployments(cli) == ["etl/nightly"]
    (folder / "wfengine.toml").write_text(declared.replace("cron", "crom"))
    answer = cli("serve", "--timeout", "0.1")
    assert (answer.code, "crom" in answer.err) == (2, True), answer
