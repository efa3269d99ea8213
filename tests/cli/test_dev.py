"""`wfengine dev`: files are served anew when they change, and as they were while they have an error."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import Cli, environment

from tests.daemons import DaemonProcess
from wfengine.dev import snapshot, watched_folders

FLOW = """
from helper import ANSWER
from wfengine import flow

@flow
def etl():
    return ANSWER
"""


@pytest.fixture
def folder(cli: Cli) -> Path:
    (cli.folder / "etl.py").write_text(FLOW)
    (cli.folder / "helper.py").write_text("ANSWER = 1\n")
    return cli.folder


def developing(folder: Path) -> DaemonProcess:
    return DaemonProcess(folder, "-m", "wfengine", "dev", "etl.py", environment=environment())


def living(cli: Cli) -> list[object]:
    found = cli("status", "--json").object["daemons"]
    assert isinstance(found, list)
    return [daemon["pid"] for daemon in found if daemon["lives"]]


def test_a_changed_module_beside_the_file_is_served_by_a_fresh_interpreter(cli: Cli, folder: Path) -> None:
    with developing(folder) as dev:
        dev.wait_until_ready()
        (before,) = living(cli)
        (folder / "helper.py").write_text("ANSWER = 22\n")
        dev.wait_until_ready()
        (after,) = living(cli)
        assert before != after
        assert "dev: changed: helper.py" in dev.said
        assert dev.stop() == 0
    assert living(cli) == []


def test_while_a_file_has_an_error_the_old_daemon_goes_on(cli: Cli, folder: Path) -> None:
    with developing(folder) as dev:
        dev.wait_until_ready()
        before = living(cli)
        (folder / "etl.py").write_text("def broken(:\n")
        dev.wait_until("STATUS=dev: the daemon goes on with the code as it was")
        assert living(cli) == before
        assert "SyntaxError" in dev.said
        (folder / "etl.py").write_text(FLOW + "\n# mended\n")
        dev.wait_until_ready()
        assert len(living(cli)) == 1
        assert living(cli) != before
        assert dev.stop(signal.SIGINT) == 130


def test_a_file_that_has_an_error_at_first_is_served_once_it_is_mended(cli: Cli, folder: Path) -> None:
    (folder / "helper.py").write_text("ANSWER = no_such_name\n")
    with developing(folder) as dev:
        dev.wait_until("STATUS=dev: waiting for a change")
        (folder / "helper.py").write_text("ANSWER = 1\n")
        dev.wait_until_ready()
        assert len(living(cli)) == 1
        assert dev.stop() == 0


def test_the_daemon_ends_when_the_process_that_watches_is_killed(cli: Cli, folder: Path) -> None:
    with developing(folder) as dev:
        dev.wait_until_ready()
        (pid,) = living(cli)
        dev.kill()
        dev.wait_until("STOPPING=1")
        descriptor = os.pidfd_open(int(str(pid))) if hasattr(os, "pidfd_open") and Path(f"/proc/{pid}").exists() else None
        if descriptor is not None:
            _wait_for(descriptor)
    assert living(cli) == []


def _wait_for(descriptor: int) -> None:
    import select

    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)


def test_only_python_files_and_the_configuration_are_watched_and_no_environments(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "data.csv",
        "wfengine.toml",
        "sub/b.py",
        ".git/c.py",
        "__pycache__/d.py",
        "venv/pyvenv.cfg",
        "venv/e.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = sorted(Path(name).relative_to(tmp_path).as_posix() for name in snapshot([tmp_path]))
    assert found == ["a.py", "sub/b.py", "wfengine.toml"]
    assert watched_folders([f"{tmp_path}/a.py:etl", f"{tmp_path}/a.py"]) == [tmp_path]
    assert watched_folders(["some.module"]) == [Path.cwd()]
