"""Which peers there are, and an environment for each, made at the first use."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where the environments lie: some 2 GB; delete the folder to have them made anew.
ENVIRONMENTS = Path(__file__).parent / "environments"
PROGRAMS = Path(__file__).parent / "programs"


class MissingPeerError(Exception):
    """A peer cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One other engine: its pinned packages, how much work it is given, and what a finished step of it survives."""

    name: str
    packages: tuple[str, ...]
    module: str
    durable: str
    #: Tasks of a chain, tasks of a map, flows of three tasks: fewer where one takes long.
    counts: Mapping[str, int]
    python: str = ""  # another version than this one, such as '3.13'
    npm: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)  # '{folder}' stands for the program's working directory

    @property
    def program(self) -> Path:
        """The script that does the work."""
        return PROGRAMS / f"{self.name}_program.py"


def _counts(chain: int, fan_out: int, flows: int) -> dict[str, int]:
    return {"chain": chain, "fan_out": fan_out, "flows": flows}


PEERS = (
    Peer("dura", ("dura==1.3.0",), "dura", "power cut", _counts(500, 500, 100), python="3.13"),
    Peer("luigi", ("luigi==3.8.1",), "luigi", "kill -9 (a file a task, not synced)", _counts(300, 300, 50)),
    Peer(
        "restate", ("restate-sdk==1.3.0", "hypercorn==0.18.0"), "restate", "power cut", _counts(500, 500, 100),
        npm="@restatedev/restate-server@1.7.12",
    ),
    Peer("huey", ("huey==3.5.4",), "huey", "power cut for results; a pipeline is not resumed", _counts(200, 500, 50)),
    Peer("dbos", ("dbos==3.4.0",), "dbos", "power cut", _counts(200, 100, 50)),
    # Newer ones of fastapi have no argument that this Prefect gives.
    Peer(
        "prefect", ("prefect==3.7.2", "fastapi<0.120"), "prefect", "nothing yet: states are sent in the background",
        _counts(100, 100, 10),
        variables={
            "PREFECT_HOME": "{folder}", "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        },
    ),
    Peer("redun", ("redun==0.44.1",), "redun", "power cut", _counts(30, 30, 8)),
    Peer(
        "dagster", ("dagster==1.13.29",), "dagster", "power cut (event log)", _counts(10, 10, 3),
        variables={"DAGSTER_HOME": "{folder}"},
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with a peer's packages, and the variables its program needs."""

    python: Path
    variables: Mapping[str, str]


def make(peer: Peer) -> Environment:
    """Return the peer's environment, made now if it is not there. Raises MissingPeerError."""
    wanted = " ".join((*peer.packages, peer.python, peer.npm))
    folder = ENVIRONMENTS / f"{peer.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    done = folder / "done"
    if not done.exists():
        interpreter = _interpreter(peer.python)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _command([str(interpreter), "-m", "venv", str(folder / "python")])
        _command([str(folder / "python/bin/python"), "-m", "pip", "install", "-q", *peer.packages])
        if peer.npm:
            npm = shutil.which("npm")
            if npm is None:
                raise MissingPeerError("the program npm is not installed")
            _command([npm, "install", "--silent", "--no-audit", "--prefix", str(folder / "npm"), peer.npm])
        done.touch()
    variables = dict(peer.variables)
    if peer.npm:
        variables["RESTATE_SERVER"] = str(folder / "npm/node_modules/.bin/restate-server")
    return Environment(folder / "python/bin/python", variables)


def _interpreter(version: str) -> Path:
    if not version:
        return Path(sys.executable)
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    raise MissingPeerError(f"Python {version} is not installed")


def _command(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise MissingPeerError(f"{' '.join(arguments[-3:])}: {(done.stderr or done.stdout).strip()[-300:]}")
