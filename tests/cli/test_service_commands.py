"""`wfengine service show`: a unit that systemd itself finds right."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from command_line import Cli


def test_the_unit_runs_this_python_in_this_folder_on_this_journal(cli: Cli) -> None:
    answer = cli("service", "show", "etl.py", "--stop-timeout", "90")
    assert answer.code == 0
    assert f"WorkingDirectory={cli.folder}\n" in answer.out
    journal = cli.folder / ".wfengine" / "journal.db"
    assert f" -m wfengine serve etl.py --journal {journal} --stop-timeout 90\n" in answer.out
    assert "Type=notify" in answer.out
    assert "TimeoutStopSec=105" in answer.out
    assert cli("service", "show", "etl.py", "--stop-timeout", "90", "--json").object["unit"] == answer.out
    assert "WantedBy=default.target" in cli("service", "show", "--user").out


def test_a_name_that_cannot_stand_in_a_unit_is_refused(cli: Cli) -> None:
    answer = cli("service", "show", "a\nb.py")
    assert answer.code == 2
    assert "cannot stand in a unit file" in answer.err


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("name", ["etl.py", 'it\'s 100% "$HOME" \\ a flow.py', "Ärger.py"])
def test_systemd_accepts_the_unit(cli: Cli, name: str) -> None:
    unit = cli.folder / "etl.service"
    unit.write_text(cli("service", "show", name).out)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
