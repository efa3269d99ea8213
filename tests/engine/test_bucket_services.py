"""Results in buckets against a server of each service's protocol: `bucket_service_cases`, each in a process of its own.

A process looks for an object that is missing in all buckets that it has used: those of another test would be asked too, when
their server is gone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.bucket_services import NO_AZURITE, SERVICES, find_azurite

pytestmark = pytest.mark.long

CASES = Path(__file__).with_name("bucket_service_cases.py")


@pytest.mark.timeout(600)  # a whole module of tests
@pytest.mark.parametrize("name", SERVICES)
def test_a_bucket_keeps_what_is_promised_on(name: str, tmp_path: Path) -> None:
    if name == "abfs" and find_azurite() is None:
        pytest.skip(NO_AZURITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--basetemp={tmp_path / 'base'}",
    ]
    done = subprocess.run(
        [*command, "-k", name, str(CASES)], cwd=CASES.parents[2], capture_output=True, text=True, timeout=560, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "passed" in done.stdout.splitlines()[-1]
